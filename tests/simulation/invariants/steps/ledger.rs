//! What the group as a whole has chosen, as no replica knows it: the yardstick of the invariants.

use coterie::protocol::raft::Raft;
use coterie::protocol::raft::entry::{Entry, LogPosition};
use coterie::types::{LogIndex, Term};

/// One entry that some replica regards as committed.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) entry: Entry,
    /// The term of the replica that said so first.
    pub(crate) in_term: Term,
}

/// Everything that was ever committed, from where the group began.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The index before the first entry: that of the entry that a group was founded with, or 0.
    founded_at: u64,
    chosen: Vec<Chosen>,
    /// How many were known before the present action.
    known_before: usize,
}

impl Ledger {
    /// Takes note of what a core regards as committed, and is the first to.
    pub(crate) fn note(&mut self, core: &Raft) {
        self.known_before = self.chosen.len();
        if self.chosen.is_empty() {
            self.founded_at = core.log().start().index.0;
        }
        while self.last() < core.commit() {
            let Some(entry) = core.log().entry(self.last().next()) else { return };
            self.chosen.push(Chosen { entry: entry.clone(), in_term: core.term() });
        }
    }

    /// The last index that was ever committed anywhere.
    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(self.founded_at + self.chosen.len() as u64)
    }

    /// What was chosen for an index.
    pub(crate) fn at(&self, index: LogIndex) -> Option<&Chosen> {
        let at = usize::try_from(index.0.checked_sub(self.founded_at + 1)?).ok()?;
        self.chosen.get(at)
    }

    pub(crate) fn all(&self) -> &[Chosen] {
        &self.chosen
    }

    /// What the present action has added.
    pub(crate) fn added(&self) -> &[Chosen] {
        &self.chosen[self.known_before..]
    }
}

impl Chosen {
    pub(crate) fn position(&self) -> LogPosition {
        self.entry.position()
    }
}
