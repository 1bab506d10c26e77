//! Segments: the files of the log.
//!
//! A segment is `wal/<number>.new` while it is prepared (all zeros) and `wal/<number>.log` from
//! the moment its header is durable. So whatever is called `.log` must have a sound header and its
//! full length, and whatever is called `.new` holds nothing.
//!
//! ```text
//! magic [8] | format u32 | segment u64 | first LSN u64 | capacity u64 | crc32c u32
//! frames, then zeros
//! ```

use bytes::{Buf, BufMut};

use crate::storage::files::{FileHandle, Files};
use crate::storage::wal::error::WalError;
use crate::storage::wal::frame::FRAME_HEADER_BYTES;
use crate::types::Lsn;

/// The folder of the log.
pub(super) const FOLDER: &str = "wal";
/// The format that this program reads and writes. The header keeps its layout in every format.
pub(super) const FORMAT: u32 = 1;
/// Bytes before the first frame.
pub(super) const SEGMENT_HEADER_BYTES: usize = 40;

const MAGIC: [u8; 8] = *b"CoterWAL";
const CRC_BYTES: usize = 4;
/// Kept free behind the records for the frames that close the log and seal the segment.
const RESERVED_BYTES: u64 = 2 * FRAME_HEADER_BYTES as u64;

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) segment: u64,
    /// Position of the first record that the segment may hold.
    pub(super) first_lsn: Lsn,
    /// Bytes of the file.
    pub(super) capacity: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.put_slice(&MAGIC);
        bytes.put_u32_le(FORMAT);
        bytes.put_u64_le(self.segment);
        bytes.put_u64_le(self.first_lsn.0);
        bytes.put_u64_le(self.capacity);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes
    }

    /// Reads the header of the segment of that number.
    pub(super) fn decode(bytes: &[u8], segment: u64) -> Result<SegmentHeader, WalError> {
        let damaged = |reason: &str| damaged(segment, 0, reason);
        if bytes.len() < SEGMENT_HEADER_BYTES {
            return Err(damaged("the file is shorter than a header"));
        }
        let (body, mut crc) =
            bytes[..SEGMENT_HEADER_BYTES].split_at(SEGMENT_HEADER_BYTES - CRC_BYTES);
        let Some(mut fields) = body.strip_prefix(&MAGIC) else {
            return Err(damaged("it does not begin like a log segment"));
        };
        if crc.get_u32_le() != crc32c::crc32c(body) {
            return Err(damaged("the header's checksum is wrong"));
        }
        match fields.get_u32_le() {
            FORMAT => {}
            got => return Err(WalError::UnknownFormat { segment, got, known: FORMAT }),
        }
        let header = SegmentHeader {
            segment: fields.get_u64_le(),
            first_lsn: Lsn(fields.get_u64_le()),
            capacity: fields.get_u64_le(),
        };
        if header.segment != segment {
            return Err(damaged("the header is that of another segment"));
        }
        Ok(header)
    }
}

/// The segment that is written to.
pub(super) struct ActiveSegment {
    pub(super) header: SegmentHeader,
    pub(super) file: Box<dyn FileHandle>,
    /// Where the next frame goes.
    pub(super) end: u64,
}

impl ActiveSegment {
    /// Bytes of records that one more data frame may have.
    pub(super) fn room(&self) -> u64 {
        room(self.header.capacity.saturating_sub(self.end))
    }

    /// Writes a frame behind the last one and makes it durable. After an error the segment must
    /// not be written again.
    pub(super) fn append(&mut self, frame: &[u8]) -> Result<(), WalError> {
        let segment = self.header.segment;
        self.file.write_at(self.end, frame).map_err(WalError::io("write to", segment))?;
        self.file.sync_data().map_err(WalError::io("sync", segment))?;
        self.end += frame.len() as u64;
        debug_assert!(self.end <= self.header.capacity, "a frame was written past the segment");
        Ok(())
    }
}

