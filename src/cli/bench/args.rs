//! `coterie bench`: flags to a plan, the run with its progress bar, and the report.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::bench::grpc::{CallOptions, Cluster};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::report::Report;
use crate::cli::bench::{Distribution, Monitor, Pace, Plan, Stop, run as run_load};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{self, Output};
use crate::cli::positive_duration;
use crate::cli::signal::StopSignals;
use crate::config::units::{parse_duration, parse_size};
use crate::protocol::quorum::level::Level;

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Callers of a closed loop unless said otherwise.
const CALLERS_CLOSED: usize = 64;
/// Operations under way in an open loop unless said otherwise.
const CALLERS_OPEN: usize = 512;

/// `coterie bench`
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// What to do.
    #[arg(long, value_enum, default_value_t = Operation::Mixed)]
    op: Operation,
    /// Share of reads with --op mixed.
    #[arg(long, value_name = "0..1", default_value_t = 0.5, value_parser = ratio)]
    read_ratio: f64,
    /// Number of different keys.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// How keys are chosen.
    #[arg(long, value_enum, default_value_t = Choice::Uniform)]
    distribution: Choice,
    /// The skew of --distribution zipfian.
    #[arg(long, value_name = "0..1", default_value_t = 0.99, value_parser = skew)]
    theta: f64,
    /// Bytes of a value, such as 100 or 4KiB.
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = parse_size)]
    value_size: u64,
    /// Operations under way at most [default: 64, or 512 with --rate].
    #[arg(short, long, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    concurrency: Option<u32>,
    /// Start this many operations per second (open loop); latency counts from when each was due.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// How long to measure.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = positive_duration)]
    duration: Duration,
    /// Measure this many operations instead of a duration.
    #[arg(long, value_name = "COUNT", conflicts_with = "duration")]
    operations: Option<u64>,
    /// The same load before measuring.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Write every key first [default: true unless --op put].
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    preload: Option<bool>,
    /// Replicas that must answer: one, quorum or all.
    #[arg(long)]
    level: Option<Level>,
    /// Replicas that must answer a read, by number.
    #[arg(short, long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    r: u32,
    /// Replicas that must acknowledge a write, by number.
    #[arg(short, long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    w: u32,
    /// The keyspace, which may be a strong one; the default keyspace unless named.
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    keyspace: String,
    /// Connections to each node.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Try once on another node what was not attempted or lost its connection.
    #[arg(long)]
    retry_elsewhere: bool,
    /// Threads of the load generator [default: one per core].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// The same seed chooses the same keys.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Operation {
    Put,
    Get,
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    Uniform,
    Zipfian,
}

fn ratio(text: &str) -> Result<f64, String> {
    number_where(text, |ratio| (0.0..=1.0).contains(&ratio), "give a number from 0 to 1")
}

fn skew(text: &str) -> Result<f64, String> {
    number_where(text, |theta| theta > 0.0 && theta < 1.0, "give a number above 0 and below 1")
}

fn rate(text: &str) -> Result<f64, String> {
    let right = "give operations per second, above 0 and at most 10000000";
    number_where(text, |rate| rate > 0.0 && rate <= 1e7, right)
}

fn number_where(text: &str, fits: fn(f64) -> bool, right: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| fits(*number)).ok_or_else(|| right.to_owned())
}

impl BenchArgs {
    fn plan(&self) -> Plan {
        let callers = if self.rate.is_some() { CALLERS_OPEN } else { CALLERS_CLOSED };
        Plan {
            read_ratio: match self.op {
                Operation::Put => 0.0,
                Operation::Get => 1.0,
                Operation::Mixed => self.read_ratio,
            },
            keys: self.keys,
            distribution: match self.distribution {
                Choice::Uniform => Distribution::Uniform,
                Choice::Zipfian => Distribution::Zipfian { theta: self.theta },
            },
            pace: self.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
            callers: self.concurrency.map_or(callers, |count| count as usize),
            stop: self.operations.map_or(Stop::After(self.duration), Stop::Operations),
            warmup: self.warmup,
            preload: self.preload.unwrap_or(self.op != Operation::Put),
            seed: self.seed,
        }
    }

    fn call_options(&self, timeout: Option<Duration>) -> CallOptions {
        CallOptions {
            connections: usize::from(self.connections),
            value_bytes: usize::try_from(self.value_size).unwrap_or(usize::MAX),
            level: self.level,
            r: self.r,
            w: self.w,
            timeout,
            retry_elsewhere: self.retry_elsewhere,
            keyspace: self.keyspace.clone(),
        }
    }
}

/// Runs the load and prints its report.
///
/// # Errors
/// When no node can be reached, or nothing succeeded.
pub(crate) fn run(
    args: BenchArgs,
    nodes: &[String],
    timeout: Option<Duration>,
    out: Output,
) -> Result<(), Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        runtime.worker_threads(usize::from(threads));
    }
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let report = runtime.block_on(load(&args, nodes, timeout))?;
    match out {
        Output::Table => output::line(&report.text())?,
        Output::Json => output::json(&serde_json::json!(report))?,
    }
    if report.operations == 0 && report.failed() > 0 {
        return Err(Failure::failed("no operation succeeded"));
    }
    Ok(())
}

async fn load(
    args: &BenchArgs,
    nodes: &[String],
    timeout: Option<Duration>,
) -> Result<Report, Failure> {
    let mut signals = StopSignals::new()?;
    let cluster = Cluster::connect(nodes, args.call_options(timeout)).await;
    let cluster = cluster.map_err(|message| Failure::new(Exit::Unavailable, message))?;
    let monitor = Arc::new(Monitor::default());
    let mut progress = Progress::new();
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    let plan = args.plan();
    let running = run_load(&plan, &cluster, &monitor);
    tokio::pin!(running);
    loop {
        tokio::select! { biased;
            report = &mut running => {
                progress.finish();
                return Ok(report);
            }
            _ = signals.recv() => monitor.stop(),
            _ = ticks.tick() => progress.update(&monitor),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn plan(line: &str) -> Plan {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Line::try_parse_from(words).expect("parses").args.plan()
    }

    #[test]
    fn flags_make_the_plan() {
        let put = plan("--op put");
        assert_eq!((put.read_ratio, put.preload, put.callers), (0.0, false, 64));
        assert_eq!((put.pace, put.stop), (Pace::Closed, Stop::After(Duration::from_secs(10))));
        let get = plan("--op get --operations 5 --distribution zipfian --theta 0.5");
        assert_eq!((get.read_ratio, get.preload), (1.0, true));
        assert_eq!(get.stop, Stop::Operations(5));
        assert_eq!(get.distribution, Distribution::Zipfian { theta: 0.5 });
        let open = plan("--rate 1000 --read-ratio 0.9 --preload=false");
        assert_eq!((open.pace, open.callers), (Pace::Open { per_second: 1000.0 }, 512));
        assert_eq!((open.read_ratio, open.preload), (0.9, false));
    }

    #[test]
    fn a_load_may_go_to_another_keyspace() {
        let args = |line: &str| Line::try_parse_from(line.split(' ')).expect("parses").args;
        assert_eq!(args("bench").call_options(None).keyspace, "");
        assert_eq!(args("bench --keyspace orders").call_options(None).keyspace, "orders");
    }

    #[test]
    fn impossible_figures_are_refused() {
        for line in ["--read-ratio 2", "--theta 1", "--rate 0", "--keys 0", "--duration 0s", "-c 0"]
        {
            let words = std::iter::once("bench").chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_err(), "{line} was accepted");
        }
    }
}
