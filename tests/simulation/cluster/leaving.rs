//! Machines whose nodes leave, or that are lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use coterie::types::NodeId;

use super::Cluster;
use crate::disk::Survival;

/// How far a node is on its way out of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leaving {
    #[default]
    Stays,
    /// It was told to leave.
    Told,
    /// It has left, and its machine is switched off.
    Gone,
    /// Its machine was switched off without a word.
    Burnt,
}

impl Cluster {
    /// Switches a machine off for good: what only its disk had is lost.
    pub(crate) fn burn(&self, machine: usize) {
        *self.hosts[machine].leaving.lock() = Leaving::Burnt;
        self.crash(machine, Survival::Everything);
    }

    /// The nodes of machines that burnt down.
    pub(crate) fn burnt(&self) -> BTreeSet<NodeId> {
        let burnt = self.hosts.iter().filter(|host| *host.leaving.lock() == Leaving::Burnt);
        burnt.filter_map(|host| *host.node_id.lock()).collect()
    }

    /// Notes that the cluster has decided to let a machine's node go.
    pub(crate) fn expect_to_leave(&self, machine: usize) {
        *self.hosts[machine].leaving.lock() = Leaving::Told;
    }

    /// Switches off the machines whose nodes have left.
    pub(crate) fn see_off(&self) {
        for (machine, host) in self.hosts.iter().enumerate() {
            if *host.leaving.lock() == Leaving::Told && self.has_let_go(machine) {
                *host.leaving.lock() = Leaving::Gone;
                self.crash(machine, Survival::Everything);
            }
        }
    }

    /// Whether some other machine knows that a machine's node is no member any more.
    pub(crate) fn has_let_go(&self, machine: usize) -> bool {
        let Some(node_id) = *self.hosts[machine].node_id.lock() else { return false };
        let others = (0..self.hosts.len()).filter(|other| *other != machine);
        let mut others = others.filter_map(|other| self.session(other));
        others.any(|session| session.node.members().is_forgotten(node_id))
    }

    /// Has the cluster not count as settled for as long as what is returned is kept.
    pub(crate) fn change_begins(&self) -> Arc<()> {
        Arc::clone(&self.changes)
    }
}
