//! `GET /v1/{keyspace}?watch=true` and `GET /v1/{keyspace}/{key}?watch=true`: what changes, one
//! JSON object on each line, for as long as the client reads.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;

use crate::api::http::query;
use crate::api::http::reply::HttpError;
use crate::api::http::reply::ValueBody;
use crate::node::request::{RequestError, RequestOptions};
use crate::node::service::Node;
use crate::node::watch::{Changes, LostPosition, News, Watch, WatchMessage, WatchRequest};
use crate::protocol::watch::{Selection, WatchEvent};
use crate::types::{Key, Revision, Version};

/// One JSON object on each line.
const LINES: &str = "application/x-ndjson";

/// Watches one key, or without one the keys that begin with what the query says.
pub(crate) async fn watch(
    node: &Node,
    parts: &Parts,
    keyspace: String,
    key: Option<Key>,
) -> Result<Response, HttpError> {
    let asked = query::watch(&parts.uri, key.is_some())?;
    let options = RequestOptions { keyspace: Some(Arc::from(keyspace)), ..Default::default() };
    let selection = key.map_or(Selection::Prefix(asked.prefix), Selection::Key);
    if parts.method == Method::HEAD {
        let problem = "goes with GET: a HEAD has no lines".to_owned();
        return Err(RequestError::Invalid { field: "watch", problem }.into());
    }
    let watch = node.watch(WatchRequest { selection, from: asked.from }, options).await?;
    let headers = [(header::CONTENT_TYPE, LINES), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines(watch))).into_response())
}

fn lines(watch: Watch) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let created = line(&Line::Created { token: watch.token() });
    let following = stream::unfold(watch, |mut watch| async move {
        let message = watch.next().await?;
        Some((line(&Line::of(message)), watch))
    });
    stream::once(async { created }).chain(following).map(Ok)
}

fn line(line: &Line) -> Bytes {
    let mut text = serde_json::to_vec(line).expect("invariant: a line has only text for map keys");
    text.push(b'\n');
    text.into()
}

/// One line.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Created { token: String },
    Changes { events: Vec<EventBody>, token: String },
    Progress { token: String },
    Lost { partition: u16, position: u64, oldest: u64, token: String, error: String },
    Ended { error: String, code: &'static str, token: String },
}

#[derive(Serialize)]
struct EventBody {
    event: &'static str,
    key: String,
    #[serde(flatten)]
    value: Option<ValueBody>,
    version: String,
}

impl Line {
    fn of(message: WatchMessage) -> Line {
        let WatchMessage { news, token } = message;
        match news {
            News::Changes(changes) => {
                Line::Changes { events: changes.into_iter().flat_map(events).collect(), token }
            }
            News::Progress => Line::Progress { token },
            News::Lost(LostPosition { partition, position, oldest }) => {
                let (partition, position, oldest) = (partition.0, position.0, oldest.0);
                let error = format!(
                    "what changed in partition {partition} between {position} and {oldest} is not \
                     kept any more; list the keys, and watch anew without a token"
                );
                Line::Lost { partition, position, oldest, token, error }
            }
            News::Ended(error) => {
                Line::Ended { error: error.to_string(), code: error.code(), token }
            }
        }
    }
}

fn events(changes: Changes) -> impl Iterator<Item = EventBody> {
    let revision = changes.entry.revision;
    changes.entry.events.into_iter().map(move |told| event(told, revision))
}

fn event(event: WatchEvent, revision: Revision) -> EventBody {
    let kind = if event.value.is_some() { "put" } else { "delete" };
    let value = event.value.map(ValueBody::from);
    let version = Version::from(revision).to_string();
    EventBody { event: kind, key: event.key.to_string(), value, version }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::watch::WatchEntry;
    use crate::types::{LogIndex, PartitionId};

    fn shown(news: News) -> Value {
        let text = line(&Line::of(WatchMessage { news, token: "t".to_owned() }));
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&text).expect("JSON")
    }

    #[test]
    fn every_message_is_a_line_that_names_its_type() {
        let told = |key: &str, value: Option<&'static [u8]>| WatchEvent {
            key: Key::from(key),
            value: value.map(Bytes::from_static),
        };
        let events = vec![told("a", Some(b"1\n2")), told("b", Some(b"\xff")), told("c", None)];
        let entry = WatchEntry { index: LogIndex(4), revision: Revision(7), events };
        let partition = PartitionId(3);
        let version = Version::from(Revision(7)).to_string();
        let expected = json!({ "type": "changes", "token": "t", "events": [
            { "event": "put", "key": "a", "value": "1\n2", "version": version },
            { "event": "put", "key": "b", "value_hex": "ff", "version": version },
            { "event": "delete", "key": "c", "version": version },
        ]});
        assert_eq!(shown(News::Changes(vec![Changes { partition, entry }])), expected);
        assert_eq!(shown(News::Progress), json!({ "type": "progress", "token": "t" }));
        let lost = LostPosition { partition, position: LogIndex(5), oldest: LogIndex(9) };
        let line = shown(News::Lost(lost));
        assert_eq!((&line["type"], &line["oldest"]), (&json!("lost"), &json!(9)));
        let error = RequestError::UnknownKeyspace { name: "k".to_owned() };
        let line = shown(News::Ended(error));
        assert_eq!((&line["type"], &line["code"]), (&json!("ended"), &json!("unknown_keyspace")));
    }
}
