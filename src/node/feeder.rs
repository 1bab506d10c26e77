//! Behind the acknowledged path: feeds the engine, checkpoints it, lets go of the log, and keeps an
//! eye on the room that is left on the disk.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::StorageOptions;
use crate::node::clock::Clock;
use crate::node::committer::Committer;
use crate::node::env::{Env, run_blocking};
use crate::node::health::Health;
use crate::node::identity_keeper::IdentityKeeper;
use crate::node::pacing::Pacing;
use crate::node::tasks::Stop;
use crate::protocol::pace::Pace;
use crate::storage::files::Files;
use crate::storage::group_log::{self, CommitError, GroupLogs};
use crate::storage::identity::IdentityError;
use crate::storage::store::{Store, StoreError};
use crate::storage::wal::{SegmentPreparer, Wal, WalError};
use crate::telemetry::Metrics;
use crate::types::{Lsn, Moment};

/// Rows fed per turn of a blocking thread: some milliseconds, after which others have their turn.
const SLICE_ROWS: usize = 32;

/// The longest rest after a turn: what the next table needs is looked at again then.
const REST_MAX: Duration = Duration::from_millis(100);

/// Turns after which the disk is looked at.
const TURNS_PER_LOOK: usize = 32;

/// How often the table's age and the disk's room are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Feeds the engine from the in-memory table.
pub(crate) struct Feeder {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) options: StorageOptions,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) wal: Arc<Mutex<Wal>>,
    pub(crate) group_logs: Arc<Mutex<GroupLogs>>,
    pub(crate) store: Arc<Store>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) identity: Arc<IdentityKeeper>,
    pub(crate) pacing: Arc<Pacing>,
}

