//! The `docker` command.

use std::process::{Command, Output};

/// Runs a `docker` command, which must succeed; returns what it printed.
#[track_caller]
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = try_docker(arguments);
    printed(&format!("docker {}", arguments.join(" ")), output)
}

/// Runs a `docker` command that may fail.
pub(crate) fn try_docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().expect("the docker command")
}

/// What a command printed; it must have succeeded.
#[track_caller]
pub(crate) fn printed(what: &str, output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} ended with {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
