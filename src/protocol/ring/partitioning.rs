//! Which partition a key lies in. It depends on the key and on Q alone, so clients can tell too.

use bytes::Bytes;

use crate::protocol::ring::{PARTITIONS_MAX, RingError, token_of};
use crate::types::{Key, PartitionId, Token};

/// Q equal ranges of the token space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitioning {
    bits: u32,
}

impl Partitioning {
    /// Cuts the token space into this many ranges.
    ///
    /// # Errors
    /// [`RingError::PartitionsNotPowerOfTwo`], also above [`PARTITIONS_MAX`].
    pub fn new(partitions: u32) -> Result<Self, RingError> {
        if !partitions.is_power_of_two() || partitions > PARTITIONS_MAX {
            return Err(RingError::PartitionsNotPowerOfTwo { got: partitions });
        }
        Ok(Partitioning { bits: partitions.trailing_zeros() })
    }

    /// Q, the number of ranges.
    pub fn partitions(self) -> u32 {
        1 << self.bits
    }

    /// The first token of a partition.
    pub(super) fn start_of(self, partition: PartitionId) -> Token {
        Token(u64::from(partition.0).checked_shl(u64::BITS - self.bits).unwrap_or(0))
    }

    /// The partition that a token lies in: its uppermost bits.
    pub fn of_token(self, token: Token) -> PartitionId {
        let partition = token.0.checked_shr(u64::BITS - self.bits).unwrap_or(0);
        PartitionId(partition as u16)
    }

    /// The partition of a key whose tag, if it has one, decides where it lies: what stands between
    /// the first `{` and the next `}`, unless that is nothing. Keys of one tag lie together.
    pub fn of_tagged(self, key: &Key) -> PartitionId {
        self.of_token(token_of(&tag_of(key)))
    }

    /// The partition of every key that begins with this, if one tag decides where all of them lie.
    pub fn of_prefix(self, prefix: &Bytes) -> Option<PartitionId> {
        tag_in(prefix).map(|tag| self.of_token(token_of(&Key(tag))))
    }
}

/// What decides where a key lies that may bear a tag.
fn tag_of(key: &Key) -> Key {
    tag_in(&key.0).map_or_else(|| key.clone(), Key)
}

/// The tag in bytes, if they have one.
fn tag_in(bytes: &Bytes) -> Option<Bytes> {
    let opening = bytes.iter().position(|byte| *byte == b'{')?;
    let length = bytes[opening + 1..].iter().position(|byte| *byte == b'}')?;
    (length > 0).then(|| bytes.slice(opening + 1..opening + 1 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_decides_where_a_key_lies() {
        let cases = [
            ("plain", "plain"),
            ("cart:{42}:items", "42"),
            ("{42}{43}", "42"),
            ("{}{42}", "{}{42}"),
            ("{42", "{42"),
            ("}{42}", "42"),
        ];
        for (key, decisive) in cases {
            assert_eq!(tag_of(&Key::from(key)), Key::from(decisive), "{key}");
        }
    }

    #[test]
    fn tokens_fall_into_equal_ranges() {
        let of = |partitions, token| {
            Partitioning::new(partitions).map(|cut| cut.of_token(Token(token)).0)
        };
        assert_eq!(of(1, u64::MAX), Ok(0));
        assert_eq!(of(2, u64::MAX / 2), Ok(0));
        assert_eq!(of(2, u64::MAX / 2 + 1), Ok(1));
        assert_eq!(of(PARTITIONS_MAX, u64::MAX), Ok(32_767));
        for got in [0, 3, PARTITIONS_MAX * 2] {
            assert_eq!(of(got, 0), Err(RingError::PartitionsNotPowerOfTwo { got }));
        }
    }
}
