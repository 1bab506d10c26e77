//! Over HTTP.

use serde_json::{Value, json};

use crate::harness::{Cluster, HttpReply, NodeProcess};
use crate::strong::{NAME, path, start};

const RAW: [(&str, &str); 1] = [("content-type", "application/octet-stream")];

fn append(node: &NodeProcess, key: &str, headers: &[(&str, &str)], suffix: &str) -> HttpReply {
    let headers = [&RAW[..], headers].concat();
    node.http("POST", &format!("{}?op=append", path(key)), &headers, suffix.as_bytes())
}

fn put_if(node: &NodeProcess, key: &str, condition: (&str, &str), value: &str) -> HttpReply {
    let headers = [RAW[0], condition];
    node.http("PUT", &path(key), &headers, value.as_bytes())
}

fn transact(node: &NodeProcess, steps: &Value) -> HttpReply {
    let body = json!({ "steps": steps }).to_string();
    node.http("POST", &format!("/v1/{NAME}"), &[], body.as_bytes())
}

#[track_caller]
fn refused(reply: &HttpReply, status: u16, code: &str) {
    assert_eq!((reply.status, &reply.json()["code"]), (status, &code.into()), "{}", reply.text());
}

#[track_caller]
fn value(node: &NodeProcess, key: &str) -> String {
    let read = node.get(&path(key)).expect(200).json();
    assert_eq!(read["consistency"], "linearizable", "{read}");
    read["value"].as_str().expect("text").to_owned()
}

#[test]
fn strong_keyspaces_over_http() {
    let cluster = start();
    every_node_serves_every_key(&cluster);
    conditions_hold_or_are_refused_with_what_is_there(&cluster);
    a_repeated_append_is_answered_and_not_done_again(&cluster);
    transactions_happen_whole_or_not_at_all(&cluster);
    a_stale_read_is_answered_by_every_node(&cluster);
    what_the_keyspace_does_not_offer_is_refused(&cluster);
    leaderless_keyspaces_hold_no_conditions(&cluster);
}

fn every_node_serves_every_key(cluster: &Cluster) {
    let clients: Vec<String> =
        cluster.nodes.iter().map(|node| node.spec.client_address.to_string()).collect();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let key = format!("a/b {number}").replace(' ', "%20");
        let written = node.put(&path(&key), "one").expect(200);
        let told = written.json();
        assert_eq!((&told["required"], &told["replicas"]), (&2.into(), &3.into()), "{told}");
        assert_eq!(
            written.header("etag"),
            format!("\"{}\"", told["version"].as_str().expect("a version"))
        );
        assert!(clients.contains(&written.header("coterie-leader").to_owned()), "{told}");
        for other in &cluster.nodes {
            assert_eq!(value(other, &key), "one");
        }
        let appended = append(node, &key, &[], ", two").expect(200).json();
        assert_eq!(appended["value_bytes"], 8, "{appended}");
        for other in &cluster.nodes {
            assert_eq!(value(other, &key), "one, two");
        }
        node.delete(&path(&key)).expect(200);
        for other in &cluster.nodes {
            refused(&other.get(&path(&key)), 404, "not_found");
        }
    }
}

fn conditions_hold_or_are_refused_with_what_is_there(cluster: &Cluster) {
    let [first, second, third] = &cluster.nodes[..] else { panic!("three nodes") };
    let absent = ("if-none-match", "*");
    let created = put_if(first, "cas", absent, "1").expect(200);
    let tag = created.header("etag").to_owned();
    let there = put_if(second, "cas", absent, "2");
    refused(&there, 412, "condition_failed");
    let body = there.json();
    assert_eq!(
        json!([body["found"], body["value"], body["outcome"]]),
        json!([true, "1", "failed"])
    );
    assert_eq!((there.header("etag"), &body["version"]), (&*tag, &json!(tag.trim_matches('"'))));
    let changed = put_if(second, "cas", ("if-match", &tag), "2").expect(200);
    refused(&put_if(third, "cas", ("if-match", &tag), "3"), 412, "condition_failed");
    assert_eq!(value(third, "cas"), "2");
    refused(&put_if(third, "cas", ("if-match", "\"other\""), "3"), 412, "condition_failed");
    refused(&put_if(third, "cas", ("if-match", "other"), "3"), 400, "invalid_argument");
    append(third, "cas", &[("if-match", changed.header("etag"))], "3").expect(200);
    assert_eq!(value(first, "cas"), "23");
    let old = [("if-match", changed.header("etag"))];
    refused(&first.http("DELETE", &path("cas"), &old, b""), 412, "condition_failed");
    first.http("DELETE", &path("cas"), &[("if-match", "*")], b"").expect(200);
    let gone = put_if(second, "cas", ("if-match", "*"), "4");
    refused(&gone, 412, "condition_failed");
    assert_eq!(gone.json()["found"], false);
}

