//! Where the groups of the partitions are placed.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::ring::Ring;
use crate::protocol::system::command::SystemReply;
use crate::protocol::system::placement::Placement;
use crate::protocol::system::refusal::{SystemRefusal, rule};
use crate::protocol::system::state::SystemState;
use crate::types::{GroupId, LogIndex, NodeId, PartitionId};

impl SystemState {
    pub(super) fn place_group(
        &mut self,
        index: LogIndex,
        group: GroupId,
        expected_generation: u64,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<SystemReply, SystemRefusal> {
        let wanted = self.replicas_wanted();
        let placement = self.groups.get_mut(&group).ok_or(SystemRefusal::UnknownGroup { group })?;
        if placement.nodes() != *nodes {
            check_generation(group, expected_generation, placement.generation)?;
            if let Some(node) = nodes.iter().find(|node| !self.members.contains_key(node)) {
                return Err(SystemRefusal::UnknownMember { node: *node });
            }
            let right = format!("group {group} must have exactly {wanted} replicas");
            rule(nodes.len() == wanted, "nodes", format!("{} nodes", nodes.len()), right)?;
            placement.reorder(nodes, index, &mut self.replica_ids);
        }
        Ok(SystemReply::Placed { generation: placement.generation })
    }

    /// Groups consist of what was ordered; what was ordered anew since is another matter.
    pub(super) fn followed(&mut self, groups: &BTreeMap<GroupId, u64>) -> SystemReply {
        for (group, generation) in groups {
            if let Some(placement) = self.groups.get_mut(group)
                && placement.generation == *generation
            {
                placement.followed = *generation;
            }
        }
        SystemReply::Reshaped { epoch: self.epoch }
    }

    /// Creates the groups of all partitions from the ring of this moment, unless they were founded
    /// before: they outlive the keyspaces that they serve.
    pub(super) fn found_groups(&mut self, index: LogIndex, factor: u32) {
        if self.strong_factor.is_some() {
            return;
        }
        self.strong_factor = Some(factor);
        let ring = self.strong_ring(factor);
        for partition in (0..ring.partitions()).map(|partition| PartitionId(partition as u16)) {
            let nodes: BTreeSet<NodeId> = ring.primaries(partition).iter().copied().collect();
            let placement = Placement::create(&nodes, index, &mut self.replica_ids);
            self.groups.insert(GroupId::of(partition), placement);
        }
    }

    /// Moves what a node that is no member any more held to the next node of each partition's
    /// preference list; where there is none, the group shrinks.
    pub(super) fn vacate(&mut self, index: LogIndex, node: NodeId) {
        let (Some(factor), wanted) = (self.strong_factor, self.replicas_wanted()) else { return };
        let ring = self.strong_ring(factor);
        for (group, placement) in &mut self.groups {
            if placement.replica_on(node).is_none() {
                continue;
            }
            let mut nodes = placement.nodes();
            nodes.remove(&node);
            let partition = group.partition();
            let preferred = ring.primaries(partition).iter().copied();
            for next in preferred.chain(ring.fallbacks(partition)) {
                if nodes.len() < wanted {
                    nodes.insert(next);
                }
            }
            placement.reorder(&nodes, index, &mut self.replica_ids);
        }
    }

    /// A group of which the node holds the only replica.
    pub(super) fn sole_replica_of(&self, node: NodeId) -> Option<GroupId> {
        let alone =
            |placement: &Placement| placement.replicas.values().all(|holder| *holder == node);
        self.groups.iter().find(|(_, placement)| alone(placement)).map(|(group, _)| *group)
    }

    /// How many replicas each group is to have: the factor, or all nodes of the ring while there
    /// are fewer.
    fn replicas_wanted(&self) -> usize {
        self.placing.target_layout().len().min(self.strong_factor.unwrap_or(0) as usize)
    }

    fn strong_ring(&self, factor: u32) -> Ring {
        self.ring(factor).expect("invariant: members and factor were checked when they came in")
    }
}

fn check_generation(group: GroupId, sent: u64, held: u64) -> Result<(), SystemRefusal> {
    if sent == held { Ok(()) } else { Err(SystemRefusal::StaleGeneration { group, sent, held }) }
}
