//! Who votes in the system group: 1, 3 or 5 of the members, spread over zones; the rest learn.
//!
//! Five voters outlive two failures; more would make every change wait for more disks and gain
//! little. An even number would outlive no more failures than the odd one below it.
//!
//! Invariants:
//! * The number of voters is odd and at most that of the members.
//! * As long as the present voters have a live majority, so have the chosen ones.
//! * Choosing again, with the same members up, changes nothing.
//!
//! Caveat: who is up is for the caller to judge, and of members that do not vote yet, only those
//! count that have caught up as learners. It should hold a node for down only after a good
//! while, as its place goes to another voter and it gets it back only if that spreads the voters
//! better over the zones.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::planted::{Planted, planted};
use crate::protocol::raft::membership::{Membership, Target};
use crate::protocol::system::state::{Standing, SystemState};
use crate::types::{NodeId, ReplicaId};

/// The most voters.
pub const VOTERS_MAX: usize = 5;

/// A member that may be chosen.
#[derive(Clone, Debug)]
struct Candidate {
    node: NodeId,
    replica: ReplicaId,
    /// Its failure domain. A node without one is a domain of its own.
    zone: Result<String, NodeId>,
    is_up: bool,
    is_voter: bool,
    /// Whether it leaves, and nothing keeps it.
    goes: bool,
}

/// Whom the system group is to consist of, given who is up and who votes now.
///
/// As few voters change as the zones allow: the dead are replaced only by the living, and the
/// number grows only as living learners are there to fill it. While the present voters have no
/// live majority, nothing can be changed, and they are what is returned. A joint membership counts
/// as what it changes to; the change must be over before another one is ordered.
///
/// A member that leaves and has nothing left that others need votes no more, so that it can go
/// without taking a vote along; only if nobody who stays is up, those that leave are all there is.
pub fn choose_voters(state: &SystemState, up: &BTreeSet<NodeId>, current: &Membership) -> Target {
    let all = candidates(state, up, current);
    let staying: Vec<Candidate> = all.iter().filter(|it| !it.goes).cloned().collect();
    let candidates = if count(&staying).is_some() { staying } else { all };
    let voters = match count(&candidates) {
        Some(count) if can_decide(state, up, current) => choose(candidates, count),
        _ => present_voters(current),
    };
    let members = state.members().iter().map(|(node, known)| (known.system_replica, *node));
    let learners = members.filter(|(replica, _)| !voters.contains_key(replica)).collect();
    Target { voters, learners }
}

fn candidates(state: &SystemState, up: &BTreeSet<NodeId>, current: &Membership) -> Vec<Candidate> {
    let members = state.members().iter();
    let all = members.map(|(node, known)| Candidate {
        node: *node,
        replica: known.system_replica,
        zone: match known.member.zone.as_str() {
            "" => Err(*node),
            zone => Ok(zone.to_owned()),
        },
        is_up: up.contains(node),
        is_voter: current.voters.contains(&known.system_replica),
        goes: known.standing == Standing::Leaving
            && state.needs(*node).is_none()
            && !planted(Planted::LeavesVoting),
    });
    // Nobody becomes a voter while down.
    all.filter(|candidate| candidate.is_up || candidate.is_voter).collect()
}

/// The largest odd number of voters that can be filled and has a live majority; `None` if nobody
/// is up.
fn count(candidates: &[Candidate]) -> Option<usize> {
    let up = candidates.iter().filter(|candidate| candidate.is_up).count();
    let most = candidates.len().min(VOTERS_MAX).min((2 * up).checked_sub(1)?);
    Some(if most % 2 == 1 { most } else { most - 1 })
}

/// Whether a majority of the present voters is there to agree to a change. A voter whose node has
/// begun a new life is not; one that was removed from the cluster still is, if it is up.
fn can_decide(state: &SystemState, up: &BTreeSet<NodeId>, current: &Membership) -> bool {
    let is_live = |replica: &&ReplicaId| {
        let node = current.nodes.get(replica);
        node.is_some_and(|node| {
            let known = state.members().get(node);
            up.contains(node) && known.is_none_or(|known| known.system_replica == **replica)
        })
    };
    2 * current.voters.iter().filter(is_live).count() > current.voters.len()
}

fn present_voters(current: &Membership) -> BTreeMap<ReplicaId, NodeId> {
    let nodes = current.nodes.iter().filter(|(replica, _)| current.voters.contains(replica));
    nodes.map(|(replica, node)| (*replica, *node)).collect()
}

/// Takes `count` of the candidates, one by one: always from a zone that has fewest so far; there,
/// one that votes already if possible. Those that are down are taken only when no others are left.
///
/// That makes the zones as even as can be, and among all even choices keeps the most voters: up
/// to the last round every zone gives its next one anyway, and the last round prefers zones that
/// still have a voter to give.
fn choose(candidates: Vec<Candidate>, count: usize) -> BTreeMap<ReplicaId, NodeId> {
    let mut left = candidates;
    let mut taken: BTreeMap<Result<String, NodeId>, usize> = BTreeMap::new();
    let mut voters = BTreeMap::new();
    while voters.len() < count {
        let rank = |candidate: &Candidate| {
            let in_zone = taken.get(&candidate.zone).copied().unwrap_or(0);
            (!candidate.is_up, in_zone, !candidate.is_voter, candidate.node)
        };
        let Some(best) = (0..left.len()).min_by_key(|at| rank(&left[*at])) else { break };
        let best = left.swap_remove(best);
        *taken.entry(best.zone).or_default() += 1;
        voters.insert(best.replica, best.node);
    }
    voters
}

#[cfg(test)]
mod tests;
