//! A watch of a strong keyspace, which goes on by itself when a node or a connection is lost.

use std::time::Duration;

use bytes::Bytes;
use tonic::Streaming;

use crate::client::error::ClientError;
use crate::client::keyspace::{Keyspace, awaitable};
use crate::proto::v1;
use crate::proto::v1::watch_request::Selection;
use crate::proto::v1::watch_response::News;

/// A node says something every ten seconds at least; one that is silent for longer than this is
/// given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long is waited before a stream that broke is begun anew.
const REST: Duration = Duration::from_millis(100);

/// A watch that is to begin; see [`Keyspace::watch`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Watch {
    keyspace: Keyspace,
    request: v1::WatchRequest,
    timeout: Option<Duration>,
}

/// A watch that stands: it tells what changes, each change once.
#[derive(Debug)]
pub struct Watching {
    watch: Watch,
    /// `None` once it broke.
    stream: Option<Streaming<v1::WatchResponse>>,
}

/// What changed, and how far the watch has come by that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The changes; none when the watch has only come further. What one transaction changed is
    /// together, under one version. Changes of one key are in their order.
    pub events: Vec<Event>,
    /// What a later watch is begun with to go on behind this.
    pub token: String,
}

/// A key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: String,
    /// Its value now; `None` when it was deleted.
    pub value: Option<Bytes>,
    /// The version that the change made.
    pub version: String,
}

impl Watch {
    pub(crate) fn new(keyspace: Keyspace) -> Watch {
        let name = keyspace.name().to_owned();
        let request = v1::WatchRequest { keyspace: name, ..v1::WatchRequest::default() };
        Watch { keyspace, request, timeout: None }
    }

    /// One key alone, instead of all.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.request.selection = Some(Selection::Key(key.into()));
        self
    }

    /// Only keys that begin with this, instead of all.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.request.selection = Some(Selection::Prefix(prefix.into()));
        self
    }

    /// Goes on behind what an earlier watch of the same keys has told, by its token, instead of
    /// beginning now.
    pub fn from(mut self, token: impl Into<Option<String>>) -> Self {
        self.request.from = token.into().unwrap_or_default();
        self
    }

    /// How long it may take until the watch stands, here and whenever it is begun anew.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Begins the watch: every write that begins after this has returned is among what it tells.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(self) -> Result<Watching, ClientError> {
        let mut watching = Watching { watch: self, stream: None };
        watching.begin().await?;
        // The first message says where the watch begins.
        watching.next().await?;
        Ok(watching)
    }
}

impl Watching {
    /// What a later watch is begun with to go on behind what this one has told.
    pub fn token(&self) -> &str {
        &self.watch.request.from
    }

    /// Waits for what changes next. A connection that breaks is made anew, to any node that the
    /// client knows.
    ///
    /// # Errors
    /// [`ClientError::WatchLost`] when nobody has what changed behind the token any more: list, and
    /// watch anew. Any other when no node serves the watch in time; calling again tries again.
    pub async fn next(&mut self) -> Result<Changes, ClientError> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.begin().await?;
                continue;
            };
            match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
                Ok(Ok(Some(response))) => return self.take(response),
                // What is wrong, if it lasts, is told by the call that begins it anew.
                Ok(Ok(None) | Err(_)) | Err(_) => {
                    self.stream = None;
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    async fn begin(&mut self) -> Result<(), ClientError> {
        let Watch { keyspace, request, timeout } = self.watch.clone();
        self.stream = Some(keyspace.begin_watch(request, timeout).await?);
        Ok(())
    }

    fn take(&mut self, response: v1::WatchResponse) -> Result<Changes, ClientError> {
        let v1::WatchResponse { news, token } = response;
        let events = match news {
            Some(News::Lost(lost)) => {
                self.stream = None;
                return Err(lost_error(&lost));
            }
            Some(News::Changes(changes)) => changes.events.into_iter().map(event).collect(),
            Some(News::Created(_) | News::Progress(_)) | None => Vec::new(),
        };
        self.watch.request.from.clone_from(&token);
        Ok(Changes { events, token })
    }
}

fn lost_error(lost: &v1::WatchLost) -> ClientError {
    let v1::WatchLost { partition, position, oldest } = *lost;
    let message = format!(
        "the watch is lost: what changed in partition {partition} between {position} and {oldest} \
         is not kept any more; list the keys, and watch anew without a token"
    );
    ClientError::WatchLost { partition, position, oldest, message }
}

fn event(event: v1::WatchEvent) -> Event {
    let value = event.data.map(|data| match data {
        v1::watch_event::Data::Value(text) => Bytes::from(text),
        v1::watch_event::Data::ValueBytes(bytes) => bytes,
    });
    Event { key: event.key, value, version: event.version }
}

awaitable! {
    Watch => Watching;
}
