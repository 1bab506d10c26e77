//! Over gRPC.

use bytes::Bytes;
use coterie::proto::v1::{self, append_request, compare_and_set_request, condition, step};
use prost::Message;
use tonic::{Code, Status};

use crate::grpc::{get_of, put_text};
use crate::harness::{Cluster, Grpc};
use crate::strong::{NAME, start};

fn append_of(keyspace: &str, key: &str, suffix: &str) -> v1::AppendRequest {
    let data = Some(append_request::Data::Value(suffix.to_owned()));
    let (key, keyspace) = (key.to_owned(), keyspace.to_owned());
    v1::AppendRequest { key, data, keyspace, ..v1::AppendRequest::default() }
}

fn expecting(expect: condition::Expect) -> Option<v1::Condition> {
    Some(v1::Condition { expect: Some(expect) })
}

fn compare_and_set(
    grpc: &Grpc,
    key: &str,
    expect: Option<v1::Condition>,
    then: Option<&str>,
) -> Result<v1::Receipt, Status> {
    let request = v1::CompareAndSetRequest {
        key: key.to_owned(),
        expect,
        data: then.map(|text| compare_and_set_request::Data::Value(text.to_owned())),
        keyspace: NAME.to_owned(),
        session: None,
    };
    let reply = grpc.wait(grpc.kv().compare_and_set(request))?.into_inner();
    Ok(reply.receipt.expect("a receipt"))
}

fn read(grpc: &Grpc, key: &str) -> Result<v1::GetResponse, Status> {
    let request = v1::GetRequest { keyspace: NAME.to_owned(), ..get_of(key) };
    Ok(grpc.wait(grpc.kv().get(request))?.into_inner())
}

fn transact(grpc: &Grpc, steps: Vec<v1::Step>) -> Result<v1::TransactResponse, Status> {
    let request = v1::TransactRequest { keyspace: NAME.to_owned(), steps, session: None };
    Ok(grpc.wait(grpc.kv().transact(request))?.into_inner())
}

fn step(key: &str, action: step::Action) -> v1::Step {
    v1::Step { key: key.to_owned(), action: Some(action) }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, word: &str) -> Status {
    let status = result.expect_err("a refusal");
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(status.metadata().get("coterie-code").expect("a trailer"), word, "{status:?}");
    status
}

#[test]
fn strong_keyspaces_over_grpc() {
    let cluster = start();
    puts_and_appends_are_read_from_every_node(&cluster);
    compare_and_set_tells_what_it_found(&cluster);
    a_repeated_write_is_answered_and_not_done_again(&cluster);
    transactions_happen_whole_or_not_at_all(&cluster);
    batches_go_to_any_keyspace(&cluster);
    leaderless_and_unknown_keyspaces_refuse(&cluster);
}

fn puts_and_appends_are_read_from_every_node(cluster: &Cluster) {
    let clients: Vec<Grpc> = cluster.nodes.iter().map(|node| node.grpc()).collect();
    let addresses: Vec<String> =
        cluster.nodes.iter().map(|node| node.spec.client_address.to_string()).collect();
    for (number, grpc) in clients.iter().enumerate() {
        let key = format!("grpc-{number}");
        let put = v1::PutRequest { keyspace: NAME.to_owned(), ..put_text(&key, "a") };
        let reply = grpc.wait(grpc.kv().put(put)).expect("written");
        let leader = reply.metadata().get("coterie-leader").expect("a leader");
        assert!(addresses.iter().any(|address| leader == address.as_str()), "{leader:?}");
        let appended = grpc.wait(grpc.kv().append(append_of(NAME, &key, "b"))).expect("appended");
        assert_eq!(appended.into_inner().value_bytes, 2);
        for other in &clients {
            let read = read(other, &key).expect("read");
            assert_eq!(read.data, Some(v1::get_response::Data::Value("ab".to_owned())));
            let receipt = read.receipt.expect("a receipt");
            assert_eq!((receipt.consistency.as_str(), receipt.leader.len()), ("linearizable", 16));
        }
        let request =
            v1::DeleteRequest { key: key.clone(), keyspace: NAME.to_owned(), ..Default::default() };
        grpc.wait(grpc.kv().delete(request)).expect("deleted");
        let status = refused(read(&clients[0], &key), Code::NotFound, "not_found");
        assert!(status.metadata().contains_key("coterie-leader"), "{status:?}");
    }
}

fn compare_and_set_tells_what_it_found(cluster: &Cluster) {
    let (grpc, other) = (cluster.nodes[0].grpc(), cluster.nodes[1].grpc());
    let absent = || expecting(condition::Expect::Absent(true));
    let created = compare_and_set(&grpc, "cas", absent(), Some("1")).expect("created");
    let status = refused(
        compare_and_set(&other, "cas", absent(), Some("2")),
        Code::FailedPrecondition,
        "condition_failed",
    );
    assert_eq!(status.metadata().get("coterie-outcome").expect("a trailer"), "failed");
    let found = v1::ConditionFailed::decode(status.details()).expect("a ConditionFailed");
    let (version, value) = (created.version.clone(), Bytes::from_static(b"1"));
    assert_eq!(found, v1::ConditionFailed { step: 0, found: true, value, version });
    let same = expecting(condition::Expect::Version(created.version));
    compare_and_set(&other, "cas", same.clone(), Some("2")).expect("as expected");
    let stale = compare_and_set(&grpc, "cas", same, Some("3"));
    refused(stale, Code::FailedPrecondition, "condition_failed");
    let is_two = expecting(condition::Expect::Value("2".to_owned()));
    compare_and_set(&grpc, "cas", is_two, None).expect("deleted");
    refused(read(&other, "cas"), Code::NotFound, "not_found");
    refused(compare_and_set(&grpc, "cas", None, None), Code::InvalidArgument, "invalid_argument");
}

