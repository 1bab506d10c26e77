//! This node as a replica: what it does with rows and questions, its own or a peer's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::node::admission::Admission;
use crate::node::clock::Clock;
use crate::node::committer::{Committer, Mint, MintSubmission, ReplyTo, Submission};
use crate::node::env::Env;
use crate::node::health::Health;
use crate::protocol::merkle::{BRANCHES, Buckets};
use crate::protocol::message::tree::{Answer, Question};
use crate::protocol::message::{
    Class, Found, Holding, List, ListPage, Refusal, Scan, ScanPage, Want,
};
use crate::storage::store::{Pass, Store, StoreError};
use crate::telemetry::Metrics;
use crate::types::{Epoch, Key, KeyspaceId, Moment, PartitionId, Record, Row};

/// The most bytes of one page of a scan, whatever was asked.
const SCAN_PAGE_BYTES_MAX: usize = 1 << 20;

/// Serves the rows of this node.
pub(crate) struct Replica {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) store: Arc<Store>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A row of this node that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) partition: PartitionId,
    pub(crate) key: Key,
    pub(crate) want: Want,
    /// The version of the ring by which this node was asked.
    pub(crate) epoch: Epoch,
    /// When nobody waits for it any more.
    pub(crate) deadline: Moment,
}

impl Replica {
    /// Queues a row for the log; `reply_to` hears once it is durable, or that it was refused.
    ///
    /// # Errors
    /// A [`Refusal`] when it was not even queued; `reply_to` then hears nothing.
    pub(crate) fn write(
        &self,
        row: Row,
        partition: PartitionId,
        time_left: Duration,
        class: Class,
        reply_to: ReplyTo,
    ) -> Result<(), Refusal> {
        self.check_keyspace(row.keyspace)?;
        if !self.admission.admits(class) {
            return Err(Refusal::Overloaded);
        }
        self.admit_stamp(&row)?;
        let expires = self.env.now() + time_left;
        self.committer.submit(Submission { row, partition, expires, reply_to }).inspect_err(|_| {
            self.metrics.writes_refused.inc();
        })
    }

    /// Queues a write that is to be minted here; `reply_to` hears what the row is then, durably.
    ///
    /// # Errors
    /// A [`Refusal`] when it was not even queued; `reply_to` then hears nothing.
    pub(crate) fn mint(
        &self,
        place: (KeyspaceId, PartitionId),
        (key, mint): (Key, Mint),
        time_left: Duration,
        reply_to: ReplyTo,
    ) -> Result<(), Refusal> {
        self.check_keyspace(place.0)?;
        if !self.admission.admits(Class::Client) {
            return Err(Refusal::Overloaded);
        }
        let expires = self.env.now() + time_left;
        let submission = MintSubmission { place, key, mint, expires, reply_to };
        self.committer.submit_mint(submission).inspect_err(|_| {
            self.metrics.writes_refused.inc();
        })
    }

    /// Takes notice of a row's stamp; refuses it when it lies too far ahead of this clock.
    pub(crate) fn admit_stamp(&self, row: &Row) -> Result<(), Refusal> {
        self.clock.observe(row.record.version.timestamp).map_err(|_| {
            self.metrics.clock_offset_refusals.inc();
            Refusal::ClockOffset
        })
    }

    /// What this node holds for a key. May block on the disk.
    pub(crate) fn read(&self, lookup: &Lookup) -> Result<Found, Refusal> {
        let Lookup { keyspace, partition, key, .. } = lookup;
        self.check_keyspace(*keyspace)?;
        // Asked before the row is: what is complete then stays so.
        let complete = self.is_complete();
        let record = self.store.read(*keyspace, *partition, key).map_err(|e| self.refuse(&e))?;
        Ok(found(record, lookup.want, complete))
    }

    /// The same where it need not wait for the disk's sync; `None` where it may have to.
    pub(crate) fn read_at_once(&self, lookup: &Lookup) -> Result<Option<Found>, Refusal> {
        let Lookup { keyspace, partition, key, .. } = lookup;
        self.check_keyspace(*keyspace)?;
        let complete = self.is_complete();
        let read = self.store.read_at_once(*keyspace, *partition, key);
        let record = read.map_err(|error| self.refuse(&error))?;
        Ok(record.map(|record| found(record, lookup.want, complete)))
    }

