//! Listings: over HTTP, gRPC, the command line and the client, with a node stopped, and in both
//! kinds of keyspace.

use std::collections::{BTreeMap, BTreeSet};

use coterie::Client;
use coterie::proto::v1::{self, batch_put_item};
use serde_json::Value;
use tonic::{Code, Status};

use crate::harness::{Cluster, Grpc, NodeProcess, PATIENCE, coterie, wait_until};

/// Keys of the larger listings.
const USERS: usize = 2000;
/// Keys beside them, under another prefix.
const OTHERS: usize = 50;

fn user(number: usize) -> String {
    format!("user:{number:05}")
}

fn put_all(grpc: &Grpc, keyspace: &str, keys: &[String]) {
    for keys in keys.chunks(500) {
        let item = |key: &String| v1::BatchPutItem {
            key: key.clone(),
            data: Some(batch_put_item::Data::Value(format!("value of {key}"))),
            ttl_ms: None,
        };
        let items = keys.iter().map(item).collect();
        let keyspace = keyspace.to_owned();
        let request = v1::BatchPutRequest { items, keyspace, ..v1::BatchPutRequest::default() };
        let results =
            grpc.wait(grpc.kv().batch_put(request)).expect("written").into_inner().results;
        assert!(results.iter().all(|result| result.error.is_none()), "{results:?}");
    }
}

/// Users, of which every tenth is deleted again, and others.
fn fill(cluster: &Cluster, keyspace: &str) -> BTreeSet<String> {
    let grpc = cluster.nodes[0].grpc();
    let users: Vec<String> = (0..USERS).map(user).collect();
    let others: Vec<String> = (0..OTHERS).map(|number| format!("other/{number}")).collect();
    put_all(&grpc, keyspace, &users);
    put_all(&grpc, keyspace, &others);
    let mut kept: BTreeSet<String> = users.into_iter().collect();
    for number in (0..USERS).step_by(10) {
        cluster.nodes[1].delete(&format!("/v1/{keyspace}/{}", user(number))).expect(200);
        kept.remove(&user(number));
    }
    kept
}

/// All pages over HTTP, each from the next node.
fn pages(nodes: &[&NodeProcess], keyspace: &str, query: &str) -> Vec<Vec<Value>> {
    pages_from(String::new(), nodes, keyspace, query)
}

/// The same, from a cursor on.
fn pages_from(
    mut cursor: String,
    nodes: &[&NodeProcess],
    keyspace: &str,
    query: &str,
) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    loop {
        let node = nodes[pages.len() % nodes.len()];
        let page = node.get(&format!("/v1/{keyspace}?{query}{cursor}")).expect(200).json();
        pages.push(page["rows"].as_array().expect("rows").clone());
        match &page["cursor"] {
            Value::Null => return pages,
            Value::String(text) => cursor = format!("&cursor={text}"),
            other => panic!("{other} is no cursor"),
        }
    }
}

/// The keys of rows, each of which must be there once.
fn keys_of<'r>(rows: impl IntoIterator<Item = &'r Value>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for row in rows {
        let key = row["key"].as_str().expect("a key").to_owned();
        assert!(keys.insert(key), "{row} is listed twice");
    }
    keys
}

#[test]
fn every_key_that_has_a_value_is_listed_once() {
    let mut cluster = Cluster::start_with(3, &["--partitions", "32"]);
    let kept = fill(&cluster, "default");
    over_http(&cluster, &kept);
    over_grpc(&cluster, &kept);
    by_the_command_line(&cluster, &kept);
    by_the_client(&cluster, &kept);
    what_is_wrong_is_named(&cluster);
    with_a_node_down(&mut cluster, &kept);
}

fn over_http(cluster: &Cluster, kept: &BTreeSet<String>) {
    let nodes: Vec<&NodeProcess> = cluster.nodes.iter().collect();
    let listed = pages(&nodes, "default", "prefix=user:&limit=333");
    assert!(listed.iter().all(|page| page.len() <= 333), "a page is larger than was asked for");
    let rows = listed.iter().flatten();
    assert_eq!(&keys_of(rows.clone()), kept);
    for row in rows {
        let key = row["key"].as_str().expect("a key");
        assert_eq!(row["value"], format!("value of {key}"));
        assert_ne!(row["version"], Value::Null);
    }
    let all = pages(&nodes, "default", "keys_only=true&limit=1000");
    let keys = keys_of(all.iter().flatten());
    assert_eq!(keys.len(), kept.len() + OTHERS);
    assert!(all.iter().flatten().all(|row| row.get("value").is_none()));
    let one = pages(&nodes, "default", &format!("prefix={}", user(1)));
    assert_eq!(keys_of(one.iter().flatten()), BTreeSet::from([user(1)]), "the prefix is a key");
    assert!(pages(&nodes, "default", "prefix=nobody").concat().is_empty());
    let raw = [("content-type", "application/octet-stream")];
    nodes[0].http("PUT", "/kv/bin/1", &raw, &[0xff, 0x00]).expect(200);
    let bytes = pages(&nodes, "default", "prefix=bin/").concat();
    assert_eq!(bytes[0]["value_hex"], "ff00");
}

