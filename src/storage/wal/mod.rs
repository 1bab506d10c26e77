//! The write-ahead log: what a node has acknowledged, in the order in which it did.
//!
//! One frame, one write and one `fdatasync` per [`Wal::commit`], however many records it carries;
//! gathering them is the driver's part. Records are numbered from 1 without gaps ([`Lsn`]). They
//! lie in segments that are filled with zeros ahead of their use, so that a commit neither waits
//! for space nor can run out of it; whole segments are dropped once the engine holds their records
//! durably.
//!
//! Invariants: what `commit` returned is durable; a segment is written only once all before it are
//! sealed; a failed write or sync poisons the log for good, since nothing can then be known of
//! what the disk holds (PostgreSQL's "fsyncgate", 2018). What a crash may leave behind and what
//! counts as damage stands in the `recovery` module.
//!
//! Caveat: on file systems that copy on write, a full disk may still fail a commit, which then
//! poisons.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::storage::files::Files;
use crate::types::Lsn;

mod error;
mod frame;
mod group_record;
mod image;
mod preparer;
pub(crate) mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use error::is_disk_full;
pub use error::{ReplayError, WalError};
pub use group_record::GroupRecord;
pub use preparer::SegmentPreparer;
pub use record::LogRecord;
pub use recovery::Recovery;

use frame::FrameKind;
use preparer::Supply;
use segment::{ActiveSegment, FOLDER, SealedSegment, room_when_new, started_path};

/// The least and the most bytes of a segment; other wishes are rounded to these. Offsets and
/// frame lengths have 32 bits, and recovery holds one segment in memory.
const SEGMENT_BYTES: (u64, u64) = (512, 1 << 30);
/// The encode buffer gives back what one huge commit made of it.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// How the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// Bytes of one segment, from 512 to 1 GiB. Segments that exist keep their size.
    pub segment_bytes: u64,
}

/// What the log reports of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Segments in use.
    pub segments: usize,
    /// Segments that wait to be used.
    pub segments_prepared: usize,
    /// Bytes of headers and frames in the segments in use.
    pub bytes: u64,
    /// Bytes that the log's files take on disk.
    pub disk_bytes: u64,
    /// Frames of records written since the log was opened.
    pub commits: u64,
    /// Calls of `fdatasync` by commits and rotations since the log was opened.
    pub syncs: u64,
}

/// The log of one node, written by one caller.
pub struct Wal {
    files: Arc<dyn Files>,
    supply: Arc<Supply>,
    sealed: VecDeque<SealedSegment>,
    active: ActiveSegment,
    next_lsn: Lsn,
    /// True when no record follows the last mark of closing.
    closed: bool,
    /// Why the log takes nothing more.
    poison: Option<String>,
    buffer: Vec<u8>,
    commits: u64,
    syncs: u64,
}

