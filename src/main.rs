//! The `coterie` binary.

mod pieces;

use std::process::ExitCode;

fn main() -> ExitCode {
    coterie::cli::main()
}
