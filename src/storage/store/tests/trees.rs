//! Hash trees against passes over all rows, whatever happens in between.

use super::*;
use crate::protocol::merkle::{BRANCHES, Buckets, Tree};
use crate::storage::store::Pass;

const PARTITIONS: u16 = 3;

/// The tree that the rows make, read one by one.
fn tree_of_rows(store: &Store, partition: PartitionId) -> Tree {
    let mut tree = Tree::new();
    let mut refresh = tree.refresh();
    let page = store.scan(KEYSPACE, partition, None, usize::MAX).unwrap();
    page.rows.iter().for_each(|(key, record)| refresh.add(key, record.version));
    assert_eq!((page.done, tree.finish(refresh)), (true, Some(0)));
    tree
}

fn buckets(tree: &Tree) -> Vec<u64> {
    (0..BRANCHES as u8).flat_map(|branch| tree.buckets(branch)).collect()
}

fn assert_right(store: &Store, pass: Pass) {
    for partition in (0..PARTITIONS).map(PartitionId) {
        let hashed = store.hashed(KEYSPACE, partition, pass).unwrap();
        assert_eq!(hashed.wrong_buckets, 0);
        assert_eq!(buckets(&hashed.tree), buckets(&tree_of_rows(store, partition)));
    }
}

#[test]
fn a_partition_that_nobody_writes_to_is_passed_over_once() {
    let (_, store) = probed();
    publish(&store, 1, &[row("a", record(1, 1, Some("v"))), row("d", record(2, 1, Some("v")))]);
    let at = partition_of("a");
    assert_eq!(partition_of("d"), at);
    assert_eq!(store.hashed(KEYSPACE, at, Pass::Stale).unwrap().rows, 2);
    store.freeze();
    feed_all(&store);
    publish(&store, 2, &[row("b", record(3, 1, Some("v")))]);
    assert_eq!(store.hashed(KEYSPACE, at, Pass::Stale).unwrap().rows, 0);
    publish(&store, 3, &[row("a", record(4, 1, None))]);
    assert_eq!(store.hashed(KEYSPACE, at, Pass::Stale).unwrap().rows, 2);
    assert_right(&store, Pass::Stale);
}

#[test]
fn a_list_has_the_rows_of_its_buckets_in_order_and_goes_on() {
    let (_, store) = probed();
    let partition = PartitionId(0);
    let rows: Vec<_> = (0..3000_u32)
        .map(|number| {
            let (_, row) = row(&format!("k{number:04}"), record(u64::from(number) + 1, 1, None));
            (partition, row)
        })
        .collect();
    publish(&store, 1, &rows);
    let some: Buckets = (0..700).collect();
    for buckets in [Buckets::ALL, some, Buckets::NONE] {
        let wanted = |key: &&Key| buckets.contains(crate::protocol::merkle::bucket_of(key));
        let expected: Vec<&Key> = rows.iter().map(|(_, row)| &row.key).filter(wanted).collect();
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let list = store.rows_of(KEYSPACE, partition, &buckets, after).unwrap();
            assert!(list.rows.len() <= 1024);
            listed.extend(list.rows.into_iter().map(|(key, _)| key));
            after = list.complete_to;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn verifying_tells_of_rows_that_are_damaged() {
    let (engine, store) = probed();
    publish(&store, 1, &[row("a", record(1, 1, Some("v"))), row("d", record(2, 1, Some("v")))]);
    store.freeze();
    feed_all(&store);
    let at = partition_of("a");
    assert_eq!(store.hashed(KEYSPACE, at, Pass::All).unwrap().wrong_buckets, 0);
    engine.corrupt(KEYSPACE, at, &Key::from("a"));
    assert_eq!(store.hashed(KEYSPACE, at, Pass::Stale).unwrap().wrong_buckets, 0);
    assert_eq!(store.hashed(KEYSPACE, at, Pass::All).unwrap().wrong_buckets, 1);
    assert_right(&store, Pass::Stale);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<(u8, u64, bool)>),
    Freeze,
    Feed(usize),
    Clear(u16),
    /// Trees are asked for, and must be right.
    Compare,
    Checkpoint,
    /// What no checkpoint covered comes back from the log, as after a crash.
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0..12_u8, 1..9_u64, any::<bool>()), 1..5)
            .prop_map(Step::Publish),
        2 => Just(Step::Freeze),
        2 => (1..5_usize).prop_map(Step::Feed),
        1 => (0..PARTITIONS).prop_map(Step::Clear),
        3 => Just(Step::Compare),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
    ]
}

/// What the log holds.
enum Logged {
    Rows(Vec<(PartitionId, Row)>),
    Clear(u16),
}

fn take(store: &Store, lsn: u64, logged: &Logged) {
    match logged {
        Logged::Rows(rows) => publish(store, lsn, rows),
        Logged::Clear(partition) => {
            store.drop_partition((KEYSPACE, PartitionId(*partition)), Moment(lsn));
            publish(store, lsn, &[]);
        }
    }
}

fn reopened(disk: &Arc<MemoryDisk>, log: &[Logged]) -> Store {
    let store = Store::new(Arc::new(MemoryEngine::open(Arc::clone(disk)))).unwrap();
    store.create_keyspace(KEYSPACE).unwrap();
    let applied = store.applied_lsn();
    for (lsn, logged) in (1..).zip(log).filter(|(lsn, _)| Lsn(*lsn) > applied) {
        take(&store, lsn, logged);
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Stamps rise and fall, so that rows are taken in seen and unseen.
    #[test]
    fn trees_equal_those_of_the_rows(steps in proptest::collection::vec(steps(), 1..60)) {
        let disk = MemoryDisk::new();
        let mut log: Vec<Logged> = Vec::new();
        let mut store = reopened(&disk, &log);
        for step in steps {
            let lsn = log.len() as u64 + 1;
            match step {
                Step::Publish(drafts) => {
                    let draft = |(key, stamp, kept): (u8, u64, bool)| {
                        let stamp = stamp * 4 + lsn;
                        row(&key.to_string(), record(stamp, 1, kept.then_some("v")))
                    };
                    log.push(Logged::Rows(drafts.into_iter().map(draft).collect()));
                    take(&store, lsn, &log[log.len() - 1]);
                }
                Step::Clear(partition) => {
                    log.push(Logged::Clear(partition));
                    take(&store, lsn, &log[log.len() - 1]);
                }
                Step::Freeze => {
                    store.freeze();
                }
                Step::Feed(rows) => {
                    store.feed(rows).unwrap();
                }
                Step::Compare => assert_right(&store, Pass::Stale),
                Step::Checkpoint => {
                    store.checkpoint().unwrap();
                }
                Step::Restart => store = reopened(&disk, &log),
            }
        }
        assert_right(&store, Pass::Stale);
        assert_right(&store, Pass::All);
    }
}
