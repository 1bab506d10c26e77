//! What nodes say to each other, apart from how it is carried.
//!
//! Requests name themselves with a [`RequestId`] that only its sender interprets; the reply
//! carries it back. Every message may be lost or reordered, and all but two may be repeated. A
//! forwarded proposal is none of the latter: what it appends twice, the sessions of the state
//! machine apply once. Nor is a value to be minted, which would become its own sibling; streams
//! repeat nothing, and nobody sends it again.

use std::time::Duration;

use crate::protocol::version::dvv::Context;
use crate::protocol::version::merging::Change;
use crate::types::{Epoch, Key, KeyspaceId, NodeId, PartitionId, Record, Row, Version, cost_bytes};

mod group;
mod list;
pub mod snapshot;
pub mod tree;

pub use self::group::{Ask, Forward, ForwardRefusal, ForwardReply, GroupMessage, Told};
pub use self::list::{List, ListPage, ListRange, ListReply};
pub use self::snapshot::{SnapshotChunk, SnapshotRefusal, SnapshotReply};
use self::tree::{TreeAsk, TreeReply};

/// A sender's own name for one of its requests; unique within one run of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Which queue a message waits in; earlier variants are served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A client waits for it, or a Raft group does.
    Client,
    /// Read repair behind an answer.
    Repair,
    /// Hinted handoff.
    Hint,
    /// A partition's rows, or a group's, on their way to a node that lacks them.
    Transfer,
    /// Background comparison of replicas.
    AntiEntropy,
}

impl Class {
    /// All classes, first served first.
    pub const ALL: [Class; 5] =
        [Class::Client, Class::Repair, Class::Hint, Class::Transfer, Class::AntiEntropy];

    /// The class's name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Client => "client",
            Class::Repair => "repair",
            Class::Hint => "hint",
            Class::Transfer => "transfer",
            Class::AntiEntropy => "anti_entropy",
        }
    }
}

/// One message between two nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Store a record, or hold it for an absent primary; answered by `WriteReply`.
    Write(Write),
    /// The record is durable here, or was refused.
    WriteReply(WriteReply),
    /// Write a value into the siblings of a key; answered by `MintReply`.
    Mint(Mint),
    /// What the key's row is now, durably, or why the value was not taken.
    MintReply(MintReply),
    /// Report the record of a key; answered by `ReadReply`.
    Read(Read),
    /// What this replica holds for the key.
    ReadReply(ReadReply),
    /// List the rows of a partition, in key order; answered by `ScanReply`.
    Scan(Scan),
    /// One page of a partition's rows.
    ScanReply(ScanReply),
    /// What the hash tree of a partition says, or its rows; answered by `TreeReply`.
    TreeAsk(TreeAsk),
    /// What it says.
    TreeReply(TreeReply),
    /// List rows of a partition for a client; answered by `ListReply`.
    List(List),
    /// One page of what a client wants listed.
    ListReply(ListReply),
    /// One replica of a Raft group to another.
    Group(GroupMessage),
    /// A client's request of a group; answered by `ForwardReply`.
    Forward(Forward),
    /// What the group's leader made of it.
    ForwardReply(ForwardReply),
    /// Rows of a group for a replica that the log cannot bring up to date; answered by
    /// `SnapshotReply`.
    Snapshot(SnapshotChunk),
    /// Whether they were taken, and which are wanted next.
    SnapshotReply(SnapshotReply),
}

/// A replica's order to make one row durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Echoed in the reply.
    pub request: RequestId,
    /// The row to store.
    pub row: Row,
    /// The version of the ring by which the receiver was chosen.
    pub epoch: Epoch,
    /// Set when the receiver is a fallback: it keeps the row as a hint for this primary.
    pub hint_for: Option<NodeId>,
    /// The version of the key that the writer had seen, if it told: the receiver says whether the
    /// row met another one.
    pub seen: Option<Version>,
    /// What the row is written for: a receiver with much to do refuses the less urgent first.
    pub class: Class,
    /// How long the sender still waits; the receiver may drop it afterwards. Counted from receipt.
    pub time_left: Duration,
}

/// The outcome of a [`Write`].
#[derive(Clone, Debug, PartialEq)]
pub struct WriteReply {
    /// The write's request id.
    pub request: RequestId,
    /// `Ok` once the row survives a power loss of the replica; with the version that the row met
    /// there and its writer had not seen ([`crate::protocol::version::unseen`]).
    pub outcome: Result<Option<Version>, Refusal>,
}

/// An owner's order to change a key whose copies are joined. Whoever sends it sees to it that the
/// other owners hear of the row that comes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mint {
    /// Echoed in the reply.
    pub request: RequestId,
    /// The keyspace of the key.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Key,
    /// What is to be done.
    pub change: Change,
    /// What the writer had seen, if it told.
    pub context: Option<Context>,
    /// The version of the ring by which the receiver was chosen.
    pub epoch: Epoch,
    /// How long the sender still waits; the receiver may drop it afterwards. Counted from receipt.
    pub time_left: Duration,
}

/// The outcome of a [`Mint`].
#[derive(Clone, Debug, PartialEq)]
pub struct MintReply {
    /// The mint's request id.
    pub request: RequestId,
    /// The row as it is now, durable at the receiver.
    pub outcome: Result<Record, Refusal>,
}

/// How much of a record a read wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Version and value.
    Value,
    /// The version alone; the value is left out of the answer.
    Version,
}

/// A question for a key's record.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Echoed in the reply.
    pub request: RequestId,
    /// The keyspace of the key.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Key,
    /// Whether the value is wanted.
    pub want: Want,
    /// The version of the ring by which the receiver was chosen.
    pub epoch: Epoch,
    /// How long the sender still waits. Counted from receipt.
    pub time_left: Duration,
}

