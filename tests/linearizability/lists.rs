//! The judge of append lists: known cases, and agreement with trying every order.

use crate::dice::Dice;
use crate::exhaustive::{Object, any_order_fits};
use crate::linearizability::appends::{
    Anomaly, ListCall, assert_linearizable, check, check_list, decoded, encoded,
};
use crate::linearizability::history::Operation;
use crate::random::{seed, shown};

const HISTORIES: u64 = 30_000;

#[derive(Clone, Default)]
struct List(Vec<u64>);

impl Object for List {
    type Call = ListCall;

    fn perform(&self, operation: &Operation<ListCall>) -> Option<Self> {
        match &operation.call {
            ListCall::Append(element) => Some(List([&self.0[..], &[*element]].concat())),
            ListCall::Read(list) => {
                let fits = operation.returned.is_none() || *list == self.0;
                fits.then(|| self.clone())
            }
        }
    }
}

fn append(element: u64, invoked: u64, returned: impl Into<Option<u64>>) -> Operation<ListCall> {
    operation(ListCall::Append(element), invoked, returned.into())
}

fn read(list: &[u64], invoked: u64, returned: impl Into<Option<u64>>) -> Operation<ListCall> {
    operation(ListCall::Read(list.to_vec()), invoked, returned.into())
}

fn operation(call: ListCall, invoked: u64, returned: Option<u64>) -> Operation<ListCall> {
    Operation { client: 0, key: "list".to_owned(), call, invoked, returned }
}

/// The kinds of what was found, in the words of the tables.
fn kinds(history: &[Operation<ListCall>]) -> Vec<&'static str> {
    let kind = |anomaly: &Anomaly| match anomaly {
        Anomaly::Duplicate { .. } => "duplicate",
        Anomaly::Phantom { .. } => "phantom",
        Anomaly::Fork { .. } => "fork",
        Anomaly::Lost { .. } => "lost",
        Anomaly::Back { .. } => "back",
        Anomaly::Reordered { .. } => "reordered",
        Anomaly::Future { .. } => "future",
        Anomaly::NotUnique { .. } => "not unique",
    };
    check(history).iter().map(kind).collect()
}

#[test]
fn every_anomaly_is_found_and_named() {
    let cases: Vec<(&[&str], Vec<Operation<ListCall>>)> = vec![
        (&["duplicate"], vec![append(1, 0, 1), read(&[1, 1], 2, 3)]),
        (&["phantom"], vec![append(1, 0, 1), read(&[1, 9], 2, 3)]),
        (&["fork"], vec![append(1, 0, 9), append(2, 0, 9), read(&[1, 2], 0, 9), read(&[2], 0, 9)]),
        (&["lost"], vec![append(1, 0, 1), read(&[], 2, 3)]),
        (&["lost"], vec![append(1, 0, 1), append(2, 2, 3), read(&[2], 4, 5)]),
        (&["lost", "lost"], vec![append(1, 0, 1), append(2, 0, 1), read(&[], 2, 3)]),
        (&["back"], vec![append(1, 0, 20), read(&[1], 2, 3), read(&[], 4, 5)]),
        (&["back"], vec![append(1, 0, None), read(&[1], 2, 3), read(&[], 4, 5)]),
        (&["reordered"], vec![append(1, 0, 1), append(2, 2, 3), read(&[2, 1], 3, 5)]),
        (&["future"], vec![read(&[1], 0, 1), append(1, 2, 3)]),
        (&["future"], vec![read(&[1, 2], 0, 1), append(1, 2, 3), append(2, 0, 3)]),
        (&["not unique"], vec![append(1, 0, 1), append(1, 2, 3)]),
    ];
    for (expected, history) in cases {
        assert_eq!(kinds(&history), expected, "on{}", shown(&history));
    }
}

