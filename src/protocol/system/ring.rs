//! The ring that follows from the state.

use crate::protocol::ring::{Ring, RingError, RingMember};
use crate::protocol::system::state::SystemState;

impl SystemState {
    /// The ring of the members at the state's epoch, for keyspaces of a replication factor.
    ///
    /// # Errors
    /// [`RingError::ReplicationFactorZero`]; all else was checked when it came in.
    pub fn ring(&self, factor: u32) -> Result<Ring, RingError> {
        Ring::new(self.epoch, self.partitions(), factor, &self.ring_members())
    }

    /// What the ring depends on: the epoch grows when this changes, and only then.
    pub(super) fn ring_members(&self) -> Vec<RingMember> {
        let members = self.members.iter();
        members
            .map(|(node, known)| RingMember {
                node: *node,
                zone: known.member.zone.clone(),
                vnodes: known.member.vnodes,
            })
            .collect()
    }
}
