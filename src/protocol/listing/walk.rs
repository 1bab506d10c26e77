//! Fills one page of a listing from the pages of partitions.
//!
//! Where partitions have many of the wanted rows, one is asked after the other. Where they have
//! few, several are asked at once, more each time, or a page would take as many rounds as there are
//! partitions.

use crate::protocol::listing::Position;
use crate::types::{Key, PartitionId};

/// The most partitions that are asked at once.
const AT_ONCE_MAX: u16 = 16;

/// The fewest bytes that a partition's page is asked for.
const ASKED_BYTES_LEAST: usize = 4 << 10;

/// What is to be listed of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// From where on.
    pub position: Position,
    /// So many rows at most.
    pub rows_max: u32,
    /// About so many bytes at most.
    pub bytes_max: u32,
}

/// What a row is to a page: its key, and how many bytes it counts for.
pub trait Counted {
    /// The row's key.
    fn key(&self) -> &Key;
    /// The bytes that it counts for.
    fn cost_bytes(&self) -> usize;
}

/// One page that is being filled.
#[derive(Clone, Debug)]
pub struct Walk<T> {
    partitions: u32,
    /// `None` once the last partition is through.
    position: Option<Position>,
    rows_left: u32,
    bytes_left: usize,
    at_once: u16,
    rows: Vec<T>,
}

impl<T: Counted> Walk<T> {
    /// A page from this position on.
    pub fn new(position: Position, partitions: u32, rows_max: u32, bytes_max: usize) -> Self {
        let (position, rows) = (Some(position), Vec::new());
        let (rows_left, bytes_left, at_once) = (rows_max, bytes_max, 1);
        Walk { partitions, position, rows_left, bytes_left, at_once, rows }
    }

    /// The partitions to ask now, in order; none when the page is finished. Their rows are to be
    /// handed to [`Walk::take`] in the same order.
    pub fn wanted(&self) -> Vec<Wanted> {
        let Some(position) = self.position.clone().filter(|_| !self.is_full()) else {
            return Vec::new();
        };
        let first = position.partition.0;
        let further = (first + 1..).take_while(|number| u32::from(*number) < self.partitions);
        let fresh = |number| Position { partition: PartitionId(number), after: None };
        let further = further.take(usize::from(self.at_once - 1)).map(fresh);
        let share = (self.bytes_left / usize::from(self.at_once)).max(ASKED_BYTES_LEAST);
        let (rows_max, bytes_max) = (self.rows_left, u32::try_from(share).unwrap_or(u32::MAX));
        let wanted = |position| Wanted { position, rows_max, bytes_max };
        std::iter::once(position).chain(further).map(wanted).collect()
    }

    /// Takes what the next partition has, and up to which key that is all; false when the others
    /// that were asked with it come to nothing: the page is full, or the partition is not through.
    pub fn take(&mut self, rows: Vec<T>, reached: Option<Key>) -> bool {
        for row in rows {
            if self.is_full() {
                return self.stop();
            }
            self.rows_left -= 1;
            self.bytes_left = self.bytes_left.saturating_sub(row.cost_bytes());
            self.advance(Some(row.key().clone()));
            self.rows.push(row);
        }
        let through = reached.is_none();
        self.advance(reached);
        if through && !self.is_full() { true } else { self.stop() }
    }

    /// All partitions that were asked are through.
    pub fn goes_on(&mut self) {
        self.at_once = (self.at_once * 2).min(AT_ONCE_MAX);
    }

    /// Whether the page has come further than where it began, or has rows.
    pub fn has_moved_from(&self, begun: &Position) -> bool {
        self.position.as_ref() != Some(begun)
    }

    /// The rows, and where the next page begins; `None` when all is listed.
    pub fn finish(self) -> (Vec<T>, Option<Position>) {
        (self.rows, self.position)
    }

    fn is_full(&self) -> bool {
        self.rows_left == 0 || self.bytes_left == 0
    }

    fn stop(&mut self) -> bool {
        self.at_once = 1;
        false
    }

