//! The engine on files: sled 0.34.7, held so that it keeps what it promises.
//!
//! As shipped, sled's flush survives no power loss, a flipped bit makes it panic or drop rows in
//! silence, and large values go to files that it never syncs. What is done about each:
//! `durability` replaces the system call beneath its flush; `failure` turns its panics into
//! errors; `watch` notices calls that never return; `mark` notices rows that a shortened log took
//! along; `keyspace` cuts large values up; and a directory that does not open whole is set aside
//! under a new name, so that the node comes up without it and refills from its replicas. Damage
//! that is met only later is noted (`damage_note`) and has the directory set aside at the next
//! opening. A row that is still wrong fails the checksum of [`crate::storage::record_codec`].
//!
//! One tree per keyspace, in the layout that `layout` describes. Rows are inserted one by one in
//! key order: measured on a million rows in sorted slices of 1,000, that takes 9 CPU-µs a row,
//! unsorted 14, and sled's own batches 18–21 while they lock all readers out.
//!
//! The applied LSN is written after the rows that it covers. sled recovers a prefix of its log, so
//! it never claims more than is there; being lower than need be only means that rows are applied
//! again.
//!
//! Caveat: the files keep their high-water mark. Space is given back by rewriting elsewhere.

mod damage_note;
mod durability;
mod failure;
mod keyspace;
mod layout;
mod mark;
mod open;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::sled::{Db, Tree};
use bytes::Bytes;
use parking_lot::RwLock;

use self::damage_note::DamageNote;
use self::failure::{During, guarded};
use self::keyspace::{Keyspace, Scratch};
use self::mark::CheckpointMark;
use self::open::Database;
use self::watch::{Patience, Remedy, Watch};
use crate::storage::engine::{Change, Engine, EngineError, EngineStats, Page};
use crate::types::{Key, KeyspaceId, Lsn, PartitionId};

/// An [`Engine`] in a directory of files.
pub struct SledEngine {
    db: Db,
    meta: Tree,
    keyspaces: RwLock<BTreeMap<KeyspaceId, Keyspace>>,
    applied: AtomicU64,
    next_generation: AtomicU64,
    mark: CheckpointMark,
    damage_note: DamageNote,
    /// A write or checkpoint failed: nothing written since is known to be on disk, or whole.
    failed: AtomicBool,
    changes: Changes,
    checkpoints: AtomicU64,
    disk_bytes: AtomicU64,
    /// Of this thread's clone of the database nothing must be left behind, so it goes last.
    watch: Watch,
}

#[cfg(not(test))]
const PATIENCE: Patience = Patience::USUAL;
#[cfg(test)]
const PATIENCE: Patience = Patience::OF_TESTS;

/// What helps a sled that stands still.
struct Flush(Db);

impl Remedy for Flush {
    /// A flush meets the failure that others wait behind, and wakes them. What it says itself is
    /// said to whoever writes or flushes next.
    fn nudge(&self) {
        let _outcome = guarded("was nudged", || self.0.flush().during("flushed"));
    }

    fn give_up(&self, waited: Duration) {
        tracing::error!(
            waited_ms = waited.as_millis() as u64,
            "the storage engine stands still: a call has not returned, and flushing did not help. \
             This process ends; started again, it replays its log and loses nothing",
        );
        std::process::abort();
    }
}

/// What opening a directory came to.
pub struct Opened {
    /// The engine, empty if the directory was set aside.
    pub engine: SledEngine,
    /// The directory's former content, if it was damaged. A node that sees this must refill from
    /// its replicas before it counts as one.
    pub quarantined: Option<Quarantine>,
}

/// A damaged directory that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// Where it is now.
    pub path: PathBuf,
    /// What was found.
    pub reason: String,
}

