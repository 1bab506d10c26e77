use bytes::Bytes;

use super::model::{Replica, Table, values};
use super::*;
use crate::protocol::group::command::{Action, Expect};
use crate::protocol::group::reply::{Current, StepResult};
use crate::protocol::raft::membership::Membership;
use crate::types::{ClientId, ReplicaId, Term};

const KEYSPACE: KeyspaceId = KeyspaceId(1);
const BYTES_MAX: u32 = 10;

fn replica() -> Replica {
    Replica::new(SessionLimits::default())
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn step(key: &str, action: Action) -> Step {
    Step { keyspace: KEYSPACE, key: Key::from(key), action }
}

fn command(stamp: u64, operation: Operation) -> Command {
    let stamp = Timestamp(stamp);
    Command { stamp, value_bytes_max: BYTES_MAX, session: None, operation }
}

fn write(stamp: u64, steps: Vec<Step>) -> Command {
    command(stamp, Operation::Write(steps))
}

fn put(key: &str, value: &str) -> Step {
    step(key, Action::Put(bytes(value)))
}

fn check(key: &str, expect: Expect) -> Step {
    step(key, Action::Check(expect))
}

fn compare_and_set(expect: Expect, then: Option<&str>) -> Action {
    Action::CompareAndSet { expect, then: then.map(bytes) }
}

fn result(existed: bool, created: Option<u64>, value_bytes: u64) -> StepResult {
    StepResult { existed, created: created.map(Revision), value_bytes }
}

fn written(revision: u64, results: Vec<StepResult>) -> Reply {
    Reply::Written { revision: Revision(revision), results }
}

fn failed(step: usize, current: Option<(&str, u64, u64)>) -> Reply {
    let current = current.map(|(value, created, modified)| Current {
        value: Some(bytes(value)),
        created: Revision(created),
        modified: Revision(modified),
    });
    Reply::Refused(WriteRefusal::ConditionFailed { step, current })
}

fn stored(replica: &Replica, key: &str) -> Option<Stored> {
    replica.table.stored(KEYSPACE, &Key::from(key)).unwrap()
}

fn value(created: u64, modified: u64, text: &str) -> Option<Stored> {
    let (created, modified) = (Revision(created), Revision(modified));
    Some(Stored { created, modified, value: Some(bytes(text)) })
}

fn tombstone(at: u64) -> Option<Stored> {
    Some(Stored { created: Revision(at), modified: Revision(at), value: None })
}

/// What a key may hold before an action: nothing ever, a tombstone of 10, or "old" of 10, put
/// there again at 20. The action's revision is 30.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    Tombstone,
    Value,
}

fn prepared(before: Before) -> Replica {
    let mut replica = replica();
    match before {
        Before::Nothing => {}
        Before::Tombstone => {
            replica.command(&write(9, vec![put("k", "gone")]));
            replica.command(&write(10, vec![step("k", Action::Delete)]));
        }
        Before::Value => {
            replica.command(&write(10, vec![put("k", "older")]));
            replica.command(&write(20, vec![put("k", "old")]));
        }
    }
    replica
}

