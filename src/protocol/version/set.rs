//! Sets that any owner of a key may change at any time, on rows of siblings.
//!
//! Each element is a value, under the dot of the event that added it. An addition covers what the
//! row has of the same element; a removal covers that and leaves nothing. Whoever removes an
//! element removes what it has seen of it, and an addition that it had not seen stands: additions
//! win (Bieniusa, Zawirski, Preguiça, Shapiro, Baquero, Balegas, Duarte, "An optimized
//! conflict-free replicated set", 2012).
//!
//! An element that several owners added before they heard of each other stands in the row once for
//! each of them, until it is added again or goes. It is one element, and takes the room of several.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::protocol::version::dvv::{Context, SIBLINGS_BYTES_MAX, Siblings};
use crate::types::Version;

/// A change that would leave more elements than this is refused: they are one row.
pub const SET_ELEMENTS_MAX: usize = 10_000;

/// A change that would leave elements of more bytes than this is refused. They are counted as they
/// lie in the row: an element that several owners added counts once for each.
pub const SET_BYTES_MAX: usize = SIBLINGS_BYTES_MAX;

/// Whether a change has left more than may be in a set, and more than was there.
pub fn is_beyond_limits(after: &Siblings, before: &Siblings) -> bool {
    let is_beyond =
        |size: fn(&Siblings) -> usize, max: usize| size(after) > max && size(after) > size(before);
    // There are at least as many values as elements, and they cost less to count.
    (after.len() > SET_ELEMENTS_MAX && is_beyond(count, SET_ELEMENTS_MAX))
        || is_beyond(Siblings::value_bytes, SET_BYTES_MAX)
}

/// How many elements a set has.
pub fn count(row: &Siblings) -> usize {
    elements(row).len()
}

/// The elements of a set, in the order of their bytes.
pub fn elements(row: &Siblings) -> BTreeSet<Bytes> {
    row.values().map(|sibling| sibling.value).collect()
}

