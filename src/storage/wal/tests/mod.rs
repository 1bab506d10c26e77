//! Tests of the log as a whole.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::storage::files::testing::MemoryFiles;
use crate::types::{Incarnation, Key, KeyspaceId, Record, Row, Timestamp, Version};

mod crashes;
mod damage;
mod faults;
mod ordinary;

/// Small, so that a few records fill several.
const SEGMENT_BYTES: u64 = 512;

/// A row that tells its number, with a value of so many bytes.
fn row(number: u64, value_bytes: usize) -> LogRecord {
    LogRecord::Row(Row {
        keyspace: KeyspaceId(0),
        key: Key::from(format!("key-{number}")),
        record: Record::new(
            Version { timestamp: Timestamp(number), incarnation: Incarnation(1) },
            Some(Bytes::from(vec![b'a' + (number % 26) as u8; value_bytes])),
        ),
    })
}

fn rows(numbers: Range<u64>) -> Vec<LogRecord> {
    numbers.map(|number| row(number, 10 + (number % 7) as usize)).collect()
}

/// A log that was opened, and what it handed out.
struct Opened {
    wal: Wal,
    recovery: Recovery,
    replayed: Vec<(Lsn, LogRecord)>,
}

impl Opened {
    fn records(&self) -> Vec<LogRecord> {
        self.replayed.iter().map(|(_, record)| record.clone()).collect()
    }
}

fn try_open(files: &MemoryFiles, replay_above: u64) -> Result<Opened, WalError> {
    try_open_sized(files, replay_above, SEGMENT_BYTES)
}

fn try_open_sized(
    files: &MemoryFiles,
    replay_above: u64,
    segment_bytes: u64,
) -> Result<Opened, WalError> {
    let mut replayed = Vec::new();
    let (wal, recovery) = Wal::open(
        Arc::new(files.clone()),
        WalOptions { segment_bytes },
        Lsn(replay_above),
        &mut |lsn, record| {
            replayed.push((lsn, record));
            Ok(())
        },
    )?;
    Ok(Opened { wal, recovery, replayed })
}

fn open(files: &MemoryFiles) -> Opened {
    try_open(files, 0).unwrap()
}

fn started(files: &MemoryFiles) -> Vec<String> {
    files.names().into_iter().filter(|name| name.ends_with(".log")).collect()
}
