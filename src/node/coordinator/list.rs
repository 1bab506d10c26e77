//! One page of a partition of a leaderless keyspace, by a quorum of its replicas.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::node::coordinator::{Coordinator, placement};
use crate::node::lists::{Lists, Subject};
use crate::node::request::{RequestError, RequestOptions};
use crate::protocol::message::{Class, ListRange, Refusal};
use crate::protocol::quorum::QuorumError;
use crate::protocol::quorum::listing::{ListSetup, Merged};
use crate::types::{Key, KeyspaceId, Moment, PartitionId};

/// A page takes longer than the reads that latencies are measured by: another replica is not asked
/// before this.
const HEDGE_LEAST: Duration = Duration::from_millis(100);

/// How long is waited before replicas that do not serve yet are asked again.
const BACK_OFF: Duration = Duration::from_millis(30);

/// Keys of one page that are read once more because a replica is stale for them.
const STALE_READ_MAX: usize = 32;

impl Coordinator {
    /// A page of a partition, deleted rows included.
    ///
    /// # Errors
    /// Any [`RequestError`] of a read.
    pub(crate) async fn list(
        &self,
        lists: &Arc<Lists>,
        (keyspace, partition): (KeyspaceId, PartitionId),
        range: ListRange,
        (options, deadline): (&RequestOptions, Moment),
    ) -> Result<Merged, RequestError> {
        let started = self.env.now();
        loop {
            let topology = self.topology.load();
            let placement = placement(&topology, keyspace, options)?;
            let ring = placement.read_ring(partition);
            let required = placement.read_quorum(ring, options)?;
            let mut primaries = self.primaries(&topology.up, ring, partition);
            let hedge_after = self.order(&mut primaries, required, started);
            let hedge_after = hedge_after.map(|after| after.max(HEDGE_LEAST));
            let merge = keyspace.merge();
            let setup = ListSetup { primaries, required, merge, hedge_after, deadline };
            let (epoch, range) = (topology.epoch, range.clone());
            let subject = Subject { keyspace, partition, epoch, range };
            let error = match lists.gather(setup, subject).await {
                Ok(merged) => return Ok(merged),
                Err(error) => error,
            };
            let again = match &error {
                error if error.is_by_stale_ring() => self.hears_news(epoch, deadline).await,
                error => is_early(error) && self.backs_off(deadline).await,
            };
            if !again {
                return Err(self.fail(error, started));
            }
        }
    }

    async fn backs_off(&self, deadline: Moment) -> bool {
        self.env.sleep_until((self.env.now() + BACK_OFF).min(deadline)).await;
        self.env.now() < deadline
    }

    /// Reads keys once more that a replica was stale for, so that it is repaired; not all of many,
    /// and none while there is more urgent work.
    pub(crate) async fn read_again(
        &self,
        keyspace: KeyspaceId,
        keys: BTreeSet<Key>,
        options: &RequestOptions,
    ) {
        for key in keys.into_iter().take(STALE_READ_MAX) {
            if !self.gate.replica.admission.admits(Class::Repair) {
                return;
            }
            // Whatever comes of it: the next listing, or read, finds the key again.
            let _read = self.read(keyspace, key, options).await;
        }
    }
}

/// Whether a replica may only not have heard of the keyspace or the ring yet.
fn is_early(error: &QuorumError) -> bool {
    let QuorumError::Failed { refusals, .. } = error else { return false };
    refusals.iter().any(|(_, refusal)| *refusal == Refusal::NotServing)
}
