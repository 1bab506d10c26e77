//! POST to a key of a keyspace of counters or of sets.

use axum::body::Body;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Deserialize;

use crate::api::convert::{self, invalid};
use crate::api::http::body;
use crate::api::http::kv::{Asked, refused};
use crate::api::http::query::{self, Operation};
use crate::api::http::reply::{self, HttpError};
use crate::node::request::{RequestError, SetUpdate};
use crate::node::service::Node;

/// The body of a change of a set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateBody {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

/// Adds to a counter.
///
/// # Errors
/// What the request gets wrong, or what the node refuses.
pub(super) async fn increment(
    node: &Node,
    parts: &Parts,
    body: Body,
) -> Result<Response, HttpError> {
    let Asked { name, key, options } = Asked::of(Operation::Increment, node, parts)?;
    if !body::read(&parts.headers, body, node.limits()).await?.is_empty() {
        return Err(invalid("body", "is not empty; an increment says by=5 in its query").into());
    }
    let by = convert::added(query::by(&parts.uri)?);
    let done = node.increment(key.clone(), by, options).await;
    let done = done.map_err(|error| refused(node, &key, error))?;
    Ok(reply::incremented(&name, &done))
}

/// Changes a set.
///
/// # Errors
/// What the request gets wrong, or what the node refuses.
pub(super) async fn update_set(
    node: &Node,
    parts: &Parts,
    body: Body,
) -> Result<Response, HttpError> {
    let Asked { name, key, options } = Asked::of(Operation::UpdateSet, node, parts)?;
    let body = body::read_transaction(&parts.headers, body, node.limits()).await?;
    let UpdateBody { add, remove } = parsed(&body)?;
    let update: SetUpdate = convert::elements(add, remove, node.limits())?;
    let done = node.update_set(key.clone(), update, options).await;
    let done = done.map_err(|error| refused(node, &key, error))?;
    Ok(reply::set_updated(&name, &done))
}

fn parsed(body: &[u8]) -> Result<UpdateBody, RequestError> {
    serde_json::from_slice(body).map_err(|error| {
        let right = r#"send {"add":["a"],"remove":["b"]}, or one of the two"#;
        invalid("body", format!("{error}; {right}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_adds_or_removes_or_both() {
        let lengths = |body: &str| {
            let UpdateBody { add, remove } = parsed(body.as_bytes()).expect(body);
            (add.len(), remove.len())
        };
        assert_eq!(lengths(r#"{"add":["a","b"],"remove":["c"]}"#), (2, 1));
        assert_eq!(lengths(r#"{"remove":["c"]}"#), (0, 1));
        for body in ["", "5", r#"{"ad":["a"]}"#, r#"{"add":"a"}"#, r#"{"add":[1]}"#] {
            let error = parsed(body.as_bytes()).expect_err(body).to_string();
            assert!(error.starts_with("body: "), "{body}: {error}");
            assert!(error.ends_with("or one of the two"), "{body}: {error}");
        }
    }
}
