//! What can go wrong with the log.

use std::io;

use crate::types::Lsn;

/// What the receiver of replayed records says when it cannot take one.
pub type ReplayError = Box<dyn std::error::Error + Send + Sync>;

/// Why the log did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The file system has no room for another segment. Nothing of the batch was written and the
    /// log is sound: a commit succeeds once a segment could be prepared.
    #[error("the disk is full: the log has no room for another segment")]
    DiskFull,
    /// An earlier write or sync failed, after which nothing is known of what the disk holds.
    #[error("the log takes nothing more since an operation failed: {cause}; restart the node")]
    Poisoned {
        /// The failure, in words.
        cause: String,
    },
    /// What the disk holds is not what was acknowledged.
    #[error(
        "log segment {segment:016x} is damaged at byte {offset}: {reason}; \
         restore the data directory, or set it aside so that the node refills from its replicas"
    )]
    Damaged {
        /// The segment's number, in hexadecimal its file name.
        segment: u64,
        /// Byte in the segment's file.
        offset: u64,
        /// What was found.
        reason: String,
    },
    /// The segment was written by a program that knows another format.
    #[error("log segment {segment:016x} has format {got}, this program knows format {known}")]
    UnknownFormat {
        /// The segment's number.
        segment: u64,
        /// The format in its header.
        got: u32,
        /// The format that this program reads and writes.
        known: u32,
    },
    /// A sound frame holds a kind of record that this program does not know.
    #[error(
        "log segment {segment:016x} holds a record of kind {kind} at byte {offset}, \
         which this program does not know; a newer one wrote it"
    )]
    UnknownRecord {
        /// The segment's number.
        segment: u64,
        /// Byte of the record's frame in the segment's file.
        offset: u64,
        /// The record's first byte.
        kind: u8,
    },
    /// A record that no segment has room for. Nothing of the batch was written.
    #[error("a record of {bytes} bytes does not fit into a log segment ({bytes_max} at most)")]
    RecordTooLarge {
        /// Bytes of the encoded record.
        bytes: usize,
        /// Bytes that a segment has room for.
        bytes_max: usize,
    },
    /// The operating system refused.
    #[error("could not {during} log segment {segment:016x}: {source}")]
    Io {
        /// What was being done.
        during: &'static str,
        /// The segment's number; 0 for the folder as a whole.
        segment: u64,
        /// What it said.
        source: io::Error,
    },
    /// The receiver of the replayed records failed.
    #[error("record {} of the log could not be replayed: {source}", lsn.0)]
    Replay {
        /// The record's position.
        lsn: Lsn,
        /// What the receiver said.
        source: ReplayError,
    },
}

impl WalError {
    /// For `map_err`: names what was done to which segment.
    pub(super) fn io(during: &'static str, segment: u64) -> impl FnOnce(io::Error) -> WalError {
        move |source| WalError::Io { during, segment, source }
    }

    /// Tells a lack of room from other failures.
    pub(super) fn with_disk_full(self) -> WalError {
        match self {
            WalError::Io { source, .. } if is_disk_full(&source) => WalError::DiskFull,
            other => other,
        }
    }
}

/// True for the errors that more room would cure.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
