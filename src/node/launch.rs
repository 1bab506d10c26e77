//! Puts a node together from real disks, sockets and clocks.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;

use crate::config::{ClusterSettings, Config, Replication};
use crate::net::gossip::{ChitchatDiscovery, GossipOptions};
use crate::net::peer::introduce::{IntroduceError, Introduction, introduce};
use crate::net::peer::server::{Introducer, PeerServer, serve};
use crate::net::peer::{LocalPeer, PeerTransport};
use crate::node::assembly::{Attachment, Entry};
use crate::node::env::Machine;
use crate::node::local::Parts;
use crate::node::service::Node;
use crate::protocol::membership::MemberSet;
use crate::storage::disk::DiskFiles;
use crate::storage::sled::SledEngine;
use crate::types::ClusterId;

/// How long one seed is waited for.
const SEED_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a node that found no seed waits before it asks again.
const SEED_RETRY: Duration = Duration::from_millis(250);

/// Where in the data directory the engine lies.
const ENGINE_FOLDER: &str = "engine";

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct StartError {
    /// What was being done, such as `cannot listen on 127.0.0.1:7401`.
    pub what: String,
    /// Why it failed.
    pub cause: String,
}

impl StartError {
    pub(crate) fn new(what: &str, cause: &dyn std::error::Error) -> Self {
        let mut text = cause.to_string();
        let mut source = cause.source();
        while let Some(deeper) = source {
            text = format!("{text}: {deeper}");
            source = deeper.source();
        }
        StartError { what: what.to_owned(), cause: text }
    }
}

/// Starts a node: opens its data directory, recovers, listens to peers, and joins or founds its
/// cluster in the background ([`Node::serving`] tells when it is ready).
///
/// # Errors
/// [`StartError`] when the directory, the log or a socket cannot be used, or when the
/// configuration contradicts the cluster that the directory belongs to.
pub async fn launch(config: Config) -> Result<Arc<Node>, StartError> {
    let peer_listener = listen(config.peer_listen).await?;
    let opening = config.clone();
    let node = tokio::task::spawn_blocking(move || open(opening))
        .await
        .map_err(|error| StartError::new("opening the data directory panicked", &error))??;
    if let Some(cluster) = node.identity().cluster() {
        check_settings(&config, &cluster)?;
    }
    let server = PeerServer::new(Arc::new(Introductions(Arc::downgrade(&node))));
    let mut stop = node.tasks.stop_signal();
    let serving = Arc::clone(&server);
    node.tasks.spawn(async move {
        let stopped = async move { stop.requested().await };
        if let Err(error) = serve(peer_listener, serving, stopped).await {
            tracing::error!(%error, "peers are no longer served");
        }
    });
    let mut stop = node.tasks.stop_signal();
    let joining = Arc::clone(&node);
    node.tasks.spawn(async move {
        tokio::select! { biased;
            () = stop.requested() => {}
            () = enter(joining, server) => {}
        }
    });
    Ok(node)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
        StartError::new(&format!("cannot listen on {address} (--peer-listen)"), &error)
    })
}

fn open(config: Config) -> Result<Arc<Node>, StartError> {
    let directory = config.data_dir.clone();
    let what = format!("cannot use the data directory {}", directory.display());
    let files = DiskFiles::open(&directory).map_err(|error| StartError::new(&what, &error))?;
    let engine_path = directory.join(ENGINE_FOLDER);
    let opened = SledEngine::open(&engine_path, config.storage.engine_cache_bytes)
        .map_err(|error| StartError::new("cannot open the storage engine", &error))?;
    let engine_lost = opened.quarantined.map(|quarantine| {
        let (path, reason) = (quarantine.path.display().to_string(), quarantine.reason);
        format!("the storage engine could not be opened ({reason}) and was set aside as {path}")
    });
    let parts = Parts {
        env: Arc::new(Machine::new()),
        files: Arc::new(files),
        engine: Arc::new(opened.engine),
        engine_lost,
    };
    Node::assemble(config, parts)
}

/// Resumes, founds or joins, and attaches the node once it knows its cluster.
async fn enter(node: Arc<Node>, server: Arc<PeerServer>) {
    let (introduction, entry) = find_cluster(&node).await;
    if let Err(error) = check_settings(&node.config, &introduction.cluster) {
        give_up(&node, &error);
        return;
    }
    if let Err(error) = attach(&node, &server, introduction, entry).await {
        give_up(&node, &error);
    }
}

