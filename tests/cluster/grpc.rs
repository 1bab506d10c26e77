//! The gRPC data service: one key at a time.

use std::time::Duration;

use bytes::Bytes;
use coterie::proto::v1::{self, get_response, put_request};
use tonic::{Code, Request, Status};

use crate::harness::{Cluster, Grpc};

/// A Put of a text at the default level.
pub(crate) fn put_text(key: &str, value: &str) -> v1::PutRequest {
    let data = Some(put_request::Data::Value(value.to_owned()));
    v1::PutRequest { key: key.to_owned(), data, ..v1::PutRequest::default() }
}

/// A Get at the default level.
pub(crate) fn get_of(key: &str) -> v1::GetRequest {
    v1::GetRequest { key: key.to_owned(), ..v1::GetRequest::default() }
}

fn put(grpc: &Grpc, request: v1::PutRequest) -> Result<v1::Receipt, Status> {
    let reply = grpc.wait(grpc.kv().put(request))?.into_inner();
    Ok(reply.receipt.expect("a receipt"))
}

fn get(grpc: &Grpc, request: v1::GetRequest) -> Result<v1::GetResponse, Status> {
    Ok(grpc.wait(grpc.kv().get(request))?.into_inner())
}

fn delete(grpc: &Grpc, key: &str) -> Result<v1::DeleteResponse, Status> {
    let request = v1::DeleteRequest { key: key.to_owned(), ..v1::DeleteRequest::default() };
    Ok(grpc.wait(grpc.kv().delete(request))?.into_inner())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, part: &str) -> Status {
    let status = result.expect_err("a refusal");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(part), "{status:?}");
    status
}

fn trailer<'a>(status: &'a Status, name: &str) -> &'a str {
    status.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[test]
fn text_and_bytes_are_written_read_and_deleted() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    for key in ["k", "a/b c", "..", "ö🦀", "\0"] {
        let written = put(&grpc, put_text(key, "välue")).expect("written");
        let read = get(&grpc, get_of(key)).expect("read");
        assert_eq!(read.key, key);
        assert_eq!(read.data, Some(get_response::Data::Value("välue".to_owned())));
        assert_eq!(read.receipt.expect("a receipt").version, written.version);
        let raw = Bytes::from_static(&[0xff, 0, 0xfe]);
        let data = Some(put_request::Data::ValueBytes(raw.clone()));
        put(&grpc, v1::PutRequest { data, ..put_text(key, "") }).expect("written");
        let read = get(&grpc, get_of(key)).expect("read");
        assert_eq!(read.data, Some(get_response::Data::ValueBytes(raw)));
        assert_eq!(delete(&grpc, key).expect("deleted").key, key);
        let status = refused(get(&grpc, get_of(key)), Code::NotFound, "has no value");
        assert_eq!(trailer(&status, "coterie-code"), "not_found");
    }
}

#[test]
fn an_empty_value_is_a_value_and_an_absent_one_is_an_error() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    put(&grpc, put_text("k", "")).expect("written");
    let read = get(&grpc, get_of("k")).expect("read");
    assert_eq!(read.data, Some(get_response::Data::Value(String::new())));
    let absent = v1::PutRequest { data: None, ..put_text("k", "") };
    refused(put(&grpc, absent), Code::InvalidArgument, "value_bytes");
}

#[test]
fn what_is_wrong_is_said_in_code_message_and_trailers() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let level = v1::GetRequest { level: 9, ..get_of("k") };
    let status = refused(get(&grpc, level), Code::InvalidArgument, "level: 9");
    assert_eq!(trailer(&status, "coterie-code"), "invalid_argument");
    assert_eq!(trailer(&status, "coterie-outcome"), "not-attempted");
    refused(get(&grpc, get_of("")), Code::InvalidArgument, "key: is empty");
    let context = v1::PutRequest { context: "nope".to_owned(), ..put_text("k", "v") };
    refused(put(&grpc, context), Code::InvalidArgument, "context: ");
    let long = "k".repeat(2049);
    refused(get(&grpc, get_of(&long)), Code::OutOfRange, "key_bytes_max is 2048 bytes; got 2049");
    let big = put_text("k", &"v".repeat((1 << 20) + 1));
    let status = refused(put(&grpc, big), Code::OutOfRange, "value_bytes_max is 1048576 bytes");
    assert_eq!(trailer(&status, "coterie-code"), "too_large");
    let huge = put_text("k", &"v".repeat(5 << 20));
    refused(put(&grpc, huge), Code::OutOfRange, "the limit is");
}

#[test]
fn a_deadline_is_taken_from_the_call() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let mut enough = Request::new(put_text("k", "v"));
    enough.set_timeout(Duration::from_secs(5));
    grpc.wait(grpc.kv().put(enough)).expect("in time");
    let mut malformed = Request::new(put_text("k", "v"));
    malformed.metadata_mut().insert("grpc-timeout", "soon".parse().expect("ascii"));
    let result = grpc.wait(grpc.kv().put(malformed));
    refused(result, Code::InvalidArgument, "grpc-timeout: \"soon\"");
}