impl Wal {
    /// Opens the log of a directory, or makes one: checks every record that it holds and hands
    /// out, in order, those that are needed above `replay_above` (what the engine has applied; 0
    /// for an empty one; see [`LogRecord::is_needed_above`]). A new log's first segment is written
    /// before this returns.
    ///
    /// # Errors
    /// Any [`WalError`]. Records may have been handed out before damage was met: what they made
    /// must then be thrown away.
    pub fn open(
        files: Arc<dyn Files>,
        options: WalOptions,
        replay_above: Lsn,
        replay: &mut dyn FnMut(Lsn, LogRecord) -> Result<(), ReplayError>,
    ) -> Result<(Wal, Recovery), WalError> {
        let capacity = options.segment_bytes.clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1);
        let recovered = recovery::recover(files.as_ref(), replay_above, replay)?;
        let mut report = recovered.report;
        let last = recovered.active.as_ref().map_or(0, |active| active.header.segment);
        let supply = Arc::new(Supply::new(Arc::clone(&files), capacity, last + 1));
        let active = match recovered.active {
            Some(active) => active,
            None => supply.take()?.start(files.as_ref(), recovered.next_lsn)?,
        };
        report.segments = recovered.sealed.len() + 1;
        let wal = Wal {
            files,
            supply,
            sealed: recovered.sealed,
            active,
            next_lsn: recovered.next_lsn,
            closed: recovered.closed,
            poison: None,
            buffer: Vec::new(),
            commits: 0,
            syncs: 0,
        };
        Ok((wal, report))
    }

    /// Appends records and makes them durable: one frame, one write, one sync, unless the records
    /// take more than a segment. Returns the position of the last record.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] and [`WalError::RecordTooLarge`]: nothing was written, the log is
    /// sound. [`WalError::Io`] while making a segment: likewise. After any other [`WalError::Io`]
    /// the records may or may not be found on the next start, and the log is poisoned.
    pub fn commit(&mut self, records: &[LogRecord]) -> Result<Lsn, WalError> {
        self.check_sound()?;
        let frames = self.plan(records)?;
        // The segments must be there before the first write: a batch is refused whole.
        self.supply.reserve(frames.iter().filter(|frame| frame.in_new_segment).count())?;
        for frame in frames {
            if frame.in_new_segment {
                self.begin_segment()?;
            }
            self.append_records(&records[frame.records])?;
        }
        Ok(self.last_lsn())
    }

    /// Position of the last record; 0 before the first.
    pub fn last_lsn(&self) -> Lsn {
        Lsn(self.next_lsn.0 - 1)
    }

    /// Makes segments ahead, on another thread.
    pub fn preparer(&self) -> SegmentPreparer {
        SegmentPreparer::new(Arc::clone(&self.supply))
    }

    /// True when no prepared segment waits and none is being made: time for
    /// [`SegmentPreparer::prepare`]. Without it, a commit that finds its segment full makes one.
    pub fn wants_segment(&self) -> bool {
        self.supply.is_wanting()
    }

    /// Seals the segment in use and begins the next, so that all records so far may be dropped
    /// once the engine holds them. Does nothing while the segment has no records.
    ///
    /// # Errors
    /// As [`Wal::commit`].
    pub fn rotate(&mut self) -> Result<(), WalError> {
        self.check_sound()?;
        if self.active.header.first_lsn == self.next_lsn {
            return Ok(());
        }
        self.supply.reserve(1)?;
        self.begin_segment()
    }

    /// How far `drop_through(lsn)` would go: the last record of the last segment that it would
    /// delete; `None` if there is none.
    pub fn droppable_through(&self, lsn: Lsn) -> Option<Lsn> {
        self.sealed.iter().map(|sealed| sealed.last_lsn).take_while(|last| *last <= lsn).last()
    }

    /// Bytes that a single record may have in this log.
    pub fn record_bytes_max(&self) -> usize {
        usize::try_from(room_when_new(self.supply.capacity())).unwrap_or(0)
    }

    /// Deletes the sealed segments all of whose records are at or below `lsn`, oldest first and
    /// each durably, so that a power loss leaves no gap. Returns how many went.
    ///
    /// # Errors
    /// [`WalError::Io`]; [`WalError::Poisoned`].
    pub fn drop_through(&mut self, lsn: Lsn) -> Result<usize, WalError> {
        self.check_sound()?;
        let mut dropped = 0;
        while let Some(oldest) = self.sealed.front().copied()
            && oldest.last_lsn <= lsn
        {
            let segment = oldest.segment;
            self.files.remove(&started_path(segment)).map_err(WalError::io("remove", segment))?;
            self.sealed.pop_front();
            dropped += 1;
            let synced = self.files.sync_folder(FOLDER);
            self.sound(synced.map_err(WalError::io("sync the folder of", segment)))?;
        }
        Ok(dropped)
    }

    /// Notes in the log that it was closed in good order: any damage to what it holds now will be
    /// told from a torn write. The log may still be written afterwards.
    ///
    /// # Errors
    /// [`WalError::Io`]; [`WalError::Poisoned`].
    pub fn close(&mut self) -> Result<(), WalError> {
        self.check_sound()?;
        if !self.closed {
            self.append_mark(FrameKind::Closed)?;
            self.closed = true;
        }
        Ok(())
    }

    /// Sizes and counts for metrics.
    pub fn stats(&self) -> WalStats {
        let segments_prepared = self.supply.ready();
        let sealed_bytes: u64 = self.sealed.iter().map(|sealed| sealed.used_bytes).sum();
        let sealed_disk_bytes: u64 = self.sealed.iter().map(|sealed| sealed.disk_bytes).sum();
        WalStats {
            segments: self.sealed.len() + 1,
            segments_prepared,
            bytes: sealed_bytes + self.active.end,
            disk_bytes: sealed_disk_bytes
                + self.active.header.capacity
                + segments_prepared as u64 * self.supply.capacity(),
            commits: self.commits,
            syncs: self.syncs,
        }
    }

    /// True after a failed write or sync: the log takes nothing more.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }
}

