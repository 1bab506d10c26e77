//! What commands print: to stdout, in a form for people or for programs.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use crate::cli::failure::Failure;

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Writes bytes to stdout; a reader that went away is no failure.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    write_while_read(bytes).map(|_| ())
}

/// Writes bytes to stdout; false when the reader went away, so that no more need be made.
pub(crate) fn write_while_read(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("cannot write to stdout: {error}"))),
    }
}

/// Writes a line, or several.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
}

/// Writes a JSON document, indented.
pub(crate) fn json(value: &serde_json::Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// A table without borders; the columns named are aligned right.
pub(crate) fn table(header: &[&str], numeric: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec()).add_rows(rows);
    for (index, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if numeric.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["bcd".into(), "20".into()]];
        let text = table(&["NAME", "COUNT"], &["COUNT"], rows);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["NAME  COUNT", "a         1", "bcd      20"]);
    }
}
