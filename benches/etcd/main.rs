//! Coterie against etcd, in one run: three nodes of each on this machine, with the same keys,
//! values, callers and connections, and both with every write synced to disk.
//!
//! ```text
//! cargo bench --bench etcd -- --etcd /usr/bin/etcd --seconds 5 --rounds 3 --json
//! ```
//!
//! Without `--etcd`, the program is looked for in `PATH` (Debian's package: `etcd-server`). Rounds
//! are interleaved, and a load's ratio is taken against its rival of the same round, so that what
//! else the machine does falls on both. All servers and the load generator share this machine's
//! cores, and the servers that are not under load idle meanwhile.

#[allow(dead_code, reason = "the ceiling asks a cluster for more figures than this comparison")]
#[path = "../ceiling/cluster.rs"]
mod cluster;
mod kv;
mod members;
#[allow(dead_code, reason = "the ceiling asks a process for more figures than this comparison")]
#[path = "../ceiling/process.rs"]
mod process;
mod strong;
mod summary;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use coterie::cli::bench::grpc::{CallOptions, Cluster};
use coterie::cli::bench::report::Report;
use coterie::cli::bench::{Distribution, Monitor, Pace, Plan, Stop, run};
use coterie::protocol::quorum::level::Level;

use crate::cluster::Nodes;
use crate::kv::{Etcd, EtcdOptions};
use crate::members::Members;
use crate::process::CpuTime;
use crate::summary::{Measured, Summary};

type AnyError = Box<dyn Error>;

/// The same load before each measurement, to open connections and warm caches.
const WARMUP: Duration = Duration::from_secs(1);
/// Nodes of either cluster.
const NODES: usize = 3;

/// Coterie against etcd.
#[derive(Debug, Parser)]
struct Args {
    /// The etcd program; looked for in PATH when absent.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Only loads whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Operations under way at once.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Connections to each node.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_size: usize,
    /// Different keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured in each round.
#[derive(Debug)]
struct Load {
    name: &'static str,
    writes: bool,
    system: System,
    /// The load that it is compared to.
    rival: Option<&'static str>,
}

/// Who serves a load, and how.
#[derive(Clone, Copy, Debug)]
enum System {
    Etcd { serializable: bool },
    Coterie { level: Level },
    Strong,
}

const LINEARIZABLE: System = System::Etcd { serializable: false };
const SERIALIZABLE: System = System::Etcd { serializable: true };
const QUORUM: System = System::Coterie { level: Level::Quorum };

const LOADS: [Load; 7] = [
    Load { name: "strong PUT", writes: true, system: System::Strong, rival: Some("etcd PUT") },
    Load { name: "strong GET", writes: false, system: System::Strong, rival: Some("etcd GET") },
    Load { name: "etcd PUT", writes: true, system: LINEARIZABLE, rival: None },
    Load { name: "quorum PUT", writes: true, system: QUORUM, rival: Some("etcd PUT") },
    Load { name: "etcd GET", writes: false, system: LINEARIZABLE, rival: None },
    Load { name: "etcd stale GET", writes: false, system: SERIALIZABLE, rival: None },
    Load { name: "quorum GET", writes: false, system: QUORUM, rival: Some("etcd GET") },
];

fn main() -> Result<(), AnyError> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&args))
}

async fn measure(args: &Args) -> Result<(), AnyError> {
    let program = members::program(args.etcd.clone())?;
    let bench = Bench {
        args,
        members: Members::start(&program, NODES).await?,
        nodes: Nodes::start(NODES).await?,
    };
    bench.preload(LINEARIZABLE).await?;
    bench.preload(QUORUM).await?;
    strong::create(&bench.nodes.client_addresses()).await?;
    bench.preload(System::Strong).await?;
    let loads: Vec<&Load> = LOADS.iter().filter(|load| load.name.contains(&args.only)).collect();
    let mut measured: Vec<Vec<Measured>> = loads.iter().map(|_| Vec::new()).collect();
    for round in 1..=args.rounds {
        for (load, rounds) in loads.iter().zip(&mut measured) {
            eprintln!("round {round} of {}: {}", args.rounds, load.name);
            rounds.push(bench.measure(load).await?);
        }
    }
    let summary = Summary::new(&loads, &measured, &members::version(&program)?);
    println!("{}", if args.json { summary.json()? } else { summary.text() });
    Ok(())
}

struct Bench<'a> {
    args: &'a Args,
    members: Members,
    nodes: Nodes,
}

impl Bench<'_> {
    async fn preload(&self, system: System) -> Result<(), AnyError> {
        let plan = Plan { preload: true, ..self.plan(true, Stop::Operations(0)) };
        self.run(system, &plan).await?;
        Ok(())
    }

    async fn measure(&self, load: &Load) -> Result<Measured, AnyError> {
        self.run(load.system, &self.plan(load.writes, Stop::After(WARMUP))).await?;
        let before = self.sample(load.system)?;
        let stop = Stop::After(Duration::from_secs(self.args.seconds));
        let report = self.run(load.system, &self.plan(load.writes, stop)).await?;
        let after = self.sample(load.system)?;
        check(load, &report)?;
        Ok(Measured::new(&report, before, after))
    }

    fn plan(&self, writes: bool, stop: Stop) -> Plan {
        Plan {
            read_ratio: if writes { 0.0 } else { 1.0 },
            keys: self.args.keys,
            distribution: Distribution::Uniform,
            pace: Pace::Closed,
            callers: self.args.callers,
            stop,
            warmup: Duration::ZERO,
            preload: false,
            seed: 1,
        }
    }

    async fn run(&self, system: System, plan: &Plan) -> Result<Report, AnyError> {
        let monitor = Arc::new(Monitor::default());
        match system {
            System::Etcd { serializable } => {
                let target = Etcd::connect(self.members.addresses(), self.options(serializable));
                Ok(run(plan, &target.await?, &monitor).await)
            }
            System::Coterie { .. } | System::Strong => {
                let addresses = self.nodes.client_addresses();
                let target = Cluster::connect(&addresses, self.call_options(system)).await?;
                Ok(run(plan, &target, &monitor).await)
            }
        }
    }

    fn options(&self, serializable: bool) -> EtcdOptions {
        let Args { connections, value_size, .. } = *self.args;
        EtcdOptions { connections, value_bytes: value_size, serializable }
    }

    fn call_options(&self, system: System) -> CallOptions {
        let (level, keyspace) = match system {
            System::Coterie { level } => (Some(level), ""),
            System::Strong | System::Etcd { .. } => (None, strong::KEYSPACE),
        };
        CallOptions {
            connections: self.args.connections,
            value_bytes: self.args.value_size,
            level,
            r: 0,
            w: 0,
            timeout: None,
            retry_elsewhere: false,
            keyspace: keyspace.to_owned(),
        }
    }

    fn sample(&self, system: System) -> Result<Sample, AnyError> {
        let server = match system {
            System::Etcd { .. } => self.members.cpu_time()?,
            System::Coterie { .. } | System::Strong => self.nodes.cpu_time()?,
        };
        Ok(Sample { server, client: CpuTime::of(std::process::id())? })
    }
}

/// CPU time used so far.
#[derive(Clone, Copy)]
struct Sample {
    server: CpuTime,
    client: CpuTime,
}

/// A figure that hides errors is worth nothing.
fn check(load: &Load, report: &Report) -> Result<(), AnyError> {
    if report.failed() > 0 || report.operations == 0 || report.missing > 0 {
        let (errors, missing) = (&report.errors, report.missing);
        return Err(format!("{}: errors {errors:?}, {missing} not found", load.name).into());
    }
    Ok(())
}
