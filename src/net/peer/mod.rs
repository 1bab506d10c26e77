//! The transport between nodes: one gRPC stream per pair of peers, carrying batched frames.
//!
//! * The node with the lower id dials, the other accepts; so a pair never has two streams. A new
//!   stream of a peer replaces the old one: the peer restarted, or its end broke unnoticed.
//! * The first frame each way is a Hello. Nodes of another cluster, of another protocol version or
//!   forgotten ones are refused, in words that both ends log once and keep for status pages.
//! * Each connection has an outbox of its own. What is queued when it breaks is lost, and the
//!   owner learns through [`Inbox::on_disconnected`]: every message is idempotent and retried by
//!   whoever sent it.
//! * Every task belongs to the transport; [`PeerTransport::stop`] joins them all.
//!
//! Caveat: HTTP/2 pings tell a dead connection within some 4 s; until then messages
//! to a silent peer are queued and count as sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::net::outbox::PushError;
use crate::net::peer::dialer::Dialer;
use crate::net::peer::introduce::{Introduction, introduce};
use crate::net::peer::switchboard::Switchboard;
use crate::net::transport::{Inbox, SendError, Transport};
use crate::protocol::message::{Class, Message};
use crate::types::{ClusterId, Incarnation, NodeId};

mod back_off;
mod connection;
mod dialer;
mod handshake;
pub mod introduce;
mod refusals;
pub mod server;
mod stats;
mod switchboard;
mod tasks;
#[cfg(test)]
mod tests;

pub use self::stats::PeerStats;

/// How often an idle connection is pinged.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a ping may stay unanswered before the connection counts as dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long either side waits for the other's Hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// HTTP/2 flow control: bytes under way on a stream, and on its connection.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Bytes of an HTTP/2 DATA frame; one of ours then mostly fits one of theirs.
const HTTP2_FRAME_BYTES: u32 = 256 << 10;

/// The largest frame that is taken: far above what an outbox packs, so that one large value or
/// page passes, and low enough that a broken peer cannot exhaust memory.
const FRAME_BYTES_LIMIT: usize = 64 << 20;

/// How long [`PeerTransport::stop`] lets queues drain.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// How long a peer may take to say whether this node still belongs.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What this node says of itself when it shakes hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    /// The cluster that it belongs to.
    pub cluster_id: ClusterId,
    /// Its id.
    pub node_id: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Its human name.
    pub name: String,
    /// Q; nodes that cut the ring differently must not talk.
    pub partitions: u32,
}

/// [`Transport`] over gRPC streams. The accepting half is a [`server::PeerServer`].
pub struct PeerTransport {
    board: Arc<Switchboard>,
    roster: Mutex<Roster>,
}

/// The peers last listed; those that this node dials have an address to follow. Dropping the
/// sender ends the dialer.
#[derive(Default)]
struct Roster {
    listed: BTreeMap<NodeId, Option<watch::Sender<SocketAddr>>>,
}

impl PeerTransport {
    /// A transport without peers. Must be called within a tokio runtime, which then runs its tasks.
    pub fn new(local: LocalPeer, inbox: Arc<dyn Inbox>) -> Arc<PeerTransport> {
        let board = Arc::new(Switchboard::new(local, inbox));
        Arc::new(PeerTransport { board, roster: Mutex::default() })
    }

    /// Sends what is queued, as far as that goes quickly, closes every connection and joins every
    /// task. No callback comes after it returns.
    pub async fn stop(&self) {
        let mut tasks = self.board.tasks.begin_stop();
        for connection in self.board.connections() {
            connection.finish();
        }
        if tokio::time::timeout(STOP_GRACE, tasks::join(&mut tasks)).await.is_err() {
            self.board.end_all();
            tasks::join(&mut tasks).await;
        }
        self.roster.lock().listed.clear();
    }

    /// Peers that refuse this node or were refused by it, with the reason; old ones fade.
    pub fn refusals(&self) -> Vec<(NodeId, String)> {
        self.board.refusals.standing()
    }

    /// Counts for metrics, by peer.
    pub fn stats(&self) -> Vec<PeerStats> {
        self.board.stats()
    }

    fn follow(&self, peer: NodeId, address: SocketAddr) -> Option<watch::Sender<SocketAddr>> {
        if peer < self.board.local.node_id {
            return None;
        }
        let (sender, receiver) = watch::channel(address);
        let dialer = Dialer::new(Arc::clone(&self.board), peer, receiver);
        self.board.tasks.spawn(dialer.run()).then_some(sender)
    }
}

impl Transport for PeerTransport {
    fn send(&self, to: NodeId, class: Class, message: Message) -> Result<(), SendError> {
        self.board.push(to, class, message).map_err(|error| match error {
            PushError::Closed => SendError::NotConnected { to },
            PushError::Full => SendError::QueueFull { to, class },
        })
    }

    fn is_connected(&self, to: NodeId) -> bool {
        self.board.is_connected(to)
    }

    fn set_peers(&self, peers: &[(NodeId, SocketAddr)]) {
        let mut roster = self.roster.lock();
        let mut before = std::mem::take(&mut roster.listed);
        for &(peer, address) in peers.iter().filter(|(peer, _)| *peer != self.board.local.node_id) {
            let follower = match before.remove(&peer) {
                Some(Some(known)) => {
                    // Wakes a dialer that waits, even if the address is the same: there is news.
                    known.send_replace(address);
                    Some(known)
                }
                _ => self.follow(peer, address),
            };
            roster.listed.insert(peer, follower);
        }
        for gone in before.into_keys() {
            self.board.drop_peer(gone);
        }
    }

    fn set_forgotten(&self, nodes: &[NodeId]) {
        self.board.set_forgotten(nodes);
    }

    fn is_forgotten_by(&self, peer: NodeId, address: SocketAddr) -> BoxFuture<'_, bool> {
        let asked = async move {
            match introduce(&address.to_string(), ASK_TIMEOUT).await {
                Ok(Introduction { cluster, members }) => {
                    let LocalPeer { cluster_id, node_id, .. } = &self.board.local;
                    cluster.cluster_id == *cluster_id && members.is_forgotten(*node_id)
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "not told whether this node still belongs");
                    false
                }
            }
        };
        asked.boxed()
    }

    fn traffic(&self) -> Vec<PeerStats> {
        self.board.stats()
    }

    fn refusals(&self) -> Vec<(NodeId, String)> {
        self.board.refusals.standing()
    }
}

/// An error and its causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