/// The row after elements were removed, as far as they had been seen, and others added; what is
/// among both is there afterwards. `dots` are minted one above the other, one more than there are
/// elements to be added. A removal of what was seen elsewhere, and the row has not heard of, does
/// nothing: it is for the row's owner to hear of it first.
pub fn changed(
    row: &Siblings,
    dots: impl IntoIterator<Item = Version>,
    (added, removed): (&BTreeSet<Bytes>, &BTreeSet<Bytes>),
    seen: &Context,
) -> Siblings {
    let values = std::iter::once(None).chain(added.iter().cloned().map(Some));
    row.replaced(dots.into_iter().zip(values), |dot, value| {
        added.contains(value) || (removed.contains(value) && seen.covers(dot))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Incarnation, Timestamp};

    fn dot(stamp: u64, life: u64) -> Version {
        Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) }
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn with(row: &Siblings, (stamp, life): (u64, u64), element: &Bytes) -> Siblings {
        let dots = [dot(2 * stamp, life), dot(2 * stamp + 1, life)];
        let added = BTreeSet::from([element.clone()]);
        changed(row, dots, (&added, &BTreeSet::new()), &Context::default())
    }

    fn without(
        row: &Siblings,
        (stamp, life): (u64, u64),
        removed: &BTreeSet<Bytes>,
        seen: &Context,
    ) -> Siblings {
        changed(row, [dot(2 * stamp, life)], (&BTreeSet::new(), removed), seen)
    }

    fn texts(row: &Siblings) -> Vec<String> {
        elements(row).iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect()
    }

    #[test]
    fn elements_come_and_go_and_additions_win() {
        let one = with(&with(&Siblings::default(), (1, 1), &bytes("b")), (2, 1), &bytes("a"));
        assert_eq!(texts(&one), ["a", "b"]);
        let removed =
            without(&one, (3, 1), &BTreeSet::from([bytes("a"), bytes("x")]), &one.context());
        assert_eq!(texts(&removed), ["b"]);
        assert_eq!(texts(&removed.joined(&one)), ["b"], "it does not come back");
        let again = with(&one, (4, 2), &bytes("a"));
        assert_eq!((texts(&again).len(), again.len()), (2, 2), "an element is in it once");
        assert_eq!(texts(&again.joined(&removed)), ["a", "b"], "the removal had not seen it");
    }

    #[test]
    fn a_removal_with_a_context_takes_what_was_seen_then() {
        let one = with(&Siblings::default(), (1, 1), &bytes("a"));
        let two = with(&one, (2, 2), &bytes("a"));
        let removed = BTreeSet::from([bytes("a")]);
        let old = without(&two, (3, 2), &removed, &one.context());
        assert_eq!(texts(&old), ["a"], "it was added anew since");
        assert!(texts(&without(&two, (3, 2), &removed, &two.context())).is_empty());
    }

    fn with_all(row: &Siblings, (stamp, life): (u64, u64), added: &BTreeSet<Bytes>) -> Siblings {
        let dots = (stamp..).map(|stamp| dot(stamp, life));
        changed(row, dots, (added, &BTreeSet::new()), &Context::default())
    }

    fn numbered(numbers: std::ops::Range<usize>) -> BTreeSet<Bytes> {
        numbers.map(|number| Bytes::from(format!("{number:05}"))).collect()
    }

    #[test]
    fn elements_are_counted_and_not_how_often_they_were_added() {
        let (stamp, most) = (1_000_000, numbered(0..SET_ELEMENTS_MAX - 1));
        let apart = |life| with_all(&Siblings::default(), (life, life), &most);
        let row = apart(1).joined(&apart(2)).joined(&apart(3));
        assert_eq!((row.len(), count(&row)), (3 * most.len(), most.len()));
        let full = with(&row, (stamp, 1), &bytes("one more"));
        assert_eq!(count(&full), SET_ELEMENTS_MAX);
        assert!(!is_beyond_limits(&full, &row), "it has as many elements as it may");
        let fuller = with(&full, (2 * stamp, 1), &bytes("too many"));
        assert!(is_beyond_limits(&fuller, &full));
        let again = with(&fuller, (3 * stamp, 1), &bytes("too many"));
        assert!(!is_beyond_limits(&again, &fuller), "it does not grow");
    }

    #[test]
    fn bytes_are_counted_as_often_as_they_are_stored() {
        let large = |fill: u8| Bytes::from(vec![fill; SET_BYTES_MAX / 4]);
        let both = BTreeSet::from([large(1), large(2)]);
        let apart = |life| with_all(&Siblings::default(), (life, life), &both);
        let row = apart(1).joined(&apart(2));
        assert_eq!(row.value_bytes(), SET_BYTES_MAX);
        let more = with(&row, (1_000_000, 1), &bytes("x"));
        assert!(is_beyond_limits(&more, &row), "half of it is elements, but all of it is stored");
        let whole = with_all(&row, (1_000_000, 1), &both);
        assert!(!is_beyond_limits(&with(&whole, (2_000_000, 1), &bytes("x")), &whole));
    }

    proptest! {
        /// Replicas that heard all of each other agree, and have what was added and not removed by
        /// someone who had seen it.
        #[test]
        fn what_nobody_removed_who_had_seen_it_is_there(
            steps in prop::collection::vec((0usize..3, 0usize..5, 0u8..4), 0..60),
        ) {
            let mut rows = vec![Siblings::default(); 3];
            let mut known: Vec<BTreeSet<(u8, u64)>> = vec![BTreeSet::new(); 3];
            let mut removed: BTreeSet<(u8, u64)> = BTreeSet::new();
            for (stamp, (at, what, element)) in (1u64..).zip(steps) {
                let (dot, value) = ((stamp, at as u64 + 1), Bytes::from(vec![element]));
                match what {
                    3 => {
                        rows[at] = with(&rows[at], dot, &value);
                        let old: Vec<_> =
                            known[at].iter().filter(|it| it.0 == element).copied().collect();
                        removed.extend(old);
                        known[at].insert((element, stamp));
                    }
                    4 => {
                        let seen = rows[at].context();
                        rows[at] = without(&rows[at], dot, &BTreeSet::from([value]), &seen);
                        removed.extend(known[at].iter().filter(|it| it.0 == element));
                    }
                    from => {
                        rows[at] = rows[at].joined(&rows[from]);
                        let theirs = known[from].clone();
                        known[at].extend(theirs);
                    }
                }
            }
            let all = rows[0].joined(&rows[1]).joined(&rows[2]);
            let added = known.into_iter().flatten().filter(|it| !removed.contains(it));
            let expected: BTreeSet<Bytes> = added.map(|it| Bytes::from(vec![it.0])).collect();
            prop_assert_eq!(elements(&all), expected);
        }
    }
}
