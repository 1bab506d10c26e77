//! Nodes that have too much to do: who is refused, and what those are told.

use std::thread;
use std::time::Duration;

use tonic::Code;

use crate::grpc::get_of;
use crate::harness::{Cluster, PATIENCE, wait_until};

/// Counted from the first such put on.
const REFUSED_PUTS: &str = r#"coterie_requests_total{operation="put",result="overloaded"}"#;

/// Two nodes of which one stands still, so that a write to both keeps the other one busy.
fn busy_cluster() -> Cluster {
    let cluster = Cluster::start_with(2, &["--requests-in-flight-max", "1"]);
    cluster.nodes[1].pause();
    cluster
}

#[test]
fn whoever_is_refused_is_told_when_to_come_again() {
    let cluster = busy_cluster();
    let node = &cluster.nodes[0];
    thread::scope(|scope| {
        let writing = scope.spawn(|| node.put("/kv/k?w=2&timeout=8s", "v"));
        wait_until("the node is busy", PATIENCE, || {
            let refused = node.get("/kv/other?r=1");
            if refused.status == 429 { Ok(()) } else { Err(refused.status) }
        });
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
        let writing = scope.spawn(|| node.put("/kv/k?w=2&timeout=8s", "v"));
        wait_until("the node is busy", PATIENCE, || {
            let refused = node.get("/kv/other?r=1");
            if refused.status == 429 { Ok(()) } else { Err(refused.status) }
        });
        let nodes = [node.spec.client_address.to_string()];
        let client = coterie::Client::builder().nodes(nodes).connect().expect("a client");
        let keyspace = client.keyspace("default");
        let put = keyspace.put("other", "v").timeout(Duration::from_secs(20));
        let waiting = scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(put.send())
        });
        wait_until("the client was refused", PATIENCE, || {
            let metrics = node.get("/metrics").text();
            if metrics.contains(REFUSED_PUTS) { Ok(()) } else { Err(metrics) }
        });
        cluster.nodes[1].resume();
        writing.join().expect("no panic").expect(200);
        waiting.join().expect("no panic").expect("written after a rest");
    });
}
