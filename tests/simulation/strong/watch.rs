//! What is seen of the replicas of all groups: everything that changes about one, pass by pass.
//!
//! Nodes are also asked now and then what they say of their groups themselves. That answer is of
//! some moment before it arrives, and judged only once everything is quiet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coterie::node::groups::report::GroupStatus;
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
    /// Asks every node for its groups for ever, at this interval, as an operator does.
    pub(crate) async fn run(self: Arc<Self>, cluster: Arc<Cluster>, interval: Duration) {
        loop {
            self.ask(&cluster).await;
            cluster.agenda.sleep(interval).await;
        }
    }

    async fn ask(&self, cluster: &Cluster) {
        for machine in 0..cluster.shape.machines {
            let Some(session) = cluster.session(machine) else { continue };
            groups(session).await;
        }
    }

    /// Takes note of a replica.
    pub(crate) fn note(&self, sighting: Sighting) {
        self.state.lock().note(sighting);
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

/// The groups of a node; none once it has died.
pub(crate) async fn groups(mut session: Session) -> Vec<GroupStatus> {
    let node = session.node.clone();
    tokio::select! {
        biased;
        () = session.ended() => Vec::new(),
        groups = node.groups() => groups,
    }
}
