//! The store against a map, through freezing, partial feeding, checkpoints and crashes.

mod damage;
mod dropping;
mod listing;
mod probe;
mod trees;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use self::probe::Probe;
use super::*;
use crate::storage::memory::{MemoryDisk, MemoryEngine};
use crate::types::{Incarnation, Timestamp, Version};

const KEYSPACE: KeyspaceId = KeyspaceId(4);

fn record(stamp: u64, life: u64, value: Option<&str>) -> Record {
    let version = Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) };
    Record::new(version, value.map(|text| Bytes::copy_from_slice(text.as_bytes())))
}

fn row(key: &str, record: Record) -> (PartitionId, Row) {
    (partition_of(key), Row { keyspace: KEYSPACE, key: Key::from(key), record })
}

fn partition_of(key: &str) -> PartitionId {
    PartitionId(u16::from(key.as_bytes().last().copied().unwrap_or(0)) % 3)
}

fn publish(store: &Store, lsn: u64, rows: &[(PartitionId, Row)]) {
    store.publish(Lsn(lsn), rows.iter().cloned(), Moment(lsn));
}

fn read(store: &Store, key: &str) -> Option<Record> {
    store.read(KEYSPACE, partition_of(key), &Key::from(key)).unwrap()
}

fn feed_all(store: &Store) {
    while !store.feed(1000).unwrap().done {}
}

fn probed() -> (Arc<Probe>, Store) {
    let engine = Arc::new(Probe::new(MemoryEngine::open(MemoryDisk::new())));
    let store = Store::new(engine.clone()).unwrap();
    store.create_keyspace(KEYSPACE).unwrap();
    (engine, store)
}

#[test]
fn rising_stamps_spare_the_engine_every_read() {
    let (engine, store) = probed();
    let before = engine.gets();
    for round in 1..5 {
        let rows: Vec<_> =
            (0..50).map(|n| row(&n.to_string(), record(round * 100 + n, 1, Some("v")))).collect();
        publish(&store, round, &rows);
        assert!(store.freeze());
        publish(&store, round, &rows[..1]);
        feed_all(&store);
        assert!(read(&store, "0").is_some());
        feed_all(&store);
    }
    let newest = row("new", record(1000, 1, None));
    publish(&store, 9, &[newest]);
    read(&store, "new");
    // Only the row published after its own stamp was frozen had to be compared: it was read once
    // each round, by `read`, and never by feeding, as it went with the next table's newer rows.
    assert_eq!(engine.gets() - before, 4);
}

#[test]
fn what_may_have_to_wait_for_the_disk_is_not_told_at_once() {
    let (engine, store) = probed();
    let at_once = |key: &str| store.read_at_once(KEYSPACE, partition_of(key), &Key::from(key));
    let (old, new) = (record(50, 1, Some("old")), record(60, 1, Some("new")));
    publish(&store, 1, &[row("k", old.clone())]);
    assert_eq!(at_once("k").unwrap(), Some(Some(old.clone())));
    store.freeze();
    feed_all(&store);
    let reads = engine.gets();
    assert_eq!((at_once("k").unwrap(), at_once("none").unwrap()), (None, None));
    publish(&store, 2, &[row("l", record(40, 1, None)), row("m", new.clone())]);
    assert_eq!(at_once("l").unwrap(), None, "the engine may have a newer one");
    assert_eq!(at_once("m").unwrap(), Some(Some(new)));
    assert_eq!(engine.gets(), reads, "nothing of that asked the engine");
    store.checkpoint().unwrap();
    assert_eq!((at_once("k").unwrap(), at_once("none").unwrap()), (Some(Some(old)), Some(None)));
}

