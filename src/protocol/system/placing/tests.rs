//! Partitions on their way, through whatever happens to members meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::protocol::system::keyspace::{Mode, ReplicationAsked};
use crate::protocol::system::limits::LimitsAsked;
use crate::protocol::system::samples::{Cluster, asked, create, describe, remove};
use crate::protocol::system::settings::Replication;
use crate::protocol::system::transfers::{Report, due, under_way};
use crate::protocol::system::{SystemCommand, SystemState};
use crate::types::Incarnation;

fn join(nodes: &[u64]) -> SystemCommand {
    reshape(nodes, &[], &[])
}

fn leave(nodes: &[u64]) -> SystemCommand {
    reshape(&[], nodes, &[])
}

fn reshape(join: &[u64], leave: &[u64], replace: &[(u64, u64)]) -> SystemCommand {
    SystemCommand::Reshape {
        join: join.iter().copied().map(NodeId).collect(),
        leave: leave.iter().copied().map(NodeId).collect(),
        replace: replace.iter().map(|(old, new)| (NodeId(*old), NodeId(*new))).collect(),
        expected_epoch: None,
    }
}

/// A node that waits until it is told to join.
fn waits(node: u64) -> SystemCommand {
    match describe(node, 1, |_| {}) {
        SystemCommand::Describe { node, member, .. } => {
            SystemCommand::Describe { node, member, joins: false }
        }
        other => other,
    }
}

fn owners(state: &SystemState, partition: u16) -> Vec<NodeId> {
    let located = state.placing().locate(PartitionId(partition));
    let layout = &state.placing().layouts()[&located.read_layout()];
    let ring = Ring::new(Epoch(0), state.partitions(), 3, layout).unwrap();
    ring.primaries(PartitionId(partition)).to_vec()
}

#[test]
fn partitions_stay_where_they_are_until_they_are_told_to_move() {
    let mut cluster = Cluster::sized(1);
    cluster.apply(describe(2, 1, |_| {})).unwrap();
    assert_eq!(owners(&cluster.state, 0), [NodeId(1)]);
    assert_eq!(cluster.state.placing().unmoved(8).count(), 8);
    cluster.settle();
    assert!(cluster.state.placing().is_settled());
    assert_eq!(owners(&cluster.state, 0).len(), 2);
    assert_eq!(cluster.state.placing().layouts().len(), 1, "old layouts are forgotten");
}

#[test]
fn reads_go_to_the_new_owners_once_each_of_them_has_all_rows() {
    let mut cluster = Cluster::sized(3);
    cluster.settle();
    cluster.apply(describe(4, 1, |_| {})).unwrap();
    let order = due(&cluster.state, &cluster.reports()).unwrap();
    cluster.apply(order).unwrap();
    let (partition, at, moving) = {
        let (partition, at, moving) = cluster.state.placing().moving().next().unwrap();
        (partition, at, moving.clone())
    };
    let Step::Copying { waiting } = &moving.step else { panic!("{moving:?}") };
    assert_eq!(*waiting, BTreeSet::from([NodeId(4)]));
    let located = cluster.state.placing().locate(partition);
    assert_eq!((located.read_layout(), located.write_fence), (at, cluster.state.epoch()));
    assert_eq!(located.read_fence, located.write_fence);

    let synced = |since, life| SystemCommand::Synced {
        node: NodeId(4),
        incarnation: Incarnation(life),
        partitions: BTreeMap::from([(partition, since)]),
    };
    let before = cluster.state.clone();
    cluster.apply(synced(Epoch(moving.since.0 - 1), 7)).unwrap();
    cluster.apply(synced(moving.since, 8)).unwrap();
    assert_eq!(cluster.state, before, "another move, or another life, has nothing to say");
    cluster.apply(synced(moving.since, 7)).unwrap();
    let located = cluster.state.placing().locate(partition);
    assert_eq!((located.read_layout(), located.read_fence), (moving.to, cluster.state.epoch()));
}