#[test]
fn versions_grow_and_a_context_is_passed() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let mut last = String::new();
    for _ in 0..50 {
        let request = v1::PutRequest { context: last.clone(), ..put_text("k", "v") };
        let version = put(&grpc, request).expect("written").version;
        assert!(version > last, "{version} after {last}");
        last = version;
    }
}

#[test]
fn levels_and_numbers_decide_how_many_must_answer() {
    let cluster = Cluster::start(3);
    let grpc = cluster.nodes[2].grpc();
    // Level, number, and how many must answer.
    let cases = [(0, 0, 2), (1, 0, 1), (2, 0, 2), (3, 0, 3), (3, 1, 1), (1, 3, 3), (0, 2, 2)];
    for (level, number, required) in cases {
        let written =
            put(&grpc, v1::PutRequest { level, w: number, ..put_text("k", "v") }).expect("written");
        let read = get(&grpc, v1::GetRequest { level, r: number, ..get_of("k") }).expect("read");
        for receipt in [written, read.receipt.expect("a receipt")] {
            assert_eq!((receipt.required, receipt.replicas), (required, 3), "{receipt:?}");
            assert!(receipt.acknowledged.len() >= required as usize, "{receipt:?}");
            assert!(!receipt.under_replicated, "{receipt:?}");
        }
    }
}

#[test]
fn many_calls_at_once_share_one_connection() {
    const CALLS: usize = 600;
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let calls = (0..CALLS).map(|number| {
        let mut kv = grpc.kv();
        async move {
            let (key, value) = (format!("k{number}"), format!("v{number}"));
            kv.put(put_text(&key, &value)).await.expect("written");
            let read = kv.get(get_of(&key)).await.expect("read").into_inner();
            assert_eq!(read.data, Some(get_response::Data::Value(value)));
        }
    });
    grpc.wait(futures_util::future::join_all(calls));
}

#[test]
fn a_lone_node_says_that_it_is_under_replicated() {
    let cluster = Cluster::start(1);
    let receipt = put(&cluster.nodes[0].grpc(), put_text("k", "v")).expect("written");
    assert!(receipt.under_replicated);
    assert_eq!((receipt.required, receipt.replicas), (1, 1));
    assert_eq!(receipt.acknowledged, [cluster.nodes[0].node_id()]);
}

#[test]
fn a_read_with_a_context_sees_it_or_fails_by_name() {
    let cluster = Cluster::start(3);
    let (writer, reader) = (cluster.nodes[0].grpc(), cluster.nodes[1].grpc());
    for number in 0..50 {
        let version = put(&writer, put_text("k", &number.to_string())).expect("written").version;
        let asked = v1::GetRequest { level: 1, context: version.clone(), ..get_of("k") };
        let read = get(&reader, asked).expect("read").receipt.expect("a receipt");
        assert!(read.version >= version, "{} after {version}", read.version);
    }
    let context = "ffffffffffffffff-0000000000000001".to_owned();
    let status = get(&reader, v1::GetRequest { context, ..get_of("k") });
    let status = refused(status, Code::Aborted, "no replica has what the context names");
    assert_eq!(trailer(&status, "coterie-code"), "context_not_reached");
    let bad = v1::GetRequest { context: "nope".to_owned(), ..get_of("k") };
    refused(get(&reader, bad), Code::InvalidArgument, "context: ");
    let deleted = delete(&writer, "k").expect("deleted").receipt.expect("a receipt").version;
    let status = refused(get(&reader, get_of("k")), Code::NotFound, "has no value");
    assert_eq!(trailer(&status, "coterie-context"), deleted);
}

#[test]
fn the_client_library_takes_a_context_and_tells_what_was_unseen() {
    let cluster = Cluster::start(3);
    let address = cluster.nodes[2].spec.client_address.to_string();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = coterie::Client::builder().nodes([address]).connect().expect("a client");
        let keyspace = client.keyspace("default");
        let put = |value: &'static str| keyspace.put("k", value).level(coterie::client::Level::All);
        let seen = put("seen").await.expect("written").version;
        let one = put("one").context(seen.as_str()).await.expect("written");
        assert!(one.unseen.is_empty(), "{one:?}");
        let other = put("other").context(seen).await.expect("written");
        assert_eq!(other.unseen, [one.version]);
        let read = keyspace.get("k").r(1).context(other.version.as_str()).await;
        assert_eq!(read.expect("read").expect("a value").version, other.version);
        let never = keyspace.get("k").context("ffffffffffffffff-0000000000000001").await;
        assert_eq!(never.expect_err("nobody has it").code(), "context_not_reached");
    });
}
