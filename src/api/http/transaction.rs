//! `/v1/{keyspace}`: POST of several steps of one strong keyspace, together or not at all.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;

use crate::api::batch;
use crate::api::convert::{invalid, strong};
use crate::api::http::query::{self, Operation};
use crate::api::http::reply::{self, HttpError};
use crate::api::http::{body, condition, kv, listing, path, watch};
use crate::node::request::{RequestError, RequestOptions, Transaction};
use crate::node::service::Node;
use crate::proto::v1;
use crate::proto::v1::condition::Expect;
use crate::proto::v1::step::Action;

/// What a body must look like.
const RIGHT: &str =
    r#"send {"steps":[{"key":"k","put":"v"}]}; a step has one of put, append, delete and check"#;

/// Serves one transaction, or one page of what the keyspace has.
pub(crate) async fn serve(State(node): State<Arc<Node>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let served = match parts.method {
        Method::GET | Method::HEAD if query::is_watch(&parts.uri) => watch(&node, &parts).await,
        Method::GET | Method::HEAD => listing::list(&node, &parts).await,
        Method::POST => transact(&node, &parts, body).await,
        _ => return reply::method_not_allowed(&parts.method, "GET, HEAD, POST"),
    };
    served.unwrap_or_else(IntoResponse::into_response)
}

async fn watch(node: &Node, parts: &Parts) -> Result<Response, HttpError> {
    watch::watch(node, parts, path::keyspace(parts.uri.path())?, None).await
}

async fn transact(node: &Node, parts: &Parts, body: Body) -> Result<Response, HttpError> {
    let keyspace = Some(Arc::from(path::keyspace(parts.uri.path())?));
    let options = query::options(Operation::Write, &parts.uri, node.limits())?;
    let options = RequestOptions { keyspace, ..of_whole(&parts.headers, options)? };
    let body = body::read_transaction(&parts.headers, body, node.limits()).await?;
    let steps = steps(&body)?;
    batch::admit("steps", steps.len(), node.limits())?;
    let Transaction { steps } = strong::transaction(steps)?;
    let first = steps.first().map(|(key, _)| key.clone());
    let done = node.transact(Transaction { steps }, options).await;
    let done = done.map_err(|error| match &first {
        Some(key) => kv::refused(node, key, error),
        None => error.into(),
    })?;
    Ok(kv::led(node, done.receipt.leader, reply::transacted(&done)))
}

