//! Reads the log back: tells a torn tail from damage, and never loses anything silently.
//!
//! A segment is only written once the one before it is sealed, and a frame only once the one
//! before it is durable. So a crash can leave exactly one thing unfinished: the last frame of the
//! last segment, with nothing behind it. That may be cut, and is reported. Everything else that is
//! not as it was written is [`WalError::Damaged`]:
//!
//! * a bad frame with a sound one, or more bytes than it can have had, behind it;
//! * a gap in the segments' numbers or in the records' positions; a segment without its seal whose
//!   successor is in use; a seal without a successor; a wrong length or header;
//! * a log that ends before, or begins after, what the engine says it has applied.
//!
//! Caveat: after a crash, damage to an acknowledged last frame looks like a torn write, is cut and
//! reported like one; zeros in place of the last frames look like nothing was written. After
//! [`crate::storage::wal::Wal::close`] damage is told, since a frame that says so follows, and the
//! engine's position gives away a log that ends before it.

use std::collections::VecDeque;

use tracing::warn;

use crate::storage::files::Files;
use crate::storage::wal::error::{ReplayError, WalError};
use crate::storage::wal::frame::{Frame, FrameKind};
use crate::storage::wal::image::Image;
use crate::storage::wal::record::{LogRecord, RecordError};
use crate::storage::wal::segment::{
    ActiveSegment, FOLDER, SEGMENT_HEADER_BYTES, SealedSegment, SegmentName, damaged, parse_name,
    prepared_path, started_path,
};
use crate::types::Lsn;

/// What was found when the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records read and checked.
    pub records: u64,
    /// Those of them that were handed out.
    pub replayed: u64,
    /// Bytes of an unfinished frame that were cut off the end. Not 0 means that a commit was
    /// under way when the node stopped, or that its last commit was damaged since.
    pub tail_cut_bytes: u64,
    /// Segments in use.
    pub segments: usize,
    /// The number of the oldest one that was found; 0 when there was none.
    pub first_segment: u64,
    /// Position of the oldest record kept; that of the first one to come if there is none. Rows
    /// below it are in the engine or nowhere.
    pub first_lsn: Lsn,
    /// True when the log had been closed in good order and not been written since.
    pub closed: bool,
    /// True when there was no log.
    pub created: bool,
}

/// Takes the records that are handed out.
pub(super) type Replay<'a> = &'a mut dyn FnMut(Lsn, LogRecord) -> Result<(), ReplayError>;

/// The log as found.
pub(super) struct Recovered {
    pub(super) sealed: VecDeque<SealedSegment>,
    /// None when there was no log.
    pub(super) active: Option<ActiveSegment>,
    /// Position of the first record to come.
    pub(super) next_lsn: Lsn,
    /// True when no record follows the last mark of closing.
    pub(super) closed: bool,
    pub(super) report: Recovery,
}

/// Reads all segments, hands out the records needed above `replay_above` and cuts a torn tail.
pub(super) fn recover(
    files: &dyn Files,
    replay_above: Lsn,
    replay: Replay<'_>,
) -> Result<Recovered, WalError> {
    let segments = started_segments(files)?;
    let mut scan = Scan::new(files, replay_above, replay);
    for segment in &segments {
        scan.segment(*segment)?;
    }
    scan.check_ends(&segments)?;
    scan.finish()
}

/// Lists the log's segments and removes those that were only prepared: whether they were filled to
/// the end cannot be told.
fn started_segments(files: &dyn Files) -> Result<Vec<u64>, WalError> {
    let mut started = Vec::new();
    for name in files.list(FOLDER).map_err(WalError::io("list the folder of", 0))? {
        match parse_name(&name) {
            SegmentName::Started(segment) => started.push(segment),
            SegmentName::Prepared(segment) => {
                files.remove(&prepared_path(segment)).map_err(WalError::io("remove", segment))?;
            }
            SegmentName::Foreign => warn!(name, "ignored a file that is no log segment"),
        }
    }
    if let Some(pair) = started.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        return Err(damaged(pair[0] + 1, 0, "the file is missing"));
    }
    if !started.is_empty() {
        // Names, like bytes, may be found before they are durable.
        files.sync_folder(FOLDER).map_err(WalError::io("sync the folder of", 0))?;
    }
    Ok(started)
}

