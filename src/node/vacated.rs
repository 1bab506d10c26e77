//! Drops the rows of partitions that have moved away from this node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::node::committer::{Committer, ReplyTo};
use crate::node::env::{Env, run_blocking};
use crate::node::pages::Place;
use crate::node::tasks::Stop;
use crate::node::topology::{Placement, Topology, TopologyCell};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::system::placing::partition_ids;
use crate::storage::store::Store;
use crate::storage::wal::LogRecord;
use crate::telemetry::Metrics;
use crate::types::{Epoch, NodeId, PartitionId};

/// How long it is waited after a change of the ring: a partition that has just moved is not looked
/// for at once by everybody.
const REST: Duration = Duration::from_secs(2);

/// Drops what this node does not own any more.
pub(crate) struct Vacated {
    pub(crate) own: NodeId,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) store: Arc<Store>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) woken: Notify,
}

impl Vacated {
    /// Looks after each change of the ring, until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        let mut seen = Epoch(0);
        while !stop.is_requested() {
            let topology = self.topology.load();
            if topology.is_admitted && topology.epoch != seen {
                seen = topology.epoch;
                tokio::select! { biased;
                    () = stop.requested() => return,
                    () = self.env.sleep_until(self.env.now() + REST) => {}
                }
                tokio::select! { biased;
                    () = stop.requested() => return,
                    () = self.sweep() => {}
                }
                continue;
            }
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.woken.notified() => {}
            }
        }
    }

    /// Looks soon whether there is something to drop.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    async fn sweep(&self) {
        let topology = self.topology.load();
        for place in vacant(&topology, self.own) {
            let store = Arc::clone(&self.store);
            let first = run_blocking(&*self.env, move || store.scan(place.0, place.1, None, 1));
            match first.await {
                Ok(page) if page.rows.is_empty() => {}
                Ok(_) => self.drop_rows(place),
                Err(error) => tracing::warn!(%error, "rows of a former partition stay"),
            }
        }
    }

    /// Has the log say that the rows are gone, unless the ring has changed its mind: no write of a
    /// partition is taken before the ring says that it is this node's, so none can come in between.
    fn drop_rows(&self, (keyspace, partition): Place) {
        self.topology.with(|topology| {
            let owns = |placement: &Placement| owns(placement, self.own, partition);
            if topology.placement(keyspace).is_none_or(owns) {
                return;
            }
            let record = LogRecord::DropPartition(keyspace, partition);
            match self.committer.submit_group(vec![record], ReplyTo::Nobody) {
                Ok(()) => drop(self.metrics.partitions_dropped.inc()),
                Err(error) => tracing::debug!(%error, "rows of a former partition stay for now"),
            }
        });
    }
}

/// Partitions of leaderless keyspaces that are not this node's.
fn vacant(topology: &Topology, own: NodeId) -> Vec<Place> {
    let mut places = Vec::new();
    for (keyspace, placement) in topology.placements() {
        let all = partition_ids(topology.ring.partitions());
        let theirs = all.filter(|partition| !owns(placement, own, *partition));
        places.extend(theirs.map(|partition| (keyspace, partition)));
    }
    places
}

fn owns(placement: &Placement, own: NodeId, partition: PartitionId) -> bool {
    if planted(Planted::DroppedWhileMoving) {
        return placement.write_rings(partition).present.primaries(partition).contains(&own);
    }
    placement.owns(own, partition)
}