/// The session of a transaction; its conditions stand in its steps.
fn of_whole(headers: &HeaderMap, options: RequestOptions) -> Result<RequestOptions, RequestError> {
    let options = condition::of_write(headers, options)?;
    let options = condition::with_context(headers, options)?;
    match options.expect {
        None => Ok(options),
        Some(_) => Err(invalid("if-match", "belongs to a key; use a step with check")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransactionBody {
    steps: Vec<StepBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepBody {
    key: String,
    put: Option<String>,
    append: Option<String>,
    delete: Option<bool>,
    check: Option<CheckBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckBody {
    absent: Option<bool>,
    present: Option<bool>,
    version: Option<String>,
    value: Option<String>,
}

/// The steps in a body, as gRPC has them.
fn steps(body: &[u8]) -> Result<Vec<v1::Step>, RequestError> {
    let parsed: Result<TransactionBody, _> = serde_json::from_slice(body);
    let parsed = parsed.map_err(|error| invalid("body", format!("{error}; {RIGHT}")))?;
    parsed.steps.into_iter().map(step).collect()
}

fn step(body: StepBody) -> Result<v1::Step, RequestError> {
    let StepBody { key, put, append, delete, check } = body;
    let check = check.map(|check| one_condition(&key, check)).transpose()?;
    let actions = [
        put.map(|text| Action::Put(Bytes::from(text))),
        append.map(|text| Action::Append(Bytes::from(text))),
        delete.map(Action::Delete),
        check.map(Action::Check),
    ];
    let action = only(actions.into_iter().flatten())
        .ok_or_else(|| invalid("body", format!("the step of {key:?} is not clear; {RIGHT}")))?;
    Ok(v1::Step { key, action: Some(action) })
}

fn one_condition(key: &str, check: CheckBody) -> Result<v1::Condition, RequestError> {
    let CheckBody { absent, present, version, value } = check;
    let expected = [
        absent.map(Expect::Absent),
        present.map(Expect::Present),
        version.map(Expect::Version),
        value.map(Expect::Value),
    ];
    let expect = only(expected.into_iter().flatten()).ok_or_else(|| {
        let right = "a check has one of absent, present, version and value";
        invalid("body", format!("the check of {key:?} is not clear; {right}"))
    })?;
    Ok(v1::Condition { expect: Some(expect) })
}

/// The item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::group::command;
    use crate::types::{Key, Revision};

    fn parse(body: &str) -> Result<Vec<(Key, command::Action)>, RequestError> {
        Ok(strong::transaction(steps(body.as_bytes())?)?.steps)
    }

    #[test]
    fn every_step_has_its_json() {
        let body = r#"{"steps":[
            {"key":"a{t}","put":"1"},
            {"key":"b{t}","append":"ö"},
            {"key":"c{t}","delete":true},
            {"key":"d{t}","check":{"absent":true}},
            {"key":"e{t}","check":{"present":true}},
            {"key":"f{t}","check":{"version":"0000000000000007-0000000000000000"}},
            {"key":"g{t}","check":{"value":""}}
        ]}"#;
        use command::{Action, Expect};
        let expected = [
            ("a{t}", Action::Put(Bytes::from_static(b"1"))),
            ("b{t}", Action::Append(Bytes::from("ö"))),
            ("c{t}", Action::Delete),
            ("d{t}", Action::Check(Expect::Absent)),
            ("e{t}", Action::Check(Expect::Present)),
            ("f{t}", Action::Check(Expect::Revision(Revision(7)))),
            ("g{t}", Action::Check(Expect::Value(Bytes::new()))),
        ];
        let expected = expected.map(|(key, action)| (Key::from(key), action)).to_vec();
        assert_eq!(parse(body), Ok(expected));
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let cases = [
            ("", "body: "),
            ("[]", "body: "),
            ("{}", "missing field `steps`"),
            (r#"{"steps":[]}"#, "steps: is empty"),
            (r#"{"steps":[{"key":"k"}]}"#, "the step of \"k\" is not clear"),
            (r#"{"steps":[{"put":"v"}]}"#, "missing field `key`"),
            (r#"{"steps":[{"key":"","put":"v"}]}"#, "key: is empty"),
            (r#"{"steps":[{"key":"k","put":"v","append":"w"}]}"#, "is not clear"),
            (r#"{"steps":[{"key":"k","delete":false}]}"#, "delete of k is false"),
            (r#"{"steps":[{"key":"k","put":1}]}"#, "body: "),
            (r#"{"steps":[{"key":"k","set":"v"}]}"#, "unknown field `set`"),
            (r#"{"steps":[{"key":"k","check":{}}]}"#, "the check of \"k\" is not clear"),
            (r#"{"steps":[{"key":"k","check":{"absent":false}}]}"#, "expects nothing"),
            (r#"{"steps":[{"key":"k","check":{"value":"v","absent":true}}]}"#, "not clear"),
            (r#"{"steps":[{"key":"k","check":{"version":"1"}}]}"#, "receipt's version"),
            (r#"{"steps":[],"w":2}"#, "unknown field `w`"),
        ];
        for (body, part) in cases {
            let error = parse(body).expect_err(body).to_string();
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn a_transaction_has_its_conditions_in_its_steps() {
        let of = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static(name),
                axum::http::HeaderValue::from_static(value),
            )]);
            of_whole(&headers, RequestOptions::default())
        };
        let error = of("if-match", "*").expect_err("a condition").to_string();
        assert!(error.contains("a step with check"), "{error}");
        assert!(of("if-none-match", "*").is_err());
        assert!(of("coterie-session", "0123456789abcdef/1").expect("fine").session.is_some());
    }
}
