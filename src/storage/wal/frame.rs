//! Frames: what one commit writes.
//!
//! ```text
//! crc32c u32 | payload bytes u32 | first LSN u64 | records u32 | kind u8 | header crc u24
//! payload
//! ```
//!
//! The checksum covers everything after itself and starts from a seed made of the segment's
//! number, so bytes of another segment are no frame here. No kind is 0, so zeros are no frame
//! anywhere. The header has a checksum of its own (the low 24 bits of the crc32c of the fields
//! between the two): the length of a torn frame can be believed although its payload cannot.

use bytes::{Buf, BufMut};

use crate::types::Lsn;

/// Bytes before the payload.
pub(super) const FRAME_HEADER_BYTES: usize = 24;
const CRC_BYTES: usize = 4;
/// What the header's own checksum covers.
const FIELDS: std::ops::Range<usize> = CRC_BYTES..FRAME_HEADER_BYTES - HEADER_CRC_BYTES;
const HEADER_CRC_BYTES: usize = 3;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// Records.
    Data = 1,
    /// The segment ends here; the log goes on in the next one, which is durable by now.
    Sealed = 2,
    /// The log was closed in good order here; it may have been opened again since.
    Closed = 3,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<FrameKind> {
        [FrameKind::Data, FrameKind::Sealed, FrameKind::Closed]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A sound frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: FrameKind,
    /// Position of its first record; without records, of the next one to come.
    pub(super) first_lsn: Lsn,
    pub(super) records: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the front of `bytes`, if a sound one is there.
    pub(super) fn read(bytes: &'a [u8], segment: u64) -> Option<Frame<'a>> {
        let header = Header::read(bytes, segment)?;
        let whole = bytes.get(..header.frame_bytes())?;
        let crc = crc32c::crc32c_append(seed(segment), &whole[CRC_BYTES..]);
        (crc == header.crc).then_some(Frame {
            kind: header.kind,
            first_lsn: header.first_lsn,
            records: header.records,
            payload: &whole[FRAME_HEADER_BYTES..],
        })
    }

    /// Bytes of header and payload.
    pub(super) fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload.len()
    }
}

/// Begins a frame in `buffer`, whose payload is to be appended.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_HEADER_BYTES, 0);
}

/// Fills in the header of the frame that `buffer` holds.
pub(super) fn finish(
    buffer: &mut [u8],
    segment: u64,
    kind: FrameKind,
    first_lsn: Lsn,
    records: usize,
) {
    const TOO_LARGE: &str = "invariant: a frame fits into a segment";
    let payload_bytes = u32::try_from(buffer.len() - FRAME_HEADER_BYTES).expect(TOO_LARGE);
    let mut header = &mut buffer[CRC_BYTES..FRAME_HEADER_BYTES];
    header.put_u32_le(payload_bytes);
    header.put_u64_le(first_lsn.0);
    header.put_u32_le(u32::try_from(records).expect(TOO_LARGE));
    header.put_u8(kind as u8);
    let header_crc = header_crc(&buffer[FIELDS], segment);
    buffer[FIELDS.end..FRAME_HEADER_BYTES].copy_from_slice(&header_crc);
    let crc = crc32c::crc32c_append(seed(segment), &buffer[CRC_BYTES..]);
    buffer[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Bytes that the torn frame at the front of `bytes` would have had, if its header is sound.
pub(super) fn torn_frame_bytes(bytes: &[u8], segment: u64) -> Option<usize> {
    Header::read(bytes, segment).map(|header| header.frame_bytes())
}

struct Header {
    crc: u32,
    payload_bytes: u32,
    first_lsn: Lsn,
    records: u32,
    kind: FrameKind,
}

impl Header {
    fn read(bytes: &[u8], segment: u64) -> Option<Header> {
        let mut header = bytes.get(..FRAME_HEADER_BYTES)?;
        // First what costs least: this is what makes a search byte by byte cheap.
        let kind = FrameKind::from_byte(header[FIELDS.end - 1])?;
        if header[FIELDS.end..] != header_crc(&header[FIELDS], segment) {
            return None;
        }
        Some(Header {
            crc: header.get_u32_le(),
            payload_bytes: header.get_u32_le(),
            first_lsn: Lsn(header.get_u64_le()),
            records: header.get_u32_le(),
            kind,
        })
    }

    fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload_bytes as usize
    }
}

fn header_crc(fields: &[u8], segment: u64) -> [u8; HEADER_CRC_BYTES] {
    let [low, mid, high, _] = crc32c::crc32c_append(seed(segment), fields).to_le_bytes();
    [low, mid, high]
}

fn seed(segment: u64) -> u32 {
    crc32c::crc32c(&segment.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(segment: u64, payload: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        begin(&mut buffer);
        buffer.extend_from_slice(payload);
        finish(&mut buffer, segment, FrameKind::Data, Lsn(7), 3);
        buffer
    }

    proptest! {
        #[test]
        fn a_frame_survives_its_bytes(
            segment in any::<u64>(),
            payload in proptest::collection::vec(any::<u8>(), 0..500),
            rest in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut bytes = frame(segment, &payload);
            let frame_bytes = bytes.len();
            bytes.extend_from_slice(&rest);
            let read = Frame::read(&bytes, segment).unwrap();
            prop_assert_eq!(read.bytes(), frame_bytes);
            prop_assert_eq!(read.payload, &payload[..]);
            prop_assert_eq!((read.kind, read.records), (FrameKind::Data, 3));
            prop_assert_eq!(read.first_lsn, Lsn(7));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sound = frame(1, b"some payload");
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::read(&bytes, 1), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_segment_is_none() {
        let bytes = frame(1, b"some payload");
        assert!(Frame::read(&bytes, 1).is_some());
        assert_eq!(Frame::read(&bytes, 2), None);
    }

    #[test]
    fn zeros_are_no_frame() {
        for bytes in 0..100 {
            assert_eq!(Frame::read(&vec![0; bytes], 0), None);
        }
    }

    #[test]
    fn a_torn_frame_tells_its_length_if_its_header_is_sound() {
        let bytes = frame(1, b"some payload");
        assert_eq!(torn_frame_bytes(&bytes[..30], 1), Some(bytes.len()));
        assert_eq!(torn_frame_bytes(&bytes, 2), None);
        for bit in CRC_BYTES * 8..FRAME_HEADER_BYTES * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(torn_frame_bytes(&bytes, 1), None, "bit {bit}");
        }
    }
}
