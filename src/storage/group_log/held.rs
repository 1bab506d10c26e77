//! The log of one replica of one group, as the write-ahead log holds it.

use std::collections::VecDeque;

use crate::protocol::raft::entry::{Entry, HardState, LogPosition, LogStart};
use crate::storage::group_log::{GroupLogError, StoredLog};
use crate::storage::wal::GroupRecord;
use crate::types::{GroupId, LogIndex, Lsn, ReplicaId, Term};

/// What is held of one group.
#[derive(Debug)]
pub(super) struct Held {
    group: GroupId,
    replica: ReplicaId,
    hard_state: HardState,
    start: LogStart,
    /// The entries behind the start, without a gap.
    entries: VecDeque<Entry>,
    /// What the entries cost.
    bytes: usize,
    /// The records from here on give the log back whole; `None` while entries are still to come.
    since: Option<Lsn>,
    /// Set while the log is told anew.
    telling: Option<Telling>,
}

/// How far a log has been told that stands since `lsn`.
#[derive(Clone, Copy, Debug)]
struct Telling {
    lsn: Lsn,
    /// The last index that was told.
    told: LogIndex,
    /// The last index that is to be told.
    last: LogIndex,
}

impl Held {
    /// A log that stands so, without the entries that are to follow.
    pub(super) fn new(
        (group, replica): (GroupId, ReplicaId),
        lsn: Lsn,
        (hard_state, start): (HardState, &LogStart),
        last: LogIndex,
    ) -> Result<Held, GroupLogError> {
        let told = start.position.index;
        if last < told {
            return Err(GroupLogError::Compacted { group, start: told, got: last });
        }
        let mut held = Held {
            group,
            replica,
            hard_state,
            start: start.clone(),
            entries: VecDeque::new(),
            bytes: 0,
            since: None,
            telling: None,
        };
        held.tell(Telling { lsn, told, last });
        Ok(held)
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The oldest record that is needed; 0 while the log is not whole.
    pub(super) fn since(&self) -> Lsn {
        self.since.unwrap_or(Lsn(0))
    }

    pub(super) fn is_whole(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The positions of the start and of the last entry.
    pub(super) fn ends(&self) -> (LogPosition, LogPosition) {
        let start = self.start.position;
        (start, self.entries.back().map_or(start, Entry::position))
    }

    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        let start = self.start.position;
        if index == start.index {
            return Some(start.term);
        }
        let behind = index.0.checked_sub(start.index.next().0)?;
        self.entries.get(usize::try_from(behind).ok()?).map(|entry| entry.term)
    }

    pub(super) fn stored(&self) -> StoredLog {
        StoredLog {
            replica: self.replica,
            hard_state: self.hard_state,
            start: self.start.clone(),
            entries: self.entries.iter().cloned().collect(),
        }
    }

    /// The error of a log whose entries did not follow.
    pub(super) fn incomplete(&self) -> GroupLogError {
        GroupLogError::Incomplete { group: self.group, replica: self.replica }
    }

    /// False while entries are still to come and the record has not the next of them.
    pub(super) fn takes(&self, record: &GroupRecord) -> bool {
        self.is_whole() || matches!(record, GroupRecord::Carried { .. })
    }

    /// Takes over a record of this replica that the log [`Held::takes`].
    pub(super) fn on_record(
        &mut self,
        lsn: Lsn,
        record: &GroupRecord,
    ) -> Result<(), GroupLogError> {
        match record {
            GroupRecord::Standing { hard_state, start, last, .. } => {
                return self.stand(lsn, *hard_state, start, *last);
            }
            GroupRecord::Carried { entries, .. } => return self.carry(entries),
            GroupRecord::Entries { entries, .. } => self.replace(entries)?,
            GroupRecord::HardState { hard_state, .. } => self.hard_state = *hard_state,
            GroupRecord::Start { start, .. } => self.begin_at(start)?,
            GroupRecord::Removed { .. } => {}
        }
        // What has been told of a log that changes since was told in vain.
        self.telling = None;
        Ok(())
    }

    /// Appends the records that tell the log anew.
    pub(super) fn carry_over(&self, record_bytes_max: usize, out: &mut Vec<GroupRecord>) {
        let (group, replica) = (self.group, self.replica);
        let last = self.last();
        let (hard_state, start) = (self.hard_state, self.start.clone());
        out.push(GroupRecord::Standing { group, replica, hard_state, start, last });
        let parts = GroupRecord::cut(self.entries.iter().cloned(), record_bytes_max);
        out.extend(parts.into_iter().map(|entries| GroupRecord::Carried {
            group,
            replica,
            entries,
        }));
    }

    fn last(&self) -> LogIndex {
        self.entries.back().map_or(self.start.position.index, |entry| entry.index)
    }

    /// Where the entry of an index stands, if it is held.
    fn position_at(&self, index: LogIndex) -> Option<LogPosition> {
        let behind = index.0.checked_sub(self.start.position.index.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(behind).ok()?).map(Entry::position)
    }

    fn replace(&mut self, entries: &[Entry]) -> Result<(), GroupLogError> {
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(()) };
        let start = self.start.position.index;
        if first <= start {
            return Err(GroupLogError::Compacted { group: self.group, start, got: first });
        }
        self.check_follows(self.last().0.min(first.0 - 1), entries)?;
        while self.entries.back().is_some_and(|last| last.index >= first) {
            self.drop_last();
        }
        self.push(entries);
        Ok(())
    }