#[test]
fn a_late_row_does_not_replace_a_newer_one_in_the_engine() {
    let (engine, store) = probed();
    publish(&store, 1, &[row("k", record(50, 1, Some("new")))]);
    store.freeze();
    feed_all(&store);
    publish(&store, 2, &[row("k", record(40, 1, Some("old"))), row("l", record(41, 1, None))]);
    assert_eq!(read(&store, "k"), Some(record(50, 1, Some("new"))));
    store.freeze();
    feed_all(&store);
    assert_eq!(read(&store, "k"), Some(record(50, 1, Some("new"))));
    assert_eq!(read(&store, "l"), Some(record(41, 1, None)));
    assert_eq!(engine.applied_lsn(), Lsn(2));
}

#[test]
fn the_floor_holds_after_a_restart() {
    let disk = MemoryDisk::new();
    let store = Store::new(Arc::new(MemoryEngine::open(Arc::clone(&disk)))).unwrap();
    store.create_keyspace(KEYSPACE).unwrap();
    publish(&store, 1, &[row("k", record(50, 1, Some("new")))]);
    store.freeze();
    feed_all(&store);
    assert_eq!(store.checkpoint().unwrap(), Lsn(1));
    let engine = Arc::new(MemoryEngine::open(disk));
    assert_eq!(watermark::load(&*engine).unwrap(), Timestamp(50));
    let store = Store::new(engine).unwrap();
    publish(&store, 2, &[row("k", record(40, 1, Some("old")))]);
    store.freeze();
    feed_all(&store);
    assert_eq!(read(&store, "k"), Some(record(50, 1, Some("new"))));
}

#[test]
fn a_lost_watermark_means_that_every_row_is_compared() {
    let engine = Arc::new(MemoryEngine::open(MemoryDisk::new()));
    engine.apply(&[], Lsn(7)).unwrap();
    assert_eq!(watermark::load(&*engine).unwrap(), Timestamp(u64::MAX));
    watermark::store(&*engine, Timestamp(9)).unwrap();
    assert_eq!(watermark::load(&*engine).unwrap(), Timestamp(9));
    assert_eq!(engine.applied_lsn(), Lsn(7));
}

#[test]
fn an_lsn_counts_as_applied_only_with_the_last_slice() {
    let (engine, store) = probed();
    let rows: Vec<_> = (0..10).map(|n| row(&n.to_string(), record(n + 1, 1, None))).collect();
    publish(&store, 10, &rows);
    assert!(store.freeze());
    publish(&store, 11, &[row("later", record(99, 1, None))]);
    assert!(!store.freeze(), "one table is frozen already");
    for slice in 0..2 {
        assert_eq!(store.feed(4).unwrap(), Fed { rows: 4, done: false });
        assert_eq!((slice, engine.applied_lsn()), (slice, Lsn(0)));
    }
    assert_eq!(store.checkpoint().unwrap(), Lsn(0));
    assert_eq!(store.feed(4).unwrap(), Fed { rows: 2, done: true });
    assert_eq!(store.checkpoint().unwrap(), Lsn(10));
    assert_eq!(store.feed(4).unwrap(), Fed { rows: 0, done: true });
}

#[test]
fn a_log_of_other_records_can_be_checkpointed_too() {
    let (_, store) = probed();
    assert!(!store.freeze(), "nothing was published");
    publish(&store, 5, &[]);
    assert!(store.freeze());
    assert_eq!(store.feed(10).unwrap(), Fed { rows: 0, done: true });
    assert_eq!(store.checkpoint().unwrap(), Lsn(5));
    assert!(!store.freeze(), "nothing was published since");
}

#[test]
fn a_failed_slice_is_fed_again() {
    let (engine, store) = probed();
    let rows: Vec<_> = (0..10).map(|n| row(&n.to_string(), record(n + 1, 1, None))).collect();
    publish(&store, 10, &rows);
    store.freeze();
    store.feed(4).unwrap();
    engine.fail_applies(true);
    assert!(matches!(store.feed(4), Err(StoreError::Engine(EngineError::Failed { .. }))));
    assert_eq!(engine.applied_lsn(), Lsn(0));
    engine.fail_applies(false);
    feed_all(&store);
    assert_eq!((store.rows(), engine.applied_lsn()), (0, Lsn(10)));
    assert!(rows.iter().all(|(_, row)| read(&store, &row.key.to_string()).is_some()));
}

