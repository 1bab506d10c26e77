//! Rows that were applied and are not in the store yet: their outcome is on its way to the log.
//!
//! A command must see what those before it did, and a client's read what was answered; neither
//! waits for the outcome's sync, since the commands themselves are durable on a quorum.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::groups::fetching::{Fetching, FoundRow};
use crate::protocol::group::machine::Rows;
use crate::protocol::group::stored::{Stored, StoredError};
use crate::storage::store::{Store, StoreError};
use crate::types::{Key, KeyspaceId, PartitionId, Record, Revision, Row};

/// The newest rows of one group.
///
/// Invariant: the store has every row of the group up to `published`, and the overlay every one
/// above `trimmed`, which is not newer than that.
#[derive(Debug)]
pub(crate) struct Overlay {
    rows: BTreeMap<(KeyspaceId, Key), Record>,
    published: Revision,
    /// What it was trimmed to last.
    trimmed: Revision,
}

impl Overlay {
    /// Nothing, over a store that has all rows up to that revision.
    pub(crate) fn new(published: Revision) -> Overlay {
        Overlay { rows: BTreeMap::new(), published, trimmed: published }
    }

    /// Adds the rows of one applied entry.
    pub(crate) fn add(&mut self, rows: &[Row]) {
        for row in rows {
            self.rows.insert((row.keyspace, row.key.clone()), row.record.clone());
        }
    }

    /// The store has got all rows up to that revision.
    pub(crate) fn note_published(&mut self, through: Revision) {
        self.published = self.published.max(through);
    }

    /// What the store has all rows up to.
    pub(crate) fn published(&self) -> Revision {
        self.published
    }

    /// Lets go of what the store has, but for rows above a revision that somebody still needs.
    pub(crate) fn trim(&mut self, needed_above: Option<Revision>) {
        let through = needed_above.map_or(self.published, |it| it.min(self.published));
        if through > self.trimmed {
            self.trimmed = through;
            self.rows.retain(|_, record| record.version > through.into());
        }
    }

    /// The keys of all rows.
    pub(crate) fn keys(&self) -> BTreeSet<(KeyspaceId, Key)> {
        self.rows.keys().cloned().collect()
    }

    /// The rows of one keyspace, in key order.
    pub(super) fn rows_of(&self, keyspace: KeyspaceId) -> impl Iterator<Item = (&Key, &Record)> {
        let first = (keyspace, Key::default());
        let from = self.rows.range(first..).take_while(move |((of, _), _)| *of == keyspace);
        from.map(|((_, key), record)| (key, record))
    }

    pub(super) fn get(&self, keyspace: KeyspaceId, key: &Key) -> Option<&Record> {
        self.rows.get(&(keyspace, key.clone()))
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
    /// Rows that are needed are damaged.
    #[error("the stored record of {key:?} in keyspace {} is corrupt", keyspace.0)]
    Damaged {
        /// The keyspace of the rows.
        keyspace: KeyspaceId,
        /// The key of the first.
        key: Key,
    },
    /// Reading it may wait for the disk: it has to be fetched first.
    #[error("a row has to be fetched first")]
    Behind,
}

impl GroupRowError {
    /// Whether rows are damaged, and the store goes on.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            GroupRowError::Store(error) => error.is_damage(),
            GroupRowError::Damaged { .. } => true,
            GroupRowError::Stored(_) | GroupRowError::Behind => false,
        }
    }
}

/// A group's rows, wherever they lie.
pub(crate) struct GroupRows<'a> {
    pub(crate) store: &'a Store,
    pub(crate) overlay: &'a Overlay,
    /// What was fetched of the store for the next commands.
    pub(crate) fetching: &'a Fetching,
    pub(crate) partition: PartitionId,
}

impl GroupRows<'_> {
    /// The record of a key, tombstones included. May wait for the disk.
    pub(crate) fn record(
        &self,
        keyspace: KeyspaceId,
        key: &Key,
    ) -> Result<Option<Record>, StoreError> {
        match self.overlay.get(keyspace, key) {
            Some(record) => Ok(Some(record.clone())),
            None => self.store.read_rising(keyspace, self.partition, key),
        }
    }

    /// The same where it can be told at once; `None` where telling it may wait for the disk.
    pub(crate) fn record_at_once(
        &self,
        keyspace: KeyspaceId,
        key: &Key,
    ) -> Result<Option<Option<Record>>, GroupRowError> {
        if let Some(record) = self.overlay.get(keyspace, key) {
            return Ok(Some(Some(record.clone())));
        }
        match self.fetching.found(keyspace, key) {
            Some(FoundRow::Record(record)) => Ok(Some(record.clone())),
            Some(FoundRow::Damaged) => Err(GroupRowError::Damaged { keyspace, key: key.clone() }),
            None => Ok(self.store.read_rising_at_once(keyspace, self.partition, key)?),
        }
    }
}

impl Rows for GroupRows<'_> {
    type Error = GroupRowError;

    fn stored(&self, keyspace: KeyspaceId, key: &Key) -> Result<Option<Stored>, GroupRowError> {
        let record = self.record_at_once(keyspace, key)?.ok_or(GroupRowError::Behind)?;
        Ok(record.as_ref().map(Stored::from_record).transpose()?)
    }
}
