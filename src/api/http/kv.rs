//! `/kv/{key}` and `/v1/{keyspace}/{key}`: PUT, GET, HEAD and DELETE, and in a keyspace POST.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::api::convert;
use crate::api::http::body::{self, Form, OCTET_STREAM};
use crate::api::http::query::{self, Operation};
use crate::api::http::reply::{self, HttpError};
use crate::api::http::{condition, mergeable, path, watch};
use crate::api::leader;
use crate::node::request::{ReadAnswer, Receipt, RequestError, RequestOptions, Transaction};
use crate::node::service::Node;
use crate::protocol::group::command::Action;
use crate::protocol::system::keyspace::DEFAULT_NAME;
use crate::types::{Key, NodeId, Version};

const METHODS: &str = "GET, HEAD, PUT, DELETE";
const METHODS_IN_KEYSPACE: &str = "GET, HEAD, PUT, DELETE, POST";

/// Serves one request for a key.
pub(crate) async fn serve(State(node): State<Arc<Node>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let in_keyspace = path::names_keyspace(parts.uri.path());
    let served = match parts.method {
        Method::GET | Method::HEAD if query::is_watch(&parts.uri) => watch(&node, &parts).await,
        Method::GET | Method::HEAD => get(&node, &parts).await,
        Method::PUT => put(&node, &parts, body).await,
        Method::DELETE => delete(&node, &parts).await,
        Method::POST if in_keyspace => post(&node, &parts, body).await,
        _ if in_keyspace => return reply::method_not_allowed(&parts.method, METHODS_IN_KEYSPACE),
        _ => return reply::method_not_allowed(&parts.method, METHODS),
    };
    served.unwrap_or_else(IntoResponse::into_response)
}

/// The key that a request is about, and how it wants to be served.
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) key: Key,
    pub(super) options: RequestOptions,
}

impl Asked {
    pub(super) fn of(
        operation: Operation,
        node: &Node,
        parts: &Parts,
    ) -> Result<Asked, RequestError> {
        let place = path::place(parts.uri.path())?;
        let options = query::options(operation, &parts.uri, node.limits())?;
        let options = condition::with_context(&parts.headers, options)?;
        let options = match operation {
            Operation::Read | Operation::List => condition::of_read(&parts.headers, options)?,
            _ => condition::of_write(&parts.headers, options)?,
        };
        let keyspace = place.keyspace.map(Arc::from);
        let key = Key::from(place.key.as_str());
        Ok(Asked { name: place.key, key, options: RequestOptions { keyspace, ..options } })
    }
}

async fn get(node: &Node, parts: &Parts) -> Result<Response, HttpError> {
    let Asked { name, key, options } = Asked::of(Operation::Read, node, parts)?;
    let read = node.get(key.clone(), options).await;
    let answer = read.map_err(|error| refused(node, &key, error))?;
    let leader = answer.receipt.leader;
    Ok(led(node, leader, read_reply(&name, answer, &parts.headers)?))
}

async fn watch(node: &Node, parts: &Parts) -> Result<Response, HttpError> {
    let place = path::place(parts.uri.path())?;
    let keyspace = place.keyspace.unwrap_or_else(|| DEFAULT_NAME.to_owned());
    watch::watch(node, parts, keyspace, Some(Key::from(place.key))).await
}

async fn put(node: &Node, parts: &Parts, body: Body) -> Result<Response, HttpError> {
    let Asked { name, key, options } = Asked::of(Operation::Put, node, parts)?;
    let (value, text) = sent_value(node, parts, body).await?;
    let written = node.put(key.clone(), value, options).await;
    let receipt = written.map_err(|error| refused(node, &key, error))?;
    Ok(led(node, receipt.leader, reply::answer(&name, text.as_deref(), &receipt)))
}

async fn delete(node: &Node, parts: &Parts) -> Result<Response, HttpError> {
    let Asked { name, key, options } = Asked::of(Operation::Write, node, parts)?;
    let deleted = node.delete(key.clone(), options).await;
    let receipt = deleted.map_err(|error| refused(node, &key, error))?;
    Ok(led(node, receipt.leader, reply::answer(&name, None, &receipt)))
}

async fn post(node: &Node, parts: &Parts, body: Body) -> Result<Response, HttpError> {
    match query::posted(&parts.uri)? {
        Operation::Increment => mergeable::increment(node, parts, body).await,
        Operation::UpdateSet => mergeable::update_set(node, parts, body).await,
        _ => append(node, parts, body).await,
    }
}

async fn append(node: &Node, parts: &Parts, body: Body) -> Result<Response, HttpError> {
    let Asked { name, key, options } = Asked::of(Operation::Append, node, parts)?;
    let (suffix, _) = sent_value(node, parts, body).await?;
    let steps = vec![(key.clone(), Action::Append(suffix))];
    let done = node.transact(Transaction { steps }, options).await;
    let done = done.map_err(|error| refused(node, &key, error))?;
    Ok(led(node, done.receipt.leader, reply::appended(&name, &done)))
}

/// The value in a request's body, also as text where it came as such.
async fn sent_value(
    node: &Node,
    parts: &Parts,
    body: Body,
) -> Result<(Bytes, Option<String>), RequestError> {
    let body = body::read(&parts.headers, body, node.limits()).await?;
    match Form::of_body(&parts.headers) {
        Form::Raw => Ok((body, None)),
        Form::Json => {
            let text = body::text(&body)?;
            Ok((Bytes::from(text.clone()), Some(text)))
        }
    }
}

/// A reply that names the leader of what was asked, if it has one.
pub(crate) fn led(node: &Node, leader: Option<NodeId>, response: Response) -> Response {
    reply::with_leader(response, leader::address(node, leader))
}

/// An error that names the leader that the request should have gone to.
pub(crate) fn refused(node: &Node, key: &Key, error: RequestError) -> HttpError {
    let address = leader::after(node, key, &error);
    HttpError::from(error).with_leader(address)
}

/// The reply to a read, in the form that the client accepts.
fn read_reply(key: &str, answer: ReadAnswer, headers: &HeaderMap) -> Result<Response, HttpError> {
    let ReadAnswer { value, siblings, elements, receipt } = answer;
    let Some(value) = value else { return Ok(reply::not_found(key, &receipt)) };
    if receipt.version.is_some_and(|version| is_known(version, headers)) {
        return Ok((StatusCode::NOT_MODIFIED, reply::receipt_headers(&receipt)).into_response());
    }
    if !siblings.is_empty() {
        return Ok(reply::several(key, siblings, &receipt));
    }
    match Form::accepted(headers) {
        Form::Raw => Ok(raw_reply(value, &receipt)),
        Form::Json if !elements.is_empty() => Ok(reply::set(key, elements, &receipt)),
        Form::Json => {
            let text = convert::text_or_bytes(value).map_err(|_| not_text())?;
            Ok(reply::answer(key, Some(&text), &receipt))
        }
    }
}

fn raw_reply(value: Bytes, receipt: &Receipt) -> Response {
    let content_type = [(header::CONTENT_TYPE, OCTET_STREAM)];
    (reply::receipt_headers(receipt), content_type, value).into_response()
}

fn not_text() -> HttpError {
    let message = format!("the value is not UTF-8 text; ask for it with Accept: {OCTET_STREAM}");
    HttpError::new(StatusCode::NOT_ACCEPTABLE, "not_text", message)
}

/// Whether the client has this version already, by `If-None-Match`.
fn is_known(version: Version, headers: &HeaderMap) -> bool {
    let tag = reply::etag(version);
    let values = headers.get_all(header::IF_NONE_MATCH).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

#[cfg(test)]
mod tests;