struct Scan<'a> {
    files: &'a dyn Files,
    replay_above: Lsn,
    replay: Replay<'a>,
    sealed: VecDeque<SealedSegment>,
    open: Option<OpenSegment>,
    /// Position of the next record; None before the first segment.
    next_lsn: Option<Lsn>,
    report: Recovery,
}

/// A segment without a seal.
struct OpenSegment {
    active: ActiveSegment,
    /// Bytes behind the last sound frame up to the last that is not zero.
    torn_bytes: usize,
}

/// How the frames of a segment end, at which byte.
enum End {
    Sealed(usize),
    Open { end: usize, torn_bytes: usize },
}

impl<'a> Scan<'a> {
    fn new(files: &'a dyn Files, replay_above: Lsn, replay: Replay<'a>) -> Self {
        let (sealed, report) = Default::default();
        Scan { files, replay_above, replay, sealed, open: None, next_lsn: None, report }
    }

    fn segment(&mut self, segment: u64) -> Result<(), WalError> {
        let image = Image::load(self.files, segment)?;
        if let Some(open) = &self.open {
            return self.drop_unused(open, image);
        }
        self.check_first_lsn(&image)?;
        match self.frames(&image)? {
            End::Sealed(end) => self.sealed.push_back(SealedSegment {
                segment,
                last_lsn: Lsn(self.next_lsn().0 - 1),
                used_bytes: end as u64,
                disk_bytes: image.header.capacity,
            }),
            End::Open { end, torn_bytes } => {
                let Image { header, file, .. } = image;
                let active = ActiveSegment { header, file, end: end as u64 };
                self.open = Some(OpenSegment { active, torn_bytes });
            }
        }
        Ok(())
    }

    fn next_lsn(&self) -> Lsn {
        self.next_lsn.unwrap_or(Lsn(1))
    }

    /// A segment behind one without a seal: it was begun and not yet used, or the seal is damaged.
    fn drop_unused(&self, open: &OpenSegment, image: Image) -> Result<(), WalError> {
        let segment = image.header.segment;
        let used = !image.is_zero_from(SEGMENT_HEADER_BYTES);
        if used || image.header.first_lsn != self.next_lsn() {
            let reason = format!("the log goes on in segment {segment:016x} without a seal here");
            let end = usize::try_from(open.active.end).unwrap_or(usize::MAX);
            return Err(damaged(open.active.header.segment, end, reason));
        }
        self.files.remove(&started_path(segment)).map_err(WalError::io("remove", segment))?;
        self.files.sync_folder(FOLDER).map_err(WalError::io("sync the folder of", segment))
    }

    fn check_first_lsn(&mut self, image: &Image) -> Result<(), WalError> {
        let first = image.header.first_lsn;
        match self.next_lsn {
            Some(expected) if expected != first => {
                let reason =
                    format!("it begins at record {} where {} was expected", first.0, expected.0);
                Err(damaged(image.header.segment, 0, reason))
            }
            Some(_) => Ok(()),
            None => {
                self.report.first_lsn = first;
                self.report.first_segment = image.header.segment;
                self.next_lsn = Some(first);
                Ok(())
            }
        }
    }

