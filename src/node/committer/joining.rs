//! Rows of keyspaces that keep siblings: each is joined with what this node holds before it goes
//! into the log, and writes are minted into that.
//!
//! Commits follow one another, and each is visible before the next begins: so joins of one key
//! follow one another too, whoever sends the rows, and no lock is needed. A row that adds nothing
//! to what is here is not written once more, and of a key that a commit changes several times the
//! log gets what it has come to.
//!
//! This is also where the invariant of [`crate::protocol::version::dvv`] is kept, that a row knows
//! all that a life wrote to it before: the pen begins a new life as soon as rows were given up, or
//! a row is seen that knows more of the pen's life than this node does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::node::clock::Clock;
use crate::node::env::Env;
use crate::protocol::message::Refusal;
use crate::protocol::planted::{Planted, planted};
use crate::protocol::version::dvv::{Context, LIVES_MAX, Siblings};
use crate::protocol::version::merging::{Change, joined};
use crate::protocol::version::{counter, set};
use crate::storage::store::{Store, StoreError};
use crate::storage::wal::LogRecord;
use crate::types::{Incarnation, Key, KeyspaceId, PartitionId, Record, Row, Timestamp, Version};

/// A write may leave siblings that take this share of a log segment. Rows that owners of the key
/// have taken apart from each other are joined to more; all of the usual few fit into a segment.
const MINTED_SHARE: usize = 8;

/// What a log segment and a record need beside a row's key and value, and more.
const OVERHEAD_BYTES: usize = 4096;

/// What a client does to a row that is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mint {
    /// What is to be done.
    pub(crate) change: Change,
    /// What its writer had seen, if it had.
    pub(crate) context: Option<Context>,
}

/// What this node mints events with.
pub(crate) struct Pen {
    env: Arc<dyn Env>,
    clock: Arc<Clock>,
    /// What one log segment holds: a row must fit.
    segment_bytes: usize,
    life: AtomicU64,
}

impl Pen {
    pub(crate) fn new(env: Arc<dyn Env>, clock: Arc<Clock>, segment_bytes: usize) -> Pen {
        let life = AtomicU64::new(env.random());
        Pen { env, clock, segment_bytes, life }
    }

    /// Whether a row takes more than it may: one that is written and grows by it, so that joins of
    /// what several owners have taken fit into the log as well; or a join, what the log can take.
    fn is_too_large(&self, row: &Row, held: Option<&Record>, is_minted: bool) -> bool {
        let bytes = row.record.value_len();
        let grows = bytes > held.map_or(0, Record::value_len);
        let several = || Siblings::of_record(&row.record).is_ok_and(|row| row.len() > 1);
        let has_room = bytes + row.key.0.len() + OVERHEAD_BYTES <= self.segment_bytes;
        match is_minted && grows && bytes > self.segment_bytes / MINTED_SHARE {
            true => several(),
            false => !has_room,
        }
    }

    fn life(&self) -> Incarnation {
        Incarnation(self.life.load(Ordering::Relaxed))
    }

    /// An event of this life, above everything that this node has seen, and a stamp.
    fn dot(&self, above: Option<Timestamp>) -> Result<Version, Refusal> {
        let timestamp = self.clock.stamp(above).map_err(|_| Refusal::ClockOffset)?;
        Ok(Version { timestamp, incarnation: self.life() })
    }

    fn begin_new_life(&self) {
        if !planted(Planted::LifeGoesOn) {
            self.life.store(self.env.random(), Ordering::Relaxed);
        }
    }
}

/// A record of a commit that is to be joined.
#[derive(Debug)]
pub(super) struct Joining {
    /// Which record it is.
    pub(super) record: usize,
    /// Which of the replies tells.
    pub(super) reply: usize,
    /// Set for a write that is minted here; the record names its key only.
    pub(super) mint: Option<Mint>,
}

/// The outcome of a row that was joined.
pub(super) type Joined = Result<Record, Refusal>;

