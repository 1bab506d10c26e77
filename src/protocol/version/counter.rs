//! Counters that any owner of a key may add to at any time, on rows of siblings.
//!
//! Each life of a pen keeps a *tally* in the row, the sum of what it was asked to add, as its one
//! value: an addition covers the life's old tally and leaves the new one. The counter is the sum of
//! all tallies. Whoever joins two rows keeps each life's latest tally, so nothing is counted twice,
//! and nothing is lost that any of the two had (a G-counter per life with a sign: Shapiro,
//! Preguiça, Baquero, Zawirski, "A comprehensive study of Convergent and Commutative Replicated
//! Data Types", 2011, section 3.1).
//!
//! Caveat: a delete covers the tallies that it has seen. A life that adds at the same time, at an
//! owner that has not heard of the delete, covers its own old tally as well; its new one, with the
//! old sum in it, stands beside the delete. So a delete concurrent with additions may not take.

use bytes::Bytes;

use crate::protocol::planted::{Planted, planted};
use crate::protocol::version::dvv::Siblings;
use crate::types::Version;

const TALLY_BYTES: usize = size_of::<i64>();

/// A counter would leave its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the counter would leave the range of 64-bit numbers")]
pub struct OutOfRange;

/// What a counter stands at. Owners that count apart from each other may together come further than
/// any of them would let it go.
pub fn total(row: &Siblings) -> i128 {
    row.values().map(|it| i128::from(tally(&it.value))).sum()
}

/// The row after an addition under a dot.
///
/// # Errors
/// [`OutOfRange`]; nothing is added.
pub fn added(row: &Siblings, dot: Version, by: i64) -> Result<Siblings, OutOfRange> {
    let is_own = |it: Version| it.incarnation == dot.incarnation;
    let own = row.values().find(|it| is_own(it.dot)).map_or(0, |it| tally(&it.value));
    let tally = own.checked_add(by).ok_or(OutOfRange)?;
    let value = Bytes::copy_from_slice(&tally.to_be_bytes());
    let after =
        row.replaced([(dot, Some(value))], |it, _| is_own(it) && !planted(Planted::TallyStays));
    let (before, total) = (total(row), total(&after));
    let is_within = i64::try_from(total).is_ok() || total.abs() < before.abs();
    is_within.then_some(after).ok_or(OutOfRange)
}

/// What no node wrote counts for nothing.
fn tally(value: &Bytes) -> i64 {
    value.first_chunk::<TALLY_BYTES>().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Incarnation, Timestamp};

    fn dot(stamp: u64, life: u64) -> Version {
        Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) }
    }

    fn add(row: &Siblings, at: (u64, u64), by: i64) -> Siblings {
        added(row, dot(at.0, at.1), by).expect("within the range")
    }

    #[test]
    fn additions_of_all_lives_are_summed_once_each() {
        let one = add(&add(&Siblings::default(), (1, 1), 5), (2, 1), -2);
        let two = add(&one, (3, 2), 10);
        assert_eq!([total(&one), total(&two)], [3, 13]);
        let more = add(&one, (4, 1), 1);
        assert_eq!(total(&two.joined(&more)), 14);
        assert_eq!(total(&two.joined(&more).joined(&one)), 14);
        assert_eq!(more.len(), 1, "one tally a life");
    }

    #[test]
    fn a_delete_takes_what_it_has_seen() {
        let row = add(&add(&Siblings::default(), (1, 1), 5), (2, 2), 7);
        let gone = row.written(dot(3, 1), None, &row.context()).expect("a delete");
        assert_eq!((total(&gone), gone.len()), (0, 0));
        assert_eq!(total(&gone.joined(&row)), 0);
        let again = add(&gone, (4, 1), 2);
        assert_eq!(total(&again.joined(&row)), 2, "counting begins anew");
        assert_eq!(total(&add(&row, (4, 2), 1).joined(&gone)), 8, "an addition was on its way");
    }

    #[test]
    fn a_counter_does_not_leave_its_range() {
        let most = add(&Siblings::default(), (1, 1), i64::MAX);
        assert_eq!(added(&most, dot(2, 1), 1), Err(OutOfRange));
        assert_eq!(added(&most, dot(2, 2), 1), Err(OutOfRange), "nor by another life");
        assert_eq!(total(&add(&most, (2, 2), i64::MIN)), -1);
        let other = add(&Siblings::default(), (1, 2), 1);
        let beyond = most.joined(&add(&other, (2, 2), 5));
        assert_eq!(total(&beyond), i128::from(i64::MAX) + 6, "each counted within the range");
        assert_eq!(added(&beyond, dot(3, 1), 0), Err(OutOfRange));
        assert_eq!(total(&add(&beyond, (3, 1), -1)), i128::from(i64::MAX) + 5, "it may come back");
    }

    proptest! {
        /// Whatever was added at three replicas that hear of each other now and then is counted.
        #[test]
        fn everything_added_is_counted_once(
            steps in prop::collection::vec((0usize..3, 0usize..4, -100i64..100), 0..60),
        ) {
            let mut rows = vec![Siblings::default(); 3];
            let mut expected = 0_i128;
            for (stamp, (at, from, by)) in (1..).zip(steps) {
                match rows.get(from) {
                    Some(row) => rows[at] = rows[at].joined(row),
                    None => {
                        rows[at] = add(&rows[at], (stamp, at as u64 + 1), by);
                        expected += i128::from(by);
                    }
                }
            }
            let all = rows[0].joined(&rows[1]).joined(&rows[2]);
            prop_assert_eq!(total(&all), expected);
        }
    }
}