fn scan(grpc: &Grpc, request: v1::ListRequest) -> Result<Vec<v1::ListResponse>, Status> {
    grpc.wait(async {
        let mut stream = grpc.kv().scan(request).await?.into_inner();
        let mut pages = Vec::new();
        while let Some(page) = stream.message().await? {
            pages.push(page);
        }
        Ok(pages)
    })
}

fn over_grpc(cluster: &Cluster, kept: &BTreeSet<String>) {
    let grpc = cluster.nodes[1].grpc();
    let request = v1::ListRequest { prefix: "user:".to_owned(), ..v1::ListRequest::default() };
    let pages = scan(&grpc, request.clone()).expect("a stream");
    let rows = pages.iter().flat_map(|page| &page.rows);
    let values: BTreeMap<&str, &Option<v1::listed_row::Data>> =
        rows.map(|row| (row.key.as_str(), &row.data)).collect();
    assert!(values.keys().copied().eq(kept.iter().map(String::as_str)));
    for (key, data) in values {
        assert_eq!(*data, Some(v1::listed_row::Data::Value(format!("value of {key}"))));
    }
    let some = scan(&grpc, v1::ListRequest { limit: 1234, ..request.clone() }).expect("a stream");
    assert_eq!(some.iter().map(|page| page.rows.len()).sum::<usize>(), 1234);
    let cursor = some.last().expect("a page").cursor.clone();
    let rest = scan(&grpc, v1::ListRequest { cursor, ..request.clone() }).expect("the rest");
    let all = some.iter().chain(&rest).flat_map(|page| &page.rows).map(|row| row.key.clone());
    assert_eq!(&all.collect::<BTreeSet<String>>(), kept);

    let page = grpc.wait(grpc.kv().list(v1::ListRequest { limit: 7, ..request.clone() }));
    assert_eq!(page.expect("a page").into_inner().rows.len(), 7);
    let refused = grpc.wait(grpc.kv().list(v1::ListRequest { limit: 1001, ..request }));
    let status = refused.expect_err("too many");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "limit: is 1001; a page has from 1 to 1000 rows");
}

