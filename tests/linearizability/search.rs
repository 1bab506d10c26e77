//! Registers with every kind of call, judged by trying orders.
//!
//! The search is that of Wing and Gong (1993, "Testing and Verifying Concurrent Objects") with
//! the memory of Lowe (2017, "Testing for Linearizability"): an order is built from its
//! beginning; what may come next is what was invoked before anything left over had returned; and
//! a set of placed operations together with the value that it led to is never tried twice.
//! Three thoughts keep it short:
//!
//! * What can be placed next, fits, and sees but never changes the value (a read, a refusal) is
//!   placed at once and for good: in any legal order of the rest it may be moved to the front.
//! * An operation of unknown outcome is tried last, only where it changes the value, and of
//!   several with the same effect the one that was invoked first.
//! * Those of unknown outcome without evidence of an effect are left out: see [`evidence`].

mod evidence;
mod orders;
mod prefix;
mod steps;

use self::orders::Orders;
use self::steps::Steps;
use super::history::{Call, Operation, Verdict, worst};

/// Sets of placed operations that one search may remember: a few hundred MB at the very worst.
pub(crate) const STATES_MAX: usize = 1 << 20;

/// Judges each key by itself.
pub(crate) fn check(history: &[Operation<Call>]) -> Verdict {
    worst(history, |operations| check_register(operations, STATES_MAX))
}

/// Panics unless every key's operations are linearizable.
pub(crate) fn assert_linearizable(history: &[Operation<Call>]) {
    check(history).expect_linearizable();
}

/// Judges the operations of one key, remembering at most `states_max` sets.
pub(crate) fn check_register(history: &[&Operation<Call>], states_max: usize) -> Verdict {
    match decide(history, states_max) {
        Some(true) => Verdict::Linearizable,
        Some(false) => {
            Verdict::NotLinearizable { witness: prefix::shortest_stuck(history, states_max) }
        }
        None => {
            let operations = history.len();
            let reason = format!("{states_max} states were not enough for {operations} operations");
            Verdict::GaveUp { reason }
        }
    }
}

/// Whether the operations of one key are linearizable; `None` when the search gave up.
pub(crate) fn decide(history: &[&Operation<Call>], states_max: usize) -> Option<bool> {
    let mut steps = Steps::of(history);
    Orders::new(&mut steps, states_max).search()
}