fn give_up(node: &Node, error: &StartError) {
    tracing::error!(%error, "the node cannot enter its cluster");
    *node.waits_for.lock() = error.to_string();
}

async fn find_cluster(node: &Node) -> (Introduction, Entry) {
    let members = MemberSet::new();
    if let Some(cluster) = node.identity().cluster() {
        return (Introduction { cluster, members }, Entry::Resuming);
    }
    if !node.config.seeds.is_empty() {
        return (ask_seeds(node).await, Entry::Joining);
    }
    let cluster = ClusterSettings {
        cluster_id: ClusterId(node.local.env.random()),
        partitions: node.config.partitions,
        replication: node.config.replication.unwrap_or_default(),
    };
    tracing::info!(cluster_id = %cluster.cluster_id, "founding a cluster");
    (Introduction { cluster, members }, Entry::Founding)
}

async fn ask_seeds(node: &Node) -> Introduction {
    loop {
        for seed in &node.config.seeds {
            match introduce(seed, SEED_TIMEOUT).await {
                Ok(introduction) => return introduction,
                Err(error) => wait_note(node, &error),
            }
        }
        tokio::time::sleep(SEED_RETRY).await;
    }
}

fn wait_note(node: &Node, error: &IntroduceError) {
    let note = format!("it waits for a seed: {error}");
    let mut waits_for = node.waits_for.lock();
    if *waits_for != note {
        tracing::info!(%error, "waiting for a seed");
        *waits_for = note;
    }
}

/// A node must not think otherwise than its cluster about what decides where keys lie.
fn check_settings(config: &Config, cluster: &ClusterSettings) -> Result<(), StartError> {
    match config.replication {
        Some(wanted) if wanted != cluster.replication => Err(StartError {
            what: format!("this node's replication contradicts cluster {}", cluster.cluster_id),
            cause: format!(
                "the cluster has {}, this node was started with {}",
                describe(cluster.replication),
                describe(wanted)
            ),
        }),
        _ => Ok(()),
    }
}

fn describe(replication: Replication) -> String {
    let Replication { factor, read_quorum, write_quorum } = replication;
    format!(
        "--replication-factor {factor} --read-quorum {read_quorum} --write-quorum {write_quorum}"
    )
}

async fn attach(
    node: &Arc<Node>,
    server: &PeerServer,
    introduction: Introduction,
    entry: Entry,
) -> Result<(), StartError> {
    let Introduction { cluster, members } = introduction;
    let identity = node.identity();
    let local = LocalPeer {
        cluster_id: cluster.cluster_id,
        node_id: identity.node_id(),
        incarnation: identity.incarnation(),
        name: node.config.name.clone(),
        partitions: cluster.partitions,
    };
    let transport = PeerTransport::new(local, node.inbox());
    let discovery = start_gossip(node, &cluster, &members).await?;
    server.attach(Arc::clone(&transport));
    let closing = (Arc::clone(&transport), Arc::clone(&discovery));
    node.attach(Attachment {
        transport,
        discovery,
        settings: cluster,
        introduced: members,
        entry,
        close: Box::pin(async move {
            closing.0.stop().await;
            closing.1.stop().await;
        }),
    })
}

async fn start_gossip(
    node: &Node,
    cluster: &ClusterSettings,
    introduced: &MemberSet,
) -> Result<Arc<ChitchatDiscovery>, StartError> {
    let facts = node.facts();
    let own = facts.peer_address;
    let known = node.identity().members();
    let addresses = known.iter().chain(introduced.iter()).map(|(_, member)| member.peer_address);
    let mut seeds: Vec<String> =
        addresses.filter(|address| *address != own).map(|address| address.to_string()).collect();
    seeds.extend(node.config.seeds.iter().cloned());
    seeds.sort_unstable();
    seeds.dedup();
    let options = GossipOptions {
        cluster_id: cluster.cluster_id,
        generation: node.identity().generation(),
        listen: node.config.peer_listen,
        advertise: own,
        facts,
        seeds,
    };
    let discovery = ChitchatDiscovery::start(options).await.map_err(|error| {
        StartError::new(&format!("cannot gossip on {}", node.config.peer_listen), &error)
    })?;
    Ok(Arc::new(discovery))
}

/// Introduces nodes that join, once this node has joined itself.
struct Introductions(Weak<Node>);

impl Introducer for Introductions {
    fn introduce(&self) -> Option<Introduction> {
        let node = self.0.upgrade()?;
        let attached = node.attached.get()?;
        let cluster = node.identity().cluster()?;
        Some(Introduction { cluster, members: attached.members.set() })
    }
}
