use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::protocol::group::reply::tests::any_reply;
use crate::protocol::group::reply::{Current, StepResult, WriteRefusal};
use crate::types::Record;

const CLIENT: ClientId = ClientId(9);

fn stamp(sequence: u64, acknowledged: u64) -> SessionStamp {
    SessionStamp { client: CLIENT, sequence, acknowledged }
}

fn of(client: u64) -> SessionStamp {
    SessionStamp { client: ClientId(client), sequence: 1, acknowledged: 0 }
}

fn reply(revision: u64) -> Reply {
    Reply::Written { revision: Revision(revision), results: Vec::new() }
}

fn table(limits: SessionLimits) -> Sessions {
    Sessions::new(std::iter::empty(), limits)
}

/// A table in which the client has executed these, at the revisions 10, 20 and so on.
fn executed(stamps: &[(u64, u64)]) -> Sessions {
    let mut table = table(SessionLimits::default());
    for (revision, (sequence, acknowledged)) in (10..).step_by(10).zip(stamps) {
        table.remember(stamp(*sequence, *acknowledged), &reply(revision), Revision(revision));
    }
    table
}

fn ended(rows: &[Row]) -> Vec<u64> {
    let tombstones = rows.iter().filter(|row| row.record.value.is_none());
    tombstones.map(|row| client_of(row).unwrap().0).collect()
}

