//! Nodes that join, change, come back and leave.

use crate::protocol::membership::Member;
use crate::protocol::system::samples::{
    Cluster, describe, drop_named, member, nodes, remove, strong,
};
use crate::protocol::system::{SystemCommand, SystemReply};
use crate::types::{Epoch, Incarnation, NodeId, ReplicaId};

#[test]
fn a_node_joins_and_begins_an_epoch() {
    let mut cluster = Cluster::sized(1);
    let command = describe(2, 1, |_| {});
    let reply = SystemReply::Described { system_replica: ReplicaId(2), epoch: Epoch(2) };
    assert_eq!(cluster.apply(command.clone()), Ok(reply.clone()));
    // A repeated request changes nothing.
    let before = cluster.state.clone();
    assert_eq!(cluster.apply(command), Ok(reply));
    assert_eq!(cluster.state, before);
    assert_eq!(cluster.state.ring(3).unwrap().members().len(), 2);
    assert_eq!(cluster.state.ring(3).unwrap().epoch(), Epoch(2));
}

/// What changes of a member, the epoch after it, and whether its replicas get new numbers.
type Change = (&'static str, fn(&mut Member), Epoch, bool);

#[test]
fn only_what_the_ring_depends_on_and_lost_rows_begin_an_epoch() {
    let changes: [Change; 5] = [
        ("name", |member| member.name = "other".to_owned(), Epoch(3), false),
        ("address", |member| member.client_address.set_port(1), Epoch(3), false),
        ("zone", |member| member.zone = "b".to_owned(), Epoch(4), false),
        ("vnodes", |member| member.vnodes = 16, Epoch(4), false),
        ("incarnation", |member| member.incarnation = Incarnation(8), Epoch(4), true),
    ];
    for (what, change, epoch, renewed) in changes {
        let mut cluster = Cluster::sized(3);
        cluster.apply(strong("orders", 3)).unwrap();
        let before = cluster.state.clone();
        cluster.apply(describe(2, 2, change)).unwrap();
        let after = &cluster.state;
        assert_eq!(after.epoch(), epoch, "{what}");
        let replica = |state: &crate::protocol::system::SystemState| {
            state.members()[&NodeId(2)].system_replica
        };
        assert_eq!(replica(&before) != replica(after), renewed, "{what}");
        for (group, placement) in after.groups() {
            let was = &before.groups()[group];
            assert_eq!(placement.nodes(), was.nodes(), "{what}");
            assert_eq!(placement.founders, was.founders, "{what}");
            let (old, new) = (was.replica_on(NodeId(2)), placement.replica_on(NodeId(2)));
            assert_eq!(old != new, renewed, "{what}");
            assert_eq!(placement.replica_on(NodeId(1)), was.replica_on(NodeId(1)), "{what}");
            let generation = if renewed { cluster.index.0 } else { was.generation };
            assert_eq!(placement.generation, generation, "{what}");
        }
    }
}

#[test]
fn an_older_description_is_refused() {
    let mut cluster = Cluster::sized(2);
    cluster.apply(describe(2, 5, |_| {})).unwrap();
    let refusal = cluster.refused(describe(2, 4, |_| {}));
    assert!(refusal.contains("revision is 4: node 0000000000000002"), "{refusal}");
    assert!(refusal.contains("with revision 5"), "{refusal}");
    let refusal = cluster.refused(describe(2, 5, |member| member.vnodes = 9));
    assert!(refusal.contains("revision is 5"), "{refusal}");
}

/// A part of the refusal, and what is wrong with the member.
type Unusable = (&'static str, fn(&mut Member));

#[test]
fn an_unusable_description_is_refused() {
    let cases: [Unusable; 6] = [
        ("name is empty", |member| member.name.clear()),
        ("name is \"a b\": it must have at most 64", |member| member.name = "a b".to_owned()),
        ("zone is \"a,b\"", |member| member.zone = "a,b".to_owned()),
        ("without spaces or commas", |member| member.zone = "x".repeat(65)),
        ("vnodes is 0: it must be from 1 to 16384", |member| member.vnodes = 0),
        ("vnodes is 16385", |member| member.vnodes = 16385),
    ];
    for (expected, change) in cases {
        let refusal = Cluster::sized(1).refused(describe(2, 1, change));
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn a_removed_node_is_gone_for_good() {
    let mut cluster = Cluster::sized(3);
    let reply = Ok(SystemReply::Removed { epoch: Epoch(4) });
    assert_eq!(cluster.apply(remove(2)), reply);
    assert_eq!(cluster.apply(remove(2)), reply, "a repeated request is no error");
    assert_eq!(*cluster.state.removed(), nodes([2]));
    assert!(!cluster.state.ring(3).unwrap().contains(NodeId(2)));
    let reborn = Member { revision: 9, incarnation: Incarnation(9), ..member("") };
    let again = SystemCommand::Describe { node: NodeId(2), member: reborn, joins: true };
    let refusal = cluster.refused(again);
    assert!(refusal.starts_with("node 0000000000000002 was removed"), "{refusal}");
}

#[test]
fn some_members_cannot_be_removed() {
    let mut cluster = Cluster::sized(2);
    let unknown = cluster.refused(remove(7));
    assert_eq!(unknown, "node 0000000000000007 is not a member of this cluster");
    let expected_epoch = Some(Epoch(1));
    let stale = cluster.refused(SystemCommand::Remove { node: NodeId(2), expected_epoch });
    assert!(stale.contains("expected_epoch is 1: the ring has epoch 2"), "{stale}");
    cluster.apply(strong("orders", 1)).unwrap();
    let sole = cluster.refused(remove(2));
    assert!(sole.contains("holds the only replica of group"), "{sole}");
    cluster.apply(drop_named("orders")).unwrap();
    assert_eq!(cluster.refused(remove(2)), sole, "it may still hold sessions");
    for (group, placement) in cluster.state.groups().clone() {
        let expected_generation = placement.generation;
        let nodes = nodes([1]);
        cluster.apply(SystemCommand::PlaceGroup { group, expected_generation, nodes }).unwrap();
    }
    let expected_epoch = Some(Epoch(2));
    cluster.apply(SystemCommand::Remove { node: NodeId(2), expected_epoch }).unwrap();
    let last = cluster.refused(remove(1));
    assert!(last.contains("is the last member"), "{last}");
}
