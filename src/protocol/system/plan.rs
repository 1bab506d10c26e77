//! What a change of the ring would move, before it is decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::quorum::requirement::default_in_effect;
use crate::protocol::ring::{Move, Ring};
use crate::protocol::system::command::{SystemCommand, SystemRequest};
use crate::protocol::system::keyspace::{Keyspace, Mode};
use crate::protocol::system::placing::partition_ids;
use crate::protocol::system::refusal::SystemRefusal;
use crate::protocol::system::spread::Factors;
use crate::protocol::system::state::SystemState;
use crate::types::{LogIndex, NodeId, PartitionId};

/// What would move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Partitions of which the owners change, with those that come and go.
    pub moves: Vec<Move>,
    /// Groups of strong keyspaces that get another replica.
    pub groups: usize,
    /// Keyspaces of which acknowledged writes may be lost.
    pub at_risk: Vec<Risk>,
}

/// What may be lost of one keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Risk {
    /// The keyspace's name.
    pub keyspace: String,
    /// Partitions of which so few owners are left that a write acknowledged by the keyspace's write
    /// quorum may be on none of them.
    pub thinned: usize,
    /// Partitions of which no owner is left.
    pub lost: usize,
}

/// What the commands would come to, if they were decided now and these nodes are there to hand over
/// what they hold.
///
/// # Errors
/// The [`SystemRefusal`] of the first command that would be refused.
pub fn plan(
    state: &SystemState,
    commands: &[SystemCommand],
    present: &BTreeSet<NodeId>,
) -> Result<Plan, SystemRefusal> {
    let mut next = state.clone();
    for command in commands {
        let request = SystemRequest { request_id: 0, command: command.clone() };
        next.apply(LogIndex(0), &request)?;
    }
    let moves = partition_ids(state.partitions()).filter_map(|it| moved(state, &next, it));
    let groups = (state.groups().iter())
        .filter(|(group, placement)| {
            let wanted = wanted_group(&next, group.partition());
            wanted.is_some_and(|wanted| wanted != placement.nodes())
        })
        .count();
    let risk = |keyspace: &Keyspace| risk(state, &next, keyspace, present);
    let quorum = state.keyspaces().filter(|keyspace| keyspace.mode == Mode::Quorum);
    Ok(Plan { moves: moves.collect(), groups, at_risk: quorum.filter_map(risk).collect() })
}