/// Stamps of commands that were executed, the stamp of the next one, and what becomes of it.
type Case = (&'static [(u64, u64)], (u64, u64), Result<Admission, SessionError>);

#[test]
fn a_command_is_executed_repeated_or_refused() {
    use Admission::{Execute, Open, Repeat};
    let acknowledged =
        |sequence, acknowledged| Err(SessionError::Acknowledged { sequence, acknowledged });
    let exceeded =
        |sequence, acknowledged| Err(SessionError::WindowExceeded { sequence, acknowledged });
    let unknown = |sequence| Err(SessionError::Unknown { sequence });
    let cases: [Case; 18] = [
        (&[], (1, 0), Ok(Open)),
        (&[], (2, 0), unknown(2)),
        (&[], (2, 1), unknown(2)),
        (&[], (0, 0), acknowledged(0, 0)),
        (&[], (1, 1), acknowledged(1, 1)),
        (&[(1, 0)], (1, 0), Ok(Repeat(reply(10)))),
        (&[(1, 0)], (2, 0), Ok(Execute)),
        (&[(1, 0)], (0, 0), acknowledged(0, 0)),
        (&[(1, 0)], (64, 0), Ok(Execute)),
        (&[(1, 0)], (65, 0), exceeded(65, 0)),
        (&[(1, 0)], (65, 1), Ok(Execute)),
        (&[(1, 0), (2, 1)], (1, 0), acknowledged(1, 1)),
        (&[(1, 0), (2, 1)], (2, 0), Ok(Repeat(reply(20)))),
        // A reply that is still there is told, whatever the repetition says of it.
        (&[(1, 0), (2, 1)], (2, 2), Ok(Repeat(reply(20)))),
        (&[(1, 0), (3, 0)], (2, 0), Ok(Execute)),
        (&[(1, 0), (3, 0), (2, 0)], (3, 0), Ok(Repeat(reply(20)))),
        // What the client gave up is never executed late.
        (&[(1, 0), (9, 8)], (5, 0), acknowledged(5, 8)),
        (&[(1, 0), (9, 8)], (73, 0), exceeded(73, 8)),
    ];
    for (before, (sequence, up_to), expected) in cases {
        let admitted = executed(before).admit(stamp(sequence, up_to));
        assert_eq!(admitted, expected, "{before:?} then {sequence} acknowledging {up_to}");
    }
}

#[test]
fn the_window_holds_as_many_replies_as_it_is_wide() {
    let mut table = table(SessionLimits::default());
    for sequence in 1..=WINDOW {
        assert!(matches!(
            table.admit(stamp(sequence, 0)),
            Ok(Admission::Execute | Admission::Open)
        ));
        table.remember(stamp(sequence, 0), &reply(sequence), Revision(sequence));
    }
    for sequence in 1..=WINDOW {
        let repeated = table.admit(stamp(sequence, 0));
        assert_eq!(repeated, Ok(Admission::Repeat(reply(sequence))));
    }
    let next = WINDOW + 1;
    let refused = SessionError::WindowExceeded { sequence: next, acknowledged: 0 };
    assert_eq!(table.admit(stamp(next, 0)), Err(refused));
}

#[test]
fn an_old_acknowledgement_takes_nothing_back() {
    let mut table = executed(&[(1, 0), (5, 4)]);
    table.remember(stamp(6, 2), &reply(70), Revision(70));
    let error = SessionError::Acknowledged { sequence: 3, acknowledged: 4 };
    assert_eq!(table.admit(stamp(3, 0)), Err(error));
}

#[test]
fn the_longest_unused_session_ends_when_there_are_too_many() {
    let mut table = table(SessionLimits { sessions_max: 3, ..SessionLimits::default() });
    for client in 1..=3 {
        table.remember(of(client), &reply(client), Revision(client));
    }
    let again = SessionStamp { sequence: 2, ..of(1) };
    assert!(ended(&table.remember(again, &reply(4), Revision(4))).is_empty());
    let rows = table.remember(of(4), &reply(5), Revision(5));
    assert_eq!(ended(&rows), [2], "1 was used since");
    assert!(rows.iter().all(|row| Revision::of(row.record.version) == Some(Revision(5))));
    assert_eq!((table.len(), table.oldest_use()), (3, Some(Revision(3))));
}

#[test]
fn remembered_replies_are_bounded_in_bytes() {
    let bytes = reply(1).encode().len();
    let limits = SessionLimits { replies_bytes_max: 3 * bytes, ..SessionLimits::default() };
    let mut table = table(limits);
    for client in 1..=3 {
        assert!(ended(&table.remember(of(client), &reply(client), Revision(client))).is_empty());
    }
    assert_eq!(ended(&table.remember(of(4), &reply(4), Revision(4))), [1]);
    for sequence in 2..=5 {
        let stamp = SessionStamp { sequence, ..of(4) };
        table.remember(stamp, &reply(sequence), Revision(sequence + 3));
    }
    assert_eq!(table.len(), 1, "the session in use stays, whatever it takes");
    let stamp = SessionStamp { sequence: 6, acknowledged: 5, ..of(4) };
    table.remember(stamp, &reply(9), Revision(9));
    assert_eq!(table.replies_bytes, bytes, "what is acknowledged is let go of");
}

#[test]
fn a_large_reply_is_remembered_without_what_makes_it_large() {
    let limits = SessionLimits { reply_bytes_max: 100, ..SessionLimits::default() };
    let refusal = |value: Option<Vec<u8>>| {
        let (created, modified) = (Revision(1), Revision(2));
        let current = Some(Current { value: value.map(Bytes::from), created, modified });
        Reply::Refused(WriteRefusal::ConditionFailed { step: 0, current })
    };
    let result = StepResult { existed: true, created: None, value_bytes: 0 };
    let many = Reply::Written { revision: Revision(3), results: vec![result; 50] };
    let small = refusal(Some(vec![7; 50]));
    let cases =
        [(refusal(Some(vec![7; 101])), refusal(None)), (small.clone(), small), (many, reply(3))];
    for (told, repeated) in cases {
        let mut table = table(limits);
        table.remember(stamp(1, 0), &told, Revision(5));
        assert_eq!(table.admit(stamp(1, 0)), Ok(Admission::Repeat(repeated)));
    }
}

#[test]
fn idle_sessions_end_oldest_first_and_a_bounded_number_at_a_time() {
    let mut table = table(SessionLimits::default());
    let count = EXPIRED_PER_ENTRY_MAX as u64 + 3;
    for client in 1..=count {
        table.remember(of(client), &reply(client), Revision(client));
    }
    let late = Revision(count + 1);
    let rows = table.expire(Timestamp(count), late);
    assert_eq!(ended(&rows), (1..=EXPIRED_PER_ENTRY_MAX as u64).collect::<Vec<_>>());
    let rows = table.expire(Timestamp(count), late);
    assert_eq!(ended(&rows), [count - 2, count - 1], "the last was used at {count}, not before");
    assert_eq!(table.admit(SessionStamp { sequence: 2, ..of(count) }), Ok(Admission::Execute));
    let gone = SessionStamp { sequence: 2, ..of(1) };
    assert_eq!(table.admit(gone), Err(SessionError::Unknown { sequence: 2 }));
}

fn any_session() -> impl Strategy<Value = Session> {
    let replies = btree_map(1..=WINDOW, any_reply(), 0..5);
    (any::<u64>(), 0..1000_u64, 0..1000_u64, 0..1000_u64, replies).prop_map(
        |(client, opened, open_for, acknowledged, replies)| {
            let replies = replies.into_iter();
            Session {
                client: ClientId(client),
                opened: Revision(opened),
                used: Revision(opened + open_for),
                acknowledged,
                replies: replies.map(|(at, reply)| (acknowledged + at, reply.encode())).collect(),
            }
        },
    )
}

fn with_value(row: &Row, value: Bytes) -> Row {
    let record = Record { value: Some(value), ..row.record.clone() };
    Row { record, ..row.clone() }
}

proptest! {
    #[test]
    fn a_session_survives_its_row(session in any_session()) {
        prop_assert_eq!(Session::from_row(&session.to_row()), Ok(Some(session)));
    }

    #[test]
    fn a_row_cut_short_is_found(session in any_session(), cut in any::<prop::sample::Index>()) {
        let row = session.to_row();
        let value = row.record.value.clone().unwrap();
        // The first eight bytes are those of every stored value.
        let cut = value.slice(..8 + cut.index(value.len() - 8));
        let error = RowError::Value { what: WHAT, source: DecodeError::EndsEarly };
        prop_assert_eq!(Session::from_row(&with_value(&row, cut)), Err(error));
    }

    #[test]
    fn no_value_panics(
        session in any_session(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let row = session.to_row();
        let mut value = row.record.value.clone().unwrap().to_vec();
        let at = at.index(value.len());
        value[at] = byte;
        let read = Session::from_row(&with_value(&row, value.into()));
        // Whatever was read can be repeated.
        if let Ok(Some(session)) = read {
            for sequence in session.replies.keys() {
                let _ = session.admit(SessionStamp {
                    client: session.client,
                    sequence: *sequence,
                    acknowledged: 0,
                });
            }
        }
    }

    #[test]
    fn a_table_read_from_its_rows_is_the_same(
        clients in proptest::collection::vec((1..6_u64, any_reply()), 1..30),
    ) {
        let limits = SessionLimits { sessions_max: 4, ..SessionLimits::default() };
        let mut table = table(limits);
        let mut rows = BTreeMap::new();
        for (revision, (client, reply)) in (1..).zip(clients) {
            let stamp = SessionStamp { sequence: revision, ..of(client) };
            let changed = table.remember(stamp, &reply, Revision(revision));
            rows.extend(changed.into_iter().map(|row| (row.key.clone(), row)));
        }
        let sessions = rows.values().filter_map(|row| Session::from_row(row).unwrap());
        prop_assert_eq!(Sessions::new(sessions, limits), table);
    }
}

#[test]
fn rows_that_are_no_sessions_are_refused_with_their_reason() {
    let session = executed(&[(1, 0), (2, 0)]).sessions.remove(&CLIENT).unwrap();
    let row = session.to_row();
    let misplaced = [
        Row { keyspace: KeyspaceId::DEFAULT, ..row.clone() },
        Row { key: Key::from("short"), ..row.clone() },
    ];
    for row in misplaced {
        assert!(matches!(Session::from_row(&row), Err(RowError::Misplaced { .. })));
    }
    let record = Record { value: Some(Bytes::from_static(b"1234")), ..row.record.clone() };
    let error = Session::from_row(&Row { record, ..row.clone() }).unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("4 bytes"), "{error}");
    let outside = Session { acknowledged: 1, ..session };
    let source = DecodeError::Malformed { reason: "a reply lies outside of the session's window" };
    let error = RowError::Value { what: WHAT, source };
    assert_eq!(Session::from_row(&outside.to_row()), Err(error));
    let tombstone = Row { record: Record { value: None, ..row.record.clone() }, ..row };
    assert_eq!(Session::from_row(&tombstone), Ok(None), "the session ended");
}
