//! Counters and sets.

use coterie::proto::v1;
use serde_json::{Value, json};

use crate::harness::{Cluster, NodeProcess, PATIENCE, coterie, wait_until};
use crate::siblings::merging;

/// Five nodes, so that some own no copy of a key, with a keyspace that merges so.
fn keyspace(name: &str, merge: &str) -> Cluster {
    merging(5, name, merge)
}

fn add(node: &NodeProcess, query: &str) -> Value {
    node.http("POST", &format!("/v1/hits/home?op=increment{query}"), &[], b"").expect(200).json()
}

fn update(node: &NodeProcess, query: &str, body: &Value) -> Value {
    let path = format!("/v1/tags/k?op=update{query}");
    node.http("POST", &path, &[], body.to_string().as_bytes()).expect(200).json()
}

fn elements(node: &NodeProcess) -> Value {
    node.get("/v1/tags/k").expect(200).json()["elements"].clone()
}

#[test]
fn additions_at_all_nodes_count() {
    let cluster = keyspace("hits", "counter");
    assert_eq!(add(&cluster.nodes[0], "")["value"], "1");
    std::thread::scope(|scope| {
        for node in &cluster.nodes {
            scope.spawn(|| (0..20).for_each(|_| drop(add(node, "&by=3"))));
        }
    });
    add(&cluster.nodes[4], "&by=-1&w=3");
    for node in &cluster.nodes {
        let read = node.get("/v1/hits/home").expect(200);
        assert_eq!(read.json()["value"], "300");
        assert_eq!(read.header("x-coterie-context"), read.json()["context"]);
    }
    let listed = cluster.nodes[1].get("/v1/hits").expect(200).json();
    assert_eq!(listed["rows"][0]["value"], "300", "{listed}");

    let node = &cluster.nodes[2];
    let (code, text, said) = coterie(node, &["increment", "home", "-100", "-k", "hits"]);
    assert!(code == 0 && text.starts_with("counted, 200 now: version"), "{text} {said}");
    let (code, text, _) = coterie(node, &["get", "home", "-k", "hits"]);
    assert_eq!((code, text.trim()), (0, "200"));
    let grpc = node.grpc();
    let (keyspace, key) = ("hits".to_owned(), "home".to_owned());
    let by = Some(7);
    let request = v1::IncrementRequest { keyspace, key, by, ..Default::default() };
    let counted = grpc.wait(grpc.kv().increment(request)).expect("an answer").into_inner();
    assert_eq!(counted.total, 207);
    node.delete("/v1/hits/home").expect(200);
    cluster.nodes[3].get("/v1/hits/home").expect(404);
    assert_eq!(add(&cluster.nodes[1], "&by=2")["value"], "2", "counting begins anew");
}