fn alter(name: &str, factor: u32) -> SystemCommand {
    let (name, limits) = (name.to_owned(), LimitsAsked::default());
    let replication = ReplicationAsked::from(Replication::majority_of(factor));
    SystemCommand::AlterKeyspace { name, replication, limits }
}

/// Owners came to be at once, and answered reads with nothing.
#[test]
fn a_keyspace_gets_another_factor_partition_by_partition() {
    let mut cluster = Cluster::sized(5);
    cluster.settle();
    cluster.apply(create("k", Mode::Quorum, asked(Some(3), None, None))).unwrap();
    for factor in [5, 2] {
        let old = cluster.state.keyspace_named("k").unwrap().replication;
        cluster.apply(alter("k", factor)).unwrap();
        let (state, new) = (&cluster.state, Replication::majority_of(factor));
        let spread = state.keyspace_named("k").unwrap().spread();
        assert_eq!(spread.on(state.placing().locate(PartitionId(0)).read_layout()), old);
        assert_eq!((spread.on(state.placing().target()), spread.now), (new, new));
        assert_eq!(state.placing().unmoved(8).count(), 8, "of members all of which stay");
        let other = cluster.refused(alter("default", 1));
        assert!(other.contains("partitions"), "{other}");

        let order = due(&cluster.state, &cluster.reports()).unwrap();
        cluster.apply(order).unwrap();
        for (change, moving) in under_way(&cluster.state) {
            let Step::Copying { waiting } = &moving.step else { panic!("{moving:?}") };
            let gains = factor > old.factor;
            assert_eq!(
                (change.gained.len(), change.lost.len()),
                if gains { (2, 0) } else { (0, 3) }
            );
            // Those that stay, too: what the old W left out, the new R may ask.
            assert_eq!(waiting.len(), factor as usize);
        }
        cluster.settle();
        assert!(cluster.state.placing().is_settled());
        let settled = cluster.state.keyspace_named("k").unwrap();
        assert_eq!((settled.before, settled.replication), (None, new));
    }
}

/// The layout of the same members that is still in use is one of the old factor.
#[test]
fn members_that_come_and_go_meanwhile_do_not_bring_the_old_factor_back() {
    let mut cluster = Cluster::sized(5);
    cluster.settle();
    cluster.apply(alter("default", 5)).unwrap();
    let order = due(&cluster.state, &cluster.reports()).unwrap();
    cluster.apply(order).unwrap();
    cluster.apply(waits(6)).unwrap();
    for command in [join(&[6]), leave(&[6])] {
        cluster.apply(command).unwrap();
        let state = &cluster.state;
        let spread = state.keyspace_named("default").unwrap().spread();
        assert_eq!(spread.on(state.placing().target()).factor, 5);
    }
    cluster.settle();
    let default = cluster.state.keyspace_named("default").unwrap();
    assert_eq!((default.before, default.replication.factor), (None, 5));
}

#[test]
fn a_node_that_lost_its_rows_takes_them_anew() {
    let mut cluster = Cluster::sized(1);
    for node in [2, 3] {
        cluster.apply(describe(node, 1, |_| {})).unwrap();
    }
    let order = due(&cluster.state, &cluster.reports()).unwrap();
    cluster.apply(order).unwrap();
    let waiting = |cluster: &Cluster| {
        let moving = cluster.state.placing().moving();
        let steps = moving.map(|(_, _, moving)| moving.step.clone());
        let waits = |step: &Step| matches!(step, Step::Copying { waiting } if waiting.len() == 2);
        steps.filter(waits).count()
    };
    assert_eq!(waiting(&cluster), 8);
    let moving = cluster.state.placing().moving();
    let partitions = moving.map(|(partition, _, moving)| (partition, moving.since)).collect();
    let (node, incarnation) = (NodeId(2), Incarnation(7));
    cluster.apply(SystemCommand::Synced { node, incarnation, partitions }).unwrap();
    assert_eq!(waiting(&cluster), 0);
    cluster.apply(describe(2, 2, |member| member.incarnation = Incarnation(8))).unwrap();
    assert_eq!(waiting(&cluster), 8);
}

