//! `coterie dev`: a cluster of real processes on this machine, for trying things out.
//!
//! Every node is this same executable, started as `coterie serve`, so what is tried here is what
//! runs elsewhere. The nodes end with this command: by SIGTERM when it is asked to stop, and by
//! the kernel's doing (Linux) should it be killed.

mod banner;
mod layout;
mod process;

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::dev::layout::Layout;
use crate::cli::dev::process::NodeProcess;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::signal::StopSignals;
use crate::config::share_of_cores;

/// How long the nodes may take to see each other.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// How often nodes and their logs are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Flags that say how many threads a node has, or may: a file can.
const SAYING: [&str; 2] = ["--worker-threads", "--config"];
/// The variables of the same.
const SAID_BY: [&str; 2] = ["COTERIE_WORKER_THREADS", "COTERIE_CONFIG"];
/// Lines of a log that are shown when its node died.
const LOG_LINES_SHOWN: usize = 10;

/// `coterie dev`
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    nodes: u16,
    /// Where data and logs lie; a cluster found there goes on.
    #[arg(long, value_name = "DIR", default_value = "coterie-dev")]
    data_dir: PathBuf,
    /// The first node's client port; its peer port is one above, the next node's ten above.
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    #[arg(value_parser = clap::value_parser!(u16).range(1024..=65000))]
    base_port: u16,
    /// Delete what an earlier run left in the directory.
    #[arg(long)]
    fresh: bool,
    /// Use a temporary directory and delete it at the end.
    #[arg(long, conflicts_with_all = ["data_dir", "fresh"])]
    ephemeral: bool,
    /// Show the nodes' logs.
    #[arg(short, long)]
    verbose: bool,
    /// Further arguments of every `coterie serve`, after `--`.
    #[arg(last = true, value_name = "SERVE_ARGS")]
    serve_args: Vec<String>,
}

/// Runs a cluster until it is asked to stop.
///
/// # Errors
/// When it cannot be started, or all its nodes have died.
pub(crate) fn run(args: DevArgs, out: Output) -> Result<(), Failure> {
    // One thread, which lives as long as the process: the kernel ends children with the thread
    // that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let directory = match args.ephemeral {
        true => std::env::temp_dir().join(format!("coterie-dev-{}", std::process::id())),
        false => args.data_dir.clone(),
    };
    let layout = Layout::new(directory, args.nodes, args.base_port)?;
    let ended = runtime.block_on(run_cluster(&args, &layout, out));
    if args.ephemeral {
        layout.remove()?;
    }
    ended
}

async fn run_cluster(args: &DevArgs, layout: &Layout, out: Output) -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    layout.check_ports()?;
    if args.fresh {
        layout.clear()?;
    }
    layout.prepare()?;
    let mut cluster = LocalCluster { nodes: Vec::new(), verbose: args.verbose, out };
    let elsewhere = SAID_BY.iter().any(|name| std::env::var_os(name).is_some());
    let serve_args = with_share_of_cores(&args.serve_args, args.nodes, elsewhere);
    let ended = tokio::select! { biased;
        signal = signals.recv() => Ok(signal),
        ended = cluster.live(layout, &serve_args) => Err(ended),
    };
    if ended.is_ok() {
        tell(out, "\nstopping (again Ctrl-C: at once)")?;
    }
    tokio::select! { biased;
        _ = signals.recv() => {}
        () = cluster.stop() => {}
    }
    ended.map(|_| ())
}

/// What every node is started with: its share of the cores, unless the threads are said by these
/// arguments or may be said elsewhere, where a flag would win over what is said.
fn with_share_of_cores(serve_args: &[String], nodes: u16, elsewhere: bool) -> Vec<String> {
    let says = |arg: &String| SAYING.iter().any(|flag| arg.starts_with(flag));
    let is_said = elsewhere || serve_args.iter().any(says);
    let share = share_of_cores(usize::from(nodes));
    let share = (!is_said).then(|| format!("--worker-threads={share}"));
    share.into_iter().chain(serve_args.iter().cloned()).collect()
}

