//! One replica over an engine whose reader may have to wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::*;
use crate::node::groups::fetching::Fetched;
use crate::node::groups::open::new_group;
use crate::protocol::group::command::{Action, Command, Expect, Operation, Step};
use crate::protocol::message::ListRange;
use crate::protocol::raft::Options;
use crate::protocol::raft::membership::Membership;
use crate::storage::memory::{MemoryDisk, MemoryEngine};
use crate::types::{GroupId, Key, KeyspaceId, Lsn, Moment, NodeId, ReplicaId, Timestamp};

const KEYSPACE: KeyspaceId = KeyspaceId(4);

/// The only voter of its group, with what it wants done and what is on its way to the log.
struct Replica {
    store: Store,
    group: Group,
    errands: Vec<Errand>,
    unpublished: Vec<(Outcome, Vec<Row>)>,
    lsn: u64,
}

impl Replica {
    fn new() -> Replica {
        let engine = MemoryEngine::open(MemoryDisk::new());
        let store = Store::new(Arc::new(engine)).unwrap();
        store.create_keyspace(KEYSPACE).unwrap();
        let (id, own) = (GroupId(3), ReplicaId(1));
        let voters = Membership::founding(BTreeMap::from([(own, NodeId(1))]));
        let beginning = new_group(id, own, voters, &store).unwrap();
        let options = Options {
            election_ticks: 4,
            heartbeat_ticks: 1,
            append_bytes_max: 1 << 20,
            appends_in_flight_max: 4,
            uncommitted_bytes_max: 1 << 20,
            lease_reads: false,
        };
        let group = Group::new(beginning, options, 1, 0);
        let (errands, unpublished) = (Vec::new(), Vec::new());
        let mut replica = Replica { store, group, errands, unpublished, lsn: 0 };
        for tick in 1..20 {
            replica.group.raft.tick(tick);
            replica.settle();
        }
        assert!(replica.group.raft.is_leader());
        replica
    }

    /// Lets the group do what it wants, with a log that is durable at once.
    fn pass(&mut self) {
        loop {
            let mut effects = Effects::new(1 << 20);
            self.group.pass(&self.store, &mut effects).unwrap();
            self.errands.append(&mut effects.errands);
            let rows = |record: LogRecord| match record {
                LogRecord::Rows(rows) => Some(rows.into_iter().map(|(_, row)| row).collect()),
                _ => None,
            };
            let rows = effects.batch.records.into_iter().filter_map(rows);
            self.unpublished.extend(effects.batch.outcomes.into_iter().zip(rows));
            match effects.batch.writers.is_empty() {
                true => return,
                false => self.group.on_written(),
            }
        }
    }

    /// What was applied is in the store.
    fn publish(&mut self) {
        for (outcome, rows) in std::mem::take(&mut self.unpublished) {
            self.lsn += 1;
            let partition = self.group.partition();
            let rows = rows.into_iter().map(|row| (partition, row));
            self.store.publish(Lsn(self.lsn), rows, Moment(self.lsn));
            self.group.on_outcome(&outcome);
        }
    }

    fn settle(&mut self) {
        self.pass();
        self.publish();
    }

    /// What is in the store moves to the engine, whose next readers may have to wait.
    fn feed(&mut self) {
        assert!(self.store.freeze());
        while !self.store.feed(100).unwrap().done {}
        assert!(self.store.is_unsettled());
    }

    fn append(&mut self, key: &str, tail: &'static str) -> oneshot::Receiver<Answer> {
        self.propose(&[(key, append(tail))])
    }

    fn propose(&mut self, steps: &[(&str, Action)]) -> oneshot::Receiver<Answer> {
        let step = |(key, action): &(&str, Action)| Step {
            keyspace: KEYSPACE,
            key: Key::from(*key),
            action: action.clone(),
        };
        let operation = Operation::Write(steps.iter().map(step).collect());
        let (stamp, value_bytes_max) = (Timestamp(self.lsn), 1 << 10);
        let command = Command { stamp, value_bytes_max, session: None, operation };
        let (asker, answer) = oneshot::channel();
        assert!(self.group.propose(command.encode(), Asker::Own(asker)).is_none());
        answer
    }

    fn ask(&mut self, sought: Sought) -> oneshot::Receiver<Answer> {
        let (asker, answer) = oneshot::channel();
        let read = ReadWaiting { keyspace: KEYSPACE, sought, asker: Asker::Own(asker) };
        let applied = self.group.machine.applied().position.index;
        self.group.read_at(applied, read);
        self.pass();
        answer
    }

    /// Fetches what is to be fetched: each from the store as it is now.
    fn fetch(&mut self) -> Vec<Fetched> {
        self.errands.drain(..).map(|errand| errand.run(&self.store)).collect()
    }

    /// Takes it; the answers that come of it at once.
    fn take(&mut self, fetched: Vec<Fetched>) -> Vec<Answer> {
        let answers = fetched.into_iter().filter_map(|it| self.group.on_fetched(it.catch));
        let answers = answers.map(|(_, answer)| answer).collect();
        self.pass();
        answers
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        let record = self.group.rows(&self.store).record(KEYSPACE, &Key::from(key)).unwrap()?;
        record_value(&record)
    }
}

fn append(tail: &'static str) -> Action {
    Action::Append(Bytes::from_static(tail.as_bytes()))
}

fn record_value(record: &crate::types::Record) -> Option<Bytes> {
    crate::protocol::group::stored::Stored::from_record(record).unwrap().value
}

