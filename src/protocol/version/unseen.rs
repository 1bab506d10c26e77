//! Concurrent versions of last-write-wins keyspaces: what a write met that its writer had not seen.
//!
//! A writer that gives a context says which version of the key it has seen, and by that, that it
//! knows what this one replaced. Where its write comes to a replica that holds a *later* version,
//! the two are concurrent, and one of them is discarded: the earlier of the two, although nobody
//! decided so. A writer that gives no context says nothing, and nothing can be told of its write.

use crate::types::Version;

/// The version that a replica holds at the moment in which a write comes to it, if the write's
/// writer, who had seen `seen`, had not seen that. A repetition of the write meets itself, which is
/// nothing new.
pub fn unseen(written: Version, seen: Version, held: Option<Version>) -> Option<Version> {
    held.filter(|held| *held > seen && *held != written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, Timestamp};

    fn version(stamp: u64, life: u64) -> Version {
        Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) }
    }

    #[test]
    fn a_later_version_than_was_seen_was_not_seen() {
        let (written, seen) = (version(9, 1), version(5, 1));
        let cases = [
            (None, false),
            (Some(version(4, 9)), false),
            (Some(seen), false),
            (Some(version(5, 2)), true),
            (Some(version(8, 1)), true),
            (Some(written), false),
            (Some(version(9, 2)), true),
            (Some(version(12, 1)), true),
        ];
        for (held, expected) in cases {
            assert_eq!(unseen(written, seen, held), held.filter(|_| expected), "{held:?}");
        }
    }
}
