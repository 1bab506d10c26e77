//! Reap floors, and freeing the room of what they have reaped.
//!
//! What is reaped is hidden at once and by comparison alone, so it does not matter when its room is
//! freed, nor whether a crash brings it back: it stays hidden. Freeing needs no record in the log.

use std::collections::BTreeMap;

use super::{Store, StoreError};
use crate::protocol::reaping::ReapFloor;
use crate::storage::engine::{Change, EngineError};
use crate::storage::memtable::Place;
use crate::storage::record_codec;
use crate::types::{Key, Moment, Record, Timestamp};

/// What one call of [`Store::reap`] came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Rows that were removed.
    pub rows: u64,
    /// The last row that was looked at; `None` when that was the partition's last.
    pub after: Option<Key>,
}

impl Store {
    /// Takes over the reap floors that hold from now on; places that are not named have none.
    pub fn set_floors(&self, floors: BTreeMap<Place, ReapFloor>) {
        let before = std::mem::replace(&mut *self.floors.write(), floors.clone());
        let risen = floors.into_iter().filter(|(place, floor)| before.get(place) != Some(floor));
        // Rows have gone from these without a mark.
        risen.for_each(|(place, _)| self.trees.forget(place));
    }

    pub(super) fn floor(&self, place: Place) -> ReapFloor {
        self.floors.read().get(&place).copied().unwrap_or_default()
    }

    /// Whether a record is hidden. Most have a value that stays, and cost nothing.
    pub(super) fn is_reaped(&self, place: Place, record: &Record) -> bool {
        let may_go = record.value.is_none() || record.expires_at.is_some();
        may_go && self.floor(place).reaps(record)
    }

    /// Frees the room of what is reaped among the next `rows_max` (at least one) rows of a
    /// partition that lie in the engine. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Engine`].
    pub fn reap(
        &self,
        place: Place,
        after: Option<&Key>,
        rows_max: usize,
    ) -> Result<Reaped, StoreError> {
        let (keyspace, partition) = place;
        // Nobody else changes the engine meanwhile.
        let _feeding = self.feeding.lock();
        let page = match self.engine.scan(keyspace, partition, after, rows_max) {
            Err(EngineError::UnknownKeyspace { .. }) => return Ok(Reaped::default()),
            page => page?,
        };
        let last = page.rows.last().map(|(key, _)| key.clone());
        let floor = self.floor(place);
        let is_reaped = |(key, bytes): &(Key, bytes::Bytes)| {
            record_codec::decode(key, bytes).is_ok_and(|record| floor.reaps(&record))
        };
        let gone: Vec<Change> = page
            .rows
            .into_iter()
            .filter(is_reaped)
            .map(|(key, _)| Change { keyspace, partition, key, value: None })
            .collect();
        let rows = gone.len() as u64;
        if rows > 0 {
            self.engine.apply(&gone, self.engine.applied_lsn())?;
        }
        Ok(Reaped { rows, after: last.filter(|_| !page.done) })
    }

    /// Drops the rows in memory with stamps up to this one. To be called after the log was
    /// replayed without the engine that it belongs to: a row that came late lies in the log, and
    /// the newer one that it lost against does not.
    pub fn forget_up_to(&self, at: Timestamp, now: Moment) {
        self.tables.read().active.forget_up_to(at, now);
    }
}
