//! The log of one replica: where it begins, its entries, and the memberships among them.
//!
//! Entries enter by [`Log::append`] on a leader and by [`Log::try_append`] on a follower, become
//! durable by [`Log::stable_to`], and leave by [`Log::compact`] or because a conflicting entry
//! replaced them. What happens on disk is the driver's part: this is the log as the replica means
//! it, and [`Log::unstable`] is what the disk still lacks of it.
//!
//! Invariants: indices have no gap and terms never fall along the log; no committed entry is ever
//! replaced (Ongaro 2014, section 3.6.3); what is compacted is durable. The membership in force is
//! the latest one in the log, committed or not (section 4.1).

mod memberships;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::protocol::raft::entry::{Entry, LogPosition, LogStart};
use crate::protocol::raft::membership::Membership;
use crate::protocol::raft::planted::{Planted, planted};
use crate::types::{LogIndex, Term};

use memberships::Memberships;

/// The entries of one replica that are not compacted away.
#[derive(Clone, Debug)]
pub struct Log {
    /// The last entry that was compacted away.
    start: LogPosition,
    entries: Vec<Entry>,
    memberships: Memberships,
    /// Entries up to here are durable.
    stable: LogIndex,
    /// Entries up to here are committed, as far as is known.
    committed: LogIndex,
    bytes: usize,
}

impl Log {
    /// The log as it was made durable: all entries count as stable, those up to `start` as
    /// committed.
    ///
    /// # Panics
    /// When the entries do not follow the start without a gap.
    pub fn new(start: LogStart, entries: Vec<Entry>) -> Log {
        let mut log = Log {
            start: start.position,
            entries: Vec::with_capacity(entries.len()),
            memberships: Memberships::new(start.membership, start.membership_index),
            stable: start.position.index,
            committed: start.position.index,
            bytes: 0,
        };
        entries.into_iter().for_each(|entry| log.append(entry));
        log.stable = log.last_index();
        log
    }

    /// The last entry that was compacted away: index 0 when none was.
    pub fn start(&self) -> LogPosition {
        self.start
    }

    /// The index of the first entry that is held or would be.
    pub fn first_index(&self) -> LogIndex {
        self.start.index.next()
    }

