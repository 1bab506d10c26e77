//! Comparing the hash trees of two replicas.

use crate::protocol::message::{Refusal, RequestId};
use crate::types::{Epoch, Key, KeyspaceId, PartitionId, Timestamp, Version};

/// A question about a partition's tree or rows; answered by [`TreeReply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeAsk {
    /// Echoed in the reply.
    pub request: RequestId,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The partition.
    pub partition: PartitionId,
    /// The version of the ring by which the receiver was chosen.
    pub epoch: Epoch,
    /// What is asked.
    pub question: Question,
}

/// What one replica asks another, and itself, about a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The hash over everything.
    Root,
    /// The hashes of all branches.
    Branches,
    /// The hashes of the buckets of these branches, one branch after the other.
    Buckets(Vec<u8>),
    /// The rows of these buckets above a key.
    Rows {
        /// The buckets.
        buckets: Vec<u16>,
        /// Only rows above this key.
        after: Option<Key>,
    },
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Hashes, in the order of the question.
    Hashes(Vec<u64>),
    /// Rows.
    Rows(RowList),
}

/// Rows by version, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowList {
    /// The rows, tombstones included.
    pub rows: Vec<(Key, Version)>,
    /// The list is complete up to this key; `None` when that is the partition's end.
    pub complete_to: Option<Key>,
}

/// The outcome of a [`TreeAsk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeReply {
    /// The request id of the question.
    pub request: RequestId,
    /// What was found.
    pub outcome: Result<Answer, Refusal>,
    /// False while the replica refills after a loss: then there is nothing to compare.
    pub complete: bool,
    /// Where the question was for the root: the replica takes nothing new at or below this stamp,
    /// and its tree has everything that it took before. Zero otherwise.
    pub fence: Timestamp,
}
