//! A receipt says how many replicas the answer waited for, names at least that many different
//! ones, and names fallbacks only where the request allowed them; a write is stamped above the
//! version that the client had seen. Versions that it met and its writer had not seen are told only
//! where the writer said what it had seen, and are later than that.
//!
//! Rests on: the request's level or number, applied to the replicas in effect (blueprint,
//! section 5; the rules for clusters smaller than N).

use std::collections::BTreeSet;

use coterie::node::request::Receipt;

use crate::history::{Evidence, Operation, required};
use crate::keyspaces;

pub(crate) const NAME: &str = "receipts_are_honest";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let receipts = evidence.operations.iter().filter_map(|operation| {
        let read = operation.read().map(|answer| &answer.receipt);
        Some((operation, operation.acknowledged().or(read)?))
    });
    receipts
        .flat_map(|(operation, receipt)| {
            let faults = faults(evidence, operation, receipt).into_iter();
            faults.map(move |fault| format!("{fault}: {:?} {receipt:?}", operation.options))
        })
        .collect()
}

fn faults(evidence: &Evidence, operation: &Operation, receipt: &Receipt) -> Vec<&'static str> {
    let options = &operation.options;
    let named: BTreeSet<_> = receipt.acknowledged.iter().collect();
    let second = options.keyspace.as_deref().and_then(keyspaces::factor_of);
    let level = options.level.map(|level| required(level, receipt.replicas));
    // More than an old N has means all of it, while partitions go over to a larger one.
    let is_altered = evidence.altered.is_some() && second.is_none();
    let meant = |asked: u32| if is_altered { asked.min(receipt.replicas) } else { asked };
    let asked = options.quorum.map(meant).or(level);
    let written = operation.acknowledged().is_some();
    let founded = second.unwrap_or(evidence.replication_factor);
    // While N changes, and before all have heard of it, requests go by the one or the other.
    let altered = evidence.altered.filter(|_| second.is_none());
    let altered = altered.map_or(founded, |altered| altered.factor);
    let machines = evidence.machines;
    let counts = |factor: u32| receipt.replicas == factor.min(machines);
    let is_told = |factor: u32| receipt.under_replicated == (machines < factor);
    let rules = [
        (counts(founded) || counts(altered), "the replicas in effect are miscounted"),
        (is_told(founded) || is_told(altered), "under-replication is misreported"),
        (asked.is_none_or(|asked| asked == receipt.required), "it waited for another number"),
        (named.len() == receipt.acknowledged.len(), "a node is named twice"),
        (named.len() as u64 >= u64::from(receipt.required), "too few nodes are named"),
        (
            receipt.fallbacks.iter().all(|node| named.contains(node)),
            "a fallback is not among the acknowledged",
        ),
        (
            receipt.fallbacks.is_empty() || options.sloppy == Some(true),
            "a fallback counted though the request did not allow it",
        ),
        (!written || receipt.version.is_some(), "a write has no version"),
        (!written || receipt.version > options.context, "a write is not above its context"),
        (
            receipt.unseen.is_empty() || (written && options.context.is_some()),
            "something is unseen by one who told nothing",
        ),
        (
            receipt.unseen.iter().all(|it| Some(*it) > options.context),
            "what the writer had seen is told as unseen",
        ),
        (
            receipt.unseen.iter().all(|it| Some(*it) != receipt.version),
            "a write is told to have met itself",
        ),
    ];
    rules.iter().filter(|(holds, _)| !holds).map(|(_, fault)| *fault).collect()
}

#[cfg(test)]
mod tests {
    use coterie::protocol::quorum::level::Level;
    use coterie::types::NodeId;

    use super::*;
    use crate::history::Answer;
    use crate::history::story::{evidence, put, version};

    fn judged(change: impl FnOnce(&mut Operation, &mut Receipt)) -> usize {
        let mut write = put("a", 5, 2, (1, 2));
        let mut receipt = write.acknowledged().cloned().unwrap();
        change(&mut write, &mut receipt);
        write.answer = Some(Answer::Written(receipt));
        check(&evidence(vec![write])).len()
    }

    #[test]
    fn an_honest_receipt_passes() {
        assert_eq!(judged(|_, _| ()), 0);
        assert_eq!(judged(|write, _| write.options.level = Some(Level::Quorum)), 0);
    }

    #[test]
    fn each_rule_can_fail() {
        assert_eq!(judged(|_, receipt| receipt.replicas = 2), 1);
        assert_eq!(judged(|_, receipt| receipt.under_replicated = true), 1);
        assert_eq!(judged(|write, _| write.options.level = Some(Level::All)), 1);
        assert_eq!(judged(|_, receipt| receipt.acknowledged = vec![NodeId(1), NodeId(1)]), 2);
        assert_eq!(judged(|_, receipt| receipt.fallbacks = vec![NodeId(1)]), 1);
        assert_eq!(judged(|_, receipt| receipt.fallbacks = vec![NodeId(7)]), 2);
        assert_eq!(judged(|write, _| write.options.context = Some(version(5))), 1);
        assert_eq!(judged(|_, receipt| receipt.unseen = vec![version(4)]), 1);
        let unseen = |stamp: u64| {
            judged(|write, receipt| {
                write.options.context = Some(version(3));
                receipt.unseen = vec![version(stamp)];
            })
        };
        assert_eq!([unseen(3), unseen(4), unseen(5), unseen(6)], [1, 0, 1, 0]);
    }
}
