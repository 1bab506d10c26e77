//! `watch`: what changes in a strong keyspace, as it does.

use serde_json::{Map, Value, json};

use crate::cli::connection::Cluster;
use crate::cli::data::value_json;
use crate::cli::failure::{Effect, Failure};
use crate::cli::output::{self, Output};
use crate::cli::scan::escaped;
use crate::cli::signal::StopSignals;
use crate::client::{Changes, ClientError, Event, Watching};

/// `coterie watch`
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArgs {
    /// The keyspace, whose mode must be strong.
    #[arg(value_name = "KEYSPACE")]
    watched_keyspace: String,
    /// One key; without it, and without --prefix, all keys.
    #[arg(conflicts_with = "prefix")]
    key: Option<String>,
    /// Only keys that begin with this.
    #[arg(short, long)]
    prefix: Option<String>,
    /// Go on behind what an earlier watch has told, by the token that it ended with.
    #[arg(long, value_name = "TOKEN")]
    from: Option<String>,
    /// One JSON object on each line; the same as --output json.
    #[arg(long)]
    json: bool,
}

/// Prints changes until it is stopped, or the watch is lost.
pub(crate) async fn watch(cluster: &Cluster, args: WatchArgs, out: Output) -> Result<(), Failure> {
    let out = if args.json { Output::Json } else { out };
    let mut signals = StopSignals::new()?;
    let mut watch = cluster.client()?.keyspace(args.watched_keyspace).watch().from(args.from);
    if let Some(key) = args.key {
        watch = watch.key(key);
    } else if let Some(prefix) = args.prefix {
        watch = watch.prefix(prefix);
    }
    let begun = tokio::select! { biased;
        _ = signals.recv() => return Ok(()),
        begun = watch.send() => begun,
    };
    let mut watching = begun.map_err(|error| Failure::of_client(error, Effect::Reads))?;
    let mut lines = begun_lines(&watching, out);
    loop {
        if !output::write_while_read(lines.as_bytes())? {
            return Ok(());
        }
        let changes = tokio::select! { biased;
            _ = signals.recv() => {
                say_where_to_go_on(&watching);
                return Ok(());
            }
            changes = watching.next() => changes,
        };
        lines = match changes {
            Ok(changes) => lines_of(&changes, out),
            Err(error) => {
                if !matches!(error, ClientError::WatchLost { .. }) {
                    say_where_to_go_on(&watching);
                }
                return Err(Failure::of_client(error, Effect::Reads));
            }
        };
    }
}

fn say_where_to_go_on(watching: &Watching) {
    eprintln!("interrupted; go on with --from {}", watching.token());
}

fn begun_lines(watching: &Watching, out: Output) -> String {
    match out {
        Output::Json => format!("{}\n", json!({ "event": "created", "token": watching.token() })),
        Output::Table => String::new(),
    }
}

/// A line for each change; for programs also one that says how far the watch has come by them.
fn lines_of(changes: &Changes, out: Output) -> String {
    let Changes { events, token } = changes;
    match out {
        Output::Table => events.iter().map(|event| format!("{}\n", text(event))).collect(),
        Output::Json => {
            let progress = json!({ "event": "progress", "token": token });
            let lines = events.iter().map(json_of).chain([progress]);
            lines.map(|line| format!("{line}\n")).collect()
        }
    }
}

/// What happened, the key, and its value behind a tab.
fn text(event: &Event) -> String {
    let key = escaped(&event.key);
    match event.value.as_ref().map(|value| value_json(value)) {
        None => format!("delete\t{key}"),
        Some(("value", text)) => format!("put\t{key}\t{}", escaped(&text)),
        Some((_, digits)) => format!("put\t{key}\t0x{digits}"),
    }
}

/// The same fields as in the lines of HTTP answers.
fn json_of(event: &Event) -> Value {
    let mut body = Map::new();
    let kind = if event.value.is_some() { "put" } else { "delete" };
    body.insert("event".into(), kind.into());
    body.insert("key".into(), event.key.as_str().into());
    if let Some((name, text)) = event.value.as_ref().map(|value| value_json(value)) {
        body.insert(name.into(), text.into());
    }
    body.insert("version".into(), event.version.as_str().into());
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(value: Option<&'static [u8]>) -> Event {
        let value = value.map(Bytes::from_static);
        Event { key: "a\tb".to_owned(), value, version: "01-02".to_owned() }
    }

    #[test]
    fn a_change_is_a_line_whatever_is_in_it() {
        assert_eq!(text(&event(Some(b"v\nw"))), "put\ta\\tb\tv\\nw");
        assert_eq!(text(&event(Some(b"\xff"))), "put\ta\\tb\t0xff");
        assert_eq!(text(&event(None)), "delete\ta\\tb");
    }

    #[test]
    fn programs_hear_how_far_the_watch_has_come() {
        let events = vec![event(Some(b"v")), event(None)];
        let lines = lines_of(&Changes { events, token: "t".to_owned() }, Output::Json);
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let expected = [
            json!({ "event": "put", "key": "a\tb", "value": "v", "version": "01-02" }),
            json!({ "event": "delete", "key": "a\tb", "version": "01-02" }),
            json!({ "event": "progress", "token": "t" }),
        ];
        assert_eq!(lines, expected);
        let nothing = Changes { events: Vec::new(), token: "t".to_owned() };
        assert_eq!(lines_of(&nothing, Output::Table), "");
    }
}
