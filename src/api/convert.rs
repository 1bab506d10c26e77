//! Protobuf requests to the node's options, and its answers back: pure functions.
//!
//! A field that cannot be served is [`RequestError::Invalid`] and names the field, what was sent
//! and what would be right. Sizes are judged by the node, which knows the limits of its cluster.

pub(crate) mod strong;

use std::time::Duration;

use bytes::Bytes;
use tonic::metadata::MetadataMap;

use crate::api::batch;
use crate::config::Limits;
use crate::node::request::{Receipt, RequestError, RequestOptions, SetUpdate};
use crate::proto::v1;
use crate::protocol::quorum::level::Level;
use crate::protocol::version::dvv::Context;
use crate::types::{Key, NodeId, Version, VersionParseError};

/// The request header in which gRPC clients tell their deadline.
const TIMEOUT_HEADER: &str = "grpc-timeout";
/// Digits of a `grpc-timeout` at most (gRPC over HTTP/2, "Timeout").
const TIMEOUT_DIGITS_MAX: usize = 8;

/// A request's key, without copying it.
///
/// # Errors
/// [`RequestError::Invalid`] when it is empty.
pub(crate) fn key(text: String) -> Result<Key, RequestError> {
    if text.is_empty() {
        return Err(invalid("key", "is empty; a key has at least one byte"));
    }
    Ok(Key::from(text))
}

/// The value of a Put, of an Append or of a batch's item: any `data` that carries text or bytes.
///
/// # Errors
/// [`RequestError::Invalid`] when there is none.
pub(crate) fn value(data: Option<impl Into<Bytes>>) -> Result<Bytes, RequestError> {
    let missing = || invalid("data", "is absent; set value (text) or value_bytes (base64 in JSON)");
    data.map(Into::into).ok_or_else(missing)
}

impl From<v1::put_request::Data> for Bytes {
    fn from(data: v1::put_request::Data) -> Self {
        match data {
            v1::put_request::Data::Value(text) => Bytes::from(text),
            v1::put_request::Data::ValueBytes(bytes) => bytes,
        }
    }
}

impl From<v1::append_request::Data> for Bytes {
    fn from(data: v1::append_request::Data) -> Self {
        match data {
            v1::append_request::Data::Value(text) => Bytes::from(text),
            v1::append_request::Data::ValueBytes(bytes) => bytes,
        }
    }
}

impl From<v1::compare_and_set_request::Data> for Bytes {
    fn from(data: v1::compare_and_set_request::Data) -> Self {
        match data {
            v1::compare_and_set_request::Data::Value(text) => Bytes::from(text),
            v1::compare_and_set_request::Data::ValueBytes(bytes) => bytes,
        }
    }
}

impl From<v1::batch_put_item::Data> for Bytes {
    fn from(data: v1::batch_put_item::Data) -> Self {
        match data {
            v1::batch_put_item::Data::Value(text) => Bytes::from(text),
            v1::batch_put_item::Data::ValueBytes(bytes) => bytes,
        }
    }
}

/// What is added to a counter: one, unless it is said.
pub(crate) fn added(by: Option<i64>) -> i64 {
    by.unwrap_or(1)
}

/// What is to be done to a set.
///
/// # Errors
/// [`RequestError::Invalid`] when it is nothing, or more elements than a request may have.
pub(crate) fn elements(
    add: Vec<String>,
    remove: Vec<String>,
    limits: &Limits,
) -> Result<SetUpdate, RequestError> {
    batch::admit("add", add.len(), limits)?;
    batch::admit("remove", remove.len(), limits)?;
    if add.is_empty() && remove.is_empty() {
        return Err(invalid("add", "is empty, and so is remove; name an element at least"));
    }
    let [add, remove] = [add, remove].map(|it| it.into_iter().map(Bytes::from).collect());
    Ok(SetUpdate { add, remove })
}

/// Options of a read. An explicit `r` wins over a level; an empty context is none.
///
/// # Errors
/// [`RequestError::Invalid`] for a level that does not exist or a context that is no version.
pub(crate) fn read_options(
    level: i32,
    r: u32,
    context: &str,
    timeout: Option<Duration>,
) -> Result<RequestOptions, RequestError> {
    let (level, quorum) = quorum(level, r)?;
    let options = RequestOptions { level, quorum, timeout, ..RequestOptions::default() };
    if context.is_empty() { Ok(options) } else { with_context(options, context) }
}

/// Options of a write. An explicit `w` wins over a level; an empty context is none.
///
/// # Errors
/// [`RequestError::Invalid`] for a level that does not exist or a context that is no version.
pub(crate) fn write_options(
    level: i32,
    w: u32,
    sloppy: Option<bool>,
    context: &str,
    timeout: Option<Duration>,
) -> Result<RequestOptions, RequestError> {
    let (level, quorum) = quorum(level, w)?;
    let options = RequestOptions { level, quorum, timeout, sloppy, ..RequestOptions::default() };
    if context.is_empty() { Ok(options) } else { with_context(options, context) }
}

