//! What the groups of the partitions are to consist of by what the system group has decided, and
//! what it has to decide yet for them to be where the ring wants them.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::raft::membership::Target;
use crate::protocol::system::state::SystemState;
use crate::types::{GroupId, NodeId, ReplicaId};

/// A group that is not where the ring wants it: what to send as
/// [`PlaceGroup`](crate::protocol::system::SystemCommand::PlaceGroup).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The group.
    pub group: GroupId,
    /// The generation that this was decided on.
    pub expected_generation: u64,
    /// All nodes that are to have a replica.
    pub nodes: BTreeSet<NodeId>,
}

/// What a partition's group is to consist of; all of its replicas vote. `None` when there is no
/// such group.
pub fn placement_target(state: &SystemState, group: GroupId) -> Option<Target> {
    let placement = state.groups().get(&group)?;
    Some(Target { voters: placement.replicas.clone(), learners: BTreeMap::new() })
}

/// With which membership a replica of a partition's group begins while its log is empty: that of
/// the founding if it was there. `None` for all others, which begin with an empty one and wait
/// until a leader tells them.
pub fn founding_voters(
    state: &SystemState,
    group: GroupId,
    replica: ReplicaId,
) -> Option<&BTreeMap<ReplicaId, NodeId>> {
    let founders = &state.groups().get(&group)?.founders;
    founders.contains_key(&replica).then_some(founders)
}

/// Groups that are not where the ring of the present epoch wants them, those that lack a replica
/// first; at most `moves_max`, so that a large change proceeds in steps.
pub fn moves_due(state: &SystemState, moves_max: usize) -> Vec<Move> {
    let Some(Ok(ring)) = state.strong_factor().map(|factor| state.ring(factor)) else {
        return Vec::new();
    };
    let mut due: Vec<(usize, Move)> = Vec::new();
    for (group, placement) in state.groups() {
        let nodes: BTreeSet<NodeId> = ring.primaries(group.partition()).iter().copied().collect();
        if nodes != placement.nodes() {
            let expected_generation = placement.generation;
            let due_move = Move { group: *group, expected_generation, nodes };
            due.push((placement.replicas.len(), due_move));
        }
    }
    due.sort_by_key(|(replicas, _)| *replicas);
    due.into_iter().map(|(_, due_move)| due_move).take(moves_max).collect()
}

#[cfg(test)]
mod tests;
