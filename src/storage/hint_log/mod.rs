//! Hints on disk: rows kept for nodes that are away, one queue per target (Dynamo, section 4.6).
//!
//! A hint is appended in memory, written by [`HintLog::flush`], read in order, and gone once
//! acknowledged; a segment's file goes when all of it is. Hints make absent nodes whole sooner and
//! are not what durability rests on. So damage does not stop a node: what can be read of a segment
//! is kept, the rest is given up, logged and reported. Acknowledgements are not kept: after a
//! restart, hints of a segment that was delivered in part are delivered again: harmless.
//!
//! Appending and the figures never wait for the disk; all else may and belongs on a thread that
//! may block. The memory that waits for a flush is bounded by the caller, who stops appending when
//! [`HintLog::buffered_bytes`] says so, as when the disk is full.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::storage::files::Files;
use crate::storage::wal::is_disk_full;
use crate::types::{NodeId, Row};

mod entry;
mod recovery;
mod target;
#[cfg(test)]
mod tests;

use target::TargetLog;

/// A write kept for a node that should have had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The row to deliver.
    pub row: Row,
    /// When it was kept, in Unix milliseconds.
    pub created_wall_ms: u64,
}

/// A hint and its place in its target's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedHint {
    /// Grows by one from hint to hint of a target, from 1; may begin anew after a restart that
    /// found none.
    pub sequence: u64,
    /// The hint.
    pub hint: Hint,
}

/// What is kept for one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetHints {
    /// The node.
    pub target: NodeId,
    /// Bytes of its files and of what waits for a flush.
    pub bytes: u64,
    /// Hints not yet acknowledged.
    pub hints: u64,
    /// When the oldest was kept, in Unix milliseconds; that of an acknowledged one while others of
    /// its segment are not.
    pub oldest_wall_ms: u64,
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HintRecovery {
    /// Hints that can be delivered.
    pub hints: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes of unfinished writes that were cut off.
    pub tail_cut_bytes: u64,
    /// Files that lost hints to damage. Those of which nothing can be read were renamed to
    /// `*.damaged`.
    pub damaged_segments: Vec<String>,
}

/// Why hints could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum HintLogError {
    /// The file system has no room; the hints stay in memory until the next flush.
    #[error("the disk is full: hints could not be written to {segment}")]
    DiskFull {
        /// The file's name.
        segment: String,
    },
    /// Another program wrote the file.
    #[error("hint segment {segment} has format {got}, this program knows format {known}")]
    UnknownFormat {
        /// The file's name.
        segment: String,
        /// The format in its header.
        got: u32,
        /// The format that this program reads and writes.
        known: u32,
    },
    /// The operating system refused.
    #[error("could not {during} hint segment {segment}: {source}")]
    Io {
        /// What was being done.
        during: &'static str,
        /// The file's name, or the folder's.
        segment: String,
        /// What it said.
        source: io::Error,
    },
}

/// All hints that a node keeps.
pub struct HintLog {
    shared: Arc<Shared>,
    targets: RwLock<BTreeMap<NodeId, Arc<TargetLog>>>,
}

impl HintLog {
    /// Opens the hints of a directory. New segments get at most `segment_bytes_max` bytes, or one
    /// hint.
    ///
    /// # Errors
    /// [`HintLogError::UnknownFormat`], [`HintLogError::Io`]; damage is none, but reported.
    pub fn open(
        files: Arc<dyn Files>,
        segment_bytes_max: u64,
    ) -> Result<(HintLog, HintRecovery), HintLogError> {
        let shared = Arc::new(Shared {
            files,
            segment_bytes_max,
            buffered_bytes: AtomicUsize::new(0),
            damaged_segments: AtomicU64::new(0),
        });
        let (segments, report) = recovery::recover(shared.files.as_ref())?;
        shared.damaged_segments.store(report.damaged_segments.len() as u64, Ordering::Relaxed);
        let targets = segments.into_iter().map(|(target, found)| {
            (target, Arc::new(TargetLog::new(target, Arc::clone(&shared), found)))
        });
        let targets = RwLock::new(targets.collect());
        Ok((HintLog { shared, targets }, report))
    }

