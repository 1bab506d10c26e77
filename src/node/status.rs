//! What a node reports of itself, its members and its ring: plain values for every interface.

use std::net::SocketAddr;

use serde::Serialize;

use crate::types::{ClusterId, Epoch, Incarnation, NodeId, PartitionId, Token};

/// Everything that `coterie status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// The program's version.
    pub program_version: &'static str,
    /// `None` until the node has joined or founded a cluster.
    pub cluster_id: Option<ClusterId>,
    /// This node.
    pub node_id: NodeId,
    /// Its human name.
    pub name: String,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Whether it serves requests, and if not, why.
    pub serving: Serving,
    /// Its member set and what is known of each member.
    pub members: Vec<MemberStatus>,
    /// The ring in use.
    pub ring: RingSummary,
    /// Replication of the default keyspace, as configured and in effect.
    pub replication: ReplicationStatus,
    /// The Raft groups that this node has a replica of.
    pub raft: RaftStatus,
    /// The keys that its clients lately asked for most, as a sample of requests has them; empty
    /// when no key stands out.
    pub hot_keys: Vec<HotKey>,
    /// Versions that writes with a context, coordinated here, met and their writers had not seen,
    /// since the start: of each such pair one was discarded.
    pub concurrent_writes_discarded: u64,
    /// Background activities: one line each.
    pub activities: Vec<Activity>,
    /// Conditions that want an operator's eye; empty when all is well.
    pub warnings: Vec<String>,
}

/// Whether a node serves requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Serving {
    /// True when it does.
    pub ready: bool,
    /// What it waits for; empty when ready.
    pub reason: String,
}

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// The member.
    pub node_id: NodeId,
    /// Its human name.
    pub name: String,
    /// `up`, `down` or `unseen` (known from others or from an earlier run, not seen yet).
    pub state: String,
    /// True for the node that answers.
    pub is_self: bool,
    /// Whether a peer stream to it stands.
    pub connected: bool,
    /// Where peers reach it.
    pub peer_address: SocketAddr,
    /// Where clients reach it.
    pub client_address: SocketAddr,
    /// Its failure domain.
    pub zone: String,
    /// Its virtual nodes on the ring.
    pub vnodes: u32,
    /// Partitions that it is a primary of.
    pub partitions: u32,
    /// Hints that this node keeps for it, in bytes.
    pub hint_bytes: u64,
    /// Client requests per second that it lately served.
    pub load_per_second: u64,
    /// False while it refills after a loss.
    pub complete: bool,
    /// False while its member set differs from this node's.
    pub agrees: bool,
    /// How long it lately took to answer this node's reads of a key, in microseconds on average; 0
    /// when none was measured.
    pub read_latency_us: u64,
    /// The same of writes.
    pub write_latency_us: u64,
    /// Whether it takes much longer than the fastest other replica.
    pub slow: bool,
}

/// The ring in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RingSummary {
    /// This node's count of ring changes.
    pub epoch: Epoch,
    /// Q.
    pub partitions: u32,
    /// Virtual nodes of all members.
    pub vnodes: u32,
    /// A digest of the member set.
    pub digest: String,
    /// Partitions that are on their way to where they are to lie.
    pub unsettled: u32,
}

/// N, R and W as configured and as they hold now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicationStatus {
    /// N as configured.
    pub replication_factor: u32,
    /// R as configured.
    pub read_quorum: u32,
    /// W as configured.
    pub write_quorum: u32,
    /// N in effect.
    pub replicas_in_effect: u32,
    /// Default R in effect.
    pub read_quorum_in_effect: u32,
    /// Default W in effect.
    pub write_quorum_in_effect: u32,
}

/// The Raft groups of a node in a few numbers, half a second old at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RaftStatus {
    /// Groups that this node has a replica of, the system group included.
    pub groups: u64,
    /// Groups that it leads.
    pub led: u64,
    /// Groups of which it knows no leader.
    pub leaderless: u64,
    /// Requests that wait for a group here.
    pub waiting: u64,
    /// Replicas that take in a snapshot.
    pub installing: u64,
    /// The node that leads the system group, as far as is known.
    pub system_leader: Option<NodeId>,
    /// Snapshots that this node began to send, since its start.
    pub snapshots_sent: u64,
    /// Snapshots that it took over, since its start.
    pub snapshots_installed: u64,
}

/// A key that many requests are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HotKey {
    /// Its keyspace.
    pub keyspace: String,
    /// The key.
    pub key: String,
    /// Requests for it in a second, through this node, about.
    pub requests_per_second: u64,
    /// Of all of this node's requests, in percent.
    pub share_percent: u32,
}

/// One background activity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// Its name, such as `hinted handoff`.
    pub name: &'static str,
    /// `idle`, `busy`, `throttled`, `waiting` or `failed`.
    pub state: &'static str,
    /// Progress and counts, for people.
    pub detail: String,
}

/// The ring, member by member and partition by partition.
#[derive(Clone, Debug, Serialize)]
pub struct RingView {
    /// The ring in a few numbers.
    pub summary: RingSummary,
    /// Members, with the partitions of each.
    pub members: Vec<MemberStatus>,
    /// Primaries of every partition, in preference order.
    pub partitions: Vec<PartitionView>,
}

/// One partition's primaries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionView {
    /// The partition.
    pub partition: PartitionId,
    /// Its primaries, in preference order.
    pub primaries: Vec<NodeId>,
    /// The node that leads its Raft group, as far as the answering node knows; `None` also while
    /// there is no strong keyspace.
    pub leader: Option<NodeId>,
}

/// Where one key lies.
#[derive(Clone, Debug, Serialize)]
pub struct KeyOwners {
    /// The key.
    pub key: String,
    /// Its token.
    pub token: Token,
    /// Its partition.
    pub partition: PartitionId,
    /// Its preference list: primaries, then fallbacks.
    pub owners: Vec<OwnerView>,
}

/// One entry of a preference list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnerView {
    /// The node.
    pub node_id: NodeId,
    /// Its human name.
    pub name: String,
    /// `primary` or `fallback`.
    pub role: &'static str,
    /// `up`, `down` or `unseen`.
    pub state: String,
    /// Where clients reach it.
    pub client_address: SocketAddr,
}
