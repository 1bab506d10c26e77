//! The machine against the model, and against itself after restarts, repeats and merges.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::model::{Model, Replica, Table, values};
use super::*;
use crate::protocol::group::command::{Action, Expect};
use crate::protocol::raft::membership::Membership;
use crate::types::{ClientId, ReplicaId, Term};

const LIMITS: SessionLimits =
    SessionLimits { sessions_max: 3, replies_bytes_max: 250, reply_bytes_max: 45 };

fn any_value() -> impl Strategy<Value = Bytes> {
    vec(select(&b"xy"[..]), 0..5).prop_map(Bytes::from)
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Present),
        (0..60_u64).prop_map(|revision| Expect::Revision(Revision(revision))),
        any_value().prop_map(Expect::Value),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        3 => any_value().prop_map(Action::Put),
        2 => Just(Action::Delete),
        3 => any_value().prop_map(Action::Append),
        3 => (any_expect(), option::of(any_value()))
            .prop_map(|(expect, then)| Action::CompareAndSet { expect, then }),
        1 => any_expect().prop_map(Action::Check),
    ];
    (1..4_u32, select(&["a", "b", "c"][..]), action).prop_map(|(keyspace, key, action)| Step {
        keyspace: KeyspaceId(keyspace),
        key: Key::from(key),
        action,
    })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let internal = Operation::DropKeyspace { keyspace: KeyspaceId::GROUP };
    prop_oneof![
        30 => vec(any_step(), 0..4).prop_map(Operation::Write),
        2 => (0..70_u64).prop_map(|at| Operation::ExpireSessions { idle_since: Timestamp(at) }),
        1 => (2..4_u32).prop_map(|id| Operation::DropKeyspace { keyspace: KeyspaceId(id) }),
        1 => Just(internal),
    ]
}

fn any_stamp() -> impl Strategy<Value = SessionStamp> {
    let sequence = prop_oneof![20 => 0..7_u64, 1 => 60..80_u64];
    let acknowledged = prop_oneof![5 => Just(0), 2 => 0..5_u64];
    (1..6_u64, sequence, acknowledged).prop_map(|(client, sequence, acknowledged)| SessionStamp {
        client: ClientId(client),
        sequence,
        acknowledged,
    })
}

fn any_command() -> impl Strategy<Value = Command> {
    (0..70_u64, option::weighted(0.7, any_stamp()), any_operation()).prop_map(
        |(stamp, session, operation)| Command {
            stamp: Timestamp(stamp),
            value_bytes_max: 8,
            session,
            operation,
        },
    )
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let membership = (1..9_u64).prop_map(|replica| {
        Payload::Membership(Membership {
            voters: [ReplicaId(replica)].into(),
            ..Membership::default()
        })
    });
    prop_oneof![
        20 => any_command().prop_map(|command| Payload::Command(command.encode())),
        1 => Just(Payload::Empty),
        1 => membership,
        1 => Just(Payload::Command(Bytes::from_static(&[1, 2, 3]))),
    ]
}

/// A log in which some entries repeat earlier ones byte by byte.
fn any_log() -> impl Strategy<Value = Vec<Entry>> {
    let item = (any_payload(), option::weighted(0.3, any::<Index>()));
    vec(item, 1..40).prop_map(|items| {
        let mut payloads: Vec<Payload> = Vec::new();
        for (fresh, repeat) in items {
            let again = repeat.filter(|_| !payloads.is_empty());
            let again = again.map(|index| index.get(&payloads).clone());
            payloads.push(again.unwrap_or(fresh));
        }
        log(payloads)
    })
}

fn log(payloads: Vec<Payload>) -> Vec<Entry> {
    let numbered = (1..).zip(payloads);
    let entries =
        numbered.map(|(index, payload)| Entry { term: Term(1), index: LogIndex(index), payload });
    entries.collect()
}