#[test]
fn one_that_replaces_another_takes_exactly_its_place() {
    let mut cluster = Cluster::sized(5);
    cluster.settle();
    let before: Vec<_> = (0..8).map(|partition| owners(&cluster.state, partition)).collect();
    cluster.apply(waits(6)).unwrap();
    assert!(cluster.state.placing().is_settled(), "it waits");
    cluster.apply(reshape(&[], &[], &[(2, 6)])).unwrap();
    cluster.settle();
    for (partition, before) in before.into_iter().enumerate() {
        let swapped = |node| if node == NodeId(2) { NodeId(6) } else { node };
        let expected: Vec<NodeId> = before.into_iter().map(swapped).collect();
        assert_eq!(owners(&cluster.state, partition as u16), expected);
    }
    assert_eq!(cluster.state.needs(NodeId(2)), None);
    cluster.apply(SystemCommand::Retire { node: NodeId(2) }).unwrap();
    assert!(cluster.state.removed().contains(&NodeId(2)));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut cluster = Cluster::sized(2);
    cluster.settle();
    for (command, why) in [
        (join(&[9]), "node 0000000000000009 is not a member"),
        (leave(&[1, 2]), "no node would be left on the ring"),
        (reshape(&[], &[], &[(1, 2)]), "it cannot replace another"),
        (SystemCommand::Retire { node: NodeId(1) }, "is active: it cannot retire"),
    ] {
        let refusal = cluster.refused(command);
        assert!(refusal.contains(why), "{refusal}");
    }
    cluster.apply(leave(&[2])).unwrap();
    let early = cluster.refused(SystemCommand::Retire { node: NodeId(2) });
    assert!(early.contains("partitions lie on it"), "{early}");
    let last = cluster.refused(remove(1));
    assert!(last.contains("no node would be left"), "{last}");
}