/// How long the engine may have changes that are not durable and that nothing follows.
const SETTLE_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] CommitError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Feeder {
    /// Feeds whenever the table is large or old enough, until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        let mut unsettled_since = None;
        while !stop.is_requested() {
            if self.is_due() && self.look_at_disk() {
                self.feed_and_checkpoint(Some(stop.clone())).await;
            }
            self.settle(&mut unsettled_since).await;
            let next_look = self.env.now() + WATCH_INTERVAL;
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.committer.table_full.notified() => {}
                () = self.env.sleep_until(next_look) => {
                    self.look_at_disk();
                }
            }
        }
    }

    /// Prepares log segments ahead of their use, until asked to stop.
    pub(crate) async fn prepare_segments(self: Arc<Self>, mut stop: Stop) {
        while !stop.is_requested() {
            let (preparer, wanted) = {
                let wal = self.wal.lock();
                (wal.preparer(), wal.wants_segment())
            };
            if wanted {
                self.prepare_segment(preparer).await;
            }
            // After a failure for want of room the next try comes with the next look at the disk.
            let retry = self.env.now() + WATCH_INTERVAL;
            let still_wanted = self.wal.lock().wants_segment();
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.committer.segment_wanted.notified(), if !still_wanted => {}
                () = self.env.sleep_until(retry), if still_wanted => {}
            }
        }
    }

    /// Feeds everything and closes the log: what a clean stop does last.
    pub(crate) async fn finish(&self) {
        if self.health.is_failed() {
            return;
        }
        if self.store.active_bytes() + self.store.frozen_bytes() > 0 {
            self.feed_and_checkpoint(None).await;
            self.feed_and_checkpoint(None).await;
        }
        let wal = Arc::clone(&self.wal);
        if let Err(error) = run_blocking(&*self.env, move || wal.lock().close()).await {
            tracing::warn!(%error, "the log was not closed; the next start recovers it");
        }
    }

    /// Whether the table has reached its limits, or its age.
    fn is_due(&self) -> bool {
        let aged = self
            .store
            .oldest()
            .is_some_and(|oldest| self.env.now().since(oldest) >= self.options.memtable_age_max);
        let large = self.store.active_bytes() >= self.options.memtable_bytes_max;
        !self.health.is_failed() && (aged || large || self.store.frozen_bytes() > 0)
    }

    /// Notes how much room the disk has; true when there is enough to feed the engine.
    fn look_at_disk(&self) -> bool {
        match self.files.free_bytes() {
            Ok(free) => {
                self.metrics.disk_free_bytes.set(free);
                let has_room = free >= self.options.disk_reserve_bytes;
                self.health.set_disk_full(!has_room);
                has_room
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell how much room the disk has");
                true
            }
        }
    }

    /// Makes a checkpoint for what was done to the engine beside feeding it, such as reaping: until
    /// it is durable, reads may have to wait.
    async fn settle(&self, unsettled_since: &mut Option<Moment>) {
        if !self.store.is_unsettled() || self.health.is_failed() || self.store.frozen_bytes() > 0 {
            *unsettled_since = None;
            return;
        }
        let now = self.env.now();
        if now.since(*unsettled_since.get_or_insert(now)) >= SETTLE_AFTER {
            *unsettled_since = None;
            self.judge(self.checkpoint().await);
        }
    }

    async fn prepare_segment(&self, preparer: SegmentPreparer) {
        match run_blocking(&*self.env, move || preparer.prepare()).await {
            Ok(()) => {}
            Err(WalError::DiskFull) => self.health.set_disk_full(true),
            Err(error) => self.health.fail(format!("no log segment could be prepared: {error}")),
        }
    }

    async fn feed_and_checkpoint(&self, paced_until: Option<Stop>) {
        self.judge(self.try_feed_and_checkpoint(paced_until).await);
    }

    fn judge(&self, outcome: Result<(), FeedError>) {
        match outcome {
            Ok(()) => {}
            // Nothing is lost: the log keeps its segments, and the next checkpoint tries again.
            Err(FeedError::Identity(error)) => {
                tracing::warn!(%error, "the clock's floor could not be kept; the log stays whole");
            }
            Err(FeedError::Log(CommitError::Wal(WalError::DiskFull))) => {
                self.health.set_disk_full(true);
            }
            Err(error) => self.health.fail(format!("the engine could not be fed: {error}")),
        }
    }

    /// At the node's pace until it stops, and at once from then on.
    async fn try_feed_and_checkpoint(
        &self,
        mut paced_until: Option<Stop>,
    ) -> Result<(), FeedError> {
        self.store.freeze();
        for turn in 1_usize.. {
            let (store, began) = (Arc::clone(&self.store), self.env.now());
            let fed = run_blocking(&*self.env, move || store.feed(SLICE_ROWS)).await?;
            self.metrics.engine_rows_fed.inc_by(fed.rows as u64);
            if fed.done {
                break;
            }
            if turn % TURNS_PER_LOOK == 0 && !self.look_at_disk() {
                return Ok(());
            }
            if let Some(stop) = &mut paced_until {
                self.rest_after(self.env.now().since(began), stop).await;
            }
        }
        self.checkpoint().await
    }

    /// Leaves the processor to others for a while after a turn: the longer, the less time the node
    /// has, and not at all once the next table is half full.
    async fn rest_after(&self, turn: Duration, stop: &mut Stop) {
        if stop.is_requested() {
            return;
        }
        let needed = Pace::of(self.store.active_bytes(), self.options.memtable_bytes_max / 2);
        let rest = self.pacing.pace().max(needed).rest_after(turn).min(REST_MAX);
        if !rest.is_zero() {
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.env.sleep_until(self.env.now() + rest) => {}
            }
        }
    }

    async fn checkpoint(&self) -> Result<(), FeedError> {
        let (wal, group_logs) = (Arc::clone(&self.wal), Arc::clone(&self.group_logs));
        let store = Arc::clone(&self.store);
        let (identity, floor) = (Arc::clone(&self.identity), self.clock.last());
        let dropped = run_blocking(&*self.env, move || -> Result<(Lsn, usize), FeedError> {
            let through = store.checkpoint()?;
            // The log's stamps go with its segments; the clock must stay above them.
            identity.keep_clock_floor(floor)?;
            Ok((through, group_log::drop_through(&wal, &group_logs, through)?))
        });
        let (through, segments) = dropped.await?;
        if self.wal.lock().wants_segment() {
            self.committer.segment_wanted.notify_one();
        }
        self.metrics.engine_checkpoints.inc();
        tracing::debug!(through = through.0, segments, "checkpoint");
        Ok(())
    }
}
