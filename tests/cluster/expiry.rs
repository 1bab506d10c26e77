//! Values that end by themselves, over every interface.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coterie::proto::v1::{self, batch_put_item};
use tonic::Code;

use crate::grpc::{get_of, put_text};
use crate::harness::{Cluster, Grpc, NodeProcess, PATIENCE, coterie, wait_until};

/// Long enough not to end while a test runs.
const LONG_MS: u64 = 3_600_000;
/// So short that it is over when the answer has been read, or soon after.
const SHORT_MS: u64 = 50;

#[allow(clippy::disallowed_methods, reason = "ends are moments of the real clock")]
fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("in this era")
}

/// An end that was counted while this ran, of a life of an hour.
fn is_hour_from(asked_ms: u64, end: Option<u64>) -> bool {
    end.is_some_and(|end| (asked_ms + LONG_MS..=wall_ms() + LONG_MS).contains(&end))
}

fn put(grpc: &Grpc, request: v1::PutRequest) -> Option<u64> {
    let reply = grpc.wait(grpc.kv().put(request)).expect("written").into_inner();
    reply.receipt.expect("a receipt").expires_at_ms
}

fn get_code(grpc: &Grpc, key: &str) -> Code {
    grpc.wait(grpc.kv().get(get_of(key))).map_or_else(|status| status.code(), |_| Code::Ok)
}

#[test]
fn a_value_ends_on_every_node_and_says_when() {
    let cluster = Cluster::start(3);
    let clients: Vec<Grpc> = cluster.nodes.iter().map(NodeProcess::grpc).collect();
    let asked_ms = wall_ms();
    let end = put(&clients[0], v1::PutRequest { ttl_ms: Some(LONG_MS), ..put_text("long", "v") });
    assert!(is_hour_from(asked_ms, end), "{asked_ms}: {end:?}");
    put(&clients[0], v1::PutRequest { ttl_ms: Some(SHORT_MS), ..put_text("short", "v") });
    assert_eq!(put(&clients[0], put_text("stays", "v")), None);
    for client in &clients {
        wait_until("the short value has ended", PATIENCE, || match get_code(client, "short") {
            Code::NotFound => Ok(()),
            other => Err(other),
        });
        let read = client.wait(client.kv().get(get_of("long"))).expect("read").into_inner();
        assert_eq!(read.receipt.expect("a receipt").expires_at_ms, end);
        let read = client.wait(client.kv().get(get_of("stays"))).expect("read").into_inner();
        assert_eq!(read.receipt.expect("a receipt").expires_at_ms, None);
    }
    put(&clients[1], put_text("short", "again"));
    assert_eq!(get_code(&clients[2], "short"), Code::Ok, "a later write has a life of its own");
}

#[test]
fn an_end_outlives_its_node() {
    let mut cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let end = put(&grpc, v1::PutRequest { ttl_ms: Some(LONG_MS), ..put_text("long", "v") });
    let short = put(&grpc, v1::PutRequest { ttl_ms: Some(SHORT_MS), ..put_text("short", "v") });
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    let read = cluster.nodes[0].get("/kv/long").expect(200);
    assert_eq!(read.json()["expires_at_ms"].as_u64(), end);
    wait_until("the short value has ended", PATIENCE, || {
        let read = cluster.nodes[0].get("/kv/short");
        if read.status == 404 { Ok(()) } else { Err(read.status) }
    });
    let gone = cluster.nodes[0].get("/kv/short").json();
    assert_eq!(gone["expires_at_ms"].as_u64(), short);
    assert!(gone["version"].is_string(), "an expired value has its version: {gone}");
}

