//! Rows that are durable in the log and not yet in the engine.
//!
//! Rows merge by version as they come, so a table holds at most one record per key and folds
//! overwrites before the engine sees them. Keys and values are copied in: a slice of a network
//! frame or of a log segment would keep all of it in memory, uncounted.
//!
//! Invariant: nothing that the store holds outside a table, and that is older than it, bears a
//! stamp above the table's `floor`. Hence a row stamped above the floor wins unseen.
//!
//! One caller publishes, in log order; any number read.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::protocol::version::lww::supersedes;
use crate::types::{Key, KeyspaceId, Lsn, Moment, PartitionId, Record, Row, Timestamp};

/// A sorted table of records in memory.
#[derive(Debug)]
pub(crate) struct Memtable {
    floor: Timestamp,
    stripes: Vec<RwLock<Stripe>>,
    totals: Mutex<Totals>,
    dropped: Mutex<BTreeSet<KeyspaceId>>,
    /// Partitions of which everything older than this table is void.
    cleared: RwLock<BTreeSet<Place>>,
}

/// What a table holds, in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Rows, tombstones included.
    pub(crate) rows: usize,
    /// What the rows cost, as [`Row::cost_bytes`] counts.
    pub(crate) bytes: usize,
    /// Every log record up to this one is in this table or in an older one; `None` until the
    /// first is published.
    pub(crate) highest_lsn: Option<Lsn>,
    /// The highest stamp among the rows that were ever published here.
    pub(crate) highest_stamp: Timestamp,
    /// When the first row came, or the first keyspace was dropped.
    pub(crate) first_at: Option<Moment>,
}

/// Where a partition of a keyspace lies among all, in the order in which engines keep them.
pub(crate) type Place = (KeyspaceId, PartitionId);

/// Some rows of one partition, in key order.
#[derive(Debug, Default)]
pub(crate) struct Stretch {
    /// The rows.
    pub(crate) rows: Vec<(Key, Record)>,
    /// False when more rows follow the last one.
    pub(crate) done: bool,
}

impl Memtable {
    /// An empty table above what has a stamp of at most `floor`.
    pub(crate) fn new(floor: Timestamp) -> Self {
        let stripes = (0..STRIPES).map(|_| RwLock::default()).collect();
        let (totals, dropped, cleared) = Default::default();
        Memtable { floor, stripes, totals, dropped, cleared }
    }

    /// No older record outside this table has a stamp above this one.
    pub(crate) fn floor(&self) -> Timestamp {
        self.floor
    }

    /// True when the record supersedes whatever older one is held outside this table. A stamp
    /// equal to the floor does not: the incarnation may decide the other way.
    pub(crate) fn dominates(&self, record: &Record) -> bool {
        record.version.timestamp > self.floor
    }

    /// Merges rows in; they are visible on return.
    pub(crate) fn publish(
        &self,
        last_lsn: Lsn,
        rows: impl Iterator<Item = (PartitionId, Row)>,
        now: Moment,
    ) {
        let mut gain = Gain::default();
        for (partition, row) in rows {
            self.insert(partition, row, &mut gain);
        }
        self.totals.lock().add(&gain, last_lsn, now);
    }

    /// Notes that a keyspace was dropped while this table was the active one.
    pub(crate) fn note_dropped(&self, keyspace: KeyspaceId, now: Moment) {
        self.dropped.lock().insert(keyspace);
        self.totals.lock().first_at.get_or_insert(now);
    }

    /// The keyspaces that were dropped meanwhile.
    pub(crate) fn dropped(&self) -> BTreeSet<KeyspaceId> {
        self.dropped.lock().clone()
    }

    /// Drops the rows of a partition, here and in whatever is older.
    pub(crate) fn clear(&self, place: Place, now: Moment) {
        let gone = self.stripe(place.1).write().remove(&place).unwrap_or_default();
        self.cleared.write().insert(place);
        let rows = gone.into_iter().map(|(key, record)| Row { keyspace: place.0, key, record });
        self.totals.lock().lose(rows, now);
    }

