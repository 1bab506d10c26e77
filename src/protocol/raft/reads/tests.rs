use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn served(tokens: &[u64], index: u64) -> Vec<ReadState> {
    tokens.iter().map(|&token| ReadState { token, index: LogIndex(index) }).collect()
}

fn queue(tokens: &[u64]) -> ReadQueue {
    let mut queue = ReadQueue::new();
    tokens.iter().for_each(|&token| queue.push(token));
    queue
}

#[test]
fn reads_that_wait_share_a_round_and_its_commit_index() {
    // Section 6.4.
    let mut queue = queue(&[1, 2]);
    assert!(queue.wants_round() && queue.begin(7, LogIndex(40)));
    assert!(!queue.wants_round() && !queue.is_empty());
    assert_eq!(queue.confirm(7), served(&[1, 2], 40));
    assert!(queue.is_empty());
    assert_eq!(queue.confirm(7), []);
}

#[test]
fn a_round_begun_before_proves_nothing_and_one_begun_later_does() {
    let mut queue = queue(&[1]);
    queue.begin(7, LogIndex(40));
    assert_eq!(queue.confirm(6), []);
    assert_eq!(queue.confirm(8), served(&[1], 40));
}

#[test]
fn reads_that_come_during_a_round_gather_for_the_next() {
    let mut queue = queue(&[1]);
    queue.begin(7, LogIndex(40));
    queue.push(2);
    queue.push(3);
    assert!(!queue.wants_round() && !queue.begin(8, LogIndex(41)), "one is under way");
    assert_eq!(queue.confirm(8), served(&[1], 40), "2 and 3 came after round 7 began");
    assert!(queue.wants_round() && queue.begin(9, LogIndex(42)));
    assert_eq!(queue.confirm(9), served(&[2, 3], 42));
}

#[test]
fn a_round_without_reads_is_none_of_theirs() {
    let mut queue = ReadQueue::new();
    assert!(!queue.wants_round() && !queue.begin(7, LogIndex(40)));
    queue.push(1);
    assert_eq!(queue.confirm(7), [], "the read came after round 7 began");
}

#[test]
fn all_reads_are_given_back_when_leadership_is_lost() {
    let mut queue = queue(&[1, 2]);
    queue.begin(7, LogIndex(40));
    queue.push(3);
    assert_eq!(queue.take_all(), [1, 2, 3]);
    assert!(queue.is_empty());
    assert_eq!((queue.confirm(9), queue.take_all()), (vec![], vec![]));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Begin,
    /// Confirms a round so many before the latest.
    Confirm(u64),
    Lose,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Push),
        3 => Just(Step::Begin),
        3 => (0u64..4).prop_map(Step::Confirm),
        1 => Just(Step::Lose),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn a_read_is_served_once_and_by_a_round_begun_after_it_came(steps in steps()) {
        let (mut queue, mut round, mut next_token) = (ReadQueue::new(), 0u64, 0u64);
        // The last round begun before each read that is not served.
        let mut came: BTreeMap<u64, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push => {
                    next_token += 1;
                    came.insert(next_token, round);
                    queue.push(next_token);
                }
                // The commit index of a round is ten times its number here.
                Step::Begin => {
                    round += 1;
                    queue.begin(round, LogIndex(10 * round));
                }
                Step::Confirm(before) => {
                    let confirmed = round.saturating_sub(before);
                    for ReadState { token, index } in queue.confirm(confirmed) {
                        let came = came.remove(&token).expect("served once");
                        let begun = index.0 / 10;
                        prop_assert!(came < begun && begun <= confirmed);
                    }
                }
                Step::Lose => {
                    let open: Vec<u64> = std::mem::take(&mut came).into_keys().collect();
                    prop_assert_eq!(queue.take_all(), open);
                }
            }
            prop_assert_eq!(queue.is_empty(), came.is_empty());
        }
    }
}
