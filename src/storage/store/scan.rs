//! One partition in key order, merged from the tables in memory and the engine.
//!
//! Each source gives a stretch of rows and says up to where it is complete. Merged, they are
//! complete up to the least of these keys; what lies above it waits for the next stretch.
//!
//! A row that is damaged in the engine is not listed, and its key is named: what a table has of it
//! may be older.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Store, StoreError};
use crate::protocol::message::{ListRange, ScanPage};
use crate::protocol::reaping::ReapFloor;
use crate::protocol::version::lww::supersedes;
use crate::storage::engine::{EngineError, Page};
use crate::storage::memtable::{Memtable, Place, Stretch};
use crate::storage::record_codec;
use crate::types::{Key, KeyspaceId, Record, Row};

/// A page of at least `page_bytes_max` unless the partition ends before.
///
/// # Errors
/// Those of the engine; [`StoreError::TooManyCorrupt`].
pub(super) fn page(
    store: &Store,
    place: Place,
    after: Option<&Key>,
    page_bytes_max: usize,
) -> Result<ScanPage, StoreError> {
    chunk(store, place, after, (page_bytes_max, None))
}

/// Where no row may be damaged.
#[derive(Clone, Copy)]
pub(super) struct Sound<'r> {
    /// These keys.
    pub(super) range: &'r ListRange,
    /// Whether versions only rise there, so that what a table has is newer than what is damaged.
    pub(super) rises: bool,
}

