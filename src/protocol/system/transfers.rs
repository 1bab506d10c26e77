//! Which partitions are ready for the next step of their moves, as the leader of the system group
//! finds from what the others say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::planted::{Planted, planted};
use crate::protocol::quorum::requirement::default_in_effect;
use crate::protocol::ring::{Move, Ring};
use crate::protocol::system::command::SystemCommand;
use crate::protocol::system::keyspace::Mode;
use crate::protocol::system::placing::{Layout, LayoutId, Moving, Step};
use crate::protocol::system::state::SystemState;
use crate::types::{Epoch, NodeId, PartitionId};

/// Partitions that one node takes over at a time. More would write more keys to one owner more than
/// usual; fewer would wait more often for the system group.
pub const COPIES_PER_NODE_MAX: usize = 32;

/// What a node says of itself, as far as steps depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The epoch of the ring that its requests are served by.
    pub epoch: Epoch,
    /// Whether it is held to be alive.
    pub up: bool,
}

/// The moves under way, with the nodes that gain and lose each partition over all leaderless
/// keyspaces.
pub fn under_way(state: &SystemState) -> Vec<(Move, &Moving)> {
    let rings = state.rings();
    let moving = state.placing().moving();
    moving.map(|(partition, at, it)| (rings.change(at, it.to, partition), it)).collect()
}

/// The steps that are due; `None` when there are none. A node without a report is down.
pub fn due(state: &SystemState, reports: &BTreeMap<NodeId, Report>) -> Option<SystemCommand> {
    if state.placing().is_settled() {
        return None;
    }
    let (prepare, settle) = (ready_to_set_out(state), ready_to_settle(state, reports));
    let any = !prepare.is_empty() || !settle.is_empty();
    let expected_epoch = state.epoch();
    any.then_some(SystemCommand::Advance { prepare, settle, expected_epoch })
}

/// As many as the nodes that take them over may have under way, in the order of their numbers.
fn ready_to_set_out(state: &SystemState) -> BTreeSet<PartitionId> {
    let placing = state.placing();
    let mut copies: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (_, _, moving) in placing.moving() {
        if let Step::Copying { waiting } = &moving.step {
            waiting.iter().for_each(|node| *copies.entry(*node).or_default() += 1);
        }
    }
    let rings = state.rings();
    let mut ready = BTreeSet::new();
    for partition in placing.unmoved(state.partitions()) {
        let at = placing.locate(partition).at;
        let takers = rings.takers(at, placing.target(), partition);
        let has_room = |node: &NodeId| copies.get(node).is_none_or(|n| *n < COPIES_PER_NODE_MAX);
        if takers.iter().all(has_room) {
            takers.into_iter().for_each(|node| *copies.entry(node).or_default() += 1);
            ready.insert(partition);
        }
    }
    ready
}

/// Those of which the new owners serve and the old ones know it: a coordinator that does not is
/// refused by so many of them that it cannot read as before.
fn ready_to_settle(
    state: &SystemState,
    reports: &BTreeMap<NodeId, Report>,
) -> BTreeSet<PartitionId> {
    let old_rings = OldRings::new(state);
    let serving =
        state.placing().moving().filter_map(|(partition, at, moving)| match moving.step {
            Step::Serving { since } => Some((partition, at, since)),
            Step::Copying { .. } => None,
        });
    let heard = |(partition, at, since): &(PartitionId, LayoutId, Epoch)| {
        planted(Planted::SettledUnheard)
            || old_rings.of(*at).all(|(ring, read_quorum)| {
                is_heard(state, reports, ring.primaries(*partition), read_quorum, *since)
            })
    };
    serving.filter(heard).map(|(partition, ..)| partition).collect()
}

/// Whether so many of the old owners have heard of an epoch that the rest make no read quorum, and
/// those that have not are down.
fn is_heard(
    state: &SystemState,
    reports: &BTreeMap<NodeId, Report>,
    owners: &[NodeId],
    read_quorum: usize,
    since: Epoch,
) -> bool {
    let is_deaf = |node: &&NodeId| {
        let report = reports.get(node).copied().unwrap_or_default();
        state.members().contains_key(node) && report.epoch < since
    };
    let is_up = |node: &&NodeId| reports.get(node).is_some_and(|report| report.up);
    let deaf: Vec<&NodeId> = owners.iter().filter(is_deaf).collect();
    deaf.len() < read_quorum && !deaf.iter().any(is_up)
}

/// The rings that partitions come from, each with the smallest read quorum among its keyspaces.
struct OldRings {
    rings: BTreeMap<LayoutId, Vec<(Ring, usize)>>,
}

impl OldRings {
    fn new(state: &SystemState) -> OldRings {
        let of_layout = |id: LayoutId, layout: &Layout| {
            let quorum = state.keyspaces().filter(|keyspace| keyspace.mode == Mode::Quorum);
            let mut smallest: BTreeMap<u32, u32> = BTreeMap::new();
            for keyspace in quorum {
                let replication = keyspace.spread().on(id);
                let replicas = replication.factor.min(layout.len() as u32);
                let read_quorum =
                    default_in_effect(replication.read_quorum, replication.factor, replicas);
                let known = smallest.entry(replication.factor).or_insert(read_quorum);
                *known = (*known).min(read_quorum);
            }
            let ring = |factor| {
                Ring::new(state.epoch(), state.partitions(), factor, layout)
                    .expect("invariant: members and factors were checked when they came in")
            };
            smallest.into_iter().map(|(factor, r)| (ring(factor), r as usize)).collect()
        };
        let from: BTreeSet<LayoutId> = state.placing().moving().map(|(_, at, _)| at).collect();
        let layouts = state.placing().layouts().iter().filter(|(id, _)| from.contains(id));
        OldRings { rings: layouts.map(|(id, layout)| (*id, of_layout(*id, layout))).collect() }
    }

    fn of(&self, layout: LayoutId) -> impl Iterator<Item = (&Ring, usize)> {
        self.rings.get(&layout).into_iter().flatten().map(|(ring, quorum)| (ring, *quorum))
    }
}

#[cfg(test)]
mod tests;