#[test]
fn sums_tell_where_rows_are() {
    let (_, store) = probed();
    assert_eq!((store.rows(), store.oldest()), (0, None));
    let [a, b] = ["a", "b"].map(|key| row(key, record(1, 1, Some("value"))));
    let cost = a.1.cost_bytes();
    publish(&store, 3, &[a]);
    store.freeze();
    publish(&store, 4, &[b]);
    assert_eq!((store.active_bytes(), store.frozen_bytes(), store.rows()), (cost, cost, 2));
    assert_eq!(store.oldest(), Some(Moment(3)));
    feed_all(&store);
    assert_eq!((store.active_bytes(), store.frozen_bytes(), store.rows()), (cost, 0, 1));
    assert_eq!(store.oldest(), Some(Moment(4)));
}

#[test]
fn a_corrupt_row_is_named_skipped_counted_and_overwritten() {
    let (engine, store) = probed();
    let rows = ["a3", "b3", "c3"].map(|key| row(key, record(5, 1, Some("value"))));
    publish(&store, 1, &rows);
    store.freeze();
    feed_all(&store);
    engine.corrupt(KEYSPACE, partition_of("b3"), &Key::from("b3"));
    let outcome = store.read(KEYSPACE, partition_of("b3"), &Key::from("b3"));
    assert!(matches!(outcome, Err(StoreError::Corrupt { .. })), "{outcome:?}");
    assert_eq!(store.corrupt_rows(), 1);
    let page = store.scan(KEYSPACE, partition_of("b3"), None, 1000).unwrap();
    let keys: Vec<_> = page.rows.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!((keys, page.done), (vec!["a3".to_owned(), "c3".to_owned()], true));
    assert_eq!(page.damaged, [Key::from("b3")]);
    let first = store.scan(KEYSPACE, partition_of("b3"), None, 1).unwrap();
    assert_eq!((first.rows.len(), first.damaged.len()), (1, 0), "it lies behind the page");
    let second = store.scan(KEYSPACE, partition_of("b3"), Some(&Key::from("a3")), 1).unwrap();
    assert_eq!((second.rows.len(), second.damaged), (1, vec![Key::from("b3")]));
    publish(&store, 2, &[row("b3", record(4, 1, Some("repaired")))]);
    store.freeze();
    feed_all(&store);
    assert_eq!(read(&store, "b3"), Some(record(4, 1, Some("repaired"))));
}

#[test]
fn where_versions_only_rise_memory_stands_for_what_is_damaged() {
    let (engine, store) = probed();
    let (old, same) = (record(5, 1, Some("value")), record(5, 1, Some("value")));
    publish(&store, 1, &[row("a3", old.clone()), row("b3", old)]);
    store.freeze();
    feed_all(&store);
    let (key, place) = (Key::from("b3"), partition_of("b3"));
    engine.corrupt(KEYSPACE, place, &key);
    let everything = ListRange {
        prefix: Bytes::new(),
        after: None,
        rows_max: 10,
        bytes_max: 1000,
        keys_only: false,
    };
    let read = || store.read_rising(KEYSPACE, place, &key).is_ok();
    let listed = || store.list_rising(KEYSPACE, place, &everything).is_ok();
    let missed = || store.scan(KEYSPACE, place, None, 1000).unwrap().missed().cloned();
    assert_eq!((read(), listed(), missed()), (false, false, Some(key.clone())));
    publish(&store, 2, &[row("b3", same.clone())]);
    assert_eq!((read(), listed(), missed()), (true, true, None));
    assert_eq!(store.read_rising(KEYSPACE, place, &key).unwrap(), Some(same));
    assert!(store.read(KEYSPACE, place, &key).is_err(), "elsewhere it may be older");
    assert!(store.list(KEYSPACE, place, &everything).is_err());
}

