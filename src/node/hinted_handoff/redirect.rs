//! Hints whose target does not own the key any more: those who do get them.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::node::committer::ReplyTo;
use crate::node::env::run_blocking;
use crate::node::gate::Turned;
use crate::node::hinted_handoff::{HINT_TIME_LEFT, HintedHandoff};
use crate::node::topology::Topology;
use crate::protocol::message::{Class, Refusal};
use crate::protocol::planted::{Planted, planted};
use crate::storage::hint_log::HintLogError;
use crate::types::{NodeId, Row};

impl HintedHandoff {
    /// Gives a hint to those who own its key now, and lets go of it once that is durable.
    pub(super) async fn redirect(
        &self,
        target: NodeId,
        id: u64,
        row: &Row,
        owners: Vec<NodeId>,
    ) -> Result<(), HintLogError> {
        if !planted(Planted::HintOfFormerOwnerDropped) {
            for owner in owners {
                if owner != self.gate.own {
                    self.append(owner, row.clone());
                } else if let Err(error) = self.take_here(row).await {
                    tracing::debug!(%error, "a hint stays: its row cannot be taken now");
                    self.with_lane(target, |delivery, now| delivery.on_unsent(id, now));
                    return Ok(());
                }
            }
            let log = Arc::clone(&self.log);
            run_blocking(&*self.env, move || log.flush(true)).await?;
        }
        let now = self.env.now();
        if let Some(lane) = self.lanes.lock().get_mut(&target) {
            lane.finish(id, now);
        }
        self.metrics.hints_redirected.inc();
        Ok(())
    }

    async fn take_here(&self, row: &Row) -> Result<(), Refusal> {
        let topology = self.gate.topology.load();
        let (partition, epoch) = (topology.ring.partition_of(&row.key), topology.epoch);
        let (sender, durable) = oneshot::channel();
        let waiter = ReplyTo::Waiter(sender);
        let taken =
            self.gate.write(row.clone(), partition, epoch, (Class::Hint, HINT_TIME_LEFT), waiter);
        taken.map_err(Turned::refusal)?;
        durable.await.unwrap_or(Err(Refusal::NotServing))
    }
}

/// Whether the target owns the key of a row and is about to give it up: what it gets now, those
/// who take the partition over may have gone past.
pub(super) fn is_given_up(topology: &Topology, target: NodeId, row: &Row) -> bool {
    topology.placement(row.keyspace).is_some_and(|placement| {
        placement.is_given_up_by(target, placement.ring.partition_of(&row.key))
    })
}

/// Who owns the key of a row, or is to, if its target does not any more.
pub(super) fn others_own(topology: &Topology, target: NodeId, row: &Row) -> Option<Vec<NodeId>> {
    let placement = topology.placement(row.keyspace)?;
    let partition = placement.ring.partition_of(&row.key);
    let owners = placement.keepers(partition);
    (!owners.is_empty() && !owners.contains(&target)).then_some(owners)
}
