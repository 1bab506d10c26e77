//! The value in the body of a PUT or an append: `{"value":"text"}`, or raw bytes as
//! `application/octet-stream`. A transaction's body is JSON of its own.
//!
//! Everything that is not declared to be raw bytes is read as JSON, so that curl's default
//! content type (`application/x-www-form-urlencoded`) does what its user means.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;

use crate::api::batch;
use crate::api::convert::invalid;
use crate::config::Limits;
use crate::node::request::RequestError;

/// Bytes of JSON that one byte of a string takes at most: `\u0000`.
const JSON_BYTES_PER_BYTE_MAX: usize = 6;
/// Bytes of JSON around the string.
const JSON_FRAME_BYTES_MAX: usize = 1024;
/// Bytes set aside at once for a body whose length the client has told.
const RESERVE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a body above its limit that are read and thrown away before the error is sent. Most
/// clients read no answer while they send, and would see a broken connection instead of the error.
const DISCARD_BYTES_MAX: usize = 8 << 20;

/// The media type of raw bytes.
pub(crate) const OCTET_STREAM: &str = "application/octet-stream";

/// The form of a value on its way in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{"value":"text"}`.
    Json,
    /// The bytes themselves.
    Raw,
}

impl Form {
    /// The form of a request's body, by its content type.
    pub(crate) fn of_body(headers: &HeaderMap) -> Form {
        let raw = media_types(headers, header::CONTENT_TYPE).any(is_octet_stream);
        if raw { Form::Raw } else { Form::Json }
    }

    /// The form that a client accepts; JSON unless it asks for raw bytes and not for JSON.
    pub(crate) fn accepted(headers: &HeaderMap) -> Form {
        let raw = media_types(headers, header::ACCEPT).any(is_octet_stream);
        let json = media_types(headers, header::ACCEPT)
            .any(|media| media.eq_ignore_ascii_case("application/json"));
        if raw && !json { Form::Raw } else { Form::Json }
    }

    fn body_bytes_max(self, limits: &Limits) -> usize {
        match self {
            Form::Raw => limits.value_bytes_max,
            Form::Json => limits
                .value_bytes_max
                .saturating_mul(JSON_BYTES_PER_BYTE_MAX)
                .saturating_add(JSON_FRAME_BYTES_MAX),
        }
    }
}

/// Media types of a header without their parameters.
fn media_types(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|one| one.split(';').next().map(str::trim))
}

fn is_octet_stream(media: &str) -> bool {
    media.eq_ignore_ascii_case(OCTET_STREAM)
}

/// What a body may take, and the limit that says so.
#[derive(Clone, Copy)]
struct Bound {
    limit: &'static str,
    /// The limit's value.
    max: usize,
    /// Bytes of a body that may be within the limit.
    body_bytes_max: usize,
}

impl Bound {
    fn exceeded(self, got: usize) -> RequestError {
        RequestError::TooLarge { limit: self.limit, max: self.max, got }
    }
}

/// Reads a whole body, but keeps no more of it than the form of a value may take.
///
/// # Errors
/// [`RequestError::TooLarge`] naming `value_bytes_max`; [`RequestError::Invalid`] when the body
/// breaks off or takes longer than any request may.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
) -> Result<Bytes, RequestError> {
    let (limit, max) = ("value_bytes_max", limits.value_bytes_max);
    let body_bytes_max = Form::of_body(headers).body_bytes_max(limits);
    read_within(headers, body, limits, Bound { limit, max, body_bytes_max }).await
}

/// Reads the body of a transaction, as large as a message of gRPC may be.
///
/// # Errors
/// As [`read`], naming `batch_bytes_max`.
pub(crate) async fn read_transaction(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
) -> Result<Bytes, RequestError> {
    let max = batch::request_bytes_max(limits);
    let bound = Bound { limit: "batch_bytes_max", max, body_bytes_max: max };
    read_within(headers, body, limits, bound).await
}

async fn read_within(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    bound: Bound,
) -> Result<Bytes, RequestError> {
    let time = limits.request_timeout_max;
    let late = |_| {
        let limit = format!("request_timeout_max is {} ms", time.as_millis());
        invalid("body", format!("did not arrive in time; {limit}"))
    };
    tokio::time::timeout(time, gather(headers, body, bound)).await.map_err(late)?
}

async fn gather(headers: &HeaderMap, body: Body, bound: Bound) -> Result<Bytes, RequestError> {
    let max = bound.body_bytes_max;
    let told = told_len(headers);
    if told > max && headers.contains_key(header::EXPECT) {
        return Err(bound.exceeded(told));
    }
    let mut whole = BytesMut::with_capacity(told.min(RESERVE_BYTES_MAX));
    let mut received = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| invalid("body", format!("broke off: {error}")))?;
        received += chunk.len();
        if received.max(told) <= max {
            whole.extend_from_slice(&chunk);
        } else if received > max.saturating_add(DISCARD_BYTES_MAX) {
            break;
        }
    }
    let got = received.max(told);
    if got > max { Err(bound.exceeded(got)) } else { Ok(whole.freeze()) }
}

