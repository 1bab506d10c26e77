//! What a client holds between two pages of a listing: opaque text that names the place.
//!
//! It holds nothing that a node would have to remember, so any node takes it, also after restarts
//! and changes of the ring: the partition of a key never changes. It is good for the keyspace and
//! the prefix that it was made for, and for nothing else.
//!
//! The text is hexadecimal: a version byte (1), the keyspace (4 bytes), the CRC32C of the prefix
//! (4), the partition (2), whether a key follows (1), that key, and the CRC32C of all of this (4).

use std::fmt;

use bytes::Bytes;

use crate::protocol::listing::Position;
use crate::types::{Key, KeyspaceId, PartitionId};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 4 + 2 + 1;
const SUM_BYTES: usize = 4;

/// Where a listing goes on, and which listing it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The keyspace that is listed.
    pub keyspace: KeyspaceId,
    prefix_sum: u32,
    /// Where it goes on.
    pub position: Position,
}

/// Why a cursor cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It is not what a node made.
    #[error("is malformed; give back a cursor as the page before had it, or none to begin anew")]
    Malformed,
    /// It was made by another program.
    #[error("has version {0}, which this node does not know (it knows {VERSION}); begin anew")]
    Version(u8),
    /// It belongs to another keyspace, or to one that was dropped.
    #[error("was made for another keyspace; begin anew without a cursor")]
    Keyspace,
    /// It belongs to a listing of another prefix.
    #[error("was made for another prefix; give the same prefix with every page")]
    Prefix,
    /// There is no such partition.
    #[error("names partition {named}, and there are {partitions}")]
    Partition {
        /// What it names.
        named: u16,
        /// How many there are.
        partitions: u32,
    },
}

impl Cursor {
    /// The cursor of a listing.
    pub fn new(keyspace: KeyspaceId, prefix: &[u8], position: Position) -> Cursor {
        Cursor { keyspace, prefix_sum: crc32c::crc32c(prefix), position }
    }

    /// Where the listing of a keyspace and prefix goes on.
    ///
    /// # Errors
    /// [`CursorError`] when the text is no cursor, or that of another listing.
    pub fn resume(
        text: &str,
        keyspace: KeyspaceId,
        prefix: &[u8],
        partitions: u32,
    ) -> Result<Position, CursorError> {
        let Cursor { keyspace: of, prefix_sum, position } = decode(text)?;
        if of != keyspace {
            return Err(CursorError::Keyspace);
        }
        if prefix_sum != crc32c::crc32c(prefix) {
            return Err(CursorError::Prefix);
        }
        let named = position.partition.0;
        if u32::from(named) >= partitions {
            return Err(CursorError::Partition { named, partitions });
        }
        Ok(position)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { partition, after } = &self.position;
        let mut bytes = vec![VERSION];
        bytes.extend(self.keyspace.0.to_be_bytes());
        bytes.extend(self.prefix_sum.to_be_bytes());
        bytes.extend(partition.0.to_be_bytes());
        bytes.push(u8::from(after.is_some()));
        bytes.extend(after.iter().flat_map(|key| key.as_bytes()));
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn decode(text: &str) -> Result<Cursor, CursorError> {
    let bytes = from_hex(text).ok_or(CursorError::Malformed)?;
    let (body, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(CursorError::Malformed)?;
    if body.len() < HEAD_BYTES || u32::from_be_bytes(*sum) != crc32c::crc32c(body) {
        return Err(CursorError::Malformed);
    }
    let (head, key) = body.split_at(HEAD_BYTES);
    let [version, k0, k1, k2, k3, s0, s1, s2, s3, p0, p1, has_key] = *head else {
        return Err(CursorError::Malformed);
    };
    if version != VERSION {
        return Err(CursorError::Version(version));
    }
    let after = match (has_key, key) {
        (0, []) => None,
        (1, [_, ..]) => Some(Key(Bytes::copy_from_slice(key))),
        _ => return Err(CursorError::Malformed),
    };
    let partition = PartitionId(u16::from_be_bytes([p0, p1]));
    Ok(Cursor {
        keyspace: KeyspaceId(u32::from_be_bytes([k0, k1, k2, k3])),
        prefix_sum: u32::from_be_bytes([s0, s1, s2, s3]),
        position: Position { partition, after },
    })
}

/// The bytes that lower-case hexadecimal digits stand for.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pair = |pair: &[u8]| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYSPACE: KeyspaceId = KeyspaceId(7);

    fn text(partition: u16, after: Option<&str>) -> String {
        let position = Position { partition: PartitionId(partition), after: after.map(Key::from) };
        Cursor::new(KEYSPACE, b"user:", position).to_string()
    }

    fn resume(text: &str) -> Result<Position, CursorError> {
        Cursor::resume(text, KEYSPACE, b"user:", 16)
    }

    #[test]
    fn a_cursor_is_for_its_own_listing() {
        let made = text(3, Some("user:9"));
        assert_eq!(resume(&made).map(|at| at.partition), Ok(PartitionId(3)));
        let of = |keyspace, prefix| Cursor::resume(&made, KeyspaceId(keyspace), prefix, 16);
        assert_eq!(of(8, b"user:"), Err(CursorError::Keyspace));
        assert_eq!(of(7, b"user"), Err(CursorError::Prefix));
        let beyond = CursorError::Partition { named: 16, partitions: 16 };
        assert_eq!(resume(&text(16, None)), Err(beyond));
    }

    #[test]
    fn what_no_node_made_is_malformed() {
        let made = text(3, Some("k"));
        let upper = made.to_uppercase();
        let cut = &made[..made.len() - 2];
        for text in ["", "0", "zz", "01", "ö", "01000000", cut, upper.as_str(), "über"] {
            assert_eq!(resume(text), Err(CursorError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = from_hex(&text(3, None)).expect("hexadecimal");
        bytes.truncate(HEAD_BYTES);
        bytes[0] = 2;
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(resume(&text), Err(CursorError::Version(2)));
    }

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(
            partition in 0..16_u16,
            after in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..40)),
        ) {
            let after = after.map(|bytes| Key(Bytes::from(bytes)));
            let position = Position { partition: PartitionId(partition), after };
            let text = Cursor::new(KEYSPACE, b"user:", position.clone()).to_string();
            prop_assert_eq!(resume(&text), Ok(position));
        }

        #[test]
        fn a_changed_cursor_is_noticed(at in 0..36_usize, to in 0..16_u8) {
            let made = text(3, Some("user:9"));
            let at = at % made.len();
            let mut changed = made.clone();
            changed.replace_range(at..=at, &format!("{to:x}"));
            prop_assert_eq!(resume(&changed).is_ok(), changed == made);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}|[0-9a-f]{0,60}") {
            let _ = resume(&text);
        }
    }
}