/// What a well-behaved client sends: numbers in order, and an acknowledgement some way behind.
fn any_client_log() -> impl Strategy<Value = Vec<Command>> {
    let item = (1..4_u64, 0..5_u64, vec(any_step(), 0..3));
    vec(item, 1..25).prop_map(|items| {
        let mut sequences = BTreeMap::new();
        let commands = (1..).zip(items).map(|(number, (client, lag, steps))| {
            let sequence = sequences.entry(client).or_insert(0_u64);
            *sequence += 1;
            let acknowledged = sequence.saturating_sub(1 + lag);
            let session =
                SessionStamp { client: ClientId(client), sequence: *sequence, acknowledged };
            Command {
                stamp: Timestamp(number * 1000),
                value_bytes_max: 8,
                session: Some(session),
                operation: Operation::Write(steps),
            }
        });
        commands.collect()
    })
}

/// The rows of every entry, and the tables before the first and after each.
fn history(entries: &[Entry]) -> (Vec<Vec<Row>>, Vec<Table>) {
    let (mut replica, mut outcomes) = (Replica::new(LIMITS), Vec::new());
    let mut tables = vec![replica.table.clone()];
    for entry in entries {
        let applied = replica.machine.clone().apply(entry, &replica.table).unwrap();
        replica.pass(std::slice::from_ref(entry));
        outcomes.push(applied.rows.into_iter().chain([replica.machine.applied_row()]).collect());
        tables.push(replica.table.clone());
    }
    (outcomes, tables)
}

fn dropped(entries: &[Entry]) -> Vec<KeyspaceId> {
    let mut replica = Replica::new(LIMITS);
    replica.pass(entries);
    replica.machine.applied().dropped.iter().copied().collect()
}

