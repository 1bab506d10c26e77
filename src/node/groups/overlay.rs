//! Rows that were applied and are not in the store yet: their outcome is on its way to the log.
//!
//! A command must see what those before it did, and a client's read what was answered; neither
//! waits for the outcome's sync, since the commands themselves are durable on a quorum.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::group::machine::Rows;
use crate::protocol::group::stored::{Stored, StoredError};
use crate::storage::store::{Store, StoreError};
use crate::types::{Key, KeyspaceId, PartitionId, Record, Revision, Row};

/// The newest rows of one group.
#[derive(Debug, Default)]
pub(crate) struct Overlay(BTreeMap<(KeyspaceId, Key), Record>);

impl Overlay {
    /// Adds the rows of one applied entry.
    pub(crate) fn add(&mut self, rows: &[Row]) {
        for row in rows {
            self.0.insert((row.keyspace, row.key.clone()), row.record.clone());
        }
    }

    /// Lets go of what the store has got: rows up to that revision.
    pub(crate) fn published(&mut self, through: Revision) {
        self.0.retain(|_, record| record.version > through.into());
    }

    /// The keys of all rows.
    pub(crate) fn keys(&self) -> BTreeSet<(KeyspaceId, Key)> {
        self.0.keys().cloned().collect()
    }

    /// The rows of one keyspace, in key order.
    pub(super) fn rows_of(&self, keyspace: KeyspaceId) -> impl Iterator<Item = (&Key, &Record)> {
        let first = (keyspace, Key::default());
        let from = self.0.range(first..).take_while(move |((of, _), _)| *of == keyspace);
        from.map(|((_, key), record)| (key, record))
    }

    fn get(&self, keyspace: KeyspaceId, key: &Key) -> Option<&Record> {
        self.0.get(&(keyspace, key.clone()))
    }
}

/// Why a row of a group could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupRowError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The row is none that a group writes.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

/// A group's rows, wherever they lie.
pub(crate) struct GroupRows<'a> {
    pub(crate) store: &'a Store,
    pub(crate) overlay: &'a Overlay,
    pub(crate) partition: PartitionId,
}

impl GroupRows<'_> {
    /// The record of a key, tombstones included.
    pub(crate) fn record(
        &self,
        keyspace: KeyspaceId,
        key: &Key,
    ) -> Result<Option<Record>, StoreError> {
        match self.overlay.get(keyspace, key) {
            Some(record) => Ok(Some(record.clone())),
            None => self.store.read(keyspace, self.partition, key),
        }
    }
}

impl Rows for GroupRows<'_> {
    type Error = GroupRowError;

    fn stored(&self, keyspace: KeyspaceId, key: &Key) -> Result<Option<Stored>, GroupRowError> {
        let record = self.record(keyspace, key)?;
        Ok(record.as_ref().map(Stored::from_record).transpose()?)
    }
}
