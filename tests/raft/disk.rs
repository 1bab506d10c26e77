//! What one replica's disk holds: all that a crash leaves of it.

use std::collections::BTreeMap;

use coterie::protocol::raft::entry::{Entry, HardState, LogPosition, LogStart, Restored};
use coterie::protocol::raft::{Raft, Write};
use coterie::types::{LogIndex, ReplicaId, Term};

/// One replica's disk.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) start: LogStart,
    pub(crate) entries: Vec<Entry>,
    /// The last entry that the state machine holds durably.
    pub(crate) applied: LogIndex,
    /// Every vote that was ever durable here, even if only for a moment.
    pub(crate) votes: BTreeMap<Term, ReplicaId>,
}

impl Disk {
    /// The disk of a replica that has just been created.
    pub(crate) fn new(start: LogStart) -> Disk {
        let applied = start.position.index;
        let (hard_state, entries, votes) = Default::default();
        Disk { hard_state, start, entries, applied, votes }
    }

    /// What the replica finds when it starts.
    pub(crate) fn restored(&self) -> Restored {
        Restored {
            hard_state: self.hard_state,
            start: self.start.clone(),
            entries: self.entries.clone(),
            applied: self.applied,
        }
    }

    /// Makes a write durable, but of its entries only the first `kept`.
    pub(crate) fn write(&mut self, write: &Write, kept: usize) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
            if let Some(candidate) = hard_state.voted_for {
                self.votes.insert(hard_state.term, candidate);
            }
        }
        let entries = &write.entries[..kept];
        if let Some(first) = entries.first() {
            let before = first.index.0 - self.start.position.index.0 - 1;
            let before = usize::try_from(before).expect("a log of this size fits");
            assert!(before <= self.entries.len(), "a write leaves a gap before {}", first.index);
            self.entries.truncate(before);
            self.entries.extend_from_slice(entries);
        }
    }

    /// Drops what the core has compacted.
    pub(crate) fn compact_like(&mut self, core: &Raft) {
        let log = core.log();
        self.start = log.start_at(log.start().index).expect("a log knows where it begins");
        self.entries.retain(|entry| entry.index > self.start.position.index);
    }

    /// A snapshot's rows are here. What follows its last entry stays if that entry was here too:
    /// it may have been acknowledged. Anything else of the log goes.
    pub(crate) fn install(&mut self, start: LogStart) {
        let holds = self.term_at(start.position.index) == Some(start.position.term);
        self.entries.retain(|entry| holds && entry.index > start.position.index);
        self.applied = start.position.index;
        self.start = start;
    }

    pub(crate) fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.start.position, Entry::position)
    }

    /// The term of the entry at an index, if it is still in the log.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        let start = self.start.position;
        if index == start.index {
            return Some(start.term);
        }
        let behind = index.0.checked_sub(start.index.0 + 1)?;
        self.entries.get(usize::try_from(behind).ok()?).map(|entry| entry.term)
    }

    /// Whether the entry is here: in the log, or so old that the state machine has it.
    pub(crate) fn holds(&self, position: LogPosition) -> bool {
        position.index <= self.start.position.index
            || self.term_at(position.index) == Some(position.term)
    }
}
