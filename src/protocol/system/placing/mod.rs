//! Where the partitions are, where they are to go, and how far each is on its way.
//!
//! A [`Layout`] is what a ring is made of. Every partition lies as some layout says, and all of
//! them are to lie as the *target* says. A partition moves in steps, each decided by the system
//! group:
//!
//! | step | writes go to | reads ask | left when |
//! |---|---|---|---|
//! | at rest | its owners | its owners | the move is prepared |
//! | [`Step::Copying`] | old and new owners, W of each | the old owners | every new owner has all |
//! | [`Step::Serving`] | old and new owners, W of each | the new owners | nobody reads as before |
//! | at rest again | the new owners | the new owners | |
//!
//! Requests carry the epoch that their coordinator had heard of. A replica refuses what was decided
//! before the partition's *fence*: writes that went to the old owners alone once these are being
//! copied, and reads that asked the old owners for these alone, or once the new ones answer. A read
//! at a majority is *for* both sets: it leaves what it answers with as many of each, as a write
//! does, so that no later read goes back. So a coordinator that has
//! not heard of a step can do no harm: what it still gets acknowledged, it got from owners that had
//! not heard either, and that no copy was taken of since.
//!
//! Invariants:
//! * A partition has at most one move under way, and is read from one set of owners at any epoch.
//! * A move ends where its layout says, or, while it still copies, where it began; the target may
//!   change meanwhile, and the partition then moves again.
//! * A layout stands for one N of each keyspace: when N is changed, everything goes over to a new
//!   layout, be it of the same members.
//! * The epoch grows with every step, and a partition's fences never fall.

mod moves;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::protocol::ring::{Move, Ring, RingMember};
use crate::protocol::system::spread::Factors;
use crate::types::{Epoch, NodeId, PartitionId};

/// A layout's number; later ones are higher.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LayoutId(pub u64);

/// What a ring is made of, sorted by node.
pub type Layout = Vec<RingMember>;

/// How far a partition's move is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// New owners take the rows over.
    Copying {
        /// Those that do not have all of them yet.
        waiting: BTreeSet<NodeId>,
    },
    /// The new owners answer reads.
    Serving {
        /// Since this epoch.
        since: Epoch,
    },
}

/// A partition on its way to another layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// The layout.
    pub to: LayoutId,
    /// The epoch in which the move was prepared.
    pub since: Epoch,
    /// How far it is.
    pub step: Step,
}

/// Where a partition is that does not lie where most do, or moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    at: LayoutId,
    fence: Epoch,
    moving: Option<Moving>,
}

/// Where all partitions are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placing {
    layouts: BTreeMap<LayoutId, Layout>,
    /// Where the partitions lie that `places` does not name.
    settled: LayoutId,
    target: LayoutId,
    /// The fence of the partitions that `places` does not name.
    fence: Epoch,
    /// The first layout of the present N of every keyspace: none before it becomes the target.
    #[serde(default)]
    oldest_target: LayoutId,
    places: BTreeMap<PartitionId, Place>,
}

/// Where one partition is, as requests need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The layout of its present owners.
    pub at: LayoutId,
    /// The layout that it moves to, and whether reads ask the owners there already.
    pub next: Option<(LayoutId, bool)>,
    /// Writes that were decided before this epoch are refused.
    pub write_fence: Epoch,
    /// Reads that were decided before this epoch are refused.
    pub read_fence: Epoch,
}

impl Located {
    /// The layout whose owners answer reads.
    pub fn read_layout(&self) -> LayoutId {
        match self.next {
            Some((to, true)) => to,
            _ => self.at,
        }
    }
}

impl Placing {
    /// Everything lies as this layout says.
    pub fn at_rest(layout: Layout) -> Placing {
        let first = LayoutId(1);
        Placing {
            layouts: BTreeMap::from([(first, layout)]),
            settled: first,
            target: first,
            fence: Epoch(0),
            oldest_target: first,
            places: BTreeMap::new(),
        }
    }

    /// The layouts that some partition lies by, or moves to, and the target.
    pub fn layouts(&self) -> &BTreeMap<LayoutId, Layout> {
        &self.layouts
    }

    /// The layout that all partitions are to lie by.
    pub fn target(&self) -> LayoutId {
        self.target
    }

    /// Whether a keyspace has got another N since the target was made.
    pub(super) fn is_target_outdated(&self) -> bool {
        self.target < self.oldest_target
    }

    /// The members of the target.
    pub fn target_layout(&self) -> &Layout {
        let target = self.layouts.get(&self.target);
        target.expect("invariant: the target's layout is kept")
    }

    /// Whether every partition lies where it is to lie.
    pub fn is_settled(&self) -> bool {
        self.settled == self.target && self.places.is_empty()
    }

    /// Where a partition is.
    pub fn locate(&self, partition: PartitionId) -> Located {
        let Some(place) = self.places.get(&partition) else {
            let (at, fence) = (self.settled, self.fence);
            return Located { at, next: None, write_fence: fence, read_fence: fence };
        };
        let mut located =
            Located { at: place.at, next: None, write_fence: place.fence, read_fence: place.fence };
        if let Some(moving) = &place.moving {
            let serving = matches!(moving.step, Step::Serving { .. });
            located.next = Some((moving.to, serving));
            located.write_fence = moving.since;
            located.read_fence = match moving.step {
                Step::Copying { .. } => moving.since,
                Step::Serving { since } => since,
            };
        }
        located
    }

