//! The command line: `serve` and `dev` run nodes, everything else talks to them.
//!
//! Commands answer with an exit code that programs can act on (`coterie --help` lists them), put
//! what was asked for on stdout and everything else, in one line, on stderr.

pub mod bench;
mod conditional;
mod connection;
mod data;
mod dev;
mod failure;
mod groups;
mod keyspace;
mod logging;
mod mergeable;
mod operator;
mod output;
mod render;
mod repair;
mod reshape;
mod scan;
mod serve;
mod signal;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::connection::Cluster;
use crate::cli::failure::Failure;
use crate::cli::groups::view::parse_group;
use crate::cli::output::Output;
use crate::config::units::parse_duration;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "coterie", version, about, after_help = failure::EXIT_CODES)]
#[command(propagate_version = true)]
struct Cli {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

/// How to reach a cluster and how to show what it says.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Talking to a cluster")]
struct ClientArgs {
    /// Nodes to ask; the next is tried when one cannot be reached or takes no requests.
    #[arg(
        id = "client-nodes",
        long = "node",
        global = true,
        env = "COTERIE_NODE",
        value_name = "HOST:PORT,..."
    )]
    #[arg(value_delimiter = ',', default_value = "127.0.0.1:7400")]
    nodes: Vec<String>,
    /// How long to wait for an answer, such as 500ms; without it the node's own limit holds.
    #[arg(long, global = true, value_name = "DURATION", value_parser = positive_duration)]
    timeout: Option<Duration>,
    /// The form of what is printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    output: Output,
}

