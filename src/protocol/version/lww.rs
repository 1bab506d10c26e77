//! Last writer wins: of two records of a key, the one with the higher version stands.
//!
//! Versions are unique, because a stamp is unique to a clock and an incarnation to a life of a data
//! directory. Should one appear twice all the same (a data directory copied by hand), a tombstone
//! beats a value, then the one that ends earlier wins, and then the greater bytes, so that replicas
//! still agree.
//!
//! A record that has expired is one like any other: it beats what is older, or what it replaced
//! would come back when it ends. Merging knows no time.
//!
//! Invariant: records of a key are totally ordered and [`merge`] takes the greater, so it is
//! commutative, associative and idempotent: replicas converge in whatever order, and however
//! often, records reach them.

use std::cmp::Reverse;

use crate::types::{Expiry, Record, Version};

/// Whether `new` replaces `old`; false when they are equal.
pub fn supersedes(new: &Record, old: &Record) -> bool {
    rank(new) > rank(old)
}

/// The record that stands of two.
pub fn merge(a: Record, b: Record) -> Record {
    if supersedes(&b, &a) { b } else { a }
}

/// The record that stands of two that need not exist.
pub fn merge_options(a: Option<Record>, b: Option<Record>) -> Option<Record> {
    match (a, b) {
        (Some(a), Some(b)) => Some(merge(a, b)),
        (a, b) => a.or(b),
    }
}

/// What orders records: the version, then absence above presence (a tombstone, an earlier end),
/// then the value's bytes.
fn rank(record: &Record) -> (Version, bool, Life, Option<&[u8]>) {
    let life = (record.expires_at.is_some(), record.expires_at.map(Reverse));
    (record.version, record.value.is_none(), life, record.value.as_deref())
}

/// The shorter, the greater; without an end the least.
type Life = (bool, Option<Reverse<Expiry>>);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Incarnation, Timestamp};

    fn record(stamp: u64, life: u64, value: Option<&'static str>) -> Record {
        let version = Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) };
        Record::new(version, value.map(|text| Bytes::from_static(text.as_bytes())))
    }

    fn until(end: u64, record: Record) -> Record {
        record.expiring(Some(Expiry(end)))
    }

    #[test]
    fn the_greater_record_stands() {
        let ascending = [
            record(1, 1, Some("z")),
            until(u64::MAX, record(1, 1, Some("z"))),
            until(9, record(1, 1, Some("a"))),
            until(9, record(1, 1, Some("b"))),
            until(8, record(1, 1, Some("a"))),
            record(1, 1, None),
            until(7, record(1, 1, None)),
            until(3, record(1, 2, Some("z"))),
            record(1, 3, Some("a")),
            record(1, 3, Some("b")),
            record(2, 0, Some("")),
            record(2, 0, None),
            record(3, 0, Some("a")),
        ];
        for (low, lower) in ascending.iter().enumerate() {
            assert!(!supersedes(lower, lower));
            for higher in &ascending[low + 1..] {
                assert!(supersedes(higher, lower) && !supersedes(lower, higher));
                assert_eq!(merge(lower.clone(), higher.clone()), *higher);
            }
        }
    }

    #[test]
    fn nothing_yields_to_anything() {
        let one = Some(record(1, 1, None));
        assert_eq!(merge_options(None, one.clone()), one);
        assert_eq!(merge_options(one.clone(), None), one);
        assert_eq!(merge_options(None, None), None);
    }

    /// Few distinct stamps, lives, ends and values, so that versions collide often.
    fn any_record() -> impl Strategy<Value = Option<Record>> {
        let value = proptest::option::of(proptest::sample::select(vec!["", "a", "b"]));
        let end = proptest::option::of((0u64..3).prop_map(Expiry));
        let some = (0u64..3, 0u64..3, value, end)
            .prop_map(|(at, life, value, end)| record(at, life, value).expiring(end));
        proptest::option::weighted(0.9, some)
    }

    proptest! {
        #[test]
        fn merge_is_a_lattice(a in any_record(), b in any_record(), c in any_record()) {
            let join = |a: &Option<Record>, b: &Option<Record>| merge_options(a.clone(), b.clone());
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
            prop_assert_eq!(join(&a, &a), a.clone());
            let joined = join(&a, &b);
            prop_assert!(joined == a || joined == b);
            prop_assert_eq!(join(&joined, &a), joined);
        }

        /// What was once read as absent because of its end stays absent, unless a newer one comes.
        #[test]
        fn merging_never_lengthens_a_life(a in any_record(), b in any_record(), now in 0u64..4) {
            let is_absent = |record: &Record| record.value.is_none() || record.is_expired(now);
            if let (Some(a), Some(b)) = (a, b)
                && b.version <= a.version
                && is_absent(&a)
            {
                prop_assert!(is_absent(&merge(a, b)));
            }
        }
    }
}
