//! `put`, `get` and `delete`, and how receipts and values are shown.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::cli::connection::Cluster;
use crate::cli::failure::{Effect, Exit, Failure};
use crate::cli::output::{self, Output};
use crate::cli::positive_duration;
use crate::client::{ClientError, Consistency, Level, Receipt, Value as Found};

/// `coterie put KEY [VALUE]`
#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// The key, UTF-8.
    key: String,
    /// The value; `-`, or nothing, reads it from stdin, byte by byte as it is.
    #[arg(allow_hyphen_values = true)]
    value: Option<String>,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    #[command(flatten)]
    write: WriteArgs,
    /// Of a quorum keyspace: how long the value lives, such as 30s or 2h, up to 3650d; without it
    /// the value stays.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    ttl: Option<Duration>,
}

/// Where a key lies.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyspaceArg {
    /// The key's keyspace; the default keyspace unless named.
    #[arg(id = "keyspace", short = 'k', long = "keyspace", value_name = "NAME")]
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) name: String,
}

/// `coterie delete KEY`
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// The key, UTF-8.
    key: String,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    /// Replicas that must have it durably: one, quorum or all.
    #[arg(long, conflicts_with = "w")]
    pub(crate) level: Option<Level>,
    /// The same by number (W).
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) w: Option<u32>,
    /// Whether fallback replicas may count; without it the node's setting decides.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    pub(crate) sloppy: Option<bool>,
    /// What was seen of this key before, as a receipt has it (its version, or its context): this
    /// write will be above it, and of several siblings replaces those that were seen.
    #[arg(long, value_name = "CONTEXT", default_value = "", hide_default_value = true)]
    pub(crate) context: String,
}

/// `coterie get KEY`
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// The key, UTF-8.
    key: String,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    /// Replicas that must answer: one, quorum or all.
    #[arg(long, conflicts_with = "r")]
    level: Option<Level>,
    /// The same by number (R).
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    r: Option<u32>,
    /// What was seen of this key before, as a receipt has it (its version, or its context): the
    /// answer knows of that, or fails.
    #[arg(long, value_name = "CONTEXT", default_value = "", hide_default_value = true)]
    context: String,
    /// Of a keyspace that keeps siblings: fail where the key has several.
    #[arg(long)]
    one: bool,
    /// Of a strong keyspace: how fresh the value must be; linearizable unless said.
    #[arg(long, value_enum, value_name = "PROMISE")]
    consistency: Option<Promise>,
    /// With --consistency stale: how old the value may be, such as 500ms.
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    #[arg(requires = "consistency", required_if_eq("consistency", "stale"))]
    max_staleness: Option<Duration>,
    /// Write the value to a file instead of stdout.
    #[arg(short, long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Never add a newline; without it, one is added when stdout is a terminal.
    #[arg(long)]
    raw: bool,
}

/// How fresh a read of a strong keyspace must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Promise {
    /// It sees every write that was acknowledged before it began.
    Linearizable,
    /// The same while clocks run at much the same rate; the leader relies on its lease, if
    /// the nodes are set to `--lease-reads`.
    Lease,
    /// It sees all that was committed --max-staleness ago; any replica may answer.
    Stale,
}

pub(crate) async fn put(cluster: &Cluster, args: PutArgs, out: Output) -> Result<(), Failure> {
    let value = value_or_stdin(args.value.as_deref())?;
    let WriteArgs { level, w, sloppy, context } = args.write;
    let put = cluster.client()?.keyspace(args.keyspace.name).put(&args.key, value);
    let receipt = put.level(level).w(w).sloppy(sloppy).context(context).ttl(args.ttl).await;
    print_receipt(out, "written", &args.key, &receipt.map_err(written)?)
}

pub(crate) async fn delete(
    cluster: &Cluster,
    args: DeleteArgs,
    out: Output,
) -> Result<(), Failure> {
    let WriteArgs { level, w, sloppy, context } = args.write;
    let delete = cluster.client()?.keyspace(args.keyspace.name).delete(&args.key);
    let receipt = delete.level(level).w(w).sloppy(sloppy).context(context).await;
    print_receipt(out, "deleted", &args.key, &receipt.map_err(written)?)
}

pub(crate) async fn get(cluster: &Cluster, args: GetArgs, out: Output) -> Result<(), Failure> {
    let get = cluster.client()?.keyspace(&args.keyspace.name).get(&args.key);
    let get = get.level(args.level).r(args.r).context(&args.context);
    let get = get.consistency(consistency(&args));
    match get.one(args.one).await.map_err(|error| Failure::of_client(error, Effect::Reads))? {
        Some(found) if found.siblings.len() > 1 => print_siblings(&args, out, &found),
        Some(found) => print_value(&args, out, &found),
        None => Err(Failure::new(Exit::NotFound, format!("key {:?} has no value", args.key))),
    }
}

