use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::types::{Incarnation, Timestamp};

type Rows = BTreeMap<Key, Version>;

fn version(stamp: u64) -> Version {
    Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) }
}

fn key(number: u16) -> Key {
    Key::from(format!("k{number}").as_str())
}

fn pass(mut refresh: Refresh, rows: &Rows) -> Refresh {
    rows.iter().for_each(|(key, version)| refresh.add(key, *version));
    refresh
}

fn tree_of(rows: &Rows) -> Tree {
    let mut tree = Tree::new();
    let refresh = pass(tree.refresh(), rows);
    assert_eq!(tree.finish(refresh), Some(0));
    tree
}

fn assert_same(a: &Tree, b: &Tree) {
    assert_eq!(a.root(), b.root());
    assert_eq!(a.branches(), b.branches());
    for branch in 0..=BRANCHES as u8 {
        assert_eq!(a.buckets(branch), b.buckets(branch), "branch {branch}");
    }
}

#[test]
fn hashes_above_are_made_of_those_below() {
    let rows: Rows = (0..3000).map(|number| (key(number), version(7))).collect();
    let tree = tree_of(&rows);
    let xor = |hashes: &[u64]| hashes.iter().fold(0, |a, b| a ^ b);
    assert_eq!(xor(&tree.branches()), tree.root());
    for (branch, hash) in tree.branches().into_iter().enumerate() {
        let buckets = tree.buckets(u8::try_from(branch).expect("few branches"));
        assert_eq!((buckets.len(), xor(&buckets)), (BUCKETS_OF_BRANCH, hash));
    }
    assert!(tree.buckets(BRANCHES as u8).is_empty());
}

#[test]
fn a_row_that_changes_shows_in_its_bucket_alone() {
    let mut rows: Rows = (0..3000).map(|number| (key(number), version(7))).collect();
    let before = tree_of(&rows);
    rows.insert(key(5), version(8));
    let after = tree_of(&rows);
    let buckets = |tree: &Tree| (0..BRANCHES as u8).flat_map(|it| tree.buckets(it)).collect();
    let (before, after): (Vec<u64>, Vec<u64>) = (buckets(&before), buckets(&after));
    let differing: Vec<usize> = (0..BUCKETS).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(differing, [usize::from(bucket_of(&key(5)))]);
}

#[test]
fn a_mark_during_a_refresh_outlives_it() {
    let mut rows = Rows::from([(key(1), version(1))]);
    let mut tree = tree_of(&rows);
    tree.mark(bucket_of(&key(1)));
    let refresh = pass(tree.refresh(), &rows);
    rows.insert(key(1), version(2));
    tree.mark(bucket_of(&key(1)));
    assert_eq!(tree.finish(refresh), Some(0));
    assert!(!tree.is_fresh());
    let refresh = pass(tree.refresh(), &rows);
    assert_eq!(tree.finish(refresh), Some(0));
    assert!(tree.is_fresh());
    assert_same(&tree, &tree_of(&rows));
}

#[test]
fn a_refresh_that_another_overtook_is_void() {
    let mut rows = Rows::from([(key(1), version(1))]);
    let mut tree = Tree::new();
    let first = pass(tree.refresh(), &rows);
    rows.insert(key(1), version(2));
    tree.mark(bucket_of(&key(1)));
    let second = pass(tree.refresh(), &rows);
    assert_eq!(tree.finish(second), Some(0));
    assert_eq!(tree.finish(first), None);
    assert_same(&tree, &tree_of(&rows));
}

#[test]
fn verifying_finds_what_no_write_told() {
    let mut rows: Rows = (0..100).map(|number| (key(number), version(7))).collect();
    let mut tree = tree_of(&rows);
    rows.remove(&key(3));
    rows.insert(key(4), version(9));
    tree.mark(bucket_of(&key(4)));
    let check = pass(tree.verify(), &rows);
    assert_eq!(tree.finish(check), Some(1));
    assert!(tree.is_fresh());
    assert_same(&tree, &tree_of(&rows));
}

#[test]
fn a_set_holds_what_was_put_in() {
    let set: Buckets = [0, 63, 64, 1023, 1024, u16::MAX].into_iter().collect();
    assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 1023]);
    assert!(!set.contains(1024) && !set.contains(1) && !set.is_empty());
    assert_eq!(Buckets::ALL.iter().count(), BUCKETS);
    assert!(Buckets::NONE.is_empty());
}

#[derive(Clone, Debug)]
enum Act {
    /// A row changes, or goes, and its bucket is marked.
    Change(u16, Option<u64>),
    Begin,
    /// The rows are seen up to some key.
    See,
    Finish,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u16..40, prop::option::weighted(0.8, 1_u64..50))
            .prop_map(|(key, stamp)| Act::Change(key, stamp)),
        1 => Just(Act::Begin),
        1 => Just(Act::See),
        1 => Just(Act::Finish),
    ]
}

proptest! {
    /// Whatever happens while it is refreshed, buckets that are not stale are those of the rows.
    #[test]
    fn what_is_not_stale_is_right(acts in prop::collection::vec(act(), 0..80)) {
        let (mut tree, mut rows) = (Tree::new(), Rows::new());
        let mut under_way = Vec::new();
        for act in acts {
            match act {
                Act::Change(number, Some(stamp)) => {
                    rows.insert(key(number), version(stamp));
                    tree.mark(bucket_of(&key(number)));
                }
                Act::Change(number, None) => {
                    rows.remove(&key(number));
                    tree.mark(bucket_of(&key(number)));
                }
                Act::Begin => under_way.push((tree.refresh(), false)),
                Act::See => {
                    if let Some((refresh, seen)) = under_way.pop() {
                        let refresh = if seen { refresh } else { pass(refresh, &rows) };
                        under_way.push((refresh, true));
                    }
                }
                Act::Finish => {
                    if under_way.last().is_some_and(|(_, seen)| *seen) {
                        let (refresh, _) = under_way.pop().expect("one is under way");
                        prop_assert_ne!(tree.finish(refresh), Some(1));
                    }
                }
            }
            let right = tree_of(&rows);
            for bucket in (0..BUCKETS).filter(|at| !tree.stale.contains(*at as u16)) {
                prop_assert_eq!(tree.buckets[bucket], right.buckets[bucket]);
            }
        }
    }
}