    /// The position of the last entry; the start's when none is held.
    pub fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.start, Entry::position)
    }

    /// The index of the last entry; the start's when none is held.
    pub fn last_index(&self) -> LogIndex {
        self.last().index
    }

    /// The term of the entry at `index`; `None` below the start and beyond the end. The start's own
    /// term is known.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Whether the log is known to hold this very entry (log matching, section 3.5).
    pub fn matches(&self, position: LogPosition) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// Whether a log that ends at `last` has at least everything that this one can have committed:
    /// a later last term, or the same and no fewer entries (section 3.6.1).
    pub fn is_up_to_date(&self, last: LogPosition) -> bool {
        let own = self.last();
        (last.term, last.index) >= (own.term, own.index)
    }

    /// Adds a leader's own entry at the end.
    ///
    /// # Panics
    /// When the entry is not the next one, or of an earlier term than the last.
    pub fn append(&mut self, entry: Entry) {
        let last = self.last();
        assert!(
            entry.index == last.index.next() && entry.term >= last.term,
            "invariant: {:?} does not follow {last:?}",
            entry.position()
        );
        self.bytes += entry.cost_bytes();
        self.memberships.note(&entry);
        self.entries.push(entry);
    }

    /// Adds a leader's entries behind `previous` to a follower's log (section 3.5) and returns the
    /// last index up to which the two are now known to match.
    ///
    /// Entries that are there already are skipped, so that an old message takes nothing away. From
    /// the first one that conflicts on, the log's own entries are dropped. What is compacted counts
    /// as matching, as it was committed.
    ///
    /// # Errors
    /// The log lacks `previous`: the [`Log::conflict_hint`] for the leader, and nothing changed.
    ///
    /// # Panics
    /// When `entries` do not follow `previous` without a gap, or contradict a committed entry.
    pub fn try_append(
        &mut self,
        previous: LogPosition,
        entries: &[Entry],
    ) -> Result<LogIndex, LogPosition> {
        if previous.index >= self.start.index && !self.matches(previous) {
            return Err(self.conflict_hint(previous));
        }
        let known = if planted(Planted::TruncateOnOverlap) {
            entries.partition_point(|entry| entry.index <= self.committed)
        } else {
            entries.iter().take_while(|entry| self.holds(entry)).count()
        };
        let Some(first) = entries.get(known) else {
            return Ok(entries.last().map_or(previous.index, |last| last.index));
        };
        self.truncate_from(first.index);
        entries[known..].iter().for_each(|entry| self.append(entry.clone()));
        Ok(self.last_index())
    }

    /// A follower's answer to a leader whose `previous` it lacks: the last position of its own that
    /// the leader's log may hold. Own entries of later terms than `previous` lie behind it, as the
    /// leader has none of those so early; so a whole conflicting term costs one message
    /// (section 3.5).
    pub fn conflict_hint(&self, previous: LogPosition) -> LogPosition {
        self.last_within(previous).unwrap_or(self.start)
    }

    /// The leader's answer to a hint: the last index at which the two logs may still match, behind
    /// which to append next. Lies below [`Log::start`] when the entries in question are compacted:
    /// the follower then needs a snapshot.
    pub fn find_conflict(&self, hint: LogPosition) -> LogIndex {
        match self.last_within(hint) {
            Some(position) => position.index,
            None => hint.index.min(LogIndex(self.start.index.0.saturating_sub(1))),
        }
    }

    /// The membership in force: the latest in the log, committed or not (section 4.1).
    pub fn membership(&self) -> &Membership {
        self.memberships.latest().1
    }

    /// The index of the entry that put [`Log::membership`] in force; 0 for the founding one.
    pub fn membership_index(&self) -> LogIndex {
        self.memberships.latest().0
    }

    /// The membership that the entries up to `index` put in force; `None` below the start, and the
    /// latest beyond the end.
    pub fn membership_at(&self, index: LogIndex) -> Option<&Membership> {
        (index >= self.start.index).then(|| self.memberships.at(index).1)
    }

    /// What a log begins with that was compacted through `index`: what a snapshot taken there says
    /// of itself (section 5.1). `None` when that entry is not held and is not the start.
    pub fn start_at(&self, index: LogIndex) -> Option<LogStart> {
        let term = self.term_at(index)?;
        let (membership_index, membership) = self.memberships.at(index);
        let position = LogPosition { index, term };
        Some(LogStart { position, membership: membership.clone(), membership_index })
    }

    /// Entries up to here are committed, as far as [`Log::commit_to`] was told.
    pub fn committed(&self) -> LogIndex {
        self.committed
    }

    /// Notes that entries up to `index` are committed, as far as the log reaches; never takes
    /// anything back. Says whether that is news.
    pub fn commit_to(&mut self, index: LogIndex) -> bool {
        let committed = index.min(self.last_index()).max(self.committed);
        let advanced = committed > self.committed;
        self.committed = committed;
        advanced
    }

    /// Entries up to here are durable.
    pub fn stable(&self) -> LogIndex {
        self.stable
    }

    /// The entries that are yet to be made durable. They replace everything from the first one's
    /// index on.
    pub fn unstable(&self) -> &[Entry] {
        self.entries_from(self.stable.next())
    }

    /// Notes that a write that ended with this entry is durable. Ignored when the log no longer
    /// holds the entry: what replaced it is another write's.
    pub fn stable_to(&mut self, position: LogPosition) {
        if self.matches(position) {
            self.stable = self.stable.max(position.index);
        }
    }

    /// The entry at `index`, if held.
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(self.offset(index)?)
    }

    /// The held entries from `from` on.
    pub fn entries_from(&self, from: LogIndex) -> &[Entry] {
        let first = self.offset(from).unwrap_or(0).min(self.entries.len());
        &self.entries[first..]
    }

    /// The held entries from `from` through `through`.
    pub fn entries_between(&self, from: LogIndex, through: LogIndex) -> &[Entry] {
        let entries = self.entries_from(from);
        let count = entries.partition_point(|entry| entry.index <= through);
        &entries[..count]
    }

    /// Entries from `from` on that together cost at most `bytes_max`, or a single one that costs
    /// more; empty at the end of the log. `None` when `from` is compacted.
    pub fn slice(&self, from: LogIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        self.offset(from)?;
        let entries = self.entries_from(from);
        let mut bytes = 0_usize;
        let fits = |entry: &&Entry| {
            bytes = bytes.saturating_add(entry.cost_bytes());
            bytes <= bytes_max
        };
        let count = entries.iter().take_while(fits).count().max(1).min(entries.len());
        Some(entries[..count].to_vec())
    }

    /// Bytes that the held entries stand for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Drops the entries through `index`, which the state machine holds durably (section 5.1).
    /// Never drops what is not committed and durable. Costs a move of what stays, so compact many
    /// at a time.
    pub fn compact(&mut self, index: LogIndex) {
        let index = index.min(self.stable).min(self.committed);
        if index <= self.start.index {
            return;
        }
        self.drop_through(index);
    }

    /// Begins the log at a snapshot that has taken its place (section 5.1). When the log holds the
    /// snapshot's last entry, what follows it stays, as some of it may have been acknowledged;
    /// otherwise all entries go. Does nothing when the log begins later already.
    pub fn reset(&mut self, start: LogStart) {
        let position = start.position;
        if position.index <= self.start.index {
            return;
        }
        if self.matches(position) {
            self.drop_through(position.index);
            self.stable = self.stable.max(position.index);
            self.committed = self.committed.max(position.index);
        } else {
            *self = Log::new(start, Vec::new());
        }
    }

    /// Whether the entry is there already, or compacted.
    fn holds(&self, entry: &Entry) -> bool {
        entry.index <= self.start.index || self.matches(entry.position())
    }

    /// The last known position whose index and term both do not exceed the bound's.
    fn last_within(&self, bound: LogPosition) -> Option<LogPosition> {
        let within = |at: LogPosition| at.index <= bound.index && at.term <= bound.term;
        let count = self.entries.partition_point(|entry| within(entry.position()));
        match count.checked_sub(1) {
            Some(last) => Some(self.entries[last].position()),
            None => Some(self.start).filter(|&start| within(start)),
        }
    }

    fn offset(&self, index: LogIndex) -> Option<usize> {
        let offset = index.0.checked_sub(self.first_index().0)?;
        usize::try_from(offset).ok()
    }

    fn truncate_from(&mut self, index: LogIndex) {
        let Some(offset) = self.offset(index).filter(|&offset| offset < self.entries.len()) else {
            return;
        };
        assert!(
            index > self.committed,
            "invariant: entry {index} is committed (through {}) and conflicts with the leader's",
            self.committed
        );
        let dropped = self.entries.drain(offset..);
        self.bytes -= dropped.map(|entry| entry.cost_bytes()).sum::<usize>();
        let last = LogIndex(index.0 - 1);
        self.memberships.truncate_after(last);
        self.stable = self.stable.min(last);
    }

    fn drop_through(&mut self, index: LogIndex) {
        let count = self.entries.partition_point(|entry| entry.index <= index);
        let dropped = self.entries.drain(..count);
        for entry in dropped {
            self.bytes -= entry.cost_bytes();
            self.start = entry.position();
        }
        self.memberships.compact(index);
    }
}