#[test]
fn every_action_does_what_it_says() {
    let append = |text| Action::Append(bytes(text));
    let set = compare_and_set;
    let here = |text: &str| Expect::Value(bytes(text));
    let at = |revision| Expect::Revision(Revision(revision));
    let old = value(10, 20, "old");
    use Before::{Nothing, Tombstone, Value};
    let cases = [
        (Nothing, Action::Put(bytes("new")), result(false, Some(30), 3), value(30, 30, "new")),
        (Tombstone, Action::Put(bytes("new")), result(false, Some(30), 3), value(30, 30, "new")),
        (Value, Action::Put(bytes("new!")), result(true, Some(10), 4), value(10, 30, "new!")),
        (Value, Action::Put(bytes("")), result(true, Some(10), 0), value(10, 30, "")),
        (Nothing, Action::Delete, result(false, None, 0), None),
        (Tombstone, Action::Delete, result(false, None, 0), tombstone(10)),
        (Value, Action::Delete, result(true, None, 0), tombstone(30)),
        (Nothing, append("+"), result(false, Some(30), 1), value(30, 30, "+")),
        (Tombstone, append(""), result(false, Some(30), 0), value(30, 30, "")),
        (Value, append("+new"), result(true, Some(10), 7), value(10, 30, "old+new")),
        (Nothing, set(Expect::Absent, Some("a")), result(false, Some(30), 1), value(30, 30, "a")),
        (Nothing, set(Expect::Absent, None), result(false, None, 0), None),
        (Value, set(Expect::Present, Some("a")), result(true, Some(10), 1), value(10, 30, "a")),
        (Value, set(at(20), Some("a")), result(true, Some(10), 1), value(10, 30, "a")),
        (Value, set(here("old"), None), result(true, None, 0), tombstone(30)),
        (Nothing, Action::Check(Expect::Absent), result(false, None, 0), None),
        (Tombstone, Action::Check(Expect::Absent), result(false, None, 0), tombstone(10)),
        (Value, Action::Check(Expect::Present), result(true, Some(10), 3), old.clone()),
        (Value, Action::Check(at(20)), result(true, Some(10), 3), old.clone()),
        (Value, Action::Check(here("old")), result(true, Some(10), 3), old),
    ];
    for (before, action, result, after) in cases {
        let mut replica = prepared(before);
        let reply = replica.command(&write(30, vec![step("k", action.clone())]));
        assert_eq!(reply, written(30, vec![result]), "{before:?} {action:?}");
        assert_eq!(stored(&replica, "k"), after, "{before:?} {action:?}");
    }
}

#[test]
fn a_condition_that_does_not_hold_is_refused_with_what_is_there() {
    let old = Some(("old", 10, 20));
    let cases = [
        (Before::Nothing, Expect::Present, None),
        (Before::Nothing, Expect::Revision(Revision(10)), None),
        (Before::Nothing, Expect::Value(bytes("")), None),
        (Before::Tombstone, Expect::Present, None),
        (Before::Tombstone, Expect::Revision(Revision(10)), None),
        (Before::Value, Expect::Absent, old),
        (Before::Value, Expect::Revision(Revision(10)), old),
        (Before::Value, Expect::Value(bytes("older")), old),
    ];
    for (before, expect, current) in cases {
        let actions = [Action::Check(expect.clone()), compare_and_set(expect.clone(), Some("new"))];
        for action in actions {
            let mut replica = prepared(before);
            let held = values(&replica.table);
            let reply = replica.command(&write(30, vec![step("k", action)]));
            assert_eq!(reply, failed(0, current), "{before:?} {expect:?}");
            assert_eq!(values(&replica.table), held);
        }
    }
}

#[test]
fn no_action_makes_a_value_above_the_limit_of_the_command() {
    let cases = [
        (Action::Put(bytes("0123456789a")), 11),
        (Action::Append(bytes("3456789ab")), 12),
        (compare_and_set(Expect::Present, Some("0123456789abc")), 13),
    ];
    for (action, bytes) in cases {
        let mut replica = prepared(Before::Value);
        let reply = replica.command(&write(30, vec![put("other", "x"), step("k", action)]));
        let bytes_max = u64::from(BYTES_MAX);
        let refusal = WriteRefusal::ValueTooLarge { step: 1, bytes, bytes_max };
        assert_eq!(reply, Reply::Refused(refusal));
        assert_eq!(stored(&replica, "k"), value(10, 20, "old"));
        assert_eq!(stored(&replica, "other"), None);
    }
    let mut replica = prepared(Before::Value);
    let fits = write(30, vec![step("k", Action::Append(bytes("3456789")))]);
    assert_eq!(replica.command(&fits), written(30, vec![result(true, Some(10), 10)]));
}

#[test]
fn later_steps_of_a_batch_see_earlier_ones() {
    let mut replica = prepared(Before::Value);
    let batch = vec![
        step("k", Action::Append(bytes("+"))),
        check("k", Expect::Value(bytes("old+"))),
        check("k", Expect::Revision(Revision(30))),
        step("k", Action::Delete),
        check("k", Expect::Absent),
        put("k", "again"),
        put("l", "side"),
    ];
    let results = vec![
        result(true, Some(10), 4),
        result(true, Some(10), 4),
        result(true, Some(10), 4),
        result(true, None, 0),
        result(false, None, 0),
        result(false, Some(30), 5),
        result(false, Some(30), 4),
    ];
    assert_eq!(replica.command(&write(30, batch)), written(30, results));
    assert_eq!(stored(&replica, "k"), value(30, 30, "again"));
    assert_eq!(stored(&replica, "l"), value(30, 30, "side"));
}

