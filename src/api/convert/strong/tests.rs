use super::*;
use crate::types::{Incarnation, Timestamp};

const ID: &str = "0123456789abcdef";

fn message(result: Result<impl std::fmt::Debug, RequestError>) -> String {
    result.expect_err("an error was due").to_string()
}

fn sent(client: &str, sequence: u64, acknowledged: u64) -> v1::Session {
    v1::Session { client: client.to_owned(), sequence, acknowledged }
}

fn condition(expect: Expected) -> v1::Condition {
    v1::Condition { expect: Some(expect) }
}

#[test]
fn an_empty_keyspace_is_the_default_one() {
    assert_eq!(keyspace(String::new()), None);
    assert_eq!(keyspace("lists".to_owned()).as_deref(), Some("lists"));
}

#[test]
fn a_write_takes_keyspace_session_and_condition() {
    let plain = RequestOptions { sloppy: Some(false), ..RequestOptions::default() };
    let asked = write(plain.clone(), String::new(), None, None);
    assert_eq!(asked, Ok(plain.clone()));
    let session = Some(sent(ID, 3, 2));
    let absent = Some(condition(Expected::Absent(true)));
    let asked = write(plain.clone(), "lists".to_owned(), session, absent).expect("valid");
    let client = ClientId(0x0123_4567_89ab_cdef);
    let stamp = SessionStamp { client, sequence: 3, acknowledged: 2 };
    assert_eq!((asked.session, asked.expect), (Some(stamp), Some(Expect::Absent)));
    assert_eq!((asked.keyspace.as_deref(), asked.sloppy), (Some("lists"), Some(false)));
}

#[test]
fn a_session_that_is_none_is_refused() {
    for client in ["", "1", "0123456789abcdeg", "+123456789abcdef", "0123456789abcdef0"] {
        let error = message(stamp(&sent(client, 1, 0)));
        assert!(error.starts_with("session: ") && error.contains("16 hexadecimal"), "{error}");
    }
    assert!(message(stamp(&sent(ID, 0, 0))).contains("the first write of a session has 1"));
}

#[test]
fn conditions_become_expectations() {
    let version = |text: &str| Expected::Version(text.to_owned());
    let cases = [
        (Expected::Absent(true), Expect::Absent),
        (Expected::Present(true), Expect::Present),
        (version("0000000000000007-0000000000000000"), Expect::Revision(Revision(7))),
        (Expected::Value("ö".to_owned()), Expect::Value(Bytes::from("ö"))),
        (Expected::ValueBytes(Bytes::new()), Expect::Value(Bytes::new())),
    ];
    for (sent, expected) in cases {
        assert_eq!(expect(condition(sent)), Ok(expected));
    }
}

#[test]
fn a_version_of_a_leaderless_keyspace_is_held_by_no_key() {
    let foreign = Version { timestamp: Timestamp(7), incarnation: Incarnation(9) };
    assert_eq!(changed_at(foreign), never());
    assert_eq!(expect(condition(Expected::Version(foreign.to_string()))), Ok(never()));
    let first = Revision::default().next(Timestamp(0));
    assert!(Expect::Revision(first) != never(), "the first entry has another revision");
}

#[test]
fn a_condition_that_says_nothing_is_refused() {
    assert!(message(expect(v1::Condition { expect: None })).contains("set absent, present"));
    for sent in [Expected::Absent(false), Expected::Present(false)] {
        assert!(message(expect(condition(sent))).contains("expects nothing"));
    }
    let error = message(expect(condition(Expected::Version("7".to_owned()))));
    assert!(error.starts_with("condition: ") && error.contains("receipt's version"), "{error}");
}

#[test]
fn a_read_says_how_fresh_it_must_be() {
    let asked = |consistency, staleness| {
        let options = read(RequestOptions::default(), String::new(), consistency, staleness);
        options.map(|options| options.consistency)
    };
    let max_staleness = Duration::from_millis(500);
    let cases = [
        (0, 0, None),
        (1, 0, Some(Consistency::Linearizable)),
        (2, 0, Some(Consistency::Lease)),
        (3, 500, Some(Consistency::Stale { max_staleness })),
    ];
    for (number, staleness, expected) in cases {
        assert_eq!(asked(number, staleness), Ok(expected), "{number}");
    }
    let wrong = [
        (9, 0, "consistency: 9 is not a consistency"),
        (3, 0, "max_staleness: is absent"),
        (0, 500, "max_staleness: goes with"),
        (1, 500, "max_staleness: goes with"),
    ];
    for (number, staleness, part) in wrong {
        let error = message(asked(number, staleness));
        assert!(error.starts_with(part), "{number}: {error}");
    }
}

#[test]
fn steps_become_a_transaction() {
    let step = |key: &str, action| v1::Step { key: key.to_owned(), action: Some(action) };
    let one = Bytes::from_static(b"1");
    let check = condition(Expected::Present(true));
    let steps = vec![
        step("a", Sent::Put(one.clone())),
        step("b", Sent::Append(one.clone())),
        step("c", Sent::Delete(true)),
        step("d", Sent::Check(check)),
    ];
    let expected = vec![
        (Key::from("a"), Action::Put(one.clone())),
        (Key::from("b"), Action::Append(one)),
        (Key::from("c"), Action::Delete),
        (Key::from("d"), Action::Check(Expect::Present)),
    ];
    assert_eq!(transaction(steps), Ok(Transaction { steps: expected }));
    let wrong = [
        (vec![], "steps: is empty"),
        (vec![step("", Sent::Delete(true))], "key: is empty"),
        (vec![step("c", Sent::Delete(false))], "steps: delete of c is false"),
        (vec![v1::Step { key: "k".to_owned(), action: None }], "steps: the step of k does"),
        (vec![step("d", Sent::Check(v1::Condition { expect: None }))], "condition: "),
    ];
    for (steps, part) in wrong {
        let error = message(transaction(steps));
        assert!(error.starts_with(part), "{error}");
    }
}

#[test]
fn results_and_refusals_go_back() {
    let done = StepResult { existed: true, created: Some(Revision(3)), value_bytes: 5 };
    assert_eq!(results(&[done]), [v1::StepResult { existed: true, value_bytes: 5 }]);
    assert_eq!(
        condition_failed(2, None),
        v1::ConditionFailed { step: 2, ..v1::ConditionFailed::default() }
    );
    let current = |bytes| Current {
        value: Some(Bytes::from(vec![b'x'; bytes])),
        created: Revision(3),
        modified: Revision(7),
    };
    let told = condition_failed(0, Some(&current(TOLD_VALUE_BYTES_MAX)));
    assert_eq!((told.found, told.value.len()), (true, TOLD_VALUE_BYTES_MAX));
    assert_eq!(told.version, "0000000000000007-0000000000000000");
    let too_long = condition_failed(0, Some(&current(TOLD_VALUE_BYTES_MAX + 1)));
    assert_eq!((too_long.found, too_long.value.len()), (true, 0));
}