/// The same; fails on a row that is damaged, if it is where none may be.
///
/// # Errors
/// Those of the engine; [`StoreError::Corrupt`]; [`StoreError::TooManyCorrupt`].
pub(super) fn chunk(
    store: &Store,
    place: Place,
    after: Option<&Key>,
    (page_bytes_max, sound): (usize, Option<Sound<'_>>),
) -> Result<ScanPage, StoreError> {
    if store.is_dropped(place.0) {
        return Ok(ScanPage { done: true, ..ScanPage::default() });
    }
    let Older { tables, engine } = older(store, place);
    let (floor, page) = (store.floor(place), ScanPage::default());
    let mut page = Filling { keyspace: place.0, floor, page, bytes_left: page_bytes_max };
    let mut after = after.cloned();
    loop {
        let rows_max = (page.bytes_left / ROW_BYTES_LEAST).clamp(1, STRETCH_ROWS_MAX);
        let mut merged = Merged::default();
        for table in &tables {
            merged.add(table.stretch(place, after.as_ref(), rows_max));
        }
        if engine {
            let is_covered =
                |key: &Key| tables.iter().any(|it| it.get(place.0, place.1, key).is_some());
            let may_be_damaged = |key: &Key| {
                sound.is_none_or(|it| !it.range.contains(key) || (it.rises && is_covered(key)))
            };
            let (source, damaged) =
                stored(store, place, (after.as_ref(), rows_max), may_be_damaged)?;
            merged.add(source);
            merged.damaged = damaged;
        }
        let complete_to = merged.complete_to.clone();
        let has_room = page.fill(merged);
        if let Some(key) = page.page.damaged.get(DAMAGED_MAX) {
            return Err(StoreError::TooManyCorrupt { keyspace: place.0, key: key.clone() });
        }
        if !has_room {
            return Ok(page.page);
        }
        if complete_to.is_none() {
            page.page.done = true;
            return Ok(page.page);
        }
        after = complete_to;
    }
}

/// Rows to take from each source at once. A page of the usual 100-byte rows and 64 KiB has 400.
const STRETCH_ROWS_MAX: usize = 256;

/// What any row costs at least, so that a small page does not load many rows in vain.
const ROW_BYTES_LEAST: usize = 64;

/// What there is to look at.
struct Older {
    tables: Vec<Arc<Memtable>>,
    /// Whether the engine's rows count.
    engine: bool,
}

/// Taken before the engine is asked: what moves there meanwhile is seen twice, never missed.
/// Nothing counts that is older than a table for which it is void.
fn older(store: &Store, place: Place) -> Older {
    let tables = store.tables.read();
    let mut looked_at = Older { tables: vec![Arc::clone(&tables.active)], engine: false };
    if tables.active.is_cleared(place) {
        return looked_at;
    }
    looked_at.tables.extend(tables.frozen.clone());
    looked_at.engine = !tables.frozen.as_ref().is_some_and(|frozen| frozen.is_cleared(place));
    looked_at
}

/// Damaged rows that a page names; where there are more, something else is wrong than a few bits.
const DAMAGED_MAX: usize = 1024;

/// A stretch of the engine's rows, with the last key that it covers although it may be corrupt, and
/// the keys of those that are.
fn stored(
    store: &Store,
    (keyspace, partition): Place,
    (after, rows_max): (Option<&Key>, usize),
    may_be_damaged: impl Fn(&Key) -> bool,
) -> Result<(Source, BTreeSet<Key>), StoreError> {
    let page = match store.engine.scan(keyspace, partition, after, rows_max) {
        Err(EngineError::UnknownKeyspace { .. }) => Page { rows: Vec::new(), done: true },
        page => page?,
    };
    let last = page.rows.last().map(|(key, _)| key.clone());
    let (mut rows, mut damaged) = (Vec::with_capacity(page.rows.len()), BTreeSet::new());
    for (key, bytes) in page.rows {
        match record_codec::decode(&key, &bytes) {
            Ok(record) => rows.push((key, record)),
            Err(source) => {
                let error = store.corrupt(keyspace, &key, source);
                if !may_be_damaged(&key) {
                    return Err(error);
                }
                damaged.insert(key);
            }
        }
    }
    Ok((Source { rows, complete_to: last.filter(|_| !page.done) }, damaged))
}

/// Rows in key order, and the key up to which no other follow; `None` when that is the end.
struct Source {
    rows: Vec<(Key, Record)>,
    complete_to: Option<Key>,
}

impl From<Stretch> for Source {
    fn from(stretch: Stretch) -> Self {
        let last = stretch.rows.last().map(|(key, _)| key.clone());
        Source { rows: stretch.rows, complete_to: last.filter(|_| !stretch.done) }
    }
}

#[derive(Default)]
struct Merged {
    rows: BTreeMap<Key, Record>,
    damaged: BTreeSet<Key>,
    complete_to: Option<Key>,
}

impl Merged {
    fn add(&mut self, source: impl Into<Source>) {
        let Source { rows, complete_to } = source.into();
        for (key, record) in rows {
            match self.rows.entry(key) {
                Entry::Vacant(free) => drop(free.insert(record)),
                Entry::Occupied(mut held) if supersedes(&record, held.get()) => {
                    held.insert(record);
                }
                Entry::Occupied(_) => {}
            }
        }
        self.complete_to = match (self.complete_to.take(), complete_to) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

struct Filling {
    keyspace: KeyspaceId,
    floor: ReapFloor,
    page: ScanPage,
    bytes_left: usize,
}

impl Filling {
    /// Takes rows up to where they are complete; false once the page is full and rows are left.
    fn fill(&mut self, merged: Merged) -> bool {
        let Merged { rows, damaged, complete_to } = merged;
        let complete = |key: &Key| complete_to.as_ref().is_none_or(|last| key <= last);
        let mut is_full = false;
        for (key, record) in rows.into_iter().take_while(|(key, _)| complete(key)) {
            if self.floor.reaps(&record) {
                continue;
            }
            is_full = self.bytes_left == 0 && !self.page.rows.is_empty();
            if is_full {
                break;
            }
            let row = Row { keyspace: self.keyspace, key, record };
            self.bytes_left = self.bytes_left.saturating_sub(row.cost_bytes());
            self.page.rows.push((row.key, row.record));
        }
        // What lies behind a full page is named by the next.
        let last = self.page.rows.last().map(|(key, _)| key).filter(|_| is_full);
        let within = |key: &Key| complete(key) && last.is_none_or(|last| key <= last);
        self.page.damaged.extend(damaged.into_iter().filter(within));
        let may_go_on = self.bytes_left > 0 || self.page.rows.is_empty() || complete_to.is_none();
        may_go_on && !is_full
    }
}