/// One frame of a commit.
struct PlannedFrame {
    records: Range<usize>,
    in_new_segment: bool,
}

impl Wal {
    /// Cuts a batch into frames: one, in this segment or a new one, if a segment has room for all
    /// of it; else as few as it takes, each in a new segment.
    fn plan(&self, records: &[LogRecord]) -> Result<Vec<PlannedFrame>, WalError> {
        let total: u64 = records.iter().map(|record| record.encoded_bytes() as u64).sum();
        if records.is_empty() {
            return Ok(Vec::new());
        }
        if total <= self.active.room() {
            return Ok(vec![PlannedFrame { records: 0..records.len(), in_new_segment: false }]);
        }
        let bytes_max = self.record_bytes_max();
        let mut frames: Vec<PlannedFrame> = Vec::new();
        let mut free = 0;
        for (index, record) in records.iter().enumerate() {
            let bytes = record.encoded_bytes();
            if bytes > bytes_max {
                return Err(WalError::RecordTooLarge { bytes, bytes_max });
            }
            match frames.last_mut() {
                Some(frame) if bytes <= free => frame.records.end = index + 1,
                _ => {
                    frames.push(PlannedFrame { records: index..index + 1, in_new_segment: true });
                    free = bytes_max;
                }
            }
            free -= bytes;
        }
        Ok(frames)
    }

    fn append_records(&mut self, records: &[LogRecord]) -> Result<(), WalError> {
        frame::begin(&mut self.buffer);
        for record in records {
            record.encode(&mut self.buffer);
        }
        self.append_frame(FrameKind::Data, records.len())?;
        self.next_lsn.0 += records.len() as u64;
        self.closed = false;
        self.commits += 1;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    fn append_mark(&mut self, kind: FrameKind) -> Result<(), WalError> {
        frame::begin(&mut self.buffer);
        self.append_frame(kind, 0)
    }

    /// Writes the frame that the buffer holds and makes it durable.
    fn append_frame(&mut self, kind: FrameKind, records: usize) -> Result<(), WalError> {
        let segment = self.active.header.segment;
        frame::finish(&mut self.buffer, segment, kind, self.next_lsn, records);
        self.syncs += 1;
        let appended = self.active.append(&self.buffer);
        self.sound(appended)
    }

    /// Makes the next segment part of the log, then seals the present one. In this order a seal
    /// proves that there is a successor, and a record in the successor that there is a seal.
    fn begin_segment(&mut self) -> Result<(), WalError> {
        let prepared = self.supply.take()?;
        self.syncs += 1;
        let started = prepared.start(self.files.as_ref(), self.next_lsn);
        let next = self.sound(started)?;
        self.append_mark(FrameKind::Sealed)?;
        let old = std::mem::replace(&mut self.active, next);
        self.sealed.push_back(SealedSegment {
            segment: old.header.segment,
            last_lsn: self.last_lsn(),
            used_bytes: old.end,
            disk_bytes: old.header.capacity,
        });
        Ok(())
    }

    fn check_sound(&self) -> Result<(), WalError> {
        match &self.poison {
            Some(cause) => Err(WalError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Poisons the log if an operation on what it holds has failed.
    fn sound<T>(&mut self, result: Result<T, WalError>) -> Result<T, WalError> {
        if let Err(error) = &result {
            tracing::error!(%error, "the log is poisoned: the node can acknowledge nothing more");
            self.poison = Some(error.to_string());
        }
        result
    }
}
