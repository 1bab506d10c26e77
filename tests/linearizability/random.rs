//! Random histories: those of an atomic register seen through random intervals, such ones with
//! something changed, and arbitrary ones.

use std::env;

use bytes::Bytes;

use crate::dice::Dice;
use crate::linearizability::history::{Call, Operation, Swap, Value};

/// Names the seed of a run.
const SEED_VARIABLE: &str = "COTERIE_LINEARIZABILITY_SEED";

/// The seed of a run that is given none.
const SEED: u64 = 20_240_607;

/// The seed of this run; it is printed, and a failure shows what was printed.
pub(crate) fn seed() -> u64 {
    let given = env::var(SEED_VARIABLE).ok();
    let seed = given.map_or(SEED, |seed| seed.parse().expect("the seed is a number"));
    println!("replay: {SEED_VARIABLE}={seed} cargo test --test linearizability -- --nocapture");
    seed
}

/// What a history is made of.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) operations_max: u64,
    /// Times go up to this: small ones give many ties and overlaps.
    pub(crate) time_max: u64,
    pub(crate) unknown_per_mille: u64,
    /// Whether every write has a value of its own, and only reads and writes occur.
    pub(crate) plain: bool,
}

/// A history of one key.
pub(crate) fn history(dice: &mut Dice, shape: Shape) -> Vec<Operation<Call>> {
    match dice.between(0, 3) {
        0 => simulated(dice, shape),
        1 | 2 => mutated(dice, shape),
        _ => arbitrary(dice, shape),
    }
}

/// Linearizable, by an atomic register to which each operation goes at a moment of its interval.
pub(crate) fn simulated(dice: &mut Dice, shape: Shape) -> Vec<Operation<Call>> {
    let count = dice.between(2, shape.operations_max);
    let mut moments: Vec<u64> = (0..count).map(|_| dice.between(0, shape.time_max)).collect();
    moments.sort_unstable();
    let mut register = None;
    let mut operations = Vec::new();
    for (client, moment) in (0..).zip(moments) {
        let call = asked(dice, client, shape);
        let unknown = dice.chance(shape.unknown_per_mille);
        // Half of the unknown ones never took effect.
        let lost = unknown && dice.chance(500);
        let call = if lost { call } else { answered(call, &mut register, dice) };
        let invoked = moment.saturating_sub(dice.between(0, shape.time_max / 4));
        let returned = (!unknown).then(|| moment + dice.between(0, shape.time_max / 4));
        operations.push(Operation { client, key: String::new(), call, invoked, returned });
    }
    operations
}

/// One that was linearizable before something was changed, and may still be.
fn mutated(dice: &mut Dice, shape: Shape) -> Vec<Operation<Call>> {
    let mut operations = simulated(dice, shape);
    for _ in 0..dice.between(1, 5) {
        mutate(dice, &mut operations, shape);
    }
    operations
}

fn mutate(dice: &mut Dice, operations: &mut [Operation<Call>], shape: Shape) {
    let at = dice.index(operations.len());
    let other = dice.index(operations.len());
    match dice.between(0, 2) {
        0 => {
            let shift = dice.between(1, shape.time_max / 2);
            operations[at].invoked += shift;
            operations[at].returned = operations[at].returned.map(|returned| returned + shift);
        }
        1 => operations[at].returned = Some(operations[at].invoked),
        _ => operations[at].call = other_answer(&operations[at].call, other as u64, dice, shape),
    }
}

/// Whatever comes.
fn arbitrary(dice: &mut Dice, shape: Shape) -> Vec<Operation<Call>> {
    let count = dice.between(2, shape.operations_max);
    let operation = |client| {
        let call = asked(dice, client, shape);
        let seen = dice.between(0, count);
        let call = other_answer(&call, seen, dice, shape);
        let invoked = dice.between(0, shape.time_max);
        let returned = (!dice.chance(shape.unknown_per_mille))
            .then(|| invoked + dice.between(0, shape.time_max / 2));
        Operation { client, key: String::new(), call, invoked, returned }
    };
    (0..count).map(operation).collect()
}

/// A value that a client writes: its own in a plain history, and one of few otherwise.
fn value(number: u64, shape: Shape) -> Value {
    const VALUES: &[u8; 16] = b"abcdefghijklmnop";
    let number = if shape.plain { number } else { number % 2 };
    let at = usize::try_from(number % 16).expect("a small number fits");
    Bytes::from_static(&VALUES[at..=at])
}

/// A call, not yet answered.
pub(crate) fn asked(dice: &mut Dice, client: u64, shape: Shape) -> Call {
    let own = value(client, shape);
    let any = |dice: &mut Dice| dice.chance(750).then(|| value(dice.between(0, 1), shape));
    match dice.between(0, if shape.plain { 3 } else { 7 }) {
        0 | 1 => Call::Read(None),
        2 | 3 => Call::Write(own),
        4 => Call::Delete,
        5 => Call::Append(own),
        _ => {
            let (expect, new) = (any(dice), any(dice));
            Call::CompareAndSet { expect, new, outcome: Swap::Refused }
        }
    }
}

/// The call with the answer of a register, which it changes.
pub(crate) fn answered(call: Call, register: &mut Option<Value>, dice: &mut Dice) -> Call {
    match call {
        Call::Read(_) => return Call::Read(register.clone()),
        Call::CompareAndSet { expect, new, .. } => {
            let outcome = match &expect == register {
                true => Swap::Succeeded,
                false if dice.chance(500) => Swap::Refused,
                false => Swap::RefusedAt(register.clone()),
            };
            if outcome == Swap::Succeeded {
                register.clone_from(&new);
            }
            return Call::CompareAndSet { expect, new, outcome };
        }
        Call::Write(ref value) => *register = Some(value.clone()),
        Call::Delete => *register = None,
        Call::Append(ref tail) => {
            let longer: Vec<u8> = register.iter().flatten().chain(tail).copied().collect();
            *register = Some(Bytes::from(longer));
        }
    }
    call
}

/// The call with an arbitrary answer.
fn other_answer(call: &Call, seen: u64, dice: &mut Dice, shape: Shape) -> Call {
    let any = |dice: &mut Dice| dice.chance(800).then(|| value(seen, shape));
    match call {
        Call::Read(_) => Call::Read(any(dice)),
        Call::CompareAndSet { expect, new, .. } => {
            let outcome = match dice.between(0, 2) {
                0 => Swap::Succeeded,
                1 => Swap::Refused,
                _ => Swap::RefusedAt(any(dice)),
            };
            Call::CompareAndSet { expect: expect.clone(), new: new.clone(), outcome }
        }
        other => other.clone(),
    }
}

/// A history as text.
pub(crate) fn shown<C: std::fmt::Display>(history: &[Operation<C>]) -> String {
    history.iter().map(|operation| format!("\n  {operation}")).collect()
}
