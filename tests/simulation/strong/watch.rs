//! Looks at every node's groups all the time, and keeps what changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coterie::node::groups::report::GroupStatus;
use coterie::protocol::raft::Role;
use coterie::types::{GroupId, LogIndex, Moment, NodeId, ReplicaId, Term};
use parking_lot::Mutex;

use crate::cluster::{Cluster, Session};

/// A replica as it was seen at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) at: Moment,
    pub(crate) node: NodeId,
    /// Which life of its machine it was.
    pub(crate) life: u64,
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) leads: bool,
    pub(crate) term: Term,
    pub(crate) commit: LogIndex,
    pub(crate) applied: LogIndex,
}

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Watch {
    state: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    sightings: Vec<Sighting>,
    last: BTreeMap<(NodeId, GroupId), Sighting>,
}

impl Watch {
    /// Looks for ever, at this interval.
    pub(crate) async fn run(self: Arc<Self>, cluster: Arc<Cluster>, interval: Duration) {
        loop {
            self.look(&cluster).await;
            cluster.agenda.sleep(interval).await;
        }
    }

    async fn look(&self, cluster: &Cluster) {
        for machine in 0..cluster.shape.machines {
            let Some(session) = cluster.session(machine) else { continue };
            let (node, life) = (session.node.facts().node_id, cluster.machine(machine).life());
            let seen = groups(session).await;
            let at = cluster.agenda.now();
            let mut state = self.state.lock();
            seen.iter().for_each(|status| state.note(sighting(status, at, node, life)));
        }
    }

    pub(crate) fn sightings(&self) -> Vec<Sighting> {
        self.state.lock().sightings.clone()
    }
}

impl Seen {
    fn note(&mut self, sighting: Sighting) {
        let place = (sighting.node, sighting.group);
        let same = |last: &Sighting| Sighting { at: last.at, ..sighting } == *last;
        if !self.last.get(&place).is_some_and(same) {
            self.last.insert(place, sighting);
            self.sightings.push(sighting);
        }
    }
}

fn sighting(status: &GroupStatus, at: Moment, node: NodeId, life: u64) -> Sighting {
    Sighting {
        at,
        node,
        life,
        group: status.group,
        replica: status.replica,
        leads: status.role == Role::Leader,
        term: status.term,
        commit: status.commit,
        applied: status.applied,
    }
}

/// The groups of a node; none once it has died.
pub(crate) async fn groups(mut session: Session) -> Vec<GroupStatus> {
    let node = session.node.clone();
    tokio::select! {
        biased;
        () = session.ended() => Vec::new(),
        groups = node.groups() => groups,
    }
}
