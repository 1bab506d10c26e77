//! Some time after healing all primaries of a key hold the same record, although nobody read it and
//! no hint was kept.
//!
//! Rests on: anti-entropy compares every two replicas of a partition once an interval, and copies
//! the newer of two records (blueprint, section 8).

use crate::history::Evidence;

pub(crate) const NAME: &str = "replicas_converge_unread";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let replicas = evidence.unread.iter();
    let apart = replicas.filter(|(_, held)| held.iter().any(|(_, record)| *record != held[0].1));
    apart.map(|(key, held)| format!("{key}: primaries stay different: {held:?}")).collect()
}

#[cfg(test)]
mod tests {
    use coterie::types::{Key, Record};

    use super::*;
    use crate::history::story::{evidence, version};

    fn judged(stamps: [Option<u64>; 2]) -> usize {
        let record = |stamp| Record::new(version(stamp), None);
        let held = stamps.iter().enumerate().map(|(at, stamp)| (at, stamp.map(record)));
        let mut evidence = evidence(Vec::new());
        evidence.unread = vec![(Key::from("k"), held.collect())];
        check(&evidence).len()
    }

    #[test]
    fn it_fails_exactly_when_primaries_differ() {
        assert_eq!(judged([Some(1), Some(1)]), 0);
        assert_eq!(judged([None, None]), 0);
        assert_eq!(judged([Some(1), Some(2)]), 1);
        assert_eq!(judged([Some(1), None]), 1);
    }
}