/// The options of a put whose value lives for so long; the node judges how long it may.
pub(crate) fn with_ttl(options: RequestOptions, ttl_ms: Option<u64>) -> RequestOptions {
    RequestOptions { ttl: ttl_ms.map(Duration::from_millis), ..options }
}

/// Adds a context as clients give it back: the version of an earlier receipt or, in a keyspace that
/// keeps siblings, its context. Which of them is right is for the node to say.
///
/// # Errors
/// [`RequestError::Invalid`] when it is neither.
pub(crate) fn with_context(
    options: RequestOptions,
    text: &str,
) -> Result<RequestOptions, RequestError> {
    let error: VersionParseError = match text.parse() {
        Ok(version) => return Ok(RequestOptions { context: Some(version), ..options }),
        Err(error) => error,
    };
    if Context::is_text(text) {
        return Ok(RequestOptions { seen: Some(text.into()), ..options });
    }
    Err(invalid("context", format!("{error}; send a receipt's version, or its context")))
}

fn quorum(level: i32, number: u32) -> Result<(Option<Level>, Option<u32>), RequestError> {
    let level = match v1::Level::try_from(level) {
        Ok(v1::Level::Unspecified) => None,
        Ok(v1::Level::One) => Some(Level::One),
        Ok(v1::Level::Quorum) => Some(Level::Quorum),
        Ok(v1::Level::All) => Some(Level::All),
        Err(_) => {
            let right = "LEVEL_ONE (1), LEVEL_QUORUM (2) or LEVEL_ALL (3)";
            return Err(invalid("level", format!("{level} is not a level; use {right}")));
        }
    };
    Ok(if number > 0 { (None, Some(number)) } else { (level, None) })
}

/// How long the client waits, by its `grpc-timeout` header, but no longer than the node allows: a
/// client that would wait longer is simply answered sooner.
///
/// # Errors
/// [`RequestError::Invalid`] when the header is malformed or zero.
pub(crate) fn timeout(
    metadata: &MetadataMap,
    limits: &Limits,
) -> Result<Option<Duration>, RequestError> {
    let Some(header) = metadata.get(TIMEOUT_HEADER) else { return Ok(None) };
    let asked = header.to_str().ok().and_then(parse_timeout).filter(|asked| !asked.is_zero());
    let asked = asked.ok_or_else(|| {
        let right = "use 1 to 8 digits, not all zero, and one of H, M, S, m, u, n, such as 500m";
        invalid(TIMEOUT_HEADER, format!("{header:?} is not a timeout; {right}"))
    })?;
    Ok(Some(asked.min(limits.request_timeout_max)))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// A value as text when it is UTF-8, else the bytes untouched.
pub(crate) fn text_or_bytes(value: Bytes) -> Result<String, Bytes> {
    match std::str::from_utf8(&value) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(value),
    }
}

/// A read value, for a Get.
pub(crate) fn get_data(value: Bytes) -> v1::get_response::Data {
    match text_or_bytes(value) {
        Ok(text) => v1::get_response::Data::Value(text),
        Err(bytes) => v1::get_response::Data::ValueBytes(bytes),
    }
}

/// One of several values.
pub(crate) fn sibling(value: Bytes) -> v1::Sibling {
    let data = match text_or_bytes(value) {
        Ok(text) => v1::sibling::Data::Value(text),
        Err(bytes) => v1::sibling::Data::ValueBytes(bytes),
    };
    v1::Sibling { data: Some(data) }
}

/// A read value, for a batch's item.
pub(crate) fn batch_data(value: Bytes) -> v1::batch_get_result::Data {
    match text_or_bytes(value) {
        Ok(text) => v1::batch_get_result::Data::Value(text),
        Err(bytes) => v1::batch_get_result::Data::ValueBytes(bytes),
    }
}

/// A receipt on the wire.
pub(crate) fn receipt(receipt: &Receipt) -> v1::Receipt {
    v1::Receipt {
        version: receipt.version.map(|version| version.to_string()).unwrap_or_default(),
        required: receipt.required,
        replicas: receipt.replicas,
        acknowledged: ids(&receipt.acknowledged),
        hinted: ids(&receipt.hinted),
        fallbacks: ids(&receipt.fallbacks),
        repaired: ids(&receipt.repaired),
        under_replicated: receipt.under_replicated,
        consistency: receipt.consistency.unwrap_or_default().to_owned(),
        leader: receipt.leader.map(|leader| leader.to_string()).unwrap_or_default(),
        expires_at_ms: receipt.expires_at.map(|end| end.0),
        unseen: receipt.unseen.iter().map(Version::to_string).collect(),
        siblings: receipt.siblings,
        context: receipt.context.clone(),
    }
}

/// Node ids on the wire.
pub(crate) fn ids(nodes: &[NodeId]) -> Vec<String> {
    nodes.iter().map(NodeId::to_string).collect()
}

/// A field that cannot be served.
pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> RequestError {
    RequestError::Invalid { field, problem: problem.into() }
}

#[cfg(test)]
mod tests;
