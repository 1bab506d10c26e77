//! Of two writes through one node, whatever their keys, the one that began after the other was
//! acknowledged has the later stamp, even if the node was restarted and its clock set back in
//! between: provided that the node itself was a replica that made the first one durable.
//!
//! Rests on: a stamp is above all that its coordinator has given or seen (Kulkarni et al.,
//! "Logical Physical Clocks", 2014), and a start begins above every stamp in the node's log and
//! engine. A coordinator that is no replica keeps no trace of its stamps, hence the proviso; nor
//! does one that stands in for a primary, as a hint goes when it is delivered.

use crate::history::{Evidence, Operation};

pub(crate) const NAME: &str = "stamps_of_a_node_increase";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let writes: Vec<&Operation> =
        evidence.operations.iter().filter(|write| write.acknowledged().is_some()).collect();
    let pairs = writes.iter().flat_map(|early| writes.iter().map(move |late| (early, late)));
    let kept = |write: &Operation| {
        let node = evidence.node_ids.get(&write.machine);
        node.zip(write.acknowledged())
            .is_some_and(|(node, r)| r.acknowledged.contains(node) && !r.fallbacks.contains(node))
    };
    let bound = pairs.filter(|(early, _)| kept(early));
    bound.filter_map(|(early, late)| went_back(early, late)).collect()
}

fn went_back(early: &Operation, late: &Operation) -> Option<String> {
    let stamp = |write: &Operation| Some(write.acknowledged()?.version?.timestamp);
    let (first, second) = (stamp(early)?, stamp(late)?);
    let bound = early.machine == late.machine && early.precedes(late);
    (bound && second <= first).then(|| {
        let machine = late.machine;
        format!("n{machine} stamped {first:?} for {}, later {second:?} for {}", early.key, late.key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::story::{evidence, put};

    fn judged(first: u64, second: u64, began: u64) -> usize {
        let writes = vec![put("a", first, 2, (1, 2)), put("b", second, 2, (began, 9))];
        check(&evidence(writes)).len()
    }

    #[test]
    fn it_fails_when_a_later_write_has_no_later_stamp() {
        assert_eq!(judged(5, 6, 3), 0);
        assert_eq!(judged(5, 4, 3), 1);
        assert_eq!(judged(5, 5, 3), 1);
        assert_eq!(judged(5, 4, 1), 0, "concurrent writes may be stamped either way");
    }

    #[test]
    fn a_coordinator_that_kept_nothing_is_exempt() {
        let mut writes = vec![put("a", 5, 2, (1, 2)), put("b", 4, 2, (3, 4))];
        writes.iter_mut().for_each(|write| write.machine = 2);
        assert!(check(&evidence(writes)).is_empty());
    }
}
