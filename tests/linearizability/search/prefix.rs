//! Why a history is not linearizable, in as few operations as possible.

use super::super::history::{Call, Operation, Shown};
use super::decide;
use super::evidence;
use super::orders::Orders;
use super::steps::Steps;

/// Operations that are shown though they were not invoked while the stuck one was under way.
const EARLIER_SHOWN: usize = 24;

/// The shortest beginning of a history that no order explains, for people.
///
/// Linearizability is closed under prefixes (Herlihy and Wing 1990, section 3.1), so there is one
/// return up to which an order exists and with which none does. In a prefix, an operation that has
/// not returned is one of unknown outcome.
pub(super) fn shortest_stuck(history: &[&Operation<Call>], states_max: usize) -> String {
    let mut returns: Vec<u64> = history.iter().filter_map(|operation| operation.returned).collect();
    returns.sort_unstable();
    returns.dedup();
    // Where the search gives up for a prefix, a longer one is shown.
    let explained = returns.partition_point(|end| {
        let prefix = prefix(history, *end);
        decide(&prefix.iter().collect::<Vec<_>>(), states_max) != Some(false)
    });
    let Some(end) = returns.get(explained).or(returns.last()) else { return String::new() };
    shown(&prefix(history, *end), *end, states_max)
}

/// What was known at a time.
fn prefix(history: &[&Operation<Call>], end: u64) -> Vec<Operation<Call>> {
    let begun = history.iter().filter(|operation| operation.invoked <= end);
    let mut prefix: Vec<Operation<Call>> = begun.map(|operation| (*operation).clone()).collect();
    prefix.sort_by_key(|operation| operation.invoked);
    for operation in &mut prefix {
        operation.returned = operation.returned.filter(|returned| *returned <= end);
    }
    prefix
}

fn shown(prefix: &[Operation<Call>], end: u64, states_max: usize) -> String {
    let last = prefix.iter().filter(|operation| operation.returned == Some(end));
    let invoked = last.map(|operation| operation.invoked).min().unwrap_or(end);
    let references: Vec<&Operation<Call>> = prefix.iter().collect();
    let mut matter = evidence::needed(&references);
    matter.sort_by_key(|operation| operation.invoked);
    let earlier = matter.partition_point(|operation| operation.invoked < invoked);
    let hidden = earlier.saturating_sub(EARLIER_SHOWN);
    let mut text =
        String::from("no order explains these operations, of which the last to return is marked");
    text +=
        &if hidden > 0 { format!(" ({hidden} earlier ones are left out):") } else { ":".into() };
    for operation in &matter[hidden..] {
        let mark = if operation.returned == Some(end) { '>' } else { ' ' };
        text += &format!("\n{mark} {operation}");
    }
    text + &values_before(prefix, end, states_max)
}

/// What may have been there when the last operation had to take effect.
fn values_before(prefix: &[Operation<Call>], end: u64, states_max: usize) -> String {
    let references: Vec<&Operation<Call>> = prefix.iter().collect();
    let mut steps = Steps::of(&references);
    let stuck = |step: &super::steps::Step<'_>| step.operation.returned == Some(end);
    let Some(stuck) = steps.all.iter().position(stuck) else { return String::new() };
    let states = Orders::new(&mut steps, states_max).states_before(stuck);
    let values = states.iter().map(|state| Shown(steps.value(*state)).to_string());
    match values.collect::<Vec<_>>() {
        none if none.is_empty() => String::new(),
        values => format!("\n  the value before it can only have been: {}", values.join(", ")),
    }
}
