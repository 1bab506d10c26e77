//! Nodes that have too much to do: who is refused, and what those are told.

use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use tonic::Code;

use crate::grpc::get_of;
use crate::harness::{Cluster, HttpReply, NodeProcess, PATIENCE, coterie, wait_for, wait_until};

/// Counted from the first such delete on.
const REFUSED_DELETES: &str = r#"coterie_requests_total{operation="delete",result="overloaded"}"#;

/// Two nodes of which one stands still, so that a write to both keeps the other one busy.
fn busy_cluster() -> Cluster {
    let cluster = Cluster::start_with(2, &["--requests-in-flight-max", "1"]);
    cluster.nodes[1].pause();
    cluster
}

/// A write that keeps the node busy, once it does.
fn busied<'scope>(
    scope: &'scope Scope<'scope, '_>,
    node: &'scope NodeProcess,
) -> ScopedJoinHandle<'scope, HttpReply> {
    // The first writes may be refused themselves, for the reads that ask whether it is busy yet.
    let writing = scope.spawn(|| {
        loop {
            let reply = node.put("/kv/k?w=2&timeout=8s", "v");
            if reply.status != 429 {
                return reply;
            }
        }
    });
    wait_until("the node is busy", PATIENCE, || {
        let refused = node.get("/kv/other?r=1");
        if refused.status == 429 { Ok(()) } else { Err(refused.status) }
    });
    writing
}

#[test]
fn whoever_is_refused_is_told_when_to_come_again() {
    let cluster = busy_cluster();
    let node = &cluster.nodes[0];
    thread::scope(|scope| {
        let writing = busied(scope, node);
        let refused = node.get("/kv/other?r=1").expect(429);
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.header("retry-after-ms"), "50");
        assert_eq!(refused.json()["error"], "overloaded: requests_in_flight_max is 1");
        let grpc = node.grpc();
        let status = grpc.wait(grpc.kv().get(get_of("other"))).expect_err("busy");
        assert_eq!(status.code(), Code::ResourceExhausted);
        let told = |name| status.metadata().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(told("retry-after-ms"), Some("50"));
        assert_eq!(told("grpc-retry-pushback-ms"), Some("50"));
        cluster.nodes[1].resume();
        writing.join().expect("no panic").expect(200);
    });
}

#[test]
fn the_client_comes_again_when_it_was_told_to() {
    let cluster = busy_cluster();
    let node = &cluster.nodes[0];
    thread::scope(|scope| {
        let writing = busied(scope, node);
        let nodes = [node.spec.client_address.to_string()];
        let client = coterie::Client::builder().nodes(nodes).connect().expect("a client");
        let keyspace = client.keyspace("default");
        let delete = keyspace.delete("other").timeout(Duration::from_secs(20));
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(delete.send())
        });
        wait_until("the client was refused", PATIENCE, || {
            let metrics = node.get("/metrics").text();
            if metrics.contains(REFUSED_DELETES) { Ok(()) } else { Err(metrics) }
        });
        cluster.nodes[1].resume();
        writing.join().expect("no panic").expect(200);
        waiting.join().expect("no panic").expect("deleted after a rest");
    });
}

#[test]
fn a_keyspace_is_kept_to_its_limits_until_they_are_lifted() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    for name in ["limited", "free"] {
        assert_eq!(coterie(node, &["keyspace", "create", name]).0, 0, "{name}");
    }
    let alter = |limits: &[&str]| {
        let (code, out, err) = coterie(node, &[&["keyspace", "alter", "limited"], limits].concat());
        assert_eq!(code, 0, "{err}");
        out
    };
    let out = alter(&["--limit-operations", "2", "--limit-bytes", "1MiB"]);
    assert!(out.contains("at most 2 ops/s and 1MiB/s on each node"), "{out}");
    let refused = wait_for("the keyspace has used its limit up", PATIENCE, || {
        let reply = node.put("/v1/limited/k", "v");
        if reply.status == 429 { Ok(reply) } else { Err(reply.status) }
    });
    let error = refused.json()["error"].as_str().expect("an error").to_owned();
    let named = "keyspace \"limited\" is limited: limit_operations_per_second is 2 on each node; \
                 got 1 more; try again in ";
    assert!(error.starts_with(named), "{error}");
    assert_eq!(refused.json()["code"], "rate_limited");
    assert_eq!(refused.json()["outcome"], "not-attempted");
    assert_eq!(refused.header("retry-after"), "1");
    let ms: u64 = refused.header("retry-after-ms").parse().expect("milliseconds");
    assert!((1..=500).contains(&ms), "{ms}");
    for _ in 0..20 {
        node.put("/v1/free/k", "v").expect(200);
    }
    // The command line's client waits as it is told, or says so.
    wait_until("there is something left again", PATIENCE, || {
        let (code, _, err) = coterie(node, &["put", "-k", "limited", "k", "v"]);
        if code == 0 { Ok(()) } else { Err(err) }
    });
    let out = alter(&["--limit-operations", "0", "--limit-bytes", "0"]);
    assert!(!out.contains("at most"), "{out}");
    for _ in 0..20 {
        node.put("/v1/limited/k", "v").expect(200);
    }
}

#[test]
fn bytes_that_were_read_count_too() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let created = coterie(node, &["keyspace", "create", "k", "--limit-bytes", "100000"]);
    assert_eq!(created.0, 0, "{created:?}");
    node.put("/v1/k/large", &"x".repeat(50_000)).expect(200);
    let refused = wait_for("the keyspace has used its limit up", PATIENCE, || {
        let reply = node.get("/v1/k/large");
        if reply.status == 429 { Ok(reply) } else { Err(reply.status) }
    });
    let error = refused.json()["error"].as_str().expect("an error").to_owned();
    assert!(error.contains("limit_bytes_per_second is 100000 on each node; got 5 more"), "{error}");
}