/// A segment that is no longer written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedSegment {
    pub(super) segment: u64,
    /// Position of its last record.
    pub(super) last_lsn: Lsn,
    /// Bytes of its header and frames.
    pub(super) used_bytes: u64,
    /// Bytes of its file.
    pub(super) disk_bytes: u64,
}

/// A segment full of zeros that waits for its turn.
pub(super) struct PreparedSegment {
    pub(super) segment: u64,
    pub(super) capacity: u64,
    pub(super) file: Box<dyn FileHandle>,
}

impl PreparedSegment {
    /// Makes the segment part of the log: its header first, then its name, each durable before the
    /// next step.
    pub(super) fn start(
        self,
        files: &dyn Files,
        first_lsn: Lsn,
    ) -> Result<ActiveSegment, WalError> {
        let PreparedSegment { segment, capacity, file } = self;
        let header = SegmentHeader { segment, first_lsn, capacity };
        file.write_at(0, &header.encode()).map_err(WalError::io("write to", segment))?;
        file.sync_data().map_err(WalError::io("sync", segment))?;
        files
            .rename(&prepared_path(segment), &started_path(segment))
            .map_err(WalError::io("rename", segment))?;
        files.sync_folder(FOLDER).map_err(WalError::io("sync the folder of", segment))?;
        Ok(ActiveSegment { header, file, end: SEGMENT_HEADER_BYTES as u64 })
    }
}

/// Bytes of records that a data frame may have in a new segment.
pub(super) fn room_when_new(capacity: u64) -> u64 {
    room(capacity.saturating_sub(SEGMENT_HEADER_BYTES as u64))
}

fn room(free: u64) -> u64 {
    free.saturating_sub(FRAME_HEADER_BYTES as u64 + RESERVED_BYTES)
}

/// What a file of the folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentName {
    Started(u64),
    Prepared(u64),
    /// None of ours.
    Foreign,
}

pub(super) fn parse_name(name: &str) -> SegmentName {
    let Some((digits, suffix)) = name.split_once('.') else { return SegmentName::Foreign };
    match (u64::from_str_radix(digits, 16), suffix) {
        (Ok(segment), "log") if digits.len() == 16 => SegmentName::Started(segment),
        (Ok(segment), "new") if digits.len() == 16 => SegmentName::Prepared(segment),
        _ => SegmentName::Foreign,
    }
}

pub(super) fn started_path(segment: u64) -> String {
    format!("{FOLDER}/{segment:016x}.log")
}

pub(super) fn prepared_path(segment: u64) -> String {
    format!("{FOLDER}/{segment:016x}.new")
}

/// Names damage.
pub(super) fn damaged(segment: u64, offset: usize, reason: impl Into<String>) -> WalError {
    WalError::Damaged { segment, offset: offset as u64, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader { segment: 3, first_lsn: Lsn(9), capacity: 1024 };

    #[test]
    fn a_header_survives_its_bytes() {
        let bytes = HEADER.encode();
        assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes, 3).unwrap(), HEADER);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_damage() {
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let result = SegmentHeader::decode(&bytes, 3);
            assert!(matches!(result, Err(WalError::Damaged { segment: 3, .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_sound_header_of_another_format_is_named() {
        let mut bytes = HEADER.encode();
        bytes[8] = 9;
        let body = SEGMENT_HEADER_BYTES - CRC_BYTES;
        let crc = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
        let error = SegmentHeader::decode(&bytes, 3).unwrap_err();
        assert!(matches!(error, WalError::UnknownFormat { segment: 3, got: 9, known: FORMAT }));
    }

    #[test]
    fn names_are_read_back() {
        let name = |path: String| path.split_once('/').unwrap().1.to_owned();
        assert_eq!(parse_name(&name(started_path(0xab))), SegmentName::Started(0xab));
        assert_eq!(parse_name(&name(prepared_path(2))), SegmentName::Prepared(2));
        for foreign in ["", "1.log", "0000000000000001.log.bak", "x000000000000001.log"] {
            assert_eq!(parse_name(foreign), SegmentName::Foreign, "{foreign}");
        }
    }
}