fn a_repeated_write_is_answered_and_not_done_again(cluster: &Cluster) {
    let session = |sequence| {
        Some(v1::Session { client: "00000000000000ef".to_owned(), sequence, acknowledged: 0 })
    };
    let request = v1::AppendRequest { session: session(1), ..append_of(NAME, "once", "x") };
    let mut versions = Vec::new();
    for node in &cluster.nodes {
        let grpc = node.grpc();
        let reply = grpc.wait(grpc.kv().append(request.clone())).expect("answered").into_inner();
        assert_eq!(reply.value_bytes, 1);
        versions.push(reply.receipt.expect("a receipt").version);
    }
    versions.dedup();
    assert_eq!(versions.len(), 1, "{versions:?}");
    let grpc = cluster.nodes[0].grpc();
    let beyond = v1::AppendRequest { session: session(99), ..append_of(NAME, "once", "x") };
    let exceeded = grpc.wait(grpc.kv().append(beyond));
    refused(exceeded, Code::FailedPrecondition, "session_window_exceeded");
}

fn transactions_happen_whole_or_not_at_all(cluster: &Cluster) {
    let grpc = cluster.nodes[2].grpc();
    let one = Bytes::from_static(b"1");
    let present = v1::Condition { expect: Some(condition::Expect::Present(true)) };
    let steps = |condition: v1::Condition| {
        vec![
            step("{t}a", step::Action::Put(one.clone())),
            step("{t}b", step::Action::Append(one.clone())),
            step("{t}c", step::Action::Check(condition)),
        ]
    };
    let status =
        refused(transact(&grpc, steps(present)), Code::FailedPrecondition, "condition_failed");
    let found = v1::ConditionFailed::decode(status.details()).expect("a ConditionFailed");
    assert_eq!((found.step, found.found), (2, false));
    refused(read(&grpc, "{t}a"), Code::NotFound, "not_found");
    let absent = v1::Condition { expect: Some(condition::Expect::Absent(true)) };
    let results = transact(&grpc, steps(absent)).expect("done").results;
    assert_eq!(results.iter().map(|result| result.value_bytes).collect::<Vec<_>>(), [1, 1, 0]);
    assert!(read(&grpc, "{t}b").is_ok());
    let apart = (0..32).map(|n| step(&format!("apart-{n}"), step::Action::Delete(true))).collect();
    let status = refused(transact(&grpc, apart), Code::InvalidArgument, "invalid_argument");
    assert!(status.message().contains("must lie in one partition"), "{status:?}");
}

fn batches_go_to_any_keyspace(cluster: &Cluster) {
    let grpc = cluster.nodes[1].grpc();
    let data = Some(v1::batch_put_item::Data::Value("v".to_owned()));
    let items = vec![v1::BatchPutItem { key: "batched".to_owned(), data, ttl_ms: None }];
    let request = |keyspace: &str| v1::BatchPutRequest {
        items: items.clone(),
        keyspace: keyspace.to_owned(),
        ..Default::default()
    };
    let code = |keyspace| {
        let reply = grpc.wait(grpc.kv().batch_put(request(keyspace))).expect("answered");
        reply.into_inner().results[0].error.clone().map(|error| error.code)
    };
    assert_eq!(code(NAME), None);
    assert_eq!(code("nowhere").as_deref(), Some("unknown_keyspace"));
    let keys = vec!["batched".to_owned()];
    let found = |keyspace: &str| {
        let request = v1::BatchGetRequest {
            keys: keys.clone(),
            keyspace: keyspace.to_owned(),
            ..Default::default()
        };
        grpc.wait(grpc.kv().batch_get(request)).expect("answered").into_inner().results[0].found
    };
    assert_eq!((found(NAME), found("default")), (true, false));
}

fn leaderless_and_unknown_keyspaces_refuse(cluster: &Cluster) {
    let grpc = cluster.nodes[0].grpc();
    let append = |keyspace| grpc.wait(grpc.kv().append(append_of(keyspace, "k", "v")));
    refused(append("nowhere"), Code::NotFound, "unknown_keyspace");
    for keyspace in ["", "default"] {
        let status = refused(append(keyspace), Code::FailedPrecondition, "not_available");
        assert!(status.message().starts_with("an append is not available"), "{status:?}");
    }
    let condition = expecting(condition::Expect::Absent(true));
    let put = v1::PutRequest { condition, ..put_text("k", "v") };
    refused(grpc.wait(grpc.kv().put(put)), Code::FailedPrecondition, "not_available");
    let put =
        v1::PutRequest { keyspace: NAME.to_owned(), ttl_ms: Some(1000), ..put_text("ending", "v") };
    let status = refused(grpc.wait(grpc.kv().put(put)), Code::FailedPrecondition, "not_available");
    let expected = format!("ttl is not available in keyspace {NAME:?}, whose mode is strong");
    assert_eq!(status.message(), expected);
    let stale = v1::GetRequest {
        keyspace: NAME.to_owned(),
        consistency: v1::Consistency::Stale.into(),
        max_staleness_ms: 1000,
        context: "0000000000000001-0000000000000000".to_owned(),
        ..get_of("k")
    };
    refused(grpc.wait(grpc.kv().get(stale)), Code::InvalidArgument, "invalid_argument");
    let get = v1::GetRequest { consistency: 1, ..get_of("k") };
    refused(grpc.wait(grpc.kv().get(get)), Code::FailedPrecondition, "not_available");
    refused(grpc.wait(grpc.kv().get(get_of("k"))), Code::NotFound, "not_found");
}
