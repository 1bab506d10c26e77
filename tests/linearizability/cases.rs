//! Histories whose verdict is known.

use bytes::Bytes;

use crate::linearizability::history::{Call, Operation, Swap, Value, Verdict};
use crate::linearizability::{search, zones};

/// A name, and operations as `invoked-returned what`; `?` stands for an unknown outcome.
type Case = (&'static str, &'static str);

const WRONG: [Case; 21] = [
    ("stale read", "0-1 write a; 2-3 write b; 4-5 read a"),
    ("read of a deleted value", "0-1 write a; 2-3 delete; 4-5 read a"),
    ("lost write", "0-1 write a; 2-3 read nothing"),
    ("lost append", "0-1 append a; 2-3 append b; 4-5 read b"),
    ("append applied twice", "0-1 append a; 2-3 read aa"),
    ("appends against time", "0-1 append a; 2-3 append b; 4-5 read ba"),
    ("read of a value that was never written", "0-1 write a; 0-1 read b"),
    ("future read", "0-1 read a; 2-3 write a"),
    ("reads that go back", "0-9 write a; 1-2 read a; 3-4 read nothing"),
    (
        "two writes seen in two orders",
        "0-20 write a; 0-20 write b; 1-2 read a; 3-4 read b; 5-6 read a",
    ),
    ("an unknown write that comes and goes", "0-1 write a; 2-? write b; 3-4 read b; 5-6 read a"),
    (
        "an unknown write that takes effect twice",
        "0-? write a; 1-2 read a; 3-4 write b; 5-6 read b; 7-8 read a",
    ),
    ("an unknown write read before it began", "0-1 read a; 2-? write a"),
    (
        "lost update: two succeed from one value",
        "0-1 write a; 2-9 set b if a: succeeded; 2-9 set c if a: succeeded",
    ),
    (
        "write skew: each removes what the other expects",
        "0-1 write a; 2-9 set b if a: succeeded; 2-9 set a if b: succeeded; 10-11 read b",
    ),
    (
        "two create what was absent",
        "0-9 set a if nothing: succeeded; 0-9 set b if nothing: succeeded",
    ),
    ("a refusal without a reason", "0-1 write a; 2-3 set z if a: refused"),
    (
        "a refusal that took effect",
        "0-1 write a; 0-9 write b; 2-3 set z if b: refused; 10-11 read z",
    ),
    ("a refusal at what was expected", "0-1 write a; 2-3 set z if a: refused at a"),
    ("a refusal at an old value", "0-1 write a; 2-3 write b; 4-5 set z if c: refused at a"),
    (
        "a retry that applied twice",
        "0-1 write a; 2-3 set b if a: succeeded; 4-5 write a; 6-7 read b",
    ),
];

const RIGHT: [Case; 16] = [
    ("nothing happened", ""),
    ("absent at first", "0-1 read nothing; 2-3 write a; 4-5 read a"),
    ("overlapping reads may differ", "0-9 write a; 1-5 read a; 2-6 read nothing"),
    ("equal times overlap", "0-5 write a; 5-9 read nothing; 9-10 read a"),
    ("overlapping writes in either order", "0-9 write a; 0-9 write b; 10-11 read a"),
    ("a deleted value is gone", "0-1 write a; 2-3 delete; 4-5 read nothing"),
    ("an unknown write that never was", "0-? write a; 1-2 read nothing"),
    ("an unknown write that comes late", "0-? write a; 1-2 write b; 3-4 read b; 5-6 read a"),
    (
        "two unknown writes of one value, both seen",
        "0-? write a; 1-2 read a; 3-4 write b; 5-? write a; 6-7 read b; 8-9 read a",
    ),
    (
        "an unknown write that explains a refusal",
        "0-1 write a; 2-? write b; 3-4 set z if a: refused",
    ),
    ("an unknown delete under an append", "0-1 write a; 2-? delete; 3-4 append b; 5-6 read b"),
    (
        "a chain of unknown compare-and-sets",
        "0-1 write a; 2-? set c if b: refused; 2-? set b if a: refused; 3-4 read c",
    ),
    ("an unknown read tells nothing", "0-? read x; 1-2 read nothing"),
    (
        "compare-and-sets in a row",
        "0-9 set c if b: succeeded; 0-9 set b if a: succeeded; 0-9 write a; \
         1-9 set z if b: refused at c; 10-11 read c",
    ),
    (
        "a compare-and-set that deletes",
        "0-1 write a; 2-3 set nothing if a: succeeded; 4-5 read nothing; \
         6-7 set b if nothing: succeeded; 8-9 read b",
    ),
    (
        "an append to what is absent, and one of nothing at all",
        "0-1 append a; 2-3 append empty; 4-5 append b; 6-7 read ab",
    ),
];

/// Reads a case's operations; each has a client of its own.
fn history(case: &str) -> Vec<Operation<Call>> {
    let operations = case.split(';').map(str::trim).filter(|operation| !operation.is_empty());
    (0..).zip(operations).map(|(client, text)| operation(client, text)).collect()
}

