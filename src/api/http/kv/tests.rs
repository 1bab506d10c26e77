use axum::http::HeaderValue;
use serde_json::{Value, json};

use super::*;
use crate::types::{Expiry, Incarnation, NodeId, Timestamp};

const ETAG: &str = "\"0000000000000001-0000000000000002\"";

fn answer(value: Option<&'static [u8]>) -> ReadAnswer {
    let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(2) };
    let receipt = Receipt {
        version: Some(version),
        required: 2,
        replicas: 3,
        acknowledged: vec![NodeId(1), NodeId(2)],
        ..Receipt::default()
    };
    ReadAnswer { value: value.map(Bytes::from_static), receipt, ..ReadAnswer::default() }
}

fn ending(value: Option<&'static [u8]>) -> ReadAnswer {
    let answer = answer(value);
    ReadAnswer { receipt: Receipt { expires_at: Some(Expiry(99)), ..answer.receipt }, ..answer }
}

#[tokio::test]
async fn a_value_that_ends_says_when_in_every_form() {
    let read = |value, asked: &[_]| read_reply("k", ending(value), &headers(asked)).expect("told");
    let response = read(Some(b"bar"), &[]);
    assert_eq!(response.headers()["x-coterie-expires-at"], "99");
    assert_eq!(json_body(response).await["expires_at_ms"], 99);
    let response = read(Some(b"bar"), &[(header::ACCEPT, OCTET_STREAM)]);
    assert_eq!(response.headers()["x-coterie-expires-at"], "99");
    let receipt = response.headers()[reply::RECEIPT_HEADER].to_str().expect("ASCII").to_owned();
    assert!(receipt.contains("\"expires_at_ms\":99"), "{receipt}");
    let response = read(None, &[]);
    assert_eq!(response.status(), 404);
    assert_eq!(json_body(response).await["expires_at_ms"], 99);
}

fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

fn reply(value: Option<&'static [u8]>, asked: &[(header::HeaderName, &'static str)]) -> Response {
    read_reply("k", answer(value), &headers(asked)).unwrap_or_else(IntoResponse::into_response)
}

async fn body(response: Response) -> Bytes {
    axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body")
}

async fn json_body(response: Response) -> Value {
    serde_json::from_slice(&body(response).await).expect("JSON")
}

fn receipt_json() -> Value {
    json!({
        "version": ETAG.trim_matches('"'), "required": 2, "replicas": 3,
        "acknowledged": ["0000000000000001", "0000000000000002"],
        "hinted": [], "fallbacks": [], "repaired": [], "under_replicated": false,
    })
}

fn with(mut object: Value, more: Value) -> Value {
    let (Some(all), Value::Object(more)) = (object.as_object_mut(), more) else {
        panic!("both are objects")
    };
    all.extend(more);
    object
}

#[tokio::test]
async fn text_is_answered_as_json_with_its_receipt() {
    let response = reply(Some(b"bar"), &[]);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[header::ETAG], ETAG);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let expected = with(json!({"key": "k", "value": "bar"}), receipt_json());
    assert_eq!(json_body(response).await, expected);
}

#[tokio::test]
async fn bytes_are_answered_raw_with_the_receipt_in_a_header() {
    let response = reply(Some(&[0xff, 0]), &[(header::ACCEPT, OCTET_STREAM)]);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[header::CONTENT_TYPE], OCTET_STREAM);
    let receipt = response.headers()[reply::RECEIPT_HEADER].to_str().expect("ascii");
    assert_eq!(serde_json::from_str::<Value>(receipt).ok(), Some(receipt_json()));
    assert_eq!(body(response).await, Bytes::from_static(&[0xff, 0]));
}

#[tokio::test]
async fn bytes_in_json_are_not_acceptable() {
    let response = reply(Some(&[0xff, 0]), &[]);
    assert_eq!(response.status(), 406);
    let body = json_body(response).await;
    assert_eq!(body["code"], "not_text");
    assert!(body["error"].as_str().is_some_and(|text| text.contains(OCTET_STREAM)), "{body}");
}

#[tokio::test]
async fn a_missing_key_is_not_found_and_says_who_was_asked() {
    let response = reply(None, &[]);
    assert_eq!(response.status(), 404);
    let error = "key \"k\" has no value";
    let expected = json!({"error": error, "code": "not_found", "key": "k"});
    assert_eq!(json_body(response).await, with(expected, receipt_json()));
}

#[tokio::test]
async fn a_version_that_the_client_has_is_not_sent_again() {
    let known =
        [ETAG, "W/\"0000000000000001-0000000000000002\"", "*", "\"other\", \"x\"", "\"other\""];
    let expected = [304, 304, 304, 200, 200];
    for (tags, status) in known.into_iter().zip(expected) {
        let response = reply(Some(b"bar"), &[(header::IF_NONE_MATCH, tags)]);
        assert_eq!(response.status(), status, "{tags}");
        assert_eq!(response.headers()[header::ETAG], ETAG, "{tags}");
        assert_eq!(body(response).await.is_empty(), status == 304, "{tags}");
    }
    let list = "\"other\", \"0000000000000001-0000000000000002\"";
    assert_eq!(reply(Some(b"bar"), &[(header::IF_NONE_MATCH, list)]).status(), 304);
}
