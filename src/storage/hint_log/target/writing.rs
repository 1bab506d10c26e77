//! Writing a target's hints: from the buffer to the active segment.
//!
//! A segment that a write or sync failed on is given up: the next hints go to a new one.

use crate::storage::hint_log::entry::{HEADER_BYTES, entry_bytes};
use crate::storage::hint_log::target::{ActiveFile, Disk, HintSegment, TargetLog};
use crate::storage::hint_log::{HintLogError, QueuedHint};

impl TargetLog {
    pub(in crate::storage::hint_log) fn flush(&self, sync: bool) -> Result<(), HintLogError> {
        let mut disk = self.disk.lock();
        loop {
            let (batch, in_new_segment) = self.next_batch(&disk);
            if batch.is_empty() {
                break;
            }
            if in_new_segment {
                self.begin_segment(&mut disk)?;
            }
            self.write(&mut disk, &batch)?;
        }
        if sync { self.sync(&mut disk) } else { Ok(()) }
    }

    /// The next hints to write: as many as the active segment has room for, or a new one.
    fn next_batch(&self, disk: &Disk) -> (Vec<QueuedHint>, bool) {
        let queue = self.queue.lock();
        let Some(front) = queue.buffer.front() else { return (Vec::new(), false) };
        let max = self.shared.segment_bytes_max;
        let has_room = |active: &&ActiveFile| active.end + entry_bytes(&front.hint) as u64 <= max;
        let active = disk.active.as_ref().filter(has_room);
        // Hints go from the front only: once a buffered one has gone, so has the active segment.
        debug_assert!(active.is_none_or(|active| active.last + 1 == front.sequence), "a gap");
        let mut end = active.map_or(HEADER_BYTES as u64, |active| active.end);
        let mut batch = Vec::new();
        for queued in &queue.buffer {
            end += entry_bytes(&queued.hint) as u64;
            if end > max && !batch.is_empty() {
                break;
            }
            batch.push(queued.clone());
        }
        (batch, active.is_none())
    }

    /// Creates the next segment; its header is written with its first hints.
    fn begin_segment(&self, disk: &mut Disk) -> Result<(), HintLogError> {
        self.sync(disk)?;
        let id = self.id(disk.next_number);
        disk.next_number += 1;
        let created = self.shared.files.create(&id.path());
        disk.active = Some(ActiveFile {
            number: id.number,
            file: created.map_err(HintLogError::io("create", id.name()))?,
            end: 0,
            last: 0,
            synced: true,
            name_synced: false,
        });
        Ok(())
    }

    /// Writes hints to the active segment and moves them from the buffer to the segment.
    fn write(&self, disk: &mut Disk, batch: &[QueuedHint]) -> Result<(), HintLogError> {
        let Some(active) = &mut disk.active else { return Ok(()) };
        let id = self.id(active.number);
        let mut bytes = Vec::new();
        if active.end == 0 {
            id.encode_header(disk.written, &mut bytes);
        }
        for queued in batch {
            id.encode_entry(queued, &mut bytes);
        }
        if let Err(error) = active.file.write_at(active.end, &bytes) {
            self.abandon(disk);
            return Err(HintLogError::io("write", id.name())(error));
        }
        active.end += bytes.len() as u64;
        active.synced = false;
        active.last = batch.last().map_or(active.last, |queued| queued.sequence);
        disk.written = active.last;
        self.note_written(active, batch);
        Ok(())
    }

    /// Gives up a segment after a failed write: what it holds stays, the rest goes to a new one.
    fn abandon(&self, disk: &mut Disk) {
        let Some(active) = disk.active.take() else { return };
        // Best effort: what is left behind the last hint would be reported as damage later.
        let _ = match active.end {
            0 => self.shared.files.remove(&self.id(active.number).path()),
            end => active.file.set_len(end),
        };
    }

    fn note_written(&self, active: &ActiveFile, batch: &[QueuedHint]) {
        let mut queue = self.queue.lock();
        let oldest = batch.iter().map(|queued| queued.hint.created_wall_ms).min().unwrap_or(0);
        match queue.segments.back_mut().filter(|segment| segment.number == active.number) {
            Some(segment) => {
                segment.last = active.last;
                segment.bytes = active.end;
                segment.oldest_wall_ms = segment.oldest_wall_ms.min(oldest);
            }
            None => queue.segments.push_back(HintSegment {
                number: active.number,
                first: batch.first().map_or(active.last, |queued| queued.sequence),
                last: active.last,
                bytes: active.end,
                oldest_wall_ms: oldest,
            }),
        }
        self.drop_buffered(&mut queue, active.last);
    }

    fn sync(&self, disk: &mut Disk) -> Result<(), HintLogError> {
        let Some(active) = &mut disk.active else { return Ok(()) };
        let synced = match active.synced {
            true => Ok(()),
            false => active.file.sync_data(),
        };
        if let Err(error) = synced {
            let name = self.id(active.number).name();
            // A second sync would prove nothing; the next hints go to a file that is sound.
            disk.active = None;
            return Err(HintLogError::io("sync", name)(error));
        }
        active.synced = true;
        if !active.name_synced {
            self.sync_folder()?;
            active.name_synced = true;
        }
        Ok(())
    }
}
