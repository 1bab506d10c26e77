use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::node::env::Machine;
use crate::storage::engine::{self, Engine};
use crate::storage::memory::{MemoryDisk, MemoryEngine};
use crate::types::{Lsn, Merge, Moment, Timestamp};

const SEGMENT_BYTES: usize = 64 << 10;
const PARTITION: PartitionId = PartitionId(3);

fn keyspace() -> KeyspaceId {
    KeyspaceId::numbered(1, Merge::Siblings)
}

/// A replica: what its commits leave behind is visible to the next.
struct Replica {
    store: Store,
    pen: Pen,
    commits: u64,
}

impl Replica {
    fn new() -> Replica {
        Replica::over(MemoryEngine::open(MemoryDisk::new()))
    }

    fn over(engine: MemoryEngine) -> Replica {
        let store = Store::new(Arc::new(engine)).expect("a store");
        store.create_keyspace(keyspace()).expect("a keyspace");
        let env: Arc<dyn Env> = Arc::new(Machine::new());
        let offset = Duration::from_secs(1);
        let clock = Arc::new(Clock::new(Arc::clone(&env), Timestamp(0), offset));
        Replica { store, pen: Pen::new(env, clock, SEGMENT_BYTES), commits: 0 }
    }

    /// Commits these together; what became of each.
    fn commit(&mut self, asked: Vec<Asked>) -> (usize, Vec<Joined>) {
        let mut joining = Vec::new();
        let mut records = Vec::new();
        for (at, one) in asked.into_iter().enumerate() {
            let (record, mint) = match one {
                Asked::Mint(mint) => (Record::new(Version::NONE, None), Some(mint)),
                Asked::Row(record) => (record, None),
                Asked::Drop => {
                    records.push(LogRecord::DropPartition(keyspace(), PARTITION));
                    continue;
                }
            };
            joining.push(Joining { record: at, reply: at, mint });
            let row = Row { keyspace: keyspace(), key: Key::from("k"), record };
            records.push(LogRecord::Row(row));
        }
        let partitions = vec![PARTITION; joining.len()];
        let under = (&self.store, &self.pen);
        let settled = settle(under, (records, partitions), joining);
        assert!(settled.broken.is_none());
        self.commits += 1;
        let written = settled.records.len();
        for record in settled.records {
            match record {
                LogRecord::Row(row) => {
                    let rows = std::iter::once((PARTITION, row));
                    self.store.publish(Lsn(self.commits), rows, Moment(0));
                }
                LogRecord::DropPartition(keyspace, partition) => {
                    self.store.drop_partition((keyspace, partition), Moment(0));
                }
                _ => {}
            }
        }
        (written, settled.outcomes.into_values().collect())
    }

    fn one(&mut self, asked: Asked) -> Joined {
        self.commit(vec![asked]).1.remove(0)
    }

    fn values(&self) -> Vec<Bytes> {
        let held = self.store.read(keyspace(), PARTITION, &Key::from("k")).expect("readable");
        held.map_or(Vec::new(), |record| values(&record))
    }
}

enum Asked {
    Mint(Mint),
    Row(Record),
    Drop,
}

fn put(value: &'static str, context: Option<Context>) -> Asked {
    Asked::Mint(Mint { change: Change::Put(Bytes::from_static(value.as_bytes())), context })
}

fn delete(context: Option<Context>) -> Asked {
    Asked::Mint(Mint { change: Change::Delete, context })
}

fn row(record: &Record) -> Siblings {
    Siblings::of_record(record).expect("siblings")
}

fn values(record: &Record) -> Vec<Bytes> {
    row(record).values().map(|sibling| sibling.value).collect()
}

#[test]
fn writes_become_siblings_until_one_has_seen_them() {
    let mut replica = Replica::new();
    let (written, both) = replica.commit(vec![put("a", None), put("b", None)]);
    assert_eq!(
        (written, values(both[1].as_ref().expect("taken"))),
        (1, vec!["a".into(), "b".into()]),
        "the log gets both at once"
    );
    let seen = row(both[1].as_ref().expect("taken")).context();
    let merged = replica.one(put("ab", Some(seen.clone()))).expect("taken");
    assert_eq!(values(&merged), ["ab"]);
    let late = replica.one(put("c", Some(seen))).expect("taken");
    assert_eq!(values(&late), ["ab", "c"]);
    assert_eq!(replica.values(), ["ab", "c"]);
}