#[test]
fn freezing_never_cuts_a_publish_in_two() {
    const LSNS: u64 = 3000;
    let (engine, store) = probed();
    let keys = |lsn: u64| [0, 1].map(|half| format!("{lsn}-{half}"));
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for lsn in 1..=LSNS {
                let rows = keys(lsn).map(|key| row(&key, record(lsn, 1, None)));
                publish(&store, lsn, &rows);
                assert!(read(&store, &keys(lsn)[1]).is_some(), "not visible on return");
            }
        });
        let mut checked = 0;
        while !publisher.is_finished() || store.rows() > 0 {
            store.freeze();
            store.feed(7).unwrap();
            let applied = engine.applied_lsn().0;
            for key in (checked + 1..=applied).flat_map(keys) {
                let held = engine.get(KEYSPACE, partition_of(&key), &Key::from(key.as_str()));
                assert!(held.unwrap().is_some(), "LSN {applied} is applied but {key} is not");
            }
            checked = applied;
        }
        assert_eq!(checked, LSNS);
    });
}

#[test]
fn a_publish_that_is_under_way_is_frozen_whole_or_not_at_all() {
    let (_, store) = probed();
    publish(&store, 1, &[row("a", record(1, 1, None))]);
    let rows = ["b", "c"].map(|key| row(key, record(2, 1, None)));
    std::thread::scope(|scope| {
        let store = &store;
        let (fed, is_fed) = std::sync::mpsc::channel();
        let mut rows = rows.iter().cloned().enumerate();
        let interrupted = std::iter::from_fn(move || {
            let (at, row) = rows.next()?;
            if at == 1 {
                let fed = fed.clone();
                scope.spawn(move || {
                    store.freeze();
                    feed_all(store);
                    let _ = fed.send(());
                });
                // Time enough for a freeze that does not wait for this call to do its harm.
                let early = is_fed.recv_timeout(std::time::Duration::from_millis(100));
                assert!(early.is_err(), "the table was frozen in the middle of a publish");
            }
            Some(row)
        });
        store.publish(Lsn(2), interrupted, Moment(2));
    });
    assert!(["a", "b", "c"].iter().all(|key| read(&store, key).is_some()));
    assert_eq!(store.checkpoint().unwrap(), Lsn(2));
}

/// One step of the property test.
#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<Draft>),
    Freeze,
    Feed(usize),
    Checkpoint,
    Crash,
    Scan(usize),
}

/// A row to publish, stamped relative to the world's clock: late, duplicate or new.
#[derive(Clone, Debug)]
struct Draft {
    key: u8,
    late: u64,
    life: u64,
    value: Option<u8>,
}

fn drafts() -> impl Strategy<Value = Draft> {
    (0..12u8, 0..8u64, 1..3u64, proptest::option::of(0..3u8))
        .prop_map(|(key, late, life, value)| Draft { key, late, life, value })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(drafts(), 0..5).prop_map(Step::Publish),
        2 => Just(Step::Freeze),
        4 => (1..4usize).prop_map(Step::Feed),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        2 => prop_oneof![Just(0), Just(70), 1..2000usize].prop_map(Step::Scan),
    ]
}

/// A store, its disk, the log that it is replayed from, and the map that it should equal.
struct World {
    disk: Arc<MemoryDisk>,
    engine: Arc<MemoryEngine>,
    store: Store,
    log: Vec<(Lsn, Vec<(PartitionId, Row)>)>,
    model: BTreeMap<Key, Record>,
    clock: u64,
    lsn: u64,
}

impl World {
    fn new() -> Self {
        let disk = MemoryDisk::new();
        let (engine, store) = Self::open(&disk);
        let (log, model) = (Vec::new(), BTreeMap::new());
        World { disk, engine, store, log, model, clock: 10, lsn: 0 }
    }

