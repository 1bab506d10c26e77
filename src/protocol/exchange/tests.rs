use proptest::prelude::*;

use super::*;
use crate::protocol::merkle::{Buckets, Tree, bucket_of};
use crate::types::{Incarnation, Timestamp};

type Rows = BTreeMap<Key, Version>;

fn version(stamp: u64) -> Version {
    Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) }
}

fn key(number: u16) -> Key {
    Key::from(format!("k{number}").as_str())
}

fn rows(of: &[(u16, u64)]) -> Rows {
    of.iter().map(|(number, stamp)| (key(*number), version(*stamp))).collect()
}

/// Answers as a replica with these rows does, so many rows to a list.
fn answer(rows: &Rows, question: &Question, rows_max: usize) -> Answer {
    let mut tree = Tree::new();
    let mut refresh = tree.refresh();
    rows.iter().for_each(|(key, version)| refresh.add(key, *version));
    assert_eq!(tree.finish(refresh), Some(0));
    match question {
        Question::Root => Answer::Hashes(vec![tree.root()]),
        Question::Branches => Answer::Hashes(tree.branches()),
        Question::Buckets(of) => {
            Answer::Hashes(of.iter().flat_map(|branch| tree.buckets(*branch)).collect())
        }
        Question::Rows { buckets, after } => {
            let wanted: Buckets = buckets.iter().copied().collect();
            let above = |key: &&Key| after.as_ref().is_none_or(|after| *key > after);
            let mut listed: Vec<(Key, Version)> = rows
                .iter()
                .filter(|(key, _)| above(key) && wanted.contains(bucket_of(key)))
                .map(|(key, version)| (key.clone(), *version))
                .collect();
            let more = listed.len() > rows_max;
            listed.truncate(rows_max);
            let complete_to = listed.last().map(|(key, _)| key.clone()).filter(|_| more);
            Answer::Rows(RowList { rows: listed, complete_to })
        }
    }
}

/// Two replicas and what happens to them.
struct Stage {
    here: Rows,
    there: Rows,
    rows_max: usize,
    merge: Merge,
    copied: Vec<Key>,
    asked: usize,
}

fn copy(key: &Key, from: &Rows, to: &mut Rows) {
    let version = from.get(key).expect("only rows that exist are copied");
    let held = to.entry(key.clone()).or_insert(*version);
    *held = (*held).max(*version);
}

impl Stage {
    fn new(here: Rows, there: Rows, rows_max: usize) -> Stage {
        Stage { here, there, rows_max, merge: Merge::Lww, copied: Vec::new(), asked: 0 }
    }

    /// Runs a session; `meanwhile` changes the rows during every pause.
    fn run(&mut self, mut meanwhile: impl FnMut(&mut Rows, &mut Rows)) -> Summary {
        let (mut exchange, mut now) = (Exchange::new(self.merge), Moment(0));
        loop {
            match exchange.poll(now) {
                Effect::Ask(question) => {
                    self.asked += 1;
                    let here = answer(&self.here, &question, self.rows_max);
                    let there = answer(&self.there, &question, self.rows_max);
                    exchange.on_answers(here, there, now).expect("answers fit");
                }
                Effect::Wait(until) => {
                    assert!(until > now);
                    now = until;
                    meanwhile(&mut self.here, &mut self.there);
                }
                Effect::Repair(repairs) => {
                    for key in &repairs.send {
                        copy(key, &self.here, &mut self.there);
                    }
                    for key in &repairs.fetch {
                        copy(key, &self.there, &mut self.here);
                    }
                    self.copied.extend(repairs.send.into_iter().chain(repairs.fetch));
                    exchange.on_repaired();
                }
                Effect::Done(summary) => return summary,
            }
        }
    }
}

fn nothing(_: &mut Rows, _: &mut Rows) {}

#[test]
fn equal_replicas_exchange_two_numbers() {
    let same = rows(&[(1, 1), (2, 2)]);
    let mut stage = Stage::new(same.clone(), same, 10);
    assert_eq!(stage.run(nothing), Summary::default());
    assert_eq!((stage.asked, stage.copied.len()), (1, 0));
}

#[test]
fn the_newer_row_is_copied_and_what_is_equal_is_not() {
    let mut stage = Stage::new(
        rows(&[(1, 9), (2, 2), (3, 3), (5, 5)]),
        rows(&[(1, 1), (2, 8), (4, 4), (5, 5)]),
        10,
    );
    assert_eq!(stage.run(nothing), Summary { differing: 4, unconfirmed: 0 });
    assert_eq!(stage.here, rows(&[(1, 9), (2, 8), (3, 3), (4, 4), (5, 5)]));
    assert_eq!(stage.here, stage.there);
    assert!(!stage.copied.contains(&key(5)));
}

