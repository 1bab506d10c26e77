//! Keyspaces that keep what was written concurrently.

use coterie::proto::v1;
use coterie::proto::v1::get_response::Data;
use serde_json::{Value, json};

use crate::harness::{Cluster, HttpReply, NodeProcess, PATIENCE, coterie, wait_until};

/// So many nodes with a keyspace that merges so, of which all have heard.
pub(crate) fn merging(nodes: usize, name: &str, merge: &str) -> Cluster {
    let cluster = Cluster::start(nodes);
    let create = ["keyspace", "create", name, "--merge", merge];
    let (code, text, said) = coterie(&cluster.nodes[0], &create);
    assert!(code == 0 && text.contains(merge), "{text} {said}");
    for node in &cluster.nodes {
        wait_until("every node has heard of the keyspace", PATIENCE, || {
            let listed = node.get(&format!("/v1/{name}"));
            if listed.status == 200 { Ok(()) } else { Err(listed.text()) }
        });
    }
    cluster
}

/// Three nodes, or five so that some own no copy of a key, with a keyspace of carts.
fn carts(nodes: usize) -> Cluster {
    merging(nodes, "carts", "siblings")
}

fn put(node: &NodeProcess, value: &str, context: Option<&str>) -> Value {
    let body = json!({ "value": value }).to_string();
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(context.map(|context| ("x-coterie-context", context)));
    node.http("PUT", "/v1/carts/k", &headers, body.as_bytes()).expect(200).json()
}

fn get(node: &NodeProcess) -> HttpReply {
    node.get("/v1/carts/k")
}

