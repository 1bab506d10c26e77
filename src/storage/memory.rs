//! An engine without files: deterministic, and honest about what a crash takes away.
//!
//! A [`MemoryDisk`] holds what the last checkpoint made durable and outlives the engine. To crash,
//! drop the engine and open another on the same disk: everything since the checkpoint is gone, as
//! it is after a power loss with files. Simulations and tests run on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::storage::engine::{Change, Engine, EngineError, EngineStats, Page};
use crate::types::{Key, KeyspaceId, Lsn, PartitionId};

/// What survives the engine.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    durable: Mutex<Image>,
}

impl MemoryDisk {
    /// A disk on which nothing was ever written.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether a row is durable.
    pub fn holds(&self, (keyspace, partition): (KeyspaceId, PartitionId), key: &Key) -> bool {
        let image = self.durable.lock();
        let rows = image.partition(keyspace, partition).ok().flatten();
        rows.is_some_and(|rows| rows.contains_key(key))
    }

    /// Flips the last bit of a durable row, if there is one; an engine that is open on the disk
    /// does not notice.
    pub fn damage(&self, (keyspace, partition): (KeyspaceId, PartitionId), key: &Key) {
        let mut image = self.durable.lock();
        let rows = image.keyspaces.get_mut(&keyspace).and_then(|all| all.get_mut(&partition));
        if let Some(value) = rows.and_then(|rows| Arc::make_mut(rows).get_mut(key)) {
            let mut bytes = value.to_vec();
            bytes.iter_mut().rev().take(1).for_each(|last| *last ^= 1);
            *value = bytes.into();
        }
    }

    /// Makes this disk as another one is, as putting a copy back does; an engine that is open on it
    /// does not notice.
    pub fn copy_from(&self, other: &MemoryDisk) {
        let image = other.durable.lock().clone();
        *self.durable.lock() = image;
    }
}

/// An [`Engine`] in ordinary maps.
#[derive(Debug)]
pub struct MemoryEngine {
    disk: Arc<MemoryDisk>,
    image: RwLock<Image>,
    checkpoints: AtomicU64,
    unsettled: AtomicBool,
}

impl MemoryEngine {
    /// An engine that holds what the disk does.
    pub fn open(disk: Arc<MemoryDisk>) -> Self {
        let image = RwLock::new(disk.durable.lock().clone());
        let (checkpoints, unsettled) = (AtomicU64::new(0), AtomicBool::new(false));
        MemoryEngine { disk, image, checkpoints, unsettled }
    }
}

impl Engine for MemoryEngine {
    fn create_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        self.image.write().keyspaces.entry(keyspace).or_default();
        Ok(())
    }

    fn keyspaces(&self) -> BTreeSet<KeyspaceId> {
        self.image.read().keyspaces.keys().copied().collect()
    }

    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        self.image.write().keyspaces.remove(&keyspace);
        Ok(())
    }

    fn apply(&self, batch: &[Change], last_lsn: Lsn) -> Result<(), EngineError> {
        let mut image = self.image.write();
        self.unsettled.store(true, Ordering::Relaxed);
        for change in batch {
            image.change(change)?;
        }
        image.applied = image.applied.max(last_lsn);
        Ok(())
    }

    fn applied_lsn(&self) -> Lsn {
        self.image.read().applied
    }

    fn get(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Bytes>, EngineError> {
        let image = self.image.read();
        let rows = image.partition(keyspace, partition)?;
        Ok(rows.and_then(|rows| rows.get(key).cloned()))
    }

    /// It never waits, and says when an engine on files might.
    fn may_wait(&self) -> bool {
        self.unsettled.load(Ordering::Relaxed)
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&Key>,
        rows_max: usize,
    ) -> Result<Page, EngineError> {
        let image = self.image.read();
        let Some(rows) = image.partition(keyspace, partition)? else {
            return Ok(Page { rows: Vec::new(), done: true });
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut above = rows.range::<Key, _>((from, Bound::Unbounded));
        let page = above.by_ref().take(rows_max.max(1));
        let rows = page.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Page { rows, done: above.next().is_none() })
    }

    fn delete_partition(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        rows_max: usize,
    ) -> Result<bool, EngineError> {
        let mut image = self.image.write();
        self.unsettled.store(true, Ordering::Relaxed);
        let partitions = image.keyspace_mut(keyspace)?;
        let Some(rows) = partitions.get_mut(&partition).map(Arc::make_mut) else {
            return Ok(true);
        };
        for _ in 0..rows_max {
            rows.pop_first();
        }
        Ok(rows.is_empty())
    }

    fn checkpoint(&self) -> Result<(), EngineError> {
        let image = self.image.read();
        *self.disk.durable.lock() = image.clone();
        self.unsettled.store(false, Ordering::Relaxed);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn stats(&self) -> EngineStats {
        EngineStats { checkpoints: self.checkpoints.load(Ordering::Relaxed), ..Default::default() }
    }
}

/// A partition's rows; shared between the engine and its disk until either changes them, so that a
/// checkpoint costs as much as there are partitions, not rows.
type Rows = Arc<BTreeMap<Key, Bytes>>;

#[derive(Clone, Debug, Default)]
struct Image {
    keyspaces: BTreeMap<KeyspaceId, BTreeMap<PartitionId, Rows>>,
    applied: Lsn,
}

impl Image {
    fn keyspace_mut(
        &mut self,
        keyspace: KeyspaceId,
    ) -> Result<&mut BTreeMap<PartitionId, Rows>, EngineError> {
        self.keyspaces.get_mut(&keyspace).ok_or(EngineError::UnknownKeyspace { keyspace })
    }

    fn partition(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
    ) -> Result<Option<&Rows>, EngineError> {
        let partitions =
            self.keyspaces.get(&keyspace).ok_or(EngineError::UnknownKeyspace { keyspace })?;
        Ok(partitions.get(&partition))
    }

    fn change(&mut self, change: &Change) -> Result<(), EngineError> {
        let partitions = self.keyspace_mut(change.keyspace)?;
        let rows = Arc::make_mut(partitions.entry(change.partition).or_default());
        match &change.value {
            Some(value) => rows.insert(change.key.clone(), value.clone()),
            None => rows.remove(&change.key),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::engine::conformance::{Harness, conformance_tests};

    struct Memory {
        disk: Arc<MemoryDisk>,
        engine: MemoryEngine,
    }

    impl Harness for Memory {
        fn start() -> Self {
            let disk = MemoryDisk::new();
            Memory { engine: MemoryEngine::open(Arc::clone(&disk)), disk }
        }

        fn engine(&self) -> &dyn Engine {
            &self.engine
        }

        fn crash(&mut self) {
            self.engine = MemoryEngine::open(Arc::clone(&self.disk));
        }
    }

    conformance_tests!(Memory);

    #[test]
    fn a_crash_takes_what_no_checkpoint_covered() {
        let mut memory = Memory::start();
        memory.engine.create_keyspace(KeyspaceId(1)).unwrap();
        memory.engine.checkpoint().unwrap();
        let row = Change {
            keyspace: KeyspaceId(1),
            partition: PartitionId(0),
            key: Key::from("k"),
            value: Some(Bytes::from_static(b"v")),
        };
        memory.engine.apply(&[row], Lsn(7)).unwrap();
        memory.crash();
        let held = memory.engine.get(KeyspaceId(1), PartitionId(0), &Key::from("k")).unwrap();
        assert_eq!((held, memory.engine.applied_lsn()), (None, Lsn(0)));
    }
}