#[test]
fn what_a_counter_cannot_do_is_refused_by_name() {
    let cluster = keyspace("hits", "counter");
    let node = &cluster.nodes[0];
    add(node, &format!("&by={}", i64::MAX));
    let beyond = node.http("POST", "/v1/hits/home?op=increment", &[], b"").expect(409).json();
    assert_eq!((&beyond["code"], &beyond["outcome"]), (&json!("out_of_range"), &json!("failed")));
    let path = "/v1/hits/home?op=increment";
    let body = node.http("POST", path, &[], br#"{"by":5}"#).expect(400);
    assert!(body.text().contains("by=5"), "{}", body.text());
    let put = node.http("PUT", "/v1/hits/home", &[], br#"{"value":"5"}"#).expect(400).json();
    assert!(put["error"].as_str().is_some_and(|it| it.contains("increment and delete")), "{put}");
    let other = node.http("POST", "/v1/default/k?op=increment", &[], b"").expect(400).json();
    assert!(other["error"].as_str().is_some_and(|it| it.contains("as lww")), "{other}");
    let set = node.http("POST", "/v1/hits/k?op=update", &[], br#"{"add":["a"]}"#).expect(400);
    assert!(set.text().contains("as counter"), "{}", set.text());
    let none = node.http("POST", "/v1/hits/k?op=update", &[], b"{}").expect(400);
    assert!(none.text().contains("name an element"), "{}", none.text());
}

#[test]
fn elements_come_and_go_at_all_nodes_and_additions_win() {
    let cluster = keyspace("tags", "set");
    update(&cluster.nodes[0], "", &json!({ "add": ["red", "green"] }));
    let seen = cluster.nodes[1].get("/v1/tags/k").expect(200);
    assert_eq!(seen.json()["elements"], json!(["green", "red"]));
    let context = seen.header("x-coterie-context").to_owned();
    let changed = update(&cluster.nodes[2], "", &json!({ "add": ["blue"], "remove": ["red"] }));
    assert_eq!(changed["size"], 2);
    update(&cluster.nodes[3], "", &json!({ "add": ["green"] }));
    // What was added since the remover looked stands.
    let late = json!({ "remove": ["green", "blue"] });
    update(&cluster.nodes[4], &format!("&context={context}"), &late);
    for node in &cluster.nodes {
        assert_eq!(elements(node), json!(["blue", "green"]));
    }
    let listed = cluster.nodes[1].get("/v1/tags").expect(200).json();
    assert_eq!(listed["rows"][0]["value"], r#"["blue","green"]"#, "{listed}");

    let node = &cluster.nodes[2];
    let line = ["update-set", "k", "-k", "tags", "--add", "a b", "--remove", "green"];
    let (code, text, said) = coterie(node, &line);
    assert!(code == 0 && text.starts_with("changed, 2 elements now: version"), "{text} {said}");
    let (code, text, _) = coterie(node, &["get", "k", "-k", "tags"]);
    assert_eq!((code, text.trim()), (0, r#"["a b","blue"]"#));
    let grpc = node.grpc();
    let (keyspace, key) = ("tags".to_owned(), "k".to_owned());
    let request = v1::GetRequest { keyspace, key, ..Default::default() };
    let read = grpc.wait(grpc.kv().get(request)).expect("an answer").into_inner();
    assert_eq!(read.elements, ["a b", "blue"]);
    update(&cluster.nodes[0], "", &json!({ "remove": ["blue", "a b"] }));
    cluster.nodes[1].get("/v1/tags/k").expect(404);
}

#[test]
fn a_removal_takes_what_was_acknowledged_whoever_takes_it() {
    let mut cluster = keyspace("tags", "set");
    update(&cluster.nodes[0], "&w=2", &json!({ "add": ["x", "y"] }));
    // Every node in turn misses additions, comes back and takes a removal.
    for at in 0..cluster.nodes.len() {
        remove_what_was_missed(&mut cluster, at, false);
    }
    // A reader that asks one replica finds what it had seen, and brings it to those that did not.
    let (code, _, said) = coterie(&cluster.nodes[0], &["keyspace", "alter", "tags", "-r", "1"]);
    assert_eq!(code, 0, "{said}");
    for at in 0..cluster.nodes.len() {
        remove_what_was_missed(&mut cluster, at, true);
    }
}

/// Has a node miss an addition, come back and take its removal.
fn remove_what_was_missed(cluster: &mut Cluster, at: usize, with_context: bool) {
    let other = (at + 1) % cluster.nodes.len();
    let element = format!("while {at} was away");
    cluster.nodes[at].kill();
    until_taken(&cluster.nodes[other], "&sloppy=false&w=2", &json!({ "add": [element] }));
    cluster.nodes[at].start();
    cluster.nodes[at].wait_ready();
    let read = cluster.nodes[other].get("/v1/tags/k?r=2").expect(200);
    let context = format!("&context={}", read.header("x-coterie-context"));
    let query = if with_context { &context } else { "" };
    until_taken(&cluster.nodes[at], query, &json!({ "remove": [element] }));
    let left = cluster.nodes[other].get("/v1/tags/k?r=2").expect(200).json();
    assert_eq!(left["elements"], json!(["x", "y"]), "node {at}");
}

/// A node that others have just left, or that has just come, may find no quorum for a moment.
fn until_taken(node: &NodeProcess, query: &str, body: &Value) {
    let path = format!("/v1/tags/k?op=update{query}");
    wait_until("a quorum takes the change", PATIENCE, || {
        let answer = node.http("POST", &path, &[], body.to_string().as_bytes());
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    });
}