/// What came of a write that failed.
pub(crate) fn written(error: ClientError) -> Failure {
    Failure::of_client(error, Effect::Writes)
}

fn print_value(
    args: &GetArgs,
    out: Output,
    Found { bytes: value, elements, receipt, .. }: &Found,
) -> Result<(), Failure> {
    if let Some(file) = &args.out {
        let failed = |error| Failure::failed(format!("cannot write {}: {error}", file.display()));
        std::fs::write(file, value).map_err(failed)?;
        return print_receipt(out, "read", &args.key, receipt);
    }
    if out == Output::Json {
        let text = elements.is_empty().then(|| value_json(value));
        let mut body = answer_json(&args.key, text, receipt);
        if !elements.is_empty() {
            body["elements"] = json!(elements);
        }
        return output::json(&body);
    }
    output::write(value)?;
    if !args.raw && std::io::stdout().is_terminal() { output::write(b"\n") } else { Ok(()) }
}

/// Each sibling on a line of its own, and what to do with them beside it.
fn print_siblings(args: &GetArgs, out: Output, found: &Found) -> Result<(), Failure> {
    if args.out.is_some() {
        let count = found.siblings.len();
        let told =
            format!("key {:?} has {count} siblings, which do not go into one file", args.key);
        return Err(Failure::failed(told));
    }
    let context = found.receipt.context.as_deref().unwrap_or_default();
    if out == Output::Json {
        let value = |bytes: &Bytes| {
            let (name, text) = value_json(bytes);
            json!({ name: text })
        };
        let mut body = answer_json(&args.key, None, &found.receipt);
        body["values"] = found.siblings.iter().map(value).collect();
        return output::json(&body);
    }
    for sibling in &found.siblings {
        output::write(sibling)?;
        output::write(b"\n")?;
    }
    let count = found.siblings.len();
    eprintln!("note: {count} siblings; a put with --context {context} replaces them");
    Ok(())
}

