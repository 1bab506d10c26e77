//! Opening sled's directory: prove it whole and durable, or set it aside.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::sled::{Db, Tree};

use super::damage_note::DamageNote;
use super::durability;
use super::failure::{During, guarded};
use super::keyspace::Keyspace;
use super::layout::{self, APPLIED_KEY, FORMAT, FORMAT_KEY, LIVES_KEY, META_TREE};
use super::mark::CheckpointMark;
use crate::storage::engine::EngineError;
use crate::types::{KeyspaceId, Lsn};

/// What an opened directory holds.
pub(super) struct Database {
    pub(super) db: Db,
    pub(super) meta: Tree,
    pub(super) keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    pub(super) applied: Lsn,
    /// How often the directory was opened, this time included.
    pub(super) lives: u64,
    pub(super) mark: CheckpointMark,
}

impl Database {
    /// Opens a directory, or makes it.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] when what it holds contradicts itself, [`EngineError::Failed`]
    /// when that cannot be told, or when its flush is not durable.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        DamageNote::in_dir(dir).check()?;
        remove_unfinished_snapshots(dir).during("removed an unfinished snapshot")?;
        let db = guarded("opened", || open_once_unlocked(&config(dir, cache_bytes)))?;
        // The walk may panic. By then `db` lives out here, so that unwinding does not drop it,
        // which flushes, in the middle of a panic.
        guarded("walked its trees", || {
            let mark = CheckpointMark::in_dir(dir);
            let meta = db.open_tree(META_TREE).during("opened its meta tree")?;
            let applied = Lsn(read_number(&meta, APPLIED_KEY)?.unwrap_or(0));
            check_format(&meta, &mark, applied)?;
            walk(&db)?;
            let keyspaces = keyspaces(&db)?;
            let lives = prove_durable(&db, &meta)?;
            // That flush synced the whole file, so what was recovered is durable as well.
            mark.write(applied).during("wrote its checkpoint mark")?;
            durability::sync_created(dir).during("synced its directory")?;
            Ok(Database { db: db.clone(), meta, keyspaces, applied, lives, mark })
        })
    }
}

/// Opens the two trees of a keyspace, or makes them.
///
/// # Errors
/// Those of sled.
pub(super) fn open_keyspace(db: &Db, keyspace: KeyspaceId) -> Result<Keyspace, EngineError> {
    // Chunks first: a crash between leaves chunks without rows, which the next opening drops.
    let chunks = db.open_tree(layout::chunks_tree(keyspace)).during("made a keyspace")?;
    let rows = db.open_tree(layout::rows_tree(keyspace)).during("made a keyspace")?;
    Ok(Keyspace { rows, chunks })
}

/// Renames a damaged directory to `<dir>.quarantined-<n>`, with the first number that is free.
///
/// # Errors
/// [`EngineError::Failed`] when the operating system does not let it.
pub(super) fn set_aside(dir: &Path) -> Result<PathBuf, EngineError> {
    let named = |n: u32| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".quarantined-{n}"));
        PathBuf::from(name)
    };
    let path = (1..).map(named).find(|path| !path.exists());
    let path = path.ok_or_else(|| EngineError::Failed {
        during: "set its damaged directory aside",
        detail: "every name is taken".to_owned(),
    })?;
    std::fs::rename(dir, &path).during("set its damaged directory aside")?;
    durability::sync_parent(dir).during("set its damaged directory aside")?;
    Ok(path)
}

/// Opening writes a snapshot of sled's page table under a name of its own, and renames it when it
/// is durable. sled looks past the wrong ending for what a crash left of one, takes the unfinished
/// file for the newest snapshot, and calls the whole directory corrupt.
fn remove_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Leaves above a quarter of a segment go to files that sled never syncs, so segments are as
/// large as sled allows.
const SEGMENT_BYTES: usize = 16 * 1024 * 1024;

/// An engine that was dropped keeps its files locked until sled's last thread lets go of them,
/// which was seen to take milliseconds; so may a predecessor that is just being stopped.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(10);