    /// Drops rows with stamps up to this one.
    pub(crate) fn forget_up_to(&self, at: Timestamp, now: Moment) {
        let mut gone = Vec::new();
        for stripe in &self.stripes {
            for ((keyspace, _), rows) in stripe.write().iter_mut() {
                let all = std::mem::take(rows);
                let is_old = |it: &(Key, Record)| it.1.version.timestamp <= at;
                let (old, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(is_old);
                rows.extend(kept);
                gone.extend(old.into_iter().map(|(key, record)| Row {
                    keyspace: *keyspace,
                    key,
                    record,
                }));
            }
        }
        self.totals.lock().lose(gone.into_iter(), now);
    }

    /// Whether everything older than this table is void for a partition.
    pub(crate) fn is_cleared(&self, place: Place) -> bool {
        let cleared = self.cleared.read();
        !cleared.is_empty() && cleared.contains(&place)
    }

    /// The partitions for which it is.
    pub(crate) fn cleared(&self) -> BTreeSet<Place> {
        self.cleared.read().clone()
    }

    /// The record of a key.
    pub(crate) fn get(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Option<Record> {
        self.stripe(partition).read().get(&(keyspace, partition))?.get(key).cloned()
    }

    /// Rows of a partition above `after`, in key order, at most `rows_max`.
    pub(crate) fn stretch(&self, place: Place, after: Option<&Key>, rows_max: usize) -> Stretch {
        let stripe = self.stripe(place.1).read();
        let Some(rows) = stripe.get(&place) else {
            return Stretch { rows: Vec::new(), done: true };
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut above = rows.range::<Key, _>((from, Bound::Unbounded));
        let taken = above.by_ref().take(rows_max);
        let rows = taken.map(|(key, record)| (key.clone(), record.clone())).collect();
        Stretch { rows, done: above.next().is_none() }
    }

    /// The partitions that have rows here, in order.
    pub(crate) fn places(&self) -> Vec<Place> {
        let of_stripe = |stripe: &RwLock<Stripe>| stripe.read().keys().copied().collect::<Vec<_>>();
        let mut places: Vec<Place> = self.stripes.iter().flat_map(of_stripe).collect();
        places.sort_unstable();
        places
    }

    /// What the table holds, in sum.
    pub(crate) fn totals(&self) -> Totals {
        *self.totals.lock()
    }

    fn stripe(&self, partition: PartitionId) -> &RwLock<Stripe> {
        &self.stripes[usize::from(partition.0) % STRIPES]
    }

    fn insert(&self, partition: PartitionId, row: Row, gain: &mut Gain) {
        let cost_bytes = row.cost_bytes();
        gain.highest_stamp = gain.highest_stamp.max(row.record.version.timestamp);
        let key = Key(copied(&row.key.0));
        let mut stripe = self.stripe(partition).write();
        match stripe.entry((row.keyspace, partition)).or_default().entry(key) {
            Entry::Vacant(free) => {
                free.insert(owned(row.record));
                gain.rows += 1;
                gain.bytes_more += cost_bytes;
            }
            Entry::Occupied(mut held) if supersedes(&row.record, held.get()) => {
                gain.bytes_more += row.record.value_len();
                gain.bytes_less += held.get().value_len();
                held.insert(owned(row.record));
            }
            Entry::Occupied(_) => {}
        }
    }
}

/// Stripes keep readers of different partitions, and the publisher, off each other's locks; with
/// 64 of them the founders' 256 partitions lie four to a stripe.
const STRIPES: usize = 64;

type Stripe = BTreeMap<Place, BTreeMap<Key, Record>>;

/// What one call of `publish` adds, so that the sums are locked once per call.
#[derive(Default)]
struct Gain {
    rows: usize,
    bytes_more: usize,
    bytes_less: usize,
    highest_stamp: Timestamp,
}

impl Totals {
    fn add(&mut self, gain: &Gain, last_lsn: Lsn, now: Moment) {
        self.rows += gain.rows;
        self.bytes = self.bytes + gain.bytes_more - gain.bytes_less;
        self.highest_stamp = self.highest_stamp.max(gain.highest_stamp);
        self.highest_lsn = self.highest_lsn.max(Some(last_lsn));
        if gain.rows > 0 {
            self.first_at.get_or_insert(now);
        }
    }

    fn lose(&mut self, rows: impl Iterator<Item = Row>, now: Moment) {
        for row in rows {
            self.rows -= 1;
            self.bytes -= row.cost_bytes();
        }
        self.first_at.get_or_insert(now);
    }
}

fn owned(record: Record) -> Record {
    let value = record.value.as_ref().map(copied);
    Record { value, ..record }
}

fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, Version};

    const KEYSPACE: KeyspaceId = KeyspaceId(3);
    const PARTITION: PartitionId = PartitionId(9);

    fn row(key: &str, stamp: u64, value: Option<&'static str>) -> (PartitionId, Row) {
        let version = Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) };
        let record = Record::new(version, value.map(|text| Bytes::from_static(text.as_bytes())));
        (PARTITION, Row { keyspace: KEYSPACE, key: Key::from(key), record })
    }

    fn publish(table: &Memtable, lsn: u64, rows: Vec<(PartitionId, Row)>) {
        table.publish(Lsn(lsn), rows.into_iter(), Moment(lsn * 10));
    }

    fn stamp_of(table: &Memtable, key: &str) -> Option<u64> {
        let record = table.get(KEYSPACE, PARTITION, &Key::from(key))?;
        Some(record.version.timestamp.0)
    }

    #[test]
    fn the_newest_version_stays_whatever_the_order() {
        let table = Memtable::new(Timestamp(0));
        publish(&table, 1, vec![row("a", 5, Some("x")), row("a", 3, Some("y"))]);
        publish(&table, 2, vec![row("a", 7, None), row("a", 6, Some("z"))]);
        assert_eq!(stamp_of(&table, "a"), Some(7));
        assert_eq!(table.totals().rows, 1);
    }

    #[test]
    fn equal_versions_are_settled_by_value() {
        let orders = [
            ([Some("x"), Some("y")], Some("y")),
            ([Some("y"), Some("x")], Some("y")),
            ([Some("x"), None], None),
            ([None, Some("x")], None),
        ];
        for (values, expected) in orders {
            let table = Memtable::new(Timestamp(0));
            publish(&table, 1, values.map(|value| row("a", 5, value)).to_vec());
            let held = table.get(KEYSPACE, PARTITION, &Key::from("a")).unwrap();
            assert_eq!(held, row("a", 5, expected).1.record);
        }
    }

    #[test]
    fn sums_follow_growing_and_shrinking_rows() {
        let table = Memtable::new(Timestamp(0));
        let rows = [row("a", 1, Some("long value")), row("b", 2, None), row("a", 3, Some("s"))];
        publish(&table, 4, rows.to_vec());
        let cost = rows[1].1.cost_bytes() + rows[2].1.cost_bytes();
        let expected = Totals {
            rows: 2,
            bytes: cost,
            highest_lsn: Some(Lsn(4)),
            highest_stamp: Timestamp(3),
            first_at: Some(Moment(40)),
        };
        assert_eq!(table.totals(), expected);
        publish(&table, 5, vec![row("c", 9, None)]);
        assert_eq!(table.totals().first_at, Some(Moment(40)));
    }

    #[test]
    fn rows_up_to_a_stamp_are_forgotten_and_no_longer_counted() {
        let table = Memtable::new(Timestamp(0));
        let rows = [row("a", 4, Some("old")), row("b", 5, None), row("c", 6, Some("new"))];
        publish(&table, 1, rows.to_vec());
        table.forget_up_to(Timestamp(5), Moment(20));
        assert_eq!(["a", "b", "c"].map(|key| stamp_of(&table, key)), [None, None, Some(6)]);
        let totals = table.totals();
        assert_eq!((totals.rows, totals.bytes), (1, rows[2].1.cost_bytes()));
    }

    #[test]
    fn a_row_does_not_keep_the_buffer_that_it_came_in() {
        let frame = Bytes::from(vec![b'v'; 4096]);
        let (_, mut row) = row("a", 1, None);
        row.record.value = Some(frame.slice(10..20));
        let table = Memtable::new(Timestamp(0));
        publish(&table, 1, vec![(PARTITION, row)]);
        assert!(frame.is_unique(), "the table holds a slice of the frame");
    }

    #[test]
    fn stretches_page_through_a_partition_and_no_other() {
        let table = Memtable::new(Timestamp(0));
        let mut rows: Vec<_> = ["d", "a", "c", "b"].map(|key| row(key, 1, None)).to_vec();
        let (_, stranger) = row("aa", 1, None);
        rows.push((PartitionId(PARTITION.0 + 64), stranger));
        publish(&table, 1, rows);
        let place = (KEYSPACE, PARTITION);
        let first = table.stretch(place, None, 3);
        let second = table.stretch(place, Some(&first.rows[2].0), 3);
        let keys = |stretch: &Stretch| -> String {
            stretch.rows.iter().map(|(key, _)| key.to_string()).collect()
        };
        assert_eq!((keys(&first).as_str(), first.done), ("abc", false));
        assert_eq!((keys(&second).as_str(), second.done), ("d", true));
        assert_eq!(table.places(), vec![place, (KEYSPACE, PartitionId(PARTITION.0 + 64))]);
    }

    #[test]
    fn a_cleared_partition_forgets_its_rows_and_takes_new_ones() {
        let (table, place) = (Memtable::new(Timestamp(0)), (KEYSPACE, PARTITION));
        let (_, neighbour) = row("a", 1, Some("kept"));
        let cost = neighbour.cost_bytes();
        let rows = vec![row("a", 9, Some("x")), (PartitionId(PARTITION.0 + 64), neighbour)];
        publish(&table, 1, rows);
        table.clear(place, Moment(20));
        assert!(table.is_cleared(place) && stamp_of(&table, "a").is_none());
        assert_eq!((table.totals().rows, table.totals().bytes), (1, cost));
        publish(&table, 2, vec![row("a", 3, Some("y"))]);
        assert_eq!(stamp_of(&table, "a"), Some(3));
        assert!(!table.is_cleared((KEYSPACE, PartitionId(PARTITION.0 + 64))));
    }

    #[test]
    fn a_stamp_equal_to_the_floor_does_not_dominate() {
        let table = Memtable::new(Timestamp(5));
        assert!(!table.dominates(&row("a", 5, None).1.record));
        assert!(table.dominates(&row("a", 6, None).1.record));
    }
}
