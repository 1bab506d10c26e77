//! What every engine must do, as tests that each engine runs: see [`conformance_tests`].

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Change, Engine, EngineError, Page};
use crate::types::{Key, KeyspaceId, Lsn, PartitionId};

/// An engine under test, and the power to crash it.
pub(crate) trait Harness {
    /// A new, empty engine.
    fn start() -> Self;

    /// The engine.
    fn engine(&self) -> &dyn Engine;

    /// Stops the engine without warning and opens it again; what no checkpoint covered may be
    /// lost, but only from the end.
    fn crash(&mut self);
}

/// Runs the suite for a [`Harness`].
macro_rules! conformance_tests {
    ($harness:ty: $($test:ident)*) => {
        mod conformance {
            use super::*;
            $(
                #[test]
                fn $test() {
                    $crate::storage::engine::conformance::$test::<$harness>();
                }
            )*
        }
    };
    ($harness:ty) => {
        $crate::storage::engine::conformance::conformance_tests!($harness:
            the_last_change_of_a_batch_wins
            applying_again_changes_nothing
            an_unknown_keyspace_is_an_error
            scans_stay_within_their_partition_and_keyspace
            pages_join_without_gap_or_overlap
            a_page_has_at_least_one_row
            deleting_a_partition_resumes_and_spares_others
            a_dropped_keyspace_comes_back_empty
            a_checkpoint_survives_a_crash
            reads_may_wait_from_a_change_to_its_checkpoint
            the_applied_lsn_never_falls
            values_of_every_size_come_back
            a_large_value_is_replaced_and_removed
            random_operations_agree_with_a_map
        );
    };
}
pub(crate) use conformance_tests;

/// The seed of a random test: `COTERIE_SEED`, or a new one; printed with how to replay it.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("COTERIE_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0_u8));
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("seed {seed}; replay: COTERIE_SEED={seed} cargo test --lib {name}");
    seed
}

/// Bytes that differ from seed to seed and along their length.
pub(crate) fn value_of(seed: u64, len: usize) -> Bytes {
    let mut random = StdRng::seed_from_u64(seed);
    (0..len).map(|_| random.random::<u8>()).collect()
}

const A: KeyspaceId = KeyspaceId(1);
const B: KeyspaceId = KeyspaceId(2);
const FIRST: PartitionId = PartitionId(0);
const LAST: PartitionId = PartitionId(u16::MAX);

fn put(keyspace: KeyspaceId, partition: PartitionId, key: &str, value: &[u8]) -> Change {
    let value = Some(Bytes::copy_from_slice(value));
    Change { keyspace, partition, key: Key::from(key), value }
}

fn remove(keyspace: KeyspaceId, partition: PartitionId, key: &str) -> Change {
    Change { value: None, ..put(keyspace, partition, key, b"") }
}

fn start_with<H: Harness>(keyspaces: &[KeyspaceId]) -> H {
    let harness = H::start();
    for keyspace in keyspaces {
        harness.engine().create_keyspace(*keyspace).unwrap();
    }
    harness
}

fn get(engine: &dyn Engine, keyspace: KeyspaceId, part: PartitionId, key: &str) -> Option<Bytes> {
    engine.get(keyspace, part, &Key::from(key)).unwrap()
}

/// All rows of a partition, read in pages of `rows_max`.
fn scan_all(
    engine: &dyn Engine,
    keyspace: KeyspaceId,
    partition: PartitionId,
    rows_max: usize,
) -> Vec<(Key, Bytes)> {
    let mut rows: Vec<(Key, Bytes)> = Vec::new();
    loop {
        let after = rows.last().map(|(key, _)| key.clone());
        let page = engine.scan(keyspace, partition, after.as_ref(), rows_max).unwrap();
        assert!(page.rows.len() <= rows_max.max(1));
        rows.extend(page.rows);
        if page.done {
            return rows;
        }
    }
}

