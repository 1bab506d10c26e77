use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::node::request::{Outcome, Receipt, RequestError, Transacted};
use crate::protocol::group::reply::{Current, StepResult};
use crate::types::{GroupId, NodeId, Revision};

async fn json_body(response: Response) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn request(path: &str, content_type: &str) -> Request {
    Request::builder()
        .uri(path)
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::empty())
        .expect("a request")
}

#[tokio::test]
async fn errors_of_the_node_become_bodies_with_code_and_outcome() {
    let outcome = Outcome::Unknown;
    let timeout = RequestError::Timeout { required: 2, received: 1, waited_ms: 500, outcome };
    let unavailable = RequestError::QuorumUnavailable { required: 3, reachable: 2 };
    let cases = [
        (timeout, 504, "timeout", "unknown"),
        (unavailable, 503, "quorum_unavailable", "not-attempted"),
    ];
    for (error, status, code, outcome) in cases {
        let text = error.to_string();
        let response = HttpError::from(error).into_response();
        assert_eq!(response.status(), status);
        let expected = json!({"error": text, "code": code, "outcome": outcome});
        assert_eq!(json_body(response).await, expected);
    }
}

#[tokio::test]
async fn a_failed_condition_shows_what_the_key_holds() {
    let current = |value: &'static [u8]| Current {
        value: Some(Bytes::from_static(value)),
        created: Revision(3),
        modified: Revision(7),
    };
    let failed = |current| RequestError::ConditionFailed { step: 1, current };
    let version = "0000000000000007-0000000000000000";
    let response = HttpError::from(failed(Some(current(b"v")))).into_response();
    assert_eq!(response.status(), 412);
    assert_eq!(response.headers()[header::ETAG], format!("\"{version}\""));
    let body = json_body(response).await;
    let told = json!([body["step"], body["found"], body["value"], body["version"]]);
    assert_eq!(told, json!([1, true, "v", version]));
    assert_eq!((&body["code"], &body["outcome"]), (&json!("condition_failed"), &json!("failed")));
    let bytes = json_body(HttpError::from(failed(Some(current(&[0xff])))).into_response()).await;
    assert_eq!((bytes.get("value"), &bytes["found"]), (None, &json!(true)));
    let absent = HttpError::from(failed(None)).into_response();
    assert!(!absent.headers().contains_key(header::ETAG));
    let absent = json_body(absent).await;
    assert_eq!((absent.get("version"), &absent["found"]), (None, &json!(false)));
}

#[tokio::test]
async fn replies_and_errors_name_the_leader_if_it_is_known() {
    let address = "127.0.0.1:7400".parse().ok();
    let no_leader = RequestError::NoLeader { group: GroupId(1), reason: String::new() };
    let error = HttpError::from(no_leader).with_leader(address).into_response();
    assert_eq!(error.headers()[crate::api::leader::LEADER], "127.0.0.1:7400");
    let known = reply::with_leader(StatusCode::OK.into_response(), address);
    assert_eq!(known.headers()["Coterie-Leader"], "127.0.0.1:7400");
    assert!(reply::with_leader(StatusCode::OK.into_response(), None).headers().is_empty());
}

#[tokio::test]
async fn appends_and_transactions_tell_what_came_of_each_step() {
    let step =
        |existed, value_bytes| StepResult { existed, created: Some(Revision(3)), value_bytes };
    let receipt = Receipt {
        version: Some(Revision(7).into()),
        consistency: Some("linearizable"),
        leader: Some(NodeId(5)),
        ..Receipt::default()
    };
    let done = Transacted { results: vec![step(false, 0), step(true, 9)], receipt };
    let response = reply::appended("k", &done);
    assert_eq!(response.headers()[header::ETAG], "\"0000000000000007-0000000000000000\"");
    let body = json_body(response).await;
    assert_eq!((&body["key"], &body["value_bytes"]), (&json!("k"), &json!(9)));
    assert_eq!(body["consistency"], "linearizable");
    assert_eq!(body["leader"], "0000000000000005");
    let body = json_body(reply::transacted(&done)).await;
    let expected =
        json!([{"existed": false, "value_bytes": 0}, {"existed": true, "value_bytes": 9}]);
    assert_eq!(body["results"], expected);
    assert_eq!(body["version"], "0000000000000007-0000000000000000");
}

#[tokio::test]
async fn an_unknown_path_says_where_to_look() {
    let response = unknown_path(request("/nope", "")).await;
    assert_eq!(response.status(), 404);
    let error = "no such path: /nope; GET / lists the paths";
    assert_eq!(json_body(response).await, json!({"error": error, "code": "unknown_path"}));
}

#[tokio::test]
async fn an_unknown_service_is_unimplemented_for_grpc() {
    let response = unknown_path(request("/coterie.v2.Kv/Get", "application/grpc+proto")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "12");
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let response = read_only(Method::POST).await;
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
    let body = json_body(response).await;
    assert_eq!(body["code"], "method_not_allowed");
    assert_eq!(body["error"], "POST is not allowed here; use GET, HEAD");
}
