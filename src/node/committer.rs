//! Group commit: everything that is queued becomes durable by one `fdatasync`, then visible,
//! then acknowledged, in that order.
//!
//! While writes arrive one by one, each is committed at once. While they arrive in numbers, a
//! commit gathers for up to `group_commit_interval`, which costs a little latency and saves
//! most syncs. A failed write or sync is final: the log may have lost what it acknowledged
//! before, so the node acknowledges nothing more (PostgreSQL's 2018 fsync findings).

mod batch;
mod joining;
mod meeting;
mod rate;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::config::StorageOptions;
use crate::node::committer::batch::{Batch, Outcomes};
use crate::node::committer::joining::Settled;
pub(crate) use crate::node::committer::joining::{Mint, Pen};
use crate::node::committer::rate::Rate;
use crate::node::env::{Env, run_blocking};
use crate::node::health::Health;
use crate::node::tasks::Stop;
use crate::protocol::admission::Share;
use crate::protocol::message::{Refusal, RequestId};
use crate::storage::group_log::{self, CommitError, GroupLogs};
use crate::storage::store::Store;
use crate::storage::wal::{LogRecord, Wal, WalError};
use crate::telemetry::Metrics;
use crate::types::{Key, KeyspaceId, Lsn, Moment, NodeId, PartitionId, Record, Row, Version};

/// A commit gathers only while at least this many writes are expected to join it.
const GATHER_MIN_WRITES: u64 = 4;

/// A commit that has gathered this many writes waits no longer: more would save few syncs, and the
/// wait is paid by every caller.
const GATHER_ENOUGH_WRITES: usize = 12;

/// The in-memory tables may grow to this many times their limit before writes are refused.
const BACKLOG_TABLES_MAX: usize = 4;

/// As much of that is there in ordinary operation.
const ORDINARY_TABLES: usize = 2;

/// Who wants to know what became of a row, or of records of groups.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    /// An operation that this node coordinates; where its writer told which version it had seen,
    /// it is to hear of another one that the row meets.
    Own(RequestId, Option<Version>),
    /// A peer's request; the same.
    Peer(NodeId, RequestId, Option<Version>),
    /// A peer's request to mint a write.
    Minted(NodeId, RequestId),
    /// A task of this node that has a write minted.
    Writer(oneshot::Sender<Result<Record, Refusal>>),
    /// A task of this node.
    Waiter(oneshot::Sender<Result<(), Refusal>>),
    /// Nobody: another row of the same page is waited for.
    Nobody,
}

impl ReplyTo {
    /// The version that the row's writer had seen, if it told.
    fn seen(&self) -> Option<Version> {
        match self {
            ReplyTo::Own(_, seen) | ReplyTo::Peer(_, _, seen) => *seen,
            ReplyTo::Minted(..) | ReplyTo::Writer(_) | ReplyTo::Waiter(_) | ReplyTo::Nobody => None,
        }
    }
}

/// A row on its way into the log.
#[derive(Debug)]
pub(crate) struct Submission {
    /// The row.
    pub(crate) row: Row,
    /// The partition of its key.
    pub(crate) partition: PartitionId,
    /// When nobody waits for it any more.
    pub(crate) expires: Moment,
    /// Who wants to know.
    pub(crate) reply_to: ReplyTo,
}

/// A write that is to be minted, on its way into the log.
#[derive(Debug)]
pub(crate) struct MintSubmission {
    /// Where its key lies.
    pub(crate) place: (KeyspaceId, PartitionId),
    /// Its key.
    pub(crate) key: Key,
    /// What is written.
    pub(crate) mint: Mint,
    /// When nobody waits for it any more.
    pub(crate) expires: Moment,
    /// Who wants to know.
    pub(crate) reply_to: ReplyTo,
}

/// What is durable and visible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The version that the row met and its writer, if it told what it had seen, had not.
    pub(crate) met: Option<Version>,
    /// Of a row of siblings: what is held now.
    pub(crate) record: Option<Record>,
}

/// Takes the outcome of what was submitted.
pub(crate) trait Completions: Send + Sync {
    /// What `reply_to` waits for is durable and visible, or was refused.
    fn on_committed(&self, reply_to: ReplyTo, outcome: Result<Committed, Refusal>);
}

