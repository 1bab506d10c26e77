//! Who is there, by gossip: chitchat's scuttlebutt and phi-accrual detector behind [`Discovery`].
//!
//! Each node publishes its facts as one small JSON value under its id. A restart counts as a new
//! generation; of several generations of one node only the highest counts. A node that stops in
//! order says so first, so that nobody has to wait for the failure detector.
//!
//! Caveats: gossip is neither encrypted nor authenticated, and a node is forgotten by it some
//! minutes after its death; so nothing about ownership is derived from it (`docs/ARCHITECTURE.md`,
//! "who decides what"). A node that restarts under the same generation stays invisible.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::transport::UdpTransport;
use chitchat::{
    ChitchatConfig, ChitchatId, FailureDetectorConfig, ProtocolVersion, spawn_chitchat,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::net::gossip::driver::Driver;
use crate::net::transport::{Discovery, NodeFacts, Sighting};
use crate::types::ClusterId;

mod driver;
mod sightings;
#[cfg(test)]
mod tests;

/// How often a node gossips, to up to three others at once. Measured at 1 to 2 ms of CPU per
/// second and node in a cluster of three.
const GOSSIP_INTERVAL: Duration = Duration::from_millis(200);

/// Silence, in mean intervals between heartbeats, from which on a node is doubted. Heartbeats also
/// come by way of others: measured every 110 ms among three nodes, so after 1.6 s.
const PHI_DOUBTED: f64 = 14.0;

/// What the detector takes for the mean interval before it has seen many (it weighs this as five
/// samples). With it a node that dies right after it appeared is doubted after 3 s, dead after 4.
const INITIAL_INTERVAL: Duration = Duration::from_millis(200);

/// Longer pauses between heartbeats are not averaged in: a machine that was busy for a while must
/// not make the detector slow for the next minute.
const COUNTED_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// Heartbeats that the mean is taken over: about a minute.
const SAMPLES: usize = 500;

/// How long gossip remembers a dead node. Short, since dead generations grow every datagram.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(15 * 60);

/// How long a deleted key is remembered. Nothing is ever deleted.
const DELETED_KEY_GRACE: Duration = Duration::from_secs(3600);

/// The key of a node's facts.
const FACTS_KEY: &str = "facts";

/// The key that a node sets when it stops in order.
const LEAVING_KEY: &str = "leaving";

/// What gossip needs to start.
#[derive(Clone, Debug)]
pub struct GossipOptions {
    /// Datagrams of other clusters are ignored.
    pub cluster_id: ClusterId,
    /// What this node says of itself at first.
    pub facts: NodeFacts,
    /// Must be higher at each start of the node: keep it on disk.
    pub generation: u64,
    /// Where to listen, UDP. The port must be given: it is the one that peers dial.
    pub listen: SocketAddr,
    /// Where others reach this node.
    pub advertise: SocketAddr,
    /// `host:port` of nodes to gossip with at first: seeds, and members known from before. Names
    /// are resolved again and again while this node is alone.
    pub seeds: Vec<String>,
}

/// Why gossip did not start.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The socket cannot be used.
    #[error("cannot listen for gossip on {listen}/UDP: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The facts cannot be put into a datagram.
    #[error("this node's facts cannot be written as JSON")]
    Facts {
        /// What is wrong with them.
        #[from]
        source: serde_json::Error,
    },
}

/// [`Discovery`] over UDP gossip.
pub struct ChitchatDiscovery {
    facts: watch::Sender<NodeFacts>,
    sightings: watch::Receiver<Arc<Vec<Sighting>>>,
    stop: watch::Sender<bool>,
    driver: Mutex<Option<JoinHandle<()>>>,
}

impl ChitchatDiscovery {
    /// Binds the socket and starts gossiping.
    ///
    /// # Errors
    /// [`GossipError`] when the address cannot be bound.
    pub async fn start(options: GossipOptions) -> Result<ChitchatDiscovery, GossipError> {
        let (literal, names) = split_seeds(&options.seeds);
        let first = vec![(FACTS_KEY.to_owned(), serde_json::to_string(&options.facts)?)];
        let handle =
            spawn_chitchat(config(&options, literal), first, &UdpTransport).await.map_err(
                |error| GossipError::Listen { listen: options.listen, source: error.into() },
            )?;
        let alone = Sighting { facts: options.facts.clone(), alive: true };
        let sightings = watch::Sender::new(Arc::new(vec![alone]));
        let (facts, stop) = (watch::Sender::new(options.facts), watch::Sender::new(false));
        let receiver = sightings.subscribe();
        let driver = Driver::new(handle, names, facts.subscribe(), sightings);
        let driver = Mutex::new(Some(tokio::spawn(driver.run(stop.subscribe()))));
        Ok(ChitchatDiscovery { facts, sightings: receiver, stop, driver })
    }

    /// False once gossip has stopped or failed; sightings then no longer change.
    pub fn is_running(&self) -> bool {
        self.driver.lock().as_ref().is_some_and(|driver| !driver.is_finished())
    }

    /// Tells the others, then stops. Idempotent.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let driver = self.driver.lock().take();
        if let Some(driver) = driver
            && let Err(error) = driver.await
        {
            tracing::error!(%error, "the gossip driver ended abnormally");
        }
    }
}

impl Discovery for ChitchatDiscovery {
    fn sightings(&self) -> watch::Receiver<Arc<Vec<Sighting>>> {
        self.sightings.clone()
    }

    fn publish(&self, facts: NodeFacts) {
        self.facts.send_if_modified(|current| {
            let changed = *current != facts;
            *current = facts;
            changed
        });
    }
}

/// Literal addresses, which chitchat keeps, and names, which the driver resolves: chitchat would
/// look a name up once a minute only, too late for one that a starting machine registers.
fn split_seeds(seeds: &[String]) -> (Vec<String>, Vec<String>) {
    seeds.iter().cloned().partition(|seed| seed.parse::<SocketAddr>().is_ok())
}

fn config(options: &GossipOptions, seeds: Vec<String>) -> ChitchatConfig {
    let node_id = options.facts.node_id.to_string();
    ChitchatConfig {
        chitchat_id: ChitchatId::new(node_id, options.generation, options.advertise),
        cluster_id: options.cluster_id.to_string(),
        gossip_interval: GOSSIP_INTERVAL,
        listen_addr: options.listen,
        seed_nodes: seeds,
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: PHI_DOUBTED,
            sampling_window_size: SAMPLES,
            max_interval: COUNTED_INTERVAL_MAX,
            initial_interval: INITIAL_INTERVAL,
            dead_node_grace_period: DEAD_NODE_GRACE,
        },
        marked_for_deletion_grace_period: DELETED_KEY_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V0,
    }
}