#[test]
fn a_delete_covers_what_was_seen() {
    let mut replica = Replica::new();
    let first = replica.one(put("a", None)).expect("taken");
    replica.one(put("b", None)).expect("taken");
    let half = replica.one(delete(Some(row(&first).context()))).expect("taken");
    assert_eq!(values(&half), ["b"]);
    let gone = replica.one(delete(Some(row(&half).context()))).expect("taken");
    assert!(values(&gone).is_empty() && gone.expires_at.is_some(), "{gone:?}");
}

#[test]
fn additions_count_and_leave_one_tally() {
    let mut replica = Replica::new();
    let add = |by| Asked::Mint(Mint { change: Change::Add(by), context: None });
    let (written, both) = replica.commit(vec![add(5), add(-2)]);
    let total = |record: &Record| (counter::total(&row(record)), row(record).len());
    assert_eq!((written, total(both[1].as_ref().expect("taken"))), (1, (3, 1)));
    replica.one(add(i64::MAX - 3)).expect("taken");
    assert_eq!(replica.one(add(1)), Err(Refusal::OutOfRange));
    assert_eq!(replica.one(add(-1)).map(|record| total(&record).0), Ok(i128::from(i64::MAX - 1)));
}

fn elements(added: &[&'static str], removed: &[&'static str], seen: Option<Context>) -> Asked {
    let set =
        |it: &[&'static str]| -> BTreeSet<Bytes> { it.iter().map(|it| (*it).into()).collect() };
    let change = Change::Elements { added: set(added), removed: set(removed) };
    Asked::Mint(Mint { change, context: seen })
}

#[test]
fn elements_are_taken_out_only_by_who_has_heard_of_them() {
    let (mut here, mut there) = (Replica::new(), Replica::new());
    let first = here.one(elements(&["a", "b"], &[], None)).expect("taken");
    let seen = row(&first).context();
    let asked = || elements(&["c"], &["a"], Some(seen.clone()));
    assert_eq!(there.one(asked()), Err(Refusal::ContextUnheard));
    there.one(Asked::Row(first)).expect("taken");
    let after = there.one(asked()).expect("taken");
    assert_eq!(values(&after), ["b", "c"]);
    let joined = here.one(Asked::Row(after)).expect("taken");
    assert_eq!(values(&joined), ["b", "c"], "it does not come back");
}

#[test]
fn rows_are_joined_and_what_is_no_news_is_not_written() {
    let (mut here, mut there) = (Replica::new(), Replica::new());
    let ours = here.one(put("a", None)).expect("taken");
    let theirs = there.one(put("b", None)).expect("taken");
    let joined = here.one(Asked::Row(theirs.clone())).expect("taken");
    assert_eq!(row(&joined).len(), 2);
    for old in [theirs, ours, joined.clone()] {
        let (written, outcomes) = here.commit(vec![Asked::Row(old)]);
        assert_eq!((written, outcomes), (0, vec![Ok(joined.clone())]));
    }
    let (written, outcomes) = there.commit(vec![Asked::Row(joined.clone()), Asked::Row(joined)]);
    assert_eq!((written, outcomes.len()), (1, 2), "the second adds nothing to the first");
}

#[test]
fn too_many_siblings_are_refused_and_nothing_is_written() {
    let mut replica = Replica::new();
    for _ in 0..crate::protocol::version::dvv::SIBLINGS_MAX {
        replica.one(put("v", None)).expect("taken");
    }
    let (written, outcomes) = replica.commit(vec![put("one too many", None)]);
    assert_eq!((written, outcomes), (0, vec![Err(Refusal::TooManySiblings)]));
}

/// A row that no log segment holds would end the node's promises.
#[test]
fn siblings_that_the_log_cannot_take_are_refused() {
    let large =
        |bytes: usize| Mint { change: Change::Put(Bytes::from(vec![7; bytes])), context: None };
    let mut replica = Replica::new();
    let one = replica.one(Asked::Mint(large(SEGMENT_BYTES / 4))).expect("judged by other limits");
    let refused = replica.commit(vec![Asked::Mint(large(10))]);
    assert_eq!(refused, (0, vec![Err(Refusal::TooManySiblings)]));
    let halved = Mint { context: Some(row(&one).context()), ..large(SEGMENT_BYTES / 5) };
    replica.one(Asked::Mint(halved)).expect("it takes less than before");
    let mut others: Vec<Replica> = (0..5).map(|_| Replica::new()).collect();
    let theirs = others.iter_mut().map(|it| it.one(Asked::Mint(large(SEGMENT_BYTES / 5))));
    let theirs: Vec<Record> = theirs.map(|it| it.expect("taken")).collect();
    let taken = theirs.into_iter().map(|it| replica.one(Asked::Row(it)));
    let taken: Vec<bool> = taken.map(|outcome| outcome.is_ok()).collect();
    assert_eq!(taken, [true, true, true, false, false], "as many as one record can be");
    assert_eq!(replica.values().len(), 4);
}

/// Copies that mend a damaged row lie in memory first, and the damage beneath them.
#[test]
fn copies_that_mend_a_damaged_row_are_joined_with_each_other() {
    let engine = MemoryEngine::open(MemoryDisk::new());
    engine.create_keyspace(keyspace()).expect("a keyspace");
    let (key, value) = (Key::from("k"), Some(Bytes::from_static(b"damage")));
    let damage = engine::Change { keyspace: keyspace(), partition: PARTITION, key, value };
    engine.apply(&[damage], Lsn(1)).expect("applied");
    let (mut one, mut other) = (Replica::new(), Replica::new());
    let first = one.one(put("a", None)).expect("taken");
    let second = other.one(put("b", None)).expect("taken");
    let mut replica = Replica { commits: 1, ..Replica::over(engine) };
    // Behind a newer row of another key, no copy is newer than all that the engine may have.
    let newer = Row { keyspace: keyspace(), key: Key::from("z"), record: second.clone() };
    replica.store.publish(Lsn(1), std::iter::once((PARTITION, newer)), Moment(0));
    assert!(replica.store.freeze());
    for copy in [second, first] {
        replica.one(Asked::Row(copy)).expect("taken");
    }
    assert_eq!(replica.commits, 3);
    let held = replica.store.in_memory((keyspace(), PARTITION), &Key::from("k"));
    assert_eq!(values(&held.expect("mended")).len(), 2);
}

/// Writes of one commit that come before and behind the loss of the partition.
#[test]
fn a_loss_in_the_middle_of_a_commit_divides_two_lives() {
    let mut replica = Replica::new();
    let (_, written) = replica.commit(vec![put("a", None), Asked::Drop, put("b", None)]);
    let [before, after] = [0, 1].map(|at| row(written[at].as_ref().expect("taken")));
    assert_eq!(after.joined(&before).len(), 2);
    assert_eq!(replica.values(), ["b"]);
}

/// A replica that gave its rows up, or lost one, must not write on under the life that wrote them:
/// what it wrote before, and others still have, would count as covered.
#[test]
fn a_replica_that_has_lost_a_row_begins_a_new_life() {
    assert_eq!(siblings_after_a_loss(), 2, "both were written blindly");
    Planted::set(Some(Planted::LifeGoesOn));
    assert_eq!(siblings_after_a_loss(), 1, "the first value is lost");
    Planted::set(None);

    let mut forgetful = Replica::new();
    let first = forgetful.one(put("a", None)).expect("taken");
    let second = forgetful.one(put("b", Some(row(&first).context()))).expect("taken");
    let life = forgetful.pen.life();
    let mut restored = Replica { pen: forgetful.pen, ..Replica::new() };
    restored.one(Asked::Row(first)).expect("taken");
    assert_ne!(restored.pen.life(), life, "others know more of it than is here");
    let third = restored.one(put("c", None)).expect("taken");
    assert_eq!(row(&third).joined(&row(&second)).len(), 2);
}

/// How many values others have of a key that was written to before and after its partition was
/// dropped.
fn siblings_after_a_loss() -> usize {
    let mut replica = Replica::new();
    let before = replica.one(put("a", None)).expect("taken");
    replica.commit(vec![Asked::Drop]);
    assert!(replica.values().is_empty());
    let after = replica.one(put("b", None)).expect("taken");
    row(&after).joined(&row(&before)).len()
}