#[test]
fn a_batch_changes_everything_or_nothing() {
    let mut replica = prepared(Before::Value);
    let held = values(&replica.table);
    let batch = vec![put("a", "1"), put("k", "2"), check("k", Expect::Value(bytes("old")))];
    let reply = replica.command(&write(30, batch));
    assert_eq!(reply, failed(2, Some(("2", 10, 30))), "the step saw what the step before it did");
    assert_eq!(values(&replica.table), held);
}

#[test]
fn keyspaces_do_not_see_each_other() {
    let mut replica = prepared(Before::Value);
    let elsewhere = Step { keyspace: KeyspaceId(2), ..check("k", Expect::Absent) };
    let reply = replica.command(&write(30, vec![elsewhere]));
    assert_eq!(reply, written(30, vec![result(false, None, 0)]));
}

#[test]
fn revisions_grow_with_every_entry_and_follow_the_stamps() {
    let mut replica = replica();
    let revision = |replica: &Replica| replica.machine.applied().revision.0;
    replica.command(&write(100, vec![put("k", "1")]));
    assert_eq!(revision(&replica), 100);
    replica.command(&write(50, vec![put("k", "2")]));
    assert_eq!(revision(&replica), 101, "a leader's slow clock does not turn it back");
    assert_eq!(stored(&replica, "k"), value(100, 101, "2"));
    replica.one(Payload::Empty);
    replica.one(Payload::Command(bytes("\u{1}")));
    assert_eq!(revision(&replica), 103);
    replica.command(&write(500, vec![]));
    assert_eq!(revision(&replica), 500);
}

#[test]
fn a_membership_is_kept_with_the_index_of_its_entry() {
    let mut replica = replica();
    replica.one(Payload::Empty);
    let voters = [ReplicaId(4), ReplicaId(5)].into();
    let membership = Membership { voters, ..Membership::default() };
    assert_eq!(replica.one(Payload::Membership(membership.clone())), None);
    replica.one(Payload::Empty);
    let applied = replica.machine.applied();
    assert_eq!((&applied.membership, applied.membership_index), (&membership, LogIndex(2)));
    assert_eq!(applied.position.index, LogIndex(3));
    assert_eq!(replica.table.machine(SessionLimits::default()), replica.machine);
}

#[test]
fn only_the_next_entry_is_applied() {
    let mut replica = replica();
    replica.one(Payload::Empty);
    let machine = replica.machine.clone();
    for index in [0, 1, 3] {
        let index = LogIndex(index);
        let entry = Entry { term: Term(1), index, payload: Payload::Empty };
        let error = replica.machine.apply(&entry, &replica.table);
        assert_eq!(error, Err(ApplyError::NotNext { index, expected: LogIndex(2) }));
        assert_eq!(replica.machine, machine);
    }
}

#[test]
fn an_entry_that_is_no_command_is_refused_by_name() {
    let mut replica = replica();
    let mut too_long = write(1, vec![put("k", "v")]).encode().to_vec();
    too_long.push(0);
    let cases = [(vec![], "it ends early"), (vec![1, 2], "it ends early")];
    for (bytes, detail) in cases.into_iter().chain([(too_long, "1 bytes follow its end")]) {
        let reply = replica.one(Payload::Command(bytes.into()));
        let refusal = WriteRefusal::Malformed { detail: detail.to_owned() };
        assert_eq!(reply, Some(Reply::Refused(refusal)));
    }
    assert!(values(&replica.table).is_empty());
    assert_eq!(replica.machine.applied().position.index, LogIndex(3));
}

/// Other replicas may know what it says: to pass it over would part this one from them.
#[test]
fn an_entry_of_a_newer_program_is_not_applied() {
    let mut replica = replica();
    let machine = replica.machine.clone();
    let payload = Payload::Command(Bytes::from_static(&[2, 0, 0]));
    let entry = Entry { term: Term(1), index: LogIndex(1), payload };
    let error = replica.machine.apply(&entry, &Table::default()).unwrap_err();
    let expected = "entry 1 is newer than this program: \
                    a command has version 2, which this program does not know";
    assert_eq!(error.to_string(), expected);
    assert_eq!(replica.machine, machine);
}