#[test]
fn batches_give_each_item_its_own_life() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let item = |key: &str, ttl_ms| {
        let data = Some(batch_put_item::Data::Value("v".to_owned()));
        v1::BatchPutItem { key: key.to_owned(), data, ttl_ms }
    };
    let items = vec![
        item("a", Some(LONG_MS)),
        item("b", Some(SHORT_MS)),
        item("c", None),
        item("d", Some(0)),
    ];
    let asked_ms = wall_ms();
    let request = v1::BatchPutRequest { items, ..Default::default() };
    let results = grpc.wait(grpc.kv().batch_put(request)).expect("answered").into_inner().results;
    let end = |n: usize| results[n].receipt.as_ref().and_then(|receipt| receipt.expires_at_ms);
    assert!(is_hour_from(asked_ms, end(0)) && end(1).is_some() && end(2).is_none(), "{results:?}");
    let refused = results[3].error.as_ref().expect("a life of nothing is refused");
    assert!(refused.message.starts_with("ttl: is from 1 ms"), "{refused:?}");
    assert_eq!(
        (refused.code.as_str(), refused.outcome.as_str()),
        ("invalid_argument", "not-attempted")
    );
    let keys: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
    wait_until("the short item has ended", PATIENCE, || {
        let request = v1::BatchGetRequest { keys: keys.clone(), ..Default::default() };
        let read = grpc.wait(grpc.kv().batch_get(request)).expect("answered").into_inner();
        let found: Vec<bool> = read.results.iter().map(|result| result.found).collect();
        if found == [true, false, true] { Ok(()) } else { Err(found) }
    });
}

#[test]
fn http_takes_a_ttl_and_tells_the_end() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let asked_ms = wall_ms();
    let written = node.put("/kv/k?ttl=1h", "v").expect(200);
    let end = written.json()["expires_at_ms"].as_u64();
    assert!(is_hour_from(asked_ms, end), "{asked_ms}: {end:?}");
    let read = node.get("/kv/k").expect(200);
    assert_eq!(read.json()["expires_at_ms"].as_u64(), end);
    assert_eq!(read.header("x-coterie-expires-at").parse().ok(), end);
    assert!(node.put("/kv/stays", "v").expect(200).json().get("expires_at_ms").is_none());
    for (query, part) in [
        ("ttl=30", "a duration is a whole number with ms, s, m, h or d"),
        ("ttl=0s", "ttl: is from 1 ms to 315360000000 ms (ten years); got 0 ms"),
        ("ttl=3651d", "got 315446400000 ms"),
    ] {
        let refused = node.put(&format!("/kv/k?{query}"), "v").expect(400).json();
        let error = refused["error"].as_str().expect("an error");
        assert!(error.starts_with("ttl: ") && error.contains(part), "{query}: {error}");
    }
    let refused = node.delete("/kv/k?ttl=1h").expect(400).json();
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("\"ttl\"")), "{refused}");
}

#[test]
fn the_command_line_takes_a_ttl_and_tells_the_end() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let asked_ms = wall_ms();
    let (code, out, err) = coterie(node, &["put", "k", "v", "--ttl", "1h", "--output", "json"]);
    assert_eq!(code, 0, "{err}");
    let told: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(is_hour_from(asked_ms, told["expires_at_ms"].as_u64()), "{told}");
    let (code, out, _) = coterie(node, &["put", "k", "v", "--ttl", "1ms"]);
    assert!(code == 0 && out.contains(", expires at "), "{out}");
    wait_until("the value has ended", PATIENCE, || {
        let (code, out, err) = coterie(node, &["get", "k"]);
        if code != 0 && err.contains("has no value") { Ok(()) } else { Err((code, out, err)) }
    });
    let (code, _, err) = coterie(node, &["put", "k", "v", "--ttl", "4000d"]);
    assert!(code != 0 && err.contains("ttl: is from 1 ms"), "{err}");
}

#[test]
fn the_client_library_takes_a_ttl_and_tells_the_end() {
    let cluster = Cluster::start(1);
    let address = cluster.nodes[0].spec.client_address;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let nodes = [address.to_string()];
        let client = coterie::Client::builder().nodes(nodes).connect().expect("a client");
        let keyspace = client.keyspace("default");
        let asked_ms = wall_ms();
        let put = keyspace.put("k", "v").ttl(Duration::from_millis(LONG_MS));
        let end = put.await.expect("written").expires_at_ms;
        assert!(is_hour_from(asked_ms, end), "{asked_ms}: {end:?}");
        let read = keyspace.get("k").await.expect("read").expect("a value");
        assert_eq!(read.receipt.expires_at_ms, end);
    });
}
