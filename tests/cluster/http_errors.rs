//! What HTTP refuses, and what it says then.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, HttpReply, NodeProcess};

const RAW: &str = "application/octet-stream";

/// Method, path, body, status, code and a part of the message.
type Case = (&'static str, &'static str, &'static str, u16, &'static str, &'static str);

const CASES: [Case; 25] = [
    ("GET", "/kv/none", "", 404, "not_found", "\"none\" has no value"),
    ("GET", "/nope", "", 404, "unknown_path", "/nope"),
    ("GET", "/kvetch", "", 404, "unknown_path", "/kvetch"),
    ("GET", "/kv/", "", 400, "invalid_argument", "key: is empty"),
    ("GET", "/kv", "", 400, "invalid_argument", "key: is empty"),
    ("GET", "/kv/%ff", "", 400, "invalid_argument", "not UTF-8"),
    ("GET", "/kv/100%", "", 400, "invalid_argument", "is not an escape"),
    ("GET", "/kv/k?w=1", "", 400, "invalid_argument", "a read takes r, level, timeout"),
    ("GET", "/kv/k?r=0", "", 400, "invalid_argument", "r: \"0\""),
    ("GET", "/kv/k?r=x", "", 400, "invalid_argument", "r: \"x\""),
    ("GET", "/kv/k?level=most", "", 400, "invalid_argument", "level: \"most\""),
    ("GET", "/kv/k?timeout=1h", "", 400, "invalid_argument", "500ms"),
    ("GET", "/kv/k?timeout=1000s", "", 400, "invalid_argument", "request_timeout_max"),
    ("PUT", "/kv/k?r=1", "{\"value\":\"v\"}", 400, "invalid_argument", "a PUT takes w"),
    ("PUT", "/kv/k?context=1", "{\"value\":\"v\"}", 400, "invalid_argument", "context: "),
    ("PUT", "/kv/k?sloppy=1", "{\"value\":\"v\"}", 400, "invalid_argument", "sloppy: \"1\""),
    ("PUT", "/kv/k", "", 400, "invalid_argument", "send {\"value\":\"text\"}"),
    ("PUT", "/kv/k", "bar", 400, "invalid_argument", "send {\"value\":\"text\"}"),
    ("PUT", "/kv/k", "{\"valeu\":\"v\"}", 400, "invalid_argument", "valeu"),
    ("PUT", "/kv/k", "{\"value\":7}", 400, "invalid_argument", "send {\"value\":\"text\"}"),
    ("DELETE", "/kv/k?r=1", "", 400, "invalid_argument", "a write takes w"),
    ("POST", "/kv/k", "x", 405, "method_not_allowed", "GET, HEAD, PUT, DELETE"),
    ("POST", "/status", "x", 405, "method_not_allowed", "GET, HEAD"),
    ("DELETE", "/metrics", "", 405, "method_not_allowed", "GET, HEAD"),
    ("GET", "/ring?k=1", "", 400, "invalid_argument", "/ring takes one parameter, key"),
];

#[test]
fn what_is_wrong_is_said_in_status_code_and_message() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    for (method, path, body, status, code, part) in CASES {
        let reply = node.http(method, path, &[], body.as_bytes());
        check(&format!("{method} {path}"), &reply, status, code, part);
    }
    assert_eq!(node.http("POST", "/kv/k", &[], b"x").header("allow"), "GET, HEAD, PUT, DELETE");
    assert_eq!(node.http("POST", "/readyz", &[], b"x").header("allow"), "GET, HEAD");
}

fn check(what: &str, reply: &HttpReply, status: u16, code: &str, part: &str) {
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    assert_eq!(reply.header("content-type"), "application/json", "{what}");
    let body = reply.json();
    assert_eq!(body["code"], code, "{what}: {body}");
    let message = body["error"].as_str().unwrap_or_default();
    assert!(message.contains(part), "{what}: {body}");
}

#[test]
fn limits_are_named_with_their_values() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let at_most = vec![b'x'; 1 << 20];
    node.http("PUT", "/kv/big", &[("content-type", RAW)], &at_most).expect(200);
    let read = node.http("GET", "/kv/big", &[("accept", RAW)], b"").expect(200);
    assert_eq!(read.body.len(), at_most.len());
    let above = vec![b'x'; (1 << 20) + 1];
    let refused = node.http("PUT", "/kv/big", &[("content-type", RAW)], &above);
    check("raw", &refused, 413, "too_large", "value_bytes_max is 1048576 bytes; got 1048577");
    let json = serde_json::json!({ "value": "x".repeat((1 << 20) + 1) }).to_string();
    let refused = node.http("PUT", "/kv/big", &[], json.as_bytes());
    check("json", &refused, 413, "too_large", "value_bytes_max is 1048576 bytes; got 1048577");
    let far_above = vec![b'x'; 7 << 20];
    let refused = node.http("PUT", "/kv/big", &[], &far_above);
    check("far above", &refused, 413, "too_large", "value_bytes_max is 1048576 bytes; got 7340032");
    let key = format!("/kv/{}", "k".repeat(2049));
    check("key", &node.get(&key), 413, "too_large", "key_bytes_max is 2048 bytes; got 2049");
    node.get(&format!("/kv/{}", "k".repeat(2048))).expect(404);
}

#[test]
fn conditional_writes_are_refused_rather_than_ignored() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    for name in ["if-match", "if-none-match"] {
        let reply = node.http("PUT", "/kv/k", &[(name, "*")], br#"{"value":"v"}"#);
        check(name, &reply, 400, "not_available", "a condition");
    }
    node.get("/kv/k").expect(404);
}

#[test]
fn a_body_too_long_is_refused_before_it_is_sent_to_those_who_ask_first() {
    let cluster = Cluster::start(1);
    let answer = speak(
        &cluster.nodes[0],
        "PUT /kv/k HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n\
         content-length: 99999999\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("got 99999999"), "{answer}");
}

#[test]
fn what_is_not_http_is_turned_away_and_harms_nobody() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    for nonsense in ["\0\0\0\0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nnonsense", "GET\r\n\r\n"] {
        speak(node, nonsense);
    }
    node.put("/kv/k", "v").expect(200);
}

/// Sends bytes as they are and reads until the server closes.
fn speak(node: &NodeProcess, text: &str) -> String {
    let mut stream = TcpStream::connect(node.spec.client_address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    // A reset is as good as an end here.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn an_error_of_the_cluster_has_its_outcome() {
    let cluster = Cluster::start(1);
    let reply = cluster.nodes[0].get("/kv/k?r=0");
    let body: Value = reply.json();
    assert_eq!(body["outcome"], "not-attempted", "{body}");
}
