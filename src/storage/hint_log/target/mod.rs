//! The hints of one target: a buffer in memory, and segments on disk before it.
//!
//! Two locks: `queue` for what is known, held briefly; `disk` for the files, held while they are
//! read, written and removed, and always taken first. Appending takes only `queue`.
//!
//! Invariant: the sequences of a segment follow each other without gaps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::storage::files::FileHandle;
use crate::storage::hint_log::entry::{FOLDER, SegmentId, entry_bytes};
use crate::storage::hint_log::{Hint, HintLogError, QueuedHint, Shared, TargetHints};
use crate::types::NodeId;

mod reading;
mod writing;

/// What is known of a segment on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HintSegment {
    pub(super) number: u64,
    /// Sequence of its first hint.
    pub(super) first: u64,
    /// Sequence of its last hint.
    pub(super) last: u64,
    /// Bytes up to the end of its last hint.
    pub(super) bytes: u64,
    pub(super) oldest_wall_ms: u64,
}

/// One target's hints.
pub(super) struct TargetLog {
    target: NodeId,
    shared: Arc<Shared>,
    disk: Mutex<Disk>,
    queue: Mutex<Queue>,
}

/// The files that are being written and read.
struct Disk {
    next_number: u64,
    /// Sequence of the last hint that was ever written.
    written: u64,
    active: Option<ActiveFile>,
    /// Where the last read ended, for the next one to go on.
    cursor: Option<Cursor>,
}

struct ActiveFile {
    number: u64,
    file: Box<dyn FileHandle>,
    /// Bytes written.
    end: u64,
    /// Sequence of the last hint written.
    last: u64,
    synced: bool,
    name_synced: bool,
}

#[derive(Clone, Copy)]
struct Cursor {
    number: u64,
    /// The hints up to this sequence lie before `offset`.
    sequence: u64,
    offset: u64,
}

struct Queue {
    next_sequence: u64,
    acknowledged: u64,
    segments: VecDeque<HintSegment>,
    buffer: VecDeque<QueuedHint>,
    buffered_bytes: usize,
}

impl TargetLog {
    /// A log of these segments, in the order of their numbers.
    pub(super) fn new(target: NodeId, shared: Arc<Shared>, segments: Vec<HintSegment>) -> Self {
        let last = segments.iter().map(|segment| segment.last).max();
        let next_number = segments.last().map_or(1, |segment| segment.number + 1);
        let queue = Queue {
            next_sequence: last.map_or(1, |last| last + 1),
            acknowledged: 0,
            segments: segments.into(),
            buffer: VecDeque::new(),
            buffered_bytes: 0,
        };
        let disk = Disk { next_number, written: last.unwrap_or(0), active: None, cursor: None };
        TargetLog { target, shared, disk: Mutex::new(disk), queue: Mutex::new(queue) }
    }

    pub(super) fn append(&self, hint: Hint) -> u64 {
        let bytes = entry_bytes(&hint);
        let mut queue = self.queue.lock();
        let sequence = queue.next_sequence;
        queue.next_sequence += 1;
        queue.buffered_bytes += bytes;
        queue.buffer.push_back(QueuedHint { sequence, hint });
        self.shared.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
        sequence
    }

    pub(super) fn acknowledge(&self, through: u64) -> Result<(), HintLogError> {
        let mut disk = self.disk.lock();
        let gone = self.forget(through);
        let mut result = Ok(());
        for segment in &gone {
            if disk.active.as_ref().is_some_and(|active| active.number == segment.number) {
                disk.active = None;
            }
            let id = self.id(segment.number);
            let removed = self.shared.files.remove(&id.path());
            result = result.and(removed.map_err(HintLogError::io("remove", id.name())));
        }
        if gone.is_empty() {
            return result;
        }
        // Else a power loss would bring delivered hints back: harmless, but work done twice.
        result.and(self.sync_folder())
    }

    pub(super) fn summary(&self) -> TargetHints {
        let queue = self.queue.lock();
        let pending =
            |it: &HintSegment| it.last.saturating_sub(queue.acknowledged.max(it.first - 1));
        let on_disk = queue.segments.iter();
        let oldest = on_disk.clone().map(|segment| segment.oldest_wall_ms);
        let buffered = queue.buffer.iter().map(|queued| queued.hint.created_wall_ms);
        TargetHints {
            target: self.target,
            bytes: on_disk.clone().map(|it| it.bytes).sum::<u64>() + queue.buffered_bytes as u64,
            hints: on_disk.map(pending).sum::<u64>() + queue.buffer.len() as u64,
            oldest_wall_ms: oldest.chain(buffered.take(1)).min().unwrap_or(0),
        }
    }
}

impl TargetLog {
    fn id(&self, number: u64) -> SegmentId {
        SegmentId { target: self.target, number }
    }

    /// Takes out what is acknowledged up to a sequence; returns the segments that are to go.
    fn forget(&self, through: u64) -> Vec<HintSegment> {
        let mut queue = self.queue.lock();
        let through = through.min(queue.next_sequence - 1);
        queue.acknowledged = queue.acknowledged.max(through);
        self.drop_buffered(&mut queue, through);
        let (gone, kept) = queue.segments.iter().partition(|segment| segment.last <= through);
        queue.segments = kept;
        gone.into()
    }

    fn sync_folder(&self) -> Result<(), HintLogError> {
        let synced = self.shared.files.sync_folder(FOLDER);
        synced.map_err(HintLogError::io("sync the folder of", FOLDER.to_owned()))
    }

    fn drop_buffered(&self, queue: &mut Queue, through: u64) {
        while let Some(front) = queue.buffer.front()
            && front.sequence <= through
        {
            let bytes = entry_bytes(&front.hint);
            queue.buffered_bytes -= bytes;
            self.shared.buffered_bytes.fetch_sub(bytes, Ordering::Relaxed);
            queue.buffer.pop_front();
        }
    }
}
