//! Bodies and headers of HTTP replies.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;

use crate::api::{convert, error, leader};
use crate::node::request::{Incremented, Receipt, RequestError, SetUpdated, Transacted};
use crate::protocol::group::reply::StepResult;
use crate::types::{NodeId, Version};

/// The header that carries the receipt where the body does not.
pub(crate) const RECEIPT_HEADER: &str = "coterie-receipt";
/// The header that tells when a value ends, in Unix milliseconds.
pub(crate) const EXPIRES_AT_HEADER: HeaderName = HeaderName::from_static("x-coterie-expires-at");

/// The header that carries a key's context: of requests, what the client has seen; of answers, what
/// it may give back.
pub(crate) const CONTEXT_HEADER: HeaderName = HeaderName::from_static("x-coterie-context");

/// An error with its status and body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HttpError {
    status: StatusCode,
    code: &'static str,
    message: String,
    outcome: Option<&'static str>,
    found: Option<Box<Found>>,
    leader: Option<SocketAddr>,
    retry_after: Option<Duration>,
}

impl HttpError {
    /// An error that concerns no replica.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        let (outcome, found, leader, retry_after) = (None, None, None, None);
        HttpError { status, code, message, outcome, found, leader, retry_after }
    }

    /// The same error, naming the node that leads what was asked.
    #[must_use]
    pub(crate) fn with_leader(self, leader: Option<SocketAddr>) -> Self {
        HttpError { leader, ..self }
    }
}

/// What a key held when a condition on it did not hold.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Found {
    /// The step of the transaction, from 0.
    step: usize,
    /// Whether the key had a value.
    found: bool,
    /// The value, unless it is no text or a repeated answer leaves it out for its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// When it was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

impl Found {
    fn of(error: &RequestError) -> Option<Box<Found>> {
        let RequestError::ConditionFailed { step, current } = error else { return None };
        let value = current.as_ref().and_then(|current| current.value.clone());
        Some(Box::new(Found {
            step: *step,
            found: current.is_some(),
            value: value.and_then(|value| convert::text_or_bytes(value).ok()),
            version: current.as_ref().map(|current| current.modified.to_string()),
        }))
    }

    fn etag(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("\"{}\"", self.version.as_ref()?)).ok()
    }
}

impl From<RequestError> for HttpError {
    fn from(error: RequestError) -> Self {
        HttpError {
            status: error::statuses(&error).1,
            code: error.code(),
            message: error.to_string(),
            outcome: Some(error.outcome().name()),
            found: Found::of(&error),
            leader: None,
            retry_after: error.retry_after(),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (error, code, outcome) = (self.message.as_str(), self.code, self.outcome);
        let found = self.found.as_deref();
        let tag = found.and_then(Found::etag).map(|tag| (header::ETAG, tag));
        let waits = self.retry_after.into_iter().flat_map(retry_headers);
        let headers: HeaderMap = tag.into_iter().chain(waits).collect();
        let body = Json(ErrorBody { error, code, outcome, found });
        with_leader((self.status, headers, body).into_response(), self.leader)
    }
}

/// How long to wait before asking again: in whole seconds, as HTTP has it (RFC 9110, section
/// 10.2.3), and to the millisecond.
fn retry_headers(wait: Duration) -> [(HeaderName, HeaderValue); 2] {
    let ms = error::milliseconds(wait);
    let exactly = HeaderName::from_static(error::RETRY_AFTER_TRAILER);
    [(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000))), (exactly, HeaderValue::from(ms))]
}

/// A response that names the node that leads what was asked, if it is known.
pub(crate) fn with_leader(mut response: Response, leader: Option<SocketAddr>) -> Response {
    let value = leader.and_then(|address| HeaderValue::try_from(address.to_string()).ok());
    if let Some(value) = value {
        response.headers_mut().insert(leader::LEADER, value);
    }
    response
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(flatten)]
    found: Option<&'a Found>,
}