#[test]
fn a_copy_to_a_node_that_is_removed_is_given_up() {
    let mut cluster = Cluster::sized(3);
    cluster.settle();
    cluster.apply(describe(4, 1, |_| {})).unwrap();
    let order = due(&cluster.state, &cluster.reports()).unwrap();
    cluster.apply(order).unwrap();
    assert!(cluster.state.placing().moving().count() > 0);
    cluster.apply(remove(4)).unwrap();
    assert_eq!(cluster.state.placing().moving().count(), 0);
    assert!(cluster.state.placing().is_settled(), "everything is where it was");
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Event {
    Command(SystemCommand),
    /// The leader looks what is due; of these nodes it has heard nothing new.
    Order(BTreeSet<u64>),
    /// A node has taken over what it could.
    Sync(u64),
}

fn events() -> impl Strategy<Value = Event> {
    let node = || 1_u64..=6;
    let deaf = prop::collection::btree_set(node(), 0..3);
    prop_oneof![
        2 => node().prop_map(|node| Event::Command(describe(node, 1, |_| {}))),
        1 => node().prop_map(|node| Event::Command(waits(node))),
        1 => node().prop_map(|node| Event::Command(join(&[node]))),
        1 => node().prop_map(|node| Event::Command(leave(&[node]))),
        1 => (node(), node()).prop_map(|pair| Event::Command(reshape(&[], &[], &[pair]))),
        1 => node().prop_map(|node| Event::Command(remove(node))),
        1 => (node(), 2_u64..9).prop_map(|(node, revision)| {
            let life = Incarnation(7 + revision);
            Event::Command(describe(node, revision, |member| member.incarnation = life))
        }),
        6 => deaf.prop_map(Event::Order),
        6 => node().prop_map(Event::Sync),
    ]
}

/// Who has all rows of which partition, as far as it follows from the steps.
struct Rows {
    held: BTreeMap<(PartitionId, NodeId), Epoch>,
}

impl Rows {
    /// Fails if reads ask somebody who need not have all rows.
    fn check(&self, state: &SystemState) {
        for partition in partition_ids(state.partitions()) {
            for owner in owners(state, partition.0) {
                let gone = state.removed().contains(&owner);
                assert!(
                    gone || self.held.contains_key(&(partition, owner)),
                    "{owner} is asked for partition {}, which it has not taken over",
                    partition.0
                );
            }
        }
    }
}

fn apply(cluster: &mut Cluster, rows: &mut Rows, event: Event) {
    match event {
        Event::Command(command) => {
            let lost = match &command {
                SystemCommand::Describe { node, member, .. } => Some((*node, member.incarnation)),
                _ => None,
            };
            let life = |state: &SystemState, node| {
                state.members().get(&node).map(|known| known.member.incarnation)
            };
            let before = lost.and_then(|(node, _)| life(&cluster.state, node));
            let _refused = cluster.apply(command);
            // One that is an owner and has lost its rows refills, and says that it is incomplete.
            if let Some((node, _)) = lost.filter(|_| before.is_some())
                && life(&cluster.state, node) != before
            {
                let state = &cluster.state;
                rows.held.retain(|(partition, holder), _| {
                    *holder != node || owners(state, partition.0).contains(&node)
                });
            }
        }
        Event::Order(deaf) => {
            let mut reports = cluster.reports();
            for (node, report) in &mut reports {
                if deaf.contains(&node.0) {
                    *report = Report { epoch: Epoch(0), up: node.0 % 2 == 0 };
                }
            }
            if let Some(order) = due(&cluster.state, &reports) {
                cluster.apply(order).unwrap();
            }
        }
        Event::Sync(node) => sync(cluster, rows, NodeId(node)),
    }
}

fn sync(cluster: &mut Cluster, rows: &mut Rows, node: NodeId) {
    let Some(known) = cluster.state.members().get(&node) else { return };
    let incarnation = known.member.incarnation;
    let waits = |step: &Step| matches!(step, Step::Copying { waiting } if waiting.contains(&node));
    let moving = cluster.state.placing().moving().filter(|(_, _, moving)| waits(&moving.step));
    let partitions: BTreeMap<PartitionId, Epoch> =
        moving.map(|(partition, _, moving)| (partition, moving.since)).collect();
    for (partition, since) in &partitions {
        rows.held.insert((*partition, node), *since);
    }
    cluster.apply(SystemCommand::Synced { node, incarnation, partitions }).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn only_those_who_have_all_rows_are_read_from(
        events in prop::collection::vec(events(), 1..80),
    ) {
        let mut cluster = Cluster::sized(1);
        let founder = partition_ids(8).map(|it| ((it, NodeId(1)), Epoch(0)));
        let mut rows = Rows { held: founder.collect() };
        for event in events {
            let before = cluster.state.clone();
            apply(&mut cluster, &mut rows, event);
            let state = &cluster.state;
            rows.check(state);
            for partition in partition_ids(8) {
                let (was, is) =
                    (before.placing().locate(partition), state.placing().locate(partition));
                let moved = (was.at, was.next) != (is.at, is.next);
                prop_assert!(!moved || before.epoch() < state.epoch());
                prop_assert!(was.read_fence <= is.read_fence, "{was:?} {is:?}");
                prop_assert!(was.write_fence <= is.write_fence, "{was:?} {is:?}");
            }
            // A node that gave its place up and has lost what it held is no owner any more.
            let owned = |partition: PartitionId, node: &NodeId| {
                let located = state.placing().locate(partition);
                let layouts = [Some(located.at), located.next.map(|next| next.0)];
                layouts.into_iter().flatten().any(|id| {
                    let layout = &state.placing().layouts()[&id];
                    let ring = Ring::new(Epoch(0), 8, 3, layout).unwrap();
                    ring.primaries(partition).contains(node)
                })
            };
            rows.held.retain(|(partition, node), _| owned(*partition, node));
        }
        cluster.settle();
        prop_assert!(cluster.state.placing().is_settled());
        prop_assert_eq!(cluster.state.placing().layouts().len(), 1);
    }
}
