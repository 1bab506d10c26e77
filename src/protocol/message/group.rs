//! What nodes say to each other about Raft groups: messages of the groups themselves, and
//! requests of clients that reached a node which does not lead.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::consistency::Consistency;
use crate::protocol::message::{ListPage, ListRange, RequestId};
use crate::protocol::raft;
use crate::protocol::watch::{WatchAsk, WatchPage};
use crate::types::{GroupId, Key, KeyspaceId, LogIndex, NodeId, Record};

/// A message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMessage {
    /// The group.
    pub group: GroupId,
    /// What the one replica says to the other.
    pub message: raft::message::Message,
}

/// A client's request, handed to the node that is thought to lead its group. That node never
/// hands it on: it answers, or refuses with what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Echoed in the reply.
    pub request: RequestId,
    /// The group that decides.
    pub group: GroupId,
    /// How long the client still waits. Counted from receipt.
    pub time_left: Duration,
    /// What is wanted.
    pub ask: Ask,
}

/// What a client wants of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Append this command of the state machine, encoded, and tell what it answers.
    Propose(Bytes),
    /// Read a key.
    Read {
        /// The keyspace of the key.
        keyspace: KeyspaceId,
        /// The key.
        key: Key,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// List keys of the partition.
    List {
        /// The keyspace of the keys.
        keyspace: KeyspaceId,
        /// Which of them.
        range: Box<ListRange>,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Tell what changed behind an entry; wait for something if nothing has. Any replica may
    /// answer.
    Watch(Box<WatchAsk>),
}

/// The outcome of a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardReply {
    /// The forward's request id.
    pub request: RequestId,
    /// The answer.
    pub outcome: Result<Told, ForwardRefusal>,
}

/// What a group answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The command was applied; the state machine's reply, encoded.
    Proposed(Bytes),
    /// What the key holds.
    Read {
        /// `None` when nothing was ever written there.
        record: Option<Record>,
        /// How much of the log the answer reflects.
        applied: LogIndex,
    },
    /// Keys that have a value; the version of each is the revision that last changed it.
    Listed(ListPage),
    /// What changed of what is watched.
    Watched(WatchPage),
}

/// Why a forwarded request was not answered. Unless it is `Unknown`, nothing came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardRefusal {
    /// The node does not lead the group.
    #[error("it does not lead the group")]
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<NodeId>,
    },
    /// The node has no replica of the group.
    #[error("it has no replica of the group")]
    NotReplica,
    /// Too much is queued.
    #[error("its queue is full")]
    Overloaded,
    /// The client's time ran out before anything was begun.
    #[error("the deadline passed before it was served")]
    Expired,
    /// The command was appended and then lost sight of: it may be applied yet, or never.
    #[error("it lost sight of the command, which may or may not apply")]
    Unknown,
    /// The command was appended, and another one was committed in its place: it never applies.
    #[error("another command took its place in the log")]
    Lost,
    /// Storage answered with an error that its log describes.
    #[error("its storage failed")]
    Storage,
    /// It is stopping, or has not joined yet.
    #[error("it is not serving")]
    NotServing,
}