fn told_len(headers: &HeaderMap) -> usize {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    told.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The body of a PUT in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBody {
    value: String,
}

/// The text of a PUT in JSON.
///
/// # Errors
/// [`RequestError::Invalid`] that shows the expected form.
pub(crate) fn text(body: &[u8]) -> Result<String, RequestError> {
    let parsed: Result<PutBody, _> = serde_json::from_slice(body);
    parsed.map(|body| body.value).map_err(|error| {
        let right = r#"send {"value":"text"}, or raw bytes with Content-Type: "#;
        invalid("body", format!("{error}; {right}{OCTET_STREAM}"))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn too_large(limits: &Limits, got: usize) -> RequestError {
        RequestError::TooLarge { limit: "value_bytes_max", max: limits.value_bytes_max, got }
    }

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a header"))])
    }

    #[test]
    fn only_octet_stream_is_raw() {
        let form = |value| Form::of_body(&headers(header::CONTENT_TYPE, value));
        assert_eq!(form("application/octet-stream"), Form::Raw);
        assert_eq!(form("Application/Octet-Stream; charset=binary"), Form::Raw);
        for other in ["application/json", "application/x-www-form-urlencoded", "text/plain", ""] {
            assert_eq!(form(other), Form::Json, "{other}");
        }
        assert_eq!(Form::of_body(&HeaderMap::new()), Form::Json);
    }

    #[test]
    fn raw_answers_are_for_those_who_ask() {
        let form = |value| Form::accepted(&headers(header::ACCEPT, value));
        assert_eq!(form("application/octet-stream"), Form::Raw);
        assert_eq!(form("text/html, application/octet-stream;q=0.9"), Form::Raw);
        assert_eq!(form("application/octet-stream, application/json"), Form::Json);
        assert_eq!(form("*/*"), Form::Json);
        assert_eq!(Form::accepted(&HeaderMap::new()), Form::Json);
    }

    #[test]
    fn text_comes_from_json_and_nothing_else() {
        assert_eq!(text(br#" {"value":"b\u00e4r"} "#).as_deref(), Ok("bär"));
        assert_eq!(text(br#"{"value":""}"#).as_deref(), Ok(""));
        let bad = ["", "bar", "{}", r#"{"value":1}"#, r#"{"value":null}"#, r#"{"valeu":"x"}"#];
        for body in bad.into_iter().chain([r#"{"value":"x","w":3}"#, r#"{"value":"x"} y"#]) {
            let error = text(body.as_bytes()).expect_err(body).to_string();
            assert!(error.starts_with("body: "), "{body}: {error}");
            assert!(error.contains(r#"send {"value":"text"}"#), "{body}: {error}");
            assert!(error.contains(OCTET_STREAM), "{body}: {error}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let limits = Limits { value_bytes_max: 10, ..Limits::default() };
        let raw = headers(header::CONTENT_TYPE, OCTET_STREAM);
        let ten = read(&raw, Body::from("0123456789"), &limits).await;
        assert_eq!(ten, Ok(Bytes::from_static(b"0123456789")));
        let eleven = read(&raw, Body::from("0123456789x"), &limits).await;
        assert_eq!(eleven, Err(too_large(&limits, 11)));
        let json = r#"{"value":"\u0030\u0030\u0030\u0030\u0030\u0030\u0030\u0030\u0030\u0030"}"#;
        let escaped = read(&HeaderMap::new(), Body::from(json), &limits).await;
        assert_eq!(escaped.ok().and_then(|body| text(&body).ok()).as_deref(), Some("0000000000"));
    }

    #[tokio::test]
    async fn a_transaction_is_read_up_to_a_limit_of_its_own() {
        let limits = Limits { value_bytes_max: 10, ..Limits::default() };
        let max = batch::request_bytes_max(&limits);
        let whole = Bytes::from(vec![b'x'; max]);
        let read = read_transaction(&HeaderMap::new(), Body::from(whole.clone()), &limits).await;
        assert_eq!(read.map(|body| body.len()), Ok(max));
        let more = Body::from([&whole[..], b"x"].concat());
        let refused = read_transaction(&HeaderMap::new(), more, &limits).await;
        let limit = "batch_bytes_max";
        assert_eq!(refused, Err(RequestError::TooLarge { limit, max, got: max + 1 }));
    }

    #[tokio::test]
    async fn a_client_that_waits_to_be_asked_is_refused_before_it_sends() {
        let limits = Limits { value_bytes_max: 10, ..Limits::default() };
        let mut told = headers(header::CONTENT_TYPE, OCTET_STREAM);
        told.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5000000000"));
        told.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let refused = read(&told, Body::from_stream(silent), &limits).await;
        assert_eq!(refused, Err(too_large(&limits, 5_000_000_000)));
    }

    #[tokio::test]
    async fn an_endless_body_is_refused_after_a_bounded_part_of_it() {
        let limits = Limits { value_bytes_max: 10, ..Limits::default() };
        let raw = headers(header::CONTENT_TYPE, OCTET_STREAM);
        let chunk = Bytes::from(vec![0; 1 << 20]);
        let endless =
            futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
        let refused = read(&raw, Body::from_stream(endless), &limits).await;
        assert_eq!(refused, Err(too_large(&limits, DISCARD_BYTES_MAX + (1 << 20))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_awaited_for_ever() {
        let limits = Limits::default();
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let refused = read(&HeaderMap::new(), Body::from_stream(silent), &limits).await;
        let error = refused.expect_err("too late").to_string();
        assert!(error.contains("request_timeout_max is 60000 ms"), "{error}");
    }
}
