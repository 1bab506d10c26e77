//! The two seams to other nodes: messages ([`Transport`], [`Inbox`]) and facts ([`Discovery`]).

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::net::peer::PeerStats;
use crate::protocol::message::{Class, Message};
use crate::types::{Epoch, Incarnation, NodeId};

/// Why a message was not queued. It was certainly not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No stream to that node stands.
    #[error("not connected to node {to}")]
    NotConnected {
        /// The addressee.
        to: NodeId,
    },
    /// The queue of the message's class is at its limit.
    #[error("the {class:?} queue to node {to} is full")]
    QueueFull {
        /// The addressee.
        to: NodeId,
        /// The full queue.
        class: Class,
    },
}

/// Carries messages to peers. Never blocks, never waits.
pub trait Transport: Send + Sync {
    /// Queues a message; it may still be lost with the connection.
    ///
    /// # Errors
    /// [`SendError`] when the message was certainly not sent.
    fn send(&self, to: NodeId, class: Class, message: Message) -> Result<(), SendError>;

    /// True while a stream to the node stands.
    fn is_connected(&self, to: NodeId) -> bool;

    /// The peers that ought to be connected, with their peer addresses; connections to those that
    /// were listed before and no longer are, are closed. (One never listed may be joining.)
    /// Called whenever membership, an address or the liveness of a peer changes.
    fn set_peers(&self, peers: &[(NodeId, SocketAddr)]);

    /// The nodes that were forgotten: their connections are closed, and new ones are refused.
    fn set_forgotten(&self, _nodes: &[NodeId]) {}

    /// Whether a peer says that its cluster, if it is this node's, has forgotten this node. Asked
    /// by a call of its own, for a forgotten node gets no connection; no answer is no.
    fn is_forgotten_by(&self, _peer: NodeId, _address: SocketAddr) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }

    /// Counts for metrics, by peer.
    fn traffic(&self) -> Vec<PeerStats> {
        Vec::new()
    }

    /// Peers that refuse this node or were refused by it, with the reason.
    fn refusals(&self) -> Vec<(NodeId, String)> {
        Vec::new()
    }
}

/// What takes the messages that arrive. Must not block.
pub trait Inbox: Send + Sync {
    /// Messages of one frame from one peer; those of one kind and class in the order in which they
    /// were sent.
    fn on_messages(&self, from: NodeId, messages: Vec<Message>);

    /// A stream to the peer stands.
    fn on_connected(&self, peer: NodeId);

    /// The stream to the peer is gone; what was in flight may or may not have arrived.
    fn on_disconnected(&self, peer: NodeId);
}

/// What gossip carries about one node. Small: all of it must fit a datagram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The node.
    pub node_id: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Its human name.
    pub name: String,
    /// Where peers reach it.
    pub peer_address: SocketAddr,
    /// Where clients reach it.
    pub client_address: SocketAddr,
    /// Grows each time the node starts: newer words replace older ones.
    pub revision: u64,
    /// Its failure domain; empty when none was given.
    pub zone: String,
    /// Its virtual nodes on the ring, already scaled by capacity.
    pub vnodes: u32,
    /// A digest of its member set; nodes that differ exchange their sets.
    pub members_digest: u64,
    /// The version of the ring by which it serves requests.
    #[serde(default)]
    pub epoch: Epoch,
    /// The earliest epoch in which a request of a client began that it still serves, or an earlier
    /// one; 0 of nodes that do not tell.
    #[serde(default)]
    pub requests_since: Epoch,
    /// Client requests per second that it lately served; for status pages.
    pub load_per_second: u64,
    /// False while it refills after a loss.
    pub complete: bool,
}

/// One node as gossip sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What it last said of itself.
    pub facts: NodeFacts,
    /// Whether the failure detector holds it to be alive.
    pub alive: bool,
}

/// Facts about other nodes of the cluster, and this node's own for them.
pub trait Discovery: Send + Sync {
    /// The latest sightings, this node's own among them, by node id; changes wake the receiver.
    fn sightings(&self) -> watch::Receiver<Arc<Vec<Sighting>>>;

    /// Replaces what this node says of itself.
    fn publish(&self, facts: NodeFacts);
}
