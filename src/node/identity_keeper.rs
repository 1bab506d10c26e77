//! The one place that changes the node's identity file.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::ClusterSettings;
use crate::node::assembly::Entry;
use crate::protocol::membership::MemberSet;
use crate::storage::files::Files;
use crate::storage::identity::{Identity, IdentityError};
use crate::types::{Incarnation, NodeId, Timestamp};

/// Holds the identity and keeps its file equal to it.
pub(crate) struct IdentityKeeper {
    files: Arc<dyn Files>,
    identity: Mutex<Identity>,
}

impl IdentityKeeper {
    /// Takes charge of an identity and stores it.
    ///
    /// # Errors
    /// [`IdentityError`] when it cannot be stored.
    pub(crate) fn new(files: Arc<dyn Files>, identity: Identity) -> Result<Self, IdentityError> {
        identity.store(&*files)?;
        Ok(IdentityKeeper { files, identity: Mutex::new(identity) })
    }

    pub(crate) fn node_id(&self) -> NodeId {
        self.identity.lock().node_id
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.identity.lock().incarnation
    }

    pub(crate) fn generation(&self) -> u64 {
        self.identity.lock().generation
    }

    pub(crate) fn cluster(&self) -> Option<ClusterSettings> {
        self.identity.lock().cluster.clone()
    }

    pub(crate) fn members(&self) -> MemberSet {
        self.identity.lock().members.clone()
    }

    /// Up to which stamp nothing new is taken any more.
    pub(crate) fn reap_fence(&self) -> Timestamp {
        self.identity.lock().reap_fence
    }

    /// Whether this node founded its cluster.
    pub(crate) fn is_founder(&self) -> bool {
        self.identity.lock().founder
    }

    /// Keeps the cluster that the node belongs to, and whether it founded it.
    pub(crate) fn keep_cluster(
        &self,
        cluster: ClusterSettings,
        entry: Entry,
    ) -> Result<(), IdentityError> {
        self.change(|identity| {
            identity.cluster = Some(cluster);
            identity.founder |= entry == Entry::Founding;
        })
    }

    /// Keeps the member set, if it differs from the one kept.
    pub(crate) fn keep_members(&self, members: MemberSet) -> Result<(), IdentityError> {
        self.change(|identity| identity.members = members)
    }

    /// Keeps that the node has refilled.
    pub(crate) fn keep_complete(&self) -> Result<(), IdentityError> {
        self.change(|identity| identity.rebuilding = false)
    }

    /// Keeps a stamp below which the node will never stamp again.
    pub(crate) fn keep_clock_floor(&self, floor: Timestamp) -> Result<(), IdentityError> {
        self.change(|identity| identity.clock_floor = identity.clock_floor.max(floor))
    }

    /// Keeps up to which stamp nothing new is taken any more.
    pub(crate) fn keep_reap_fence(&self, at: Timestamp) -> Result<(), IdentityError> {
        self.change(|identity| identity.reap_fence = identity.reap_fence.max(at))
    }

    /// Keeps that the rows are of no use.
    pub(crate) fn keep_outdated(&self) -> Result<(), IdentityError> {
        self.change(|identity| identity.outdated = true)
    }

    fn change(&self, change: impl FnOnce(&mut Identity)) -> Result<(), IdentityError> {
        let mut identity = self.identity.lock();
        let mut next = identity.clone();
        change(&mut next);
        if next != *identity {
            next.store(&*self.files)?;
            *identity = next;
        }
        Ok(())
    }
}
