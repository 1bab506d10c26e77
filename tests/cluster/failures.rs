//! One of three nodes dies or hangs: what goes on, what is refused, what is caught up.

use std::time::Duration;

use coterie::proto::v1;
use serde_json::Value;
use tonic::Code;

use crate::grpc::put_text;
use crate::harness::{Cluster, HttpReply, NodeProcess, PATIENCE, wait_for, wait_until};

/// Keys written while a node is away.
const MISSED: usize = 500;
const DEAD: usize = 2;

fn write_while_away(cluster: &Cluster) {
    for number in 0..MISSED {
        let coordinator = &cluster.nodes[number % 2];
        let path = format!("/kv/missed-{number}");
        coordinator.put(&path, &format!("value {number}")).expect(200);
    }
}

/// Whether a refusal says what an absent replica must lead to: nothing attempted at 503, unknown
/// at 504, and nothing else.
#[track_caller]
fn check_refusal(reply: &HttpReply) {
    let body = reply.json();
    let expected = match reply.status {
        503 => "not-attempted",
        504 => "unknown",
        _ => panic!("{}: {body}", reply.status),
    };
    assert_eq!(body["outcome"], expected, "{body}");
}

#[test]
fn quorum_goes_on_when_one_of_three_is_killed_and_all_is_refused_unattempted() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[DEAD].kill();
    write_while_away(&cluster);
    let node = &cluster.nodes[0];
    wait_until("writes at ALL are refused before they are sent", PATIENCE, || {
        let reply = node.put("/kv/k?level=all&timeout=500ms", "v");
        check_refusal(&reply);
        if reply.status == 503 { Ok(()) } else { Err(reply.text()) }
    });
    let refused = node.get("/kv/missed-0?level=all").expect(503).json();
    let expected = ("quorum_unavailable", "not-attempted");
    assert_eq!((&refused["code"], &refused["outcome"]), (&expected.0.into(), &expected.1.into()));
    let grpc = node.grpc();
    let all = v1::PutRequest { level: v1::Level::All.into(), ..put_text("k", "v") };
    let status = grpc.wait(grpc.kv().put(all)).expect_err("one is missing");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("coterie-outcome").expect("a trailer"), "not-attempted");
    let receipt = node.put("/kv/k?level=quorum", "v").expect(200).json();
    assert_eq!((&receipt["required"], &receipt["replicas"]), (&2.into(), &3.into()), "{receipt}");
}

#[test]
fn writes_for_an_absent_node_are_hinted_and_delivered_when_it_returns() {
    let mut cluster = Cluster::start(3);
    let id = cluster.nodes[DEAD].node_id();
    cluster.nodes[DEAD].kill();
    cluster.wait_state(0, DEAD, "down");
    cluster.wait_state(1, DEAD, "down");
    let receipt = cluster.nodes[0].put("/kv/hinted", "v").expect(200).json();
    assert_eq!(receipt["hinted"], serde_json::json!([id]), "{receipt}");
    write_while_away(&cluster);
    assert!(hint_bytes(&cluster).expect("a status") > 0);
    assert!(hint_gauges(&cluster, &id).iter().any(|bytes| *bytes > 0));
    cluster.nodes[DEAD].start();
    cluster.wait_formed();
    wait_until("all hints are delivered", PATIENCE, || match hint_bytes(&cluster)? {
        0 => Ok(()),
        bytes => Err(format!("{bytes} bytes of hints")),
    });
    assert_eq!(hint_gauges(&cluster, &id), [0, 0], "metrics go on telling of hints");
    // Alone, the returned node can only answer from what it holds itself.
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    for number in 0..MISSED {
        check_held(&cluster.nodes[DEAD], &format!("/kv/missed-{number}?level=one"), number);
    }
}

fn hint_bytes(cluster: &Cluster) -> Result<u64, String> {
    let name = &cluster.nodes[DEAD].spec.name;
    let mut bytes = 0;
    for node in &cluster.nodes[..DEAD] {
        bytes += node.member(name)?["hint_bytes"].as_u64().ok_or("no hint_bytes")?;
    }
    Ok(bytes)
}

/// What the metrics of those who stayed say of hints for a node.
fn hint_gauges(cluster: &Cluster, id: &str) -> Vec<u64> {
    let begins = format!("coterie_hint_bytes{{peer=\"{id}\"}} ");
    let gauge = |node: &NodeProcess| -> u64 {
        let text = node.get("/metrics").expect(200).text();
        let line = text.lines().find_map(|line| line.strip_prefix(&begins)).map(str::to_owned);
        line.expect("a gauge of every member").parse().expect("a whole number")
    };
    cluster.nodes[..DEAD].iter().map(gauge).collect()
}

fn check_held(node: &NodeProcess, path: &str, number: usize) {
    let body: Value = wait_for(&format!("{path} is read"), PATIENCE, || {
        let reply = node.get(path);
        if reply.status == 504 || reply.status == 503 {
            Err(reply.text())
        } else {
            Ok(reply.json())
        }
    });
    assert_eq!(body["value"], format!("value {number}"), "{path}: {body}");
}

#[test]
fn a_paused_node_holds_up_no_quorum_and_an_unmet_all_is_unknown() {
    let cluster = Cluster::start(3);
    let node = &cluster.nodes[0];
    cluster.nodes[DEAD].pause();
    let unmet = node.put("/kv/k?level=all&timeout=300ms", "v");
    check_refusal(&unmet);
    for number in 0..50 {
        node.put(&format!("/kv/k{number}?timeout=2s"), "v").expect(200);
        node.get(&format!("/kv/k{number}?timeout=2s")).expect(200);
    }
    cluster.nodes[DEAD].resume();
    wait_until("ALL is met again", PATIENCE, || {
        let reply = node.put("/kv/k?level=all", "w");
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    });
}

#[test]
fn a_request_ends_at_its_own_deadline() {
    let cluster = Cluster::start(3);
    cluster.nodes[1].pause();
    cluster.nodes[2].pause();
    let mut request = tonic::Request::new(put_text("k", "v"));
    // The client reads the header too: whichever of the two timers is first, it ends in time.
    request.metadata_mut().insert("grpc-timeout", "200m".parse().expect("ascii"));
    let grpc = cluster.nodes[0].grpc();
    let call = async { tokio::time::timeout(Duration::from_secs(2), grpc.kv().put(request)).await };
    let status = grpc.wait(call).expect("well before two seconds").expect_err("no quorum");
    let ended = [Code::DeadlineExceeded, Code::Unavailable, Code::Cancelled];
    assert!(ended.contains(&status.code()), "{status:?}");
    cluster.nodes[1].resume();
    cluster.nodes[2].resume();
}

#[test]
fn deletes_reach_a_node_that_was_away() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[0].put("/kv/k?level=all", "v").expect(200);
    cluster.nodes[DEAD].kill();
    cluster.nodes[1].delete("/kv/k").expect(200);
    cluster.nodes[DEAD].start();
    cluster.wait_formed();
    for node in &cluster.nodes {
        assert_eq!(node.get("/kv/k").expect(404).json()["code"], "not_found");
    }
}
