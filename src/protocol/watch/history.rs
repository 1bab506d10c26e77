//! What a node keeps of the entries that its replicas have applied, for those who watch.
//!
//! It is in memory, and bounded over all groups of the node together: what was applied first goes
//! first, whichever group it is of. Of each group it is known from which entry on all is here;
//! before that, nothing is promised. A replica that begins, or that took over a snapshot, begins
//! with nothing behind what it has applied.
//!
//! # Duties of the driver
//! 1. Before a group applies anything, [`History::follow`] with what it has applied so far. Where
//!    that is not what the history has come to, entries were passed over, and so all is let go of.
//! 2. [`History::note`] every entry that was applied, in order; then [`History::advance`].

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::watch::{WatchEntry, WatchEvent, WatchPage, Watched};
use crate::types::{GroupId, KeyspaceId, LogIndex, Revision, Row};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Changes of keys. The entry applied last is kept whatever it has.
    pub events_max: usize,
    /// Bytes of their keys and values, with some for each.
    pub bytes_max: usize,
}

/// What is kept of all groups.
#[derive(Clone, Debug)]
pub struct History {
    limits: HistoryLimits,
    groups: BTreeMap<GroupId, Stretch>,
    /// The group of every entry that is kept, in the order in which they were applied.
    order: VecDeque<GroupId>,
    events: usize,
    bytes: usize,
}

/// What is kept of one group: all behind `start`, up to `through`.
#[derive(Clone, Debug)]
struct Stretch {
    start: LogIndex,
    through: LogIndex,
    /// Entries that changed anything of a user.
    entries: VecDeque<Kept>,
}

#[derive(Clone, Debug)]
struct Kept {
    index: LogIndex,
    revision: Revision,
    events: Vec<(KeyspaceId, WatchEvent)>,
    cost_bytes: usize,
}

impl History {
    /// Nothing yet.
    pub fn new(limits: HistoryLimits) -> History {
        History { limits, groups: BTreeMap::new(), order: VecDeque::new(), events: 0, bytes: 0 }
    }

    /// A group is about to apply what comes behind this entry.
    pub fn follow(&mut self, group: GroupId, applied: LogIndex) {
        match self.groups.get(&group) {
            Some(stretch) if stretch.through == applied => {}
            _ => {
                self.forget(group);
                let begun = Stretch { start: applied, through: applied, entries: VecDeque::new() };
                self.groups.insert(group, begun);
            }
        }
    }

    /// A group that is followed has applied an entry, which changed these rows.
    pub fn note(&mut self, group: GroupId, index: LogIndex, rows: &[Row]) {
        let Some(stretch) = self.groups.get_mut(&group) else { return };
        debug_assert!(index > stretch.through, "invariant: entries are applied in order");
        stretch.through = stretch.through.max(index);
        let mut revision = Revision::default();
        let mut events = Vec::new();
        for (keyspace, modified, event) in rows.iter().filter_map(WatchEvent::of) {
            // All rows of an entry bear its revision.
            revision = modified;
            events.push((keyspace, event));
        }
        if events.is_empty() {
            return;
        }
        let cost_bytes = events.iter().map(|(_, event)| event.cost_bytes()).sum();
        self.events += events.len();
        self.bytes += cost_bytes;
        stretch.entries.push_back(Kept { index, revision, events, cost_bytes });
        self.order.push_back(group);
        self.shrink();
    }

    /// A group that is followed has applied everything up to here.
    pub fn advance(&mut self, group: GroupId, through: LogIndex) {
        if let Some(stretch) = self.groups.get_mut(&group) {
            stretch.through = stretch.through.max(through);
        }
    }

    /// A group is gone from here.
    pub fn forget(&mut self, group: GroupId) {
        let Some(stretch) = self.groups.remove(&group) else { return };
        for kept in &stretch.entries {
            self.events -= kept.events.len();
            self.bytes -= kept.cost_bytes;
        }
        if !stretch.entries.is_empty() {
            self.order.retain(|of| *of != group);
        }
    }

    /// What concerns a watch behind a position, up to so many bytes and one entry at least; `None`
    /// for a group that is not followed.
    pub fn page(
        &self,
        group: GroupId,
        after: LogIndex,
        watched: &Watched,
        bytes_max: usize,
    ) -> Option<WatchPage> {
        let stretch = self.groups.get(&group)?;
        if after < stretch.start && !planted(Planted::WatchGapOverlooked) {
            return Some(WatchPage::Gone { oldest: stretch.start });
        }
        let first = stretch.entries.partition_point(|kept| kept.index <= after);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in stretch.entries.range(first..).filter_map(|kept| kept.of(watched)) {
            bytes += entry.cost_bytes();
            let through = entry.index;
            entries.push(entry);
            if bytes >= bytes_max {
                return Some(WatchPage::Changed { entries, through });
            }
        }
        // A replica that is behind the watch has nothing to add to what it has seen.
        Some(WatchPage::Changed { entries, through: stretch.through.max(after) })
    }

    /// How far a group is known to have come; `None` for one that is not followed.
    pub fn through(&self, group: GroupId) -> Option<LogIndex> {
        self.groups.get(&group).map(|stretch| stretch.through)
    }

    /// How many changes are kept.
    pub fn events(&self) -> usize {
        self.events
    }

    /// How many bytes they are taken to have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets go of what was applied first, but for the last entry.
    fn shrink(&mut self) {
        let HistoryLimits { events_max, bytes_max } = self.limits;
        while (self.events > events_max || self.bytes > bytes_max) && self.order.len() > 1 {
            let Some(group) = self.order.pop_front() else { return };
            let stretch = self.groups.get_mut(&group);
            let stretch = stretch.expect("invariant: the order names groups that are followed");
            let kept = stretch.entries.pop_front();
            let kept = kept.expect("invariant: the order names a group once for each entry");
            stretch.start = kept.index;
            self.events -= kept.events.len();
            self.bytes -= kept.cost_bytes;
        }
    }
}

impl Kept {
    /// What of it concerns a watch, if anything does.
    fn of(&self, watched: &Watched) -> Option<WatchEntry> {
        let Watched { keyspace, selection } = watched;
        let concerns = |(of, event): &&(KeyspaceId, WatchEvent)| {
            of == keyspace && selection.contains(&event.key)
        };
        let events = self.events.iter().filter(concerns).map(|(_, event)| event.clone());
        let events: Vec<WatchEvent> = events.collect();
        let (index, revision) = (self.index, self.revision);
        (!events.is_empty()).then_some(WatchEntry { index, revision, events })
    }
}
