//! A group has at most one leader in a term, over all nodes and all their lives.
//!
//! Rests on: votes that are durable before they leave, at most one per term (Ongaro 2014,
//! sections 3.2 and 3.4, Election Safety).

use std::collections::BTreeMap;

use crate::history::Evidence;

pub(crate) const NAME: &str = "elections_are_safe";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let mut leaders = BTreeMap::new();
    let mut wrong = Vec::new();
    for seen in evidence.strong.sightings.iter().filter(|seen| seen.leads) {
        let leader = *leaders.entry((seen.group, seen.term)).or_insert(seen.replica);
        if leader != seen.replica {
            wrong.push(format!("group {}: {leader} led before this: {seen:?}", seen.group));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use coterie::types::{GroupId, Term};

    use super::*;
    use crate::strong::story::{seen, sighting};
    use crate::strong::watch::Sighting;

    fn leading(node: u64, term: u64) -> Sighting {
        Sighting { leads: true, term: Term(term), ..sighting(1, node) }
    }

    #[test]
    fn it_holds_for_one_leader_per_term_and_group() {
        let elsewhere = Sighting { group: GroupId(2), ..leading(2, 1) };
        assert!(check(&seen(vec![leading(1, 1), leading(1, 1), leading(2, 2)])).is_empty());
        assert!(check(&seen(vec![leading(1, 1), elsewhere])).is_empty());
    }

    #[test]
    fn it_fails_for_two_leaders_of_one_term() {
        assert_eq!(check(&seen(vec![leading(1, 3), sighting(2, 2), leading(2, 3)])).len(), 1);
    }
}
