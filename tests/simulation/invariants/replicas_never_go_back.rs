//! As long as a node lives, its replicas' terms, commits and applied entries never fall, and
//! nothing is applied that is not committed. What a replica led in, it does not fall below in a
//! later life: it had voted for itself.
//!
//! Rests on: terms as a logical clock and commit indexes that only grow (Ongaro 2014, sections 3.3
//! and 3.5), and the durable term (section 3.8).

use std::collections::BTreeMap;

use coterie::types::{GroupId, ReplicaId, Term};

use crate::history::Evidence;
use crate::strong::watch::Sighting;

pub(crate) const NAME: &str = "replicas_never_go_back";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let mut last: BTreeMap<(GroupId, ReplicaId), Sighting> = BTreeMap::new();
    let mut led: BTreeMap<(GroupId, ReplicaId), Term> = BTreeMap::new();
    let mut wrong = Vec::new();
    for seen in &evidence.strong.sightings {
        let place = (seen.group, seen.replica);
        let before = last.insert(place, *seen).filter(|before| before.life == seen.life);
        let floor = led.get(&place).copied().unwrap_or_default();
        let rules = [
            (seen.term >= floor, "a term below one that it led in"),
            (before.is_none_or(|before| seen.term >= before.term), "a term that falls"),
            (before.is_none_or(|before| seen.commit >= before.commit), "a commit that falls"),
            (
                before.is_none_or(|before| seen.applied >= before.applied),
                "applied entries that fall",
            ),
            (seen.applied <= seen.commit, "applied entries that are not committed"),
        ];
        let broken = rules.iter().filter(|(holds, _)| !holds);
        wrong.extend(broken.map(|(_, what)| format!("{what}: {seen:?} after {before:?}")));
        if seen.leads {
            led.insert(place, floor.max(seen.term));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use coterie::types::LogIndex;

    use super::*;
    use crate::strong::story::{seen, sighting};

    fn judged(change: impl FnOnce(&mut Sighting)) -> usize {
        let first = Sighting { term: Term(3), leads: true, ..sighting(1, 1) };
        let mut second = Sighting { at: sighting(2, 1).at, ..first };
        change(&mut second);
        check(&seen(vec![first, second])).len()
    }

    #[test]
    fn it_holds_for_growth_and_for_a_new_life_that_knows_less() {
        assert_eq!(judged(|second| second.commit = LogIndex(9)), 0);
        let reborn = |second: &mut Sighting| {
            (second.life, second.commit, second.applied) = (1, LogIndex(2), LogIndex(2));
        };
        assert_eq!(judged(reborn), 0);
    }

    #[test]
    fn each_rule_can_fail() {
        assert_eq!(judged(|second| second.commit = LogIndex(4)), 2);
        assert_eq!(judged(|second| second.applied = LogIndex(4)), 1);
        assert_eq!(judged(|second| second.applied = LogIndex(6)), 1);
        assert_eq!(judged(|second| second.term = Term(2)), 2);
        assert_eq!(judged(|second| (second.life, second.term) = (1, Term(2))), 1);
    }
}
