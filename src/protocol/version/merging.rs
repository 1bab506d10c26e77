//! How copies of a key become one, by the keyspace's way of merging.
//!
//! Whatever the way, a join is commutative, associative and idempotent, and its version is that of
//! one of the two or higher than both: replicas converge in whatever order, and however often,
//! copies reach them, and "the greater version" is a safe choice wherever a join can follow.

use crate::protocol::version::dvv::Siblings;
use crate::protocol::version::lww;
use crate::types::{Merge, Record};

/// What two copies of a key say together.
pub fn joined(merge: Merge, a: Record, b: Record) -> Record {
    match merge {
        Merge::Lww => lww::merge(a, b),
        Merge::Siblings => joined_siblings(a, b),
    }
}

/// Copies that are no siblings, which no node makes, give way to those that are.
fn joined_siblings(a: Record, b: Record) -> Record {
    if a == b {
        return a;
    }
    match (Siblings::of_record(&a), Siblings::of_record(&b)) {
        (Ok(ours), Ok(theirs)) => {
            let joined = ours.joined(&theirs).to_record();
            joined.unwrap_or_else(|| lww::merge(a, b))
        }
        (Ok(_), Err(_)) => a,
        (Err(_), Ok(_)) => b,
        (Err(_), Err(_)) => lww::merge(a, b),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::version::dvv::Context;
    use crate::types::{Incarnation, Timestamp, Version};

    fn row(stamp: u64, life: u64) -> Record {
        let dot = Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) };
        let value = Some(Bytes::from_static(b"v"));
        let row = Siblings::default().written(dot, value, &Context::default());
        row.expect("one sibling").to_record().expect("a row")
    }

    #[test]
    fn the_last_writer_wins_or_both_stand() {
        let (old, new) = (row(1, 1), row(2, 2));
        assert_eq!(joined(Merge::Lww, old.clone(), new.clone()), new);
        let both = joined(Merge::Siblings, old.clone(), new.clone());
        assert_eq!(Siblings::of_record(&both).expect("siblings").len(), 2);
        assert!(both.version > new.version);
        assert_eq!(joined(Merge::Siblings, new, old), both);
        assert_eq!(joined(Merge::Siblings, both.clone(), row(1, 1)), both);
    }

    #[test]
    fn what_is_no_row_of_siblings_gives_way() {
        let (odd, even) = (row(1, 1), Record::new(row(9, 1).version, None));
        assert_eq!(joined(Merge::Siblings, odd.clone(), even.clone()), odd);
        assert_eq!(joined(Merge::Siblings, even.clone(), odd.clone()), odd);
        assert_eq!(joined(Merge::Siblings, even.clone(), even.clone()), even);
    }
}
