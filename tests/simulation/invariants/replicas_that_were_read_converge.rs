//! After healing and a read at QUORUM and at ALL, all primaries of a key hold the same record.
//!
//! Rests on: read repair mends every stale replica that a read meets (blueprint, section 5,
//! step 5), and merge is the same whatever the order (a lattice).

use crate::history::Evidence;

pub(crate) const NAME: &str = "replicas_that_were_read_converge";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let replicas = evidence.replicas.iter();
    let apart = replicas.filter(|(_, held)| held.iter().any(|(_, record)| *record != held[0].1));
    apart.map(|(key, held)| format!("{key}: primaries differ: {held:?}")).collect()
}

#[cfg(test)]
mod tests {
    use coterie::types::{Key, Record};

    use super::*;
    use crate::history::story::{evidence, version};

    fn judged(stamps: [Option<u64>; 3]) -> usize {
        let record = |stamp| Record::new(version(stamp), None);
        let held = stamps.iter().enumerate().map(|(at, stamp)| (at, stamp.map(record)));
        let mut evidence = evidence(Vec::new());
        evidence.replicas = vec![(Key::from("k"), held.collect())];
        check(&evidence).len()
    }

    #[test]
    fn it_fails_exactly_when_primaries_differ() {
        assert_eq!(judged([Some(1), Some(1), Some(1)]), 0);
        assert_eq!(judged([None, None, None]), 0);
        assert_eq!(judged([Some(1), Some(2), Some(1)]), 1);
        assert_eq!(judged([Some(1), Some(1), None]), 1);
    }
}