/// A value in JSON: text as `value`; bytes that are none as `value_hex`.
pub(crate) fn value_json(value: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(value) {
        Ok(text) => ("value", text.to_owned()),
        Err(_) => ("value_hex", value.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// What was given, or for `-` and nothing what comes by stdin.
pub(crate) fn value_or_stdin(given: Option<&str>) -> Result<Bytes, Failure> {
    match given {
        Some(value) if value != "-" => Ok(Bytes::copy_from_slice(value.as_bytes())),
        _ => read_stdin(),
    }
}

fn read_stdin() -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut value);
    read.map_err(|error| Failure::failed(format!("cannot read the value from stdin: {error}")))?;
    Ok(Bytes::from(value))
}

/// What a read promises, if it was said.
fn consistency(args: &GetArgs) -> Option<Consistency> {
    Some(match args.consistency? {
        Promise::Linearizable => Consistency::Linearizable,
        Promise::Lease => Consistency::Lease,
        Promise::Stale => {
            Consistency::Stale { max_staleness: args.max_staleness.unwrap_or_default() }
        }
    })
}

pub(crate) fn print_receipt(
    out: Output,
    done: &str,
    key: &str,
    receipt: &Receipt,
) -> Result<(), Failure> {
    match out {
        Output::Json => output::json(&answer_json(key, None, receipt)),
        Output::Table => output::line(&receipt_text(done, receipt)),
    }
}

/// The same fields as in the bodies of HTTP answers.
pub(crate) fn answer_json(key: &str, value: Option<(&str, String)>, receipt: &Receipt) -> Value {
    let mut body = Map::new();
    body.insert("key".into(), key.into());
    if let Some((name, text)) = value {
        body.insert(name.into(), text.into());
    }
    let version = Some(&receipt.version).filter(|version| !version.is_empty());
    let fields = json!({
        "version": version,
        "required": receipt.required,
        "replicas": receipt.replicas,
        "acknowledged": receipt.acknowledged,
        "hinted": receipt.hinted,
        "fallbacks": receipt.fallbacks,
        "repaired": receipt.repaired,
        "under_replicated": receipt.under_replicated,
    });
    if let Value::Object(fields) = fields {
        body.extend(fields);
    }
    for (name, text) in [("consistency", &receipt.consistency), ("leader", &receipt.leader)] {
        if let Some(text) = text {
            body.insert(name.into(), text.as_str().into());
        }
    }
    if !receipt.unseen.is_empty() {
        body.insert("unseen".into(), json!(receipt.unseen));
    }
    if let Some(expires_at_ms) = receipt.expires_at_ms {
        body.insert("expires_at_ms".into(), expires_at_ms.into());
    }
    if let Some(siblings) = receipt.siblings {
        body.insert("siblings".into(), siblings.into());
    }
    if let Some(context) = &receipt.context {
        body.insert("context".into(), context.as_str().into());
    }
    Value::Object(body)
}

/// A receipt in one line, with what is not as usual.
fn receipt_text(done: &str, receipt: &Receipt) -> String {
    let version = if receipt.version.is_empty() { "none" } else { &receipt.version };
    if let Some(consistency) = &receipt.consistency {
        return strong_receipt_text(done, version, consistency, receipt);
    }
    let mut text = format!(
        "{done}: version {version}, {} of {} replicas ({} required)",
        receipt.acknowledged.len(),
        receipt.replicas,
        receipt.required
    );
    let mut add = |what: &str, nodes: &[String]| {
        if !nodes.is_empty() {
            text.push_str(&format!(", {what} {}", nodes.join(" ")));
        }
    };
    add("hinted for", &receipt.hinted);
    add("sloppy: fallbacks", &receipt.fallbacks);
    add("repaired", &receipt.repaired);
    if let Some(expires_at_ms) = receipt.expires_at_ms {
        text.push_str(&format!(", expires at {expires_at_ms} ms of Unix time"));
    }
    for unseen in &receipt.unseen {
        // Versions of quorum keyspaces are compared as text.
        let fate = if *unseen < receipt.version { "replaced" } else { "was replaced by" };
        text.push_str(&format!(", {fate} concurrent version {unseen}"));
    }
    if let Some(siblings) = receipt.siblings.filter(|siblings| *siblings > 1) {
        text.push_str(&format!(", one of {siblings} siblings"));
    }
    if receipt.under_replicated {
        text.push_str(", fewer members than replicas wanted");
    }
    text
}

/// The same for a strong keyspace, whose groups decide by their majorities.
fn strong_receipt_text(done: &str, version: &str, consistency: &str, receipt: &Receipt) -> String {
    let mut text = format!("{done}: version {version}, {consistency}");
    if let Some(leader) = &receipt.leader {
        text.push_str(&format!(", led by {leader}"));
    }
    if receipt.under_replicated {
        text.push_str(", fewer members than replicas wanted");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            version: "01-02".into(),
            required: 2,
            replicas: 3,
            acknowledged: vec!["a".into(), "b".into()],
            hinted: vec!["c".into()],
            ..Receipt::default()
        }
    }

    #[test]
    fn a_receipt_tells_in_one_line_what_held() {
        let text = receipt_text("written", &receipt());
        assert_eq!(text, "written: version 01-02, 2 of 3 replicas (2 required), hinted for c");
    }

    #[test]
    fn a_receipt_tells_when_the_value_ends() {
        let ending = Receipt { expires_at_ms: Some(1_767_225_630_000), ..receipt() };
        let text = receipt_text("written", &ending);
        assert!(text.ends_with("for c, expires at 1767225630000 ms of Unix time"), "{text}");
        assert_eq!(answer_json("k", None, &ending)["expires_at_ms"], 1_767_225_630_000_u64);
        assert_eq!(answer_json("k", None, &receipt()).get("expires_at_ms"), None);
    }

    #[test]
    fn a_receipt_tells_of_concurrent_versions() {
        let unseen = vec!["01-01".into(), "01-03".into()];
        let met = Receipt { unseen, ..receipt() };
        let text = receipt_text("written", &met);
        assert!(text.contains(", replaced concurrent version 01-01, was replaced by"), "{text}");
        assert!(text.ends_with("was replaced by concurrent version 01-03"), "{text}");
        assert_eq!(answer_json("k", None, &met)["unseen"], json!(["01-01", "01-03"]));
        assert_eq!(answer_json("k", None, &receipt()).get("unseen"), None);
    }

    #[test]
    fn a_receipt_of_a_strong_keyspace_tells_its_promise_and_its_leader() {
        let (consistency, leader) = (Some("linearizable".into()), Some("a".into()));
        let strong = Receipt { version: "01-02".into(), consistency, leader, ..receipt() };
        let text = receipt_text("written", &strong);
        assert_eq!(text, "written: version 01-02, linearizable, led by a");
        let body = answer_json("k", None, &strong);
        assert_eq!((&body["consistency"], &body["leader"]), (&json!("linearizable"), &json!("a")));
        assert_eq!(answer_json("k", None, &receipt()).get("leader"), None);
    }

    #[test]
    fn json_has_the_fields_of_http_answers() {
        let body = answer_json("k", Some(value_json(b"v")), &receipt());
        assert_eq!(body["key"], "k");
        assert_eq!(body["value"], "v");
        assert_eq!(body["version"], "01-02");
        assert_eq!(body["hinted"], json!(["c"]));
        assert_eq!(body["under_replicated"], false);
        let nothing = answer_json("k", None, &Receipt::default());
        assert_eq!((&nothing["version"], nothing.get("value")), (&Value::Null, None));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hexadecimal() {
        assert_eq!(value_json(&[0xff, 0x01]), ("value_hex", "ff01".to_owned()));
    }
}
