//! The rings that follow from the state.

use std::collections::BTreeSet;

use crate::protocol::ring::{Ring, RingError};
use crate::protocol::system::keyspace::Mode;
use crate::protocol::system::placing::{Layout, Rings};
use crate::protocol::system::spread::Factors;
use crate::protocol::system::state::{Standing, SystemState};

impl SystemState {
    /// The ring by which all partitions are to lie, at the state's epoch, for keyspaces of a
    /// replication factor.
    ///
    /// # Errors
    /// [`RingError::ReplicationFactorZero`]; all else was checked when it came in.
    pub fn ring(&self, factor: u32) -> Result<Ring, RingError> {
        Ring::new(self.epoch, self.partitions(), factor, self.placing.target_layout())
    }

    /// What the ring is to be made of.
    pub(super) fn wanted_layout(&self) -> Layout {
        let members = self.members.iter();
        let active = members.filter(|(_, known)| known.standing == Standing::Active);
        active.map(|(node, known)| known.ring_member(*node)).collect()
    }

    /// The replication factors by which rows of leaderless keyspaces lie.
    pub(super) fn factors(&self) -> BTreeSet<Factors> {
        let quorum = self.keyspaces().filter(|keyspace| keyspace.mode == Mode::Quorum);
        quorum.map(|keyspace| keyspace.spread().factors()).collect()
    }

    /// The rings of all layouts in use.
    pub(super) fn rings(&self) -> Rings {
        Rings::new(&self.placing, self.partitions(), &self.factors())
    }
}
