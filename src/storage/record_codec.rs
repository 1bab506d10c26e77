//! How a replica's record lies in an engine: a header, a checksum of our own, the value.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1, or 2 for a record that expires |
//! | 4 | crc32c over format, key and everything below, big-endian |
//! | 1 | flags: bit 0 says tombstone |
//! | 8 | timestamp, big-endian |
//! | 8 | incarnation, big-endian |
//! | 8 | in format 2 only: when the value ends, Unix milliseconds, big-endian |
//! | rest | value; empty for a tombstone |
//!
//! The key is under the checksum although it is stored elsewhere: an engine that answers with
//! another key's bytes is found out. Engines were measured to lose or mix bytes silently after a
//! flipped bit, so this checksum is what keeps a wrong value from ever being served.
//!
//! A record without an end is written as it always was. A program that knows format 1 alone refuses
//! one of format 2 by its format, and does not take it for a value that stays.

use bytes::{Buf, Bytes};

use crate::types::{Expiry, Incarnation, Key, Record, Timestamp, Version};

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
    #[error(
        "record format {found} is unknown; this program reads {FORMAT_STAYING} to {FORMAT_EXPIRING}"
    )]
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
    let format = format_of(record);
    let mut stored = Vec::with_capacity(HEADER_BYTES + EXPIRY_BYTES + record.value_len());
    stored.push(format);
    stored.extend_from_slice(&[0; 4]);
    stored.push(if record.value.is_none() { TOMBSTONE } else { 0 });
    stored.extend_from_slice(&record.version.timestamp.0.to_be_bytes());
    stored.extend_from_slice(&record.version.incarnation.0.to_be_bytes());
    if let Some(Expiry(end)) = record.expires_at {
        stored.extend_from_slice(&end.to_be_bytes());
    }
    stored.extend_from_slice(record.value.as_deref().unwrap_or_default());
    let checksum = checksum(format, key, &stored[CHECKED_FROM..]);
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
    let format = header[0];
    if !(FORMAT_STAYING..=FORMAT_EXPIRING).contains(&format) {
        return Err(CorruptRecord::UnknownFormat { found: format });
    }
    let stored = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    let computed = checksum(format, key, &bytes[CHECKED_FROM..]);
    if stored != computed {
        return Err(CorruptRecord::Checksum { stored, computed });
    }
    let version = Version {
        timestamp: Timestamp(word_at(header, TIMESTAMP_AT)),
        incarnation: Incarnation(word_at(header, INCARNATION_AT)),
    };
    let mut rest = bytes.slice(HEADER_BYTES..);
    let expires_at = match format {
        FORMAT_EXPIRING => Some(take_expiry(&mut rest, bytes.len())?),
        _ => None,
    };
    let value = match header[CHECKED_FROM] {
        0 => Some(rest),
        TOMBSTONE => None,
        found => return Err(CorruptRecord::UnknownFlags { found }),
    };
    Ok(Record { version, value, expires_at })
}

fn format_of(record: &Record) -> u8 {
    if record.expires_at.is_some() { FORMAT_EXPIRING } else { FORMAT_STAYING }
}

fn take_expiry(rest: &mut Bytes, found: usize) -> Result<Expiry, CorruptRecord> {
    rest.try_get_u64().map(Expiry).map_err(|_| CorruptRecord::TooShort { found })
}

const FORMAT_STAYING: u8 = 1;
const FORMAT_EXPIRING: u8 = 2;
const TOMBSTONE: u8 = 1;
/// Where the flags begin, which is all that follows the checksum.
const CHECKED_FROM: usize = 5;
const TIMESTAMP_AT: usize = 6;
const INCARNATION_AT: usize = 14;
const HEADER_BYTES: usize = 22;
const EXPIRY_BYTES: usize = 8;

/// The format seeds the sum, so that it too is under it.
fn checksum(format: u8, key: &Key, rest: &[u8]) -> u32 {
    let seeded = crc32c::crc32c_append(u32::from(format), key.as_bytes());
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
        Record::new(version, value.map(Bytes::copy_from_slice))
    }

    fn samples() -> [Record; 6] {
        [
            record(1, 2, Some(b"value")).expiring(Some(Expiry(77))),
            record(1, 2, Some(b"")).expiring(Some(Expiry(u64::MAX))),
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
        stored[0] = FORMAT_EXPIRING + 1;
        let outcome = decode(&key, &Bytes::from(stored));
        assert_eq!(outcome, Err(CorruptRecord::UnknownFormat { found: FORMAT_EXPIRING + 1 }));
    }

    #[test]
    fn a_record_that_stays_is_stored_as_before_there_were_expiries() {
        let stored = encode(&Key::from("a"), &record(1, 2, Some(b"v")));
        assert_eq!(stored[..CHECKED_FROM], [1, 0xae, 0xc5, 0x42, 0x9a]);
        let rest = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, b'v'];
        assert_eq!(stored[CHECKED_FROM..], rest);
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
            end in proptest::option::of(any::<u64>().prop_map(Expiry)),
        ) {
            let key = Key(Bytes::from(key));
            let record = record(stamp, life, value.as_deref()).expiring(end);
            prop_assert_eq!(decode(&key, &encode(&key, &record)), Ok(record));
        }
    }
}
