//! A read at QUORUM or above that starts after another was answered returns the same version of
//! the key or a newer one.
//!
//! Rests on: such a read repairs the stale replicas before it answers, so a majority holds what
//! it returned (blueprint, section 5, step 5; Attiya, Bar-Noy and Dolev, "Sharing Memory Robustly
//! in Message-Passing Systems", 1995, where a reader writes back what it read).

use crate::history::{Evidence, Operation, is_majority, quorums_meet};

pub(crate) const NAME: &str = "quorum_reads_never_go_back";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let reads: Vec<&Operation> =
        evidence.operations.iter().filter(|operation| operation.read().is_some()).collect();
    reads
        .iter()
        .flat_map(|late| reads.iter().filter_map(|early| went_back(evidence, early, late)))
        .collect()
}

fn went_back(evidence: &Evidence, early: &Operation, late: &Operation) -> Option<String> {
    let (first, second) = (&early.read()?.receipt, &late.read()?.receipt);
    let due = first.version?;
    let bound = early.key == late.key
        && early.precedes(late)
        && is_majority(first)
        && quorums_meet(first, second);
    let is_reaped = || evidence.may_be_reaped(&late.key, second.version, due);
    (bound && second.version < first.version && !is_reaped()).then(|| {
        format!(
            "{}: R={} read {:?}, later R={} read {:?}",
            late.key, first.required, first.version, second.required, second.version
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::story::{evidence, get};

    fn judged(first: (u32, u64), second: (u32, u64)) -> usize {
        let early = get(Some(("a", first.1)), first.0, (1, 2));
        let late = get(Some(("b", second.1)), second.0, (3, 4));
        check(&evidence(vec![early, late])).len()
    }

    #[test]
    fn it_fails_when_a_later_quorum_read_is_older() {
        assert_eq!(judged((2, 5), (2, 4)), 1);
        assert_eq!(judged((3, 5), (1, 4)), 1);
    }

    #[test]
    fn it_asks_nothing_of_reads_below_a_quorum() {
        assert_eq!(judged((2, 5), (2, 5)), 0);
        assert_eq!(judged((1, 5), (2, 4)), 0);
        assert_eq!(judged((2, 5), (1, 4)), 0);
    }
}
