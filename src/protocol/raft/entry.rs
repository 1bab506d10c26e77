//! What a group's log holds, and what a replica must not forget.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::protocol::raft::membership::Membership;
use crate::types::{LogIndex, ReplicaId, Term};

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that appended it.
    pub term: Term,
    /// Its position.
    pub index: LogIndex,
    /// What it says.
    pub payload: Payload,
}

impl Entry {
    /// Where the entry stands.
    pub fn position(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term }
    }

    /// Bytes that the entry stands for against limits: its command and a fixed overhead.
    pub fn cost_bytes(&self) -> usize {
        const ENTRY_OVERHEAD_BYTES: usize = 32;
        let payload = match &self.payload {
            Payload::Empty => 0,
            Payload::Command(command) => command.len(),
            Payload::Membership(membership) => 24 * membership.nodes.len(),
        };
        ENTRY_OVERHEAD_BYTES + payload
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: a leader's first entry, which lets it commit those of earlier terms
    /// (Ongaro 2014, section 6.4).
    Empty,
    /// A command of the state machine, which alone knows what it means.
    Command(Bytes),
    /// From here on the group consists of these replicas (section 4.1: in force once appended).
    Membership(Membership),
}

/// Where an entry stands: what two logs that agree on it agree on (log matching, section 3.5).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogPosition {
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's term.
    pub term: Term,
}

/// What a replica must remember across a crash before it answers (section 3.8); the commit index
/// rides along and may lag behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term that the replica has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<ReplicaId>,
    /// A committed index.
    pub commit: LogIndex,
}

/// Where a log begins: everything up to `position` is in the state machine and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStart {
    /// The last entry that was compacted away; 0 when none was.
    pub position: LogPosition,
    /// The membership in force there.
    pub membership: Membership,
    /// The index of the entry that said so; 0 for the membership that the group was created with.
    pub membership_index: LogIndex,
}

/// What a replica starts with: empty but for `start` when the group is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The hard state that was last made durable.
    pub hard_state: HardState,
    /// Where the log begins.
    pub start: LogStart,
    /// The entries behind that, without a gap.
    pub entries: Vec<Entry>,
    /// The last entry that the state machine holds; at least the start's.
    pub applied: LogIndex,
}
