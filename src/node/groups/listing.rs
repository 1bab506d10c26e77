//! Lists a group's rows, those applied a moment ago included.
//!
//! A page is put together between two passes of the driver, so it is the state at one moment, with
//! nothing that a command did in part. All groups of the node wait meanwhile, also for what is read
//! of the store where that needs no disk: a page is kept small.

use std::collections::BTreeMap;

use crate::node::groups::overlay::Overlay;
use crate::protocol::group::stored::{Stored, StoredError};
use crate::protocol::message::{ListPage, ListRange};
use crate::storage::store::{Store, StoreError};
use crate::types::{Key, KeyspaceId, PartitionId, Record};

/// Rows of one page: about a millisecond's reading.
const ROWS_MAX: u32 = 256;

/// Bytes of one page.
const BYTES_MAX: u32 = 64 << 10;

/// What is read of the store for a page.
pub(super) fn stored(
    store: &Store,
    (keyspace, partition): (KeyspaceId, PartitionId),
    range: &ListRange,
) -> Result<ListPage, StoreError> {
    // The value says when a row was changed, and so is read even if it is not shown.
    let bounded = ListRange {
        rows_max: range.rows_max.min(ROWS_MAX),
        bytes_max: range.bytes_max.min(BYTES_MAX),
        keys_only: false,
        ..range.clone()
    };
    store.list_rising(keyspace, partition, &bounded)
}

impl Overlay {
    /// A page of the keys that have a value, given what the store has of it.
    pub(super) fn list(
        &self,
        keyspace: KeyspaceId,
        range: &ListRange,
        stored: ListPage,
    ) -> Result<ListPage, StoredError> {
        let ListPage { rows, reached } = stored;
        let mut rows: BTreeMap<Key, Record> = rows.into_iter().collect();
        let within = |key: &Key| range.contains(key) && reached.as_ref().is_none_or(|it| key <= it);
        let newer = self.rows_of(keyspace).filter(|(key, _)| within(key));
        rows.extend(newer.map(|(key, record)| (key.clone(), record.clone())));
        let mut page = ListPage { rows: Vec::new(), reached };
        for (key, record) in rows {
            let Stored { value, modified, .. } = Stored::from_record(&record)?;
            if value.is_some() {
                page.rows.push((key, range.shown(Record::new(modified.into(), value))));
            }
        }
        Ok(page)
    }
}
