//! Groups that are founded, moved, and moved by a removal.

use std::collections::BTreeSet;

use crate::protocol::system::samples::{Cluster, drop_named, nodes, remove, strong};
use crate::protocol::system::{SystemCommand, SystemReply, SystemState};
use crate::types::{GroupId, NodeId, PartitionId, ReplicaId};

fn place(group: u16, expected_generation: u64, nodes: BTreeSet<NodeId>) -> SystemCommand {
    SystemCommand::PlaceGroup { group: GroupId(group), expected_generation, nodes }
}

/// The nodes that the ring wants for a group.
fn wanted(state: &SystemState, group: GroupId, factor: u32) -> BTreeSet<NodeId> {
    let ring = state.ring(factor).unwrap();
    ring.primaries(group.partition()).iter().copied().collect()
}

fn replica_ids(state: &SystemState) -> BTreeSet<ReplicaId> {
    state.groups().values().flat_map(|group| group.replicas.keys().copied()).collect()
}

#[test]
fn the_first_strong_keyspace_founds_a_group_for_every_partition() {
    let mut cluster = Cluster::sized(5);
    cluster.apply(strong("orders", 3)).unwrap();
    let state = &cluster.state;
    let expected: Vec<GroupId> = (0..8).map(|number| GroupId::of(PartitionId(number))).collect();
    assert_eq!(state.groups().keys().copied().collect::<Vec<_>>(), expected);
    for (group, placement) in state.groups() {
        assert_eq!(placement.nodes(), wanted(state, *group, 3));
        assert_eq!(placement.founders, placement.replicas);
        assert_eq!(placement.generation, cluster.index.0);
    }
    // Five replicas of the system group come before those of eight groups of three.
    assert_eq!(replica_ids(state), (6..30).map(ReplicaId).collect());
    assert_eq!(state.next_replica(), ReplicaId(30));
}

#[test]
fn a_small_cluster_has_as_many_replicas_as_members() {
    let mut cluster = Cluster::sized(2);
    cluster.apply(strong("orders", 5)).unwrap();
    assert!(cluster.state.groups().values().all(|group| group.nodes() == nodes([1, 2])));
}

#[test]
fn a_group_keeps_the_replicas_that_stay() {
    let mut cluster = Cluster::sized(5);
    cluster.apply(strong("orders", 3)).unwrap();
    let before = cluster.state.groups()[&GroupId(4)].clone();
    let mut to = before.nodes();
    let leaves = to.pop_first().unwrap();
    let joins = (1..=5).map(NodeId).find(|node| !before.nodes().contains(node)).unwrap();
    to.insert(joins);
    let fresh = cluster.state.next_replica();
    let command = place(4, before.generation, to.clone());
    let reply = Ok(SystemReply::Placed { generation: cluster.index.0 + 1 });
    assert_eq!(cluster.apply(command.clone()), reply);
    let after = cluster.state.groups()[&GroupId(4)].clone();
    assert_eq!(after.nodes(), to);
    assert_eq!(after.replica_on(joins), Some(fresh));
    assert_eq!(after.replica_on(leaves), None);
    for node in to.iter().filter(|node| **node != joins) {
        assert_eq!(after.replica_on(*node), before.replica_on(*node));
    }
    assert_eq!(after.founders, before.founders);
    assert_eq!(cluster.apply(command), reply, "a repeated request is no error");
    // The node that left gets another number when it comes back.
    cluster.apply(place(4, after.generation, before.nodes())).unwrap();
    let back = cluster.state.groups()[&GroupId(4)].replica_on(leaves).unwrap();
    assert!(back > fresh);
}

#[test]
fn a_placement_has_rules() {
    let mut cluster = Cluster::sized(5);
    let refusal = cluster.refused(place(4, 0, nodes([1, 2, 3])));
    assert_eq!(refusal, "group 4 does not exist");
    cluster.apply(strong("orders", 3)).unwrap();
    let group = &cluster.state.groups()[&GroupId(4)];
    let (generation, present) = (group.generation, group.nodes());
    let other = *nodes(1..=5).difference(&present).next().unwrap();
    let moved: BTreeSet<NodeId> = present.iter().skip(1).copied().chain([other]).collect();
    let few: BTreeSet<NodeId> = present.iter().take(2).copied().collect();
    let strange: BTreeSet<NodeId> = few.iter().copied().chain([NodeId(9)]).collect();
    let cases = [
        (place(8, generation, moved.clone()), "group 8 does not exist"),
        (place(u16::MAX, generation, moved.clone()), "group system does not exist"),
        (place(4, generation - 1, moved), "expected_generation is 5: group 4 was last placed by"),
        (place(4, generation, strange), "node 0000000000000009 is not a member"),
        (place(4, generation, few), "nodes is 2 nodes: group 4 must have exactly 3 replicas"),
        (place(4, generation, nodes(1..=4)), "nodes is 4 nodes"),
        (place(4, generation, nodes([])), "nodes is 0 nodes"),
    ];
    for (command, expected) in cases {
        let refusal = cluster.refused(command);
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn a_removal_moves_the_nodes_places_to_the_next_of_the_list() {
    let mut cluster = Cluster::sized(5);
    cluster.apply(strong("orders", 3)).unwrap();
    let before = cluster.state.clone();
    cluster.apply(remove(3)).unwrap();
    let mut moved = 0;
    for (group, placement) in cluster.state.groups() {
        let was = &before.groups()[group];
        if was.replica_on(NodeId(3)).is_none() {
            assert_eq!(placement, was);
            continue;
        }
        moved += 1;
        assert_eq!(placement.nodes(), wanted(&cluster.state, *group, 3));
        assert_eq!(placement.generation, cluster.index.0);
        let kept = was.nodes().intersection(&placement.nodes()).count();
        assert_eq!(kept, 2, "the others stay");
    }
    assert!(moved > 0, "the node had replicas");
}

#[test]
fn a_removal_shrinks_the_groups_of_a_small_cluster() {
    let mut cluster = Cluster::sized(3);
    cluster.apply(strong("orders", 3)).unwrap();
    cluster.apply(remove(3)).unwrap();
    assert!(cluster.state.groups().values().all(|group| group.nodes() == nodes([1, 2])));
    cluster.apply(remove(2)).unwrap();
    assert!(cluster.state.groups().values().all(|group| group.nodes() == nodes([1])));
}

#[test]
fn groups_outlive_the_strong_keyspaces_and_serve_the_next_one() {
    let mut cluster = Cluster::sized(5);
    cluster.apply(strong("orders", 3)).unwrap();
    let founded = cluster.state.groups().clone();
    cluster.apply(drop_named("orders")).unwrap();
    assert_eq!(*cluster.state.groups(), founded);
    // They follow the ring meanwhile, though they serve nothing.
    cluster.apply(remove(3)).unwrap();
    let moved = cluster.state.groups().clone();
    assert_ne!(moved, founded);
    assert!(moved.values().all(|group| group.replica_on(NodeId(3)).is_none()));
    cluster.apply(strong("carts", 3)).unwrap();
    assert_eq!(*cluster.state.groups(), moved);
}