/// Tells how things go: programs that read JSON from stdout are not told there.
fn tell(out: Output, text: &str) -> Result<(), Failure> {
    match out {
        Output::Table => output::line(text),
        Output::Json => {
            eprintln!("{}", text.trim_start());
            Ok(())
        }
    }
}

/// The running nodes. Those still there when it is dropped are killed.
struct LocalCluster {
    nodes: Vec<NodeProcess>,
    verbose: bool,
    out: Output,
}

impl LocalCluster {
    /// Starts everything and watches over it; resolves when that cannot go on.
    async fn live(&mut self, layout: &Layout, serve_args: &[String]) -> Failure {
        match self.start(layout, serve_args).await {
            Ok(()) => self.watch().await,
            Err(failure) => failure,
        }
    }

    async fn start(&mut self, layout: &Layout, serve_args: &[String]) -> Result<(), Failure> {
        for place in &layout.places {
            self.nodes.push(NodeProcess::start(place, layout.seed_of(place), serve_args)?);
        }
        tell(self.out, &format!("starting {} nodes ...", self.nodes.len()))?;
        let ready = tokio::time::timeout(READY_TIME_MAX, self.all_ready()).await;
        ready.map_err(|_| self.not_ready())??;
        match self.out {
            Output::Table => output::line(&banner::text(&self.nodes, layout)),
            Output::Json => output::json(&banner::json(&self.nodes, layout)),
        }
    }

    /// Resolves once every node serves and sees all others, or one has died.
    async fn all_ready(&mut self) -> Result<(), Failure> {
        let count = self.nodes.len();
        for index in 0..count {
            while !self.nodes[index].sees(count).await {
                self.forward_logs()?;
                if let Some(failure) = self.nodes.iter_mut().find_map(NodeProcess::death) {
                    return Err(failure);
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        Ok(())
    }

    fn not_ready(&self) -> Failure {
        let logs: Vec<String> =
            self.nodes.iter().map(|node| node.place.log.display().to_string()).collect();
        let wait = READY_TIME_MAX.as_secs();
        let message = format!("the nodes do not see each other after {wait} s; see their logs");
        Failure::failed(format!("{message}: {}", logs.join(", ")))
    }

    /// Tells of every node that dies; resolves when none is left.
    async fn watch(&mut self) -> Failure {
        while !self.nodes.is_empty() {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Err(failure) = self.forward_logs().and_then(|()| self.report_deaths()) {
                return failure;
            }
        }
        Failure::failed("all nodes have died")
    }

    fn report_deaths(&mut self) -> Result<(), Failure> {
        for index in (0..self.nodes.len()).rev() {
            if let Some(failure) = self.nodes[index].death() {
                let node = self.nodes.remove(index);
                tell(self.out, &format!("\n{failure}"))?;
                tell(self.out, &format!("the others go on; restart it with\n  {}", node.command))?;
            }
        }
        Ok(())
    }

    fn forward_logs(&mut self) -> Result<(), Failure> {
        if !self.verbose {
            return Ok(());
        }
        for node in &mut self.nodes {
            for line in node.new_log_lines() {
                tell(self.out, &format!("{} | {line}", node.place.name))?;
            }
        }
        Ok(())
    }

    async fn stop(&mut self) {
        for node in &self.nodes {
            node.terminate();
        }
        for node in &mut self.nodes {
            node.ended().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_the_cores_unless_their_threads_are_said() {
        let args = |given: &[&str], elsewhere| {
            let given: Vec<String> = given.iter().map(|arg| String::from(*arg)).collect();
            with_share_of_cores(&given, 32, elsewhere)
        };
        let share = format!("--worker-threads={}", share_of_cores(32));
        assert_eq!(args(&["--vnodes", "8"], false), [share.as_str(), "--vnodes", "8"]);
        assert_eq!(args(&["--worker-threads", "7"], false), ["--worker-threads", "7"]);
        assert_eq!(args(&["--config=a.toml"], false), ["--config=a.toml"]);
        assert!(args(&[], true).is_empty());
        assert_eq!(share_of_cores(usize::MAX), 1);
    }
}
