//! `coterie keyspace`: list, describe, create, alter and drop.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

use crate::cli::connection::Cluster;
use crate::cli::failure::{Effect, Exit, Failure};
use crate::cli::groups;
use crate::cli::output::{self, Output, table};
use crate::config::units::{parse_size, show_size};
use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;

/// What to do with keyspaces.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeyspaceCommand {
    /// Create a keyspace.
    Create {
        /// Its name: a-z, 0-9, `_` and `-`, beginning with a letter.
        name: String,
        /// What it promises; it stays so.
        #[arg(long, value_enum, default_value_t)]
        mode: Mode,
        /// How copies of a key that differ become one, in a quorum keyspace; it stays so.
        #[arg(long, value_enum, default_value_t)]
        merge: Merge,
        #[command(flatten)]
        replication: ReplicationArgs,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Show all keyspaces.
    List,
    /// Show one keyspace.
    Describe {
        /// Its name.
        name: String,
    },
    /// Change N, R or W of a quorum keyspace (those of a strong one are fixed), or limits of any.
    Alter {
        /// Its name.
        name: String,
        #[command(flatten)]
        replication: ReplicationArgs,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Drop a keyspace with all its keys.
    Drop {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// What a keyspace promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Leaderless and always writable, N, R and W as you like.
    #[default]
    Quorum,
    /// Linearizable: the replicas of each partition run Raft.
    Strong,
}

/// How copies of a key that differ become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Merge {
    /// The last writer wins.
    #[default]
    Lww,
    /// Values that were written concurrently all stand, until a write that has seen them.
    Siblings,
    /// Each key is a number to which all additions count.
    Counter,
    /// Each key is a set of texts; an addition wins over a removal that had not seen it.
    Set,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ReplicationArgs {
    /// N: replicas of every key.
    #[arg(short, long = "replication-factor", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    n: Option<u32>,
    /// R: replicas that answer a read by default.
    #[arg(short, long = "read-quorum", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    r: Option<u32>,
    /// W: replicas that acknowledge a write by default.
    #[arg(short, long = "write-quorum", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    w: Option<u32>,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct LimitArgs {
    /// Reads and writes that clients may do in a second through each node; 0 for no limit.
    #[arg(long = "limit-operations", value_name = "COUNT")]
    operations: Option<u64>,
    /// Bytes of keys and values likewise, such as 10MiB.
    #[arg(long = "limit-bytes", value_name = "SIZE", value_parser = parse_size)]
    bytes: Option<u64>,
}

/// Runs a command.
///
/// # Errors
/// What the cluster refused, or that no node could be asked.
pub(crate) async fn run(
    cluster: &Cluster,
    command: KeyspaceCommand,
    out: Output,
) -> Result<(), Failure> {
    match command {
        KeyspaceCommand::Create { name, mode, merge, replication, limits } => {
            create(cluster, name, (mode, merge), (replication, limits), out).await
        }
        KeyspaceCommand::List => print_all(&list(cluster).await?, out),
        KeyspaceCommand::Describe { name } => describe(cluster, &name, out).await,
        KeyspaceCommand::Alter { name, replication, limits } => {
            alter(cluster, name, (replication, limits), out).await
        }
        KeyspaceCommand::Drop { name, yes } => drop(cluster, name, yes, out).await,
    }
}

async fn create(
    cluster: &Cluster,
    name: String,
    (mode, merge): (Mode, Merge),
    (replication, limits): (ReplicationArgs, LimitArgs),
    out: Output,
) -> Result<(), Failure> {
    let mode_name = match mode {
        Mode::Quorum => "quorum",
        Mode::Strong => "strong",
    };
    let merge = match merge {
        Merge::Lww => "lww",
        Merge::Siblings => "siblings",
        Merge::Counter => "counter",
        Merge::Set => "set",
    };
    let message = v1::CreateKeyspaceRequest {
        name,
        mode: mode_name.to_owned(),
        replication_factor: replication.n.unwrap_or(0),
        read_quorum: replication.r.unwrap_or(0),
        write_quorum: replication.w.unwrap_or(0),
        limit_operations_per_second: limits.operations,
        limit_bytes_per_second: limits.bytes,
        merge: merge.to_owned(),
    };
    let call = async |channel| {
        AdminClient::new(channel).create_keyspace(cluster.request(message.clone())).await
    };
    let answer = cluster.ask(Effect::Operates, call).await?.into_inner();
    // So that the next command finds it served.
    if mode == Mode::Strong
        && let Err(reason) = groups::await_leaders(cluster).await
    {
        eprintln!("note: the keyspace is there, but {reason}; writes to those wait");
    }
    print_one("created", &answer.keyspace.unwrap_or_default(), out)
}

async fn alter(
    cluster: &Cluster,
    name: String,
    (replication, limits): (ReplicationArgs, LimitArgs),
    out: Output,
) -> Result<(), Failure> {
    let message = v1::AlterKeyspaceRequest {
        name,
        replication_factor: replication.n.unwrap_or(0),
        read_quorum: replication.r.unwrap_or(0),
        write_quorum: replication.w.unwrap_or(0),
        limit_operations_per_second: limits.operations,
        limit_bytes_per_second: limits.bytes,
    };
    let call = async |channel| {
        AdminClient::new(channel).alter_keyspace(cluster.request(message.clone())).await
    };
    let answer = cluster.ask(Effect::Operates, call).await?.into_inner();
    print_one("altered", &answer.keyspace.unwrap_or_default(), out)
}

async fn drop(cluster: &Cluster, name: String, yes: bool, out: Output) -> Result<(), Failure> {
    if !yes {
        confirm(&name)?;
    }
    let message = v1::DropKeyspaceRequest { name: name.clone() };
    let call = async |channel| {
        AdminClient::new(channel).drop_keyspace(cluster.request(message.clone())).await
    };
    cluster.ask(Effect::Operates, call).await?;
    match out {
        Output::Json => output::json(&json!({ "dropped": name })),
        Output::Table => output::line(&format!("dropped {name} with all its keys")),
    }
}

/// Has whoever sits at the terminal type the name once more.
fn confirm(name: &str) -> Result<(), Failure> {
    let refusal = "the keyspace was not dropped";
    if !std::io::stdin().is_terminal() {
        let right = "give --yes to drop it with all its keys";
        return Err(Failure::usage(format!("{refusal}: {right}")));
    }
    eprint!("This drops keyspace {name} with all its keys. Type its name to go on: ");
    let mut typed = String::new();
    let read = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut typed));
    read.map_err(|error| Failure::failed(format!("{refusal}: cannot read the answer: {error}")))?;
    if typed.trim() == name {
        return Ok(());
    }
    Err(Failure::failed(format!("{refusal}: {:?} is not its name", typed.trim())))
}

