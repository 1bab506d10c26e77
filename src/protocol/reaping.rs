//! When tombstones and expired values may go for good.
//!
//! A tombstone must stay as long as anything older may still arrive that it has to beat. A *reap
//! floor* ends that: a stamp of a partition up to which all its owners hold the same rows, and
//! below which nothing new is taken in any more. Tombstones at or below it, and values that had
//! expired by then, are as good as absent on every owner, and their room is freed when there is
//! time. `docs/semantics.md` has the argument.
//!
//! Three things make a floor:
//!
//! 1. Each owner *promises*, durably, to take no new write and no hint at or below its fence:
//!    [`fence`], `--reap-after` behind its clock, and so behind anything that a client still waits
//!    for and any hint that is still kept.
//! 2. Each pair of owners then compares its rows and mends what differs. An exchange that was begun
//!    under both promises and ended well has *shared* everything at or below the lower fence
//!    ([`Shares`]).
//! 3. Once all owners have told so of all their pairs, the system group decides on the floor, under
//!    a new epoch.
//!
//! From then on a row at or below the floor is taken only from whoever has read it under that epoch
//! or a later one ([`ReapFloor::outdates`]).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::exchange::schedule::Pair;
use crate::protocol::version::dvv::Siblings;
use crate::types::{Epoch, Incarnation, Merge, PartitionId, Record, Timestamp, Version};

/// In how many steps a fence comes as far as `--reap-after`: it is kept on disk with each.
pub const FENCE_STEPS: u32 = 16;

/// Up to where the owners of a partition share everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReapFloor {
    /// Rows with stamps up to this one are shared; zero for none.
    pub at: Timestamp,
    /// The epoch in which that was decided.
    pub epoch: Epoch,
}

impl ReapFloor {
    /// Whether a record is absent for good: a tombstone, or a value that had expired by the time of
    /// the floor, so that no clock of any node can still take it for living.
    pub fn reaps(&self, record: &Record) -> bool {
        let had_expired = record.is_expired(self.at.wall_ms());
        self.covers(record) && (record.value.is_none() || had_expired)
    }

    /// Whether a record is at or below the floor.
    pub fn covers(&self, record: &Record) -> bool {
        record.version.timestamp <= self.at
    }

    /// Whether a record that was read, or written, under some epoch may be of what was reaped
    /// since.
    pub fn outdates(&self, record: &Record, epoch: Epoch) -> bool {
        self.covers(record) && epoch < self.epoch
    }
}

/// The stamp at and below which a node that reaps after some time takes nothing new: that much
/// behind its clock, rounded down to a sixteenth of it. Zero, which is below every stamp, for a
/// node that never reaps.
pub fn fence(wall_ms: u64, reap_after: Duration) -> Timestamp {
    let after_ms = u64::try_from(reap_after.as_millis()).unwrap_or(u64::MAX);
    let step_ms = after_ms / u64::from(FENCE_STEPS);
    match wall_ms.saturating_sub(after_ms).checked_div(step_ms) {
        Some(steps) => Timestamp::from_wall_ms(steps * step_ms),
        None => Timestamp::default(),
    }
}

/// What hides a row that is left over from before its partition was lost, in the replica that has
/// it and nowhere else, as it lies below the same floor: a tombstone that beats it by a hair, or
/// where rows are joined, the row without its values.
pub fn burial(merge: Merge, record: &Record) -> Record {
    let siblings = merge.joins().then(|| Siblings::of_record(record).ok()).flatten();
    let Version { timestamp, .. } = record.version;
    let tombstone = Record::new(Version { timestamp, incarnation: Incarnation(u64::MAX) }, None);
    siblings.and_then(|row| row.emptied().to_record()).unwrap_or(tombstone)
}

/// What one replica shares with others, by pair.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    pairs: BTreeMap<Pair, Share>,
}

/// Up to where rows are shared, and since which epoch those who share them own them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Rows with stamps up to this one.
    pub at: Timestamp,
    /// The epoch under which the exchange began that showed it.
    pub epoch: Epoch,
}

impl Share {
    fn least(self, other: Share) -> Share {
        Share { at: self.at.min(other.at), epoch: self.epoch.min(other.epoch) }
    }
}

impl Shares {
    /// An exchange of a pair ended well.
    pub fn note(&mut self, pair: Pair, share: Share) {
        self.pairs.insert(pair, share);
    }

    /// Forgets pairs that there are not any more.
    pub fn retain(&mut self, is_pair: impl Fn(&Pair) -> bool) {
        self.pairs.retain(|pair, _| is_pair(pair));
    }

    /// What this node can say of each of its partitions: what it shares with all of those that it
    /// is the one to compare with. `own` is what it can say of one that it compares with nobody.
    pub fn of_partitions(
        &self,
        partitions: impl Iterator<Item = PartitionId>,
        compared: impl Iterator<Item = Pair>,
        own: Share,
    ) -> BTreeMap<PartitionId, Share> {
        let mut shared: BTreeMap<PartitionId, Share> = partitions.map(|it| (it, own)).collect();
        for pair in compared {
            let with_peer = self.pairs.get(&pair);
            match (shared.get_mut(&pair.partition), with_peer) {
                (Some(shared), Some(with_peer)) => *shared = shared.least(*with_peer),
                _ => drop(shared.remove(&pair.partition)),
            }
        }
        shared
    }
}

#[cfg(test)]
mod tests;
