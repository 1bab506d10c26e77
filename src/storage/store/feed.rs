//! Feeding the frozen table to the engine, a slice at a time, in the order in which engines keep
//! rows.

use std::collections::BTreeSet;

use super::{Store, StoreError, watermark};
use crate::protocol::version::lww::supersedes;
use crate::storage::engine::{Change, EngineError};
use crate::storage::memtable::{Memtable, Place};
use crate::storage::record_codec;
use crate::types::{Key, KeyspaceId, Record, Timestamp};

/// What one call of [`Store::feed`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Rows of the frozen table that were dealt with; not all need be written, as the engine may
    /// hold newer ones.
    pub rows: usize,
    /// True when nothing is frozen any more.
    pub done: bool,
}

/// How far feeding has come; its lock keeps two feeders from each other's way.
#[derive(Debug)]
pub(super) struct Feeding {
    /// The watermark that the engine holds.
    watermark: Timestamp,
    cursor: Option<Cursor>,
}

impl Feeding {
    /// Nothing is being fed.
    pub(super) fn idle(watermark: Timestamp) -> Self {
        Feeding { watermark, cursor: None }
    }
}

/// Feeds the next `rows_max` rows.
///
/// # Errors
/// Those of the engine; then nothing counts as fed.
pub(super) fn next_slice(store: &Store, rows_max: usize) -> Result<Fed, StoreError> {
    let mut feeding = store.feeding.lock();
    let Some(frozen) = store.tables.read().frozen.clone() else {
        return Ok(Fed { rows: 0, done: true });
    };
    let cursor = match feeding.cursor.take() {
        Some(cursor) => cursor,
        None => begin(store, &mut feeding, &frozen)?,
    };
    // On an error the cursor stays taken and feeding begins anew, which the engine does not mind.
    let cursor = match cursor.clear_next(store, rows_max)? {
        Clearing::Done(cursor) => cursor,
        Clearing::More(cursor) => {
            feeding.cursor = Some(cursor);
            return Ok(Fed { rows: 0, done: false });
        }
    };
    let slice = cursor.slice(&frozen, rows_max);
    let changes = changes_of(store, &frozen, &slice.rows)?;
    let covered = match slice.next {
        Some(_) => None,
        None => frozen.totals().highest_lsn,
    };
    if slice.next.is_none() {
        // Before the engine claims to have applied the log's records of it.
        for keyspace in frozen.dropped() {
            store.engine.drop_keyspace(keyspace)?;
        }
    }
    store.engine.apply(&changes, covered.unwrap_or_else(|| store.engine.applied_lsn()))?;
    let fed = Fed { rows: slice.rows.len(), done: slice.next.is_none() };
    feeding.cursor = slice.next;
    if fed.done {
        let emptied = store.tables.write().frozen.take();
        // Freed after the lock is, as it takes milliseconds.
        drop(emptied);
    }
    Ok(fed)
}

/// The first row that is still to be fed.
#[derive(Debug)]
struct Cursor {
    /// Partitions of which the engine has to delete the rows before any row is fed.
    clearing: Vec<Place>,
    places: Vec<Place>,
    /// Index into `places`.
    at: usize,
    /// The last row of that place that was fed.
    after: Option<Key>,
}

struct Slice {
    rows: Vec<(Place, Key, Record)>,
    /// `None` when no rows follow.
    next: Option<Cursor>,
}

fn begin(store: &Store, feeding: &mut Feeding, frozen: &Memtable) -> Result<Cursor, StoreError> {
    let watermark = feeding.watermark.max(frozen.totals().highest_stamp);
    if watermark > feeding.watermark {
        watermark::store(&*store.engine, watermark)?;
        feeding.watermark = watermark;
    }
    let places = frozen.places();
    // Rows may come from a group, or come back from the log, before this node has heard that their
    // keyspace exists.
    let keyspaces: BTreeSet<KeyspaceId> = places.iter().map(|(keyspace, _)| *keyspace).collect();
    keyspaces.into_iter().try_for_each(|keyspace| store.create_keyspace(keyspace))?;
    let clearing = frozen.cleared().into_iter().collect();
    Ok(Cursor { clearing, places, at: 0, after: None })
}

/// How far the engine is with deleting.
enum Clearing {
    Done(Cursor),
    More(Cursor),
}

impl Cursor {
    /// Has the engine delete up to `rows_max` rows of a partition whose older rows are void.
    fn clear_next(mut self, store: &Store, rows_max: usize) -> Result<Clearing, StoreError> {
        let Some((keyspace, partition)) = self.clearing.last().copied() else {
            return Ok(Clearing::Done(self));
        };
        let emptied = match store.engine.delete_partition(keyspace, partition, rows_max) {
            // It was dropped, or never had rows in the engine.
            Err(EngineError::UnknownKeyspace { .. }) => true,
            emptied => emptied?,
        };
        if emptied {
            self.clearing.pop();
        }
        Ok(Clearing::More(self))
    }

    fn slice(mut self, frozen: &Memtable, rows_max: usize) -> Slice {
        let mut rows = Vec::with_capacity(rows_max.min(frozen.totals().rows));
        while let Some(&place) = self.places.get(self.at) {
            if rows.len() == rows_max {
                return Slice { rows, next: Some(self) };
            }
            let stretch = frozen.stretch(place, self.after.as_ref(), rows_max - rows.len());
            if stretch.done {
                self.at += 1;
                self.after = None;
            } else {
                self.after = stretch.rows.last().map(|(key, _)| key.clone());
            }
            rows.extend(stretch.rows.into_iter().map(|(key, record)| (place, key, record)));
        }
        Slice { rows, next: None }
    }
}

/// What the rows change in the engine; those of dropped keyspaces change nothing.
fn changes_of(
    store: &Store,
    frozen: &Memtable,
    rows: &[(Place, Key, Record)],
) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::with_capacity(rows.len());
    let dropped = store.tables.read().dropped.clone();
    for (place, key, record) in rows.iter().filter(|(place, ..)| !dropped.contains(&place.0)) {
        if frozen.dominates(record) || is_newer_than_stored(store, *place, key, record)? {
            let value = Some(record_codec::encode(key, record));
            let (keyspace, partition) = *place;
            changes.push(Change { keyspace, partition, key: key.clone(), value });
        }
    }
    Ok(changes)
}

/// A corrupt row of the engine counts as absent, and is overwritten.
fn is_newer_than_stored(
    store: &Store,
    (keyspace, partition): Place,
    key: &Key,
    record: &Record,
) -> Result<bool, StoreError> {
    match store.stored(keyspace, partition, key) {
        Ok(stored) => Ok(stored.is_none_or(|stored| supersedes(record, &stored))),
        Err(StoreError::Corrupt { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}
