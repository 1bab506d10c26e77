//! The reap floors of the partitions, and what their owners have told so far of what they share.
//!
//! Invariants:
//! * A floor never falls. It rises only when all owners have told, each in its present life, of
//!   exchanges that began after the partition last came to rest with these owners.
//! * Whatever changes who owns a partition, or takes rows from an owner, voids what was told.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::protocol::reaping::{ReapFloor, Share};
use crate::types::{Epoch, NodeId, PartitionId, Timestamp};

/// The reap floors of all partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaping {
    partitions: BTreeMap<PartitionId, Shared>,
    /// What began before is void, for partitions that say nothing else.
    since: Epoch,
}

/// What is known of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Shared {
    floor: ReapFloor,
    /// What began before is void.
    since: Epoch,
    told: BTreeMap<NodeId, Timestamp>,
}

impl Reaping {
    /// The floor of a partition.
    pub fn floor(&self, partition: PartitionId) -> ReapFloor {
        self.partitions.get(&partition).map_or(ReapFloor::default(), |shared| shared.floor)
    }

    /// The floors that there are.
    pub fn floors(&self) -> impl Iterator<Item = (PartitionId, ReapFloor)> + '_ {
        let floors = self.partitions.iter().map(|(partition, shared)| (*partition, shared.floor));
        floors.filter(|(_, floor)| floor.at > Timestamp::default())
    }

    /// An owner shares what it says with those that it compares itself with. True if the floor
    /// rises, which it then does under the epoch `next`.
    pub(super) fn tell(
        &mut self,
        (partition, owners): (PartitionId, &BTreeSet<NodeId>),
        (node, share): (NodeId, Share),
        next: Epoch,
    ) -> bool {
        let shared = self.partitions.entry(partition).or_default();
        if share.epoch < shared.since.max(self.since) || !owners.contains(&node) {
            return false;
        }
        let told = shared.told.entry(node).or_default();
        *told = share.at.max(*told);
        let by_all = owners.iter().map(|owner| shared.told.get(owner).copied()).min().flatten();
        match by_all.filter(|at| *at > shared.floor.at) {
            Some(at) => shared.floor = ReapFloor { at, epoch: next },
            None => return false,
        }
        true
    }

    /// What was told of these partitions is void, and what began before this epoch.
    pub(super) fn void(&mut self, partitions: &BTreeSet<PartitionId>, epoch: Epoch) {
        for partition in partitions {
            let shared = self.partitions.entry(*partition).or_default();
            shared.told.clear();
            shared.since = epoch;
        }
    }

    /// The epoch before which whatever began is void, of whichever partition.
    #[cfg(test)]
    pub(super) fn since(&self) -> Epoch {
        self.since
    }

    /// The same for all partitions.
    pub(super) fn void_all(&mut self, epoch: Epoch) {
        self.since = epoch;
        self.partitions.values_mut().for_each(|shared| shared.told.clear());
    }
}
