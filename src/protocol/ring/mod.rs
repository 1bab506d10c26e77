//! The ring: which nodes answer for which key (Dynamo, sections 4.2, 4.3 and 6.2, strategy 3).
//!
//! A key has a [`Token`]; the token space is cut into Q equal partitions; members claim tokens
//! with their vnodes; and a partition belongs to the first N distinct nodes met clockwise from
//! its start, spread over zones while there are unused ones. That order, continued past N, is the
//! partition's preference list: the first N are its primaries, the rest its fallbacks.
//!
//! Invariants:
//! * The same members give the same ring, in whatever order they are named.
//! * A preference list names every member once, and its first nodes are of different zones while
//!   there are zones left.
//! * When one node joins, no other node becomes primary of anything, and each partition that it
//!   gains is lost by at most one other; a leave is the same in reverse. This holds with zones
//!   too. A node that changes its zone counts as one that left and another that joined.
//!
//! Caveat: how evenly the load lies depends on Q per node. With N = 3 and 128 vnodes a node's
//! share has a standard deviation of about 32 % / √(Q / nodes), at best about 2 %. At the default
//! Q of 256 that is 4 % for 5 nodes and 7 % for 12, which stay within 15 % and 25 % of the fair
//! share, but 11 % for 32, where single nodes were seen 42 % off: a node then has only 24 places
//! to fill. From Q = 128 × nodes on, all stay within 15 %. Zones of unequal size carry unequal
//! loads, because each zone gets its replica of everything. Figures and advice:
//! `docs/decisions/0001-ring-placement.md`.

mod diff;
mod partitioning;
mod preference;
mod tokens;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Epoch, Key, NodeId, PartitionId, Token};

pub use self::diff::{Move, moves};
pub use self::partitioning::Partitioning;
use self::preference::Walk;
pub use self::tokens::token_of;
use self::tokens::{TOKENS_PER_VNODE, tokens_of};

/// The most partitions that a ring may have: half of what a [`PartitionId`] can name.
pub const PARTITIONS_MAX: u32 = 1 << 15;

/// The most vnodes of one node, 128 times the default; at four tokens of 16 bytes each, 1 MiB.
pub const VNODES_MAX: u32 = 1 << 14;

/// A node that the ring is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingMember {
    /// The node.
    pub node: NodeId,
    /// Whose tokens it claims: its own, or those of the node that it has replaced.
    pub seat: NodeId,
    /// Its failure domain; empty for none, which counts as a zone of its own.
    pub zone: String,
    /// Its virtual nodes: its share of the load is in proportion to them.
    pub vnodes: u32,
}

/// Why no ring can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Partitions are found by shifting tokens, so their number is a power of two.
    #[error("the number of partitions must be a power of two from 1 to 32768, not {got}")]
    PartitionsNotPowerOfTwo {
        /// What was asked for.
        got: u32,
    },
    /// A ring without replicas could hold nothing.
    #[error("the replication factor must be at least 1")]
    ReplicationFactorZero,
    /// A member needs a vnode to be found by, and many cost memory.
    #[error("node {node} has {got} vnodes; a node may have from 1 to {vnodes_max}")]
    VnodesOutOfRange {
        /// The member.
        node: NodeId,
        /// Its vnodes.
        got: u32,
        /// [`VNODES_MAX`].
        vnodes_max: u32,
    },
    /// A member can be there only once.
    #[error("node {node} is named twice")]
    DuplicateNode {
        /// The member.
        node: NodeId,
    },
    /// Tokens can be claimed only once.
    #[error("the tokens of node {seat} are claimed twice")]
    DuplicateSeat {
        /// Whose tokens they are.
        seat: NodeId,
    },
}

impl RingMember {
    /// A node that claims its own tokens.
    pub fn new(node: NodeId, zone: &str, vnodes: u32) -> RingMember {
        RingMember { node, seat: node, zone: zone.to_owned(), vnodes }
    }
}

/// An immutable placement of all partitions over the members.
///
/// Lookups of [`partition_of`](Ring::partition_of) and [`primaries`](Ring::primaries) take a hash,
/// a shift and a slice, and allocate nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    epoch: Epoch,
    partitioning: Partitioning,
    replication_factor: u32,
    /// Sorted by node.
    members: Vec<RingMember>,
    /// The zone of each member, as an index below `zone_count`.
    zones: Vec<usize>,
    zone_count: usize,
    /// Sorted by token, then by member.
    claims: Vec<Claim>,
    /// `replicas_in_effect` nodes for each partition in turn.
    primaries: Vec<NodeId>,
}

impl Ring {
    /// Makes the ring of these members; without members no partition has a primary.
    ///
    /// # Errors
    /// [`RingError`] when `partitions` is not a power of two up to [`PARTITIONS_MAX`],
    /// `replication_factor` is 0, a member's vnodes are 0 or above [`VNODES_MAX`], or a node is
    /// named twice.
    pub fn new(
        epoch: Epoch,
        partitions: u32,
        replication_factor: u32,
        members: &[RingMember],
    ) -> Result<Ring, RingError> {
        let partitioning = Partitioning::new(partitions)?;
        if replication_factor == 0 {
            return Err(RingError::ReplicationFactorZero);
        }
        let members = sorted_members(members)?;
        let (zones, zone_count) = zone_indices(&members);
        let mut ring = Ring {
            epoch,
            partitioning,
            replication_factor,
            claims: sorted_claims(&members),
            members,
            zones,
            zone_count,
            primaries: Vec::new(),
        };
        ring.primaries = ring.all_primaries();
        Ok(ring)
    }

