//! Entries that are committed and not applied yet.

use std::collections::VecDeque;

use crate::node::groups::begin::UNCOMMITTED_BYTES_MAX;
use crate::protocol::raft::entry::Entry;
use crate::types::LogIndex;

/// The entries, in order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Backlog {
    /// Adds what was committed next.
    pub(super) fn extend(&mut self, committed: Vec<Entry>) {
        self.bytes += committed.iter().map(Entry::cost_bytes).sum::<usize>();
        self.entries.extend(committed);
    }

    /// Whether there is so much to apply that nothing more should be committed here for now: as
    /// much as may wait to be committed.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= UNCOMMITTED_BYTES_MAX
    }

    /// The entry that is to be applied next.
    pub(super) fn first(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// It has been applied.
    pub(super) fn pop(&mut self) {
        let applied = self.entries.pop_front();
        self.bytes -= applied.as_ref().map_or(0, Entry::cost_bytes);
    }

    /// All of them, the next one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// A snapshot has brought what entries up to this one came to.
    pub(super) fn pass_over(&mut self, through: LogIndex) {
        while self.first().is_some_and(|entry| entry.index <= through) {
            self.pop();
        }
    }
}