/// A commit whose rows are joined.
#[derive(Default)]
pub(super) struct Settled {
    /// What goes into the log.
    pub(super) records: Vec<LogRecord>,
    /// The partitions of the records that are single rows, in order.
    pub(super) partitions: Vec<PartitionId>,
    /// What became of those that were to be joined, by reply.
    pub(super) outcomes: BTreeMap<usize, Joined>,
    /// Set when the storage engine failed.
    pub(super) broken: Option<StoreError>,
}

/// Where a row lies.
type Place = (KeyspaceId, PartitionId);

/// What a commit has come to so far.
struct Under<'s> {
    store: &'s Store,
    pen: &'s Pen,
    /// Rows of this commit, each with its place in the log.
    rows: BTreeMap<(Place, Key), (Record, usize)>,
    /// Partitions that this commit has dropped.
    dropped: BTreeSet<Place>,
}

/// Joins the rows of a commit with what the store holds and with one another.
pub(super) fn settle(
    (store, pen): (&Store, &Pen),
    (records, partitions): (Vec<LogRecord>, Vec<PartitionId>),
    joining: Vec<Joining>,
) -> Settled {
    if joining.is_empty() {
        if records.iter().any(drops_what_was_joined) {
            pen.begin_new_life();
        }
        return Settled { records, partitions, ..Settled::default() };
    }
    let (rows, dropped) = (BTreeMap::new(), BTreeSet::new());
    let mut under = Under { store, pen, rows, dropped };
    let mut settled = Settled::default();
    let mut partitions = partitions.into_iter();
    let mut joining = joining.into_iter().peekable();
    for (at, record) in records.into_iter().enumerate() {
        let row = match record {
            LogRecord::Row(row) => row,
            other => {
                under.note(&other);
                settled.records.push(other);
                continue;
            }
        };
        let Some(partition) = partitions.next() else { continue };
        let Some(it) = joining.next_if(|joining| joining.record == at) else {
            settled.records.push(LogRecord::Row(row));
            settled.partitions.push(partition);
            continue;
        };
        let reply = it.reply;
        let outcome = match under.take(partition, row, it) {
            Ok(Taken::Known(record)) => Ok(record),
            Ok(Taken::News(row)) => {
                let record = row.record.clone();
                under.log(&mut settled, partition, row);
                Ok(record)
            }
            Err(Unusable::Refused(refusal)) => Err(refusal),
            Err(Unusable::Broken(error)) => {
                settled.broken = Some(error);
                Err(Refusal::Storage)
            }
        };
        settled.outcomes.insert(reply, outcome);
    }
    settled
}

/// A row that was taken.
enum Taken {
    /// This node holds that already.
    Known(Record),
    /// What it is to hold from now on.
    News(Row),
}

/// Why a row is not taken.
enum Unusable {
    Refused(Refusal),
    Broken(StoreError),
}

/// Whether rows go that lives have written into.
fn drops_what_was_joined(record: &LogRecord) -> bool {
    matches!(record, LogRecord::DropPartition(keyspace, _) if keyspace.merge().joins())
}

