//! What a client holds of a watch: opaque text that names its position in each partition.
//!
//! It holds nothing that a node would have to remember, so any node takes it, also after restarts
//! and changes of the ring. It is good for the keyspace and the key or prefix that it was made for,
//! and for nothing else; and only while somebody still has what came behind it.
//!
//! The text is hexadecimal: a version byte (1), the keyspace (4 bytes), the CRC32C of what is
//! watched (4), Q (4), for each partition that is watched its position (a varint of 1 to 10), and
//! the CRC32C of all of this (4). At the default Q of 256 that is some 1 to 2 thousand characters
//! for a prefix, and 40 for a key.

use std::collections::BTreeMap;

use crate::protocol::listing::cursor::from_hex;
use crate::protocol::ring::Partitioning;
use crate::protocol::watch::{Selection, Watched};
use crate::types::{LogIndex, PartitionId};

/// Where a watch has come to: the last entry that it has seen of each partition.
pub type Positions = BTreeMap<PartitionId, LogIndex>;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 4 + 4;
const SUM_BYTES: usize = 4;

/// Why a token cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not what a node made.
    #[error("is malformed; give back a token as the watch told it, or none to begin now")]
    Malformed,
    /// It was made by another program.
    #[error("has version {0}, which this node does not know (it knows {VERSION}); begin anew")]
    Version(u8),
    /// It belongs to another keyspace, or to one that was dropped.
    #[error("was made for another keyspace; begin anew without a token")]
    Keyspace,
    /// It belongs to a watch of other keys.
    #[error("was made for another key or prefix; give the same as before")]
    Selection,
    /// It belongs to another cluster.
    #[error("was made where there were {made} partitions, and here are {partitions}")]
    Partitions {
        /// How many there were.
        made: u32,
        /// How many there are.
        partitions: u32,
    },
}

/// The token of a watch that has come so far in every partition that it watches.
pub fn encode(watched: &Watched, partitioning: Partitioning, positions: &Positions) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(watched.keyspace.0.to_be_bytes());
    bytes.extend(sum_of(&watched.selection).to_be_bytes());
    bytes.extend(partitioning.partitions().to_be_bytes());
    for position in positions.values() {
        put_varint(position.0, &mut bytes);
    }
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// Where a watch goes on.
///
/// # Errors
/// [`TokenError`] when the text is no token, or that of another watch.
pub fn resume(
    text: &str,
    watched: &Watched,
    partitioning: Partitioning,
) -> Result<Positions, TokenError> {
    let bytes = from_hex(text).ok_or(TokenError::Malformed)?;
    let (body, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(TokenError::Malformed)?;
    if body.len() < HEAD_BYTES || u32::from_be_bytes(*sum) != crc32c::crc32c(body) {
        return Err(TokenError::Malformed);
    }
    let (head, mut rest) = body.split_at(HEAD_BYTES);
    let number =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[0] != VERSION {
        return Err(TokenError::Version(head[0]));
    }
    if number(1) != watched.keyspace.0 {
        return Err(TokenError::Keyspace);
    }
    if number(5) != sum_of(&watched.selection) {
        return Err(TokenError::Selection);
    }
    let (made, partitions) = (number(9), partitioning.partitions());
    if made != partitions {
        return Err(TokenError::Partitions { made, partitions });
    }
    let mut positions = Positions::new();
    for partition in watched.selection.partitions(partitioning) {
        let position = take_varint(&mut rest).ok_or(TokenError::Malformed)?;
        positions.insert(partition, LogIndex(position));
    }
    if rest.is_empty() { Ok(positions) } else { Err(TokenError::Malformed) }
}

/// Tells a key from a prefix of the same bytes.
fn sum_of(selection: &Selection) -> u32 {
    let kind = match selection {
        Selection::Key(_) => b"k",
        Selection::Prefix(_) => b"p",
    };
    crc32c::crc32c_append(crc32c::crc32c(kind), selection.bytes())
}

const VARINT_BITS: u32 = 7;
const VARINT_MORE: u8 = 0x80;

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let low = (value & u64::from(!VARINT_MORE)) as u8;
        value >>= VARINT_BITS;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | VARINT_MORE);
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(VARINT_BITS as usize) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & !VARINT_MORE);
        value |= low << shift;
        // The last byte has room for one bit of the 64.
        if (low << shift) >> shift != low {
            return None;
        }
        if byte & VARINT_MORE == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Key, KeyspaceId};

    fn watched(prefix: &'static str) -> Watched {
        let selection = Selection::Prefix(Bytes::from_static(prefix.as_bytes()));
        Watched { keyspace: KeyspaceId(7), selection }
    }

    fn partitioning(partitions: u32) -> Partitioning {
        Partitioning::new(partitions).expect("a power of two")
    }

    fn made() -> String {
        let positions = (0..16).map(|number| (PartitionId(number), LogIndex(100))).collect();
        encode(&watched("user:"), partitioning(16), &positions)
    }

    #[test]
    fn a_token_is_for_its_own_watch() {
        let made = made();
        let of = |watched: &Watched, partitions| resume(&made, watched, partitioning(partitions));
        assert_eq!(of(&watched("user:"), 16).map(|positions| positions.len()), Ok(16));
        let foreign = Watched { keyspace: KeyspaceId(8), ..watched("user:") };
        assert_eq!(of(&foreign, 16), Err(TokenError::Keyspace));
        assert_eq!(of(&watched("user"), 16), Err(TokenError::Selection));
        let key = Watched { selection: Selection::Key(Key::from("user:")), ..watched("") };
        assert_eq!(of(&key, 16), Err(TokenError::Selection));
        let elsewhere = TokenError::Partitions { made: 16, partitions: 32 };
        assert_eq!(of(&watched("user:"), 32), Err(elsewhere));
    }

    #[test]
    fn what_no_node_made_is_malformed() {
        let made = made();
        let cut = &made[..made.len() - 2];
        for text in ["", "0", "zz", "01", "ö", "01000000", cut] {
            let resumed = resume(text, &watched("user:"), partitioning(16));
            assert_eq!(resumed, Err(TokenError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = from_hex(&made()).expect("hexadecimal");
        bytes.truncate(HEAD_BYTES);
        bytes[0] = 2;
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let resumed = resume(&text, &watched("user:"), partitioning(16));
        assert_eq!(resumed, Err(TokenError::Version(2)));
    }

    proptest! {
        #[test]
        fn positions_survive_their_text(
            indexes in proptest::collection::vec(any::<u64>(), 16),
            small in any::<bool>(),
        ) {
            let index = |index: u64| LogIndex(if small { index % 1000 } else { index });
            let indexes = indexes.into_iter().map(index);
            let positions: Positions = (0..).map(PartitionId).zip(indexes).collect();
            let text = encode(&watched("user:"), partitioning(16), &positions);
            prop_assert_eq!(resume(&text, &watched("user:"), partitioning(16)), Ok(positions));
        }

        #[test]
        fn a_changed_token_is_noticed(at in 0..66_usize, to in 0..16_u8) {
            let made = made();
            let at = at % made.len();
            let mut changed = made.clone();
            changed.replace_range(at..=at, &format!("{to:x}"));
            let resumed = resume(&changed, &watched("user:"), partitioning(16));
            prop_assert_eq!(resumed.is_ok(), changed == made);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}|[0-9a-f]{0,80}") {
            let _ = resume(&text, &watched("user:"), partitioning(16));
        }
    }
}