    /// Moves behind a key of the present partition, or to the next one.
    fn advance(&mut self, reached: Option<Key>) {
        let Some(Position { partition, .. }) = self.position else { return };
        let next = partition.0.checked_add(1).filter(|next| u32::from(*next) < self.partitions);
        self.position = match reached {
            Some(key) => Some(Position { partition, after: Some(key) }),
            None => next.map(|next| Position { partition: PartitionId(next), after: None }),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    impl Counted for Key {
        fn key(&self) -> &Key {
            self
        }
        fn cost_bytes(&self) -> usize {
            10
        }
    }

    fn keys(text: &str) -> Vec<Key> {
        text.split_whitespace().map(Key::from).collect()
    }

    fn asked(walk: &Walk<Key>) -> Vec<u16> {
        walk.wanted().iter().map(|wanted| wanted.position.partition.0).collect()
    }

    fn position(partition: u16, after: Option<&str>) -> Position {
        Position { partition: PartitionId(partition), after: after.map(Key::from) }
    }

    #[test]
    fn the_fewer_rows_there_are_the_more_partitions_are_asked_at_once() {
        let mut walk = Walk::new(Position::first(), 256, 100, 1 << 20);
        let mut rounds = Vec::new();
        loop {
            let wanted = asked(&walk);
            if wanted.is_empty() {
                break;
            }
            rounds.push(wanted.len());
            assert!(wanted.iter().all(|_| walk.take(Vec::new(), None)));
            walk.goes_on();
        }
        assert_eq!(rounds[..6], [1, 2, 4, 8, 16, 16]);
        assert_eq!(rounds.iter().sum::<usize>(), 256);
        assert_eq!(walk.finish(), (Vec::new(), None));
    }

    #[test]
    fn a_partition_that_is_not_through_is_asked_again_alone() {
        let mut walk = Walk::new(Position::first(), 8, 100, 1 << 20);
        walk.goes_on();
        assert_eq!(asked(&walk), [0, 1]);
        assert!(!walk.take(keys("a b"), Some(Key::from("c"))));
        let [wanted] = &walk.wanted()[..] else { panic!("one partition") };
        assert_eq!((&wanted.position, wanted.rows_max), (&position(0, Some("c")), 98));
        assert!(walk.take(keys("d"), None));
        assert_eq!(asked(&walk), [1]);
    }

    #[test]
    fn a_full_page_ends_behind_its_last_row() {
        let mut walk = Walk::new(position(3, Some("x")), 8, 3, 1 << 20);
        assert!(walk.take(keys("y"), None));
        assert!(!walk.take(keys("a b c"), None));
        assert_eq!(walk.wanted(), []);
        assert_eq!(walk.finish(), (keys("y a b"), Some(position(4, Some("b")))));

        let mut by_bytes = Walk::new(Position::first(), 8, 100, 15);
        assert!(!by_bytes.take(keys("a b c"), None));
        assert_eq!(by_bytes.finish(), (keys("a b"), Some(position(0, Some("b")))));

        let mut exactly = Walk::new(position(7, None), 8, 2, 1 << 20);
        assert!(!exactly.take(keys("a b"), None));
        assert_eq!(exactly.finish(), (keys("a b"), None), "nothing can follow");
    }

    #[test]
    fn what_a_partition_is_asked_for_is_its_share() {
        let mut walk: Walk<Key> = Walk::new(Position::first(), 64, 10, 1 << 20);
        walk.goes_on();
        walk.goes_on();
        let shares: Vec<u32> = walk.wanted().iter().map(|wanted| wanted.bytes_max).collect();
        assert_eq!(shares, [1 << 18; 4]);
    }

    /// What a partition lists above a key.
    fn listed(keys: &BTreeSet<u8>, wanted: &Wanted, at_most: usize) -> (Vec<Key>, Option<Key>) {
        let key = |number: &u8| Key(Bytes::copy_from_slice(&[*number]));
        let above = |key: &Key| wanted.position.after.as_ref().is_none_or(|after| key > after);
        let mut rest = keys.iter().map(key).filter(above);
        let rows_max = at_most.min(wanted.rows_max as usize);
        let rows: Vec<Key> = rest.by_ref().take(rows_max).collect();
        let reached = rest.next().and_then(|_| rows.last().cloned());
        (rows, reached)
    }

    proptest! {
        #[test]
        fn every_key_is_listed_once_and_in_order(
            partitions in proptest::collection::vec(
                proptest::collection::btree_set(any::<u8>(), 0..8), 1..40),
            rows_max in 1..20_u32,
            bytes_max in 1..200_usize,
            at_most in 1..6_usize,
        ) {
            let count = partitions.len() as u32;
            let (mut position, mut all) = (Some(Position::first()), Vec::new());
            while let Some(begun) = position {
                let mut walk = Walk::new(begun.clone(), count, rows_max, bytes_max);
                loop {
                    let wanted = walk.wanted();
                    if wanted.is_empty() {
                        break;
                    }
                    let mut through = true;
                    for wanted in wanted {
                        let of = &partitions[usize::from(wanted.position.partition.0)];
                        let (rows, reached) = listed(of, &wanted, at_most);
                        through = walk.take(rows, reached);
                        if !through {
                            break;
                        }
                    }
                    if through {
                        walk.goes_on();
                    }
                }
                prop_assert!(walk.has_moved_from(&begun));
                let (rows, next) = walk.finish();
                prop_assert!(rows.len() <= rows_max as usize);
                all.extend(rows.into_iter().map(|key| key.0[0]));
                position = next;
            }
            let model: Vec<u8> = partitions.iter().flatten().copied().collect();
            prop_assert_eq!(all, model);
        }
    }
}
