//! Where groups begin and where they go.

use super::*;
use crate::protocol::system::SystemCommand;
use crate::protocol::system::samples::{Cluster, describe, remove, strong};

#[test]
fn a_founder_begins_with_all_founders_and_others_with_nobody() {
    let mut cluster = Cluster::sized(4);
    let group = GroupId(2);
    assert_eq!(placement_target(&cluster.state, group), None);
    cluster.apply(strong("orders", 3)).unwrap();
    let target = placement_target(&cluster.state, group).unwrap();
    let (founder, node) = target.voters.first_key_value().map(|(r, n)| (*r, *n)).unwrap();
    assert!(target.learners.is_empty());
    assert_eq!(founding_voters(&cluster.state, group, founder), Some(&target.voters));
    cluster.apply(remove(node.0)).unwrap();
    let moved = placement_target(&cluster.state, group).unwrap();
    let newcomer = *moved.voters.last_key_value().unwrap().0;
    assert!(!target.voters.contains_key(&newcomer));
    assert_eq!(founding_voters(&cluster.state, group, newcomer), None);
    // One that has not heard of the move yet begins as the others did.
    let stays = *target.voters.last_key_value().unwrap().0;
    assert_eq!(founding_voters(&cluster.state, group, stays), Some(&target.voters));
}

#[test]
fn the_moves_due_bring_every_group_to_where_the_ring_wants_it() {
    let mut cluster = Cluster::sized(2);
    assert_eq!(moves_due(&cluster.state, 8), []);
    cluster.apply(strong("orders", 3)).unwrap();
    assert_eq!(moves_due(&cluster.state, 8), []);
    for node in 3..=6 {
        cluster.apply(describe(node, 1, |_| {})).unwrap();
    }
    let mut steps = 0;
    loop {
        let due = moves_due(&cluster.state, 3);
        assert!(due.len() <= 3);
        if due.is_empty() {
            break;
        }
        for Move { group, expected_generation, nodes } in due {
            let command = SystemCommand::PlaceGroup { group, expected_generation, nodes };
            cluster.apply(command).unwrap();
        }
        steps += 1;
        assert!(steps <= 3, "eight groups take at most three steps");
    }
    let ring = cluster.state.ring(3).unwrap();
    for (group, placement) in cluster.state.groups() {
        let wanted: BTreeSet<NodeId> = ring.primaries(group.partition()).iter().copied().collect();
        assert_eq!(placement.nodes(), wanted);
    }
}

#[test]
fn groups_that_lack_a_replica_move_first() {
    let mut cluster = Cluster::sized(3);
    cluster.apply(strong("orders", 3)).unwrap();
    cluster.apply(remove(3)).unwrap();
    for node in 4..=7 {
        cluster.apply(describe(node, 1, |_| {})).unwrap();
    }
    let group = GroupId(7);
    let Move { expected_generation, .. } = moves_due(&cluster.state, 8).remove(0);
    let nodes = [1, 2, 4].map(NodeId).into_iter().collect();
    cluster.apply(SystemCommand::PlaceGroup { group, expected_generation, nodes }).unwrap();
    let due: Vec<usize> = moves_due(&cluster.state, 8)
        .iter()
        .map(|due| cluster.state.groups()[&due.group].replicas.len())
        .collect();
    assert!(due.len() > 1 && due.is_sorted(), "{due:?}");
}
