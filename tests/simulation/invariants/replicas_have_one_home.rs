//! No two nodes ever run replicas of one number, and no number serves two groups.
//!
//! Rests on: replica numbers are handed out once, since a replica that forgot its votes must not
//! vote again (Ongaro 2014, section 11.7.2, on servers that lose their disks).

use std::collections::BTreeMap;

use coterie::types::GroupId;

use crate::history::Evidence;

pub(crate) const NAME: &str = "replicas_have_one_home";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let mut homes = BTreeMap::new();
    let mut wrong = Vec::new();
    for seen in &evidence.strong.sightings {
        // The system group numbers its replicas as all others do.
        let (group, node): (GroupId, _) =
            *homes.entry(seen.replica).or_insert((seen.group, seen.node));
        if (group, node) != (seen.group, seen.node) {
            wrong.push(format!("replica of group {group} on node {node} is elsewhere: {seen:?}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use coterie::types::ReplicaId;

    use super::*;
    use crate::strong::story::{seen, sighting};
    use crate::strong::watch::Sighting;

    #[test]
    fn it_holds_for_a_replica_that_stays() {
        assert!(check(&seen(vec![sighting(1, 1), sighting(1, 2), sighting(2, 1)])).is_empty());
    }

    #[test]
    fn it_fails_for_a_number_on_two_nodes_or_in_two_groups() {
        let copy = Sighting { replica: ReplicaId(1), ..sighting(2, 2) };
        assert_eq!(check(&seen(vec![sighting(1, 1), copy])).len(), 1);
        let stranger = Sighting { group: GroupId(2), ..sighting(2, 1) };
        assert_eq!(check(&seen(vec![sighting(1, 1), stranger])).len(), 1);
    }
}
