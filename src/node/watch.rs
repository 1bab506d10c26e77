//! A watch of a strong keyspace, for one client: asks a replica of each partition for what came
//! behind the watch's position, over and over, and puts together what they tell.
//!
//! Each partition has one question under way at most, and the next is asked once the client has
//! taken the answer: a slow client holds up nobody, and keeps a page of each partition at most.
//! What is asked, and of whom, is in [`crate::protocol::watch`].

mod poll;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::node::env::Env;
use crate::node::request::{RequestError, RequestOptions};
use crate::node::service::{Attached, Node};
use crate::node::strong::Target;
use crate::node::watch::poll::{Poll, Polled, Subject, poll};
use crate::protocol::ring::Partitioning;
use crate::protocol::system::keyspace::{DEFAULT_NAME, Mode};
use crate::protocol::watch::source::Source;
use crate::protocol::watch::token::{self, Positions};
use crate::protocol::watch::{Selection, WatchEntry, Watched};
use crate::telemetry::Metrics;
use crate::types::{LogIndex, Moment, PartitionId};

/// How long a client hears nothing at most: then it is told how far the watch has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// A message to the client is cut once its events have this many bytes.
const MESSAGE_BYTES: usize = 1 << 20;

/// Partitions that are asked at once where a watch begins.
const BEGINNINGS_AT_ONCE: usize = 64;

/// What a client wants to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub selection: Selection,
    /// The token of where to go on; from now on when absent.
    pub from: Option<String>,
}

/// What a client that watches hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchMessage {
    /// What is new.
    pub news: News,
    /// Where a watch goes on that is begun anew once this message was heard.
    pub token: String,
}

/// What is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Keys changed.
    Changes(Vec<Changes>),
    /// Nothing, up to the token.
    Progress,
    /// What came behind the watch's position is not to be had any more: the client has to list, and
    /// to watch anew. It is the last message.
    Lost(LostPosition),
    /// The watch ends, and why. It is the last message.
    Ended(RequestError),
}

/// What one entry of a partition's log changed: at once, under one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The partition.
    pub partition: PartitionId,
    /// The entry.
    pub entry: WatchEntry,
}

/// A position that no replica of a partition can go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostPosition {
    /// The partition.
    pub partition: PartitionId,
    /// The last entry of it that the watch has seen.
    pub position: LogIndex,
    /// The first entry from which on a replica has all.
    pub oldest: LogIndex,
}

/// The watches of a node.
pub(crate) struct Watches {
    max: usize,
    places: Arc<Semaphore>,
    ending: watch::Sender<bool>,
}

impl Watches {
    /// So many at once.
    pub(crate) fn new(max: usize) -> Watches {
        let max = max.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(max));
        Watches { max, places, ending: watch::Sender::new(false) }
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, RequestError> {
        let (limit, max) = ("watches_max", self.max);
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| RequestError::Overloaded { limit, max })
    }
}

/// A watch under way. It is asked for one message after the other; dropping it ends it.
pub struct Watch {
    subject: Arc<Subject>,
    partitioning: Partitioning,
    positions: Positions,
    polls: FuturesUnordered<Poll>,
    /// What is to be said next, before anything else is asked for.
    last_words: Option<News>,
    is_over: bool,
    said_at: Moment,
    env: Arc<dyn Env>,
    metrics: Arc<Metrics>,
    ending: watch::Receiver<bool>,
    _place: Place,
}

/// Room for one watch, and its part in the count of those that are open.
struct Place {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.watches_open.dec();
    }
}

impl Node {
    /// Watches keys of a strong keyspace: from now on, so that every write that begins after this
    /// has returned is seen, or from where a token says.
    ///
    /// # Errors
    /// [`RequestError::NotAvailable`] in a quorum keyspace; [`RequestError::Overloaded`] naming
    /// `watches_max`; [`RequestError::Invalid`] naming `from` or `key`; without a token also what
    /// keeps a linearizable read from being answered.
    pub async fn watch(
        &self,
        request: WatchRequest,
        options: RequestOptions,
    ) -> Result<Watch, RequestError> {
        let began = self.local.env.now();
        let outcome = self.begin_watch(request, &options).await;
        self.finish(&self.metrics().watch, began, outcome)
    }

    /// Ends all watches, now and later: a node that stops waits for its clients' connections.
    pub fn end_watches(&self) {
        if let Some(attached) = self.attached.get() {
            attached.watches.ending.send_replace(true);
        }
    }

    async fn begin_watch(
        &self,
        request: WatchRequest,
        options: &RequestOptions,
    ) -> Result<Watch, RequestError> {
        let attached = self.attached()?;
        self.check_selection(&request.selection)?;
        let named = self.target(attached, options).await?;
        let options = &*named.options;
        let keyspace = match named.found {
            Target::Strong(keyspace) => keyspace,
            Target::Quorum(_) => {
                let keyspace = options.keyspace.as_deref().unwrap_or(DEFAULT_NAME).to_owned();
                let (what, mode) = (NEEDS_STRONG, Mode::Quorum.name());
                return Err(RequestError::NotAvailable { what, keyspace, mode });
            }
        };
        let permit = attached.watches.admit()?;
        let metrics = Arc::clone(&self.local.metrics);
        metrics.watches_open.inc();
        let place = Place { metrics: Arc::clone(&metrics), _permit: permit };
        let partitioning = attached.topology.load().ring.partitioning();
        let watched = Watched { keyspace: keyspace.id, selection: request.selection };
        let partitions = watched.selection.partitions(partitioning);
        let client = Arc::clone(&attached.groups.client);
        let subject = Subject::new(client, watched, keyspace.name, partitions.len());
        let positions = match &request.from {
            Some(text) => token::resume(text, &subject.watched, partitioning).map_err(|error| {
                RequestError::Invalid { field: "from", problem: error.to_string() }
            })?,
            None => self.beginnings(attached, &subject, partitions, options).await?,
        };
        let subject = Arc::new(subject);
        let first = |(partition, position): (&PartitionId, &LogIndex)| {
            poll(Arc::clone(&subject), *partition, *position, Source::default())
        };
        Ok(Watch {
            polls: positions.iter().map(first).collect(),
            subject: Arc::clone(&subject),
            partitioning,
            positions,
            last_words: None,
            is_over: false,
            said_at: self.local.env.now(),
            env: Arc::clone(&self.local.env),
            metrics,
            ending: attached.watches.ending.subscribe(),
            _place: place,
        })
    }