fn keys(rows: &[(Key, Bytes)]) -> Vec<String> {
    rows.iter().map(|(key, _)| key.to_string()).collect()
}

pub(crate) fn the_last_change_of_a_batch_wins<H: Harness>() {
    let harness = start_with::<H>(&[A]);
    let batch = [
        put(A, FIRST, "k", b"1"),
        put(A, FIRST, "gone", b"1"),
        put(A, FIRST, "back", b"1"),
        remove(A, FIRST, "gone"),
        remove(A, FIRST, "back"),
        put(A, FIRST, "a", b"0"),
        put(A, FIRST, "back", b"2"),
        put(A, FIRST, "k", b"2"),
    ];
    harness.engine().apply(&batch, Lsn(1)).unwrap();
    let held = ["k", "gone", "back", "a"].map(|key| get(harness.engine(), A, FIRST, key));
    let two = Some(Bytes::from_static(b"2"));
    assert_eq!(held, [two.clone(), None, two, Some(Bytes::from_static(b"0"))]);
}

pub(crate) fn applying_again_changes_nothing<H: Harness>() {
    let harness = start_with::<H>(&[A]);
    let large = value_of(1, 300_000);
    let batch = [put(A, FIRST, "a", b"1"), remove(A, FIRST, "b"), put(A, FIRST, "c", &large)];
    for _ in 0..3 {
        harness.engine().apply(&batch, Lsn(5)).unwrap();
        let rows = scan_all(harness.engine(), A, FIRST, 10);
        let expected = [("a", Bytes::from_static(b"1")), ("c", large.clone())];
        assert_eq!(rows, expected.map(|(key, value)| (Key::from(key), value)));
        assert_eq!(harness.engine().applied_lsn(), Lsn(5));
    }
}

pub(crate) fn an_unknown_keyspace_is_an_error<H: Harness>() {
    let harness = start_with::<H>(&[A]);
    let engine = harness.engine();
    let key = Key::from("k");
    let outcomes = [
        engine.get(B, FIRST, &key).map(drop),
        engine.scan(B, FIRST, None, 1).map(drop),
        engine.apply(&[put(B, FIRST, "k", b"")], Lsn(1)),
        engine.delete_partition(B, FIRST, 1).map(drop),
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(error, EngineError::UnknownKeyspace { keyspace: B }), "{error}");
    }
    engine.apply(&[put(A, FIRST, "k", b"")], Lsn(2)).expect("a wrong keyspace breaks nothing");
}

pub(crate) fn scans_stay_within_their_partition_and_keyspace<H: Harness>() {
    let harness = start_with::<H>(&[A, B]);
    let engine = harness.engine();
    let parts = [FIRST, PartitionId(1), PartitionId(0xff), PartitionId(0x100), LAST];
    for (lsn, part) in (1..).zip(parts) {
        let batch = ["", "\0", "a", "\u{10ffff}"].map(|key| put(A, part, key, b"v"));
        engine.apply(&batch, Lsn(lsn)).unwrap();
    }
    engine.apply(&[put(B, PartitionId(1), "b", b"v")], Lsn(9)).unwrap();
    for part in parts {
        assert_eq!(keys(&scan_all(engine, A, part, 3)), ["", "\0", "a", "\u{10ffff}"]);
    }
    assert_eq!(keys(&scan_all(engine, B, PartitionId(1), 3)), ["b"]);
    let empty = engine.scan(B, PartitionId(2), None, 3).unwrap();
    assert_eq!(empty, Page { rows: Vec::new(), done: true });
}

pub(crate) fn pages_join_without_gap_or_overlap<H: Harness>() {
    let harness = start_with::<H>(&[A]);
    let names: Vec<String> = (0..100).map(|n| format!("key-{n:03}")).collect();
    let batch: Vec<Change> = names.iter().map(|key| put(A, FIRST, key, b"v")).collect();
    harness.engine().apply(&batch, Lsn(1)).unwrap();
    for rows_max in [1, 7, 50, 99, 100, 101, 1000] {
        assert_eq!(keys(&scan_all(harness.engine(), A, FIRST, rows_max)), names);
    }
    let absent = Key::from("key-0495");
    let page = harness.engine().scan(A, FIRST, Some(&absent), 2).unwrap();
    assert_eq!(keys(&page.rows), ["key-050", "key-051"]);
    let page = harness.engine().scan(A, FIRST, Some(&Key::from("key-099")), 2).unwrap();
    assert_eq!((page.rows.len(), page.done), (0, true));
}