    /// The moves under way, with where each partition comes from.
    pub fn moving(&self) -> impl Iterator<Item = (PartitionId, LayoutId, &Moving)> {
        self.places.iter().filter_map(|(partition, place)| {
            place.moving.as_ref().map(|moving| (*partition, place.at, moving))
        })
    }

    /// Partitions that have neither arrived where they are to lie nor set out.
    pub fn unmoved(&self, partitions: u32) -> impl Iterator<Item = PartitionId> + '_ {
        partition_ids(partitions).filter(|partition| match self.places.get(partition) {
            None => self.settled != self.target,
            Some(place) => place.moving.is_none() && place.at != self.target,
        })
    }

    /// How many partitions are not yet where they are to lie.
    pub fn unsettled(&self, partitions: u32) -> usize {
        self.unmoved(partitions).count() + self.moving().count()
    }

    /// Whether a node is in any layout that is in use.
    pub fn names(&self, node: NodeId) -> bool {
        self.layouts.values().flatten().any(|member| member.node == node)
    }
}

/// All partitions of a ring of so many.
pub fn partition_ids(partitions: u32) -> impl Iterator<Item = PartitionId> + use<> {
    (0..partitions).map(|partition| PartitionId(partition as u16))
}

/// The rings of all layouts, for one replication factor after another.
pub(super) struct Rings {
    by_factor: Vec<BTreeMap<LayoutId, Ring>>,
}

impl Rings {
    /// # Panics
    /// If a layout makes no ring: its members were checked when they came in.
    pub(super) fn new(placing: &Placing, partitions: u32, factors: &BTreeSet<Factors>) -> Rings {
        let of_factor = |factors: &Factors| {
            let ring = |id: LayoutId, layout: &Layout| {
                Ring::new(Epoch(0), partitions, factors.on(id), layout)
                    .expect("invariant: members and factors were checked when they came in")
            };
            placing.layouts.iter().map(|(id, layout)| (*id, ring(*id, layout))).collect()
        };
        Rings { by_factor: factors.iter().map(of_factor).collect() }
    }

    /// The owners of a partition by a layout, for each factor.
    fn owners(
        &self,
        layout: LayoutId,
        partition: PartitionId,
    ) -> impl Iterator<Item = &[NodeId]> + '_ {
        self.by_factor
            .iter()
            .map(move |rings| rings.get(&layout).map_or(&[][..], |ring| ring.primaries(partition)))
    }

    /// The owners of a partition by a layout, for any factor.
    pub(super) fn all_owners(&self, layout: LayoutId, partition: PartitionId) -> BTreeSet<NodeId> {
        self.owners(layout, partition).flatten().copied().collect()
    }

    /// The nodes that come to own a partition between two layouts, and those that cease to, for
    /// any factor.
    pub(super) fn change(&self, from: LayoutId, to: LayoutId, partition: PartitionId) -> Move {
        let (mut gained, mut lost) = (BTreeSet::new(), BTreeSet::new());
        for (old, new) in self.owners(from, partition).zip(self.owners(to, partition)) {
            gained.extend(new.iter().filter(|node| !old.contains(node)));
            lost.extend(old.iter().filter(|node| !new.contains(node)));
        }
        let (gained, lost) = (gained.into_iter().collect(), lost.into_iter().collect());
        Move { partition, gained, lost }
    }

    /// Whether two layouts give the partition to the same nodes, and say the same of how many of
    /// them answer, for every keyspace.
    fn agree(&self, a: LayoutId, b: LayoutId, partition: PartitionId) -> bool {
        if self.by_factor.iter().any(|rings| differ(rings, a, b)) {
            return false;
        }
        let sorted = |owners: &[NodeId]| owners.iter().copied().collect::<BTreeSet<NodeId>>();
        self.owners(a, partition).map(sorted).eq(self.owners(b, partition).map(sorted))
    }

    /// Those who must take rows over when the partition goes from one layout to another: its new
    /// owners, or, if it only loses owners, those that stay, as one that goes may know more. With
    /// another factor all owners do: R and W may have changed with it, and a read by the new R
    /// need not meet what was written by the old W if any of them lacks it.
    pub(super) fn takers(
        &self,
        from: LayoutId,
        to: LayoutId,
        partition: PartitionId,
    ) -> BTreeSet<NodeId> {
        let mut takers = BTreeSet::new();
        let owners = self.owners(from, partition).zip(self.owners(to, partition));
        for ((old, new), rings) in owners.zip(&self.by_factor) {
            let gained: Vec<NodeId> =
                new.iter().copied().filter(|node| !old.contains(node)).collect();
            let loses = old.iter().any(|node| !new.contains(node));
            if (gained.is_empty() && loses) || differ(rings, from, to) {
                takers.extend(new);
            } else {
                takers.extend(gained);
            }
        }
        takers
    }
}

/// Whether two layouts are of another factor.
fn differ(rings: &BTreeMap<LayoutId, Ring>, a: LayoutId, b: LayoutId) -> bool {
    let factor = |id: LayoutId| rings.get(&id).map(Ring::replication_factor);
    factor(a) != factor(b)
}

#[cfg(test)]
mod tests;
