//! An engine that counts, fails and corrupts on demand.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use crate::storage::engine::{Change, Engine, EngineError, EngineStats, Page};
use crate::storage::memory::MemoryEngine;
use crate::types::{Key, KeyspaceId, Lsn, PartitionId};

pub(super) struct Probe {
    inner: MemoryEngine,
    gets: AtomicU64,
    failing: AtomicBool,
}

impl Probe {
    pub(super) fn new(inner: MemoryEngine) -> Self {
        Probe { inner, gets: AtomicU64::new(0), failing: AtomicBool::new(false) }
    }

    pub(super) fn gets(&self) -> u64 {
        self.gets.load(Ordering::Relaxed)
    }

    pub(super) fn fail_applies(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// Flips the last bit of a row's stored bytes.
    pub(super) fn corrupt(&self, keyspace: KeyspaceId, partition: PartitionId, key: &Key) {
        let mut bytes = self.inner.get(keyspace, partition, key).unwrap().unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let value = Some(Bytes::from(bytes));
        let change = Change { keyspace, partition, key: key.clone(), value };
        self.inner.apply(&[change], Lsn(0)).unwrap();
    }
}

impl Engine for Probe {
    fn create_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        self.inner.create_keyspace(keyspace)
    }

    fn keyspaces(&self) -> BTreeSet<KeyspaceId> {
        self.inner.keyspaces()
    }

    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        self.inner.drop_keyspace(keyspace)
    }

    fn apply(&self, batch: &[Change], last_lsn: Lsn) -> Result<(), EngineError> {
        if self.failing.load(Ordering::Relaxed) {
            let detail = "the test says so".to_owned();
            return Err(EngineError::Failed { during: "applied a batch", detail });
        }
        self.inner.apply(batch, last_lsn)
    }

    fn applied_lsn(&self) -> Lsn {
        self.inner.applied_lsn()
    }

    fn get(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Bytes>, EngineError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.inner.get(keyspace, partition, key)
    }

    fn may_wait(&self) -> bool {
        self.inner.may_wait()
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&Key>,
        rows_max: usize,
    ) -> Result<Page, EngineError> {
        self.inner.scan(keyspace, partition, after, rows_max)
    }

    fn delete_partition(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        rows_max: usize,
    ) -> Result<bool, EngineError> {
        self.inner.delete_partition(keyspace, partition, rows_max)
    }

    fn checkpoint(&self) -> Result<(), EngineError> {
        self.inner.checkpoint()
    }

    fn stats(&self) -> EngineStats {
        self.inner.stats()
    }
}
