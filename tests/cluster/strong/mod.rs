//! Strong keyspaces as clients see them: conditions, sessions, transactions, and leaders that go.

mod crash;
mod grpc;
mod http;
mod watch;

use coterie::proto::v1;

use crate::harness::{Cluster, NodeProcess, PATIENCE, wait_until};

/// The strong keyspace of these tests.
const NAME: &str = "lists";

/// Three nodes with a strong keyspace that every node serves. Few partitions: each is a Raft group,
/// and the machine that runs the tests may be small.
fn start() -> Cluster {
    start_with(&[])
}

/// The same with further arguments of `coterie serve`.
fn start_with(arguments: &[&str]) -> Cluster {
    let arguments = [&["--partitions", "8"], arguments].concat();
    let cluster = Cluster::start_with(3, &arguments);
    let grpc = cluster.nodes[0].grpc();
    let request = v1::CreateKeyspaceRequest {
        name: NAME.to_owned(),
        mode: "strong".to_owned(),
        ..v1::CreateKeyspaceRequest::default()
    };
    let created = grpc.wait(grpc.admin().create_keyspace(request)).expect("created").into_inner();
    assert_eq!(created.keyspace.expect("a keyspace").mode, "strong");
    cluster.nodes.iter().for_each(wait_serves);
    cluster
}

/// Waits until a node serves the keyspace: until it has heard of it, and its groups have leaders.
fn wait_serves(node: &NodeProcess) {
    for number in 0..16 {
        let what = format!("{} reads from all partitions", node.spec.name);
        wait_until(&what, PATIENCE, || {
            let reply = node.get(&path(&format!("warm-{number}")));
            let none = reply.status == 404 && reply.json()["code"] == "not_found";
            if none { Ok(()) } else { Err(reply.text()) }
        });
    }
}

/// The path of a key of the keyspace.
fn path(key: &str) -> String {
    format!("/v1/{NAME}/{key}")
}
