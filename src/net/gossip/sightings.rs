//! From what gossip holds to sightings: one per node, of its highest generation. Pure.
//!
//! The failure detector learns how often heartbeats come, and in a cluster of many nodes they come
//! so often that half a second of silence looks fatal to it. So its word is a doubt at first: a
//! node counts as dead once it stayed silent through [`DOUBT_STEPS`] more steps.

use std::collections::BTreeMap;

use crate::net::transport::{NodeFacts, Sighting};
use crate::types::NodeId;

/// Steps for which a doubt must last; with the driver's step this adds a second.
pub(crate) const DOUBT_STEPS: u32 = 5;

/// What one generation of a node says of itself, and whether it still speaks.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) generation: u64,
    pub(crate) facts: NodeFacts,
    pub(crate) presence: Presence,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Its heartbeats come.
    Alive,
    /// The failure detector misses them.
    Silent,
    /// It said good-bye.
    Leaving,
}

/// Nodes that fell silent a moment ago, with the steps since.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    silent: BTreeMap<NodeId, u32>,
}

impl Doubts {
    pub(crate) fn is_empty(&self) -> bool {
        self.silent.is_empty()
    }

    /// Lets one step pass.
    pub(crate) fn step(&mut self) {
        self.silent.values_mut().for_each(|steps| *steps += 1);
    }

    /// The claims that count, by node id, given what was seen before. After a fast restart two
    /// generations of a node are alive for a while; the lower one is history.
    pub(crate) fn judge(
        &mut self,
        claims: impl IntoIterator<Item = Claim>,
        before: &[Sighting],
    ) -> Vec<Sighting> {
        let mut latest: BTreeMap<NodeId, Claim> = BTreeMap::new();
        for claim in claims {
            let known = latest.get(&claim.facts.node_id);
            if known.is_none_or(|known| known.generation < claim.generation) {
                latest.insert(claim.facts.node_id, claim);
            }
        }
        self.silent.retain(|node, _| latest.contains_key(node));
        latest.into_values().map(|claim| self.sighting(claim, before)).collect()
    }

    fn sighting(&mut self, claim: Claim, before: &[Sighting]) -> Sighting {
        let node = claim.facts.node_id;
        let was_alive = before.iter().any(|it| it.facts.node_id == node && it.alive);
        let alive = match claim.presence {
            Presence::Alive => true,
            Presence::Leaving => false,
            Presence::Silent if was_alive => *self.silent.entry(node).or_insert(0) < DOUBT_STEPS,
            Presence::Silent => false,
        };
        if !alive || claim.presence == Presence::Alive {
            self.silent.remove(&node);
        }
        Sighting { facts: claim.facts, alive }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::gossip::tests::facts;

    fn claim(node: u64, generation: u64, presence: Presence) -> Claim {
        let facts = NodeFacts { load_per_second: generation, ..facts(node) };
        Claim { generation, facts, presence }
    }

    fn summary(sightings: &[Sighting]) -> Vec<(u64, u64, bool)> {
        let of = |it: &Sighting| (it.facts.node_id.0, it.facts.load_per_second, it.alive);
        sightings.iter().map(of).collect()
    }

    #[test]
    fn the_highest_generation_counts_whatever_the_order_and_whoever_is_alive() {
        let mut claims = vec![
            claim(2, 1, Presence::Alive),
            claim(1, 5, Presence::Alive),
            claim(2, 3, Presence::Silent),
        ];
        let expected = [(1, 5, true), (2, 3, false)];
        assert_eq!(summary(&Doubts::default().judge(claims.clone(), &[])), expected);
        claims.reverse();
        assert_eq!(summary(&Doubts::default().judge(claims, &[])), expected);
    }

    #[test]
    fn silence_is_a_doubt_until_it_lasts() {
        let mut doubts = Doubts::default();
        let mut seen = doubts.judge([claim(1, 1, Presence::Alive)], &[]);
        for step in 0..DOUBT_STEPS {
            seen = doubts.judge([claim(1, 1, Presence::Silent)], &seen);
            assert!(seen[0].alive, "dead after {step} steps");
            doubts.step();
        }
        seen = doubts.judge([claim(1, 1, Presence::Silent)], &seen);
        assert!(!seen[0].alive);
        assert!(doubts.is_empty(), "nothing is left to wait for");
        assert!(!doubts.judge([claim(1, 1, Presence::Silent)], &seen)[0].alive);
    }

    #[test]
    fn a_heartbeat_ends_a_doubt_and_good_bye_needs_none() {
        let mut doubts = Doubts::default();
        let mut seen = doubts.judge([claim(1, 1, Presence::Alive)], &[]);
        seen = doubts.judge([claim(1, 1, Presence::Silent)], &seen);
        (0..DOUBT_STEPS - 1).for_each(|_| doubts.step());
        seen = doubts.judge([claim(1, 1, Presence::Alive)], &seen);
        assert!(doubts.is_empty());
        assert!(!doubts.judge([claim(1, 1, Presence::Leaving)], &seen)[0].alive);
    }
}
