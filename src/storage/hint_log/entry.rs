//! The bytes of a hint segment.
//!
//! ```text
//! magic [8] | format u32 | target u64 | segment u64 | preceding u64 | crc32c u32 | entries
//! entry: crc32c u32 | row bytes u32 | sequence u64 | created ms u64 | row
//! ```
//!
//! `preceding` is the sequence of the last hint written before this segment: where a segment before
//! it ends earlier, hints are missing.
//!
//! An entry's checksum starts from a seed made of target and segment, so bytes of another file are
//! no entry here.

use bytes::{Buf, BufMut};

use crate::storage::hint_log::{Hint, HintLogError, QueuedHint};
use crate::storage::wal::record::{decode_row, encode_row, row_bytes};
use crate::types::NodeId;

/// The folder of all hints.
pub(super) const FOLDER: &str = "hints";
/// The format that this program writes, and the oldest that it reads. Until 2 no row expired. The
/// header keeps its layout in every format.
const FORMAT: u32 = 2;
const FORMAT_OLDEST: u32 = 1;
/// Bytes before the first entry.
pub(super) const HEADER_BYTES: usize = 40;
const ENTRY_HEADER_BYTES: usize = 24;
const CRC_BYTES: usize = 4;
const MAGIC: [u8; 8] = *b"CoterHNT";

/// A segment's name: which target's, and which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId {
    pub(super) target: NodeId,
    pub(super) number: u64,
}

impl SegmentId {
    pub(super) fn path(&self) -> String {
        format!("{FOLDER}/{}", self.name())
    }

    pub(super) fn name(&self) -> String {
        format!("{}-{:016x}.hints", self.target, self.number)
    }

    /// None for a file that is no segment.
    pub(super) fn parse(name: &str) -> Option<SegmentId> {
        let (target, number) = name.strip_suffix(".hints")?.split_once('-')?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let id = SegmentId { target: target.parse().ok()?, number };
        (id.name() == name).then_some(id)
    }

    pub(super) fn encode_header(&self, preceding: u64, out: &mut Vec<u8>) {
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT);
        out.put_u64_le(self.target.0);
        out.put_u64_le(self.number);
        out.put_u64_le(preceding);
        out.put_u32_le(crc32c::crc32c(out));
    }

    /// The `preceding` of the header, if that is sound and this segment's.
    pub(super) fn read_header(&self, bytes: &[u8]) -> Result<Option<u64>, HintLogError> {
        let Some(header) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
        let (body, mut crc) = header.split_at(HEADER_BYTES - CRC_BYTES);
        let Some(mut fields) = body.strip_prefix(&MAGIC) else { return Ok(None) };
        if crc.get_u32_le() != crc32c::crc32c(body) {
            return Ok(None);
        }
        match fields.get_u32_le() {
            FORMAT_OLDEST..=FORMAT => {}
            got => {
                let segment = self.name();
                return Err(HintLogError::UnknownFormat { segment, got, known: FORMAT });
            }
        }
        let owner = SegmentId { target: NodeId(fields.get_u64_le()), number: fields.get_u64_le() };
        Ok((owner == *self).then(|| fields.get_u64_le()))
    }

    pub(super) fn encode_entry(&self, queued: &QueuedHint, out: &mut Vec<u8>) {
        let start = out.len();
        let row_bytes = u32::try_from(row_bytes(&queued.hint.row))
            .expect("invariant: keys and values are far below 4 GiB");
        out.put_bytes(0, CRC_BYTES);
        out.put_u32_le(row_bytes);
        out.put_u64_le(queued.sequence);
        out.put_u64_le(queued.hint.created_wall_ms);
        encode_row(&queued.hint.row, out);
        let crc = crc32c::crc32c_append(self.seed(), &out[start + CRC_BYTES..]);
        out[start..start + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the entry at the front of `bytes`.
    pub(super) fn parse_entry(&self, bytes: &[u8]) -> Parsed {
        let Some(mut header) = bytes.get(..ENTRY_HEADER_BYTES) else {
            return Parsed::Short { needed: ENTRY_HEADER_BYTES };
        };
        let crc = header.get_u32_le();
        let entry_bytes = ENTRY_HEADER_BYTES + header.get_u32_le() as usize;
        let Some(entry) = bytes.get(..entry_bytes) else {
            return Parsed::Short { needed: entry_bytes };
        };
        if crc32c::crc32c_append(self.seed(), &entry[CRC_BYTES..]) != crc {
            return Parsed::Bad;
        }
        let (sequence, created_wall_ms) = (header.get_u64_le(), header.get_u64_le());
        let mut row = &entry[ENTRY_HEADER_BYTES..];
        match decode_row(&mut row) {
            Ok(decoded) if row.is_empty() => {
                let hint = Hint { row: decoded, created_wall_ms };
                Parsed::Entry { queued: QueuedHint { sequence, hint }, bytes: entry_bytes }
            }
            _ => Parsed::Bad,
        }
    }

    fn seed(&self) -> u32 {
        let seed = crc32c::crc32c(&self.target.0.to_le_bytes());
        crc32c::crc32c_append(seed, &self.number.to_le_bytes())
    }
}

/// What the front of some bytes is.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    Entry {
        queued: QueuedHint,
        bytes: usize,
    },
    /// An entry may be there, but takes more bytes than were given.
    Short {
        needed: usize,
    },
    Bad,
}

