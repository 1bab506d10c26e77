//! Keys and values over HTTP: every shape of key, both forms of value, tags and receipts.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::harness::{Cluster, HttpReply};

const RAW: &str = "application/octet-stream";

/// Paths below `/kv/` and the keys that they name.
const KEYS: [(&str, &str); 12] = [
    ("foo", "foo"),
    ("a/b%2Fc%20d", "a/b/c d"),
    ("/x", "/x"),
    ("x//y/", "x//y/"),
    ("%2E%2E", ".."),
    ("../status", "../status"),
    ("%C3%B6%E2%82%AC", "ö€"),
    ("%F0%9F%A6%80", "🦀"),
    ("a+b", "a+b"),
    ("100%25", "100%"),
    ("what%3Fr=9", "what?r=9"),
    ("%00", "\0"),
];

#[track_caller]
fn version(reply: &HttpReply) -> String {
    let version = reply.json()["version"].as_str().expect("a version").to_owned();
    assert_eq!(version.len(), 33, "{version}");
    version
}

#[test]
fn every_key_can_be_written_read_and_deleted() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    for (number, (path, key)) in KEYS.into_iter().enumerate() {
        let (path, value) = (format!("/kv/{path}"), format!("value {number}"));
        let written = node.put(&path, &value).expect(200);
        assert_eq!(
            (&written.json()["key"], &written.json()["value"]),
            (&key.into(), &value.into())
        );
    }
    for (number, (path, key)) in KEYS.into_iter().enumerate() {
        let path = format!("/kv/{path}");
        let read = node.get(&path).expect(200).json();
        assert_eq!(
            (&read["key"], &read["value"]),
            (&key.into(), &format!("value {number}").into())
        );
        // The same key fully encoded is the same key.
        let encoded = format!("/kv/{}", utf8_percent_encode(key, NON_ALPHANUMERIC));
        assert_eq!(node.get(&encoded).expect(200).json()["value"], read["value"]);
        assert_eq!(node.delete(&path).expect(200).json()["key"], key);
        assert_eq!(node.get(&path).expect(404).json()["code"], "not_found");
    }
}

#[test]
fn curls_default_content_type_is_read_as_json() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let written = node.http("PUT", "/kv/foo", &form, br#"{"value":"bar"}"#).expect(200);
    assert_eq!((&written.json()["key"], &written.json()["value"]), (&"foo".into(), &"bar".into()));
    let untyped = node.http("PUT", "/kv/foo", &[], br#"{"value":""}"#).expect(200);
    assert_eq!(untyped.json()["value"], "");
    assert_eq!(node.get("/kv/foo").expect(200).json()["value"], "");
}

#[test]
fn raw_bytes_come_back_as_they_were() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let bytes: Vec<u8> = (0..=255).collect();
    let written = node.http("PUT", "/kv/raw", &[("content-type", RAW)], &bytes).expect(200);
    let read = node.http("GET", "/kv/raw", &[("accept", RAW)], b"").expect(200);
    assert_eq!((read.body.as_slice(), read.header("content-type")), (bytes.as_slice(), RAW));
    assert_eq!(read.header("etag"), written.header("etag"));
    let receipt: Value = serde_json::from_str(read.header("coterie-receipt")).expect("JSON");
    assert_eq!(receipt["version"], written.json()["version"]);
    assert_eq!(node.get("/kv/raw").expect(406).json()["code"], "not_text");
    let empty = node.http("PUT", "/kv/raw", &[("content-type", RAW)], b"");
    empty.expect(200);
    assert!(node.http("GET", "/kv/raw", &[("accept", RAW)], b"").expect(200).body.is_empty());
}

#[test]
fn tags_are_versions_and_spare_a_known_value() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let written = node.put("/kv/foo", "one").expect(200);
    let tag = written.header("etag").to_owned();
    assert_eq!(tag, format!("\"{}\"", version(&written)));
    let known = [("if-none-match", tag.as_str())];
    let unchanged = node.http("GET", "/kv/foo", &known, b"").expect(304);
    assert!(unchanged.body.is_empty());
    assert_eq!(unchanged.header("etag"), tag);
    let rewritten = node.put("/kv/foo", "two").expect(200);
    assert!(version(&rewritten) > version(&written));
    let changed = node.http("GET", "/kv/foo", &known, b"").expect(200);
    assert_eq!(changed.header("etag"), rewritten.header("etag"));
    let deleted = node.delete("/kv/foo").expect(200);
    assert!(version(&deleted) > version(&rewritten));
    node.http("GET", "/kv/foo", &[("if-none-match", "*")], b"").expect(404);
}

#[test]
fn head_is_get_without_the_body() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let written = node.put("/kv/foo", "bar").expect(200);
    let head = node.http("HEAD", "/kv/foo", &[], b"").expect(200);
    assert_eq!((head.header("etag"), head.body.len()), (written.header("etag"), 0));
    let length = node.get("/kv/foo").expect(200).body.len();
    assert_eq!(head.header("content-length"), length.to_string());
    node.http("HEAD", "/kv/none", &[], b"").expect(404);
}

