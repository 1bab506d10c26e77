//! Finds the hints that a former run left, and what of them can be read.
//!
//! The last segment of a target may end in an unfinished write, which is cut. Anything else that
//! cannot be read or is missing is damage: the hints before it are kept, the rest is given up and
//! reported. Caveat: whole hints that are missing at the very end of a target's last segment look
//! like hints that were never written.

use std::collections::BTreeMap;

use tracing::{error, warn};

use crate::storage::files::{FileHandle, Files};
use crate::storage::hint_log::entry::{FOLDER, HEADER_BYTES, Parsed, SegmentId};
use crate::storage::hint_log::target::HintSegment;
use crate::storage::hint_log::{HintLogError, HintRecovery};
use crate::types::NodeId;

/// The segments of each target, in order.
pub(super) type Found = BTreeMap<NodeId, Vec<HintSegment>>;

/// Reads all segments.
pub(super) fn recover(files: &dyn Files) -> Result<(Found, HintRecovery), HintLogError> {
    let mut ids = segment_ids(files)?;
    ids.sort_unstable();
    let mut found = Found::new();
    let mut report = HintRecovery::default();
    for (index, id) in ids.iter().enumerate() {
        let is_last = ids.get(index + 1).is_none_or(|next| next.target != id.target);
        let image = Image::load(files, *id)?;
        let before = found.get(&id.target).and_then(|segments| segments.last());
        image.check_preceding(before, &mut report)?;
        if let Some(segment) = image.recover(files, is_last, &mut report)? {
            report.hints += segment.last - segment.first + 1;
            report.bytes += segment.bytes;
            found.entry(id.target).or_default().push(segment);
        }
    }
    Ok((found, report))
}

/// Renames a segment of which nothing can be read, so that it is met no more but not destroyed.
pub(super) fn set_aside(files: &dyn Files, id: SegmentId) -> Result<(), HintLogError> {
    let aside = format!("{}.damaged", id.path());
    files.rename(&id.path(), &aside).map_err(HintLogError::io("set aside", id.name()))
}

fn segment_ids(files: &dyn Files) -> Result<Vec<SegmentId>, HintLogError> {
    let list = HintLogError::io("list the folder of", FOLDER.to_owned());
    let names = files.list(FOLDER).map_err(list)?;
    let mut ids = Vec::with_capacity(names.len());
    for name in names {
        match SegmentId::parse(&name) {
            Some(id) => ids.push(id),
            None => warn!(name, "ignored a file that is no hint segment"),
        }
    }
    Ok(ids)
}

/// A segment in memory.
struct Image {
    id: SegmentId,
    file: Box<dyn FileHandle>,
    bytes: Vec<u8>,
}

impl Image {
    fn load(files: &dyn Files, id: SegmentId) -> Result<Image, HintLogError> {
        let io = || HintLogError::io("read", id.name());
        let file = files.open(&id.path()).map_err(io())?;
        let len = usize::try_from(file.len().map_err(io())?).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        let read = file.read_at(0, &mut bytes).map_err(io())?;
        bytes.truncate(read);
        Ok(Image { id, file, bytes })
    }

    /// Reports the segment before this one if it lacks hints that were written before this one's.
    fn check_preceding(
        &self,
        before: Option<&HintSegment>,
        report: &mut HintRecovery,
    ) -> Result<(), HintLogError> {
        let preceding = self.id.read_header(&self.bytes)?;
        if let (Some(preceding), Some(before)) = (preceding, before)
            && before.last < preceding
        {
            report_damage(SegmentId { number: before.number, ..self.id }, before.bytes, report);
        }
        Ok(())
    }

    /// What can be read of the segment; None for nothing. A damaged header alone loses nothing:
    /// the entries vouch for themselves.
    fn recover(
        &self,
        files: &dyn Files,
        is_last: bool,
        report: &mut HintRecovery,
    ) -> Result<Option<HintSegment>, HintLogError> {
        let (segment, end) = self.entries();
        let rest = (self.bytes.len() - end) as u64;
        let is_sound = rest == 0 && segment.is_some();
        let is_torn = is_last && self.is_torn(end);
        if !is_sound && !is_torn {
            report_damage(self.id, end as u64, report);
            if segment.is_none() {
                set_aside(files, self.id)?;
            }
            return Ok(segment);
        }
        report.tail_cut_bytes += rest;
        if segment.is_none() {
            let removed = files.remove(&self.id.path());
            removed.map_err(HintLogError::io("remove", self.id.name()))?;
        } else if rest > 0 {
            self.cut(end)?;
        }
        Ok(segment)
    }

    /// The sound entries from the beginning on, and where they end.
    fn entries(&self) -> (Option<HintSegment>, usize) {
        let (mut segment, mut end) = (None::<HintSegment>, HEADER_BYTES.min(self.bytes.len()));
        while let Parsed::Entry { queued, bytes } = self.id.parse_entry(&self.bytes[end..]) {
            let (sequence, created) = (queued.sequence, queued.hint.created_wall_ms);
            let before = segment.unwrap_or(HintSegment {
                number: self.id.number,
                first: sequence,
                last: sequence.wrapping_sub(1),
                bytes: 0,
                oldest_wall_ms: created,
            });
            if sequence == 0 || sequence != before.last + 1 {
                break;
            }
            end += bytes;
            segment = Some(HintSegment {
                last: sequence,
                bytes: end as u64,
                oldest_wall_ms: before.oldest_wall_ms.min(created),
                ..before
            });
        }
        (segment, end)
    }

    /// True if no sound entry follows: an unfinished write looks like this.
    fn is_torn(&self, end: usize) -> bool {
        let is_entry = |at| matches!(self.id.parse_entry(&self.bytes[at..]), Parsed::Entry { .. });
        !(end..self.bytes.len()).any(is_entry)
    }

    fn cut(&self, end: usize) -> Result<(), HintLogError> {
        let io = |during| HintLogError::io(during, self.id.name());
        warn!(segment = self.id.name(), offset = end, "cut an unfinished write of hints");
        self.file.set_len(end as u64).map_err(io("cut the tail of"))?;
        self.file.sync_data().map_err(io("sync"))
    }
}

fn report_damage(id: SegmentId, offset: u64, report: &mut HintRecovery) {
    let segment = id.name();
    if !report.damaged_segments.contains(&segment) {
        error!(segment, offset, "a hint segment is damaged: some of its hints are lost");
        report.damaged_segments.push(segment);
    }
}
