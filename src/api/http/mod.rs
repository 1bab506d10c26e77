//! The HTTP interface: keys under `/kv/` and `/v1/{keyspace}/`, and what operators look at.
//!
//! Every error has the body `{"error","code"}`, with `outcome` where replicas were concerned; a
//! request is refused rather than half understood (unknown parameters, malformed escapes).

mod body;
mod condition;
mod kv;
mod listing;
mod mergeable;
mod operator;
mod path;
mod query;
mod reply;
mod transaction;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use tonic::Status;

use crate::api::http::reply::HttpError;
use crate::node::service::Node;

/// What `/` answers: where to go from there.
const INDEX: &str = "\
Coterie, a leaderless, replicated key-value store.

PUT, GET, HEAD, DELETE  /kv/{key}   a key: all that follows /kv/, percent-decoded once
    PUT takes {\"value\":\"text\"}, or raw bytes with Content-Type: application/octet-stream
    GET answers JSON, or raw bytes with Accept: application/octet-stream
    parameters: level=one|quorum|all, r (reads), w, sloppy (writes), context, timeout=500ms
    X-Coterie-Context: what an earlier answer for the same key had in this header. A read with it
        sees that version or a newer one, or fails; a write is stamped above it
PUT, GET, HEAD, DELETE  /v1/{keyspace}/{key}   the same in any keyspace
GET  /v1/{keyspace}   {\"rows\":[...],\"cursor\":...}: a page of its keys, by partition and key
    parameters: prefix, limit (1 to 1000), cursor (of the page before), keys_only, and a GET's
Keyspaces that merge their keys as counter, or as set, take instead of PUT:
    POST /v1/{keyspace}/{key}?op=increment&by=5   adds to a counter; 1 without by
    POST /v1/{keyspace}/{key}?op=update   {\"add\":[\"a\"],\"remove\":[\"b\"]}: elements of a set
Keyspaces of mode strong take besides:
    POST /v1/{keyspace}/{key}?op=append   adds to the end of a value; its body is as a PUT's
    POST /v1/{keyspace}   {\"steps\":[{\"key\":\"k\",\"put\":\"v\"}, ...]}, together or not at all;
        a step has put, append, delete or check (absent, present, version or value)
    If-Match: \"version\", If-Match: * and If-None-Match: * on writes, else 412
    Coterie-Session: client/sequence/acknowledged: a repeated write is answered, not done again
    GET takes consistency=linearizable|lease|stale, and with stale max_staleness=500ms
    GET /v1/{keyspace}?watch=true, GET /v1/{keyspace}/{key}?watch=true   what changes, one JSON
        object on each line, until the client goes; parameters: prefix, from (a line's token)
GET  /status             this node, its members and its ring
GET  /ring, /ring?key=k  all partitions; where a key lies
GET  /transfers          partitions on their way to other owners
GET  /healthz            200 while the process lives
GET  /readyz             200 while the node serves, else 503 and the reason
GET  /metrics            for Prometheus

gRPC on the same port: coterie.v1.Kv, coterie.v1.Admin, with reflection and health.
";

/// All HTTP routes.
pub(crate) fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/kv", any(kv::serve))
        .route("/kv/", any(kv::serve))
        .route("/kv/{*key}", any(kv::serve))
        .route("/v1/{keyspace}", any(transaction::serve))
        .route("/v1/{keyspace}/", any(kv::serve))
        .route("/v1/{keyspace}/{*key}", any(kv::serve))
        .route("/", get(async || INDEX))
        .route("/healthz", get(operator::healthz))
        .route("/readyz", get(operator::readyz))
        .route("/status", get(operator::status))
        .route("/ring", get(operator::ring))
        .route("/transfers", get(operator::transfers))
        .route("/metrics", get(operator::metrics))
        .method_not_allowed_fallback(read_only)
        .fallback(unknown_path)
        .with_state(node)
}

async fn read_only(method: Method) -> Response {
    reply::method_not_allowed(&method, "GET, HEAD")
}

/// A path that nothing serves; for a gRPC client, a service that does not exist.
async fn unknown_path(request: Request) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let path = request.uri().path();
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
        let status = Status::unimplemented(format!("no service answers {path}"));
        return status.into_http::<Body>();
    }
    let message = format!("no such path: {path}; GET / lists the paths");
    HttpError::new(StatusCode::NOT_FOUND, "unknown_path", message).into_response()
}

#[cfg(test)]
mod tests;
