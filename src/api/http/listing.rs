//! `GET /v1/{keyspace}`: one page of its keys.

use std::sync::Arc;

use axum::Json;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::http::query::{self, Operation};
use crate::api::http::reply::{HttpError, ValueBody};
use crate::api::http::{condition, path};
use crate::node::listing::{ListedRow, Listing};
use crate::node::request::RequestOptions;
use crate::node::service::Node;

/// Lists one page.
pub(crate) async fn list(node: &Node, parts: &Parts) -> Result<Response, HttpError> {
    let keyspace = Some(Arc::from(path::keyspace(parts.uri.path())?));
    let options = query::options(Operation::List, &parts.uri, node.limits())?;
    let options = condition::of_read(&parts.headers, options)?;
    condition::without_context(&parts.headers)?;
    let options = RequestOptions { keyspace, ..options };
    let listing = node.list(query::listing(&parts.uri)?, options).await?;
    Ok(Json(body(listing)).into_response())
}

#[derive(Serialize)]
struct PageBody {
    rows: Vec<RowBody>,
    /// Null when all is listed.
    cursor: Option<String>,
}

#[derive(Serialize)]
struct RowBody {
    key: String,
    /// In a form for bytes, too: one value must not keep the others from being listed.
    #[serde(flatten)]
    value: Option<ValueBody>,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    siblings: Option<u32>,
}

fn body(listing: Listing) -> PageBody {
    PageBody { rows: listing.rows.into_iter().map(row).collect(), cursor: listing.cursor }
}

fn row(row: ListedRow) -> RowBody {
    RowBody {
        key: row.key.to_string(),
        value: row.value.map(ValueBody::from),
        version: row.version.to_string(),
        expires_at_ms: row.expires_at.map(|end| end.0),
        siblings: row.siblings,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::types::{Expiry, Incarnation, Key, Timestamp, Version};

    #[test]
    fn a_page_has_text_as_value_and_other_bytes_in_hexadecimal() {
        let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(2) };
        let listed = |key, value: Option<&'static [u8]>, expires_at| ListedRow {
            key: Key::from(key),
            value: value.map(Bytes::from_static),
            version,
            expires_at,
            siblings: if key == "d" { Some(2) } else { None },
        };
        let rows = vec![
            listed("a", Some(b"v"), None),
            listed("b", Some(b"\xff\x01"), Some(Expiry(9))),
            listed("c", None, None),
            listed("d", Some(b"v"), None),
        ];
        let told = serde_json::to_value(body(Listing { rows, cursor: None })).expect("JSON");
        let version = version.to_string();
        let expected = json!({ "cursor": null, "rows": [
            { "key": "a", "value": "v", "version": version },
            { "key": "b", "value_hex": "ff01", "version": version, "expires_at_ms": 9 },
            { "key": "c", "version": version },
            { "key": "d", "value": "v", "version": version, "siblings": 2 },
        ]});
        assert_eq!(told, expected);
    }
}
