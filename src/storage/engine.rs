//! The seam to the table that keeps rows on disk.
//!
//! An engine is fed in log order by one caller and need not be durable between checkpoints: the
//! write-ahead log holds everything since the last one. It stores bytes; records, versions and
//! checksums are the business of [`crate::storage::store`].

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::types::{Key, KeyspaceId, Lsn, PartitionId};

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine's own failure; after one of these nothing that it holds may be trusted to
    /// become durable.
    #[error("engine failed while it {during}: {detail}")]
    Failed {
        /// What it was doing, as a verb in the past tense.
        during: &'static str,
        /// The library's own words.
        detail: String,
    },
    /// What it holds contradicts itself.
    #[error("engine holds damaged data: {detail}")]
    Damaged {
        /// What was found, and where.
        detail: String,
    },
    /// No such keyspace was created.
    #[error("engine has no keyspace {}", keyspace.0)]
    UnknownKeyspace {
        /// The keyspace asked for.
        keyspace: KeyspaceId,
    },
}

/// One change of a batch: later changes of a batch win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The keyspace of the key.
    pub keyspace: KeyspaceId,
    /// The partition of the key.
    pub partition: PartitionId,
    /// The key.
    pub key: Key,
    /// The bytes to store; `None` removes the row.
    pub value: Option<Bytes>,
}

/// Rows of one partition, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The rows.
    pub rows: Vec<(Key, Bytes)>,
    /// False when more rows follow the last one.
    pub done: bool,
}

/// What an engine reports of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Bytes that its files take on disk; 0 in memory.
    pub disk_bytes: u64,
    /// Durable checkpoints since it was opened.
    pub checkpoints: u64,
    /// How often it was helped on because a call took long; 0 in memory.
    pub nudges: u64,
}

/// A table of rows, by keyspace, partition and key.
pub trait Engine: Send + Sync {
    /// Makes a keyspace; making one that exists does nothing.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    fn create_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError>;

    /// The keyspaces that were made and not dropped.
    fn keyspaces(&self) -> BTreeSet<KeyspaceId>;

    /// Drops a keyspace and its rows; dropping one that does not exist does nothing. May block for
    /// long; other keyspaces are served meanwhile. Not to be called while another call makes the
    /// same keyspace.
    ///
    /// # Errors
    /// [`EngineError::Failed`].
    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError>;

    /// Applies changes in order, visible on return and not yet durable, and notes that everything
    /// up to `last_lsn` has been applied. Applying a batch again changes nothing.
    ///
    /// # Errors
    /// Any [`EngineError`]; part of the batch may have been applied.
    fn apply(&self, batch: &[Change], last_lsn: Lsn) -> Result<(), EngineError>;

    /// The highest `last_lsn` that was applied; after a crash, at least that of the last
    /// checkpoint.
    fn applied_lsn(&self) -> Lsn;

    /// The bytes stored for a key.
    ///
    /// # Errors
    /// Any [`EngineError`].
    fn get(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Bytes>, EngineError>;

    /// Whether [`Engine::get`] may wait until changes are durable that were applied a moment ago,
    /// by whichever caller.
    fn may_wait(&self) -> bool;

    /// Rows of a partition above `after`, in key order, at most `rows_max` (at least one).
    ///
    /// # Errors
    /// Any [`EngineError`].
    fn scan(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&Key>,
        rows_max: usize,
    ) -> Result<Page, EngineError>;

    /// Removes up to `rows_max` rows of a partition; true once none are left.
    ///
    /// # Errors
    /// Any [`EngineError`].
    fn delete_partition(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        rows_max: usize,
    ) -> Result<bool, EngineError>;

    /// Makes everything applied so far survive a power loss. Blocks for tens of milliseconds.
    ///
    /// # Errors
    /// [`EngineError::Failed`]: the engine must not be used again by this process.
    fn checkpoint(&self) -> Result<(), EngineError>;

    /// Sizes and counts for metrics.
    fn stats(&self) -> EngineStats;
}

#[cfg(test)]
pub(crate) mod conformance;
