//! Owners that tell what they share, and floors that rise by it.

use std::collections::BTreeMap;

use crate::protocol::reaping::Share;
use crate::protocol::system::command::SystemReply;
use crate::protocol::system::refusal::SystemRefusal;
use crate::protocol::system::state::SystemState;
use crate::types::{Epoch, Incarnation, NodeId, PartitionId};

impl SystemState {
    /// A node shares rows of its partitions with their other owners, unless it has lost them since.
    /// What it says of partitions that move counts for nothing.
    pub(super) fn shared(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        partitions: &BTreeMap<PartitionId, Share>,
    ) -> Result<SystemReply, SystemRefusal> {
        let known = self.members.get(&node).ok_or(SystemRefusal::UnknownMember { node })?;
        let lives = known.member.incarnation == incarnation;
        let next = Epoch(self.epoch.0 + 1);
        let rings = self.rings();
        let mut risen = false;
        for (partition, share) in partitions.iter().filter(|_| lives) {
            let located = self.placing.locate(*partition);
            if u32::from(partition.0) >= self.partitions() || located.next.is_some() {
                continue;
            }
            let owners = rings.all_owners(located.at, *partition);
            risen |= self.reaping.tell((*partition, &owners), (node, *share), next);
        }
        if risen {
            self.begin_epoch();
        }
        Ok(SystemReply::Reshaped { epoch: self.epoch })
    }

    /// A node has lost its rows, or keyspaces have other owners: nothing that was told before the
    /// epoch that begins now counts any more.
    pub(super) fn void_shares(&mut self) {
        self.begin_epoch();
        self.reaping.void_all(self.epoch);
    }
}