    fn open(disk: &Arc<MemoryDisk>) -> (Arc<MemoryEngine>, Store) {
        let engine = Arc::new(MemoryEngine::open(Arc::clone(disk)));
        let store = Store::new(engine.clone()).unwrap();
        store.create_keyspace(KEYSPACE).unwrap();
        (engine, store)
    }

    fn take(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Publish(drafts) => self.publish(&drafts),
            Step::Freeze => drop(self.store.freeze()),
            Step::Feed(rows_max) => drop(self.store.feed(rows_max).unwrap()),
            Step::Checkpoint => {
                let covered = self.store.checkpoint().unwrap();
                self.log.retain(|(lsn, _)| *lsn > covered);
            }
            Step::Crash => {
                (self.engine, self.store) = Self::open(&self.disk);
                for (lsn, rows) in &self.log {
                    self.store.publish(*lsn, rows.iter().cloned(), Moment(lsn.0));
                }
            }
            Step::Scan(page_bytes_max) => self.check_scans(page_bytes_max)?,
        }
        self.check_reads()
    }

    fn publish(&mut self, drafts: &[Draft]) {
        self.clock += 1;
        self.lsn += 1;
        let row_of = |draft: &Draft| {
            let value = draft.value.map(|digit| digit.to_string());
            let stamp = self.clock + 2 - draft.late;
            row(&draft.key.to_string(), record(stamp, draft.life, value.as_deref()))
        };
        let rows: Vec<_> = drafts.iter().map(row_of).collect();
        for (_, row) in &rows {
            let held = self.model.entry(row.key.clone()).or_insert_with(|| row.record.clone());
            if supersedes(&row.record, held) {
                *held = row.record.clone();
            }
        }
        publish(&self.store, self.lsn, &rows);
        self.log.push((Lsn(self.lsn), rows));
    }

    fn check_reads(&self) -> TestCaseResult {
        for key in (0..12u8).map(|key| key.to_string()) {
            let held = read(&self.store, &key);
            prop_assert_eq!(held.as_ref(), self.model.get(&Key::from(&*key)));
        }
        let applied = self.engine.applied_lsn();
        for (_, rows) in self.log.iter().filter(|(lsn, _)| *lsn <= applied) {
            for (partition, row) in rows {
                let held = self.store.stored(KEYSPACE, *partition, &row.key).unwrap();
                let kept = held.is_some_and(|held| !supersedes(&row.record, &held));
                prop_assert!(kept, "{:?} is applied, but {:?} is not", applied, row);
            }
        }
        Ok(())
    }

    fn check_scans(&self, page_bytes_max: usize) -> TestCaseResult {
        for partition in (0..3).map(PartitionId) {
            let mut rows: Vec<(Key, Record)> = Vec::new();
            loop {
                let after = rows.last().map(|(key, _)| key.clone());
                let page = self.store.scan(KEYSPACE, partition, after.as_ref(), page_bytes_max);
                let page = page.unwrap();
                prop_assert!(!page.rows.is_empty() || page.done, "a page without progress");
                prop_assert!(without_last(&page) < page_bytes_max.max(1), "the page is too large");
                rows.extend(page.rows);
                if page.done {
                    break;
                }
            }
            let expected: Vec<_> =
                self.model.clone().into_iter().filter(|(key, _)| place(key) == partition).collect();
            prop_assert_eq!(rows, expected);
        }
        Ok(())
    }
}

fn place(key: &Key) -> PartitionId {
    partition_of(&key.to_string())
}

fn without_last(page: &ScanPage) -> usize {
    let rest = &page.rows[..page.rows.len().saturating_sub(1)];
    let row = |(key, record): &(Key, Record)| {
        Row { keyspace: KEYSPACE, key: key.clone(), record: record.clone() }.cost_bytes()
    };
    rest.iter().map(row).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_store_equals_a_map(steps in proptest::collection::vec(steps(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(step)?;
        }
        world.check_scans(100)?;
    }
}