async fn describe(cluster: &Cluster, name: &str, out: Output) -> Result<(), Failure> {
    let keyspaces = list(cluster).await?;
    let found = keyspaces.iter().find(|keyspace| keyspace.name == name);
    let missing = || Failure::new(Exit::NotFound, format!("there is no keyspace {name:?}"));
    let keyspace = found.ok_or_else(missing)?;
    match out {
        Output::Json => output::json(&keyspace_json(keyspace)),
        Output::Table => output::line(&description(keyspace)),
    }
}

async fn list(cluster: &Cluster) -> Result<Vec<v1::Keyspace>, Failure> {
    let call = async |channel| {
        let request = cluster.request(v1::ListKeyspacesRequest {});
        AdminClient::new(channel).list_keyspaces(request).await
    };
    Ok(cluster.ask(Effect::Reads, call).await?.into_inner().keyspaces)
}

fn print_all(keyspaces: &[v1::Keyspace], out: Output) -> Result<(), Failure> {
    match out {
        Output::Json => {
            let all: Vec<Value> = keyspaces.iter().map(keyspace_json).collect();
            output::json(&json!({ "keyspaces": all }))
        }
        Output::Table => output::line(&keyspaces_table(keyspaces)),
    }
}

fn print_one(done: &str, keyspace: &v1::Keyspace, out: Output) -> Result<(), Failure> {
    match out {
        Output::Json => output::json(&keyspace_json(keyspace)),
        Output::Table => output::line(&format!("{done} {}", in_short(keyspace))),
    }
}

fn keyspaces_table(keyspaces: &[v1::Keyspace]) -> String {
    let row = |keyspace: &v1::Keyspace| {
        vec![
            keyspace.name.clone(),
            keyspace.id.to_string(),
            keyspace.mode.clone(),
            keyspace.replication_factor.to_string(),
            keyspace.read_quorum.to_string(),
            keyspace.write_quorum.to_string(),
            notes(keyspace),
        ]
    };
    let header = ["NAME", "ID", "MODE", "N", "R", "W", "NOTES"];
    table(&header, &["ID", "N", "R", "W"], keyspaces.iter().map(row).collect())
}

/// What is not as usual.
fn notes(keyspace: &v1::Keyspace) -> String {
    let weak = keyspace.weak.then(|| String::from("weak"));
    let merges = merge_text(keyspace).map(str::to_owned);
    weak.into_iter().chain(merges).chain(limits_text(keyspace)).collect::<Vec<_>>().join(", ")
}

/// How it merges, where that is not as usual.
fn merge_text(keyspace: &v1::Keyspace) -> Option<&str> {
    Some(keyspace.merge.as_str()).filter(|merge| !["", "lww"].contains(merge))
}

