//! Tests of the hint log as a whole.

use bytes::Bytes;

use super::*;
use crate::storage::files::testing::MemoryFiles;
use crate::types::{Incarnation, Key, KeyspaceId, Record, Timestamp, Version};

mod faults;
mod model;
mod ordinary;

const SEGMENT_BYTES_MAX: u64 = 400;
const A: NodeId = NodeId(0xa);
const B: NodeId = NodeId(0xb);

/// A hint that tells its number.
fn hint(number: u64) -> Hint {
    let version = Version { timestamp: Timestamp(number), incarnation: Incarnation(1) };
    let value = Some(Bytes::from(vec![b'v'; (number % 30) as usize]));
    let row = Row {
        keyspace: KeyspaceId(0),
        key: Key::from(format!("key-{number}")),
        record: Record::new(version, value),
    };
    Hint { row, created_wall_ms: 1000 + number }
}

fn number_of(queued: &QueuedHint) -> u64 {
    queued.hint.row.record.version.timestamp.0
}

fn open(files: &MemoryFiles) -> (HintLog, HintRecovery) {
    HintLog::open(Arc::new(files.clone()), SEGMENT_BYTES_MAX).unwrap()
}

fn append_all(log: &HintLog, target: NodeId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        log.append(target, hint(number));
    }
}

/// Reads everything above a sequence in small batches.
fn read_all(log: &HintLog, target: NodeId, mut above: u64) -> Vec<QueuedHint> {
    let mut all = Vec::new();
    loop {
        let batch = log.read(target, above, 200).unwrap();
        let Some(last) = batch.last() else { return all };
        above = last.sequence;
        all.extend(batch);
    }
}

fn numbers(log: &HintLog, target: NodeId) -> Vec<u64> {
    read_all(log, target, 0).iter().map(number_of).collect()
}

fn range(numbers: std::ops::Range<u64>) -> Vec<u64> {
    numbers.collect()
}

/// Files with hints 1 to 29 for A in several segments.
fn flushed() -> MemoryFiles {
    let files = MemoryFiles::default();
    let (log, _) = open(&files);
    append_all(&log, A, 1..30);
    log.flush(true).unwrap();
    files
}