impl SledEngine {
    /// Opens the engine in a directory, which is made if need be. Damage is set aside and
    /// reported, not an error. `cache_bytes` bounds the pages that sled keeps in memory.
    ///
    /// # Errors
    /// [`EngineError::Failed`] when the directory cannot be used for another reason (locked by
    /// another process, rights, a full disk, a later format), or when the flush is not durable.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Opened, EngineError> {
        let detail = match Database::open(dir, cache_bytes) {
            Ok(database) => {
                return Ok(Opened { engine: Self::over(database, dir)?, quarantined: None });
            }
            Err(EngineError::Damaged { detail }) => detail,
            Err(error) => return Err(error),
        };
        let path = open::set_aside(dir)?;
        tracing::error!(
            dir = %dir.display(), quarantine = %path.display(), reason = detail,
            "engine is damaged and was set aside; starting with an empty one",
        );
        let engine = Self::over(Database::open(dir, cache_bytes)?, dir)?;
        Ok(Opened { engine, quarantined: Some(Quarantine { path, reason: detail }) })
    }

    fn over(database: Database, dir: &Path) -> Result<Self, EngineError> {
        let disk_bytes = database.db.size_on_disk().unwrap_or(0);
        let watch = Watch::begin(PATIENCE, Flush(database.db.clone()));
        Ok(SledEngine {
            db: database.db,
            meta: database.meta,
            keyspaces: RwLock::new(database.keyspaces),
            applied: AtomicU64::new(database.applied.0),
            next_generation: AtomicU64::new(database.lives << GENERATIONS_PER_LIFE_BITS),
            mark: database.mark,
            damage_note: DamageNote::in_dir(dir),
            failed: AtomicBool::new(false),
            changes: Changes::default(),
            checkpoints: AtomicU64::new(0),
            disk_bytes: AtomicU64::new(disk_bytes),
            watch: watch.during("began to watch its calls")?,
        })
    }
}

impl Engine for SledEngine {
    fn create_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        let mut keyspaces = self.keyspaces.write();
        if keyspaces.contains_key(&keyspace) {
            return Ok(());
        }
        let made = self.changing("made a keyspace", || open::open_keyspace(&self.db, keyspace))?;
        keyspaces.insert(keyspace, made);
        Ok(())
    }

    fn keyspaces(&self) -> BTreeSet<KeyspaceId> {
        self.keyspaces.read().keys().copied().collect()
    }

    fn drop_keyspace(&self, keyspace: KeyspaceId) -> Result<(), EngineError> {
        // From here on nobody reaches its trees, and dropping them takes a while: the lock that
        // everyone else needs is not held meanwhile.
        let known = self.keyspaces.write().remove(&keyspace);
        if known.is_none() {
            return Ok(());
        }
        drop(known);
        self.changing("dropped a keyspace", || {
            self.db.drop_tree(layout::rows_tree(keyspace)).during("dropped a keyspace")?;
            self.db.drop_tree(layout::chunks_tree(keyspace)).during("dropped a keyspace")?;
            Ok(())
        })
    }

    fn apply(&self, batch: &[Change], last_lsn: Lsn) -> Result<(), EngineError> {
        let keyspaces = self.keyspaces.read();
        let _call = self.watch.enter();
        self.changing("applied a batch", || {
            self.write_rows(&keyspaces, batch)?;
            self.note_applied(last_lsn)
        })
    }

    fn applied_lsn(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Acquire))
    }

    fn get(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &Key,
    ) -> Result<Option<Bytes>, EngineError> {
        let keyspaces = self.keyspaces.read();
        let trees = known(&keyspaces, keyspace)?;
        let _call = self.watch.enter();
        self.noting(guarded("read a row", || trees.get(&layout::row_key(partition, key))))
    }

    /// sled reads a page from its file if it has let go of it, and only once the file has all of
    /// it for good: the reader itself then flushes what is written so far, up to a whole segment.
    fn may_wait(&self) -> bool {
        self.changes.are_unsettled()
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&Key>,
        rows_max: usize,
    ) -> Result<Page, EngineError> {
        let keyspaces = self.keyspaces.read();
        let trees = known(&keyspaces, keyspace)?;
        let _call = self.watch.enter();
        self.noting(guarded("scanned a partition", || trees.scan(partition, after, rows_max)))
    }

    fn delete_partition(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        rows_max: usize,
    ) -> Result<bool, EngineError> {
        let keyspaces = self.keyspaces.read();
        let trees = known(&keyspaces, keyspace)?;
        let _call = self.watch.enter();
        self.changing("deleted a partition", || trees.delete_partition(partition, rows_max))
    }

    fn checkpoint(&self) -> Result<(), EngineError> {
        let covered = self.applied_lsn();
        let _call = self.watch.enter();
        let changes = self.changes.count();
        self.carefully("made a checkpoint", || {
            self.db.flush().during("flushed")?;
            self.changes.settle(changes);
            // The mark may only follow what it vouches for.
            self.mark.write(covered).during("wrote its checkpoint mark")?;
            self.disk_bytes.store(self.db.size_on_disk().unwrap_or(0), Ordering::Relaxed);
            self.checkpoints.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            disk_bytes: self.disk_bytes.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            nudges: self.watch.nudges(),
        }
    }
}

