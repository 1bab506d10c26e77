//! A number for what a stretch of rows holds: two stretches with the same keys under the same
//! versions have the same one, whoever computes it and in whatever order.

use crate::types::{Key, Version};

/// The digest of some rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Counts a row in. The same row counted in again takes it out.
    pub fn add(&mut self, key: &Key, version: Version) {
        let mut bytes = Vec::with_capacity(key.as_bytes().len() + 16);
        bytes.extend_from_slice(&version.timestamp.0.to_be_bytes());
        bytes.extend_from_slice(&version.incarnation.0.to_be_bytes());
        bytes.extend_from_slice(key.as_bytes());
        self.0 ^= hash_of(&bytes);
    }

    /// The digest as a number.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The lower half of `murmur3_x64_128`, with seed 0.
pub fn hash_of(bytes: &[u8]) -> u64 {
    murmur3(bytes) as u64
}

/// `murmur3_x64_128` with seed 0, as a 128-bit number whose upper half is the second of the two
/// words that the algorithm yields. It hashes whatever must come out alike on all machines.
pub(crate) fn murmur3(bytes: &[u8]) -> u128 {
    murmur3::murmur3_x64_128(&mut &bytes[..], 0)
        .expect("invariant: reading a slice of bytes cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, Timestamp};

    fn of(rows: &[(&str, u64)]) -> u64 {
        let mut digest = Digest::default();
        for (key, stamp) in rows {
            let version = Version { timestamp: Timestamp(*stamp), incarnation: Incarnation(1) };
            digest.add(&Key::from(*key), version);
        }
        digest.value()
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        assert_eq!(of(&[("a", 1), ("b", 2)]), of(&[("b", 2), ("a", 1)]));
        let different = [of(&[]), of(&[("a", 1)]), of(&[("a", 2)]), of(&[("b", 1)])];
        for (at, one) in different.iter().enumerate() {
            assert!(!different[at + 1..].contains(one));
        }
        assert_eq!(of(&[("a", 1), ("b", 2), ("b", 2)]), of(&[("a", 1)]));
    }
}
