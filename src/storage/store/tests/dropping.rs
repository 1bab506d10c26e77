//! Keyspaces that come and go: made late, dropped while their rows lie anywhere, and replayed.

use super::*;

const GONE: KeyspaceId = KeyspaceId(5);
const LATE: KeyspaceId = KeyspaceId(6);
const PARTITION: PartitionId = PartitionId(0);

fn row_of(keyspace: KeyspaceId, key: &str, stamp: u64) -> (PartitionId, Row) {
    let record = record(stamp, 1, Some("value"));
    (PARTITION, Row { keyspace, key: Key::from(key), record })
}

fn stamp_of(store: &Store, keyspace: KeyspaceId, key: &str) -> Option<u64> {
    let record = store.read(keyspace, PARTITION, &Key::from(key)).unwrap();
    record.map(|record| record.version.timestamp.0)
}

fn keys_of(store: &Store, keyspace: KeyspaceId) -> usize {
    let page = store.scan(keyspace, PARTITION, None, 1 << 20).unwrap();
    assert!(page.done);
    page.rows.len()
}

/// As the log's records of a drop, and of some rows, are taken over.
fn drop_at(store: &Store, lsn: u64, keyspace: KeyspaceId, rows: &[(PartitionId, Row)]) {
    store.drop_keyspace(keyspace, Moment(lsn));
    publish(store, lsn, rows);
}

#[test]
fn a_keyspace_that_nobody_made_reads_as_empty_and_is_made_by_its_rows() {
    let (engine, store) = probed();
    assert_eq!((stamp_of(&store, LATE, "a"), keys_of(&store, LATE)), (None, 0));
    assert!(!store.has_keyspace(LATE));
    publish(&store, 1, &[row_of(LATE, "a", 7)]);
    assert_eq!((stamp_of(&store, LATE, "a"), keys_of(&store, LATE)), (Some(7), 1));
    store.freeze();
    feed_all(&store);
    assert_eq!((stamp_of(&store, LATE, "a"), keys_of(&store, LATE)), (Some(7), 1));
    assert!(store.has_keyspace(LATE) && engine.keyspaces().contains(&LATE));
}

#[test]
fn a_dropped_keyspace_is_empty_at_once_wherever_its_rows_lie() {
    let (engine, store) = probed();
    store.create_keyspace(GONE).unwrap();
    publish(&store, 1, &[row_of(GONE, "stored", 1), row_of(KEYSPACE, "kept", 1)]);
    store.freeze();
    feed_all(&store);
    publish(&store, 2, &[row_of(GONE, "frozen", 2)]);
    store.freeze();
    publish(&store, 3, &[row_of(GONE, "active", 3)]);
    drop_at(&store, 4, GONE, &[row_of(GONE, "later", 4), row_of(KEYSPACE, "kept too", 4)]);
    for key in ["stored", "frozen", "active", "later"] {
        assert_eq!(stamp_of(&store, GONE, key), None, "{key}");
    }
    assert_eq!(keys_of(&store, GONE), 0);
    assert!(store.is_dropped(GONE) && !store.has_keyspace(GONE));
    feed_all(&store);
    assert!(engine.keyspaces().contains(&GONE), "its table is not fed yet");
    store.freeze();
    feed_all(&store);
    assert!(!engine.keyspaces().contains(&GONE));
    assert_eq!((engine.applied_lsn(), keys_of(&store, KEYSPACE)), (Lsn(4), 2));
}

#[test]
fn a_dropped_keyspace_is_not_made_again() {
    let (engine, store) = probed();
    drop_at(&store, 1, GONE, &[]);
    store.create_keyspace(GONE).unwrap();
    publish(&store, 2, &[row_of(GONE, "a", 1)]);
    store.freeze();
    feed_all(&store);
    assert!(!engine.keyspaces().contains(&GONE) && !store.keyspaces().contains(&GONE));
}

#[test]
fn a_drop_alone_makes_the_table_due() {
    let (_, store) = probed();
    drop_at(&store, 9, GONE, &[]);
    assert_eq!(store.oldest(), Some(Moment(9)));
    assert!(store.freeze());
}

#[test]
fn a_drop_that_the_engine_fails_is_done_again() {
    let (engine, store) = probed();
    store.create_keyspace(GONE).unwrap();
    drop_at(&store, 1, GONE, &[]);
    store.freeze();
    engine.fail_applies(true);
    assert!(store.feed(10).is_err());
    assert_eq!(engine.applied_lsn(), Lsn(0), "a crash now would replay the drop");
    engine.fail_applies(false);
    feed_all(&store);
    assert_eq!(engine.applied_lsn(), Lsn(1));
    assert!(!engine.keyspaces().contains(&GONE));
}

