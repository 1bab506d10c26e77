//! A replica's table: what is acknowledged, wherever it lies.
//!
//! A row is published once the log holds it durably. It lies in the **active** memtable; when that
//! is frozen, in the **frozen** one, which is fed to the engine slice by slice in key order; and
//! then in the engine. Reads merge all three by version, so they never notice.
//!
//! Two numbers tie the tables together.
//!
//! * *LSN.* One task publishes, in log order, and freezing waits for a call of `publish` to end. So
//!   each table covers the log up to its highest LSN, together with the tables before it. The
//!   engine is told that LSN only with the last slice; until then a crash replays the lot.
//! * *Floor.* No row that is older than a table bears a stamp above the table's floor. A row
//!   stamped above it wins without the engine being asked, by reads and by feeding alike, which
//!   spares nearly every write a read. The floor that feeding raises is stored in the engine,
//!   ahead of the rows, so that it holds after a restart: see `watermark`.
//!
//! A keyspace that is dropped is gone for readers at once, and no row of it is taken in any more.
//! The table that is active at that moment notes the drop; the engine drops the keyspace when that
//! table has been fed, and so before the log lets go of the record that says so. Rows of it that
//! lie in memory are passed over by feeding.
//!
//! A partition that has moved away is dropped in the same way, but for the rows that come later:
//! the table that is active notes that everything older is void, forgets its own rows, and has the
//! engine delete its rows before it is fed.
//!
//! Tombstones and expired values that a reap floor covers read as absent from the moment that the
//! store is told of the floor; their room is freed later: see `reap`.
//!
//! Invariants:
//! * Rows reach the engine through a store only.
//! * No keyspace that the engine lacks makes reading or feeding fail: it reads as empty, and
//!   feeding makes it. So a row that was acknowledged comes back from the log whatever the engine
//!   forgot, and no peer can end this node's promises by naming a keyspace. Whose rows are to be
//!   accepted is for the replica to say.

mod feed;
mod list;
mod reap;
mod rising;
mod scan;
mod trees;
mod watermark;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

pub use self::feed::Fed;
use self::feed::Feeding;
pub use self::reap::Reaped;
use self::scan::Sound;
pub use self::trees::{Hashed, Pass};
use self::trees::{Marks, Trees};
use crate::protocol::merkle::Buckets;
use crate::protocol::message::tree::RowList;
use crate::protocol::message::{ListPage, ListRange, ScanPage};
use crate::protocol::reaping::ReapFloor;
use crate::protocol::version::lww::supersedes;
use crate::storage::engine::{Engine, EngineError, EngineStats};
use crate::storage::memtable::{Memtable, Place};
use crate::storage::record_codec::{self, CorruptRecord};
use crate::types::{Key, KeyspaceId, Lsn, Moment, PartitionId, Record, Row};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine's bytes for a key are not a record, and no memtable has one that would win
    /// whatever they were.
    #[error("the stored record of {key:?} in keyspace {} is corrupt", keyspace.0)]
    Corrupt {
        /// The keyspace of the key.
        keyspace: KeyspaceId,
        /// The key.
        key: Key,
        /// What is wrong with the bytes.
        source: CorruptRecord,
    },
    /// So many rows of a partition are corrupt that they are not told one by one.
    #[error("more than a thousand records about {key:?} in keyspace {} are corrupt", keyspace.0)]
    TooManyCorrupt {
        /// The keyspace of the rows.
        keyspace: KeyspaceId,
        /// The key of one of them.
        key: Key,
    },
}

impl StoreError {
    /// Whether rows are damaged, and the store goes on.
    pub fn is_damage(&self) -> bool {
        matches!(self, StoreError::Corrupt { .. } | StoreError::TooManyCorrupt { .. })
    }
}

/// The rows of a node.
pub struct Store {
    engine: Arc<dyn Engine>,
    tables: RwLock<Tables>,
    feeding: Mutex<Feeding>,
    corrupt_rows: AtomicU64,
    trees: Trees,
    floors: RwLock<BTreeMap<Place, ReapFloor>>,
}

