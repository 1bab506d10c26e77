//! After healing, a read at ALL returns the newest acknowledged version of the key or a newer one.
//!
//! Rests on: a replica acknowledges only what is durable (blueprint, section 5, step 4); hints
//! carry a sloppy write to its primaries (DeCandia et al., "Dynamo", 2007, section 4.6); merge
//! keeps the greatest version. The read asks ALL because a write acknowledged by one replica may
//! lie on that one alone; that QUORUM suffices for quorum writes is an invariant of its own.

use std::collections::BTreeMap;

use coterie::types::{Key, Version};

use crate::history::Evidence;

pub(crate) const NAME: &str = "acknowledged_write_is_never_lost";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let newest = newest_acknowledged(evidence);
    let finals = evidence.final_reads.iter();
    let lost = finals.filter_map(|(key, read)| {
        let acknowledged = newest.get(key)?;
        let reaped = evidence.may_be_reaped(key, *read, *acknowledged);
        (*read < Some(*acknowledged) && !reaped).then(|| {
            format!("{key}: version {acknowledged} was acknowledged, in the end ALL read {read:?}")
        })
    });
    lost.collect()
}

fn newest_acknowledged(evidence: &Evidence) -> BTreeMap<&Key, Version> {
    let mut newest = BTreeMap::new();
    for operation in &evidence.operations {
        let acknowledged = operation.acknowledged().filter(|receipt| evidence.outlasts(receipt));
        if let Some(version) = acknowledged.and_then(|receipt| receipt.version) {
            let known = newest.entry(&operation.key).or_insert(version);
            *known = version.max(*known);
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::story::{evidence, put, version};

    fn judged(acknowledged: &[u64], read: Option<u64>) -> usize {
        let writes = acknowledged.iter().map(|stamp| put("v", *stamp, 2, (1, 2))).collect();
        let mut evidence = evidence(writes);
        evidence.final_reads = vec![(Key::from("k"), read.map(version))];
        check(&evidence).len()
    }

    #[test]
    fn it_holds_when_the_newest_or_a_newer_version_is_read() {
        assert_eq!(judged(&[1, 2], Some(2)), 0);
        assert_eq!(judged(&[1, 2], Some(3)), 0);
        assert_eq!(judged(&[], None), 0);
    }

    #[test]
    fn it_fails_when_an_older_version_or_nothing_is_read() {
        assert_eq!(judged(&[2, 1], Some(1)), 1);
        assert_eq!(judged(&[1], None), 1);
    }
}