pub(crate) fn a_page_has_at_least_one_row<H: Harness>() {
    let harness = start_with::<H>(&[A]);
    let batch = [put(A, FIRST, "a", b"1"), put(A, FIRST, "b", b"2")];
    harness.engine().apply(&batch, Lsn(1)).unwrap();
    let page = harness.engine().scan(A, FIRST, None, 0).unwrap();
    assert_eq!((keys(&page.rows), page.done), (vec!["a".to_owned()], false));
}

pub(crate) fn deleting_a_partition_resumes_and_spares_others<H: Harness>() {
    let harness = start_with::<H>(&[A, B]);
    let engine = harness.engine();
    let large = value_of(2, 200_000);
    for (lsn, part) in [(1, 3), (2, 4), (3, 5)] {
        let mut batch: Vec<_> =
            (0..10).map(|n| put(A, PartitionId(part), &n.to_string(), b"v")).collect();
        batch.push(put(A, PartitionId(part), "large", &large));
        batch.push(put(B, PartitionId(part), "b", b"v"));
        engine.apply(&batch, Lsn(lsn)).unwrap();
    }
    let mut calls = 1;
    while !engine.delete_partition(A, PartitionId(4), 3).unwrap() {
        calls += 1;
        assert!(calls < 20, "deleting never ends");
    }
    assert!(calls >= 4, "{calls} calls of 3 rows cannot delete 11");
    let left = |part| scan_all(engine, A, PartitionId(part), 100).len();
    assert_eq!([left(3), left(4), left(5)], [11, 0, 11]);
    assert_eq!(scan_all(engine, B, PartitionId(4), 100).len(), 1);
    assert_eq!(get(engine, A, PartitionId(5), "large"), Some(large));
    assert!(engine.delete_partition(A, PartitionId(99), 3).unwrap(), "nothing to delete");
}

pub(crate) fn a_dropped_keyspace_comes_back_empty<H: Harness>() {
    let mut harness = start_with::<H>(&[A, B]);
    let large = value_of(3, 200_000);
    let batch = [put(A, FIRST, "a", &large), put(B, FIRST, "b", b"v")];
    harness.engine().apply(&batch, Lsn(1)).unwrap();
    assert!(harness.engine().keyspaces().is_superset(&BTreeSet::from([A, B])));
    harness.engine().drop_keyspace(A).unwrap();
    assert!(!harness.engine().keyspaces().contains(&A));
    harness.engine().drop_keyspace(A).expect("dropping twice does nothing");
    assert!(harness.engine().get(A, FIRST, &Key::from("a")).is_err());
    harness.engine().checkpoint().unwrap();
    harness.crash();
    assert!(harness.engine().get(A, FIRST, &Key::from("a")).is_err());
    harness.engine().create_keyspace(A).unwrap();
    harness.engine().create_keyspace(B).expect("making an existing one does nothing");
    assert_eq!(get(harness.engine(), A, FIRST, "a"), None);
    assert_eq!(get(harness.engine(), B, FIRST, "b"), Some(Bytes::from_static(b"v")));
}

pub(crate) fn reads_may_wait_from_a_change_to_its_checkpoint<H: Harness>() {
    let harness = start_with::<H>(&[A]);
    let engine = harness.engine();
    engine.checkpoint().unwrap();
    assert!(!engine.may_wait());
    engine.apply(&[put(A, FIRST, "a", b"1")], Lsn(1)).unwrap();
    assert!(engine.may_wait());
    engine.checkpoint().unwrap();
    assert!(!engine.may_wait());
    engine.delete_partition(A, FIRST, 10).unwrap();
    assert!(engine.may_wait());
}