#[test]
fn a_write_on_its_way_is_not_repaired() {
    let mut stage = Stage::new(rows(&[(1, 9), (2, 7)]), rows(&[(1, 1), (2, 2)]), 10);
    let summary = stage.run(|here, there| {
        // The first arrives; the second as well, and the next write to it is on its way.
        there.insert(key(1), version(9));
        there.insert(key(2), version(7));
        here.insert(key(2), version(8));
    });
    assert_eq!(summary, Summary::default());
    assert!(stage.copied.is_empty());
}

#[test]
fn a_replica_that_still_lacks_the_same_thing_is_repaired_although_more_was_written() {
    let mut stage = Stage::new(rows(&[(1, 9)]), rows(&[(1, 1)]), 10);
    let summary = stage.run(|here, _| {
        here.insert(key(1), version(10));
    });
    assert_eq!(summary, Summary { differing: 1, unconfirmed: 0 });
    assert_eq!(stage.there, rows(&[(1, 10)]));
}

/// Of rows that are joined the one of the greater version may lack what the other says.
#[test]
fn rows_that_are_joined_are_copied_both_ways() {
    let mut stage =
        Stage::new(rows(&[(1, 9), (2, 2), (3, 3)]), rows(&[(1, 1), (2, 2), (4, 4)]), 10);
    stage.merge = Merge::Siblings;
    let summary = stage.run(|_, there| {
        // It says what `here` said then, by its version, and may not.
        there.insert(key(1), version(20));
    });
    assert_eq!(summary, Summary { differing: 3, unconfirmed: 0 });
    assert_eq!(stage.copied, [key(1), key(3), key(1), key(4)], "sent, then fetched");
}

#[test]
fn answers_that_fit_nothing_end_a_session() {
    let hashes = |count: usize| Answer::Hashes((0..count as u64).collect());
    let list = || Answer::Rows(RowList::default());
    let cases =
        [(hashes(2), hashes(1)), (hashes(1), hashes(0)), (list(), hashes(1)), (list(), list())];
    for (here, there) in cases {
        assert_eq!(Exchange::new(Merge::Lww).on_answers(here, there, Moment(0)), Err(Misfit));
    }
    assert_eq!(Exchange::new(Merge::Lww).on_answers(hashes(1), hashes(1), Moment(0)), Ok(()));
}

#[test]
fn a_list_that_does_not_get_on_ends_a_session() {
    let mut exchange = Exchange {
        state: State::Listing,
        buckets: vec![1],
        after: Some(key(5)),
        ..Exchange::new(Merge::Lww)
    };
    let stuck = || Answer::Rows(RowList { rows: Vec::new(), complete_to: Some(key(5)) });
    assert_eq!(exchange.on_answers(stuck(), stuck(), Moment(0)), Err(Misfit));
}

#[test]
fn many_differences_are_repaired_a_few_at_a_time() {
    let here: Rows = (0..2000).map(|number| (key(number), version(1))).collect();
    let mut stage = Stage::new(here.clone(), Rows::new(), 700);
    assert_eq!(stage.run(nothing), Summary { differing: 2000, unconfirmed: 0 });
    assert_eq!(stage.there, here);
}

fn some_rows() -> impl Strategy<Value = Rows> {
    prop::collection::btree_map(0_u16..60, 1_u64..5, 0..60)
        .prop_map(|map| map.into_iter().map(|(k, v)| (key(k), version(v))).collect())
}

proptest! {
    /// Both end with the newer of what they had, and each row is copied once.
    #[test]
    fn replicas_end_equal(here in some_rows(), there in some_rows(), rows_max in 1_usize..20) {
        let mut merged = here.clone();
        there.keys().for_each(|key| copy(key, &there, &mut merged));
        let unequal = merged.keys().filter(|key| here.get(*key) != there.get(*key)).count();
        let mut stage = Stage::new(here, there, rows_max);
        let summary = stage.run(nothing);
        prop_assert_eq!(summary, Summary { differing: unequal as u64, unconfirmed: 0 });
        prop_assert_eq!(&stage.here, &merged);
        prop_assert_eq!(&stage.there, &merged);
        prop_assert_eq!(stage.copied.len(), unequal);
    }

    /// Writes in between make no row go back, and what they leave undone is done once they stop.
    #[test]
    fn writes_meanwhile_do_no_harm(
        here in some_rows(),
        there in some_rows(),
        rows_max in 1_usize..20,
        written in prop::collection::vec((0_u16..60, any::<bool>()), 0..20),
    ) {
        let mut newest = here.clone();
        there.keys().for_each(|key| copy(key, &there, &mut newest));
        let mut stage = Stage::new(here, there, rows_max);
        let mut stamp = 10;
        stage.run(|here, there| {
            for (number, on_both) in &written {
                stamp += 1;
                here.insert(key(*number), version(stamp));
                newest.insert(key(*number), version(stamp));
                if *on_both {
                    there.insert(key(*number), version(stamp));
                }
            }
        });
        stage.run(nothing);
        prop_assert_eq!(&stage.here, &newest);
        prop_assert_eq!(&stage.there, &newest);
    }
}
