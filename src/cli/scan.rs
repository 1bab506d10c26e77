//! `scan`: the keys of a keyspace, all pages one after the other.

use serde_json::{Map, Value};

use crate::cli::connection::Cluster;
use crate::cli::data::{KeyspaceArg, value_json};
use crate::cli::failure::{Effect, Failure};
use crate::cli::output::{self, Output};
use crate::client::{Level, Row};

/// Rows that one page is asked for.
const PAGE_ROWS: u32 = 1000;

/// `coterie scan`
#[derive(Debug, clap::Args)]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Only keys that begin with this.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// So many keys at most; all unless it is said.
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Leave values out.
    #[arg(long)]
    keys_only: bool,
    /// One JSON object on each line; the same as --output json.
    #[arg(long)]
    json: bool,
    /// Go on behind this cursor, which an interrupted scan has told.
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Of a quorum keyspace: replicas that must answer: one, quorum or all.
    #[arg(long)]
    level: Option<Level>,
}

/// Prints page after page as it comes.
pub(crate) async fn scan(cluster: &Cluster, args: ScanArgs, out: Output) -> Result<(), Failure> {
    let out = if args.json { Output::Json } else { out };
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut cursor = args.cursor;
    let keyspace = cluster.client()?.keyspace(args.keyspace.name);
    loop {
        let limit = u32::try_from(left).unwrap_or(PAGE_ROWS).min(PAGE_ROWS);
        let list = keyspace.list().prefix(args.prefix.as_str()).limit(limit).level(args.level);
        let page = list.keys_only(args.keys_only).cursor(cursor.clone()).await;
        let page = page.map_err(|error| {
            if let Some(cursor) = &cursor {
                eprintln!("interrupted; go on with --cursor {cursor}");
            }
            Failure::of_client(error, Effect::Reads)
        })?;
        let lines: String = page.rows.iter().map(|row| line(row, out)).collect();
        let is_read = output::write_while_read(lines.as_bytes())?;
        left = left.saturating_sub(page.rows.len() as u64);
        cursor = page.cursor;
        if left == 0 || cursor.is_none() || !is_read {
            return Ok(());
        }
    }
}

fn line(row: &Row, out: Output) -> String {
    match out {
        Output::Json => format!("{}\n", json(row)),
        Output::Table => format!("{}\n", text(row)),
    }
}

/// A text whose control characters are escaped, so that it stays on its line and nothing in it
/// moves the cursor of a terminal.
pub(crate) fn escaped(text: &str) -> String {
    let one = |char: char| match char {
        '\\' => "\\\\".to_owned(),
        char if char.is_control() => char.escape_default().to_string(),
        char => char.to_string(),
    };
    text.chars().map(one).collect()
}

/// The key alone, or with its value behind a tab.
fn text(row: &Row) -> String {
    let key = escaped(&row.key);
    match row.value.as_ref().map(|value| value_json(value)) {
        None => key,
        Some(("value", text)) => format!("{key}\t{}", escaped(&text)),
        Some((_, digits)) => format!("{key}\t0x{digits}"),
    }
}

/// The same fields as in the rows of HTTP answers.
fn json(row: &Row) -> Value {
    let mut body = Map::new();
    body.insert("key".into(), row.key.as_str().into());
    if let Some((name, text)) = row.value.as_ref().map(|value| value_json(value)) {
        body.insert(name.into(), text.into());
    }
    body.insert("version".into(), row.version.as_str().into());
    if let Some(expires_at_ms) = row.expires_at_ms {
        body.insert("expires_at_ms".into(), expires_at_ms.into());
    }
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clap::Parser;
    use serde_json::json;

    use super::*;

    fn row(value: Option<&'static [u8]>) -> Row {
        let value = value.map(Bytes::from_static);
        Row {
            key: "a\tb".to_owned(),
            value,
            version: "01-02".to_owned(),
            expires_at_ms: None,
            siblings: 1,
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        scan: ScanArgs,
    }

    #[test]
    fn a_limit_is_one_at_least() {
        let parse = |line: &str| Line::try_parse_from(line.split(' ')).map(|line| line.scan);
        let args = parse("scan -k orders --prefix user: --limit 10 --keys-only --json");
        assert_eq!(args.expect("parses").limit, Some(10));
        assert!(parse("scan --limit 0").is_err());
    }

    #[test]
    fn a_row_is_one_line() {
        assert_eq!(text(&row(None)), "a\\tb");
        assert_eq!(text(&row(Some(b"x\ny\\"))), "a\\tb\tx\\ny\\\\");
        assert_eq!(text(&row(Some(&[0xff, 1]))), "a\\tb\t0xff01");
    }

    #[test]
    fn json_has_the_fields_of_http_rows() {
        let expected = json!({ "key": "a\tb", "value": "v", "version": "01-02" });
        assert_eq!(json(&row(Some(b"v"))), expected);
        let ending = Row { expires_at_ms: Some(9), ..row(Some(&[0xff])) };
        let (told, hex) = (json(&ending), json!("ff"));
        assert_eq!((&told["value_hex"], &told["expires_at_ms"]), (&hex, &json!(9)));
    }
}
