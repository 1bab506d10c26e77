//! What is fixed for a cluster or a keyspace: its id, its partitions, its replication.

use serde::{Deserialize, Serialize};

use crate::protocol::quorum::level::majority;
use crate::types::ClusterId;

/// Bytes of a node's name or zone: they are gossiped, and gossip fits in one datagram.
pub const LABEL_BYTES_MAX: usize = 64;

/// N, R and W of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replication {
    /// N: replicas of every key.
    pub factor: u32,
    /// R: replicas that answer a read by default.
    pub read_quorum: u32,
    /// W: replicas that acknowledge a write by default.
    pub write_quorum: u32,
}

impl Replication {
    /// The largest N: beyond this a write costs more than any quorum gains.
    pub const FACTOR_MAX: u32 = 15;

    /// N replicas of which a majority reads and writes.
    pub fn majority_of(factor: u32) -> Self {
        let majority = majority(factor);
        Replication { factor, read_quorum: majority, write_quorum: majority }
    }

    /// Whether a read may miss the newest acknowledged write: R + W does not exceed N.
    pub fn is_weak(&self) -> bool {
        self.read_quorum + self.write_quorum <= self.factor
    }
}

impl Default for Replication {
    fn default() -> Self {
        Replication { factor: 3, read_quorum: 2, write_quorum: 2 }
    }
}

/// What the founder fixed and everyone who joins takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Q.
    pub partitions: u32,
    /// N, R and W of the default keyspace.
    pub replication: Replication,
}
