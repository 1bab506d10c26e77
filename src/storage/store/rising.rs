//! Keys whose versions only rise, as those of Raft groups do: what memory has of one is newer than
//! whatever lies damaged in the engine, and stands for it.

use super::scan::Sound;
use super::{Store, StoreError, list};
use crate::protocol::message::{ListPage, ListRange};
use crate::storage::memtable::Place;
use crate::types::{Key, KeyspaceId, PartitionId, Record};

impl Store {
    /// As [`Store::read`], of such a key.
    ///
    /// # Errors
    /// As [`Store::read`], where memory has nothing.
    pub fn read_rising(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Record>, StoreError> {
        let read = self.read(keyspace, partition, key);
        read.or_else(|error| self.stand_in((keyspace, partition), key, error).map(Some))
    }

    /// As [`Store::read_at_once`], of such a key.
    ///
    /// # Errors
    /// As [`Store::read`], where memory has nothing.
    pub fn read_rising_at_once(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Option<Record>>, StoreError> {
        let read = self.read_at_once(keyspace, partition, key);
        read.or_else(|error| self.stand_in((keyspace, partition), key, error).map(Some).map(Some))
    }

    /// As [`Store::list`], of such keys.
    ///
    /// # Errors
    /// As [`Store::list`], where memory has nothing of a damaged row.
    pub fn list_rising(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        range: &ListRange,
    ) -> Result<ListPage, StoreError> {
        list::page(self, (keyspace, partition), Sound { range, rises: true })
    }

    fn stand_in(&self, place: Place, key: &Key, error: StoreError) -> Result<Record, StoreError> {
        let held = if error.is_damage() { self.in_memory(place, key) } else { None };
        held.ok_or(error)
    }
}
