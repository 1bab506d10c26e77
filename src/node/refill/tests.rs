//! Whom a node hears before it is complete.

use super::*;
use crate::node::topology::tests::{asked, create, decided, topology};
use crate::protocol::system::keyspace::{Mode, ReplicationAsked};
use crate::types::KeyspaceId;

const OWN: NodeId = NodeId(1);

/// Four nodes, the default keyspace of N = 3 and W = 2, and these.
fn plan(others: &[ReplicationAsked]) -> (Topology, Plan) {
    let names = (0..others.len()).map(|number| format!("k{number}"));
    let commands = names.zip(others).map(|(name, asked)| create(&name, Mode::Quorum, Some(*asked)));
    let topology = topology(decided(commands.collect()), 4);
    let plan = Plan::new(&topology, OWN);
    (topology, plan)
}

fn wanted(plan: &Plan, keyspace: u32) -> impl Iterator<Item = &Wanted> {
    let of_keyspace = move |((of, _), _): &(&Place, &Wanted)| *of == KeyspaceId(keyspace);
    plan.places.iter().filter(of_keyspace).map(|(_, wanted)| wanted)
}

#[test]
fn each_keyspace_is_heard_where_the_node_is_a_primary_of_it() {
    let (topology, plan) = plan(&[asked(1, 1, 1), asked(4, 2, 3)]);
    for (keyspace, placement) in topology.placements() {
        let own: Vec<PartitionId> = placement.ring.partitions_of(OWN).collect();
        let planned = plan.places.keys().filter(|(of, _)| *of == keyspace);
        assert_eq!(planned.map(|(_, partition)| *partition).collect::<Vec<_>>(), own);
    }
    let count = |keyspace| wanted(&plan, keyspace).count();
    assert!(0 < count(1) && count(1) < count(0) && count(0) < count(2));
    assert_eq!(count(2), 16, "with as many replicas as nodes, each node has everything");
}

/// It once heard one of two, and a quorum of it and the other missed what the silent one knew.
#[test]
fn after_a_loss_the_node_does_not_count_itself_among_those_who_know() {
    for (nodes, expected) in [(1, (0, 0)), (2, (1, 1)), (3, (2, 2)), (4, (2, 2)), (5, (2, 2))] {
        let plan = Plan::new(&topology(decided(Vec::new()), nodes), OWN);
        for wanted in wanted(&plan, 0) {
            let counted = (wanted.holders.len(), wanted.enough);
            assert_eq!(counted, expected, "{nodes} nodes");
            assert!(wanted.holders.is_subset(&wanted.sources));
        }
    }
    let keyspaces = || decided(vec![create("k", Mode::Quorum, Some(asked(4, 1, 4)))]);
    let plan = Plan::new(&topology(keyspaces(), 5), OWN);
    assert!(wanted(&plan, 1).all(|wanted| (wanted.holders.len(), wanted.enough) == (3, 1)));
}

#[test]
fn sources_that_refill_themselves_count_only_once_nobody_else_is_left() {
    let node = NodeId;
    let wanted = Wanted::new([node(4)].into(), [node(2), node(3)].into(), 1);
    let check = |heard: &[(u64, bool)], connected: &[u64]| {
        let heard: BTreeMap<NodeId, bool> = heard.iter().map(|(n, c)| (node(*n), *c)).collect();
        let connected: BTreeSet<NodeId> = connected.iter().copied().map(NodeId).collect();
        wanted.is_satisfied(|n| heard.get(&n).copied(), |n| connected.contains(&n))
    };
    assert!(!check(&[], &[]));
    assert!(!check(&[(4, true)], &[]), "it is no holder");
    assert!(!check(&[(2, false)], &[]), "it does not know all itself");
    assert!(check(&[(2, true)], &[]));
    assert!(!check(&[(2, true)], &[3]), "whoever can be heard is heard");
    assert!(check(&[(2, false), (3, false), (4, true)], &[2, 3, 4]), "nobody knows more");
}

#[test]
fn a_keyspace_that_is_heard_of_later_makes_another_plan() {
    let ((_, before), (_, after)) = (plan(&[]), plan(&[asked(2, 1, 2)]));
    assert_ne!(before, after);
    assert!(before.pieces().all(|piece| after.pieces().any(|other| other == piece)));
}