impl Drop for SledEngine {
    fn drop(&mut self) {
        if self.failed.load(Ordering::Acquire) {
            // Dropping sled flushes it, which may hang or panic after a failure. One reference
            // that is never dropped prevents that; the process is about to end anyway.
            std::mem::forget(self.db.clone());
        }
    }
}

/// Generations of large values are counted up from the number of the engine's life, so that none
/// is used twice: 2^40 per life, which at a million a second takes twelve days.
const GENERATIONS_PER_LIFE_BITS: u32 = 40;

impl SledEngine {
    /// Does work that changes rows.
    fn changing<T>(
        &self,
        during: &'static str,
        work: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.changes.note();
        let outcome = self.carefully(during, work);
        self.changes.note();
        outcome
    }

    /// Does work that changes files; after one failure all further such work is refused.
    fn carefully<T>(
        &self,
        during: &'static str,
        work: impl FnOnce() -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        if self.failed.load(Ordering::Acquire) {
            let detail = "an earlier write or checkpoint failed".to_owned();
            return Err(EngineError::Failed { during, detail });
        }
        let outcome = self.noting(guarded(during, work));
        if !matches!(outcome, Ok(_) | Err(EngineError::UnknownKeyspace { .. })) {
            self.failed.store(true, Ordering::Release);
        }
        outcome
    }

    /// Notes damage, which opening may not meet, for the next opening.
    fn noting<T>(&self, outcome: Result<T, EngineError>) -> Result<T, EngineError> {
        if let Err(EngineError::Damaged { detail }) = &outcome {
            self.damage_note.write(detail);
        }
        outcome
    }

    /// Writes the last change of every key, in the order of the trees. The sort is stable, and
    /// nearly free for the sorted batches that it is given.
    fn write_rows(
        &self,
        keyspaces: &BTreeMap<KeyspaceId, Keyspace>,
        batch: &[Change],
    ) -> Result<(), EngineError> {
        let mut changes: Vec<&Change> = batch.iter().collect();
        changes.sort_by(|a, b| slot(a).cmp(&slot(b)));
        let mut scratch = Scratch::new(&self.next_generation);
        for (at, change) in changes.iter().enumerate() {
            if changes.get(at + 1).is_some_and(|next| slot(next) == slot(change)) {
                continue;
            }
            let trees = known(keyspaces, change.keyspace)?;
            trees.write(change.partition, &change.key, change.value.as_ref(), &mut scratch)?;
        }
        Ok(())
    }

    fn note_applied(&self, last_lsn: Lsn) -> Result<(), EngineError> {
        if last_lsn > self.applied_lsn() {
            let stored = self.meta.insert(layout::APPLIED_KEY, &last_lsn.0.to_be_bytes());
            stored.during("noted what was applied")?;
            self.applied.store(last_lsn.0, Ordering::Release);
        }
        Ok(())
    }
}

/// Counts beginnings and ends of changes, to tell whether all of them are durable.
#[derive(Debug, Default)]
struct Changes {
    noted: AtomicU64,
    settled: AtomicU64,
}

impl Changes {
    fn note(&self) {
        self.noted.fetch_add(1, Ordering::AcqRel);
    }

    fn count(&self) -> u64 {
        self.noted.load(Ordering::Acquire)
    }

    /// A flush that began when so many had been noted has ended. A change that goes on then is
    /// noted once more at its end.
    fn settle(&self, count: u64) {
        self.settled.store(count, Ordering::Release);
    }

    fn are_unsettled(&self) -> bool {
        self.settled.load(Ordering::Acquire) != self.noted.load(Ordering::Acquire)
    }
}

fn slot(change: &Change) -> (KeyspaceId, PartitionId, &Key) {
    (change.keyspace, change.partition, &change.key)
}

fn known(
    keyspaces: &BTreeMap<KeyspaceId, Keyspace>,
    keyspace: KeyspaceId,
) -> Result<&Keyspace, EngineError> {
    keyspaces.get(&keyspace).ok_or(EngineError::UnknownKeyspace { keyspace })
}

#[cfg(test)]
mod tests;