fn a_repeated_append_is_answered_and_not_done_again(cluster: &Cluster) {
    let [first, second, third] = &cluster.nodes[..] else { panic!("three nodes") };
    let once = [("coterie-session", "00000000000000ab/1")];
    let answer = append(first, "log", &once, "x").expect(200).json();
    for node in [first, second, third] {
        let again = append(node, "log", &once, "x").expect(200).json();
        assert_eq!((&again["version"], &again["value_bytes"]), (&answer["version"], &1.into()));
    }
    append(second, "log", &[("coterie-session", "00000000000000ab/2/1")], "y").expect(200);
    refused(&append(third, "log", &once, "x"), 409, "session_acknowledged");
    let unknown = [("coterie-session", "00000000000000cd/7")];
    refused(&append(third, "log", &unknown, "z"), 409, "session_unknown");
    refused(&append(third, "log", &[("coterie-session", "1/1")], "z"), 400, "invalid_argument");
    assert_eq!(value(first, "log"), "xy");
}

fn transactions_happen_whole_or_not_at_all(cluster: &Cluster) {
    let [first, second, third] = &cluster.nodes[..] else { panic!("three nodes") };
    let order = json!([
        {"key": "cart:{7}:items", "append": "tea,"},
        {"key": "cart:{7}:total", "check": {"absent": true}},
        {"key": "cart:{7}:total", "put": "4"},
    ]);
    let done = transact(first, &order).expect(200).json();
    let results = json!([
        {"existed": false, "value_bytes": 4},
        {"existed": false, "value_bytes": 0},
        {"existed": false, "value_bytes": 1},
    ]);
    assert_eq!(done["results"], results, "{done}");
    let again = transact(second, &order);
    refused(&again, 412, "condition_failed");
    assert_eq!(json!([again.json()["step"], again.json()["value"]]), json!([1, "4"]));
    assert_eq!(value(third, "cart:%7B7%7D:items"), "tea,");
    let apart: Vec<Value> = (0..32).map(|n| json!({"key": format!("k{n}"), "put": "v"})).collect();
    let reply = transact(second, &json!(apart));
    refused(&reply, 400, "invalid_argument");
    assert!(reply.text().contains("must lie in one partition"), "{}", reply.text());
    (0..32).for_each(|n| refused(&third.get(&path(&format!("k{n}"))), 404, "not_found"));
    refused(&transact(first, &json!([])), 400, "invalid_argument");
    let put = first.put(&format!("/v1/{NAME}"), "v").expect(405);
    assert_eq!(put.header("allow"), "GET, HEAD, POST");
}

fn a_stale_read_is_answered_by_every_node(cluster: &Cluster) {
    cluster.nodes[0].put(&path("stale"), "v").expect(200);
    for node in &cluster.nodes {
        // Within its bound a stale read may miss what was just written.
        let bound = "?consistency=stale&max_staleness=5s";
        crate::harness::wait_until("the write is seen", crate::harness::PATIENCE, || {
            let read = node.get(&format!("{}{bound}", path("stale")));
            let seen = read.status == 200 && read.json()["value"] == "v";
            if seen { Ok(()) } else { Err(read.text()) }
        });
        let read = node.get(&format!("{}{bound}", path("stale"))).expect(200).json();
        assert_eq!(read["consistency"], "stale", "{read}");
        let lease = node.get(&format!("{}?consistency=lease", path("stale"))).expect(200).json();
        assert_eq!((&lease["value"], &lease["consistency"]), (&"v".into(), &"lease".into()));
    }
}

fn what_the_keyspace_does_not_offer_is_refused(cluster: &Cluster) {
    let node = &cluster.nodes[1];
    for query in ["level=one", "r=1"] {
        refused(&node.get(&format!("{}?{query}", path("k"))), 400, "not_available");
    }
    for query in ["level=all", "w=1", "sloppy=true"] {
        refused(&node.put(&format!("{}?{query}", path("k")), "v"), 400, "not_available");
    }
    let session = [("coterie-session", "00000000000000ab/1")];
    refused(&node.http("GET", &path("k"), &session, b""), 400, "not_available");
    refused(&node.http("POST", &path("k"), &RAW, b"v"), 400, "invalid_argument");
    refused(&node.get(&path("")), 400, "invalid_argument");
    refused(&node.get("/v1/nowhere/k"), 404, "unknown_keyspace");
    refused(&node.put("/v1/nowhere/k", "v"), 404, "unknown_keyspace");
    let allow = "GET, HEAD, PUT, DELETE, POST";
    assert_eq!(node.http("PATCH", &path("k"), &[], b"").expect(405).header("allow"), allow);
}

fn leaderless_keyspaces_hold_no_conditions(cluster: &Cluster) {
    let node = &cluster.nodes[2];
    let written = node.put("/v1/default/plain", "v").expect(200);
    assert_eq!(node.get("/kv/plain").expect(200).json()["value"], "v");
    assert_eq!(written.header("coterie-leader"), "");
    let session = ("coterie-session", "00000000000000ab/1");
    for header in [("if-match", written.header("etag")), ("if-none-match", "*"), session] {
        for path in ["/kv/plain", "/v1/default/plain"] {
            let reply = node.http("PUT", path, &[RAW[0], header], b"w");
            refused(&reply, 400, "not_available");
            refused(&node.http("DELETE", path, &[header], b""), 400, "not_available");
        }
    }
    refused(&node.http("POST", "/v1/default/plain?op=append", &RAW, b"w"), 400, "not_available");
    refused(&node.get("/kv/plain?consistency=lease"), 400, "not_available");
    let steps = br#"{"steps":[{"key":"plain","put":"w"}]}"#;
    refused(&node.http("POST", "/v1/default", &[], steps), 400, "not_available");
    assert_eq!(node.get("/kv/plain").expect(200).json()["value"], "v");
}
