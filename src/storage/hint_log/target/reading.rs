//! Reading a target's hints: from where the last read ended, a window at a time.

use std::sync::atomic::Ordering;

use tracing::error;

use crate::storage::hint_log::entry::{HEADER_BYTES, Parsed, SegmentId, entry_bytes};
use crate::storage::hint_log::recovery::set_aside;
use crate::storage::hint_log::target::{Cursor, Disk, HintSegment, TargetLog};
use crate::storage::hint_log::{HintLogError, QueuedHint};

/// Bytes read at once: large against a hint, small against a segment.
const READ_BYTES: usize = 64 << 10;

impl TargetLog {
    pub(in crate::storage::hint_log) fn read(
        &self,
        above: u64,
        bytes_max: usize,
    ) -> Result<Vec<QueuedHint>, HintLogError> {
        let mut disk = self.disk.lock();
        let (segments, acknowledged) = {
            let queue = self.queue.lock();
            (queue.segments.clone(), queue.acknowledged)
        };
        let mut batch = Batch::new(above.max(acknowledged), bytes_max);
        for segment in &segments {
            if segment.last > batch.above && !batch.full {
                self.read_segment(&mut disk, segment, &mut batch)?;
            }
        }
        for queued in &self.queue.lock().buffer {
            if !batch.offer(queued) {
                break;
            }
        }
        Ok(batch.hints)
    }

    /// Reads the segment's hints into the batch until that is full.
    fn read_segment(
        &self,
        disk: &mut Disk,
        segment: &HintSegment,
        batch: &mut Batch,
    ) -> Result<(), HintLogError> {
        let id = self.id(segment.number);
        let io = || HintLogError::io("read", id.name());
        let file = self.shared.files.open(&id.path()).map_err(io())?;
        let mut at = disk.start_of(segment, batch.above);
        let mut read_bytes = READ_BYTES;
        while at.offset < segment.bytes && !batch.full {
            let rest = usize::try_from(segment.bytes - at.offset).unwrap_or(usize::MAX);
            let mut window = vec![0; read_bytes.min(rest)];
            let read = file.read_at(at.offset, &mut window).map_err(io())?;
            match consume(id, &window[..read], &mut at, batch) {
                Parsed::Short { needed }
                    if read == window.len() && at.offset + needed as u64 <= segment.bytes =>
                {
                    read_bytes = needed.max(READ_BYTES);
                }
                Parsed::Entry { .. } => {}
                _ => return self.cut_short(disk, segment, at),
            }
        }
        disk.cursor = Some(at);
        Ok(())
    }

    /// Gives up what follows a place in a segment, because it cannot be read.
    fn cut_short(
        &self,
        disk: &mut Disk,
        segment: &HintSegment,
        at: Cursor,
    ) -> Result<(), HintLogError> {
        let id = self.id(segment.number);
        let lost = segment.last - at.sequence;
        error!(segment = id.name(), offset = at.offset, lost, "a hint segment is damaged");
        self.shared.damaged_segments.fetch_add(1, Ordering::Relaxed);
        disk.active.take_if(|active| active.number == segment.number);
        disk.cursor = None;
        let mut queue = self.queue.lock();
        let readable = at.sequence >= segment.first;
        queue.segments.retain(|it| it.number != segment.number || readable);
        if let Some(kept) = queue.segments.iter_mut().find(|it| it.number == segment.number) {
            (kept.last, kept.bytes) = (at.sequence, at.offset);
        }
        drop(queue);
        if readable { Ok(()) } else { set_aside(self.shared.files.as_ref(), id) }
    }
}

impl Disk {
    /// Where to begin to read a segment for what is above a sequence.
    fn start_of(&self, segment: &HintSegment, above: u64) -> Cursor {
        let number = segment.number;
        let beginning = Cursor { number, sequence: segment.first - 1, offset: HEADER_BYTES as u64 };
        let usable = |at: &Cursor| at.number == number && at.sequence <= above;
        self.cursor.filter(usable).unwrap_or(beginning)
    }
}

/// Reads entries off `bytes`, advancing `at`, until they end or the batch is full; returns what it
/// met last.
fn consume(id: SegmentId, mut bytes: &[u8], at: &mut Cursor, batch: &mut Batch) -> Parsed {
    loop {
        let parsed = id.parse_entry(bytes);
        let Parsed::Entry { queued, bytes: entry_bytes } = &parsed else { return parsed };
        if queued.sequence != at.sequence + 1 {
            return Parsed::Bad;
        }
        if !batch.offer(queued) {
            return parsed;
        }
        at.sequence = queued.sequence;
        at.offset += *entry_bytes as u64;
        bytes = &bytes[*entry_bytes..];
        if bytes.is_empty() {
            return parsed;
        }
    }
}

/// Hints on their way out.
struct Batch {
    hints: Vec<QueuedHint>,
    /// Sequence of the last hint taken or asked to be passed over.
    above: u64,
    bytes: usize,
    bytes_max: usize,
    full: bool,
}

impl Batch {
    fn new(above: u64, bytes_max: usize) -> Self {
        Batch { hints: Vec::new(), above, bytes: 0, bytes_max, full: false }
    }

    /// Takes the hint, or passes over one that is not wanted; false if there is no room for it.
    fn offer(&mut self, queued: &QueuedHint) -> bool {
        if queued.sequence <= self.above {
            return true;
        }
        let bytes = entry_bytes(&queued.hint);
        self.full |= !self.hints.is_empty() && self.bytes + bytes > self.bytes_max;
        if !self.full {
            self.bytes += bytes;
            self.above = queued.sequence;
            self.hints.push(queued.clone());
        }
        !self.full
    }
}
