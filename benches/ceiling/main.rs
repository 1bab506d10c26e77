//! How near a cluster comes to what its transport allows, in one run: a bare tonic server that
//! does nothing, and three real nodes, with the same payload, callers and connections.
//!
//! ```text
//! cargo bench --bench ceiling -- --seconds 5 --rounds 3 --json
//! ```
//!
//! Rounds are interleaved, and a load's ratio is taken against the bare server of the same round,
//! so that what else the machine does falls on both. Everything runs on this machine: servers and
//! load generator share its cores.

mod cluster;
mod echo;
mod process;
mod report;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use coterie::cli::bench::grpc::{CallOptions, Cluster};
use coterie::cli::bench::report::Report;
use coterie::cli::bench::{Distribution, Monitor, Pace, Plan, Stop, run};
use coterie::protocol::quorum::level::Level;

use crate::cluster::Nodes;
use crate::process::CpuTime;
use crate::report::{Idle, Measured, Summary};

type AnyError = Box<dyn Error>;

/// The same load before each measurement, to open connections and warm caches.
const WARMUP: Duration = Duration::from_secs(1);
/// How long the nodes rest before they are called idle, and how long they are then watched.
const SETTLE_TIME: Duration = Duration::from_secs(3);
const IDLE_TIME: Duration = Duration::from_secs(10);

/// A bare server against a cluster.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; medians are shown.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Operations under way at once.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_size: usize,
    /// Different keys.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Nodes of the cluster; the bare server gets as many connections.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Be the bare server.
    #[arg(long, hide = true)]
    echo_server: Option<std::net::SocketAddr>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured in each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    EchoGet,
    GetOne,
    GetQuorum,
    EchoPut,
    PutQuorum,
}

impl Load {
    const ALL: [Load; 5] =
        [Load::EchoGet, Load::GetOne, Load::GetQuorum, Load::EchoPut, Load::PutQuorum];

    fn name(self) -> &'static str {
        match self {
            Load::EchoGet => "bare GET",
            Load::GetOne => "GET at ONE",
            Load::GetQuorum => "GET at QUORUM",
            Load::EchoPut => "bare PUT",
            Load::PutQuorum => "PUT at QUORUM",
        }
    }

    /// The bare load that it is compared to.
    fn ceiling(self) -> Load {
        if self.writes() { Load::EchoPut } else { Load::EchoGet }
    }

    fn writes(self) -> bool {
        matches!(self, Load::EchoPut | Load::PutQuorum)
    }

    fn is_bare(self) -> bool {
        self == self.ceiling()
    }

    fn level(self) -> Option<Level> {
        match self {
            Load::GetOne => Some(Level::One),
            Load::GetQuorum | Load::PutQuorum => Some(Level::Quorum),
            Load::EchoGet | Load::EchoPut => None,
        }
    }
}

fn main() -> Result<(), AnyError> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.echo_server {
        Some(address) => runtime.block_on(echo::serve(address, args.value_size)),
        None => runtime.block_on(measure(&args)),
    }
}

async fn measure(args: &Args) -> Result<(), AnyError> {
    let echo = echo::start(args.value_size).await?;
    let nodes = Nodes::start(args.nodes).await?;
    let fresh_bytes = nodes.resident_bytes()?;
    let bench = Bench { args, echo: &echo, nodes: &nodes };
    bench.preload().await?;
    let mut measured: BTreeMap<Load, Vec<Measured>> = BTreeMap::new();
    for round in 1..=args.rounds {
        for load in Load::ALL {
            eprintln!("round {round} of {}: {}", args.rounds, load.name());
            measured.entry(load).or_default().push(bench.measure(load).await?);
        }
    }
    eprintln!("idle");
    let idle = idle(&nodes, fresh_bytes).await?;
    let summary = Summary::new(&measured, idle);
    println!("{}", if args.json { summary.json()? } else { summary.text() });
    Ok(())
}

struct Bench<'a> {
    args: &'a Args,
    echo: &'a echo::EchoServer,
    nodes: &'a Nodes,
}

impl Bench<'_> {
    fn plan(&self, load: Load, stop: Stop) -> Plan {
        Plan {
            read_ratio: if load.writes() { 0.0 } else { 1.0 },
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

    /// As many connections to the one bare server as to all nodes together.
    async fn target(&self, load: Load) -> Result<Cluster, AnyError> {
        let (addresses, connections) = match load.is_bare() {
            true => (vec![self.echo.address.to_string()], self.args.nodes),
            false => (self.nodes.client_addresses(), 1),
        };
        let options = CallOptions {
            connections,
            value_bytes: self.args.value_size,
            level: load.level(),
            r: 0,
            w: 0,
            timeout: None,
            retry_elsewhere: false,
            keyspace: String::new(),
        };
        Ok(Cluster::connect(&addresses, options).await?)
    }

    async fn preload(&self) -> Result<(), AnyError> {
        let plan = self.plan(Load::PutQuorum, Stop::Operations(0));
        let plan = Plan { preload: true, ..plan };
        let target = self.target(Load::PutQuorum).await?;
        run(&plan, &target, &Arc::new(Monitor::default())).await;
        Ok(())
    }

    async fn measure(&self, load: Load) -> Result<Measured, AnyError> {
        let target = self.target(load).await?;
        let monitor = Arc::new(Monitor::default());
        run(&self.plan(load, Stop::After(WARMUP)), &target, &monitor).await;
        let before = self.sample(load)?;
        let stop = Stop::After(Duration::from_secs(self.args.seconds));
        let report = run(&self.plan(load, stop), &target, &monitor).await;
        let after = self.sample(load)?;
        check(load, &report)?;
        Ok(Measured::new(&report, &before, &after))
    }

    fn sample(&self, load: Load) -> Result<Sample, AnyError> {
        let bare = load.is_bare();
        Ok(Sample {
            server: if bare { self.echo.cpu_time()? } else { self.nodes.cpu_time()? },
            client: CpuTime::of(std::process::id())?,
            wal_syncs: if bare { Vec::new() } else { self.nodes.wal_syncs()? },
        })
    }
}

/// What has been used up so far.
struct Sample {
    server: CpuTime,
    client: CpuTime,
    /// By node; `None` where the node does not tell.
    wal_syncs: Vec<Option<f64>>,
}

/// A figure that hides errors is worth nothing.
fn check(load: Load, report: &Report) -> Result<(), AnyError> {
    if report.failed() > 0 || report.operations == 0 || report.missing > 0 {
        let (errors, missing) = (&report.errors, report.missing);
        let message = format!("{}: errors {errors:?}, {missing} not found", load.name());
        return Err(message.into());
    }
    Ok(())
}

async fn idle(nodes: &Nodes, fresh_bytes: Vec<u64>) -> Result<Idle, AnyError> {
    tokio::time::sleep(SETTLE_TIME).await;
    let before = nodes.cpu_times()?;
    tokio::time::sleep(IDLE_TIME).await;
    let spent = before.iter().zip(nodes.cpu_times()?).map(|(before, after)| after.since(*before));
    let percent = spent.map(|spent| 100.0 * spent.as_secs_f64() / IDLE_TIME.as_secs_f64());
    Ok(Idle {
        core_percent: percent.collect(),
        fresh_bytes,
        resident_bytes: nodes.resident_bytes()?,
    })
}