proptest! {
    #[test]
    fn the_machine_does_what_the_model_does(entries in any_log()) {
        let (mut replica, mut model) = (Replica::new(LIMITS), Model::new(LIMITS));
        for entry in entries {
            let expected = model.entry(&entry.payload);
            prop_assert_eq!(replica.one(entry.payload), expected);
            prop_assert_eq!(values(&replica.table), model.values.clone());
            let known = replica.table.rows().filter(|row| row.keyspace == KeyspaceId::SESSIONS);
            let known = known.filter_map(|row| Session::from_row(&row).unwrap());
            let known: Vec<ClientId> = known.map(|session| session.client()).collect();
            prop_assert_eq!(known, model.clients());
        }
    }

    #[test]
    fn repeated_commands_are_executed_once(
        commands in any_client_log(),
        repeats in vec((any::<Index>(), any::<Index>()), 0..30),
    ) {
        let limits = SessionLimits::default();
        let mut once = Replica::new(limits);
        let replies: Vec<Reply> = commands.iter().map(|command| once.command(command)).collect();

        let mut again = Replica::new(limits);
        for (at, command) in commands.iter().enumerate() {
            prop_assert_eq!(&again.command(command), &replies[at]);
            let now = repeats.iter().filter(|(when, _)| when.index(commands.len()) == at);
            for (_, what) in now {
                let which = what.index(at + 1);
                let repeated = Command { stamp: Timestamp(0), ..commands[which].clone() };
                let reply = again.command(&repeated);
                let forgotten = matches!(
                    reply,
                    Reply::Refused(WriteRefusal::Session(SessionError::Acknowledged { .. }))
                );
                prop_assert!(forgotten || reply == replies[which], "{:?}", reply);
            }
        }
        let applied = (KeyspaceId::GROUP, AppliedState::key());
        prop_assert!(once.table.0.remove(&applied).is_some());
        prop_assert!(again.table.0.remove(&applied).is_some());
        prop_assert_eq!(once.table, again.table);
    }

    #[test]
    fn a_restart_anywhere_ends_in_the_same_rows(
        entries in any_log(),
        cut in any::<Index>(),
        lost in any::<Index>(),
    ) {
        let mut straight = Replica::new(LIMITS);
        entries.iter().for_each(|entry| _ = straight.pass(std::slice::from_ref(entry)));

        // The first pass is durable. The second was applied and answered, and is lost in a crash.
        let cut = cut.index(entries.len() + 1);
        let mut replica = Replica::new(LIMITS);
        let mut replies = replica.pass(&entries[..cut]);
        let durable = replica.table.clone();
        let lost = cut + lost.index(entries.len() - cut + 1);
        let answered = replica.pass(&entries[cut..lost]);

        let mut back = Replica { machine: durable.machine(LIMITS), table: durable };
        replies.extend(back.pass(&entries[cut..]));
        prop_assert_eq!(&replies[cut..lost], &answered[..]);
        prop_assert_eq!(&back, &straight);
        prop_assert_eq!(&back.table.machine(LIMITS), &straight.machine);
    }

    #[test]
    fn outcomes_merge_to_the_same_rows_in_any_order_and_number(
        entries in any_log(),
        order in any::<u64>(),
    ) {
        let (outcomes, tables) = history(&entries);
        let mut rows: Vec<Row> = outcomes.concat();
        rows.extend(rows.clone());
        rows.sort_by_cached_key(|row| {
            let id = (row.keyspace, &row.key, row.record.version.timestamp.0.wrapping_mul(order));
            crc32c::crc32c(format!("{id:?}").as_bytes())
        });
        let mut merged = Table::default();
        merged.merge(rows);
        merged.remove(dropped(&entries));
        prop_assert_eq!(Some(&merged), tables.last());
        let machine = merged.machine(LIMITS);
        merged.merge(outcomes.concat());
        merged.remove(dropped(&entries));
        prop_assert_eq!(Some(&merged), tables.last());
        prop_assert_eq!(merged.machine(LIMITS), machine);
    }

    /// Rows read one by one while entries are applied, and then what changed meanwhile.
    #[test]
    fn a_snapshot_gathered_under_writes_is_the_state_at_its_end(
        entries in any_log(),
        bounds in any::<(Index, Index)>(),
        reads in vec(any::<Index>(), 12),
    ) {
        let (outcomes, tables) = history(&entries);
        let (a, b) = (bounds.0.index(tables.len()), bounds.1.index(tables.len()));
        let (from, to) = (a.min(b), a.max(b));
        let mut snapshot = Table::default();
        let places: Vec<_> = tables[to].0.keys().chain(tables[from].0.keys()).cloned().collect();
        for (place, read) in places.into_iter().zip(reads.iter().cycle()) {
            let then = &tables[from + read.index(to - from + 1)];
            let row = then.rows().find(|row| (row.keyspace, &row.key) == (place.0, &place.1));
            snapshot.merge(row);
        }
        snapshot.merge(outcomes[from..to].concat());
        snapshot.remove(dropped(&entries[..to]));
        prop_assert_eq!(&snapshot, &tables[to]);

        let mut restored = Replica { machine: snapshot.machine(LIMITS), table: snapshot };
        restored.pass(&entries[to..]);
        prop_assert_eq!(Some(&restored.table), tables.last());
    }

    #[test]
    fn rows_that_cannot_be_read_leave_the_machine_as_it_was(
        entries in any_log(),
        failures in vec(0..4_usize, 40),
    ) {
        let (mut replica, mut untroubled) = (Replica::new(LIMITS), Replica::new(LIMITS));
        for (entry, reads) in entries.into_iter().zip(failures) {
            let before = replica.machine.clone();
            let failing = Failing { table: &replica.table, reads: Cell::new(reads) };
            match replica.machine.apply(&entry, &failing) {
                Ok(applied) => {
                    let again = before.clone().apply(&entry, &replica.table);
                    prop_assert_eq!(Ok(applied), again);
                    replica.machine = before;
                }
                Err(error) => {
                    let index = entry.index;
                    prop_assert_eq!(error, ApplyError::Rows { index, source: "unreadable" });
                    prop_assert_eq!(&replica.machine, &before);
                }
            }
            let reply = replica.one(entry.payload.clone());
            prop_assert_eq!(reply, untroubled.one(entry.payload));
        }
        prop_assert_eq!(replica, untroubled);
    }
}

/// Fails after some reads.
struct Failing<'a> {
    table: &'a Table,
    reads: Cell<usize>,
}

impl Rows for Failing<'_> {
    type Error = &'static str;

    fn stored(&self, keyspace: KeyspaceId, key: &Key) -> Result<Option<Stored>, &'static str> {
        let left = self.reads.get().checked_sub(1).ok_or("unreadable")?;
        self.reads.set(left);
        let Ok(stored) = self.table.stored(keyspace, key);
        Ok(stored)
    }
}
