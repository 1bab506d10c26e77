//! After healing and a read at QUORUM and at ALL, all primaries of a key hold the same record.
//! Where they reap, one may have reaped already what has ended, and another not yet.
//!
//! Rests on: read repair mends every stale replica that a read meets (blueprint, section 5,
//! step 5), and merge is the same whatever the order (a lattice).

use coterie::types::Record;

use crate::history::Evidence;

pub(crate) const NAME: &str = "replicas_that_were_read_converge";

/// How long after the last read the replicas are looked at, at most.
const LOOK_MS_MAX: u64 = 20_000;

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let last_ms = evidence.operations.iter().map(|it| it.walls.1.ms).max().unwrap_or(0);
    let has_ended =
        |it: &&Record| it.value.is_none() || it.is_expired(last_ms.saturating_add(LOOK_MS_MAX));
    let kept = |record: &'_ Option<Record>| {
        record.clone().filter(|record| !(evidence.reaps && has_ended(&record)))
    };
    let replicas = evidence.replicas.iter();
    let apart = replicas
        .filter(|(_, held)| held.iter().any(|(_, record)| kept(record) != kept(&held[0].1)));
    apart.map(|(key, held)| format!("{key}: primaries differ: {held:?}")).collect()
}

#[cfg(test)]
mod tests {
    use coterie::types::{Expiry, Key};

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

    #[test]
    fn what_has_ended_may_be_reaped_here_and_not_there() {
        let apart = |record: Record, reaps| {
            let mut evidence = evidence(Vec::new());
            evidence.reaps = reaps;
            evidence.replicas = vec![(Key::from("k"), vec![(0, Some(record)), (1, None)])];
            check(&evidence).len()
        };
        let value = || Record::new(version(1), Some("v".into()));
        let ended = || value().expiring(Some(Expiry(1)));
        assert_eq!([apart(ended(), true), apart(Record::new(version(1), None), true)], [0, 0]);
        assert_eq!([apart(ended(), false), apart(value(), true)], [1, 1]);
        let ends_later = value().expiring(Some(Expiry(u64::MAX)));
        assert_eq!(apart(ends_later, true), 1);
    }
}
