//! Long histories are judged at all, and long wrong ones are found wrong.

use bytes::Bytes;

use crate::dice::Dice;
use crate::linearizability::appends::{self, ListCall};
use crate::linearizability::history::{Call, Operation, Value, Verdict};
use crate::linearizability::{search, zones};
use crate::random::{Shape, answered, asked, seed};

/// Operations under way at once.
const CLIENTS: u64 = 8;

/// Operations that one after the other take effect at times 10, 20, 30, and overlap as those of
/// [`CLIENTS`] clients do.
fn overlapping<C>(
    dice: &mut Dice,
    count: u64,
    mut call: impl FnMut(&mut Dice, u64) -> C,
) -> Vec<Operation<C>> {
    let around = |dice: &mut Dice| dice.between(0, 10 * CLIENTS / 2);
    let operation = |number| {
        let moment = 10 * (number + CLIENTS);
        let (invoked, returned) = (moment - around(dice), moment + around(dice));
        let returned = (!dice.chance(5)).then_some(returned);
        let call = call(dice, number);
        Operation { client: number % CLIENTS, key: String::new(), call, invoked, returned }
    };
    (0..count).map(operation).collect()
}

/// Half reads, half writes of values that all differ.
fn register(dice: &mut Dice, count: u64) -> Vec<Operation<Call>> {
    let mut held = None;
    overlapping(dice, count, |dice, number| {
        if dice.chance(500) {
            return Call::Read(held.clone());
        }
        let value = Bytes::from(number.to_string());
        held = Some(value.clone());
        Call::Write(value)
    })
}

/// Moves the read nearest to the end so that it comes long after its value was overwritten.
fn with_a_stale_read(mut history: Vec<Operation<Call>>) -> Vec<Operation<Call>> {
    let reads = |operation: &Operation<Call>| {
        matches!(operation.call, Call::Read(_)) && operation.returned.is_some()
    };
    let at = history.len() * 3 / 4;
    let read = at + history[at..].iter().position(reads).expect("half of them are reads");
    history[read].invoked += 100 * CLIENTS;
    history[read].returned = history[read].returned.map(|returned| returned + 100 * CLIENTS);
    history
}

#[test]
fn the_zones_judge_two_hundred_thousand_operations() {
    let history = register(&mut Dice::new(seed()), 200_000);
    assert_eq!(zones::check(&history), Verdict::Linearizable);
    let verdict = zones::check(&with_a_stale_read(history));
    assert!(matches!(verdict, Verdict::NotLinearizable { .. }), "{verdict:?}");
}

#[test]
fn the_search_judges_four_thousand_operations_of_one_key() {
    let history = register(&mut Dice::new(seed()), 4_000);
    assert_eq!(search::check(&history), Verdict::Linearizable);
    let Verdict::NotLinearizable { witness } = search::check(&with_a_stale_read(history)) else {
        panic!("a stale read passed")
    };
    assert!(witness.lines().count() < 60, "{witness}");
}

#[test]
fn the_search_judges_two_thousand_mixed_operations_of_one_key() {
    let shape = Shape { operations_max: 0, time_max: 0, unknown_per_mille: 0, plain: false };
    let mut held = None;
    let history = overlapping(&mut Dice::new(seed()), 2_000, |dice, number| {
        let call = match asked(dice, number, shape) {
            // Values that grow without end say more and more, and so make it easier.
            Call::Append(_) if held.as_ref().is_some_and(|held: &Value| held.len() > 8) => {
                Call::Delete
            }
            call => call,
        };
        answered(call, &mut held, dice)
    });
    assert_eq!(search::check(&history), Verdict::Linearizable);
}

#[test]
fn the_list_judge_judges_long_lists() {
    let mut list = Vec::new();
    let mut history = overlapping(&mut Dice::new(seed()), 10_000, |dice, number| {
        if dice.chance(100) {
            return ListCall::Read(list.clone());
        }
        list.push(number);
        ListCall::Append(number)
    });
    appends::assert_linearizable(&history);
    let late = Operation { invoked: 1_000_000, returned: Some(1_000_001), ..history[0].clone() };
    let stale: Vec<u64> = list[..list.len() / 2].to_vec();
    history.push(Operation { call: ListCall::Read(stale), ..late });
    assert!(!appends::check(&history).is_empty());
}