/// Records of Raft groups on their way into the log.
#[derive(Debug)]
struct GroupSubmission {
    records: Vec<LogRecord>,
    reply_to: ReplyTo,
}

/// What waits, in the order in which it came.
#[derive(Debug)]
enum Queued {
    Row(Submission),
    Mint(MintSubmission),
    Groups(GroupSubmission),
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Queued>,
    /// Records of all that waits.
    records: usize,
    /// What the rows cost that were submitted one by one.
    bytes: usize,
}

/// The queue before the log, and the log.
pub(crate) struct Committer {
    env: Arc<dyn Env>,
    options: StorageOptions,
    wal: Arc<Mutex<Wal>>,
    group_logs: Arc<Mutex<GroupLogs>>,
    store: Arc<Store>,
    pen: Arc<Pen>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    queue: Mutex<Queue>,
    queued: Notify,
    /// Tells the feeder that the in-memory table has reached its limit.
    pub(crate) table_full: Notify,
    /// Tells the segment keeper that the log wants its next segment.
    pub(crate) segment_wanted: Notify,
}

impl Committer {
    pub(crate) fn new(
        env: Arc<dyn Env>,
        options: StorageOptions,
        (wal, group_logs): (Arc<Mutex<Wal>>, Arc<Mutex<GroupLogs>>),
        (store, pen): (Arc<Store>, Pen),
        health: Arc<Health>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Committer {
            env,
            options,
            wal,
            group_logs,
            store,
            pen: Arc::new(pen),
            health,
            metrics,
            queue: Mutex::new(Queue::default()),
            queued: Notify::new(),
            table_full: Notify::new(),
            segment_wanted: Notify::new(),
        }
    }

    /// Queues a row; its outcome goes to `reply_to`.
    ///
    /// # Errors
    /// A [`Refusal`] when the row was not queued; `reply_to` then hears nothing.
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Refusal> {
        self.submit_together(std::iter::once(submission))
    }

    /// Queues rows that become durable together, or not at all.
    ///
    /// # Errors
    /// A [`Refusal`] when none of the rows was queued.
    pub(crate) fn submit_together(
        &self,
        submissions: impl Iterator<Item = Submission>,
    ) -> Result<(), Refusal> {
        self.queue_rows(submissions.map(|it| (it.row.cost_bytes(), Queued::Row(it))))
    }

    /// Queues a write that is to be minted; its outcome goes to `reply_to`.
    ///
    /// # Errors
    /// A [`Refusal`] when it was not queued; `reply_to` then hears nothing.
    pub(crate) fn submit_mint(&self, submission: MintSubmission) -> Result<(), Refusal> {
        let bytes = submission.key.0.len() + submission.mint.change.size_bytes();
        self.queue_rows(std::iter::once((bytes, Queued::Mint(submission))))
    }

    fn queue_rows(&self, rows: impl Iterator<Item = (usize, Queued)>) -> Result<(), Refusal> {
        self.health.check_writable()?;
        let mut queue = self.queue.lock();
        if queue.bytes > self.options.wal_queue_bytes_max || self.is_backlogged() {
            return Err(Refusal::Overloaded);
        }
        let before = queue.records;
        for (bytes, row) in rows {
            queue.bytes += bytes;
            queue.records += 1;
            queue.waiting.push(row);
        }
        let after = queue.records;
        drop(queue);
        self.wake(before, after);
        Ok(())
    }

    /// Queues what groups remember and what their commands came to; single rows are not among it.
    /// A crash may leave the first few of the records. However much waits, they are queued: groups
    /// bound what they have under way.
    ///
    /// # Errors
    /// [`Refusal::LogFailed`] when nothing was queued; `reply_to` then hears nothing.
    pub(crate) fn submit_group(
        &self,
        records: Vec<LogRecord>,
        reply_to: ReplyTo,
    ) -> Result<(), Refusal> {
        let placed = |record: &LogRecord| !matches!(record, LogRecord::Row(_));
        debug_assert!(records.iter().all(placed), "a single row has no partition here");
        if self.health.is_failed() {
            return Err(Refusal::LogFailed);
        }
        let mut queue = self.queue.lock();
        let before = queue.records;
        queue.records += records.len();
        let after = queue.records;
        queue.waiting.push(Queued::Groups(GroupSubmission { records, reply_to }));
        drop(queue);
        self.wake(before, after);
        Ok(())
    }