fn text(answer: Answer) -> Vec<(String, Bytes)> {
    match answer.unwrap() {
        Told::Read { record, .. } => {
            let value = record.as_ref().and_then(record_value);
            value.into_iter().map(|value| (String::new(), value)).collect()
        }
        Told::Listed(page) => {
            let rows = page.rows.into_iter();
            rows.map(|(key, record)| (key.to_string(), record.value.unwrap())).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn everything() -> Sought {
    Sought::Range(Box::new(ListRange {
        prefix: Bytes::new(),
        after: None,
        rows_max: 100,
        bytes_max: 1 << 20,
        keys_only: false,
    }))
}

#[test]
fn a_command_waits_for_the_rows_that_it_acts_on_and_those_behind_it_in_their_order() {
    let mut replica = Replica::new();
    for (key, tail) in [("a", "1"), ("b", "1")] {
        replica.append(key, tail);
        replica.settle();
    }
    replica.feed();
    for (key, tail) in [("a", "2"), ("b", "2"), ("a", "3")] {
        replica.append(key, tail);
        replica.pass();
    }
    let [errand] = replica.errands.as_slice() else { panic!("one for all that wait") };
    assert!(matches!(&errand.need, Need::Rows(_, keys) if keys.len() == 1));
    let fetched = replica.fetch();
    replica.take(fetched);
    // The others came behind it and were not asked for: now they are, together.
    let fetched = replica.fetch();
    replica.take(fetched);
    assert!(replica.errands.is_empty());
    replica.publish();
    assert_eq!(replica.value("a"), Some(Bytes::from_static(b"123")));
    assert_eq!(replica.value("b"), Some(Bytes::from_static(b"12")));
}

#[test]
fn what_is_applied_and_published_while_something_is_fetched_is_in_the_answer() {
    for publish in [false, true] {
        let mut replica = Replica::new();
        for key in ["a", "b"] {
            replica.append(key, "1");
            replica.settle();
        }
        replica.feed();
        let row = replica.ask(Sought::Key(Key::from("a")));
        let list = replica.ask(everything());
        // Read before the write, and taken after it.
        let fetched = replica.fetch();
        assert_eq!(fetched.len(), 2);
        replica.append("a", "2");
        replica.pass();
        let rows = replica.fetch();
        replica.take(rows);
        if publish {
            replica.publish();
        }
        let answers: Vec<_> = replica.take(fetched).into_iter().map(text).collect();
        let (a, b) = (Bytes::from_static(b"12"), Bytes::from_static(b"1"));
        let listed = vec![("a".to_owned(), a.clone()), ("b".to_owned(), b)];
        assert_eq!(answers, [vec![(String::new(), a)], listed], "published: {publish}");
        drop((row, list));
        replica.publish();
        assert!(replica.group.overlay_keys().is_empty(), "nobody needs it any more");
    }
}

/// It once acted on the row as it was when it was fetched, and the replicas differed from then on.
#[test]
fn what_was_fetched_does_not_stand_for_what_was_applied_and_published_since() {
    let mut replica = Replica::new();
    replica.append("a", "1");
    replica.settle();
    replica.feed();
    replica.append("a", "2");
    replica.pass();
    let fetched = replica.fetch();
    // The engine is durable before that comes, so the group goes on without it.
    replica.store.checkpoint().unwrap();
    replica.settle();
    assert_eq!(replica.value("a"), Some(Bytes::from_static(b"12")));
    // The next command is committed in the turn in which it comes.
    replica.append("a", "3");
    let mut effects = Effects::new(1 << 20);
    replica.group.pass(&replica.store, &mut effects).unwrap();
    replica.group.on_written();
    replica.take(fetched);
    replica.publish();
    assert_eq!(replica.value("a"), Some(Bytes::from_static(b"123")));
    assert!(replica.group.overlay_keys().is_empty(), "nobody needs it any more");
}

/// It once fetched the one row without the other, by turns.
#[test]
fn a_command_gets_all_its_rows_although_one_was_fetched_for_another() {
    let mut replica = Replica::new();
    for key in ["a", "b"] {
        replica.append(key, "1");
        replica.settle();
    }
    replica.feed();
    let expect = Expect::Value(Bytes::from_static(b"something else"));
    replica.propose(&[("a", Action::CompareAndSet { expect, then: None })]);
    replica.pass();
    let fetched = replica.fetch();
    replica.propose(&[("a", append("2")), ("b", append("2"))]);
    replica.pass();
    replica.take(fetched);
    let [errand] = replica.errands.as_slice() else { panic!("one for the second command") };
    assert!(matches!(&errand.need, Need::Rows(_, keys) if keys.len() == 2));
    let fetched = replica.fetch();
    replica.take(fetched);
    replica.publish();
    assert!(replica.errands.is_empty());
    assert_eq!(replica.value("b"), Some(Bytes::from_static(b"12")));
}

#[test]
fn what_was_fetched_before_a_snapshot_came_is_read_again() {
    for taken_before_its_end in [true, false] {
        let mut replica = Replica::new();
        replica.append("a", "1");
        replica.settle();
        replica.feed();
        let mut answer = replica.ask(Sought::Key(Key::from("a")));
        let fetched = replica.fetch();
        replica.group.set_installing();
        let (before, after) =
            if taken_before_its_end { (fetched, vec![]) } else { (vec![], fetched) };
        assert!(replica.take(before).is_empty());
        let (own, nobody) = (ReplicaId(1), Membership::default());
        let again = new_group(GroupId(3), own, nobody, &replica.store).unwrap();
        replica.group.install(again.machine);
        assert!(replica.take(after).is_empty());
        assert!(answer.try_recv().is_err(), "it waits for what is fetched now");
        let fetched = replica.fetch();
        let answers = replica.take(fetched);
        let values = answers.into_iter().map(text).next().unwrap();
        assert_eq!(values[0].1, Bytes::from_static(b"1"));
        assert_eq!(replica.group.waiting_len(), 0);
    }
}
