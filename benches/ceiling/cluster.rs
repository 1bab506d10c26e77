//! A cluster of real `coterie serve` processes in a temporary directory.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use coterie::config::share_of_cores;
use coterie::proto::v1;
use coterie::proto::v1::admin_client::AdminClient;
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::AnyError;
use crate::process::{CpuTime, Owned, free_address, resident_bytes, until};

/// The metric that counts a node's `fdatasync` calls on its log.
const WAL_SYNCS: &str = "coterie_wal_syncs_total";

/// The nodes; they are killed, and their data deleted, when dropped.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    _directory: TempDir,
}

struct Node {
    client: SocketAddr,
    process: Owned,
}

impl Nodes {
    /// Starts a cluster and waits until every node sees all.
    pub(crate) async fn start(count: usize) -> Result<Self, AnyError> {
        let directory = tempfile::tempdir()?;
        let mut nodes = Vec::new();
        let mut seed = None;
        for index in 0..count {
            let peer = free_address()?;
            nodes.push(start_node(&directory, (index, count), peer, seed)?);
            seed = seed.or(Some(peer));
        }
        let cluster = Nodes { nodes, _directory: directory };
        until("the nodes do not see each other", async || cluster.all_ready().await).await?;
        Ok(cluster)
    }

    async fn all_ready(&self) -> bool {
        for node in &self.nodes {
            if members_up(node.client).await < self.nodes.len() {
                return false;
            }
        }
        true
    }

    pub(crate) fn client_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.client.to_string()).collect()
    }

    fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.nodes.iter().map(|node| node.process.0.id())
    }

    pub(crate) fn cpu_times(&self) -> Result<Vec<CpuTime>, AnyError> {
        self.pids().map(CpuTime::of).collect()
    }

    pub(crate) fn cpu_time(&self) -> Result<CpuTime, AnyError> {
        Ok(self.cpu_times()?.into_iter().fold(CpuTime::default(), CpuTime::plus))
    }

    pub(crate) fn resident_bytes(&self) -> Result<Vec<u64>, AnyError> {
        self.pids().map(resident_bytes).collect()
    }

    /// How often each node has synced its log.
    pub(crate) fn wal_syncs(&self) -> Result<Vec<Option<f64>>, AnyError> {
        self.nodes.iter().map(|node| Ok(counter(&metrics(node.client)?, WAL_SYNCS))).collect()
    }
}

fn start_node(
    directory: &TempDir,
    (index, count): (usize, usize),
    peer: SocketAddr,
    seed: Option<SocketAddr>,
) -> Result<Node, AnyError> {
    let client = free_address()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_coterie"));
    command
        .arg("serve")
        .arg(format!("--name=node-{}", index + 1))
        .arg(format!("--data-dir={}", directory.path().join(index.to_string()).display()))
        .arg("--log-level=warn")
        .arg(format!("--worker-threads={}", share_of_cores(count)))
        .arg(format!("--listen={client}"))
        .arg(format!("--peer-listen={peer}"))
        .args(seed.map(|seed| format!("--seeds={seed}")))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let process = Owned(command.spawn()?);
    Ok(Node { client, process })
}

/// Members that a node sees up; 0 while it does not serve.
async fn members_up(node: SocketAddr) -> usize {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{node}")) else { return 0 };
    let Ok(channel) = endpoint.connect().await else { return 0 };
    let answer = AdminClient::new(channel).status(v1::StatusRequest {}).await;
    let Ok(status) = answer.map(tonic::Response::into_inner) else { return 0 };
    match status.serving {
        Some(serving) if serving.ready => {
            status.members.iter().filter(|member| member.state == "up").count()
        }
        _ => 0,
    }
}

fn metrics(node: SocketAddr) -> Result<String, AnyError> {
    Ok(ureq::get(format!("http://{node}/metrics")).call()?.body_mut().read_to_string()?)
}

/// A counter in Prometheus' text format, over all its labels.
fn counter(metrics: &str, name: &str) -> Option<f64> {
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.starts_with([' ', '{']).then(|| rest.rsplit_once(' '))??.1;
        value.parse::<f64>().ok()
    });
    lines.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}