#[test]
fn a_context_puts_a_write_above_what_was_seen() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let seen = version(&node.put("/kv/foo", "one").expect(200));
    let path = format!("/kv/foo?context={seen}");
    assert!(version(&node.put(&path, "two").expect(200)) > seen);
    assert!(version(&node.delete(&path).expect(200)) > seen);
}

#[test]
fn receipts_say_who_answered_and_how_many_had_to() {
    let cluster = Cluster::start(3);
    let node = &cluster.nodes[1];
    let ids: Vec<String> = cluster.nodes.iter().map(|node| node.node_id()).collect();
    let cases = [("", 2), ("?level=one", 1), ("?level=quorum", 2), ("?level=all", 3)];
    for (query, required) in cases {
        for reply in [node.put(&format!("/kv/k{query}"), "v"), node.get(&format!("/kv/k{query}"))] {
            check_receipt(&reply.expect(200).json(), required, &ids);
        }
    }
    for required in 1..=3 {
        let written = node.put(&format!("/kv/k?w={required}&level=all"), "v").expect(200);
        check_receipt(&written.json(), required, &ids);
        let read = node.get(&format!("/kv/k?r={required}&level=one")).expect(200);
        check_receipt(&read.json(), required, &ids);
    }
}

fn check_receipt(receipt: &Value, required: usize, ids: &[String]) {
    assert_eq!(receipt["required"], required, "{receipt}");
    assert_eq!(receipt["replicas"], 3, "{receipt}");
    assert_eq!(receipt["under_replicated"], false, "{receipt}");
    assert_eq!(receipt["hinted"], serde_json::json!([]), "{receipt}");
    assert_eq!(receipt["fallbacks"], serde_json::json!([]), "{receipt}");
    let acknowledged = receipt["acknowledged"].as_array().expect("a list");
    assert!(acknowledged.len() >= required, "{receipt}");
    let known = |id: &Value| ids.iter().any(|known| id == known);
    assert!(acknowledged.iter().all(known), "{receipt}");
}

#[test]
fn a_read_with_a_context_never_answers_older() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let written = node.put("/kv/foo", "one").expect(200);
    let seen = version(&written);
    assert_eq!(written.header("x-coterie-context"), seen);
    let with = |context: &str| node.http("GET", "/kv/foo", &[("x-coterie-context", context)], b"");
    assert_eq!(with(&seen).expect(200).header("x-coterie-context"), seen);
    assert_eq!(node.get(&format!("/kv/foo?context={seen}")).expect(200).json()["value"], "one");
    let unseen = with("ffffffffffffffff-0000000000000001").expect(500).json();
    assert_eq!(
        (&unseen["code"], &unseen["outcome"]),
        (&"context_not_reached".into(), &"failed".into())
    );
    assert!(unseen["error"].as_str().expect("text").contains(&seen), "{unseen}");
    let deleted = node.http("DELETE", "/kv/foo", &[("x-coterie-context", &seen)], b"").expect(200);
    assert!(version(&deleted) > seen);
    let gone = with(&seen).expect(404);
    assert_eq!(gone.header("x-coterie-context"), version(&deleted));
    let twice =
        node.http("GET", &format!("/kv/foo?context={seen}"), &[("x-coterie-context", &seen)], b"");
    assert!(twice.expect(400).json()["error"].as_str().expect("text").contains("given twice"));
    node.http("GET", "/v1/default", &[("x-coterie-context", &seen)], b"").expect(400);
}

#[test]
fn a_write_that_replaces_what_its_writer_had_not_seen_says_so() {
    let cluster = Cluster::start(3);
    let (one, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let seen = version(&one.put("/kv/foo?level=all", "seen").expect(200));
    let path = format!("/kv/foo?level=all&context={seen}");
    let first = one.put(&path, "first").expect(200).json();
    assert_eq!(first.get("unseen"), None, "{first}");
    let second = other.put(&path, "second").expect(200).json();
    assert_eq!(second["unseen"], serde_json::json!([first["version"]]), "{second}");
    let third = other.delete(&path).expect(200).json();
    assert_eq!(third["unseen"], serde_json::json!([second["version"]]), "{third}");
    let silent = other.put("/kv/foo?level=all", "silent").expect(200).json();
    assert_eq!(silent.get("unseen"), None, "{silent}");
    let counted = |node: &crate::harness::NodeProcess| {
        let metrics = node.get("/metrics").expect(200);
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        let line = text.lines().find(|it| it.starts_with("coterie_concurrent_writes_discarded"));
        line.and_then(|line| line.split(' ').next_back()?.parse::<u64>().ok()).expect("a count")
    };
    assert_eq!((counted(one), counted(other)), (0, 2));
    assert_eq!(other.get("/status").expect(200).json()["concurrent_writes_discarded"], 2);
}