/// The reply to a method that a path does not have.
pub(crate) fn method_not_allowed(method: &Method, allow: &'static str) -> Response {
    let message = format!("{method} is not allowed here; use {allow}");
    let code = "method_not_allowed";
    let error = HttpError::new(StatusCode::METHOD_NOT_ALLOWED, code, message);
    ([(header::ALLOW, allow)], error).into_response()
}

/// A receipt as JSON shows it: the version as the text that clients give back.
#[derive(Serialize)]
struct ReceiptBody<'a> {
    version: Option<String>,
    required: u32,
    replicas: u32,
    acknowledged: &'a [NodeId],
    hinted: &'a [NodeId],
    fallbacks: &'a [NodeId],
    repaired: &'a [NodeId],
    under_replicated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    consistency: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leader: Option<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unseen: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    siblings: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a str>,
}

impl<'a> From<&'a Receipt> for ReceiptBody<'a> {
    fn from(receipt: &'a Receipt) -> Self {
        ReceiptBody {
            version: receipt.version.map(|version| version.to_string()),
            required: receipt.required,
            replicas: receipt.replicas,
            acknowledged: &receipt.acknowledged,
            hinted: &receipt.hinted,
            fallbacks: &receipt.fallbacks,
            repaired: &receipt.repaired,
            under_replicated: receipt.under_replicated,
            consistency: receipt.consistency,
            leader: receipt.leader,
            expires_at_ms: receipt.expires_at.map(|end| end.0),
            unseen: receipt.unseen.iter().map(Version::to_string).collect(),
            siblings: receipt.siblings,
            context: receipt.context.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct AnswerBody<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(flatten)]
    receipt: ReceiptBody<'a>,
}

/// A key's answer in JSON, with the value where it is text.
pub(crate) fn answer(key: &str, value: Option<&str>, receipt: &Receipt) -> Response {
    let body = AnswerBody { key, value, receipt: receipt.into() };
    (value_headers(receipt), Json(body)).into_response()
}

#[derive(Serialize)]
struct SeveralBody<'a> {
    key: &'a str,
    values: Vec<ValueBody>,
    #[serde(flatten)]
    receipt: ReceiptBody<'a>,
}

/// A value in JSON: text as `value`, other bytes in hexadecimal.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ValueBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl From<Bytes> for ValueBody {
    fn from(value: Bytes) -> Self {
        match convert::text_or_bytes(value) {
            Ok(text) => ValueBody { value: Some(text), value_hex: None },
            Err(bytes) => {
                let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                ValueBody { value: None, value_hex: Some(digits) }
            }
        }
    }
}

/// The answer to a read of a key with several siblings (RFC 9110, section 15.4.1), whatever form
/// was asked for.
pub(crate) fn several(key: &str, siblings: Vec<Bytes>, receipt: &Receipt) -> Response {
    let values = siblings.into_iter().map(ValueBody::from).collect();
    let body = SeveralBody { key, values, receipt: receipt.into() };
    (StatusCode::MULTIPLE_CHOICES, value_headers(receipt), Json(body)).into_response()
}

#[derive(Serialize)]
struct SetBody<'a> {
    key: &'a str,
    elements: Vec<String>,
    #[serde(flatten)]
    receipt: ReceiptBody<'a>,
}

/// The answer to a read of a set.
pub(crate) fn set(key: &str, elements: Vec<String>, receipt: &Receipt) -> Response {
    let body = SetBody { key, elements, receipt: receipt.into() };
    (value_headers(receipt), Json(body)).into_response()
}

#[derive(Serialize)]
struct IncrementedBody<'a> {
    key: &'a str,
    /// What the counter stood at then, in digits, as a read of it answers.
    value: String,
    #[serde(flatten)]
    receipt: ReceiptBody<'a>,
}

