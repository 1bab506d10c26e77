//! Reads the scripts in which the tests of both machines are written.
//!
//! The first line sets the request up; each further line is an event and, behind `>`, what the
//! machine then does, `;` between effects and `-` for nothing. `done` is printed once, when the
//! machine may be dropped. Nodes are small numbers, unreachable ones with a minus.

use crate::protocol::message::Refusal;
use crate::protocol::quorum::{Primary, QuorumError};
use crate::types::{Moment, NodeId};

/// When every scripted request ends.
pub(super) const DEADLINE: Moment = Moment(1_000_000);

/// A machine as a script drives it.
pub(super) trait Scripted {
    fn on_event(&mut self, event: &str);
    fn poll_text(&mut self) -> Option<String>;
    fn is_done(&self) -> bool;
}

/// Runs a script and compares it line by line.
pub(super) fn check<M: Scripted>(text: &str, begin: impl Fn(&str) -> M) {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (setup, expected) = lines.next().and_then(|line| line.split_once('>')).expect("a setup");
    let mut machine = begin(setup.trim());
    let mut done = false;
    assert_eq!(drain(&mut machine, &mut done), expected.trim(), "{setup}\nin {text}");
    for line in lines {
        let (event, expected) = line.split_once('>').expect("an event > effects");
        machine.on_event(event.trim());
        assert_eq!(drain(&mut machine, &mut done), expected.trim(), "after {event}\nin {text}");
    }
}

fn drain<M: Scripted>(machine: &mut M, done: &mut bool) -> String {
    let mut effects: Vec<String> = std::iter::from_fn(|| machine.poll_text()).collect();
    if machine.is_done() && !*done {
        *done = true;
        effects.push("done".to_owned());
    }
    if effects.is_empty() { "-".to_owned() } else { effects.join("; ") }
}

/// The words behind `name` in a setup, up to the next word that is no number.
pub(super) fn numbers(setup: &str, name: &str) -> Vec<i64> {
    let words = setup.split_whitespace().skip_while(|word| *word != name).skip(1);
    words.map_while(|word| word.parse().ok()).collect()
}

pub(super) fn primaries(setup: &str) -> Vec<Primary> {
    let primary = |n: i64| Primary { node: NodeId(n.unsigned_abs()), reachable: n > 0 };
    numbers(setup, "primaries").into_iter().map(primary).collect()
}

pub(super) fn number(setup: &str, name: &str) -> Option<u64> {
    numbers(setup, name).first().map(|n| n.unsigned_abs())
}

pub(super) fn node(word: Option<&str>) -> NodeId {
    NodeId(word.and_then(|word| word.parse().ok()).expect("a node"))
}

pub(super) fn refusal(word: Option<&str>) -> Refusal {
    let name = word.expect("a refusal");
    let known = Refusal::ALL.into_iter().find(|refusal| format!("{refusal:?}") == name);
    known.expect("a known refusal")
}

pub(super) fn nodes(nodes: &[NodeId]) -> String {
    let each: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
    format!("[{}]", each.join(" "))
}

/// ` name [1 2]`, or nothing if there are none.
pub(super) fn named(name: &str, list: &[NodeId]) -> String {
    if list.is_empty() { String::new() } else { format!(" {name} {}", nodes(list)) }
}

pub(super) fn error(error: &QuorumError) -> String {
    match error {
        QuorumError::Unavailable { required, reachable } => {
            format!("unavailable {reachable}/{required}")
        }
        QuorumError::Behind { wanted, newest, answered } => {
            let newest = newest.map_or("none".to_owned(), |it| it.timestamp.0.to_string());
            format!("behind {} newest {newest} of {answered}", wanted.timestamp.0)
        }
        QuorumError::Timeout { required, received, outcome } => {
            format!("timeout {received}/{required} {outcome}")
        }
        QuorumError::Failed { required, received, refusals, outcome } => {
            let each: Vec<String> =
                refusals.iter().map(|(node, why)| format!("{}:{why:?}", node.0)).collect();
            format!("failed {received}/{required} {outcome} [{}]", each.join(" "))
        }
    }
}
