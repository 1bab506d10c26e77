//! A page of a partition's rows as a client wants them listed.
//!
//! Unlike a scan for another node, it fails on a row that is damaged: whoever merges the pages of
//! several replicas takes a row that is not in a page for one that the replica lacks.

use super::scan::{self, Sound};
use super::{Store, StoreError};
use crate::protocol::message::{ListPage, ListRange};
use crate::storage::memtable::Place;
use crate::types::{Key, Record};

/// What is read of the store at once.
const CHUNK_BYTES: usize = 16 << 10;

/// A page ends once as many bytes were read for it, whether or not they are in it: values that are
/// left out have to be read all the same.
const READ_BYTES_MAX: usize = 1 << 20;

/// The page.
///
/// # Errors
/// Those of the engine; [`StoreError::Corrupt`] when a row of the range is damaged.
pub(super) fn page(store: &Store, place: Place, sound: Sound<'_>) -> Result<ListPage, StoreError> {
    let range = sound.range;
    let mut filling = Filling { range, page: ListPage::default(), bytes: 0, read_bytes: 0 };
    let prefix = Key(range.prefix.clone());
    let mut after = range.after.clone().filter(|after| *after >= prefix);
    if after.is_none() && !prefix.0.is_empty() {
        // What begins with the prefix lies behind it, but for the prefix itself.
        let read = if sound.rises { Store::read_rising } else { Store::read };
        if let Some(record) = read(store, place.0, place.1, &prefix)? {
            filling.add(prefix.clone(), record);
        }
        after = Some(prefix);
    }
    loop {
        let chunk = scan::chunk(store, place, after.as_ref(), (CHUNK_BYTES, Some(sound)))?;
        for (key, record) in chunk.rows {
            if filling.is_full() {
                return Ok(filling.ended());
            }
            if !key.0.starts_with(&range.prefix) {
                return Ok(filling.page);
            }
            after = Some(key.clone());
            filling.add(key, record);
        }
        if chunk.done {
            return Ok(filling.page);
        }
    }
}

struct Filling<'r> {
    range: &'r ListRange,
    page: ListPage,
    bytes: usize,
    read_bytes: usize,
}

impl Filling<'_> {
    fn add(&mut self, key: Key, record: Record) {
        self.read_bytes += record.value_len();
        let record = self.range.shown(record);
        self.bytes += key.0.len() + record.value_len();
        self.page.rows.push((key, record));
    }

    /// Full only with a row in it, so that the next page begins further on.
    fn is_full(&self) -> bool {
        let rows = self.page.rows.len();
        let full = rows >= self.range.rows_max as usize
            || self.bytes >= self.range.bytes_max as usize
            || self.read_bytes >= READ_BYTES_MAX;
        rows > 0 && full
    }

    /// The page, where more rows follow.
    fn ended(mut self) -> ListPage {
        self.page.reached = self.page.rows.last().map(|(key, _)| key.clone());
        self.page
    }
}
