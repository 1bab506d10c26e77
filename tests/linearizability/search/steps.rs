//! A history made small and numbered, so that a search compares numbers only.

use std::collections::HashMap;

use bytes::Bytes;

use super::super::history::{Call, Operation, Swap, Value};
use super::evidence;

/// A value or absence, by number.
pub(super) type State = usize;

/// The register's beginning.
pub(super) const ABSENT: State = 0;
/// What no register ever holds.
const NEVER: State = usize::MAX;

/// What an operation needs and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    See(State),
    SeeOther(State),
    Set(State),
    Swap {
        from: State,
        to: State,
    },
    /// Puts a value behind what is there.
    Extend(State),
}

/// One operation.
pub(super) struct Step<'a> {
    pub(super) operation: &'a Operation<Call>,
    effect: Effect,
    /// For an unknown outcome: an earlier step of unknown outcome with the same effect.
    pub(super) twin: Option<usize>,
}

/// The operations that matter, those of known outcome first, each kind by invocation.
pub(super) struct Steps<'a> {
    pub(super) all: Vec<Step<'a>>,
    pub(super) known: usize,
    states: States,
}

impl<'a> Steps<'a> {
    pub(super) fn of(history: &[&'a Operation<Call>]) -> Self {
        let mut needed = evidence::needed(history);
        needed.sort_by_key(|operation| (operation.returned.is_none(), operation.invoked));
        let known = needed.partition_point(|operation| operation.returned.is_some());
        let mut states = States::default();
        states.number(None);
        let mut all: Vec<Step<'a>> = Vec::with_capacity(needed.len());
        for operation in needed {
            let effect = states.effect(operation);
            let unknown = all.get(known..).unwrap_or_default();
            let twin = unknown.iter().rposition(|step| step.effect == effect);
            all.push(Step { operation, effect, twin: twin.map(|at| known + at) });
        }
        Steps { all, known, states }
    }

    /// The state that a step leads to; `None` where it can't have happened.
    pub(super) fn take(&mut self, step: usize, state: State) -> Option<State> {
        match self.all[step].effect {
            Effect::See(seen) => (seen == state).then_some(state),
            Effect::SeeOther(expected) => (expected != state).then_some(state),
            Effect::Set(new) => Some(new),
            Effect::Swap { from, to } => (from == state).then_some(to),
            Effect::Extend(tail) => Some(self.states.extended(state, tail)),
        }
    }

    /// Whether a step changes no state whatever.
    pub(super) fn only_sees(&self, step: usize) -> bool {
        matches!(self.all[step].effect, Effect::See(_) | Effect::SeeOther(_))
    }

    pub(super) fn value(&self, state: State) -> &Option<Value> {
        &self.states.values[state]
    }
}

#[derive(Default)]
struct States {
    values: Vec<Option<Value>>,
    numbers: HashMap<Option<Value>, State>,
    extended: HashMap<(State, State), State>,
}

impl States {
    fn number(&mut self, value: Option<&Value>) -> State {
        let value = value.cloned();
        if let Some(state) = self.numbers.get(&value) {
            return *state;
        }
        let state = self.values.len();
        self.values.push(value.clone());
        self.numbers.insert(value, state);
        state
    }

    fn effect(&mut self, operation: &Operation<Call>) -> Effect {
        match &operation.call {
            Call::Read(value) => Effect::See(self.number(value.as_ref())),
            Call::Write(value) => Effect::Set(self.number(Some(value))),
            Call::Delete => Effect::Set(ABSENT),
            Call::Append(value) => Effect::Extend(self.number(Some(value))),
            Call::CompareAndSet { expect, new, outcome } => {
                let (from, to) = (self.number(expect.as_ref()), self.number(new.as_ref()));
                match outcome {
                    _ if operation.returned.is_none() => Effect::Swap { from, to },
                    Swap::Succeeded if from == to => Effect::See(from),
                    Swap::Succeeded => Effect::Swap { from, to },
                    Swap::Refused => Effect::SeeOther(from),
                    Swap::RefusedAt(seen) if seen == expect => Effect::See(NEVER),
                    Swap::RefusedAt(seen) => Effect::See(self.number(seen.as_ref())),
                }
            }
        }
    }

    fn extended(&mut self, state: State, tail: State) -> State {
        if let Some(longer) = self.extended.get(&(state, tail)) {
            return *longer;
        }
        let parts = [&self.values[state], &self.values[tail]];
        let longer: Vec<u8> = parts.into_iter().flatten().flatten().copied().collect();
        let longer = self.number(Some(&Bytes::from(longer)));
        self.extended.insert((state, tail), longer);
        longer
    }
}
