//! A read that is given a context answers with the version that it names, or a newer one, at every
//! level and through every node.
//!
//! Rests on: the read begins as if that version had been reported, and is answered only with a
//! record at least as new (`protocol/quorum/read.rs`; Terry et al., "Session Guarantees for Weakly
//! Consistent Replicated Data", 1994, sections 3.1 and 3.2).

use crate::history::{Evidence, Operation};

pub(crate) const NAME: &str = "reads_with_a_context_never_answer_older";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    evidence.operations.iter().filter_map(|operation| older(evidence, operation)).collect()
}

fn older(evidence: &Evidence, operation: &Operation) -> Option<String> {
    let (seen, read) = (operation.options.context?, operation.read()?);
    let version = read.receipt.version;
    let is_reaped = || evidence.may_be_reaped(&operation.key, version, seen);
    (version < Some(seen) && !is_reaped())
        .then(|| format!("{}: read {version:?} though its reader had seen {seen:?}", operation.key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::story::{evidence, get, put, version};

    fn judged(seen: Option<u64>, found: Option<u64>) -> usize {
        let mut read = get(found.map(|stamp| ("a", stamp)), 1, (3, 4));
        read.options.context = seen.map(version);
        check(&evidence(vec![read])).len()
    }

    #[test]
    fn it_fails_when_a_read_answers_with_less_than_its_reader_has_seen() {
        assert_eq!((judged(Some(5), Some(4)), judged(Some(5), None)), (1, 1));
    }

    #[test]
    fn it_asks_nothing_of_reads_that_see_it_or_have_no_context() {
        assert_eq!((judged(Some(5), Some(5)), judged(Some(5), Some(6))), (0, 0));
        assert_eq!((judged(None, Some(4)), judged(None, None)), (0, 0));
    }

    #[test]
    fn it_asks_nothing_of_writes() {
        let mut write = put("a", 4, 1, (1, 2));
        write.options.context = Some(version(5));
        assert!(check(&evidence(vec![write])).is_empty());
    }
}