fn operation(client: u64, text: &str) -> Operation<Call> {
    let (times, what) = text.split_once(' ').expect("times and a call");
    let (invoked, returned) = times.split_once('-').expect("two times");
    Operation {
        client,
        key: "key".to_owned(),
        call: call(what),
        invoked: invoked.parse().expect("a time"),
        returned: (returned != "?").then(|| returned.parse().expect("a time")),
    }
}

fn call(what: &str) -> Call {
    let words: Vec<&str> = what.split([' ', ':']).filter(|word| !word.is_empty()).collect();
    match words[..] {
        ["read", held] => Call::Read(value(held)),
        ["write", new] => Call::Write(value(new).expect("a value")),
        ["append", tail] => Call::Append(value(tail).expect("a value")),
        ["delete"] => Call::Delete,
        ["set", new, "if", expect, ref answer @ ..] => {
            let outcome = match *answer {
                ["succeeded"] => Swap::Succeeded,
                ["refused"] => Swap::Refused,
                ["refused", "at", held] => Swap::RefusedAt(value(held)),
                _ => panic!("no answer: {what}"),
            };
            Call::CompareAndSet { expect: value(expect), new: value(new), outcome }
        }
        _ => panic!("no call: {what}"),
    }
}

fn value(word: &str) -> Option<Value> {
    match word {
        "nothing" => None,
        "empty" => Some(Bytes::new()),
        word => Some(Bytes::copy_from_slice(word.as_bytes())),
    }
}

/// What the judges say; the zones only of reads, and writes that differ.
fn verdicts(history: &[Operation<Call>]) -> Vec<Verdict> {
    let zoned = zones::check(history);
    let suits = !matches!(zoned, Verdict::GaveUp { .. });
    [Some(search::check(history)), suits.then_some(zoned)].into_iter().flatten().collect()
}

#[test]
fn known_wrong_histories_are_rejected_with_a_witness() {
    for (name, case) in WRONG {
        for verdict in verdicts(&history(case)) {
            let Verdict::NotLinearizable { witness } = verdict else {
                panic!("{name}: {verdict:?}")
            };
            assert!(witness.lines().count() > 1, "{name}: {witness}");
        }
    }
}

#[test]
fn known_right_histories_are_accepted() {
    for (name, case) in RIGHT {
        for verdict in verdicts(&history(case)) {
            assert_eq!(verdict, Verdict::Linearizable, "{name}");
        }
    }
}

#[test]
fn a_witness_is_the_shortest_stuck_prefix_and_names_what_could_have_been_there() {
    let history = history(
        "0-1 write a; 2-3 write b; 4-7 read a; 5-? write c; 6-8 read b; 9-10 read b; 11-12 read c",
    );
    let Verdict::NotLinearizable { witness } = search::check(&history) else {
        panic!("a stale read passed")
    };
    let expected = r#"no order explains these operations, of which the last to return is marked:
       0 to      1  client   0, "key": write b"a"
       2 to      3  client   1, "key": write b"b"
>      4 to      7  client   2, "key": read b"a"
  the value before it can only have been: b"b""#;
    assert_eq!(witness, expected);
}

#[test]
fn one_key_does_not_excuse_another() {
    let mut history = history("0-1 write a; 2-3 read a; 4-5 read nothing");
    history[2].key = "other".to_owned();
    search::assert_linearizable(&history);
    history[1].key = "other".to_owned();
    assert!(matches!(search::check(&history), Verdict::NotLinearizable { .. }));
    assert!(matches!(zones::check(&history), Verdict::NotLinearizable { .. }));
}

#[test]
fn giving_up_is_said_and_fails_an_assertion() {
    let history = history(
        "0-9 write a; 0-9 write b; 0-9 write c; 0-9 write d; 0-9 write e; 0-9 write f; \
         10-11 read x",
    );
    let references: Vec<&Operation<Call>> = history.iter().collect();
    assert_eq!(search::decide(&references, 1000), Some(false));
    let verdict = search::check_register(&references, 20);
    assert!(matches!(&verdict, Verdict::GaveUp { reason } if reason.contains("20 states")));
    assert!(std::panic::catch_unwind(|| verdict.expect_linearizable()).is_err());
}

#[test]
fn the_zones_refuse_what_they_can_not_judge() {
    let unsuitable =
        ["0-1 write a; 2-3 write a", "0-1 delete", "0-1 append a", "0-1 set b if a: succeeded"];
    for case in unsuitable {
        let verdict = zones::check(&history(case));
        assert!(matches!(verdict, Verdict::GaveUp { .. }), "{case}: {verdict:?}");
    }
}

#[test]
#[should_panic(expected = "not linearizable")]
fn a_wrong_history_fails_the_assertion() {
    search::assert_linearizable(&history("0-1 write a; 2-3 read nothing"));
}
