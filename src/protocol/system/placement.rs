//! Which replicas a partition's group consists of, and the numbers that they bear.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::protocol::raft::planted::{Planted, planted};
use crate::types::{LogIndex, NodeId, ReplicaId};

/// Hands out replica ids, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ReplicaIds {
    next: ReplicaId,
}

impl ReplicaIds {
    /// The first is 1: nothing is called 0.
    pub(super) fn new() -> Self {
        ReplicaIds { next: ReplicaId(1) }
    }

    /// One that was never handed out before.
    pub(super) fn fresh(&mut self) -> ReplicaId {
        let fresh = self.next;
        self.next = ReplicaId(fresh.0 + 1);
        fresh
    }

    /// The one that comes next.
    pub(super) fn next(self) -> ReplicaId {
        self.next
    }
}

/// Where a group's replicas are to be.
///
/// Invariant: no two replicas of a group are on the same node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Its voters.
    pub replicas: BTreeMap<ReplicaId, NodeId>,
    /// Those that it was created with. Such a replica begins with all of them as its membership,
    /// however late its node hears of it; any other begins knowing nobody, and waits to be told.
    pub founders: BTreeMap<ReplicaId, NodeId>,
    /// The index of the system entry that last ordered it.
    pub generation: u64,
    /// The generation that the group itself consists of, as its leader has told: until it is the
    /// one above, replicas that have lost their place may still be needed.
    #[serde(default)]
    pub followed: u64,
}

impl Placement {
    /// Whether the group consists of what was ordered last.
    pub fn is_followed(&self) -> bool {
        self.followed == self.generation
    }
}

impl Placement {
    /// A new group on these nodes.
    pub(super) fn create(
        nodes: &BTreeSet<NodeId>,
        index: LogIndex,
        ids: &mut ReplicaIds,
    ) -> Placement {
        let founders: BTreeMap<ReplicaId, NodeId> =
            nodes.iter().map(|node| (ids.fresh(), *node)).collect();
        let generation = index.0;
        Placement { replicas: founders.clone(), founders, generation, followed: generation }
    }

    /// The nodes that have a replica.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.replicas.values().copied().collect()
    }

    /// The replica on a node.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas.iter().find(|(_, on)| **on == node).map(|(replica, _)| *replica)
    }

    /// Moves the group to these nodes: those that have a replica keep it, the others get one that
    /// was never there before.
    pub(super) fn reorder(
        &mut self,
        nodes: &BTreeSet<NodeId>,
        index: LogIndex,
        ids: &mut ReplicaIds,
    ) {
        let had = self.nodes();
        if had == *nodes {
            return;
        }
        let gone = self.replicas.iter().filter(|(_, node)| !nodes.contains(node));
        let mut gone: Vec<ReplicaId> = gone.map(|(replica, _)| *replica).collect();
        self.replicas.retain(|_, node| nodes.contains(node));
        for node in nodes.difference(&had) {
            let reused = if planted(Planted::ReusedReplicaId) { gone.pop() } else { None };
            self.replicas.insert(reused.unwrap_or_else(|| ids.fresh()), *node);
        }
        self.generation = index.0;
    }

    /// Gives the node's replica another number, if it has one: the old one has lost its memory.
    pub(super) fn renew(&mut self, node: NodeId, index: LogIndex, ids: &mut ReplicaIds) {
        if let Some(replica) = self.replica_on(node)
            && !planted(Planted::ReusedReplicaId)
        {
            self.replicas.remove(&replica);
            self.replicas.insert(ids.fresh(), node);
            self.generation = index.0;
        }
    }
}
