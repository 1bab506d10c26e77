//! What changes hands between two rings.

use crate::protocol::ring::Ring;
use crate::types::{NodeId, PartitionId};

/// A partition whose set of primaries differs between two rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: PartitionId,
    /// Primaries of the new ring that the old one did not have, in the new preference order.
    pub gained: Vec<NodeId>,
    /// Primaries of the old ring that the new one does not have, in the old preference order.
    pub lost: Vec<NodeId>,
}

/// The partitions whose primaries differ, in order of their ids.
///
/// A mere change of the preference order moves nothing. A partition that only one of the rings
/// has counts as having no primaries in the other.
pub fn moves(old: &Ring, new: &Ring) -> Vec<Move> {
    (0..old.partitions().max(new.partitions()))
        .map(|partition| PartitionId(partition as u16))
        .map(|partition| Move {
            partition,
            gained: only_in(new.primaries(partition), old.primaries(partition)),
            lost: only_in(old.primaries(partition), new.primaries(partition)),
        })
        .filter(|change| !change.gained.is_empty() || !change.lost.is_empty())
        .collect()
}

fn only_in(these: &[NodeId], those: &[NodeId]) -> Vec<NodeId> {
    these.iter().copied().filter(|node| !those.contains(node)).collect()
}