impl Store {
    /// A store over an engine, with nothing in memory; the log's tail is to be published next.
    ///
    /// # Errors
    /// [`StoreError::Engine`] when the engine's watermark cannot be read.
    pub fn new(engine: Arc<dyn Engine>) -> Result<Self, StoreError> {
        let stored = watermark::load(&*engine)?;
        let tables = Tables {
            active: Arc::new(Memtable::new(stored)),
            frozen: None,
            made: engine.keyspaces(),
            dropped: BTreeSet::new(),
        };
        Ok(Store {
            engine,
            tables: RwLock::new(tables),
            feeding: Mutex::new(Feeding::idle(stored)),
            corrupt_rows: AtomicU64::new(0),
            trees: Trees::default(),
            floors: RwLock::default(),
        })
    }

    /// Makes a keyspace; making one that exists, or that this store has dropped, does nothing.
    ///
    /// # Errors
    /// [`StoreError::Engine`].
    pub fn create_keyspace(&self, keyspace: KeyspaceId) -> Result<(), StoreError> {
        let is_settled =
            |tables: &Tables| tables.made.contains(&keyspace) || tables.dropped.contains(&keyspace);
        if is_settled(&self.tables.read()) {
            return Ok(());
        }
        self.engine.create_keyspace(keyspace)?;
        let mut tables = self.tables.write();
        if !tables.dropped.contains(&keyspace) {
            tables.made.insert(keyspace);
        }
        Ok(())
    }

    /// Drops a keyspace for good, as its id is never used again: it reads as empty from now on, and
    /// the engine drops it when what is in memory now has been fed. Dropping one that does not
    /// exist is no error.
    ///
    /// To be called by the task that publishes, in log order, before the call of `publish` that
    /// covers the log's record of it.
    pub fn drop_keyspace(&self, keyspace: KeyspaceId, now: Moment) {
        let mut tables = self.tables.write();
        tables.made.remove(&keyspace);
        tables.dropped.insert(keyspace);
        tables.active.note_dropped(keyspace, now);
        drop(tables);
        self.trees.forget_keyspace(keyspace);
    }

    /// Drops the rows of a partition that were published so far; later ones are taken in as ever.
    /// It reads as empty from now on, and the engine drops the rows when what is in memory now has
    /// been fed.
    ///
    /// To be called by the task that publishes, in log order, before the call of `publish` that
    /// covers the log's record of it.
    pub fn drop_partition(&self, place: (KeyspaceId, PartitionId), now: Moment) {
        self.tables.write().active.clear(place, now);
        self.trees.forget(place);
    }

    /// The keyspaces that were made and not dropped, internal ones among them.
    pub fn keyspaces(&self) -> BTreeSet<KeyspaceId> {
        self.tables.read().made.clone()
    }

    /// Whether a keyspace was made and not dropped.
    pub fn has_keyspace(&self, keyspace: KeyspaceId) -> bool {
        self.tables.read().made.contains(&keyspace)
    }

    /// Whether a keyspace was dropped since this store was opened, or by the log that it was opened
    /// with.
    pub fn is_dropped(&self, keyspace: KeyspaceId) -> bool {
        self.tables.read().dropped.contains(&keyspace)
    }

    /// The record of a key: a value, a tombstone, or `None` if there never was either.
    ///
    /// # Errors
    /// [`StoreError`]; corrupt bytes are also counted.
    pub fn read(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Record>, StoreError> {
        let seen = self.tables.read().look_up(keyspace, partition, key);
        self.complete(seen, (keyspace, partition), key)
    }

    /// As [`Store::read`], where it can be told at once; `None` where telling it may wait for the
    /// disk's sync.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_at_once(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Option<Record>>, StoreError> {
        let seen = self.tables.read().look_up(keyspace, partition, key);
        let asks_engine = matches!(seen, Seen::Nothing | Seen::Tentative(_));
        if asks_engine && self.engine.may_wait() {
            return Ok(None);
        }
        self.complete(seen, (keyspace, partition), key).map(Some)
    }

    /// The record of a key as far as it lies in memory, whatever the engine has.
    pub fn in_memory(&self, place: (KeyspaceId, PartitionId), key: &Key) -> Option<Record> {
        let found = match self.tables.read().look_up(place.0, place.1, key) {
            Seen::Gone | Seen::Nothing => None,
            Seen::Tentative(record) | Seen::Decisive(record) => Some(record),
        };
        found.filter(|record| !self.is_reaped(place, record))
    }

