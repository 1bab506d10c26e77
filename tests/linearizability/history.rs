//! What clients saw.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

/// What a register holds.
pub(crate) type Value = Bytes;

/// One operation of one client.
///
/// Times may be of any unit, and all come from one clock. An operation is before another when it
/// returned at a smaller time than the other was invoked: equal times count as overlapping, since
/// a clock's resolution tells nothing about their order.
#[derive(Clone, Debug)]
pub(crate) struct Operation<C> {
    pub(crate) client: u64,
    pub(crate) key: String,
    /// What was asked and answered.
    pub(crate) call: C,
    pub(crate) invoked: u64,
    /// `None`: the outcome is unknown, for a time-out or a lost connection. The operation may
    /// take effect at any time from its invocation on, or never; what `call` says of an answer
    /// means nothing. A refusal that promises no effect belongs in no history.
    pub(crate) returned: Option<u64>,
}

impl<C> Operation<C> {
    /// When it had certainly ended.
    pub(crate) fn returned_or_never(&self) -> u64 {
        self.returned.unwrap_or(u64::MAX)
    }
}

/// An operation on a register, which is absent at first, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// What was read; `None` when there was no value.
    Read(Option<Value>),
    Write(Value),
    Delete,
    /// `None` stands for absence: as `expect` it sets only what is absent, as `new` it deletes.
    CompareAndSet {
        expect: Option<Value>,
        new: Option<Value>,
        outcome: Swap,
    },
    /// Puts bytes behind those that are there; an absent register counts as empty.
    Append(Value),
}

/// What a compare-and-set answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Swap {
    Succeeded,
    /// Something else than expected was there.
    Refused,
    /// This was there instead.
    RefusedAt(Option<Value>),
}

/// What a judge says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    NotLinearizable {
        /// For people: the operations that no order explains.
        witness: String,
    },
    /// Nothing is known; whoever asked must take it for a failure.
    GaveUp {
        reason: String,
    },
}

impl Verdict {
    /// Panics unless linearizable: a judge that gave up has proved nothing.
    pub(crate) fn expect_linearizable(&self) {
        match self {
            Verdict::Linearizable => {}
            Verdict::NotLinearizable { witness } => panic!("not linearizable: {witness}"),
            Verdict::GaveUp { reason } => panic!("the judge of linearizability gave up: {reason}"),
        }
    }
}

/// The operations of each key. Linearizability is local: a history is linearizable when that of
/// each object is (Herlihy and Wing 1990, theorem 1).
pub(crate) fn by_key<C>(history: &[Operation<C>]) -> BTreeMap<&str, Vec<&Operation<C>>> {
    let mut keys: BTreeMap<&str, Vec<&Operation<C>>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    keys
}

/// The first verdict of a key that is not good, or else that all is well.
pub(crate) fn worst<C>(
    history: &[Operation<C>],
    judge: impl Fn(&[&Operation<C>]) -> Verdict,
) -> Verdict {
    let keys = by_key(history);
    let mut verdicts = keys.values().map(|operations| judge(operations));
    verdicts.find(|verdict| *verdict != Verdict::Linearizable).unwrap_or(Verdict::Linearizable)
}

impl<C: fmt::Display> fmt::Display for Operation<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { client, key, call, invoked, returned } = self;
        match returned {
            Some(returned) => write!(f, "{invoked:>6} to {returned:>6}")?,
            None => write!(f, "{invoked:>6} to      ?")?,
        }
        write!(f, "  client {client:>3}, {key:?}: {call}")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Read(value) => write!(f, "read {}", Shown(value)),
            Call::Write(value) => write!(f, "write {value:?}"),
            Call::Delete => write!(f, "delete"),
            Call::Append(value) => write!(f, "append {value:?}"),
            Call::CompareAndSet { expect, new, outcome } => {
                write!(f, "set {} if {}: {outcome}", Shown(new), Shown(expect))
            }
        }
    }
}

impl fmt::Display for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Swap::Succeeded => write!(f, "succeeded"),
            Swap::Refused => write!(f, "refused"),
            Swap::RefusedAt(value) => write!(f, "refused at {}", Shown(value)),
        }
    }
}

/// A value or its absence, for people.
pub(crate) struct Shown<'a>(pub(crate) &'a Option<Value>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:?}"),
            None => write!(f, "nothing"),
        }
    }
}
