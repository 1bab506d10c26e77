//! What stands between requests and this node's rows: requests that were made by an older ring and
//! would do harm are turned away, those that were made by a newer one wait for its news.
//!
//! A write is judged and queued in one step that no change of the ring comes in between. So once a
//! node has heard that a partition moves, and has let what it had queued by then become visible, it
//! holds every write that it will ever take under the old owners.

use std::sync::Arc;
use std::time::Duration;

use crate::node::committer::ReplyTo;
use crate::node::replica::Replica;
use crate::node::topology::{Access, Admission, Topology, TopologyCell};
use crate::protocol::message::{Class, Found, List, Refusal, Want};
use crate::types::{Epoch, Key, KeyspaceId, NodeId, PartitionId, Row};

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It may be right, by a ring that this node has not heard of yet.
    Early,
    /// It is refused.
    Away(Refusal),
}

/// Lets requests through to this node's rows.
pub(crate) struct Gate {
    pub(crate) own: NodeId,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) replica: Arc<Replica>,
}

impl Gate {
    /// Queues a row for the log, if this node owns it by the ring; `reply_to` hears what becomes
    /// of it.
    pub(crate) fn write(
        &self,
        row: Row,
        partition: PartitionId,
        epoch: Epoch,
        (class, time_left): (Class, Duration),
        reply_to: ReplyTo,
    ) -> Result<(), Turned> {
        self.topology.with(|topology| {
            let rows = (row.keyspace, partition);
            judge(topology.admits(self.own, Access::Write, rows, epoch))?;
            let taken = self.replica.write(row, partition, time_left, class, reply_to);
            taken.map_err(Turned::Away)
        })
    }

    /// What this node holds for a key, if it answers for it by the ring.
    pub(crate) fn read(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
        epoch: Epoch,
        want: Want,
    ) -> Result<Found, Turned> {
        let rows = (keyspace, partition);
        let admitted = |it: &Topology| it.admits(self.own, Access::Read, rows, epoch);
        judge(self.topology.with(admitted))?;
        self.replica.read(keyspace, partition, key, want).map_err(Turned::Away)
    }
}

impl Gate {
    /// Whether this node answers for the rows that are to be listed, and has them all.
    pub(crate) fn admits_list(&self, list: &List) -> Result<(), Turned> {
        let List { keyspace, partition, epoch, .. } = *list;
        self.topology.with(|topology| {
            topology.check_keyspace(keyspace).map_err(Turned::Away)?;
            judge(topology.admits(self.own, Access::Read, (keyspace, partition), epoch))
        })?;
        match self.replica.is_complete() {
            true => Ok(()),
            false => Err(Turned::Away(Refusal::NotServing)),
        }
    }
}

impl Turned {
    /// What whoever does not wait for news is told.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Turned::Early => Refusal::NotServing,
            Turned::Away(refusal) => refusal,
        }
    }
}

/// What becomes of a request that the topology has judged.
pub(crate) fn judge(admission: Admission) -> Result<(), Turned> {
    match admission {
        Admission::Serve => Ok(()),
        Admission::Early => Err(Turned::Early),
        Admission::Stale => Err(Turned::Away(Refusal::StaleRing)),
    }
}
