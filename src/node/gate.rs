//! What stands between requests and this node's rows: requests that were made by an older ring and
//! would do harm are turned away, those that were made by a newer one wait for its news.
//!
//! A write is judged and queued in one step that no change of the ring comes in between. So once a
//! node has heard that a partition moves, and has let what it had queued by then become visible, it
//! holds every write that it will ever take under the old owners.

use std::sync::Arc;
use std::time::Duration;

use crate::node::aside::Aside;
use crate::node::committer::{Mint, ReplyTo};
use crate::node::coordinator::Owner;
use crate::node::env::Env;
use crate::node::local::Local;
use crate::node::reaping::Fence;
use crate::node::replica::{Lookup, Replica};
use crate::node::tasks::Tasks;
use crate::node::topology::{Access, Admission, Topology, TopologyCell};
use crate::protocol::message::{Class, Found, List, Refusal};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::reaping::ReapFloor;
use crate::types::{Epoch, Key, KeyspaceId, NodeId, PartitionId, Record, Row};

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
    pub(crate) fence: Arc<Fence>,
    env: Arc<dyn Env>,
    aside: Arc<Aside>,
}

impl Gate {
    /// The way to the rows of a node.
    pub(crate) fn new(
        own: NodeId,
        topology: &Arc<TopologyCell>,
        local: &Local,
        fence: Fence,
        tasks: &Arc<Tasks>,
    ) -> Gate {
        Gate {
            own,
            topology: Arc::clone(topology),
            replica: Arc::clone(&local.replica),
            fence: Arc::new(fence),
            env: Arc::clone(&local.env),
            aside: Aside::new(&local.env, tasks, &local.metrics),
        }
    }

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
            let is_new = is_new(&reply_to);
            self.check_age(topology.reap_floor(partition), &row.record, epoch, is_new)?;
            if class == Class::Hint && self.is_too_late(topology, partition, &row.record) {
                self.replica.metrics.late_hints_dropped.inc();
                let done = self.replica.committer.submit_group(Vec::new(), reply_to);
                return done.map_err(Turned::Away);
            }
            let taken = self.replica.write(row, partition, time_left, class, reply_to);
            taken.map_err(Turned::Away)
        })
    }

    /// Queues a write that is to be minted into a row of this node, if it owns it by the ring.
    pub(crate) fn mint(
        &self,
        place: (KeyspaceId, PartitionId),
        mint: (Key, Mint),
        epoch: Epoch,
        time_left: Duration,
        reply_to: ReplyTo,
    ) -> Result<(), Turned> {
        if !mint.1.change.fits(place.0.merge()) {
            return Err(Turned::Away(Refusal::NotServing));
        }
        // The stamp that it gets must lie above what this node has promised.
        let promised = self.replica.clock.observe(self.fence.promised());
        promised.map_err(|_| Turned::Away(Refusal::ClockOffset))?;
        self.topology.with(|topology| {
            judge(topology.admits(self.own, Access::Write, place, epoch))?;
            self.replica.mint(place, mint, time_left, reply_to).map_err(Turned::Away)
        })
    }

    /// Refuses what may be older than deletes that were reaped: rows that were read, or written,
    /// before their partition's floor was decided, and new writes from below this node's fence.
    pub(crate) fn check_age(
        &self,
        floor: ReapFloor,
        record: &Record,
        epoch: Epoch,
        is_new: bool,
    ) -> Result<(), Turned> {
        if floor.outdates(record, epoch) {
            self.replica.metrics.outdated_writes_refused.inc();
            return Err(Turned::Away(Refusal::StaleRing));
        }
        if is_new && record.version.timestamp <= self.fence.promised() {
            self.replica.metrics.outdated_writes_refused.inc();
            return Err(Turned::Away(Refusal::ClockOffset));
        }
        Ok(())
    }

    /// Whether a hint is so old that what it says may have been deleted, and the delete reaped.
    /// Whoever the floor was decided with has what it says, or something newer.
    fn is_too_late(&self, topology: &Topology, partition: PartitionId, record: &Record) -> bool {
        let floor = topology.reap_floor(partition).at.max(self.fence.promised());
        record.version.timestamp <= floor && !planted(Planted::HintsPassTheFloor)
    }

    /// What this node holds for a key, if it answers for it by the ring; `None` where finding it
    /// may wait for the disk: then [`Gate::read_behind`] does.
    pub(crate) fn read(&self, lookup: &Lookup) -> Result<Option<Found>, Turned> {
        self.judge_read(lookup)?;
        self.replica.read_at_once(lookup).map_err(Turned::Away)
    }

    /// The same, however long it takes, off the threads that serve.
    pub(crate) async fn read_aside(self: &Arc<Self>, lookup: Lookup) -> Result<Found, Turned> {
        let gate = Arc::clone(self);
        let read = move || {
            gate.judge_read(&lookup)?;
            let found = gate.replica.read(&lookup).map_err(Turned::Away)?;
            // The rows may have gone to others meanwhile, and from here.
            gate.judge_read(&lookup)?;
            Ok(found)
        };
        self.aside.read(read).await
    }

    /// Reads aside in its turn, if anybody waits for it then, and hands on what is found.
    pub(crate) fn read_behind(
        self: &Arc<Self>,
        lookup: Lookup,
        then: impl FnOnce(Result<Found, Turned>) + Send + 'static,
    ) {
        let Some(turn) = self.aside.turn() else {
            return then(Err(Turned::Away(Refusal::Overloaded)));
        };
        let gate = Arc::clone(self);
        turn.take(async move {
            let found = match gate.env.now() < lookup.deadline {
                true => gate.read_aside(lookup).await,
                false => Err(Turned::Away(Refusal::Expired)),
            };
            then(found);
        });
    }

    fn judge_read(&self, lookup: &Lookup) -> Result<(), Turned> {
        let rows = (lookup.keyspace, lookup.partition);
        let admitted = |it: &Topology| it.admits(self.own, Access::Read, rows, lookup.epoch);
        judge(self.topology.with(admitted))
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

/// Whether a row is a client's write on its way to its replicas, and not a copy of one.
fn is_new(reply_to: &ReplyTo) -> bool {
    let (ReplyTo::Own(request, _) | ReplyTo::Peer(_, request, _)) = reply_to else { return false };
    matches!(Owner::of(*request), Some((Owner::Write, _)))
}

/// What becomes of a request that the topology has judged.
pub(crate) fn judge(admission: Admission) -> Result<(), Turned> {
    match admission {
        Admission::Serve => Ok(()),
        Admission::Early => Err(Turned::Early),
        Admission::Stale => Err(Turned::Away(Refusal::StaleRing)),
    }
}