    fn begin_at(&mut self, start: &LogStart) -> Result<(), GroupLogError> {
        let (old, new) = (self.start.position, start.position);
        if new.index < old.index {
            let (group, start) = (self.group, old.index);
            return Err(GroupLogError::Compacted { group, start, got: new.index });
        }
        if new.index == old.index && new.term != old.term {
            return Err(self.contradiction());
        }
        if new != old && self.position_at(new.index) != Some(new) {
            self.entries.clear();
            self.bytes = 0;
        }
        while self.entries.front().is_some_and(|first| first.index <= new.index) {
            self.drop_first();
        }
        self.start = start.clone();
        Ok(())
    }

    /// The log is about to be told anew; it must be told as it is.
    fn stand(
        &mut self,
        lsn: Lsn,
        hard_state: HardState,
        start: &LogStart,
        last: LogIndex,
    ) -> Result<(), GroupLogError> {
        if (hard_state, start, last) != (self.hard_state, &self.start, self.last()) {
            return Err(self.contradiction());
        }
        self.tell(Telling { lsn, told: start.position.index, last });
        Ok(())
    }

    /// The next entries of a log that is told anew: known ones, or new ones of one that is not
    /// whole yet.
    fn carry(&mut self, entries: &[Entry]) -> Result<(), GroupLogError> {
        let telling = self.telling.ok_or_else(|| self.contradiction())?;
        self.check_follows(telling.told.0, entries)?;
        let told = entries.last().map_or(telling.told, |entry| entry.index);
        let known = |entry: &Entry| self.position_at(entry.index) == Some(entry.position());
        if told > telling.last || (self.is_whole() && !entries.iter().all(known)) {
            return Err(self.contradiction());
        }
        if !self.is_whole() {
            self.push(entries);
        }
        self.tell(Telling { told, ..telling });
        Ok(())
    }

    fn tell(&mut self, telling: Telling) {
        let done = telling.told == telling.last;
        self.telling = (!done).then_some(telling);
        if done {
            self.since = Some(telling.lsn);
        }
    }

    /// Checks that entries follow an index and each other.
    fn check_follows(&self, last: u64, entries: &[Entry]) -> Result<(), GroupLogError> {
        let mut last = LogIndex(last);
        for entry in entries {
            if entry.index != last.next() {
                return Err(GroupLogError::Gap { group: self.group, last, got: entry.index });
            }
            last = entry.index;
        }
        Ok(())
    }

    fn contradiction(&self) -> GroupLogError {
        GroupLogError::Contradiction { group: self.group, replica: self.replica }
    }

    fn push(&mut self, entries: &[Entry]) {
        self.bytes += entries.iter().map(Entry::cost_bytes).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    fn drop_first(&mut self) {
        let dropped = self.entries.pop_front();
        self.bytes -= dropped.as_ref().map_or(0, Entry::cost_bytes);
    }

    fn drop_last(&mut self) {
        let dropped = self.entries.pop_back();
        self.bytes -= dropped.as_ref().map_or(0, Entry::cost_bytes);
    }
}