pub(crate) fn a_checkpoint_survives_a_crash<H: Harness>() {
    let mut harness = start_with::<H>(&[A, B]);
    let large = value_of(4, 400_000);
    let batch = [put(A, FIRST, "a", b"1"), put(B, LAST, "b", &large)];
    harness.engine().apply(&batch, Lsn(10)).unwrap();
    harness.engine().checkpoint().unwrap();
    assert_eq!(harness.engine().stats().checkpoints, 1);
    harness.engine().apply(&[put(A, FIRST, "later", b"2")], Lsn(11)).unwrap();
    harness.crash();
    let engine = harness.engine();
    assert_eq!(get(engine, A, FIRST, "a"), Some(Bytes::from_static(b"1")));
    assert_eq!(get(engine, B, LAST, "b"), Some(large));
    let later = get(engine, A, FIRST, "later");
    assert!(engine.applied_lsn() >= Lsn(10));
    assert_eq!(engine.applied_lsn() >= Lsn(11), later.is_some(), "the LSN tells what is there");
}

pub(crate) fn the_applied_lsn_never_falls<H: Harness>() {
    let mut harness = start_with::<H>(&[A]);
    assert_eq!(harness.engine().applied_lsn(), Lsn(0));
    for (given, expected) in [(3, 3), (3, 3), (2, 3), (0, 3), (9, 9)] {
        harness.engine().apply(&[], Lsn(given)).unwrap();
        assert_eq!(harness.engine().applied_lsn(), Lsn(expected));
    }
    harness.engine().checkpoint().unwrap();
    harness.crash();
    assert_eq!(harness.engine().applied_lsn(), Lsn(9));
}

pub(crate) fn values_of_every_size_come_back<H: Harness>() {
    const CHUNK: usize = 128 * 1024;
    let mut harness = start_with::<H>(&[A]);
    let sizes =
        [0, 1, 21, 22, 23, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 1024 * 1024];
    let row = |size: usize| put(A, FIRST, &format!("{size:08}"), &value_of(size as u64, size));
    let batch: Vec<Change> = sizes.into_iter().map(row).collect();
    harness.engine().apply(&batch, Lsn(1)).unwrap();
    harness.engine().checkpoint().unwrap();
    for _ in 0..2 {
        let expected: Vec<(Key, Bytes)> =
            batch.iter().map(|row| (row.key.clone(), row.value.clone().unwrap())).collect();
        assert!(scan_all(harness.engine(), A, FIRST, 4) == expected);
        for (key, value) in expected {
            assert!(harness.engine().get(A, FIRST, &key).unwrap() == Some(value), "{key}");
        }
        harness.crash();
    }
}

pub(crate) fn a_large_value_is_replaced_and_removed<H: Harness>() {
    let mut harness = start_with::<H>(&[A]);
    let sizes = [500_000, 300_000, 10, 1_000_000, 0, 200_000];
    for (lsn, size) in (1..).zip(sizes) {
        let value = value_of(lsn, size);
        // A key that begins with the other's must keep its own chunks.
        let batch = [put(A, FIRST, "k", &value), put(A, FIRST, "k\0\0\0", &value_of(99, 150_000))];
        harness.engine().apply(&batch, Lsn(lsn)).unwrap();
        assert!(get(harness.engine(), A, FIRST, "k") == Some(value));
    }
    harness.engine().apply(&[remove(A, FIRST, "k")], Lsn(9)).unwrap();
    harness.engine().checkpoint().unwrap();
    harness.crash();
    assert_eq!(get(harness.engine(), A, FIRST, "k"), None);
    assert!(get(harness.engine(), A, FIRST, "k\0\0\0") == Some(value_of(99, 150_000)));
}