/// The owners of a partition who come and go, over all leaderless keyspaces.
fn moved(state: &SystemState, next: &SystemState, partition: PartitionId) -> Option<Move> {
    let (mut gained, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for factors in state.factors() {
        let old = owners(state, partition, factors);
        let new = target_owners(next, partition, factors.on(next.placing().target()));
        gained.extend(new.difference(&old).copied());
        lost.extend(old.difference(&new).copied());
    }
    let any = !gained.is_empty() || !lost.is_empty();
    let (gained, lost) = (gained.into_iter().collect(), lost.into_iter().collect());
    any.then_some(Move { partition, gained, lost })
}

/// Those who answer reads of a partition.
fn owners(state: &SystemState, partition: PartitionId, factors: Factors) -> BTreeSet<NodeId> {
    let id = state.placing().locate(partition).read_layout();
    let (layout, factor) = (state.placing().layouts().get(&id), factors.on(id));
    layout.map_or_else(BTreeSet::new, |layout| {
        let ring = Ring::new(state.epoch(), state.partitions(), factor, layout);
        ring.map_or_else(
            |_| BTreeSet::new(),
            |it| it.primaries(partition).iter().copied().collect(),
        )
    })
}

fn target_owners(state: &SystemState, partition: PartitionId, factor: u32) -> BTreeSet<NodeId> {
    let ring = state.ring(factor);
    ring.map_or_else(|_| BTreeSet::new(), |it| it.primaries(partition).iter().copied().collect())
}

fn wanted_group(state: &SystemState, partition: PartitionId) -> Option<BTreeSet<NodeId>> {
    Some(target_owners(state, partition, state.strong_factor()?))
}

/// What may be lost of a keyspace when only these of its present owners can still hand over.
fn risk(
    state: &SystemState,
    next: &SystemState,
    keyspace: &Keyspace,
    present: &BTreeSet<NodeId>,
) -> Option<Risk> {
    let spread = keyspace.spread();
    let (mut thinned, mut lost) = (0, 0);
    for partition in partition_ids(state.partitions()) {
        let owners = owners(state, partition, spread.factors());
        let replication = spread.on(state.placing().locate(partition).read_layout());
        let left = owners.iter().filter(|node| present.contains(node) && stays(next, node)).count();
        let quorum =
            default_in_effect(replication.write_quorum, replication.factor, owners.len() as u32);
        let needed = (owners.len() + 1).saturating_sub(quorum as usize);
        if left == 0 {
            lost += 1;
        } else if left < needed {
            thinned += 1;
        }
    }
    let keyspace = keyspace.name.clone();
    (thinned + lost > 0).then_some(Risk { keyspace, thinned, lost })
}

/// Whether a node can still hand over what it holds: it is a member, if only for a while.
fn stays(next: &SystemState, node: &NodeId) -> bool {
    next.members().contains_key(node)
}

/// How many partitions each node gains and loses.
pub fn shares(moves: &[Move]) -> BTreeMap<NodeId, (usize, usize)> {
    let mut shares: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for Move { gained, lost, .. } in moves {
        gained.iter().for_each(|node| shares.entry(*node).or_default().0 += 1);
        lost.iter().for_each(|node| shares.entry(*node).or_default().1 += 1);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::system::samples::{Cluster, describe, remove};
    use crate::protocol::system::settings::Replication;
    use crate::protocol::system::spread::Spread;

    fn leave(node: u64) -> SystemCommand {
        SystemCommand::Reshape {
            join: BTreeSet::new(),
            leave: BTreeSet::from([NodeId(node)]),
            replace: BTreeMap::new(),
            expected_epoch: None,
        }
    }

    fn all(nodes: u64) -> BTreeSet<NodeId> {
        (1..=nodes).map(NodeId).collect()
    }

    #[test]
    fn a_plan_shows_what_then_moves() {
        let mut cluster = Cluster::sized(4);
        cluster.settle();
        let planned = plan(&cluster.state, &[leave(4)], &all(4)).unwrap();
        let (gained, lost) = shares(&planned.moves)[&NodeId(4)];
        assert!(gained == 0 && lost > 0 && planned.at_risk.is_empty());
        let before = cluster.state.clone();
        cluster.apply(leave(4)).unwrap();
        assert_eq!(cluster.state.placing().unmoved(8).count(), planned.moves.len());
        let three = Spread::even(Replication::majority_of(3)).factors();
        let owned = |state: &SystemState, it: &Move| owners(state, it.partition, three);
        cluster.settle();
        for it in &planned.moves {
            let mut expected = owned(&before, it);
            expected.retain(|node| !it.lost.contains(node));
            expected.extend(&it.gained);
            assert_eq!(owned(&cluster.state, it), expected);
        }
        assert_eq!(plan(&cluster.state, &[leave(4)], &all(4)).unwrap(), Plan::default());
    }

    #[test]
    fn removing_the_dead_says_what_may_be_lost() {
        let mut cluster = Cluster::sized(3);
        cluster.settle();
        let one = plan(&cluster.state, &[remove(3)], &all(2)).unwrap();
        assert!(one.at_risk.is_empty(), "two of three hold every quorum of two: {one:?}");
        let two = plan(&cluster.state, &[remove(3)], &all(1)).unwrap();
        assert_eq!(two.at_risk.len(), 1);
        assert_eq!((two.at_risk[0].thinned, two.at_risk[0].lost), (8, 0));
        let none = plan(&cluster.state, &[remove(3)], &BTreeSet::new()).unwrap();
        assert_eq!((none.at_risk[0].thinned, none.at_risk[0].lost), (0, 8));
        assert!(plan(&cluster.state, &[remove(9)], &all(3)).is_err());
        cluster.apply(describe(4, 1, |_| {})).unwrap();
        assert!(!plan(&cluster.state, &[], &all(4)).unwrap().moves.is_empty());
    }
}
