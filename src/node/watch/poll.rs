//! One question of a watch: what came of one partition behind a position.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::node::groups::client::GroupClient;
use crate::protocol::message::{Ask, Told};
use crate::protocol::watch::source::{Source, Turn};
use crate::protocol::watch::{WATCH_WAIT, WatchAsk, WatchEntry, WatchPage, Watched};
use crate::types::{GroupId, LogIndex, PartitionId};

/// How long after it should have answered a replica counts as lost.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// How long a question rests that nobody can be asked now.
const REST: Duration = Duration::from_millis(100);

/// Bytes that pages of all partitions have together, if each ends where it should.
const PAGES_BYTES: usize = 4 << 20;
const PAGE_BYTES_MIN: usize = 16 << 10;
const PAGE_BYTES_MAX: usize = 1 << 20;

/// What all questions of a watch have in common.
pub(super) struct Subject {
    pub(super) client: Arc<GroupClient>,
    pub(super) watched: Watched,
    pub(super) keyspace_name: String,
    page_bytes: usize,
}

/// What became of a question.
pub(super) struct Polled {
    pub(super) partition: PartitionId,
    /// Where to ask the next.
    pub(super) source: Source,
    /// What came, and up to where that is all; or the first position that a replica can go on from.
    pub(super) outcome: Result<(Vec<WatchEntry>, LogIndex), LogIndex>,
}

/// A question under way.
pub(super) type Poll = Pin<Box<dyn Future<Output = Polled> + Send>>;

impl Subject {
    pub(super) fn new(
        client: Arc<GroupClient>,
        watched: Watched,
        keyspace_name: String,
        partitions: usize,
    ) -> Subject {
        let page_bytes = (PAGES_BYTES / partitions.max(1)).clamp(PAGE_BYTES_MIN, PAGE_BYTES_MAX);
        Subject { client, watched, keyspace_name, page_bytes }
    }

    /// Whether this node has not heard that the keyspace was dropped.
    pub(super) fn keyspace_is_there(&self) -> bool {
        let state = self.client.gateway.system();
        state.is_none_or(|state| state.keyspace(self.watched.keyspace).is_some())
    }

    fn ask(&self, after: LogIndex) -> Ask {
        let bytes_max = u32::try_from(self.page_bytes).unwrap_or(u32::MAX);
        let watched = self.watched.clone();
        Ask::Watch(Box::new(WatchAsk { watched, after, bytes_max, wait: WATCH_WAIT }))
    }
}

/// Asks replicas until one tells what came, or that nothing did for a while, or until all say that
/// it is gone.
pub(super) fn poll(
    subject: Arc<Subject>,
    partition: PartitionId,
    after: LogIndex,
    mut source: Source,
) -> Poll {
    Box::pin(async move {
        let (group, client) = (GroupId::of(partition), &subject.client);
        loop {
            let replicas = client.candidates(group);
            let node = match source.turn(&replicas, |node| client.can_be_asked(node)) {
                Turn::Ask(node) => node,
                Turn::Lost { oldest } => return Polled { partition, source, outcome: Err(oldest) },
                Turn::Rest => {
                    client.env.sleep_until(client.env.now() + REST).await;
                    continue;
                }
            };
            let deadline = client.env.now() + WATCH_WAIT + ANSWER_GRACE;
            match client.ask_replica(node, group, subject.ask(after), deadline).await {
                Ok(Told::Watched(WatchPage::Changed { entries, through })) if through >= after => {
                    source.on_page();
                    return Polled { partition, source, outcome: Ok((entries, through)) };
                }
                Ok(Told::Watched(WatchPage::Gone { oldest })) => source.on_gone(node, oldest),
                _ => source.on_failure(node),
            }
        }
    })
}