impl Under<'_> {
    fn note(&mut self, record: &LogRecord) {
        if let LogRecord::DropPartition(keyspace, partition) = record {
            let place = (*keyspace, *partition);
            self.rows.retain(|(at, _), _| *at != place);
            self.dropped.insert(place);
            if drops_what_was_joined(record) {
                self.pen.begin_new_life();
            }
        }
    }

    /// What is to be held for a key from now on.
    fn take(
        &mut self,
        partition: PartitionId,
        row: Row,
        joining: Joining,
    ) -> Result<Taken, Unusable> {
        let place = (row.keyspace, partition);
        let Joining { mint, .. } = joining;
        let held = match self.held(place, &row.key) {
            // The copy that arrives mends it; what it knew of this life is gone. What has mended it
            // before lies in memory, and the damage is still beneath.
            Err(StoreError::Corrupt { .. }) if mint.is_none() => {
                self.pen.begin_new_life();
                self.store.in_memory(place, &row.key)
            }
            Err(StoreError::Corrupt { .. }) => return Err(Unusable::Refused(Refusal::Corrupt)),
            Err(error) => return Err(Unusable::Broken(error)),
            Ok(held) => held,
        };
        let is_minted = mint.is_some();
        let after = match mint {
            Some(mint) => minted(self.pen, held.as_ref(), mint).map_err(Unusable::Refused)?,
            None => self.joined(held.clone(), &row),
        };
        if held.as_ref() == Some(&after) {
            return Ok(Taken::Known(after));
        }
        let row = Row { record: after, ..row };
        match self.pen.is_too_large(&row, held.as_ref(), is_minted) {
            true => Err(Unusable::Refused(Refusal::TooManySiblings)),
            false => Ok(Taken::News(row)),
        }
    }

    /// Puts a row into the log, in the place of what this commit had made of its key before.
    fn log(&mut self, settled: &mut Settled, partition: PartitionId, row: Row) {
        let slot = ((row.keyspace, partition), row.key.clone());
        let record = row.record.clone();
        let at = match self.rows.get(&slot) {
            Some((_, at)) => {
                settled.records[*at] = LogRecord::Row(row);
                *at
            }
            None => {
                settled.records.push(LogRecord::Row(row));
                settled.partitions.push(partition);
                settled.records.len() - 1
            }
        };
        self.rows.insert(slot, (record, at));
    }

    fn held(&self, place: Place, key: &Key) -> Result<Option<Record>, StoreError> {
        match self.rows.get(&(place, key.clone())) {
            Some((record, _)) => Ok(Some(record.clone())),
            None if self.dropped.contains(&place) => Ok(None),
            None => self.store.read(place.0, place.1, key),
        }
    }

    fn joined(&self, held: Option<Record>, row: &Row) -> Record {
        let life = self.pen.life();
        let heard = |record: &Record| Siblings::of_record(record).ok()?.heard_of(life);
        if heard(&row.record) > held.as_ref().and_then(heard) {
            self.pen.begin_new_life();
        }
        let theirs = row.record.clone();
        match held {
            Some(ours) if !planted(Planted::RowsReplacedUnjoined) => {
                joined(row.keyspace.merge(), ours, theirs)
            }
            _ => theirs,
        }
    }
}

/// The row that a write makes of what is held.
fn minted(pen: &Pen, held: Option<&Record>, mint: Mint) -> Result<Record, Refusal> {
    let row = held.map(Siblings::of_record).transpose().map_err(|_| Refusal::Corrupt)?;
    let row = row.unwrap_or_default();
    let Mint { change, context } = mint;
    let context = context.filter(|_| !planted(Planted::MintIgnoresContext));
    let latest = context.as_ref().and_then(Context::latest);
    let above = latest.max(held.map(|record| record.version.timestamp));
    let dot = pen.dot(above)?;
    let after = match change {
        Change::Put(value) => {
            let seen = context.unwrap_or_default();
            row.written(dot, Some(value), &seen).map_err(|_| Refusal::TooManySiblings)?
        }
        Change::Delete => {
            let seen = context.unwrap_or_default();
            row.written(dot, None, &seen).map_err(|_| Refusal::TooManySiblings)?
        }
        Change::Add(by) => counter::added(&row, dot, by).map_err(|_| Refusal::OutOfRange)?,
        Change::Elements { added, removed } => {
            let seen = context.unwrap_or_default();
            if !removed.is_empty() && !seen.is_within(&row) {
                // It could not cover what it has not heard of.
                return Err(Refusal::ContextUnheard);
            }
            let mut dots = vec![dot];
            for _ in &added {
                dots.push(pen.dot(None)?);
            }
            let after = set::changed(&row, dots, (&added, &removed), &seen);
            match set::is_beyond_limits(&after, &row) {
                true => return Err(Refusal::TooManySiblings),
                false => after,
            }
        }
    };
    // It has the event that was just written, so it is a row.
    after.pruned(&row, LIVES_MAX).to_record().ok_or(Refusal::Corrupt)
}

#[cfg(test)]
mod tests;
