//! Which operations of unknown outcome matter.
//!
//! Let U be one that may set the value v, and let nobody have seen v. Then U may be left out: take
//! a legal order with U and remove U from it. Between U and the next operation that sets a value,
//! whatever was there before, every value is v or, after appends, begins with v. No operation in
//! between told what it saw, since v was not seen; so all of them stay legal with another value
//! there. Operations that tell what they saw are reads, compare-and-sets that succeeded (or may
//! have: but one of unknown outcome that is itself left out tells nothing), and refusals that
//! name what was there. A refusal that does not name it tells that *something else* was there, for
//! which any U may be the reason: where such refusals occur, nothing is left out.
//!
//! For a U that appends x, every value in between contains x, and the same holds.
//!
//! The evidence is gathered to a fixed point, from the operations that certainly took place
//! outwards: a compare-and-set that sets what was seen is kept, and what it expects is thereby
//! seen too.

use std::collections::HashSet;

use super::super::history::{Call, Operation, Swap, Value};

/// The operations that a search must consider: those with a known outcome, and those whose
/// effect may have been seen.
pub(super) fn needed<'a>(history: &[&'a Operation<Call>]) -> Vec<&'a Operation<Call>> {
    let (mut kept, mut unknown): (Vec<_>, Vec<_>) =
        history.iter().copied().partition(|operation| operation.returned.is_some());
    unknown.retain(|operation| !matches!(operation.call, Call::Read(_)));
    if unknown.is_empty() {
        return kept;
    }
    let appended = history.iter().any(|operation| matches!(operation.call, Call::Append(_)));
    let mut evidence = Evidence { appended, ..Evidence::default() };
    kept.iter().for_each(|operation| evidence.add(operation));
    loop {
        let (proven, rest): (Vec<_>, Vec<_>) =
            unknown.into_iter().partition(|operation| evidence.shows(&operation.call));
        if proven.is_empty() {
            return kept;
        }
        proven.iter().for_each(|operation| evidence.add(operation));
        kept.extend(proven);
        unknown = rest;
    }
}

/// What was seen.
#[derive(Default)]
struct Evidence<'a> {
    values: HashSet<Option<&'a Value>>,
    /// A refusal occurred that does not name what was there.
    something_else: bool,
    /// Values may have grown.
    appended: bool,
}

impl<'a> Evidence<'a> {
    fn add(&mut self, operation: &'a Operation<Call>) {
        let seen = match &operation.call {
            Call::CompareAndSet { expect, .. } if operation.returned.is_none() => expect,
            Call::Read(seen)
            | Call::CompareAndSet { expect: seen, outcome: Swap::Succeeded, .. }
            | Call::CompareAndSet { outcome: Swap::RefusedAt(seen), .. } => seen,
            Call::CompareAndSet { outcome: Swap::Refused, .. } => {
                self.something_else = true;
                return;
            }
            Call::Write(_) | Call::Delete | Call::Append(_) => return,
        };
        self.values.insert(seen.as_ref());
    }

    /// Whether somebody may have seen the effect.
    fn shows(&self, call: &Call) -> bool {
        let shown = match call {
            Call::Read(_) => false,
            Call::Write(value) => self.shows_value(Some(value)),
            Call::CompareAndSet { new, .. } => self.shows_value(new.as_ref()),
            Call::Delete => self.shows_value(None),
            Call::Append(tail) => self.any(|seen| contains(seen, tail)),
        };
        shown || self.something_else
    }

    /// After a delete, appends leave what they would leave of an empty value.
    fn shows_value(&self, value: Option<&Value>) -> bool {
        let beginning = value.map_or(&[][..], |value| value);
        let grown = || self.any(|seen| seen.starts_with(beginning));
        self.values.contains(&value) || (self.appended && grown())
    }

    fn any(&self, holds: impl Fn(&[u8]) -> bool) -> bool {
        self.values.iter().flatten().any(|seen| holds(seen))
    }
}

fn contains(seen: &[u8], part: &[u8]) -> bool {
    part.is_empty() || seen.windows(part.len()).any(|window| window == part)
}