    fn frames(&mut self, image: &Image) -> Result<End, WalError> {
        let segment = image.header.segment;
        let mut at = SEGMENT_HEADER_BYTES;
        while let Some(frame) = Frame::read(&image.bytes[at..], segment) {
            if frame.first_lsn != self.next_lsn() {
                let (got, expected) = (frame.first_lsn.0, self.next_lsn().0);
                let reason = format!("a frame of record {got} where {expected} was expected");
                return Err(damaged(segment, at, reason));
            }
            match frame.kind {
                FrameKind::Data => self.records(segment, at, &frame)?,
                FrameKind::Closed => self.report.closed = true,
                FrameKind::Sealed => return Ok(End::Sealed(at + frame.bytes())),
            }
            at += frame.bytes();
        }
        let torn_bytes = image.torn_bytes(at, self.next_lsn())?;
        Ok(End::Open { end: at, torn_bytes })
    }

    fn records(&mut self, segment: u64, at: usize, frame: &Frame<'_>) -> Result<(), WalError> {
        let mut payload = frame.payload;
        for _ in 0..frame.records {
            let record = LogRecord::decode(&mut payload).map_err(|error| match error {
                RecordError::UnknownKind { kind } => {
                    WalError::UnknownRecord { segment, offset: at as u64, kind }
                }
                RecordError::Malformed { .. } => damaged(segment, at, error.to_string()),
            })?;
            self.hand_out(record)?;
        }
        if !payload.is_empty() {
            return Err(damaged(segment, at, "the frame holds more than its records"));
        }
        self.report.closed = false;
        Ok(())
    }

    fn hand_out(&mut self, record: LogRecord) -> Result<(), WalError> {
        let lsn = self.next_lsn();
        self.next_lsn = Some(Lsn(lsn.0 + 1));
        self.report.records += 1;
        if record.is_needed_above(self.replay_above, lsn) {
            (self.replay)(lsn, record).map_err(|source| WalError::Replay { lsn, source })?;
            self.report.replayed += 1;
        }
        Ok(())
    }

    /// Checks that nothing is missing before the first and behind the last segment.
    fn check_ends(&self, segments: &[u64]) -> Result<(), WalError> {
        let (first, last) = (segments.first().copied(), segments.last().copied());
        if let (Some(last), None) = (last, &self.open) {
            return Err(damaged(last + 1, 0, "the file is missing"));
        }
        let (applied, next) = (self.replay_above.0, self.next_lsn().0);
        if next <= applied {
            let reason =
                format!("the log ends before record {next}, the engine holds record {applied}");
            return Err(damaged(last.unwrap_or(1), 0, reason));
        }
        // An engine that holds nothing may be a new one; the caller learns `first_lsn`.
        if applied > 0 && self.report.first_lsn.0 > applied + 1 {
            let begin = self.report.first_lsn.0;
            let reason =
                format!("the log begins at record {begin}, the engine ends at record {applied}");
            return Err(damaged(first.unwrap_or(1), 0, reason));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Recovered, WalError> {
        let (next_lsn, closed) = (self.next_lsn(), self.report.closed);
        let active = match self.open.take() {
            None => {
                self.report.created = true;
                self.report.first_lsn = next_lsn;
                None
            }
            Some(open) => Some(self.cut(open)?),
        };
        self.report.segments = self.sealed.len() + usize::from(active.is_some());
        Ok(Recovered { sealed: self.sealed, active, next_lsn, closed, report: self.report })
    }

    fn cut(&mut self, open: OpenSegment) -> Result<ActiveSegment, WalError> {
        let OpenSegment { active, torn_bytes } = open;
        if torn_bytes == 0 {
            return Ok(active);
        }
        let (segment, offset) = (active.header.segment, active.end);
        warn!(segment, offset, torn_bytes, "cut an unfinished commit off the end of the log");
        let zeros = vec![0; torn_bytes];
        active.file.write_at(offset, &zeros).map_err(WalError::io("cut the tail of", segment))?;
        active.file.sync_data().map_err(WalError::io("sync", segment))?;
        self.report.tail_cut_bytes = torn_bytes as u64;
        self.report.closed = false;
        Ok(active)
    }
}
