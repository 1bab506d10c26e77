//! The steps of moves: prepared, copied, served, settled, or given up.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::planted::{Planted, planted};
use crate::protocol::system::placing::{
    LayoutId, Moving, Place, Placing, Rings, Step, partition_ids,
};
use crate::types::{Epoch, NodeId, PartitionId};

impl Placing {
    /// Begins the moves of these partitions, as far as they have not set out; true if any began.
    pub(in crate::protocol::system) fn prepare(
        &mut self,
        partitions: &BTreeSet<PartitionId>,
        rings: &Rings,
        epoch: Epoch,
    ) -> bool {
        let (to, mut began) = (self.target, false);
        for partition in partitions {
            let place = self.place_mut(*partition);
            if place.moving.is_none() && place.at != to {
                let waiting = rings.takers(place.at, to, *partition);
                let step = match waiting.is_empty() || planted(Planted::ReadsFlippedBeforeSync) {
                    true => Step::Serving { since: epoch },
                    false => Step::Copying { waiting },
                };
                place.moving = Some(Moving { to, since: epoch, step });
                began = true;
            }
        }
        began
    }

    /// A node has taken over all rows of these partitions in the moves that were prepared in these
    /// epochs. Those that wait for nobody else are served by their new owners from now on. True if
    /// anything has changed.
    pub(in crate::protocol::system) fn synced(
        &mut self,
        node: NodeId,
        partitions: &BTreeMap<PartitionId, Epoch>,
        epoch: Epoch,
    ) -> bool {
        let mut changed = false;
        for (partition, prepared) in partitions {
            let place = self.places.get_mut(partition);
            let moving = place.and_then(|place| place.moving.as_mut());
            let Some(moving) = moving.filter(|moving| moving.since == *prepared) else { continue };
            if let Step::Copying { waiting } = &mut moving.step {
                changed |= waiting.remove(&node);
                if waiting.is_empty() {
                    moving.step = Step::Serving { since: epoch };
                }
            }
        }
        changed
    }

    /// Ends the moves of these partitions whose new owners serve; true if any ended.
    pub(in crate::protocol::system) fn settle(
        &mut self,
        partitions: &BTreeSet<PartitionId>,
    ) -> bool {
        let mut ended = false;
        for partition in partitions {
            let Some(place) = self.places.get_mut(partition) else { continue };
            let moving = place.moving.take();
            match moving {
                Some(Moving { to, step: Step::Serving { since }, .. }) => {
                    (place.at, place.fence) = (to, since);
                    ended = true;
                }
                other => place.moving = other,
            }
        }
        ended
    }

    /// Gives up the moves that copy to a node which will not come: their partitions stay where they
    /// are, which is where they are read.
    pub(in crate::protocol::system) fn give_up_copies_to(&mut self, node: NodeId) {
        let layouts = &self.layouts;
        let leads_to_it = |to: LayoutId| {
            layouts.get(&to).is_some_and(|members| members.iter().any(|it| it.node == node))
        };
        for place in self.places.values_mut() {
            let given_up = place.moving.take_if(|moving| {
                matches!(moving.step, Step::Copying { .. }) && leads_to_it(moving.to)
            });
            if let Some(moving) = given_up {
                place.fence = moving.since;
            }
        }
    }

    /// A node has lost its rows: what it had taken over for moves that still copy, it takes anew.
    pub(in crate::protocol::system) fn lost_rows(&mut self, node: NodeId, rings: &Rings) {
        for (partition, place) in &mut self.places {
            let Some(moving) = &mut place.moving else { continue };
            let takers = rings.takers(place.at, moving.to, *partition);
            if let Step::Copying { waiting } = &mut moving.step
                && takers.contains(&node)
            {
                waiting.insert(node);
            }
        }
    }

    /// The number of the next layout that is new.
    fn next_layout(&self) -> LayoutId {
        LayoutId(self.layouts.keys().next_back().map_or(0, |id| id.0) + 1)
    }

    /// From here on layouts stand for another N of some keyspace: the present target no longer
    /// will do. The first layout of the new N.
    pub(in crate::protocol::system) fn outdate_layouts(&mut self) -> LayoutId {
        self.oldest_target = self.next_layout();
        self.oldest_target
    }

    /// Everything is to lie as another layout says. Partitions that have the same owners there
    /// need not move.
    pub(in crate::protocol::system) fn retarget(
        &mut self,
        members: super::Layout,
        rings: impl FnOnce(&Placing) -> Rings,
        partitions: u32,
    ) {
        let mut known = self.layouts.range(self.oldest_target..);
        let known = known.find(|(_, layout)| **layout == members);
        let id = known.map_or(self.next_layout(), |(id, _)| *id);
        self.layouts.insert(id, members);
        self.target = id;
        let rings = rings(self);
        for partition in partition_ids(partitions) {
            let located = self.locate(partition);
            if located.next.is_none() && rings.agree(located.at, id, partition) {
                self.place_mut(partition).at = id;
            }
        }
    }

    /// Forgets what nothing refers to any more. To be called after every change.
    pub(in crate::protocol::system) fn tidy(&mut self, partitions: u32) {
        let arrived = |place: &Place| place.moving.is_none() && place.at == self.target;
        let all = self.places.len() == partitions as usize || self.settled == self.target;
        if all && self.places.values().all(arrived) {
            self.settled = self.target;
            let highest = self.places.values().map(|place| place.fence).max();
            self.fence = self.fence.max(highest.unwrap_or_default());
            self.places.clear();
        }
        let mut used = BTreeSet::from([self.settled, self.target]);
        used.extend(self.places.values().map(|place| place.at));
        used.extend(self.moving().map(|(_, _, moving)| moving.to));
        self.layouts.retain(|id, _| used.contains(id));
    }

    fn place_mut(&mut self, partition: PartitionId) -> &mut Place {
        let (at, fence) = (self.settled, self.fence);
        self.places.entry(partition).or_insert(Place { at, fence, moving: None })
    }
}