pub(crate) fn random_operations_agree_with_a_map<H: Harness>() {
    let mut soak = Soak::<H>::start(seed());
    for _ in 0..400 {
        soak.step();
    }
    soak.compare();
}

/// An engine beside the map that it should equal, and the log that a crash is mended from.
struct Soak<H> {
    harness: H,
    model: BTreeMap<(KeyspaceId, PartitionId, Key), Bytes>,
    log: Vec<(Lsn, Vec<Change>)>,
    random: StdRng,
}

impl<H: Harness> Soak<H> {
    fn start(seed: u64) -> Self {
        let harness = start_with::<H>(&[A, B]);
        harness.engine().checkpoint().unwrap();
        let random = StdRng::seed_from_u64(seed);
        Soak { harness, model: BTreeMap::new(), log: Vec::new(), random }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..70 => self.apply(),
            70..85 => self.look(),
            85..90 => self.harness.engine().checkpoint().unwrap(),
            90..92 => self.delete_partition(),
            92..95 => self.crash(),
            _ => self.compare(),
        }
    }

    fn place(&mut self) -> (KeyspaceId, PartitionId) {
        let keyspace = [A, B][self.random.random_range(0..2)];
        (keyspace, [FIRST, PartitionId(1), LAST][self.random.random_range(0..3)])
    }

    fn key(&mut self) -> Key {
        Key::from(format!("{:x}", self.random.random_range(0..200)))
    }

    fn change(&mut self) -> Change {
        let (keyspace, partition) = self.place();
        let len = match self.random.random_range(0..100) {
            0..98 => self.random.random_range(0..120),
            _ => self.random.random_range(100_000..400_000),
        };
        let value = value_of(self.random.random(), len);
        let value = self.random.random_bool(0.75).then_some(value);
        Change { keyspace, partition, key: self.key(), value }
    }

    fn apply(&mut self) {
        let batch: Vec<Change> =
            (0..self.random.random_range(0..30)).map(|_| self.change()).collect();
        let lsn = Lsn(self.log.last().map_or(0, |(lsn, _)| lsn.0) + 3);
        self.harness.engine().apply(&batch, lsn).unwrap();
        for change in &batch {
            let slot = (change.keyspace, change.partition, change.key.clone());
            match change.value.clone() {
                Some(value) => self.model.insert(slot, value),
                None => self.model.remove(&slot),
            };
        }
        self.log.push((lsn, batch));
    }

    fn look(&mut self) {
        let (keyspace, partition) = self.place();
        let key = self.key();
        let held = self.harness.engine().get(keyspace, partition, &key).unwrap();
        assert!(held.as_ref() == self.model.get(&(keyspace, partition, key.clone())), "{key}");
    }

    /// Deletes are not in this test's log, so a checkpoint follows at once.
    fn delete_partition(&mut self) {
        let (keyspace, partition) = self.place();
        while !self.harness.engine().delete_partition(keyspace, partition, 10).unwrap() {}
        self.model.retain(|slot, _| (slot.0, slot.1) != (keyspace, partition));
        self.harness.engine().checkpoint().unwrap();
    }

    fn crash(&mut self) {
        self.harness.crash();
        let applied = self.harness.engine().applied_lsn();
        for (lsn, batch) in self.log.iter().filter(|(lsn, _)| *lsn > applied) {
            self.harness.engine().apply(batch, *lsn).unwrap();
        }
        self.compare();
    }

    fn compare(&mut self) {
        for keyspace in [A, B] {
            for partition in [FIRST, PartitionId(1), LAST] {
                let rows_max = self.random.random_range(1..60);
                let rows = scan_all(self.harness.engine(), keyspace, partition, rows_max);
                let expected: Vec<(Key, Bytes)> = self
                    .model
                    .iter()
                    .filter(|(slot, _)| (slot.0, slot.1) == (keyspace, partition))
                    .map(|(slot, value)| (slot.2.clone(), value.clone()))
                    .collect();
                assert!(rows == expected, "{keyspace:?} {partition:?} differ");
            }
        }
    }
}