    fn check_selection(&self, selection: &Selection) -> Result<(), RequestError> {
        let (limit, max) = ("key_bytes_max", self.config.limits.key_bytes_max);
        let got = selection.bytes().len();
        match selection {
            Selection::Key(_) if got == 0 => {
                let problem = "is empty; a key has at least one byte".to_owned();
                Err(RequestError::Invalid { field: "key", problem })
            }
            _ if got > max => Err(RequestError::TooLarge { limit, max, got }),
            _ => Ok(()),
        }
    }

    /// How far all partitions have come by now: whatever was acknowledged lies no further.
    async fn beginnings(
        &self,
        attached: &Attached,
        subject: &Subject,
        partitions: Vec<PartitionId>,
        options: &RequestOptions,
    ) -> Result<Positions, RequestError> {
        let topology = attached.topology.load();
        let state = attached.groups.gateway.system();
        let keyspace = state.as_ref().and_then(|state| state.keyspace(subject.watched.keyspace));
        let gone = || RequestError::UnknownKeyspace { name: subject.keyspace_name.clone() };
        let keyspace = keyspace.ok_or_else(gone)?;
        let strong = self.strong(attached, &topology.ring, keyspace);
        let position = async |partition| {
            let position = strong.position(partition, options).await?;
            Ok::<_, RequestError>((partition, position))
        };
        let asked = stream::iter(partitions).map(position);
        asked.buffer_unordered(BEGINNINGS_AT_ONCE).try_collect().await
    }
}

/// What a keyspace of another mode does not offer.
const NEEDS_STRONG: &str = "a watch, which needs a keyspace of mode strong,";

impl Watch {
    /// Where a watch goes on that is begun anew now.
    pub fn token(&self) -> String {
        token::encode(&self.subject.watched, self.partitioning, &self.positions)
    }

    /// The last entry of each partition that the watch has told of, or passed over as none of its
    /// own.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The next message; `None` after the last. There is one every ten seconds at least.
    pub async fn next(&mut self) -> Option<WatchMessage> {
        if self.is_over {
            return None;
        }
        let news = match self.last_words.take() {
            Some(last) => last,
            None => self.wait_for_news().await,
        };
        self.is_over = matches!(news, News::Lost(_) | News::Ended(_));
        match &news {
            News::Changes(changes) => {
                let events = changes.iter().map(|changes| changes.entry.events.len() as u64);
                self.metrics.watch_events.inc_by(events.sum());
            }
            News::Lost(_) => {
                self.metrics.watches_lost.inc();
            }
            News::Progress | News::Ended(_) => {}
        }
        self.said_at = self.env.now();
        Some(WatchMessage { news, token: self.token() })
    }

    async fn wait_for_news(&mut self) -> News {
        let quiet_until = self.said_at + PROGRESS_INTERVAL;
        loop {
            let polled = tokio::select! { biased;
                // An error means that the node is gone, which ends the watch as well.
                _ = self.ending.wait_for(|ending| *ending) => {
                    let reason = "the node is stopping; go on at another".to_owned();
                    return News::Ended(RequestError::NotServing { reason });
                }
                polled = self.polls.next() => polled,
                () = self.env.sleep_until(quiet_until) => return News::Progress,
            };
            let polled =
                polled.expect("invariant: each partition is asked until the watch is over");
            if !self.subject.keyspace_is_there() {
                let name = self.subject.keyspace_name.clone();
                return News::Ended(RequestError::UnknownKeyspace { name });
            }
            let changes = self.gather(polled);
            if !changes.is_empty() {
                return News::Changes(changes);
            }
            if let Some(last) = self.last_words.take() {
                return last;
            }
        }
    }

    /// What one partition has told, and what others have by now.
    fn gather(&mut self, first: Polled) -> Vec<Changes> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        let mut polled = Some(first);
        while let Some(Polled { partition, source, outcome }) = polled.take() {
            let position = self.positions.get(&partition).copied().unwrap_or_default();
            let (entries, through) = match outcome {
                Ok(page) => page,
                Err(oldest) => {
                    let lost = LostPosition { partition, position, oldest };
                    self.last_words = Some(News::Lost(lost));
                    return changes;
                }
            };
            self.positions.insert(partition, through);
            self.polls.push(poll(Arc::clone(&self.subject), partition, through, source));
            bytes += entries.iter().map(WatchEntry::cost_bytes).sum::<usize>();
            changes.extend(entries.into_iter().map(|entry| Changes { partition, entry }));
            if bytes < MESSAGE_BYTES {
                polled = self.polls.next().now_or_never().flatten();
            }
        }
        changes
    }
}