    /// The version of this ring.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Q, the number of partitions.
    pub fn partitions(&self) -> u32 {
        self.partitioning.partitions()
    }

    /// N as configured.
    pub fn replication_factor(&self) -> u32 {
        self.replication_factor
    }

    /// N, or the number of members while there are fewer.
    pub fn replicas_in_effect(&self) -> u32 {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        self.replication_factor.min(members)
    }

    /// The vnodes of all members.
    pub fn vnodes(&self) -> u32 {
        u32::try_from(self.claims.len() / TOKENS_PER_VNODE).unwrap_or(u32::MAX)
    }

    /// The members, sorted by node.
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// Whether the node is a member.
    pub fn contains(&self, node: NodeId) -> bool {
        self.members.binary_search_by_key(&node, |member| member.node).is_ok()
    }

    /// The partition that a key belongs to.
    pub fn partition_of(&self, key: &Key) -> PartitionId {
        self.partition_of_token(token_of(key))
    }

    /// How the token space is cut.
    pub fn partitioning(&self) -> Partitioning {
        self.partitioning
    }

    /// The partition of a key whose tag, if it has one, decides where it lies
    /// ([`Partitioning::of_tagged`]).
    pub fn partition_of_tagged(&self, key: &Key) -> PartitionId {
        self.partitioning.of_tagged(key)
    }

    /// The partition that a token lies in: its uppermost bits.
    pub fn partition_of_token(&self, token: Token) -> PartitionId {
        self.partitioning.of_token(token)
    }

    /// The partition's replicas in preference order: as many as are in effect, or none when the
    /// ring has no such partition.
    pub fn primaries(&self, partition: PartitionId) -> &[NodeId] {
        let replicas = self.replicas_in_effect() as usize;
        let first = usize::from(partition.0) * replicas;
        self.primaries.get(first..first + replicas).unwrap_or(&[])
    }

    /// The rest of the preference list, found as it is asked for.
    pub fn fallbacks(&self, partition: PartitionId) -> impl Iterator<Item = NodeId> + '_ {
        Walk::new(self, partition).skip(self.replicas_in_effect() as usize)
    }

    /// The partitions that the node is a primary of, in order.
    pub fn partitions_of(&self, node: NodeId) -> impl Iterator<Item = PartitionId> + '_ {
        self.partition_ids().filter(move |partition| self.primaries(*partition).contains(&node))
    }

    fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partitions()).map(|partition| PartitionId(partition as u16))
    }

    fn all_primaries(&self) -> Vec<NodeId> {
        let replicas = self.replicas_in_effect() as usize;
        self.partition_ids()
            .flat_map(|partition| Walk::new(self, partition).take(replicas))
            .collect()
    }

    /// Index of the first claim at or after the start of a partition of this ring; one past the
    /// last claim when there is none, from where the walk goes on at the first.
    fn first_claim(&self, partition: PartitionId) -> usize {
        let start = self.partitioning.start_of(partition).0;
        self.claims.partition_point(|claim| claim.token.0 < start)
    }
}

/// One token of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    token: Token,
    /// Index of the member.
    member: u32,
}

fn sorted_members(members: &[RingMember]) -> Result<Vec<RingMember>, RingError> {
    let mut sorted = members.to_vec();
    sorted.sort_by_key(|member| member.node);
    for member in &sorted {
        if member.vnodes == 0 || member.vnodes > VNODES_MAX {
            let (node, got) = (member.node, member.vnodes);
            return Err(RingError::VnodesOutOfRange { node, got, vnodes_max: VNODES_MAX });
        }
    }
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].node == pair[1].node) {
        return Err(RingError::DuplicateNode { node: pair[0].node });
    }
    let mut seats: Vec<NodeId> = sorted.iter().map(|member| member.seat).collect();
    seats.sort_unstable();
    match seats.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(RingError::DuplicateSeat { seat: pair[0] }),
        None => Ok(sorted),
    }
}

/// The zone of each member as a small number, and how many zones there are.
fn zone_indices(members: &[RingMember]) -> (Vec<usize>, usize) {
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    let mut zone_count = 0;
    let mut next = || {
        zone_count += 1;
        zone_count - 1
    };
    let zones = members
        .iter()
        .map(|member| match member.zone.as_str() {
            "" => next(),
            zone => *named.entry(zone).or_insert_with(&mut next),
        })
        .collect();
    (zones, zone_count)
}

fn sorted_claims(members: &[RingMember]) -> Vec<Claim> {
    let mut claims: Vec<Claim> = (members.iter().zip(0..))
        .flat_map(|(member, index)| {
            tokens_of(member.seat, member.vnodes).map(move |token| Claim { token, member: index })
        })
        .collect();
    claims.sort_unstable();
    claims
}

#[cfg(test)]
mod spread_tests;
#[cfg(test)]
mod tests;