    /// Queues a hint in memory and returns its sequence. It is lost with the process until a
    /// [`HintLog::flush`] has succeeded.
    pub fn append(&self, target: NodeId, hint: Hint) -> u64 {
        if let Some(log) = self.target(target) {
            return log.append(hint);
        }
        let mut targets = self.targets.write();
        let new = || Arc::new(TargetLog::new(target, Arc::clone(&self.shared), Vec::new()));
        targets.entry(target).or_insert_with(new).append(hint)
    }

    /// Writes what was appended; with `sync`, all of it survives a power loss on return, unless
    /// an earlier flush since it was appended has failed.
    ///
    /// # Errors
    /// The first error met; the other targets were flushed all the same. What could not be
    /// written stays in memory for the next flush.
    pub fn flush(&self, sync: bool) -> Result<(), HintLogError> {
        let mut result = Ok(());
        for log in self.all() {
            result = result.and(log.flush(sync));
        }
        result
    }

    /// Bytes appended and not yet written, of all targets.
    pub fn buffered_bytes(&self) -> usize {
        self.shared.buffered_bytes.load(Ordering::Relaxed)
    }

    /// The oldest hints above a sequence that are not acknowledged, written or not, in order: as
    /// many as take `bytes_max` in a segment, and at least one if there is one.
    ///
    /// # Errors
    /// [`HintLogError::Io`]. Damage is logged and what it took is passed over.
    pub fn read(
        &self,
        target: NodeId,
        above: u64,
        bytes_max: usize,
    ) -> Result<Vec<QueuedHint>, HintLogError> {
        self.target(target).map_or(Ok(Vec::new()), |log| log.read(above, bytes_max))
    }

    /// Lets go of the hints up to a sequence; segments without any other are removed.
    ///
    /// # Errors
    /// [`HintLogError::Io`]: a file was not removed; its hints come back after a restart.
    pub fn acknowledge(&self, target: NodeId, through: u64) -> Result<(), HintLogError> {
        self.target(target).map_or(Ok(()), |log| log.acknowledge(through))
    }

    /// Lets go of all hints of a target.
    ///
    /// # Errors
    /// As [`HintLog::acknowledge`].
    pub fn drop_target(&self, target: NodeId) -> Result<(), HintLogError> {
        self.acknowledge(target, u64::MAX)
    }

    /// The targets that hints are kept for.
    pub fn targets(&self) -> Vec<TargetHints> {
        self.all().iter().map(|log| log.summary()).filter(|it| it.hints > 0).collect()
    }

    /// Bytes kept for a target.
    pub fn bytes(&self, target: NodeId) -> u64 {
        self.target(target).map_or(0, |log| log.summary().bytes)
    }

    /// Segments that were found damaged since the log was opened, or then.
    pub fn damaged_segments(&self) -> u64 {
        self.shared.damaged_segments.load(Ordering::Relaxed)
    }

    fn target(&self, target: NodeId) -> Option<Arc<TargetLog>> {
        self.targets.read().get(&target).cloned()
    }

    fn all(&self) -> Vec<Arc<TargetLog>> {
        self.targets.read().values().cloned().collect()
    }
}

/// What the logs of all targets have in common.
struct Shared {
    files: Arc<dyn Files>,
    segment_bytes_max: u64,
    buffered_bytes: AtomicUsize,
    damaged_segments: AtomicU64,
}

impl HintLogError {
    /// For `map_err`: names what was done to which segment, and tells a lack of room apart.
    fn io(during: &'static str, segment: String) -> impl FnOnce(io::Error) -> HintLogError {
        move |source| match is_disk_full(&source) {
            true => HintLogError::DiskFull { segment },
            false => HintLogError::Io { during, segment, source },
        }
    }
}