/// Bytes that a hint takes in a segment.
pub(super) fn entry_bytes(hint: &Hint) -> usize {
    ENTRY_HEADER_BYTES + row_bytes(&hint.row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Expiry, Incarnation, Key, KeyspaceId, Record, Row, Timestamp, Version};

    const ID: SegmentId = SegmentId { target: NodeId(0xab), number: 3 };

    fn queued() -> QueuedHint {
        let version = Version { timestamp: Timestamp(5), incarnation: Incarnation(6) };
        let record = Record::new(version, Some("value".into())).expiring(Some(Expiry(8)));
        let row = Row { keyspace: KeyspaceId(0), key: Key::from("key"), record };
        QueuedHint { sequence: 9, hint: Hint { row, created_wall_ms: 77 } }
    }

    #[test]
    fn a_name_is_read_back_and_others_are_not() {
        assert_eq!(SegmentId::parse(&ID.name()), Some(ID));
        for foreign in ["", "1-1.hints", "00000000000000ab-0000000000000003.hints.damaged"] {
            assert_eq!(SegmentId::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn an_entry_survives_its_bytes() {
        let mut bytes = Vec::new();
        ID.encode_entry(&queued(), &mut bytes);
        assert_eq!(bytes.len(), entry_bytes(&queued().hint));
        let expected = Parsed::Entry { queued: queued(), bytes: bytes.len() };
        bytes.push(1);
        assert_eq!(ID.parse_entry(&bytes), expected);
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_noticed() {
        let mut sound = Vec::new();
        ID.encode_entry(&queued(), &mut sound);
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(ID.parse_entry(&bytes), Parsed::Entry { .. }), "bit {bit}");
        }
    }

    #[test]
    fn an_entry_of_another_segment_is_none() {
        let mut bytes = Vec::new();
        ID.encode_entry(&queued(), &mut bytes);
        assert_eq!(SegmentId { number: 4, ..ID }.parse_entry(&bytes), Parsed::Bad);
    }

    #[test]
    fn a_header_is_checked() {
        let mut sound = Vec::new();
        ID.encode_header(8, &mut sound);
        assert_eq!(sound.len(), HEADER_BYTES);
        assert_eq!(ID.read_header(&sound).unwrap(), Some(8));
        assert_eq!(SegmentId { number: 4, ..ID }.read_header(&sound).unwrap(), None);
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ID.read_header(&bytes).unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn a_sound_header_of_another_format_is_named() {
        let error = ID.read_header(&header_of(3)).unwrap_err();
        assert!(matches!(error, HintLogError::UnknownFormat { got: 3, known: 2, .. }), "{error}");
    }

    #[test]
    fn a_segment_of_the_format_without_expiries_is_still_read() {
        assert_eq!(ID.read_header(&header_of(1)).unwrap(), Some(8));
    }

    fn header_of(format: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        ID.encode_header(8, &mut bytes);
        bytes[8] = format;
        let body = HEADER_BYTES - CRC_BYTES;
        let crc = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}