/// A duration above zero, for flags.
fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err(String::from("give more than 0")),
        duration => Ok(duration),
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node. Without --seeds it founds a cluster (or resumes); with --seeds it joins one.
    Serve(serve::ServeArgs),
    /// Run a whole cluster on this machine, one process a node, until Ctrl-C.
    Dev(dev::DevArgs),
    /// Write a value; it is durable on the write quorum when this returns.
    Put(data::PutArgs),
    /// Read a value and print it as it is.
    Get(data::GetArgs),
    /// List the keys of a keyspace: by partition, and within one in the order of their bytes.
    Scan(scan::ScanArgs),
    /// Print what changes in a strong keyspace, one line for each change, until it is stopped.
    Watch(watch::WatchArgs),
    /// Add to a counter, in a keyspace that merges its keys as counter.
    #[command(visible_alias = "incr")]
    Increment(mergeable::IncrementArgs),
    /// Put elements into a set and take others out, in a keyspace that merges its keys as set.
    UpdateSet(mergeable::UpdateSetArgs),
    /// Add to the end of a value of a strong keyspace; an absent one counts as empty.
    Append(conditional::AppendArgs),
    /// Change a key of a strong keyspace if it is as expected (compare and set).
    Cas(conditional::CasArgs),
    /// Delete a key; one that has no value counts as deleted.
    #[command(visible_alias = "del")]
    Delete(data::DeleteArgs),
    /// Show a node's view of itself, its cluster and its background work.
    Status,
    /// Show how the ring is shared out, or where one key lies.
    Ring {
        /// Show the preference list of this key.
        key: Option<String>,
    },
    /// Have all nodes compare their replicas now and copy what differs; waits until they have.
    Repair(repair::RepairArgs),
    /// Look at the cluster's members and change them.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Create, show, change and drop keyspaces.
    #[command(subcommand)]
    Keyspace(keyspace::KeyspaceCommand),
    /// Look at the Raft groups of strong keyspaces, and at the system group.
    #[command(subcommand)]
    Raft(RaftCommand),
    /// Say who leads.
    #[command(subcommand)]
    Leader(LeaderCommand),
    /// Load a cluster and measure throughput and latency.
    Bench(bench::args::BenchArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum RaftCommand {
    /// Show each group's leader, term, indexes and replicas, as all members tell of them.
    Status {
        /// Show this group, replica by replica: a partition's number, or system.
        #[arg(value_name = "PARTITION", value_parser = parse_group)]
        group: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
enum LeaderCommand {
    /// Have another node lead a group. It keeps the group for five minutes at least.
    Transfer {
        /// A partition's number, or system.
        #[arg(value_name = "PARTITION", value_parser = parse_group)]
        group: u32,
        /// The node that is to lead, by name or id; it must have a voting replica.
        node: String,
    },
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show the members as a node sees them, and their part in the system group.
    Members,
    #[command(flatten)]
    Reshape(reshape::ReshapeCommand),
}

/// Runs the command line and returns its exit code.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { client, command } = cli;
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Dev(args) => dev::run(args, client.output),
        Command::Bench(args) => {
            bench::args::run(args, &client.nodes, client.timeout, client.output)
        }
        Command::Completions { shell } => completions(shell),
        command => ask(&client, command),
    }
}

/// Runs a command that asks a cluster one thing. One thread is enough for that.
fn ask(client: &ClientArgs, command: Command) -> Result<(), Failure> {
    let cluster = Cluster::new(&client.nodes, client.timeout)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let out = client.output;
    runtime.block_on(async {
        match command {
            Command::Put(args) => data::put(&cluster, args, out).await,
            Command::Get(args) => data::get(&cluster, args, out).await,
            Command::Scan(args) => scan::scan(&cluster, args, out).await,
            Command::Watch(args) => watch::watch(&cluster, args, out).await,
            Command::Increment(args) => mergeable::increment(&cluster, args, out).await,
            Command::UpdateSet(args) => mergeable::update_set(&cluster, args, out).await,
            Command::Append(args) => conditional::append(&cluster, args, out).await,
            Command::Cas(args) => conditional::cas(&cluster, args, out).await,
            Command::Delete(args) => data::delete(&cluster, args, out).await,
            Command::Ring { key: None } => operator::ring(&cluster, out).await,
            Command::Ring { key: Some(key) } => operator::owners(&cluster, key, out).await,
            Command::Repair(args) => repair::run(&cluster, args, out).await,
            Command::Cluster(ClusterCommand::Reshape(command)) => {
                reshape::run(&cluster, command, out).await
            }
            Command::Cluster(ClusterCommand::Members) => operator::members(&cluster, out).await,
            Command::Keyspace(command) => keyspace::run(&cluster, command, out).await,
            Command::Raft(RaftCommand::Status { group }) => {
                groups::status(&cluster, group, out).await
            }
            Command::Leader(LeaderCommand::Transfer { group, node }) => {
                groups::transfer(&cluster, group, node, out).await
            }
            _ => operator::status(&cluster, out).await,
        }
    })
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "coterie", &mut script);
    output::write(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    const ACCEPTED: [&str; 46] = [
        "put k v",
        "put k -",
        "put k --w 2 --sloppy",
        "put k -5 --sloppy=false",
        "get k --level one --output json",
        "get k -r 2 --raw --node a:1,b:2 --node c:3",
        "--node a:1 delete k --timeout 500ms",
        "ring k",
        "status",
        "repair",
        "repair --partition 17 -k orders",
        "cluster plan --join n4 --leave n1 --replace n2=n5",
        "cluster join n4 n5 --wait",
        "cluster leave n4",
        "cluster replace n4 n5",
        "cluster remove n4 --force",
        "cluster transfers --watch",
        "cluster transfers --watch --for n4,n5 --for n6",
        "put -k orders k v",
        "get k --keyspace orders --consistency lease",
        "get k -k orders --consistency stale --max-staleness 500ms",
        "del k -k orders",
        "increment k -k hits",
        "incr k -5 -k hits --w 2",
        "update-set k --add a --add b -k tags",
        "update-set k -a a -r b --context 01 -k tags",
        "append k v -k orders",
        "cas k --expect-absent v -k orders",
        "watch orders",
        "watch orders k --output json",
        "watch orders --prefix user: --json",
        "watch orders --from 01ab",
        "cluster members",
        "keyspace create orders --mode strong -n 3",
        "keyspace alter cache -r 1 -w 1",
        "keyspace list --output json",
        "keyspace describe orders",
        "keyspace drop orders --yes",
        "raft status",
        "raft status system",
        "raft status 17",
        "leader transfer 17 node-2",
        "completions bash",
        "dev --nodes 5 -- --vnodes 64",
        "bench --op mixed --read-ratio 0.9 --duration 5s",
        "serve --seeds a:1,b:2 --vnodes 64 --sloppy",
    ];

    #[test]
    fn command_lines_are_accepted_or_refused() {
        for line in ACCEPTED {
            let words = std::iter::once("coterie").chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        let refused = [
            "put",
            "get k --level two",
            "get k -r 0",
            "status --timeout 0s",
            "dev x",
            "get k --consistency stale",
            "get k --max-staleness 1s",
            "cas k v",
            "increment k x",
            "update-set k",
            "keyspace create k --mode weak",
            "watch",
            "watch orders k --prefix k",
            "raft status x",
            "leader transfer 1",
            "cluster transfers --for n4",
        ];
        for line in refused {
            let words = std::iter::once("coterie").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line} was accepted");
        }
    }

    #[test]
    fn nodes_may_be_repeated_or_separated_by_commas() {
        let line = "coterie status --node a:1,b:2 --node c:3";
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        assert_eq!(cli.client.nodes, ["a:1", "b:2", "c:3"]);
    }
}
