//! When partitions set out and when they arrive.

use super::*;
use crate::protocol::system::samples::{Cluster, describe, remove};

/// Three nodes that hold everything, and a fourth that has taken over what it could.
fn synced() -> Cluster {
    let mut cluster = Cluster::sized(3);
    cluster.settle();
    cluster.apply(describe(4, 1, |_| {})).unwrap();
    let order = due(&cluster.state, &cluster.reports()).unwrap();
    cluster.apply(order).unwrap();
    let moving = cluster.state.placing().moving();
    let partitions = moving.map(|(partition, _, moving)| (partition, moving.since)).collect();
    let incarnation = cluster.state.members()[&NodeId(4)].member.incarnation;
    let command = SystemCommand::Synced { node: NodeId(4), incarnation, partitions };
    cluster.apply(command).unwrap();
    cluster
}

fn settled(cluster: &Cluster, reports: &BTreeMap<NodeId, Report>) -> usize {
    match due(&cluster.state, reports) {
        Some(SystemCommand::Advance { settle, .. }) => settle.len(),
        _ => 0,
    }
}

#[test]
fn a_partition_arrives_once_its_old_owners_have_heard() {
    let cluster = synced();
    let all = cluster.state.placing().moving().count();
    let mut reports = cluster.reports();
    assert_eq!(settled(&cluster, &reports), all);
    reports.insert(NodeId(2), Report { epoch: Epoch(0), up: true });
    assert_eq!(settled(&cluster, &reports), 0, "one that is up will hear soon");
    reports.insert(NodeId(2), Report { epoch: Epoch(0), up: false });
    assert_eq!(settled(&cluster, &reports), all, "one alone makes no read quorum of two");
    reports.insert(NodeId(3), Report { epoch: Epoch(0), up: false });
    assert_eq!(settled(&cluster, &reports), 0, "two do");
}

#[test]
fn those_who_were_removed_are_not_waited_for() {
    let mut cluster = synced();
    cluster.apply(remove(3)).unwrap();
    let mut reports = cluster.reports();
    reports.insert(NodeId(2), Report { epoch: Epoch(0), up: false });
    assert!(settled(&cluster, &reports) > 0);
}

#[test]
fn a_node_takes_over_only_so_much_at_a_time() {
    let mut cluster = Cluster::sized(1);
    cluster.apply(describe(2, 1, |_| {})).unwrap();
    let Some(SystemCommand::Advance { prepare, .. }) = due(&cluster.state, &cluster.reports())
    else {
        panic!("nothing is due");
    };
    assert_eq!(prepare.len(), 8.min(COPIES_PER_NODE_MAX));
    let full: usize = cluster.settle();
    assert!(full >= 2, "they set out, and then arrive");
}
