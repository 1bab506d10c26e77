//! A read that starts after a write was acknowledged returns that version or a newer one, if the
//! replicas that the two waited for must meet (R + W > N) and all of them were primaries.
//!
//! Rests on: any two quorums meet in a replica (Gifford, "Weighted Voting for Replicated Data",
//! 1979) that keeps what it acknowledged and answers with the greatest version that it holds.
//! A sloppy write, whose receipt names fallbacks, promises no such thing and is exempt, as is one
//! that only nodes acknowledged which are lost with their disks.
//!
//! The keyspace's own R and W meet by whichever N a request went, as N changes.

use crate::history::{Evidence, Operation, quorums_meet};
use crate::keyspaces;

pub(crate) const NAME: &str = "quorum_read_sees_acknowledged_quorum_write";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let reads = evidence.operations.iter().filter(|operation| operation.read().is_some());
    reads
        .flat_map(|read| {
            let writes = evidence.operations.iter();
            writes.filter_map(|write| missed(evidence, write, read))
        })
        .collect()
}

fn missed(evidence: &Evidence, write: &Operation, read: &Operation) -> Option<String> {
    let (written, answer) = (write.acknowledged()?, read.read()?);
    let found = answer.receipt.version;
    let is_reaped = || evidence.may_be_reaped(&read.key, found, written.version.expect("a write"));
    let bound = write.key == read.key
        && write.precedes(read)
        && written.fallbacks.is_empty()
        && (quorums_meet(written, &answer.receipt) || both_by_default(evidence, write, read))
        && (evidence.burnt.is_empty() || evidence.outlasts(written));
    (bound && found < written.version && !is_reaped()).then(|| {
        format!(
            "{}: W={} acknowledged {:?}, later R={} read {:?}",
            read.key,
            written.required,
            written.version,
            answer.receipt.required,
            answer.receipt.version
        )
    })
}

/// Whether two requests went by what their keyspace says, before its N was changed, after, or the
/// one so and the other so.
fn both_by_default(evidence: &Evidence, write: &Operation, read: &Operation) -> bool {
    let plain = |it: &Operation| it.options.level.is_none() && it.options.quorum.is_none();
    let is_altered = evidence.altered.is_some() && keyspaces::of_key(&write.key).is_none();
    is_altered && plain(write) && plain(read)
}

#[cfg(test)]
mod tests {
    use coterie::config::Replication;
    use coterie::types::NodeId;

    use super::*;
    use crate::history::Answer;
    use crate::history::story::{evidence, get, put};

    fn judged(operations: Vec<Operation>) -> usize {
        check(&evidence(operations)).len()
    }

    #[test]
    fn it_fails_when_quorums_meet_and_the_read_is_older() {
        assert_eq!(judged(vec![put("a", 5, 2, (1, 2)), get(None, 2, (3, 4))]), 1);
        assert_eq!(judged(vec![put("a", 5, 3, (1, 2)), get(Some(("z", 4)), 1, (3, 4))]), 1);
    }

    #[test]
    fn it_asks_nothing_of_concurrent_reads_nor_of_quorums_that_need_not_meet() {
        assert_eq!(judged(vec![put("a", 5, 2, (1, 4)), get(None, 2, (2, 3))]), 0);
        assert_eq!(judged(vec![put("a", 5, 2, (1, 2)), get(None, 1, (3, 4))]), 0);
        assert_eq!(judged(vec![put("a", 5, 2, (1, 2)), get(Some(("b", 6)), 2, (3, 4))]), 0);
    }

    #[test]
    fn a_sloppy_write_is_exempt() {
        let mut write = put("a", 5, 2, (1, 2));
        if let Some(Answer::Written(receipt)) = &mut write.answer {
            receipt.fallbacks = vec![NodeId(9)];
        }
        assert_eq!(judged(vec![write, get(None, 2, (3, 4))]), 0);
    }

    #[test]
    fn a_write_is_exempt_that_is_lost_with_its_disks() {
        let mut evidence = evidence(vec![put("a", 5, 2, (1, 2)), get(None, 2, (3, 4))]);
        evidence.burnt.insert(NodeId(9));
        if let Some(Answer::Written(receipt)) = &mut evidence.operations[0].answer {
            receipt.acknowledged = vec![NodeId(8), NodeId(9)];
        }
        assert_eq!(check(&evidence).len(), 1);
        evidence.burnt.insert(NodeId(8));
        assert_eq!(check(&evidence).len(), 0);
    }

    #[test]
    fn the_keyspaces_own_numbers_meet_whichever_n_they_are_of() {
        let operations = vec![put("a", 5, 1, (1, 2)), get(None, 1, (3, 4))];
        let mut evidence = evidence(operations);
        assert_eq!(check(&evidence).len(), 0);
        evidence.altered = Some(Replication { factor: 1, read_quorum: 1, write_quorum: 1 });
        let explicit = |evidence: &mut Evidence, quorum| {
            evidence.operations.iter_mut().for_each(|it| {
                (it.options.level, it.options.quorum) = (None, quorum);
            });
        };
        explicit(&mut evidence, None);
        assert_eq!(check(&evidence).len(), 1);
        explicit(&mut evidence, Some(1));
        assert_eq!(check(&evidence).len(), 0);
    }
}