fn by_the_command_line(cluster: &Cluster, kept: &BTreeSet<String>) {
    let node = &cluster.nodes[2];
    let (code, out, error) = coterie(node, &["scan", "--prefix", "user:", "--keys-only"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(&out.lines().map(str::to_owned).collect::<BTreeSet<_>>(), kept);
    let (code, out, _) = coterie(node, &["scan", "-p", "user:", "--limit", "1500", "--json"]);
    let rows: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((code, keys_of(&rows).len()), (0, 1500));
    let (code, out, _) = coterie(node, &["scan", "-p", &user(11)]);
    assert_eq!((code, out), (0, format!("{0}\tvalue of {0}\n", user(11))));
    let (code, _, error) = coterie(node, &["scan", "-k", "nowhere"]);
    assert!(code != 0 && error.contains("\"nowhere\""), "{code} {error}");
}

fn by_the_client(cluster: &Cluster, kept: &BTreeSet<String>) {
    let nodes = cluster.nodes.iter().map(|node| node.spec.client_address.to_string());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listed = runtime.block_on(async {
        let client = Client::builder().nodes(nodes).connect().expect("a client");
        let mut pages = client.keyspace("default").list().prefix("user:").keys_only(true).pages();
        let mut listed = BTreeSet::new();
        while let Some(page) = pages.next().await.expect("a page") {
            assert!(page.rows.len() <= 100 && page.rows.iter().all(|row| row.value.is_none()));
            listed.extend(page.rows.into_iter().map(|row| row.key));
        }
        listed
    });
    assert_eq!(&listed, kept);
}

fn what_is_wrong_is_named(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    let made = node.get("/v1/default?prefix=user:&limit=1").expect(200).json();
    let cursor = made["cursor"].as_str().expect("a cursor").to_owned();
    let another = format!("prefix=other&cursor={cursor}");
    let cases = [
        ("limit=0", "limit: is 0; a page has from 1 to 1000 rows"),
        ("limit=1001", "limit: is 1001; a page has from 1 to 1000 rows"),
        ("limit=-1", "limit: \"-1\" is not a number of rows; use 1 to 1000"),
        ("keys_only=1", "keys_only: \"1\" is neither true nor false"),
        ("cursor=abc", "cursor: is malformed"),
        (another.as_str(), "cursor: was made for another prefix"),
        ("w=1", "query: \"w\" is not a parameter here; a listing takes prefix, limit"),
        ("consistency=lease", "a read consistency is not available"),
    ];
    for (query, expected) in cases {
        let reply = node.get(&format!("/v1/default?{query}"));
        let error = reply.json()["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(reply.status, 400, "{query}: {error}");
        assert!(error.starts_with(expected), "{query}: {error}");
    }
    assert_eq!(node.get("/v1/nowhere?limit=1").expect(404).json()["code"], "unknown_keyspace");
    assert_eq!(node.put("/v1/default", "v").expect(405).header("allow"), "GET, HEAD, POST");
}

fn with_a_node_down(cluster: &mut Cluster, kept: &BTreeSet<String>) {
    let (live, stopped) = cluster.nodes.split_at_mut(2);
    let nodes: Vec<&NodeProcess> = live.iter().collect();
    let first = nodes[0].get("/v1/default?prefix=user:&limit=700").expect(200).json();
    stopped[0].kill();
    let cursor = first["cursor"].as_str().expect("a cursor");
    let mut rows: Vec<Value> = first["rows"].as_array().expect("rows").clone();
    wait_until("a listing goes on without a node", PATIENCE, || {
        let reply = nodes[1].get(&format!("/v1/default?prefix=user:&cursor={cursor}&limit=1"));
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    });
    let cursor = format!("&cursor={cursor}");
    let rest = pages_from(cursor, &nodes, "default", "prefix=user:&limit=700");
    rows.extend(rest.concat());
    assert_eq!(&keys_of(&rows), kept);
    let reply = nodes[0].get("/v1/default?level=all");
    assert_eq!((reply.status, &reply.json()["code"]), (503, &"quorum_unavailable".into()));

    // The third node comes back with what it missed: every page is by a quorum all the same.
    put_all(&nodes[0].grpc(), "default", &["late".to_owned()]);
    stopped[0].start();
    stopped[0].wait_ready();
    let late = pages(&[&stopped[0]], "default", "prefix=late");
    assert_eq!(keys_of(late.iter().flatten()), BTreeSet::from(["late".to_owned()]));
}

#[test]
fn a_strong_keyspace_is_listed_by_its_leaders() {
    let cluster = Cluster::start_with(3, &["--partitions", "8"]);
    let grpc = cluster.nodes[0].grpc();
    let (name, mode) = ("lists".to_owned(), "strong".to_owned());
    let request = v1::CreateKeyspaceRequest { name, mode, ..v1::CreateKeyspaceRequest::default() };
    grpc.wait(grpc.admin().create_keyspace(request)).expect("created");
    let nodes: Vec<&NodeProcess> = cluster.nodes.iter().collect();
    for node in &nodes {
        wait_until("all groups have leaders", PATIENCE, || {
            let reply = node.get("/v1/lists");
            if reply.status == 200 && reply.json()["cursor"] == Value::Null {
                Ok(())
            } else {
                Err(reply.text())
            }
        });
    }
    let kept = fill(&cluster, "lists");
    let listed = pages(&nodes, "lists", "prefix=user:&limit=300");
    assert_eq!(keys_of(listed.iter().flatten()), kept);
    let row = listed.iter().flatten().next().expect("a row");
    assert_eq!(row["value"], format!("value of {}", row["key"].as_str().expect("a key")));
    let keys = pages(&nodes, "lists", "prefix=user:&limit=1000&keys_only=true");
    assert_eq!(keys_of(keys.iter().flatten()), kept);
    let stale = "consistency=stale&max_staleness=10s";
    let listed = pages(&nodes, "lists", &format!("prefix=other/&{stale}"));
    assert_eq!(keys_of(listed.iter().flatten()).len(), OTHERS);
    // What was acknowledged is listed at once, whichever node is asked.
    for (number, node) in nodes.iter().cycle().take(12).enumerate() {
        let key = format!("fresh-{number}");
        node.put(&format!("/v1/lists/{key}"), "v").expect(200);
        let listed = pages(&[nodes[(number + 1) % 3]], "lists", &format!("prefix={key}"));
        assert!(keys_of(listed.iter().flatten()).contains(&key), "{key}");
    }
    let refused = nodes[0].get("/v1/lists?level=one");
    assert_eq!((refused.status, &refused.json()["code"]), (400, &"not_available".into()));
    let foreign = nodes[0].get("/v1/lists?limit=1").expect(200).json();
    let cursor = foreign["cursor"].as_str().expect("a cursor");
    let reply = nodes[0].get(&format!("/v1/default?cursor={cursor}")).expect(400).json();
    let error = reply["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("cursor: was made for another keyspace"), "{error}");
}