/// The outcome of a [`Read`].
#[derive(Clone, Debug, PartialEq)]
pub struct ReadReply {
    /// The read's request id.
    pub request: RequestId,
    /// What was found.
    pub outcome: Result<Found, Refusal>,
}

/// What a replica holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `None` when the replica has no record of the key.
    pub holding: Option<Holding>,
    /// False while the replica refills after a loss: its answer must not count towards a quorum.
    pub complete: bool,
}

/// A replica's record, with or without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The whole record.
    Record(Record),
    /// Its version alone.
    Version(Version),
}

impl Holding {
    /// The record's version.
    pub fn version(&self) -> Version {
        match self {
            Holding::Record(record) => record.version,
            Holding::Version(version) => *version,
        }
    }
}

/// A page request over one partition of a keyspace.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// Echoed in the reply.
    pub request: RequestId,
    /// The keyspace to list.
    pub keyspace: KeyspaceId,
    /// The partition to list.
    pub partition: PartitionId,
    /// List only keys above this one.
    pub after: Option<Key>,
    /// The version of the ring that the receiver must have heard of, so that it takes no write
    /// any more that was decided before.
    pub epoch: Epoch,
    /// What the asker has of the rows up to some key: if the receiver has the very same, it says so
    /// and lists nothing.
    pub compare: Option<Compare>,
    /// Stop the page once its rows reach this many bytes.
    pub page_bytes_max: u32,
}

/// The outcome of a [`Scan`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScanReply {
    /// The scan's request id.
    pub request: RequestId,
    /// The page.
    pub outcome: Result<ScanPage, Refusal>,
    /// False while the replica itself may lack rows.
    pub complete: bool,
}

/// Rows of one partition in key order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScanPage {
    /// The rows, tombstones included.
    pub rows: Vec<(Key, Record)>,
    /// False when more rows follow the last one.
    pub done: bool,
    /// Whether the asker has the very same rows; none are listed then.
    pub same: bool,
    /// Keys of the page's range whose rows are damaged here, and so neither listed nor compared.
    /// Only sources that are sound say what there is of them.
    pub damaged: Vec<Key>,
}

impl ScanPage {
    /// Bytes that the rows stand for against limits.
    pub fn cost_bytes(&self) -> u64 {
        self.rows.iter().map(|(key, record)| cost_bytes(key, record) as u64).sum()
    }

    /// The first damaged key of which nothing is listed. Where versions only rise, what is listed
    /// of the others is newer than what is damaged.
    pub fn missed(&self) -> Option<&Key> {
        let is_listed = |key: &&Key| self.rows.iter().any(|(listed, _)| listed == *key);
        self.damaged.iter().find(|key| !is_listed(key))
    }
}

/// What the asker of a page holds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The page ends with this key; `None` when it ends with the partition.
    pub up_to: Option<Key>,
    /// The digest of its rows, as [`crate::protocol::digest`] makes it.
    pub digest: u64,
}

/// Why a replica did not do what it was asked; nothing was changed, unless it says otherwise
/// ([`Refusal::leaves_doubt`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too much is queued.
    #[error("its queue is full")]
    Overloaded,
    /// The disk has less room than the reserve.
    #[error("its disk is full")]
    DiskFull,
    /// A write or sync failed earlier, and nothing that it says about durability can be trusted.
    #[error("its log failed earlier and it no longer acknowledges writes")]
    LogFailed,
    /// A write or sync failed while it took this very row, which the next start may find.
    #[error("its log failed while it took the write, which it may or may not have")]
    InDoubt,
    /// The version lies further ahead of its clock than `max_clock_offset`.
    #[error("the version lies too far ahead of its clock")]
    ClockOffset,
    /// The stored value fails its checksum.
    #[error("its copy fails the checksum")]
    Corrupt,
    /// The request's time ran out before it was served.
    #[error("the deadline passed before it was served")]
    Expired,
    /// A hint for that target is not admitted: window, cap, or the target is unknown.
    #[error("it does not admit a hint for that node")]
    HintNotAdmitted,
    /// Storage answered with an error that its log describes.
    #[error("its storage failed")]
    Storage,
    /// It is stopping, has not joined yet, or has not heard of the keyspace yet.
    #[error("it is not serving")]
    NotServing,
    /// The keyspace was dropped, with all its rows.
    #[error("the keyspace was dropped")]
    KeyspaceDropped,
    /// It follows a newer ring, by which the request would do harm or is not its business.
    #[error("it follows a newer ring than the request was made by")]
    StaleRing,
    /// The key would have more siblings than are allowed, or siblings of more bytes.
    #[error("the key has too many siblings")]
    TooManySiblings,
    /// Elements are to be removed as somebody had seen them, and the owner has not heard of all
    /// that was seen.
    #[error("has not heard of what the context names")]
    ContextUnheard,
    /// The counter would leave the range of 64-bit numbers.
    #[error("the counter would leave its range")]
    OutOfRange,
}

impl Refusal {
    /// Every refusal that there is.
    pub const ALL: [Refusal; 15] = [
        Refusal::Overloaded,
        Refusal::DiskFull,
        Refusal::LogFailed,
        Refusal::InDoubt,
        Refusal::ClockOffset,
        Refusal::Corrupt,
        Refusal::Expired,
        Refusal::HintNotAdmitted,
        Refusal::Storage,
        Refusal::NotServing,
        Refusal::KeyspaceDropped,
        Refusal::StaleRing,
        Refusal::TooManySiblings,
        Refusal::ContextUnheard,
        Refusal::OutOfRange,
    ];

    /// True when the row may be there all the same, now or after a restart.
    pub fn leaves_doubt(self) -> bool {
        self == Refusal::InDoubt
    }
}