fn values(reply: &HttpReply) -> Vec<String> {
    let body = reply.json();
    let values = body["values"].as_array().unwrap_or_else(|| panic!("no values in {body}"));
    values.iter().map(|value| value["value"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn what_was_written_concurrently_stands_until_a_write_that_has_seen_it() {
    let cluster = carts(5);
    let first = put(&cluster.nodes[0], "milk", None);
    assert_eq!(first["siblings"], 1);
    let second = put(&cluster.nodes[1], "bread", None);
    assert_eq!(second["siblings"], 2);
    assert!(second["context"].is_null(), "its writer has not seen the other: {second}");

    for node in &cluster.nodes {
        let several = get(node).expect(300);
        assert_eq!(values(&several), ["milk", "bread"]);
        assert_eq!(several.header("x-coterie-context"), several.json()["context"]);
    }
    let one = cluster.nodes[2].get("/v1/carts/k?one=true").expect(409).json();
    assert_eq!(one["code"], "several_siblings", "{one}");

    let context = get(&cluster.nodes[3]).header("x-coterie-context").to_owned();
    let merged = put(&cluster.nodes[3], "milk and bread", Some(&context));
    assert_eq!(merged["siblings"], 1);
    for node in &cluster.nodes {
        assert_eq!(get(node).expect(200).json()["value"], "milk and bread");
    }
    // Whoever has seen only what was before adds to it.
    put(&cluster.nodes[4], "eggs", Some(&context));
    assert_eq!(values(&get(&cluster.nodes[0]).expect(300)), ["milk and bread", "eggs"]);
    // The writer's own answer is a context as long as nobody wrote beside it.
    let known = merged["context"].as_str().expect("a context").to_owned();
    put(&cluster.nodes[0], "milk, bread", Some(&known));
    assert_eq!(values(&get(&cluster.nodes[1]).expect(300)), ["eggs", "milk, bread"]);
}

#[test]
fn deletes_take_what_they_have_seen_and_listings_tell_of_siblings() {
    let cluster = carts(3);
    let node = &cluster.nodes[0];
    let first = put(node, "a", None);
    put(&cluster.nodes[1], "b", None);
    let listed = node.get("/v1/carts?prefix=k").expect(200).json();
    let row = &listed["rows"][0];
    assert_eq!(
        (&row["key"], &row["value"], &row["siblings"]),
        (&"k".into(), &"b".into(), &2.into())
    );

    let context = first["context"].as_str().expect("a context");
    let path = format!("/v1/carts/k?context={context}");
    cluster.nodes[2].delete(&path).expect(200);
    assert_eq!(get(node).expect(200).json()["value"], "b");
    node.delete("/v1/carts/k").expect(200);
    let gone = get(&cluster.nodes[1]).expect(404);
    assert_eq!(gone.json()["siblings"], 0);
    let context = gone.header("x-coterie-context").to_owned();
    assert!(!context.is_empty(), "a delete is something to have seen");
    for keys_only in ["", "&keys_only=true"] {
        let listed = node.get(&format!("/v1/carts?prefix=k{keys_only}")).expect(200).json();
        assert_eq!(listed["rows"], json!([]));
    }
    put(node, "c", Some(&context));
    assert_eq!(get(&cluster.nodes[2]).expect(200).json()["value"], "c");
}

#[test]
fn contexts_of_other_keys_and_other_keyspaces_are_refused_by_name() {
    let cluster = carts(1);
    let node = &cluster.nodes[0];
    let receipt = put(node, "a", None);
    let (version, context) = (
        receipt["version"].as_str().expect("a version"),
        receipt["context"].as_str().expect("one"),
    );
    let refusals = [
        (format!("/v1/carts/k?context={version}"), "joins copies"),
        (format!("/v1/carts/other?context={context}"), "another key"),
        (format!("/kv/k?context={context}"), "does not: give a version"),
    ];
    for (path, why) in refusals {
        let refused = node.get(&path).expect(400).json();
        assert!(refused["error"].as_str().is_some_and(|it| it.contains(why)), "{path}: {refused}");
    }
    let read = node.get(&format!("/v1/carts/k?context={context}&level=one")).expect(200).json();
    assert_eq!(read["value"], "a");
    let body = json!({ "value": "v" }).to_string();
    let json = [("content-type", "application/json")];
    let ends = node.http("PUT", "/v1/carts/k?ttl=5s", &json, body.as_bytes()).expect(400).json();
    assert!(ends["error"].as_str().is_some_and(|it| it.starts_with("ttl: ")), "{ends}");
    let (code, _, said) =
        coterie(node, &["keyspace", "create", "s", "--mode", "strong", "--merge", "siblings"]);
    assert!(code != 0 && said.contains("merge"), "{said}");
}

#[test]
fn a_key_holds_fifty_siblings_and_no_more() {
    let cluster = carts(1);
    let node = &cluster.nodes[0];
    for count in 0..50 {
        put(node, &format!("v{count}"), None);
    }
    let body = json!({ "value": "one more" }).to_string();
    let json = [("content-type", "application/json")];
    let refused = node.http("PUT", "/v1/carts/k", &json, body.as_bytes()).expect(409).json();
    assert_eq!(
        (&refused["code"], &refused["outcome"]),
        (&"too_many_siblings".into(), &"failed".into())
    );
    let several = get(node).expect(300);
    assert_eq!(values(&several).len(), 50);
    put(node, "merged", Some(several.header("x-coterie-context")));
    assert_eq!(get(node).expect(200).json()["value"], "merged");
}

#[test]
fn grpc_the_client_and_the_command_line_have_all_siblings() {
    let cluster = carts(3);
    let grpc = cluster.nodes[0].grpc();
    let write = |value: &str, context: String| {
        let request = v1::PutRequest {
            key: "k".to_owned(),
            data: Some(v1::put_request::Data::Value(value.to_owned())),
            keyspace: "carts".to_owned(),
            context,
            ..v1::PutRequest::default()
        };
        let put = grpc.wait(grpc.kv().put(request)).expect("written").into_inner();
        put.receipt.expect("a receipt")
    };
    assert_eq!(write("a", String::new()).siblings, Some(1));
    assert_eq!(write("b", String::new()).siblings, Some(2));
    let asked = v1::GetRequest {
        key: "k".to_owned(),
        keyspace: "carts".to_owned(),
        ..v1::GetRequest::default()
    };
    let read = grpc.wait(grpc.kv().get(asked.clone())).expect("read").into_inner();
    assert_eq!((read.siblings.len(), &read.data), (2, &Some(Data::Value("b".to_owned()))));
    let refused = grpc.wait(grpc.kv().get(v1::GetRequest { one: true, ..asked }));
    let refused = refused.expect_err("one is not all");
    assert_eq!(refused.metadata().get("coterie-code").expect("a word"), "several_siblings");

    let (code, text, said) = coterie(&cluster.nodes[1], &["get", "k", "--keyspace", "carts"]);
    assert_eq!((code, text.as_str()), (0, "a\nb\n"), "{said}");
    assert!(said.contains("2 siblings"), "{said}");
    let (code, _, said) = coterie(&cluster.nodes[1], &["get", "k", "--keyspace", "carts", "--one"]);
    assert!(code != 0 && said.contains("2 siblings"), "{said}");
    let context = read.receipt.and_then(|receipt| receipt.context).expect("a context");
    let merge = ["put", "k", "ab", "--keyspace", "carts", "--context", &context];
    let (code, text, said) = coterie(&cluster.nodes[2], &merge);
    assert_eq!(code, 0, "{text} {said}");

    let address = cluster.nodes[2].spec.client_address;
    let found = grpc.wait(async {
        let client =
            coterie::Client::builder().nodes([address.to_string()]).connect().expect("a client");
        client.keyspace("carts").get("k").await
    });
    let found = found.expect("read").expect("it has a value");
    assert_eq!(found.siblings, ["ab"]);
}