    /// Takes over rows that the log holds durably up to `last_lsn`; they are visible on return.
    /// To be called by one task, in log order; rows that were published before change nothing, nor
    /// do those of a keyspace that was dropped.
    pub fn publish(
        &self,
        last_lsn: Lsn,
        rows: impl Iterator<Item = (PartitionId, Row)>,
        now: Moment,
    ) {
        // The guard keeps `freeze` from cutting a call in two: rows up to `last_lsn` would lie in
        // the active table while the frozen one claimed to cover it.
        let tables = self.tables.read();
        let rows = rows.filter(|(_, row)| !tables.dropped.contains(&row.keyspace));
        let mut marks = Marks::default();
        let rows = rows.inspect(|(partition, row)| marks.note(*partition, row));
        tables.active.publish(last_lsn, rows, now);
        drop(tables);
        self.trees.mark(marks);
    }

    /// Rows of a partition above `after`, in key order; the page ends once its rows reach
    /// `page_bytes_max`, and has at least one row if there are any. Corrupt rows are counted and
    /// named, not listed.
    ///
    /// # Errors
    /// [`StoreError::Engine`]; [`StoreError::TooManyCorrupt`].
    pub fn scan(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&Key>,
        page_bytes_max: usize,
    ) -> Result<ScanPage, StoreError> {
        scan::page(self, (keyspace, partition), after, page_bytes_max)
    }

    /// The hash tree of a partition, for which its rows are gone through if writes have marked
    /// any bucket, or all are to be looked at. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Engine`].
    pub fn hashed(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        pass: Pass,
    ) -> Result<Hashed, StoreError> {
        trees::hashed(self, (keyspace, partition), pass)
    }

    /// The rows of some buckets of a partition above `after`, by version and in key order; a
    /// bounded number. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Engine`].
    pub fn rows_of(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        buckets: &Buckets,
        after: Option<Key>,
    ) -> Result<RowList, StoreError> {
        trees::list(self, (keyspace, partition), buckets, after)
    }

    /// One page of what is to be listed of a partition, in key order, deleted rows included.
    ///
    /// # Errors
    /// [`StoreError::Engine`]; [`StoreError::Corrupt`] when a row of the range is damaged.
    pub fn list(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        range: &ListRange,
    ) -> Result<ListPage, StoreError> {
        list::page(self, (keyspace, partition), Sound { range, rises: false })
    }

    /// Freezes the active table, if nothing is frozen and it covers anything; true if it did.
    /// Waits for a call of `publish` to end.
    pub fn freeze(&self) -> bool {
        let mut tables = self.tables.write();
        let totals = tables.active.totals();
        if tables.frozen.is_some() || totals.highest_lsn.is_none() {
            return false;
        }
        let floor = tables.active.floor().max(totals.highest_stamp);
        tables.frozen = Some(std::mem::replace(&mut tables.active, Arc::new(Memtable::new(floor))));
        true
    }

    /// Feeds the next rows of the frozen table to the engine, at most `rows_max` (at least one),
    /// and drops the table after the last. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Engine`]; the same rows come again at the next call.
    pub fn feed(&self, rows_max: usize) -> Result<Fed, StoreError> {
        feed::next_slice(self, rows_max.max(1))
    }

    /// Whether the engine has changes that are not durable yet.
    pub fn is_unsettled(&self) -> bool {
        self.engine.may_wait()
    }

    /// Makes durable what was fed to the engine. Log records up to the LSN that is returned are
    /// not needed any more. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Engine`]: nothing may be dropped from the log, and this process must not go
    /// on acknowledging writes.
    pub fn checkpoint(&self) -> Result<Lsn, StoreError> {
        let covered = self.engine.applied_lsn();
        self.engine.checkpoint()?;
        Ok(covered)
    }

    /// Log records up to this one are in the engine already.
    pub fn applied_lsn(&self) -> Lsn {
        self.engine.applied_lsn()
    }

    /// What the active table's rows cost, as [`Row::cost_bytes`] counts.
    pub fn active_bytes(&self) -> usize {
        self.tables.read().active.totals().bytes
    }

    /// What the frozen table's rows cost, fed or not.
    pub fn frozen_bytes(&self) -> usize {
        self.tables.read().frozen.as_ref().map_or(0, |frozen| frozen.totals().bytes)
    }

