//! How a replica's record lies in an engine: a header, a checksum of our own, the value.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format, now 1 |
//! | 4 | crc32c over format, key and everything below, big-endian |
//! | 1 | flags: bit 0 says tombstone |
//! | 8 | timestamp, big-endian |
//! | 8 | incarnation, big-endian |
//! | rest | value; empty for a tombstone |
//!
//! The key is under the checksum although it is stored elsewhere: an engine that answers with
//! another key's bytes is found out. Engines were measured to lose or mix bytes silently after a
//! flipped bit, so this checksum is what keeps a wrong value from ever being served.

use bytes::Bytes;

use crate::types::{Incarnation, Key, Record, Timestamp, Version};

/// Why stored bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptRecord {
    /// Fewer bytes than a header has.
    #[error("{found} bytes are too few for a record, which has at least {HEADER_BYTES}")]
    TooShort {
        /// Bytes that were stored.
        found: usize,
    },
    /// Written by a version of the program that this one does not know, or a damaged byte.
    #[error("record format {found} is unknown; this program reads format {FORMAT}")]
    UnknownFormat {
        /// The format byte.
        found: u8,
    },
    /// The bytes are not those that were written for this key.
    #[error("record fails its checksum: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of what was read.
        computed: u32,
    },
    /// A flag that this program does not know, under a valid checksum.
    #[error("record has unknown flags {found:#04x}")]
    UnknownFlags {
        /// The flags byte.
        found: u8,
    },
}

/// The bytes to store for a key's record.
pub fn encode(key: &Key, record: &Record) -> Bytes {
    let mut stored = Vec::with_capacity(HEADER_BYTES + record.value_len());
    stored.push(FORMAT);
    stored.extend_from_slice(&[0; 4]);
    stored.push(if record.value.is_none() { TOMBSTONE } else { 0 });
    stored.extend_from_slice(&record.version.timestamp.0.to_be_bytes());
    stored.extend_from_slice(&record.version.incarnation.0.to_be_bytes());
    stored.extend_from_slice(record.value.as_deref().unwrap_or_default());
    let checksum = checksum(key, &stored[CHECKED_FROM..]);
    stored[1..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
    Bytes::from(stored)
}

/// The record in a key's stored bytes; its value is a slice of them, not a copy.
///
/// # Errors
/// [`CorruptRecord`] when the bytes are not what [`encode`] made for this very key.
pub fn decode(key: &Key, bytes: &Bytes) -> Result<Record, CorruptRecord> {
    let header = bytes
        .first_chunk::<HEADER_BYTES>()
        .ok_or(CorruptRecord::TooShort { found: bytes.len() })?;
    if header[0] != FORMAT {
        return Err(CorruptRecord::UnknownFormat { found: header[0] });
    }
    let stored = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    let computed = checksum(key, &bytes[CHECKED_FROM..]);
    if stored != computed {
        return Err(CorruptRecord::Checksum { stored, computed });
    }
    let version = Version {
        timestamp: Timestamp(word_at(header, TIMESTAMP_AT)),
        incarnation: Incarnation(word_at(header, INCARNATION_AT)),
    };
    match header[CHECKED_FROM] {
        0 => Ok(Record { version, value: Some(bytes.slice(HEADER_BYTES..)) }),
        TOMBSTONE => Ok(Record { version, value: None }),
        found => Err(CorruptRecord::UnknownFlags { found }),
    }
}

const FORMAT: u8 = 1;
const TOMBSTONE: u8 = 1;
/// Where the flags begin, which is all that follows the checksum.
const CHECKED_FROM: usize = 5;
const TIMESTAMP_AT: usize = 6;
const INCARNATION_AT: usize = 14;
const HEADER_BYTES: usize = 22;

/// The format seeds the sum, so that it too is under it.
fn checksum(key: &Key, rest: &[u8]) -> u32 {
    let seeded = crc32c::crc32c_append(u32::from(FORMAT), key.as_bytes());
    crc32c::crc32c_append(seeded, rest)
}

fn word_at(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&header[at..at + 8]);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(stamp: u64, life: u64, value: Option<&[u8]>) -> Record {
        let version = Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) };
        Record { version, value: value.map(Bytes::copy_from_slice) }
    }

    fn samples() -> [Record; 4] {
        [
            record(1, 2, Some(b"value")),
            record(u64::MAX, u64::MAX, Some(b"")),
            record(3, 4, None),
            record(0, 0, Some(&[0; 300])),
        ]
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let key = Key::from("some/key");
        for record in samples() {
            let sound = encode(&key, &record);
            for bit in 0..sound.len() * 8 {
                let mut damaged = sound.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let outcome = decode(&key, &Bytes::from(damaged));
                assert!(outcome.is_err(), "bit {bit} of {record:?} went unseen: {outcome:?}");
            }
        }
    }

    #[test]
    fn every_truncation_is_found() {
        let key = Key::from("some/key");
        for record in samples() {
            let sound = encode(&key, &record);
            for len in 0..sound.len() {
                assert!(decode(&key, &sound.slice(..len)).is_err(), "{len} bytes of {record:?}");
            }
        }
    }

    #[test]
    fn another_keys_bytes_are_refused() {
        let stored = encode(&Key::from("a"), &record(1, 1, Some(b"v")));
        let outcome = decode(&Key::from("b"), &stored);
        assert!(matches!(outcome, Err(CorruptRecord::Checksum { .. })), "{outcome:?}");
    }

    #[test]
    fn an_unknown_format_is_told_from_damage() {
        let key = Key::from("a");
        let mut stored = encode(&key, &record(1, 1, None)).to_vec();
        stored[0] = FORMAT + 1;
        let outcome = decode(&key, &Bytes::from(stored));
        assert_eq!(outcome, Err(CorruptRecord::UnknownFormat { found: FORMAT + 1 }));
    }

    #[test]
    fn the_value_is_not_copied() {
        let key = Key::from("a");
        let stored = encode(&key, &record(1, 1, Some(b"value")));
        let value = decode(&key, &stored).ok().and_then(|record| record.value).unwrap();
        assert_eq!(value.as_ptr(), stored[HEADER_BYTES..].as_ptr());
    }

    proptest! {
        #[test]
        fn a_record_survives_its_bytes(
            key in proptest::collection::vec(any::<u8>(), 0..40),
            stamp in any::<u64>(),
            life in any::<u64>(),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        ) {
            let key = Key(Bytes::from(key));
            let record = record(stamp, life, value.as_deref());
            prop_assert_eq!(decode(&key, &encode(&key, &record)), Ok(record));
        }
    }
}
