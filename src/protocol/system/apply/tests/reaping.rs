//! Floors that rise by what owners tell.

use std::collections::BTreeMap;

use crate::protocol::reaping::{ReapFloor, Share};
use crate::protocol::system::SystemCommand;
use crate::protocol::system::limits::LimitsAsked;
use crate::protocol::system::samples::{Cluster, asked, describe};
use crate::types::{Epoch, Incarnation, NodeId, PartitionId, Timestamp};

const P: PartitionId = PartitionId(3);

fn tell(cluster: &mut Cluster, node: u64, at: u64, epoch: Epoch) {
    let node = NodeId(node);
    let incarnation = cluster.state.members()[&node].member.incarnation;
    let share = Share { at: Timestamp(at), epoch };
    let partitions = BTreeMap::from([(P, share)]);
    cluster.apply(SystemCommand::Shared { node, incarnation, partitions }).unwrap();
}

fn settled(nodes: usize) -> Cluster {
    let mut cluster = Cluster::sized(nodes);
    cluster.settle();
    cluster
}

#[test]
fn a_floor_rises_once_all_owners_have_told_and_to_the_least_of_what_they_did() {
    let mut cluster = settled(3);
    let began = cluster.state.epoch();
    tell(&mut cluster, 1, 50, began);
    tell(&mut cluster, 2, 40, began);
    assert_eq!(cluster.state.reaping().floor(P), ReapFloor::default());
    assert_eq!(cluster.state.epoch(), began);
    tell(&mut cluster, 3, 60, began);
    let epoch = Epoch(began.0 + 1);
    assert_eq!(cluster.state.reaping().floor(P), ReapFloor { at: Timestamp(40), epoch });
    assert_eq!(cluster.state.epoch(), epoch);
    assert_eq!(cluster.state.reaping().floors().count(), 1);

    tell(&mut cluster, 2, 55, began);
    let epoch = Epoch(began.0 + 2);
    assert_eq!(cluster.state.reaping().floor(P), ReapFloor { at: Timestamp(50), epoch });
    tell(&mut cluster, 2, 45, began);
    assert_eq!(cluster.state.epoch(), epoch, "what is known already changes nothing");
}

#[test]
fn another_life_and_nodes_that_are_no_owners_have_nothing_to_tell() {
    let mut cluster = settled(3);
    let began = cluster.state.epoch();
    tell(&mut cluster, 1, 50, began);
    tell(&mut cluster, 2, 50, began);
    let (node, incarnation) = (NodeId(3), Incarnation(99));
    let partitions = BTreeMap::from([(P, Share { at: Timestamp(50), epoch: began })]);
    cluster.apply(SystemCommand::Shared { node, incarnation, partitions }).unwrap();
    assert_eq!(cluster.state.reaping().floor(P), ReapFloor::default());
    let unknown = SystemCommand::Shared {
        node: NodeId(9),
        incarnation,
        partitions: BTreeMap::from([(PartitionId(999), Share { at: Timestamp(1), epoch: began })]),
    };
    assert!(cluster.refused(unknown).contains("is not a member"));
}

#[test]
fn a_node_that_has_lost_its_rows_voids_what_was_told_before() {
    let mut cluster = settled(3);
    let began = cluster.state.epoch();
    tell(&mut cluster, 1, 50, began);
    tell(&mut cluster, 3, 50, began);
    cluster.apply(describe(2, 9, |member| member.incarnation = Incarnation(99))).unwrap();
    for node in 1..=3 {
        tell(&mut cluster, node, 50, began);
    }
    assert_eq!(cluster.state.reaping().floor(P), ReapFloor::default(), "it began before");
    let now = cluster.state.epoch();
    for node in 1..=3 {
        tell(&mut cluster, node, 50, now);
    }
    assert_eq!(cluster.state.reaping().floor(P).at, Timestamp(50));
}

#[test]
fn a_partition_that_moves_or_has_moved_is_to_be_compared_anew_and_keeps_its_floor() {
    let mut cluster = settled(3);
    let began = cluster.state.epoch();
    for node in 1..=3 {
        tell(&mut cluster, node, 50, began);
    }
    let floor = cluster.state.reaping().floor(P);
    assert_eq!(floor.at, Timestamp(50));
    let epoch = cluster.state.epoch();
    tell(&mut cluster, 1, 60, epoch);
    for node in 4..=9 {
        cluster.apply(describe(node, 1, |_| {})).unwrap();
    }
    cluster.settle();
    let owners: Vec<u64> =
        cluster.state.ring(3).unwrap().primaries(P).iter().map(|node| node.0).collect();
    assert_ne!(owners, [1, 2, 3], "it has moved");
    for node in &owners {
        tell(&mut cluster, *node, 60, began);
    }
    assert_eq!(cluster.state.reaping().floor(P), floor);
    let now = cluster.state.epoch();
    for node in &owners {
        tell(&mut cluster, *node, 60, now);
    }
    assert_eq!(cluster.state.reaping().floor(P).at, Timestamp(60));
}

#[test]
fn rows_that_come_to_lie_on_more_nodes_are_to_be_compared_anew() {
    let mut cluster = settled(4);
    let began = cluster.state.epoch();
    let replication = asked(Some(4), None, None);
    let (name, limits) = ("default".to_owned(), LimitsAsked::default());
    cluster.apply(SystemCommand::AlterKeyspace { name, replication, limits }).unwrap();
    for node in 1..=4 {
        tell(&mut cluster, node, 50, began);
    }
    assert_eq!(cluster.state.reaping().floor(P), ReapFloor::default());
    let now = cluster.state.epoch();
    for node in 1..=4 {
        tell(&mut cluster, node, 50, now);
    }
    assert_eq!(cluster.state.reaping().floor(P).at, Timestamp(50));
}
