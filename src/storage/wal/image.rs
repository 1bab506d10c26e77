//! One segment read into memory, and what may follow its last sound frame.

use crate::storage::files::{FileHandle, Files};
use crate::storage::wal::error::WalError;
use crate::storage::wal::frame::{Frame, torn_frame_bytes};
use crate::storage::wal::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, damaged, started_path};
use crate::types::Lsn;

/// A segment in memory.
pub(super) struct Image {
    pub(super) header: SegmentHeader,
    pub(super) file: Box<dyn FileHandle>,
    pub(super) bytes: Vec<u8>,
}

impl Image {
    /// Reads a segment and checks its header and length.
    pub(super) fn load(files: &dyn Files, segment: u64) -> Result<Image, WalError> {
        let io = || WalError::io("read", segment);
        let file = files.open(&started_path(segment)).map_err(io())?;
        let len = file.len().map_err(io())?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let read = file.read_at(0, &mut header).map_err(io())?;
        let header = SegmentHeader::decode(&header[..read], segment)?;
        let capacity = header.capacity;
        if len != capacity {
            let reason = format!("the file has {len} bytes where {capacity} were written");
            return Err(damaged(segment, SEGMENT_HEADER_BYTES, reason));
        }
        let too_large = |_| damaged(segment, 0, "the segment does not fit into memory");
        let mut bytes = vec![0; usize::try_from(len).map_err(too_large)?];
        let read = file.read_at(0, &mut bytes).map_err(io())?;
        if read < bytes.len() {
            return Err(damaged(segment, read, "the file is shorter than it says"));
        }
        // A process that was killed may have left writes that nobody has synced. What is found now
        // is believed from now on, so it must be durable.
        file.sync_data().map_err(WalError::io("sync", segment))?;
        Ok(Image { header, file, bytes })
    }

    /// Judges what follows the last sound frame, which ends at `at`: returns the bytes of a torn
    /// frame, up to the last that is not zero, or damage. `next_lsn` is the position to go on with.
    pub(super) fn torn_bytes(&self, at: usize, next_lsn: Lsn) -> Result<usize, WalError> {
        let (segment, rest) = (self.header.segment, &self.bytes[at..]);
        let torn_bytes = bytes_to_last_non_zero(rest);
        if torn_frame_bytes(rest, segment).is_some_and(|frame| torn_bytes > frame) {
            return Err(damaged(segment, at, "an unreadable frame with more bytes behind it"));
        }
        let is_frame = |offset: &usize| {
            Frame::read(&rest[*offset..], segment).is_some_and(|it| it.first_lsn >= next_lsn)
        };
        match (1..torn_bytes).find(is_frame) {
            Some(offset) => {
                let reason = format!("an unreadable frame before a sound one at {}", at + offset);
                Err(damaged(segment, at, reason))
            }
            None => Ok(torn_bytes),
        }
    }

    /// True if nothing was ever written from there on.
    pub(super) fn is_zero_from(&self, at: usize) -> bool {
        bytes_to_last_non_zero(&self.bytes[at..]) == 0
    }
}

/// Bytes up to the last one that is not zero.
fn bytes_to_last_non_zero(rest: &[u8]) -> usize {
    // Whole chunks of zeros are passed over at the speed of memory; most of a segment is such.
    const CHUNK_BYTES: usize = 4096;
    let mut end = rest.len();
    for chunk in rest.rchunks(CHUNK_BYTES) {
        if chunk.iter().fold(0, |all, byte| all | byte) != 0 {
            let last = chunk.iter().rposition(|byte| *byte != 0);
            return end - chunk.len() + last.map_or(0, |last| last + 1);
        }
        end -= chunk.len();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_zeros_are_not_counted() {
        assert_eq!(bytes_to_last_non_zero(&[]), 0);
        assert_eq!(bytes_to_last_non_zero(&[0; 9000]), 0);
        for last in [0, 1, 4095, 4096, 4097, 8999] {
            let mut bytes = vec![0; 9000];
            bytes[last] = 1;
            assert_eq!(bytes_to_last_non_zero(&bytes), last + 1);
        }
    }
}