#[allow(
    clippy::disallowed_methods,
    reason = "a file lock cannot be awaited; opening blocks anyway"
)]
fn open_once_unlocked(config: &::sled::Config) -> Result<Db, EngineError> {
    let mut waited = Duration::ZERO;
    loop {
        match config.open() {
            Err(::sled::Error::Io(error)) if says_locked(&error) && waited < LOCK_WAIT => {
                std::thread::sleep(LOCK_POLL);
                waited += LOCK_POLL;
            }
            outcome => return outcome.during("opened"),
        }
    }
}

/// sled wraps the operating system's answer in words of its own.
fn says_locked(error: &io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

fn config(dir: &Path, cache_bytes: u64) -> ::sled::Config {
    // Only checkpoints flush: the log holds what the engine would lose.
    let config = ::sled::Config::new().path(dir).flush_every_ms(None);
    config.segment_size(SEGMENT_BYTES).cache_capacity(cache_bytes)
}

fn check_format(meta: &Tree, mark: &CheckpointMark, applied: Lsn) -> Result<(), EngineError> {
    let durable = mark.read().during("read its checkpoint mark")?.unwrap_or_default();
    if applied < durable {
        return Err(EngineError::Damaged {
            detail: format!(
                "it holds rows up to LSN {}, but a checkpoint made LSN {} durable",
                applied.0, durable.0
            ),
        });
    }
    let stored = meta.get(FORMAT_KEY).during("read its format")?;
    match stored.as_deref().map(|bytes| bytes.first_chunk().copied().map(u16::from_be_bytes)) {
        None if applied == Lsn(0) => store_format(meta),
        Some(Some(FORMAT)) => Ok(()),
        Some(Some(found)) => Err(EngineError::Failed {
            during: "read its format",
            detail: format!("format {found} is unknown; this program reads format {FORMAT}"),
        }),
        None | Some(None) => {
            Err(EngineError::Damaged { detail: "its format is missing".to_owned() })
        }
    }
}

fn store_format(meta: &Tree) -> Result<(), EngineError> {
    meta.insert(FORMAT_KEY, &FORMAT.to_be_bytes()).during("stored its format").map(drop)
}

fn read_number(meta: &Tree, key: &'static str) -> Result<Option<u64>, EngineError> {
    let Some(stored) = meta.get(key).during("read its meta tree")? else {
        return Ok(None);
    };
    let number = (stored.len() == 8).then(|| layout::read_u64(&stored)).flatten();
    let damaged = || EngineError::Damaged { detail: format!("{key:?} is no number") };
    number.ok_or_else(damaged).map(Some)
}

/// Reads both ends of every tree: sled finds much of its damage only when it loads a page.
fn walk(db: &Db) -> Result<(), EngineError> {
    for name in db.tree_names() {
        let tree = db.open_tree(name).during_opening("opened a tree")?;
        tree.first().during_opening("read a tree's first row")?;
        tree.last().during_opening("read a tree's last row")?;
    }
    Ok(())
}

fn keyspaces(db: &Db) -> Result<BTreeMap<KeyspaceId, Keyspace>, EngineError> {
    let names = db.tree_names();
    let ids = names.iter().filter_map(|name| layout::keyspace_of_rows(name));
    let keyspaces: BTreeMap<_, _> =
        ids.map(|id| Ok((id, open_keyspace(db, id)?))).collect::<Result<_, EngineError>>()?;
    let chunked = names.iter().filter_map(|name| layout::keyspace_of_chunks(name));
    for orphan in chunked.filter(|id| !keyspaces.contains_key(id)) {
        db.drop_tree(layout::chunks_tree(orphan)).during("dropped chunks without rows")?;
    }
    Ok(keyspaces)
}

/// Counts this opening in the meta tree, and refuses an engine whose flush of it is not durable.
fn prove_durable(db: &Db, meta: &Tree) -> Result<u64, EngineError> {
    let lives = read_number(meta, LIVES_KEY)?.unwrap_or(0) + 1;
    meta.insert(LIVES_KEY, &lives.to_be_bytes()).during("counted its openings")?;
    let calls_before = durability::calls();
    db.flush().during("flushed")?;
    durability::require_calls_since(calls_before)?;
    Ok(lives)
}