/// One step of the property test.
#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<(u32, u8)>),
    Drop(u32),
    Freeze,
    Feed(usize),
    Checkpoint,
    Crash,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec((0..4u32, 0..4u8), 1..5).prop_map(Step::Publish),
        1 => (0..4u32).prop_map(Step::Drop),
        2 => Just(Step::Freeze),
        4 => (1..4usize).prop_map(Step::Feed),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
    ]
}

enum Logged {
    Rows(Vec<(PartitionId, Row)>),
    Drop(KeyspaceId),
}

/// A store, its disk and its log; keyspaces that nothing but their rows has made.
struct World {
    disk: Arc<MemoryDisk>,
    engine: Arc<MemoryEngine>,
    store: Store,
    log: Vec<(u64, Logged)>,
    model: BTreeMap<(KeyspaceId, String), u64>,
    dropped: BTreeSet<KeyspaceId>,
    lsn: u64,
}

impl World {
    fn new() -> World {
        let disk = MemoryDisk::new();
        let engine = Arc::new(MemoryEngine::open(Arc::clone(&disk)));
        let store = Store::new(engine.clone()).unwrap();
        let (log, model, dropped) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        World { disk, engine, store, log, model, dropped, lsn: 0 }
    }

    fn take(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Publish(drafts) => self.publish(&drafts),
            Step::Drop(keyspace) => {
                self.dropped.insert(KeyspaceId(keyspace));
                self.model.retain(|(held, _), _| held.0 != keyspace);
                self.log(Logged::Drop(KeyspaceId(keyspace)));
            }
            Step::Freeze => drop(self.store.freeze()),
            Step::Feed(rows_max) => drop(self.store.feed(rows_max).unwrap()),
            Step::Checkpoint => {
                let covered = self.store.checkpoint().unwrap();
                self.log.retain(|(lsn, _)| *lsn > covered.0);
            }
            Step::Crash => {
                self.engine = Arc::new(MemoryEngine::open(Arc::clone(&self.disk)));
                self.store = Store::new(self.engine.clone()).unwrap();
                for (lsn, logged) in &self.log {
                    take_over(&self.store, *lsn, logged);
                }
            }
        }
        self.check()
    }

    /// Rows of dropped keyspaces are refused before they come to the log.
    fn publish(&mut self, drafts: &[(u32, u8)]) {
        let stamp = self.lsn + 1;
        let live =
            drafts.iter().filter(|(keyspace, _)| !self.dropped.contains(&KeyspaceId(*keyspace)));
        let rows: Vec<_> = live
            .map(|(keyspace, key)| row_of(KeyspaceId(*keyspace), &key.to_string(), stamp))
            .collect();
        for (_, row) in &rows {
            self.model.insert((row.keyspace, row.key.to_string()), stamp);
        }
        self.log(Logged::Rows(rows));
    }

    fn log(&mut self, logged: Logged) {
        self.lsn += 1;
        take_over(&self.store, self.lsn, &logged);
        self.log.push((self.lsn, logged));
    }

    fn check(&self) -> TestCaseResult {
        for keyspace in (0..4).map(KeyspaceId) {
            let keys = (0..4).map(|key| key.to_string());
            for key in keys {
                let expected = self.model.get(&(keyspace, key.clone())).copied();
                prop_assert_eq!(stamp_of(&self.store, keyspace, &key), expected);
            }
            let held = self.model.keys().filter(|(of, _)| *of == keyspace).count();
            prop_assert_eq!(keys_of(&self.store, keyspace), held);
        }
        Ok(())
    }
}

fn take_over(store: &Store, lsn: u64, logged: &Logged) {
    match logged {
        Logged::Rows(rows) => publish(store, lsn, rows),
        Logged::Drop(keyspace) => drop_at(store, lsn, *keyspace, &[]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_dropped_never_returns_and_the_rest_stays(
        steps in proptest::collection::vec(steps(), 1..80),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step)?;
        }
        // Two tables may hold what is left.
        for _ in 0..2 {
            world.take(Step::Freeze)?;
            feed_all(&world.store);
        }
        world.check()?;
        let held = world.engine.keyspaces();
        prop_assert!(held.is_disjoint(&world.dropped), "{:?} of {:?}", held, world.dropped);
    }
}