/// The answer to an addition to a counter.
pub(crate) fn incremented(key: &str, done: &Incremented) -> Response {
    let (value, receipt) = (done.total.to_string(), (&done.receipt).into());
    let body = IncrementedBody { key, value, receipt };
    (value_headers(&done.receipt), Json(body)).into_response()
}

#[derive(Serialize)]
struct SetUpdatedBody<'a> {
    key: &'a str,
    /// How many elements the set had then.
    size: u64,
    #[serde(flatten)]
    receipt: ReceiptBody<'a>,
}

/// The answer to a change of a set.
pub(crate) fn set_updated(key: &str, done: &SetUpdated) -> Response {
    let body = SetUpdatedBody { key, size: done.size, receipt: (&done.receipt).into() };
    (value_headers(&done.receipt), Json(body)).into_response()
}

#[derive(Serialize)]
struct AppendedBody<'a> {
    key: &'a str,
    /// Bytes of the value now.
    value_bytes: u64,
    #[serde(flatten)]
    receipt: ReceiptBody<'a>,
}

/// The answer to an append.
pub(crate) fn appended(key: &str, done: &Transacted) -> Response {
    // The step stands last, behind its condition.
    let value_bytes = done.results.last().map_or(0, |result| result.value_bytes);
    let body = AppendedBody { key, value_bytes, receipt: (&done.receipt).into() };
    (value_headers(&done.receipt), Json(body)).into_response()
}

#[derive(Serialize)]
struct TransactedBody<'a> {
    results: Vec<StepBody>,
    #[serde(flatten)]
    receipt: ReceiptBody<'a>,
}

#[derive(Serialize)]
struct StepBody {
    existed: bool,
    value_bytes: u64,
}

/// The answer to a transaction.
pub(crate) fn transacted(done: &Transacted) -> Response {
    let step =
        |&StepResult { existed, value_bytes, .. }: &StepResult| StepBody { existed, value_bytes };
    let results = done.results.iter().map(step).collect();
    Json(TransactedBody { results, receipt: (&done.receipt).into() }).into_response()
}

/// An answer without a JSON body: its receipt stands in a header.
pub(crate) fn receipt_headers(receipt: &Receipt) -> HeaderMap {
    let mut headers = value_headers(receipt);
    // A receipt is made of digits, hexadecimal ids and fixed names, so it is ASCII.
    let json = serde_json::to_string(&ReceiptBody::from(receipt)).unwrap_or_default();
    if let Ok(value) = HeaderValue::try_from(json) {
        headers.insert(RECEIPT_HEADER, value);
    }
    headers
}

/// What is known of the value that was written or read: its version, also as the context that is
/// given back, and when it ends.
fn value_headers(receipt: &Receipt) -> HeaderMap {
    let tag = receipt.version.and_then(|version| HeaderValue::try_from(etag(version)).ok());
    let end = receipt.expires_at.map(|end| HeaderValue::from(end.0));
    let tag = tag.map(|tag| (header::ETAG, tag));
    let end = end.map(|end| (EXPIRES_AT_HEADER, end));
    tag.into_iter().chain(end).chain(context_header(receipt)).collect()
}

fn context_header(receipt: &Receipt) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(error::context_of(receipt)?).ok()?;
    Some((CONTEXT_HEADER, value))
}

/// The entity tag of a version.
pub(crate) fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

#[derive(Serialize)]
struct NotFoundBody<'a> {
    error: String,
    code: &'static str,
    key: &'a str,
    #[serde(flatten)]
    receipt: ReceiptBody<'a>,
}

/// The reply to a read of a key that has no value; its receipt tells who was asked.
pub(crate) fn not_found(key: &str, receipt: &Receipt) -> Response {
    let error = error::no_value_text(key);
    let body = NotFoundBody { error, code: error::NOT_FOUND, key, receipt: receipt.into() };
    // What a deletion or an expired value leaves behind is a version as well.
    let headers: HeaderMap = context_header(receipt).into_iter().collect();
    (StatusCode::NOT_FOUND, headers, Json(body)).into_response()
}