fn limits_text(keyspace: &v1::Keyspace) -> Option<String> {
    let operations = keyspace.limit_operations_per_second.map(|limit| format!("{limit} ops/s"));
    let bytes = keyspace.limit_bytes_per_second.map(|limit| format!("{}/s", show_size(limit)));
    let limits: Vec<String> = operations.into_iter().chain(bytes).collect();
    (!limits.is_empty()).then(|| format!("at most {} on each node", limits.join(" and ")))
}

fn in_short(keyspace: &v1::Keyspace) -> String {
    let v1::Keyspace { name, mode, replication_factor, read_quorum, write_quorum, .. } = keyspace;
    let text = format!("{name}: {mode}, N={replication_factor} R={read_quorum} W={write_quorum}");
    let merges = merge_text(keyspace).map(str::to_owned);
    let more = merges.into_iter().chain(limits_text(keyspace));
    [text].into_iter().chain(more).collect::<Vec<_>>().join(", ")
}

fn description(keyspace: &v1::Keyspace) -> String {
    let promise = match (keyspace.mode.as_str(), keyspace.weak) {
        ("strong", _) => "linearizable reads and writes; a majority of each key's replicas decides",
        (_, false) => {
            "a read sees every write that was acknowledged before, while no quorum is sloppy"
        }
        (_, true) => "a read may miss the newest acknowledged write, since R + W does not exceed N",
    };
    format!("{} (id {})\n{promise}", in_short(keyspace), keyspace.id)
}

fn keyspace_json(keyspace: &v1::Keyspace) -> Value {
    json!({
        "name": keyspace.name,
        "id": keyspace.id,
        "mode": keyspace.mode,
        "merge": keyspace.merge,
        "replication_factor": keyspace.replication_factor,
        "read_quorum": keyspace.read_quorum,
        "write_quorum": keyspace.write_quorum,
        "weak": keyspace.weak,
        "limit_operations_per_second": keyspace.limit_operations_per_second,
        "limit_bytes_per_second": keyspace.limit_bytes_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyspace(name: &str, mode: &str, weak: bool) -> v1::Keyspace {
        let (name, mode) = (name.to_owned(), mode.to_owned());
        let (replication_factor, read_quorum, write_quorum) = (3, 1, 2);
        let merge = "lww".to_owned();
        let keyspace = v1::Keyspace { name, id: 4, mode, merge, weak, ..Default::default() };
        v1::Keyspace { replication_factor, read_quorum, write_quorum, ..keyspace }
    }

    #[test]
    fn the_table_has_one_line_for_each() {
        let text =
            keyspaces_table(&[keyspace("a", "strong", false), keyspace("b", "quorum", true)]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let expected = [
            "NAME  ID  MODE    N  R  W  NOTES",
            "a      4  strong  3  1  2",
            "b      4  quorum  3  1  2  weak",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn limits_are_told_wherever_a_keyspace_is() {
        let limited = v1::Keyspace {
            limit_operations_per_second: Some(100),
            limit_bytes_per_second: Some(1 << 20),
            ..keyspace("k", "quorum", true)
        };
        let text = in_short(&limited);
        assert_eq!(text, "k: quorum, N=3 R=1 W=2, at most 100 ops/s and 1MiB/s on each node");
        let siblings = v1::Keyspace { merge: "siblings".to_owned(), ..limited.clone() };
        let text = in_short(&siblings);
        assert!(text.starts_with("k: quorum, N=3 R=1 W=2, siblings, at most"), "{text}");
        let table = keyspaces_table(std::slice::from_ref(&limited));
        assert!(table.contains("weak, at most 100 ops/s and 1MiB/s on each node"), "{table}");
        assert_eq!(keyspace_json(&limited)["limit_operations_per_second"], 100);
    }

    #[test]
    fn a_description_says_what_is_promised() {
        let promises = [("strong", false, "linearizable"), ("quorum", true, "may miss")];
        for (mode, weak, promise) in promises {
            let text = description(&keyspace("k", mode, weak));
            assert!(text.starts_with(&format!("k: {mode}, N=3 R=1 W=2 (id 4)\n")), "{text}");
            assert!(text.contains(promise), "{text}");
        }
    }

    #[test]
    fn json_names_every_field_as_the_interface_does() {
        let expected = json!({
            "name": "k",
            "id": 4,
            "mode": "quorum",
            "merge": "lww",
            "replication_factor": 3,
            "read_quorum": 1,
            "write_quorum": 2,
            "weak": true,
            "limit_operations_per_second": null,
            "limit_bytes_per_second": null,
        });
        assert_eq!(keyspace_json(&keyspace("k", "quorum", true)), expected);
    }
}
