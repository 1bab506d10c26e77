//! Batches: every item with its own outcome, within limits of count and bytes.

use coterie::proto::v1::{self, batch_get_result, batch_put_item};
use tonic::{Code, Status};

use crate::harness::{Cluster, Grpc};

fn item(key: &str, value: &str) -> v1::BatchPutItem {
    let data = Some(batch_put_item::Data::Value(value.to_owned()));
    v1::BatchPutItem { key: key.to_owned(), data, ttl_ms: None }
}

fn put(grpc: &Grpc, items: Vec<v1::BatchPutItem>) -> Result<Vec<v1::BatchPutResult>, Status> {
    let request = v1::BatchPutRequest { items, ..v1::BatchPutRequest::default() };
    Ok(grpc.wait(grpc.kv().batch_put(request))?.into_inner().results)
}

fn get(grpc: &Grpc, keys: &[&str]) -> Result<Vec<v1::BatchGetResult>, Status> {
    let keys = keys.iter().map(|&key| key.to_owned()).collect();
    let request = v1::BatchGetRequest { keys, ..v1::BatchGetRequest::default() };
    Ok(grpc.wait(grpc.kv().batch_get(request))?.into_inner().results)
}

#[test]
fn results_come_in_the_order_of_the_items_each_with_its_receipt() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let names: Vec<String> = (0..1000).map(|number| format!("k{number}")).collect();
    let items = names.iter().map(|name| item(name, &format!("value of {name}"))).collect();
    for (result, name) in put(&grpc, items).expect("written").iter().zip(&names) {
        assert_eq!((&result.key, &result.error), (name, &None));
        assert!(!result.receipt.as_ref().expect("a receipt").version.is_empty());
    }
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    for (result, name) in get(&grpc, &keys).expect("read").iter().zip(&names) {
        let value = batch_get_result::Data::Value(format!("value of {name}"));
        assert_eq!((&result.key, result.found), (name, true));
        assert_eq!(result.data, Some(value));
    }
}

#[test]
fn one_bad_item_spoils_no_other() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let absent = v1::BatchPutItem { key: "b".to_owned(), data: None, ttl_ms: None };
    let big = item("c", &"x".repeat((1 << 20) + 1));
    let results = put(&grpc, vec![item("a", "1"), absent, big, item("", "4")]).expect("answered");
    let codes: Vec<&str> = results
        .iter()
        .map(|result| result.error.as_ref().map_or("", |error| error.code.as_str()))
        .collect();
    assert_eq!(codes, ["", "invalid_argument", "too_large", "invalid_argument"]);
    let errors = results.iter().filter_map(|result| result.error.as_ref());
    errors.for_each(|error| assert_eq!(error.outcome, "not-attempted"));
    let read = get(&grpc, &["a", "b", "a"]).expect("answered");
    let found: Vec<bool> = read.iter().map(|result| result.found).collect();
    assert_eq!(found, [true, false, true]);
    assert!(read.iter().all(|result| result.error.is_none() && result.receipt.is_some()));
}

#[test]
fn too_many_items_are_refused_with_limit_and_count() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let status = get(&grpc, &["k"; 1001]).expect_err("too many");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("batch_keys_max is 1000; got 1001"), "{status:?}");
    let status = put(&grpc, vec![item("k", "v"); 1001]).expect_err("too many");
    assert!(status.message().starts_with("items: batch_keys_max"), "{status:?}");
    assert!(get(&grpc, &[]).expect("nothing asked").is_empty());
}

#[test]
fn a_reply_stays_within_what_clients_take_and_says_what_it_left_out() {
    let cluster = Cluster::start(1);
    let grpc = cluster.nodes[0].grpc();
    let names: Vec<String> = (0..8).map(|number| format!("big{number}")).collect();
    for name in &names {
        let results = put(&grpc, vec![item(name, &"x".repeat(1 << 20))]).expect("written");
        assert_eq!(results[0].error, None);
    }
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    // The client's own limit is 4 MiB, which this call would break if the server did not mind it.
    let results = get(&grpc, &keys).expect("a reply that fits");
    let found = results.iter().filter(|result| result.found).count();
    assert!((1..=4).contains(&found), "{found} values of 1 MiB");
    for error in results.iter().filter_map(|result| result.error.as_ref()) {
        assert_eq!(error.code, "too_large");
        assert!(error.message.starts_with("batch_bytes_max is 4194304 bytes"), "{error:?}");
    }
    assert_eq!(results.iter().filter(|result| result.error.is_some()).count(), 8 - found);
}
