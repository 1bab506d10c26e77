//! The order in which nodes answer for a partition.
//!
//! The walk goes clockwise from the partition's start and takes each node at its first token. It
//! goes round twice: first it takes only nodes of zones that it has not met, until there is one
//! of every zone, then the rest. A node without a zone counts as a zone of its own.
//!
//! Without zones, the order of any two nodes depends on their own tokens alone, so a node that
//! joins or leaves shifts the others without reordering them. With zones a joining node may put
//! the node that stood for its zone back among the rest: the others' order may then change, but
//! still none of them becomes primary of anything through a join, nor loses anything through a
//! leave (the tests of this module assert both).

use crate::protocol::ring::Ring;
use crate::types::{NodeId, PartitionId};

/// A partition's whole preference list, produced one node at a time.
pub(super) struct Walk<'a> {
    ring: &'a Ring,
    /// Index of the first claim at or after the partition's start.
    start: usize,
    /// Claims passed since then, in this round.
    passed: usize,
    taken: Vec<bool>,
    members_left: usize,
    zones_met: Vec<bool>,
    zones_left: usize,
}

impl<'a> Walk<'a> {
    /// Starts at a partition of the ring; a partition that it does not have yields no nodes.
    pub(super) fn new(ring: &'a Ring, partition: PartitionId) -> Self {
        let exists = u32::from(partition.0) < ring.partitions();
        let start = if exists { ring.first_claim(partition) } else { 0 };
        Walk {
            ring,
            start,
            passed: 0,
            taken: vec![false; ring.members.len()],
            members_left: if exists { ring.members.len() } else { 0 },
            zones_met: vec![false; ring.zone_count],
            zones_left: ring.zone_count,
        }
    }

    /// The member of the next claim clockwise.
    fn step(&mut self) -> usize {
        let claims = &self.ring.claims;
        let claim = claims[(self.start + self.passed) % claims.len()];
        self.passed += 1;
        claim.member as usize
    }

    fn passes_over(&self, member: usize) -> bool {
        let zone_is_met = self.zones_met[self.ring.zones[member]];
        self.taken[member] || (self.zones_left > 0 && zone_is_met)
    }

    fn take_member(&mut self, member: usize) -> NodeId {
        self.taken[member] = true;
        self.members_left -= 1;
        let met_before = std::mem::replace(&mut self.zones_met[self.ring.zones[member]], true);
        if !met_before {
            self.zones_left -= 1;
            if self.zones_left == 0 {
                self.passed = 0;
            }
        }
        self.ring.members[member].node
    }
}

impl Iterator for Walk<'_> {
    type Item = NodeId;

    /// Ends within two rounds: every member has a claim, and every zone a member.
    fn next(&mut self) -> Option<NodeId> {
        while self.members_left > 0 {
            let member = self.step();
            if !self.passes_over(member) {
                return Some(self.take_member(member));
            }
        }
        None
    }
}
