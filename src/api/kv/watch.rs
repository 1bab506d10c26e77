//! Watches: a stream of what changes.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::KvService;
use crate::api::convert;
use crate::api::convert::strong as convert_strong;
use crate::node::request::RequestOptions;
use crate::node::watch::{Changes, LostPosition, News, Watch, WatchMessage, WatchRequest};
use crate::proto::v1;
use crate::proto::v1::watch_event::Data;
use crate::proto::v1::watch_response::News as WireNews;
use crate::protocol::watch::{Selection, WatchEvent};
use crate::types::{Revision, Version};

/// The messages of a watch. Each is made when it is taken.
pub(crate) type Messages = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

impl KvService {
    pub(super) async fn serve_watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Messages>, Status> {
        let timeout = self.timeout(&request)?;
        let v1::WatchRequest { keyspace, selection, from } = request.into_inner();
        let keyspace = convert_strong::keyspace(keyspace);
        // The client's deadline is for the beginning; the stream goes on.
        let options = RequestOptions { keyspace, timeout, ..RequestOptions::default() };
        let selection = match selection {
            Some(v1::watch_request::Selection::Key(key)) => Selection::Key(convert::key(key)?),
            Some(v1::watch_request::Selection::Prefix(prefix)) => {
                Selection::Prefix(Bytes::from(prefix))
            }
            None => Selection::Prefix(Bytes::new()),
        };
        let from = (!from.is_empty()).then_some(from);
        let watch = self.node.watch(WatchRequest { selection, from }, options).await?;
        Ok(Response::new(Box::pin(messages(watch))))
    }
}

fn messages(watch: Watch) -> impl Stream<Item = Result<v1::WatchResponse, Status>> + Send {
    let news = Some(WireNews::Created(v1::WatchCreated {}));
    let created = v1::WatchResponse { news, token: watch.token() };
    let following = stream::unfold(watch, |mut watch| async move {
        let message = watch.next().await?;
        Some((response(message), watch))
    });
    stream::once(async { Ok(created) }).chain(following)
}

fn response(message: WatchMessage) -> Result<v1::WatchResponse, Status> {
    let WatchMessage { news, token } = message;
    let news = match news {
        News::Changes(changes) => {
            let events = changes.into_iter().flat_map(events).collect();
            WireNews::Changes(v1::WatchChanges { events })
        }
        News::Progress => WireNews::Progress(v1::WatchProgress {}),
        News::Lost(LostPosition { partition, position, oldest }) => {
            let partition = u32::from(partition.0);
            WireNews::Lost(v1::WatchLost { partition, position: position.0, oldest: oldest.0 })
        }
        News::Ended(error) => return Err(error.into()),
    };
    Ok(v1::WatchResponse { news: Some(news), token })
}

fn events(changes: Changes) -> impl Iterator<Item = v1::WatchEvent> {
    let revision = changes.entry.revision;
    changes.entry.events.into_iter().map(move |told| event(told, revision))
}

fn event(event: WatchEvent, revision: Revision) -> v1::WatchEvent {
    let data = event.value.map(|value| match convert::text_or_bytes(value) {
        Ok(text) => Data::Value(text),
        Err(bytes) => Data::ValueBytes(bytes),
    });
    let version = Version::from(revision).to_string();
    v1::WatchEvent { key: event.key.to_string(), data, version }
}