    /// False while this node may lack rows that it should have.
    pub(crate) fn is_complete(&self) -> bool {
        !self.health.is_rebuilding()
    }

    /// Resolves once everything that was queued for the log by now is durable and visible.
    ///
    /// # Errors
    /// [`Refusal::LogFailed`] when that will not be.
    pub(crate) async fn settle(&self) -> Result<(), Refusal> {
        let (sender, settled) = oneshot::channel();
        self.committer.submit_group(Vec::new(), ReplyTo::Waiter(sender))?;
        settled.await.unwrap_or(Err(Refusal::LogFailed))
    }

    /// One page of a partition's rows. May block on the disk.
    pub(crate) fn scan(&self, scan: &Scan) -> Result<ScanPage, Refusal> {
        self.check_keyspace(scan.keyspace)?;
        let bytes_max = (scan.page_bytes_max as usize).min(SCAN_PAGE_BYTES_MAX);
        self.store
            .scan(scan.keyspace, scan.partition, scan.after.as_ref(), bytes_max)
            .map_err(|error| self.refuse(&error))
    }

    /// What a partition's hash tree, or its rows, say. May block on the disk for as long as it
    /// takes to go through the partition.
    pub(crate) fn answer(
        &self,
        (keyspace, partition): (KeyspaceId, PartitionId),
        question: &Question,
        pass: Pass,
    ) -> Result<Answer, Refusal> {
        self.check_keyspace(keyspace)?;
        if let Question::Rows { buckets, after } = question {
            let buckets: Buckets = buckets.iter().copied().collect();
            let list = self.store.rows_of(keyspace, partition, &buckets, after.clone());
            return list.map(Answer::Rows).map_err(|error| self.refuse(&error));
        }
        let hashed = self.store.hashed(keyspace, partition, pass);
        let hashed = hashed.map_err(|error| self.refuse(&error))?;
        self.metrics.anti_entropy_rows_hashed.inc_by(hashed.rows);
        if hashed.wrong_buckets > 0 {
            let (keyspace, partition, buckets) = (keyspace.0, partition.0, hashed.wrong_buckets);
            tracing::warn!(keyspace, partition, buckets, "rows changed that nobody wrote to");
            self.metrics.anti_entropy_wrong_buckets.inc_by(u64::from(buckets));
        }
        let tree = hashed.tree;
        Ok(Answer::Hashes(match question {
            Question::Branches => tree.branches(),
            Question::Buckets(branches) => {
                branches.iter().take(BRANCHES).flat_map(|branch| tree.buckets(*branch)).collect()
            }
            Question::Root | Question::Rows { .. } => vec![tree.root()],
        }))
    }

    /// One page of what a client wants listed of a partition. May block on the disk.
    pub(crate) fn list(&self, list: &List) -> Result<ListPage, Refusal> {
        self.check_keyspace(list.keyspace)?;
        self.store
            .list(list.keyspace, list.partition, &list.range)
            .map_err(|error| self.refuse(&error))
    }

    /// A keyspace that this node has not heard of has no rows here yet, and gets none: its
    /// replication, and whether it is leaderless at all, is not known.
    fn check_keyspace(&self, keyspace: KeyspaceId) -> Result<(), Refusal> {
        match self.store.has_keyspace(keyspace) {
            true => Ok(()),
            false if self.store.is_dropped(keyspace) => Err(Refusal::KeyspaceDropped),
            false => Err(Refusal::NotServing),
        }
    }

    fn refuse(&self, error: &StoreError) -> Refusal {
        match error {
            StoreError::Corrupt { .. } | StoreError::TooManyCorrupt { .. } => {
                tracing::warn!(%error, "a stored row is damaged; it is repaired from its replicas");
                Refusal::Corrupt
            }
            StoreError::Engine(_) => {
                self.health.fail(format!("the storage engine failed: {error}"));
                Refusal::Storage
            }
        }
    }
}

fn found(record: Option<Record>, want: Want, complete: bool) -> Found {
    let holding = record.map(|record| match want {
        Want::Value => Holding::Record(record),
        Want::Version => Holding::Version(record.version),
    });
    Found { holding, complete }
}
