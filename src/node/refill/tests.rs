//! Whom a node hears before it is complete.

use super::*;
use crate::node::topology::tests::{asked, create, decided, topology};
use crate::protocol::system::keyspace::{Mode, ReplicationAsked};

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

#[test]
fn enough_sources_meet_every_write_quorum_of_the_keyspace() {
    // Without this node three others are left, and of four replicas three.
    let (_, plan) = plan(&[asked(1, 1, 1), asked(4, 1, 4), asked(3, 3, 1)]);
    let expected = [(0, 3, 2), (1, 1, 1), (2, 3, 2), (3, 3, 3)];
    for (keyspace, sources, enough) in expected {
        for wanted in wanted(&plan, keyspace) {
            assert_eq!((wanted.sources.len(), wanted.enough), (sources, enough), "{keyspace}");
        }
    }
}

#[test]
fn a_keyspace_that_is_heard_of_later_makes_another_plan() {
    let ((_, before), (_, after)) = (plan(&[]), plan(&[asked(2, 1, 2)]));
    assert_ne!(before, after);
    assert!(before.pieces().all(|piece| after.pieces().any(|other| other == piece)));
}