#[test]
fn the_machines_own_keyspaces_are_out_of_reach() {
    let mut replica = replica();
    for keyspace in [KeyspaceId::SESSIONS, KeyspaceId::GROUP, KeyspaceId(u32::MAX)] {
        let steps = vec![put("k", "v"), Step { keyspace, ..put("applied", "v") }];
        for operation in [Operation::Write(steps), Operation::DropKeyspace { keyspace }] {
            let reply = replica.command(&command(1, operation));
            let detail = format!("keyspace {} is not one of a user", keyspace.0);
            assert_eq!(reply, Reply::Refused(WriteRefusal::Malformed { detail }));
        }
    }
    assert_eq!(replica.table.0.len(), 1, "the applied row alone");
    assert!(replica.machine.applied().dropped.is_empty());
}

#[test]
fn a_dropped_keyspace_takes_nothing_more() {
    let mut replica = prepared(Before::Value);
    let reply = replica.command(&command(30, Operation::DropKeyspace { keyspace: KEYSPACE }));
    assert_eq!(reply, written(30, vec![]));
    assert_eq!(values(&replica.table).len(), 0);
    let other = Step { keyspace: KeyspaceId(2), ..put("k", "v") };
    let late = write(40, vec![other.clone(), put("k", "late")]);
    let refusal = WriteRefusal::KeyspaceDropped { step: 1, keyspace: KEYSPACE };
    assert_eq!(replica.command(&late), Reply::Refused(refusal));
    let reply = replica.command(&write(50, vec![other]));
    assert_eq!(reply, written(50, vec![result(false, Some(50), 1)]));
}

#[test]
fn a_session_repeats_replies_without_executing() {
    let mut replica = replica();
    let session = |sequence| Some(SessionStamp { client: ClientId(7), sequence, acknowledged: 0 });
    let append = |sequence| Command {
        session: session(sequence),
        ..write(10, vec![step("k", Action::Append(bytes("x")))])
    };
    let first = replica.command(&append(1));
    let second = replica.command(&append(2));
    assert_eq!((replica.command(&append(1)), replica.command(&append(2))), (first, second));
    assert_eq!(stored(&replica, "k"), value(10, 11, "xx"));
    let refused = Command { session: session(3), ..write(20, vec![check("k", Expect::Absent)]) };
    let refusal = replica.command(&refused);
    replica.command(&write(30, vec![step("k", Action::Delete)]));
    assert_eq!(replica.command(&refused), refusal, "a refusal is an outcome as well");
}

#[test]
fn the_first_command_of_a_session_that_ended_is_not_executed_again() {
    let limits = SessionLimits { sessions_max: 1, ..SessionLimits::default() };
    let mut replica = Replica::new(limits);
    let of = |client, sequence| Command {
        session: Some(SessionStamp { client: ClientId(client), sequence, acknowledged: 0 }),
        ..write(1, vec![step("k", Action::Append(bytes("x")))])
    };
    replica.command(&of(1, 1));
    replica.command(&of(2, 1));
    assert_eq!(replica.machine.sessions_len(), 1);
    for sequence in [1, 2] {
        let refusal = SessionError::Unknown { sequence }.into();
        assert_eq!(replica.command(&of(1, sequence)), Reply::Refused(refusal));
    }
    assert_eq!(stored(&replica, "k"), value(1, 2, "xx"));
}

#[test]
fn an_entry_that_expires_sessions_ends_all_but_its_own() {
    let mut replica = replica();
    let of = |client, stamp, operation| Command {
        session: Some(SessionStamp { client: ClientId(client), sequence: 1, acknowledged: 0 }),
        ..command(stamp, operation)
    };
    replica.command(&of(1, 10, Operation::Write(vec![])));
    replica.command(&of(2, 20, Operation::Write(vec![])));
    assert_eq!(replica.machine.oldest_session_use(), Some(Revision(10)));
    replica.command(&command(30, Operation::ExpireSessions { idle_since: Timestamp(20) }));
    assert_eq!(replica.machine.oldest_session_use(), Some(Revision(20)));
    let far = Operation::ExpireSessions { idle_since: Timestamp(1000) };
    replica.command(&of(3, 40, far));
    assert_eq!(replica.machine.oldest_session_use(), Some(Revision(40)));
    assert_eq!(replica.machine.sessions_len(), 1);
}
