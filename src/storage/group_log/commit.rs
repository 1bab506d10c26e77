//! The log and its mirror, kept in step.
//!
//! Both functions hold the log from before the mirror is asked until it has been told, so what is
//! carried over is what the log holds, and no record of a group comes in between.

use parking_lot::Mutex;

use crate::storage::group_log::{CARRIED_RECORD_BYTES_MAX, GroupLogError, GroupLogs};
use crate::storage::wal::{LogRecord, Wal, WalError};
use crate::types::Lsn;

/// Why records were not committed, or not with the meaning that they should have.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The log did not take them.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The log holds them, and what they say of a group makes no sense.
    #[error(transparent)]
    Group(#[from] GroupLogError),
}

/// Commits records to the log and tells the mirror. Returns the position of the last. Blocks.
///
/// # Errors
/// [`CommitError::Wal`] as [`Wal::commit`]; [`CommitError::Group`] after which neither the log nor
/// this process is to be relied on.
pub fn commit(
    wal: &mut Wal,
    group_logs: &Mutex<GroupLogs>,
    records: &[LogRecord],
) -> Result<Lsn, CommitError> {
    let last = wal.commit(records)?;
    let first = last.0 + 1 - records.len() as u64;
    let mut group_logs = group_logs.lock();
    for (lsn, record) in (first..).map(Lsn).zip(records) {
        if let LogRecord::Group(record) = record {
            group_logs.on_record(lsn, record)?;
        }
    }
    Ok(last)
}

/// Lets go of the log's segments through `lsn`; what they alone hold of groups is appended anew
/// before, some at a time, so that other commits have their turn. Returns how many segments went.
/// Blocks.
///
/// # Errors
/// As [`commit`] and [`Wal::drop_through`]; segments that did not go are kept for the next time.
pub fn drop_through(
    wal: &Mutex<Wal>,
    group_logs: &Mutex<GroupLogs>,
    lsn: Lsn,
) -> Result<usize, CommitError> {
    loop {
        let mut wal = wal.lock();
        let Some(through) = wal.droppable_through(lsn) else { return Ok(0) };
        let record_bytes_max = CARRIED_RECORD_BYTES_MAX.min(wal.record_bytes_max());
        let overdue = group_logs.lock().overdue(through, record_bytes_max);
        if overdue.is_empty() {
            return Ok(wal.drop_through(through)?);
        }
        let overdue: Vec<LogRecord> = overdue.into_iter().map(LogRecord::Group).collect();
        commit(&mut wal, group_logs, &overdue)?;
    }
}
