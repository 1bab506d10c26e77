use std::net::SocketAddr;

use super::*;
use crate::types::{ClusterId, Epoch, Incarnation, NodeId, PartitionId, Token};

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Every field differs from every other of its type, so that no two can be swapped unseen.
fn member() -> status::MemberStatus {
    status::MemberStatus {
        node_id: NodeId(0xa),
        name: "n1".to_owned(),
        state: "up".to_owned(),
        is_self: true,
        connected: false,
        peer_address: address(1),
        client_address: address(2),
        zone: "z".to_owned(),
        vnodes: 3,
        partitions: 4,
        hint_bytes: 5,
        load_per_second: 6,
        complete: true,
        agrees: false,
        read_latency_us: 17,
        write_latency_us: 18,
        slow: true,
    }
}

fn member_sent() -> v1::Member {
    v1::Member {
        node_id: "000000000000000a".to_owned(),
        name: "n1".to_owned(),
        state: "up".to_owned(),
        is_self: true,
        connected: false,
        peer_address: "127.0.0.1:1".to_owned(),
        client_address: "127.0.0.1:2".to_owned(),
        zone: "z".to_owned(),
        vnodes: 3,
        partitions: 4,
        hint_bytes: 5,
        load_per_second: 6,
        complete: true,
        agrees: false,
        read_latency_us: 17,
        write_latency_us: 18,
        slow: true,
    }
}

fn summary() -> status::RingSummary {
    let digest = "d".to_owned();
    status::RingSummary { epoch: Epoch(7), partitions: 8, vnodes: 9, digest, unsettled: 3 }
}

fn summary_sent() -> v1::RingSummary {
    v1::RingSummary { epoch: 7, partitions: 8, vnodes: 9, digest: "d".to_owned(), unsettled: 3 }
}

fn replication() -> status::ReplicationStatus {
    status::ReplicationStatus {
        replication_factor: 1,
        read_quorum: 2,
        write_quorum: 3,
        replicas_in_effect: 4,
        read_quorum_in_effect: 5,
        write_quorum_in_effect: 6,
    }
}

fn node_status() -> status::NodeStatus {
    let detail = "9 left".to_owned();
    status::NodeStatus {
        program_version: "1.2.3",
        cluster_id: Some(ClusterId(0xc)),
        node_id: NodeId(0xa),
        name: "n1".to_owned(),
        incarnation: Incarnation(0xb),
        serving: status::Serving { ready: false, reason: "joining".to_owned() },
        members: vec![member()],
        ring: summary(),
        replication: replication(),
        concurrent_writes_discarded: 3,
        hot_keys: vec![status::HotKey {
            keyspace: "orders".to_owned(),
            key: "k".to_owned(),
            requests_per_second: 21,
            share_percent: 22,
        }],
        raft: status::RaftStatus {
            groups: 1,
            led: 2,
            leaderless: 3,
            waiting: 4,
            installing: 5,
            system_leader: Some(NodeId(0xa)),
            snapshots_sent: 6,
            snapshots_installed: 7,
        },
        activities: vec![status::Activity { name: "hinted handoff", state: "busy", detail }],
        warnings: vec!["w".to_owned()],
    }
}

#[test]
fn every_field_of_a_status_arrives() {
    let sent = v1::StatusResponse::from(node_status());
    assert_eq!((sent.program_version.as_str(), sent.name.as_str()), ("1.2.3", "n1"));
    assert_eq!(sent.cluster_id, "000000000000000c");
    assert_eq!(sent.node_id, "000000000000000a");
    assert_eq!(sent.incarnation, "000000000000000b");
    assert_eq!(sent.serving, Some(v1::Serving { ready: false, reason: "joining".to_owned() }));
    assert_eq!(sent.members, [member_sent()]);
    assert_eq!(sent.ring, Some(summary_sent()));
    assert_eq!(sent.warnings, ["w"]);
    let (name, state) = ("hinted handoff".to_owned(), "busy".to_owned());
    assert_eq!(sent.activities, [v1::Activity { name, state, detail: "9 left".to_owned() }]);
    let expected = v1::ReplicationStatus {
        replication_factor: 1,
        read_quorum: 2,
        write_quorum: 3,
        replicas_in_effect: 4,
        read_quorum_in_effect: 5,
        write_quorum_in_effect: 6,
    };
    assert_eq!(sent.replication, Some(expected));
    let raft = v1::RaftSummary {
        groups: 1,
        led: 2,
        leaderless: 3,
        waiting: 4,
        installing: 5,
        system_leader: "000000000000000a".to_owned(),
        snapshots_sent: 6,
        snapshots_installed: 7,
    };
    assert_eq!(sent.raft, Some(raft));
    let (keyspace, key) = ("orders".to_owned(), "k".to_owned());
    let hot = v1::HotKey { keyspace, key, requests_per_second: 21, share_percent: 22 };
    assert_eq!(sent.hot_keys, [hot]);
    assert_eq!(sent.concurrent_writes_discarded, 3);
}

#[test]
fn a_node_without_a_cluster_has_an_empty_cluster_id() {
    let status = status::NodeStatus { cluster_id: None, ..node_status() };
    assert_eq!(v1::StatusResponse::from(status).cluster_id, "");
}

#[test]
fn every_field_of_a_ring_arrives() {
    let primaries = vec![NodeId(2), NodeId(1)];
    let leader = Some(NodeId(1));
    let partitions = vec![status::PartitionView { partition: PartitionId(255), primaries, leader }];
    let ring = status::RingView { summary: summary(), members: vec![member()], partitions };
    let sent = v1::RingResponse::from(ring);
    assert_eq!(sent.summary, Some(summary_sent()));
    assert_eq!(sent.members, [member_sent()]);
    let primaries = vec!["0000000000000002".to_owned(), "0000000000000001".to_owned()];
    let leader = primaries[1].clone();
    assert_eq!(sent.partitions, [v1::Partition { partition: 255, primaries, leader }]);
}

#[test]
fn every_field_of_owners_arrives() {
    let owner = status::OwnerView {
        node_id: NodeId(0xa),
        name: "n1".to_owned(),
        role: "fallback",
        state: "down".to_owned(),
        client_address: address(2),
    };
    let sent = v1::OwnersResponse::from(status::KeyOwners {
        key: "k".to_owned(),
        token: Token(u64::MAX),
        partition: PartitionId(7),
        owners: vec![owner],
    });
    let owner = v1::Owner {
        node_id: "000000000000000a".to_owned(),
        name: "n1".to_owned(),
        role: "fallback".to_owned(),
        state: "down".to_owned(),
        client_address: "127.0.0.1:2".to_owned(),
    };
    assert_eq!((sent.key.as_str(), sent.token, sent.partition), ("k", u64::MAX, 7));
    assert_eq!(sent.owners, [owner]);
}