    /// When the oldest row in memory was published.
    pub fn oldest(&self) -> Option<Moment> {
        let tables = self.tables.read();
        let frozen = tables.frozen.as_ref().and_then(|frozen| frozen.totals().first_at);
        frozen.or_else(|| tables.active.totals().first_at)
    }

    /// Rows in memory, tombstones included.
    pub fn rows(&self) -> usize {
        let tables = self.tables.read();
        let frozen = tables.frozen.as_ref().map_or(0, |frozen| frozen.totals().rows);
        frozen + tables.active.totals().rows
    }

    /// The engine's own sizes and counts.
    pub fn engine_stats(&self) -> EngineStats {
        self.engine.stats()
    }

    /// How often a row of the engine failed its checksum since the store was made; a row that is
    /// read twice counts twice.
    pub fn corrupt_rows(&self) -> u64 {
        self.corrupt_rows.load(Ordering::Relaxed)
    }
}

/// The tables in memory, newest first, and the keyspaces.
struct Tables {
    active: Arc<Memtable>,
    frozen: Option<Arc<Memtable>>,
    /// Those of the engine, but for the dropped ones that it still holds.
    made: BTreeSet<KeyspaceId>,
    dropped: BTreeSet<KeyspaceId>,
}

/// What the tables in memory know of a key.
enum Seen {
    /// Its keyspace was dropped, or the rows of its partition were.
    Gone,
    Nothing,
    /// The engine may hold a newer record.
    Tentative(Record),
    /// The engine cannot hold a newer record.
    Decisive(Record),
}

impl Tables {
    fn look_up(&self, keyspace: KeyspaceId, partition: PartitionId, key: &Key) -> Seen {
        if self.dropped.contains(&keyspace) {
            return Seen::Gone;
        }
        let active = match self.active.get(keyspace, partition, key) {
            Some(record) if self.active.dominates(&record) => return Seen::Decisive(record),
            active => active,
        };
        let place = (keyspace, partition);
        if self.active.is_cleared(place) {
            return active.map_or(Seen::Gone, Seen::Decisive);
        }
        let frozen = self.frozen.as_ref();
        let older = frozen.and_then(|frozen| frozen.get(keyspace, partition, key));
        let is_cleared = frozen.is_some_and(|frozen| frozen.is_cleared(place));
        let Some(record) = newer(active, older) else {
            return if is_cleared { Seen::Gone } else { Seen::Nothing };
        };
        // The frozen table's own rows may be in the engine already; its record of this key, if
        // any, was merged just now.
        match is_cleared || frozen.is_some_and(|frozen| frozen.dominates(&record)) {
            true => Seen::Decisive(record),
            false => Seen::Tentative(record),
        }
    }
}

impl Store {
    /// What there is of a key of which memory knows this much.
    fn complete(
        &self,
        seen: Seen,
        (keyspace, partition): Place,
        key: &Key,
    ) -> Result<Option<Record>, StoreError> {
        let found = match seen {
            Seen::Gone => None,
            Seen::Decisive(record) => Some(record),
            Seen::Tentative(record) => newer(Some(record), self.stored(keyspace, partition, key)?),
            Seen::Nothing => self.stored(keyspace, partition, key)?,
        };
        Ok(found.filter(|record| !self.is_reaped((keyspace, partition), record)))
    }

    fn stored(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Record>, StoreError> {
        let found = match self.engine.get(keyspace, partition, key) {
            Err(EngineError::UnknownKeyspace { .. }) => None,
            found => found?,
        };
        let Some(bytes) = found else { return Ok(None) };
        let record = record_codec::decode(key, &bytes);
        record.map(Some).map_err(|source| self.corrupt(keyspace, key, source))
    }

    /// Counts and logs a corrupt row.
    fn corrupt(&self, keyspace: KeyspaceId, key: &Key, source: CorruptRecord) -> StoreError {
        self.corrupt_rows.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(keyspace = keyspace.0, %key, error = %source, "stored record is corrupt");
        StoreError::Corrupt { keyspace, key: key.clone(), source }
    }
}

fn newer(a: Option<Record>, b: Option<Record>) -> Option<Record> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if supersedes(&b, &a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