    /// Wakes the task that commits, if so many records more are a reason to.
    fn wake(&self, before: usize, after: usize) {
        if before == 0 || (before < GATHER_ENOUGH_WRITES && after >= GATHER_ENOUGH_WRITES) {
            self.queued.notify_one();
        }
    }

    /// How full the queue is, and the tables beyond those that come and go all the time: the one
    /// that is filled, and the one that is fed from.
    pub(crate) fn fill(&self) -> (Share, Share) {
        let (used, max) = (self.queue.lock().bytes, self.options.wal_queue_bytes_max);
        let table_bytes_max = self.options.memtable_bytes_max;
        let held = self.store.active_bytes() + self.store.frozen_bytes();
        let tables = Share {
            used: held.saturating_sub(table_bytes_max.saturating_mul(ORDINARY_TABLES)),
            max: table_bytes_max.saturating_mul(BACKLOG_TABLES_MAX - ORDINARY_TABLES),
        };
        (Share { used, max }, tables)
    }

    /// Records that wait for a commit.
    pub(crate) fn queued_records(&self) -> usize {
        self.queue.lock().records
    }

    /// Commits what is queued, group by group, until asked to stop and the queue is empty.
    pub(crate) async fn run(&self, completions: Arc<dyn Completions>, mut stop: Stop) {
        let mut rate = Rate::default();
        let mut last_commit = self.env.now();
        loop {
            let waiting = self.take();
            if waiting.is_empty() {
                if stop.is_requested() {
                    return;
                }
                tokio::select! { biased;
                    () = self.queued.notified() => {}
                    () = stop.requested() => {}
                }
                self.gather(rate, last_commit).await;
                continue;
            }
            last_commit = self.env.now();
            let batch = self.without_expired(waiting, &*completions);
            rate.count(batch.records.len(), last_commit);
            self.commit(batch, &*completions).await;
            if self.queued_records() > 0 {
                self.gather(rate, last_commit).await;
            }
        }
    }

    /// While writes arrive in numbers, waits until enough have gathered, or until
    /// `group_commit_interval` after the last commit.
    async fn gather(&self, rate: Rate, last_commit: Moment) {
        let interval = self.options.group_commit_interval;
        if rate.expected_within(interval) < GATHER_MIN_WRITES {
            return;
        }
        let until = last_commit + interval;
        while self.queued_records() < GATHER_ENOUGH_WRITES && self.env.now() < until {
            tokio::select! { biased;
                () = self.queued.notified() => {}
                () = self.env.sleep_until(until) => {}
            }
        }
    }

    fn take(&self) -> Vec<Queued> {
        std::mem::take(&mut *self.queue.lock()).waiting
    }

    async fn commit(&self, mut batch: Batch, completions: &dyn Completions) {
        let replies = std::mem::take(&mut batch.replies);
        let mut outcome = match batch.records.is_empty() {
            true => Ok(Outcomes::default()),
            false => self.commit_records(batch).await,
        };
        for (at, reply_to) in replies.into_iter().enumerate() {
            let done = outcome.as_mut().map_err(|refusal| *refusal);
            completions.on_committed(reply_to, done.and_then(|outcomes| outcomes.of(at)));
        }
    }

