//! Whoever tells a version's end tells the same: the writer's receipt, every read's, and the
//! replicas. The writer's node counts it by its own clock, from when it was asked; and a node
//! answers with the value before that end and with nothing from then on, by its own clock. Where no
//! life was asked for, there is no end.
//!
//! Rests on: the end is part of the record, counted once by the coordinator, and goes with the
//! record through logs, engines, hints and repairs (`docs/decisions/0006-expiry.md`). Operations
//! during which their node's wall clock was set are not judged by it.

use std::collections::BTreeMap;

use coterie::node::request::Receipt;
use coterie::types::{Expiry, Key, Version};

use crate::history::{Action, Evidence, Operation};

pub(crate) const NAME: &str = "values_end_in_time";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let mut wrong = versions_with_two_ends(evidence);
    wrong.extend(evidence.operations.iter().filter_map(miscounted));
    wrong.extend(evidence.operations.iter().filter_map(untimely));
    wrong
}

/// A key's version, and when somebody says that it ends.
type Told<'a> = (&'a Key, Version, Option<Expiry>);

fn versions_with_two_ends(evidence: &Evidence) -> Vec<String> {
    let mut ends: BTreeMap<(&Key, Version), Option<Expiry>> = BTreeMap::new();
    let by_receipts = evidence.operations.iter().filter_map(told);
    let by_replicas = evidence.replicas.iter().flat_map(|(key, held)| {
        let records = held.iter().filter_map(|(_, record)| record.as_ref());
        records.map(move |record| (key, record.version, record.expires_at))
    });
    let mut wrong = Vec::new();
    for (key, version, end) in by_receipts.chain(by_replicas) {
        let known = *ends.entry((key, version)).or_insert(end);
        if known != end {
            wrong.push(format!("{key}: version {version} ends at {known:?} and at {end:?}"));
        }
    }
    wrong
}

fn told(operation: &Operation) -> Option<Told<'_>> {
    let receipt = receipt(operation)?;
    Some((&operation.key, receipt.version?, receipt.expires_at))
}

fn receipt(operation: &Operation) -> Option<&Receipt> {
    let read = operation.read().map(|answer| &answer.receipt);
    operation.acknowledged().or(read)
}

/// What the node's wall clock showed when it was asked and when it answered, if it only ran.
fn undisturbed(operation: &Operation) -> Option<(u64, u64)> {
    let (asked, answered) = operation.walls;
    (asked.settings == answered.settings).then_some((asked.ms, answered.ms))
}

fn miscounted(write: &Operation) -> Option<String> {
    let told = write.acknowledged()?.expires_at;
    let Some(ttl) = write.options.ttl.filter(|_| matches!(write.action, Action::Put(_))) else {
        return told.map(|end| format!("{}: {end:?} was told, no life was asked for", write.key));
    };
    let (asked_ms, answered_ms) = undisturbed(write)?;
    let life_ms = u64::try_from(ttl.as_millis()).expect("lives are short");
    let due = asked_ms + life_ms..=answered_ms + life_ms;
    let holds = told.is_some_and(|end| due.contains(&end.0));
    (!holds).then(|| format!("{}: a life of {ttl:?} is due at {due:?}, not {told:?}", write.key))
}

fn untimely(read: &Operation) -> Option<String> {
    let answer = read.read()?;
    let end = answer.receipt.expires_at?;
    let (asked_ms, answered_ms) = undisturbed(read)?;
    let holds = match answer.value {
        Some(_) => asked_ms < end.0,
        None => answered_ms >= end.0,
    };
    (!holds).then(|| {
        let found = answer.value.as_ref().map_or("nothing", |_| "a value");
        let key = &read.key;
        format!("{key}: read {found} from {asked_ms} to {answered_ms} ms, which ends at {end:?}")
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coterie::types::Record;

    use super::*;
    use crate::history::Answer;
    use crate::history::story::{evidence, get, put, version};

    const LIFE: Duration = Duration::from_millis(10);

    /// A write with a life of 10 ms, acknowledged from 1 to 2 ms.
    fn ending(end: Option<u64>) -> Operation {
        let mut write = put("a", 5, 2, (1, 2));
        write.options.ttl = Some(LIFE);
        if let Some(Answer::Written(receipt)) = &mut write.answer {
            receipt.expires_at = end.map(Expiry);
        }
        write
    }

    fn read(found: bool, end: Option<u64>, span: (u64, u64)) -> Operation {
        let mut read = get(Some(("a", 5)), 2, span);
        if let Some(Answer::Read(answer)) = &mut read.answer {
            answer.receipt.expires_at = end.map(Expiry);
            answer.value = answer.value.take().filter(|_| found);
        }
        read
    }

    fn judged(operations: Vec<Operation>) -> usize {
        check(&evidence(operations)).len()
    }

    #[test]
    fn it_holds_for_values_before_their_end_and_nothing_after_it() {
        let reads = [read(true, Some(12), (3, 11)), read(true, Some(12), (11, 20))];
        let later = read(false, Some(12), (9, 12));
        assert_eq!(judged(reads.into_iter().chain([ending(Some(12)), later]).collect()), 0);
    }

    #[test]
    fn it_fails_for_an_end_that_is_miscounted_or_was_not_asked_for() {
        assert_eq!(judged(vec![ending(Some(13))]), 1);
        assert_eq!(judged(vec![ending(Some(10))]), 1);
        assert_eq!(judged(vec![ending(None)]), 1);
        let mut unasked = ending(Some(12));
        unasked.options.ttl = None;
        assert_eq!(judged(vec![unasked]), 1);
    }

    #[test]
    fn it_fails_for_a_value_after_its_end_and_for_nothing_before_it() {
        assert_eq!(judged(vec![ending(Some(12)), read(true, Some(12), (12, 13))]), 1);
        assert_eq!(judged(vec![ending(Some(12)), read(false, Some(12), (10, 11))]), 1);
    }

    #[test]
    fn a_clock_that_was_set_meanwhile_is_no_measure() {
        let mut read = read(true, Some(12), (12, 13));
        read.walls.1.settings = 1;
        assert_eq!(judged(vec![ending(Some(12)), read]), 0);
    }

    #[test]
    fn it_fails_for_an_end_that_a_read_or_a_replica_has_lost() {
        assert_eq!(judged(vec![ending(Some(12)), read(true, None, (3, 4))]), 1);
        let mut evidence = evidence(vec![ending(Some(12))]);
        let held = |end| vec![(0, Some(Record::new(version(5), None).expiring(end)))];
        evidence.replicas = vec![(Key::from("k"), held(Some(Expiry(12))))];
        assert_eq!(check(&evidence).len(), 0);
        evidence.replicas = vec![(Key::from("k"), held(None))];
        assert_eq!(check(&evidence).len(), 1);
    }
}