#[test]
fn right_lists_are_accepted() {
    let cases = vec![
        vec![],
        vec![read(&[], 0, 1)],
        vec![append(1, 0, 1), append(2, 2, 3), read(&[1, 2], 4, 5)],
        // Overlapping appends may come in any order, and reads may see either state.
        vec![append(1, 0, 9), append(2, 0, 9), read(&[2, 1], 5, 9), read(&[], 5, 9)],
        // An unknown outcome: never seen, or seen late.
        vec![append(1, 0, None), append(2, 3, 4), read(&[2], 5, 6)],
        vec![append(1, 0, None), append(2, 3, 4), read(&[2], 5, 6), read(&[2, 1], 7, 8)],
        // A read without an answer tells nothing.
        vec![append(1, 0, 1), read(&[7, 7], 2, None)],
    ];
    for history in cases {
        assert_linearizable(&history);
    }
}

#[test]
#[should_panic(expected = "1 was acknowledged and is missing later")]
fn an_anomaly_fails_the_assertion() {
    assert_linearizable(&[append(1, 0, 1), read(&[], 2, 3)]);
}

#[test]
fn the_judge_agrees_with_trying_every_order() {
    let seed = seed();
    let mut dice = Dice::new(seed).fork("lists");
    let mut linearizable = 0;
    for _ in 0..HISTORIES {
        let history = history(&mut dice);
        let references: Vec<&Operation<ListCall>> = history.iter().collect();
        let expected = any_order_fits(&List::default(), &references);
        let judged = check_list(&references).is_empty();
        assert_eq!(judged, expected, "judge and every order on{}", shown(&history));
        linearizable += u64::from(expected);
    }
    println!("seed {seed}: {linearizable} of {HISTORIES} histories are linearizable");
    assert!((HISTORIES / 5..HISTORIES * 4 / 5).contains(&linearizable), "both must be common");
}

/// A list seen through random intervals, of which one may be shifted or one answer changed.
fn history(dice: &mut Dice) -> Vec<Operation<ListCall>> {
    let mut moments: Vec<u64> = (0..dice.between(3, 6)).map(|_| dice.between(0, 16)).collect();
    moments.sort_unstable();
    let mut list = Vec::new();
    let mut operations: Vec<_> =
        (1..).zip(moments).map(|(element, moment)| one(dice, element, moment, &mut list)).collect();
    for _ in 0..dice.between(0, 4) {
        mutate(dice, &mut operations);
    }
    operations
}

fn mutate(dice: &mut Dice, operations: &mut [Operation<ListCall>]) {
    let at = dice.index(operations.len());
    match dice.between(0, 5) {
        0 => operations[at].invoked = operations[at].invoked.saturating_sub(5),
        1 => {
            operations[at].invoked += 8;
            operations[at].returned = operations[at].returned.map(|returned| returned + 8);
        }
        2 | 4 => operations.iter_mut().for_each(|operation| change_answer(dice, operation)),
        3 => operations[at].returned = Some(operations[at].invoked),
        _ => {}
    }
}

fn one(dice: &mut Dice, element: u64, moment: u64, list: &mut Vec<u64>) -> Operation<ListCall> {
    let unknown = dice.chance(150);
    let call = match dice.chance(500) {
        true => ListCall::Append(element),
        false => ListCall::Read(list.clone()),
    };
    if matches!(call, ListCall::Append(_)) && !(unknown && dice.chance(500)) {
        list.push(element);
    }
    let invoked = moment.saturating_sub(dice.between(0, 2));
    operation(call, invoked, (!unknown).then(|| moment + dice.between(0, 2)))
}

fn change_answer(dice: &mut Dice, operation: &mut Operation<ListCall>) {
    let ListCall::Read(list) = &mut operation.call else { return };
    match dice.between(0, 3) {
        0 => drop(list.pop()),
        1 => list.reverse(),
        2 => list.push(dice.between(1, 6)),
        _ => {}
    }
}

#[test]
fn elements_are_read_as_they_were_written() {
    let value: String = [1, 20, u64::MAX].map(encoded).concat();
    assert_eq!(decoded(value.as_bytes()), Ok(vec![1, 20, u64::MAX]));
    assert_eq!(decoded(b""), Ok(vec![]));
    for torn in [&b"1,2"[..], b"1,,2,", b"1,x,", b"\xff,"] {
        assert!(decoded(torn).is_err(), "{torn:?}");
    }
}