    async fn commit_records(&self, batch: Batch) -> Result<Outcomes, Refusal> {
        let Batch { records, partitions, meeting, joining, .. } = batch;
        let (wal, group_logs) = (Arc::clone(&self.wal), Arc::clone(&self.group_logs));
        let (store, pen) = (Arc::clone(&self.store), Arc::clone(&self.pen));
        let job = move || {
            // All that was committed before is visible, and nothing of this commit yet.
            let met = meeting::versions_met(&store, &records, &meeting);
            let settled = joining::settle((&store, &pen), (records, partitions), joining);
            let mut wal = wal.lock();
            let is_news = !settled.records.is_empty();
            let outcome =
                is_news.then(|| group_log::commit(&mut wal, &group_logs, &settled.records));
            (outcome, settled, wal.wants_segment(), met)
        };
        let (outcome, settled, wants_segment, met) = run_blocking(&*self.env, job).await;
        if wants_segment {
            self.segment_wanted.notify_one();
        }
        let Settled { records, partitions, outcomes: joined, broken } = settled;
        if let Some(error) = broken {
            self.health.fail(format!("the storage engine failed: {error}"));
        }
        if let Some(outcome) = outcome {
            let last_lsn = self.judge(outcome)?;
            self.publish(last_lsn, records, partitions);
        }
        Ok(Outcomes { met, joined })
    }

    /// Makes a batch of what waits; refuses the rows that came too late.
    fn without_expired(&self, waiting: Vec<Queued>, completions: &dyn Completions) -> Batch {
        let now = self.env.now();
        let mut batch = Batch::default();
        batch.records.reserve(waiting.len());
        for queued in waiting {
            match queued {
                Queued::Row(Submission { expires, reply_to, .. })
                | Queued::Mint(MintSubmission { expires, reply_to, .. })
                    if expires < now =>
                {
                    completions.on_committed(reply_to, Err(Refusal::Expired));
                }
                Queued::Row(submission) => batch.add_row(submission, None),
                Queued::Mint(MintSubmission { place, key, mint, expires, reply_to }) => {
                    let (keyspace, partition) = place;
                    // What is minted takes the place of this record.
                    let record = Record::new(Version::NONE, None);
                    let row = Row { keyspace, key, record };
                    let row = Submission { row, partition, expires, reply_to };
                    batch.add_row(row, Some(mint));
                }
                Queued::Groups(GroupSubmission { records, reply_to }) => {
                    batch.records.extend(records);
                    batch.replies.push(reply_to);
                }
            }
        }
        batch
    }

    fn publish(&self, last_lsn: Lsn, records: Vec<LogRecord>, partitions: Vec<PartitionId>) {
        self.metrics.wal_commits.inc();
        self.metrics.wal_records.inc_by(records.len() as u64);
        for record in &records {
            match record {
                LogRecord::DropKeyspace(keyspace) => {
                    self.store.drop_keyspace(*keyspace, self.env.now());
                }
                LogRecord::DropPartition(keyspace, partition) => {
                    self.store.drop_partition((*keyspace, *partition), self.env.now());
                }
                _ => {}
            }
        }
        self.store.publish(last_lsn, outcome_of(records, partitions).into_iter(), self.env.now());
        if self.store.active_bytes() >= self.options.memtable_bytes_max {
            self.table_full.notify_one();
        }
    }

    fn judge(&self, outcome: Result<Lsn, CommitError>) -> Result<Lsn, Refusal> {
        outcome.map_err(|error| match error {
            CommitError::Wal(WalError::DiskFull) => {
                self.health.set_disk_full(true);
                self.segment_wanted.notify_one();
                Refusal::DiskFull
            }
            error => {
                self.health.fail(format!("the write-ahead log failed: {error}"));
                Refusal::InDoubt
            }
        })
    }

    fn is_backlogged(&self) -> bool {
        let held = self.store.active_bytes() + self.store.frozen_bytes();
        held > self.options.memtable_bytes_max.saturating_mul(BACKLOG_TABLES_MAX)
    }
}

/// The rows that records come to, in order: a partition that is dropped takes those before it
/// along.
fn outcome_of(records: Vec<LogRecord>, partitions: Vec<PartitionId>) -> Vec<(PartitionId, Row)> {
    let mut partitions = partitions.into_iter();
    let mut rows = Vec::with_capacity(records.len());
    for record in records {
        match record {
            LogRecord::Row(row) => rows.extend(partitions.next().map(|it| (it, row))),
            LogRecord::Rows(together) => rows.extend(together),
            LogRecord::DropPartition(keyspace, partition) => {
                rows.retain(|(at, row)| (row.keyspace, *at) != (keyspace, partition));
            }
            LogRecord::DropKeyspace(_) | LogRecord::Group(_) => {}
        }
    }
    rows
}
