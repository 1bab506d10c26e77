//! The search agrees with trying every order of every kind of call.

use std::fmt::Display;

use bytes::Bytes;

use crate::dice::Dice;
use crate::linearizability::history::{Call, Operation, Swap, Value};
use crate::linearizability::search::{STATES_MAX, decide};
use crate::random::{Shape, history, seed, shown};

const HISTORIES: u64 = 30_000;

const SHAPE: Shape =
    Shape { operations_max: 6, time_max: 14, unknown_per_mille: 150, plain: false };

/// An object that operations change, one after the other.
pub(crate) trait Object: Clone + Default {
    type Call: Display;

    /// Performs a call; `None` when the answer would have been another. Where the outcome is
    /// unknown, any answer will do.
    fn perform(&self, operation: &Operation<Self::Call>) -> Option<Self>;
}

/// Whether some order of the operations, with any of unknown outcome left out, keeps their order
/// in time and gives their answers. Tries all orders, stopping each where it breaks.
pub(crate) fn any_order_fits<O: Object>(object: &O, left: &[&Operation<O::Call>]) -> bool {
    if left.iter().all(|operation| operation.returned.is_none()) {
        return true;
    }
    (0..left.len()).any(|next| {
        let mut rest = left.to_vec();
        let operation = rest.remove(next);
        let is_next = rest.iter().all(|o| o.returned.is_none_or(|r| r >= operation.invoked));
        let changed = || object.perform(operation);
        is_next && changed().is_some_and(|object| any_order_fits(&object, &rest))
    })
}

/// A register in as few words as possible.
#[derive(Clone, Default)]
struct Register(Option<Value>);

impl Object for Register {
    type Call = Call;

    fn perform(&self, operation: &Operation<Call>) -> Option<Self> {
        let held = &self.0;
        let unknown = operation.returned.is_none();
        match &operation.call {
            Call::Read(value) => (unknown || value == held).then(|| self.clone()),
            Call::Write(value) => Some(Register(Some(value.clone()))),
            Call::Delete => Some(Register(None)),
            Call::Append(tail) => {
                let parts = [held.as_deref().unwrap_or_default(), tail];
                Some(Register(Some(Bytes::from(parts.concat()))))
            }
            Call::CompareAndSet { expect, new, outcome } => {
                let answer = match outcome {
                    Swap::Succeeded => expect == held,
                    Swap::Refused => expect != held,
                    Swap::RefusedAt(value) => expect != held && value == held,
                };
                let next = if expect == held { new.clone() } else { held.clone() };
                (unknown || answer).then_some(Register(next))
            }
        }
    }
}

#[test]
fn the_search_agrees_with_trying_every_order() {
    let seed = seed();
    let mut dice = Dice::new(seed).fork("every order");
    let mut linearizable = 0;
    for _ in 0..HISTORIES {
        let history = history(&mut dice, SHAPE);
        let references: Vec<&Operation<Call>> = history.iter().collect();
        let expected = any_order_fits(&Register::default(), &references);
        let searched = decide(&references, STATES_MAX);
        assert_eq!(searched, Some(expected), "search and every order on{}", shown(&history));
        linearizable += u64::from(expected);
    }
    println!("seed {seed}: {linearizable} of {HISTORIES} histories are linearizable");
    assert!((HISTORIES / 5..HISTORIES * 4 / 5).contains(&linearizable), "both must be common");
}
