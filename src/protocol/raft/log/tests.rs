use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::protocol::raft::entry::Payload;
use crate::types::ReplicaId;

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition { index: LogIndex(index), term: Term(term) }
}

fn entry(index: u64, term: u64) -> Entry {
    let command = Bytes::from(format!("{index} of {term}"));
    Entry { term: Term(term), index: LogIndex(index), payload: Payload::Command(command) }
}

/// Entries from index `first` on, given by their terms.
fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(first..).map(|(&term, index)| entry(index, term)).collect()
}

fn voters(replicas: &[u64]) -> Membership {
    let voters: BTreeSet<ReplicaId> = replicas.iter().map(|&n| ReplicaId(n)).collect();
    Membership { voters, ..Membership::default() }
}

fn start(index: u64, term: u64) -> LogStart {
    LogStart {
        position: position(index, term),
        membership: voters(&[1]),
        membership_index: LogIndex(0),
    }
}

fn log(terms: &[u64]) -> Log {
    Log::new(start(0, 0), entries(1, terms))
}

fn terms(log: &Log) -> Vec<u64> {
    log.entries_from(LogIndex(0)).iter().map(|entry| entry.term.0).collect()
}

fn membership_entry(index: u64, term: u64, replicas: &[u64]) -> Entry {
    Entry { payload: Payload::Membership(voters(replicas)), ..entry(index, term) }
}

#[test]
fn positions_of_an_empty_and_of_a_filled_log() {
    let empty = Log::new(start(4, 2), Vec::new());
    assert_eq!((empty.start(), empty.last()), (position(4, 2), position(4, 2)));
    assert_eq!((empty.first_index(), empty.last_index()), (LogIndex(5), LogIndex(4)));
    let log = Log::new(start(4, 2), entries(5, &[2, 3]));
    assert_eq!((log.last(), log.first_index()), (position(6, 3), LogIndex(5)));
    let terms: Vec<Option<u64>> =
        (3..8).map(|index| log.term_at(LogIndex(index)).map(|term| term.0)).collect();
    assert_eq!(terms, [None, Some(2), Some(2), Some(3), None]);
    assert!(log.matches(position(4, 2)) && log.matches(position(6, 3)));
    assert!(!log.matches(position(6, 2)) && !log.matches(position(3, 2)));
    assert_eq!(log.entry(LogIndex(6)), Some(&entry(6, 3)));
    assert_eq!((log.entry(LogIndex(4)), log.entry(LogIndex(7))), (None, None));
}

#[test]
fn a_candidate_needs_a_later_term_or_as_many_entries() {
    // Section 3.6.1.
    let own = log(&[1, 1, 3]);
    let cases = [(3, 3, true), (4, 3, true), (1, 4, true), (2, 3, false), (9, 2, false)];
    for (index, term, expected) in cases {
        assert_eq!(own.is_up_to_date(position(index, term)), expected, "{index} of term {term}");
    }
}

#[test]
fn a_leader_appends_at_the_end() {
    let mut log = log(&[1]);
    log.append(entry(2, 3));
    assert_eq!(terms(&log), [1, 3]);
    assert_eq!(log.unstable(), entries(2, &[3]));
}

#[test]
#[should_panic(expected = "does not follow")]
fn a_gap_is_never_appended() {
    log(&[1, 2]).append(entry(4, 2));
}

#[test]
#[should_panic(expected = "does not follow")]
fn a_term_never_falls() {
    log(&[1, 2]).append(entry(3, 1));
}

#[test]
fn a_follower_takes_entries_behind_one_that_it_holds() {
    // Section 3.5. What it has, what the message says, what it has then or answers.
    type Case<'a> = (&'a [u64], (u64, u64), &'a [u64], Result<u64, (u64, u64)>, &'a [u64], &'a str);
    let cases: [Case; 12] = [
        (&[], (0, 0), &[1, 1], Ok(2), &[1, 1], "the first entries"),
        (&[1, 1], (2, 1), &[2], Ok(3), &[1, 1, 2], "at the end"),
        (&[1, 1], (2, 1), &[], Ok(2), &[1, 1], "a probe"),
        (&[1, 1, 1], (1, 1), &[], Ok(1), &[1, 1, 1], "a probe in the middle drops nothing"),
        (&[1, 1, 1], (0, 0), &[1], Ok(1), &[1, 1, 1], "an old message drops nothing"),
        (&[1, 1, 1], (1, 1), &[1, 1, 2], Ok(4), &[1, 1, 1, 2], "an overlap"),
        (&[1, 1, 1], (1, 1), &[2], Ok(2), &[1, 2], "a conflict drops the rest"),
        (&[1, 1, 2, 2], (1, 1), &[1, 3, 3], Ok(4), &[1, 1, 3, 3], "an overlap, then a conflict"),
        (&[1, 2], (0, 0), &[3, 3], Ok(2), &[3, 3], "a conflict at once"),
        (&[1], (3, 1), &[1], Err((1, 1)), &[1], "a gap"),
        (&[1, 2, 2], (3, 3), &[3], Err((3, 2)), &[1, 2, 2], "another term there"),
        (&[1, 4, 4], (3, 3), &[3], Err((1, 1)), &[1, 4, 4], "a later term is skipped whole"),
    ];
    for (before, previous, sent, answer, after, what) in cases {
        let mut log = log(before);
        let outcome =
            log.try_append(position(previous.0, previous.1), &entries(previous.0 + 1, sent));
        let expected = answer.map(LogIndex).map_err(|(index, term)| position(index, term));
        assert_eq!((outcome, terms(&log)), (expected, after.to_vec()), "{what}");
    }
}

#[test]
fn what_is_compacted_counts_as_matching() {
    type Case<'a> = ((u64, u64), &'a [u64], u64, &'a [u64]);
    let cases: [Case; 5] = [
        ((1, 1), &[1], 2, &[2, 2]),
        ((0, 0), &[1, 1, 2], 3, &[2, 2]),
        ((1, 1), &[1, 2, 2, 2, 3], 6, &[2, 2, 3]),
        ((2, 1), &[2, 3], 4, &[3]),
        ((3, 2), &[], 3, &[2, 2]),
    ];
    for (previous, sent, matching, after) in cases {
        let mut log = Log::new(start(3, 2), entries(4, &[2, 2]));
        let entries = entries(previous.0 + 1, sent);
        let outcome = log.try_append(position(previous.0, previous.1), &entries);
        assert_eq!(outcome, Ok(LogIndex(matching)), "{previous:?} {sent:?}");
        assert_eq!(terms(&log), after, "{previous:?} {sent:?}");
    }
}

#[test]
#[should_panic(expected = "is committed")]
fn a_committed_entry_is_never_replaced() {
    // Section 3.6.3.
    let mut log = log(&[1, 1, 1]);
    log.commit_to(LogIndex(2));
    let _ = log.try_append(position(1, 1), &entries(2, &[2]));
}

#[test]
fn an_uncommitted_entry_behind_committed_ones_is_replaced() {
    let mut log = log(&[1, 1, 1]);
    log.commit_to(LogIndex(2));
    assert_eq!(log.try_append(position(2, 1), &entries(3, &[2])), Ok(LogIndex(3)));
    assert_eq!(terms(&log), [1, 1, 2]);
}

#[test]
fn a_hint_and_its_answer_skip_whole_terms() {
    // Section 3.5: the leader's log, the follower's, and the indices that it is probed at.
    let cases: [(&[u64], &[u64], &[u64]); 7] = [
        (&[1, 1, 1], &[1, 1, 1], &[3]),
        (&[1, 1, 4, 4, 5, 5, 6], &[1, 1, 4, 4, 5, 5], &[7, 6]),
        (&[1, 1, 4, 4, 5, 5, 6], &[1, 1, 4, 4], &[7, 4]),
        (&[1, 1, 4, 4, 5, 5, 6], &[1, 1, 2, 2, 3, 3], &[7, 2]),
        (&[1, 1, 2, 2, 3, 3], &[1, 1, 4, 4, 4, 4], &[6, 2]),
        (&[1, 2, 2, 2, 5], &[1, 3, 3, 3, 4, 4], &[5, 4, 1]),
        (&[3, 3], &[1, 1, 1], &[2, 0]),
    ];
    for (leader, follower, expected) in cases {
        let (leader, follower) = (log(leader), log(follower));
        let mut at = leader.last_index();
        let mut probed = vec![at.0];
        while let Some(term) =
            leader.term_at(at).filter(|&term| !follower.matches(LogPosition { index: at, term }))
        {
            at = leader.find_conflict(follower.conflict_hint(LogPosition { index: at, term }));
            probed.push(at.0);
        }
        assert_eq!(probed, expected, "{leader:?} {follower:?}");
    }
}

#[test]
fn a_conflict_below_the_start_asks_for_a_snapshot() {
    let leader = Log::new(start(5, 3), entries(6, &[3, 4]));
    let cases = [(2, 1, 2), (5, 2, 4), (5, 3, 5), (7, 2, 4), (6, 3, 6), (9, 9, 7)];
    for (index, term, expected) in cases {
        let at = leader.find_conflict(position(index, term));
        assert_eq!(at, LogIndex(expected), "{index} of term {term}");
    }
    assert_eq!(leader.slice(LogIndex(5), 1000), None);
}

#[test]
fn the_latest_membership_is_in_force_until_its_entry_is_truncated() {
    // Section 4.1.
    let mut log = log(&[1]);
    assert_eq!((log.membership(), log.membership_index()), (&voters(&[1]), LogIndex(0)));
    log.append(membership_entry(2, 1, &[1, 2]));
    log.append(membership_entry(3, 1, &[1, 2, 3]));
    log.append(entry(4, 1));
    assert_eq!((log.membership(), log.membership_index()), (&voters(&[1, 2, 3]), LogIndex(3)));
    let at: Vec<_> = (0..6).map(|index| log.membership_at(LogIndex(index)).cloned()).collect();
    let expected: [&[u64]; 6] = [&[1], &[1], &[1, 2], &[1, 2, 3], &[1, 2, 3], &[1, 2, 3]];
    assert_eq!(at, expected.map(|replicas| Some(voters(replicas))));
    log.try_append(position(2, 1), &entries(3, &[2])).expect("it matches");
    assert_eq!((log.membership(), log.membership_index()), (&voters(&[1, 2]), LogIndex(2)));
    log.try_append(position(1, 1), &[membership_entry(2, 3, &[4])]).expect("it matches");
    assert_eq!((log.membership(), log.membership_index()), (&voters(&[4]), LogIndex(2)));
    log.try_append(position(0, 0), &entries(1, &[4])).expect("it matches");
    assert_eq!((log.membership(), log.membership_index()), (&voters(&[1]), LogIndex(0)));
}

#[test]
fn a_membership_survives_the_compaction_of_its_entry() {
    let mut log = log(&[1]);
    log.append(membership_entry(2, 1, &[1, 2]));
    log.append(entry(3, 1));
    log.append(membership_entry(4, 1, &[1, 2, 3]));
    let begins = log.start_at(LogIndex(3)).expect("held");
    log.stable_to(position(4, 1));
    log.commit_to(LogIndex(4));
    log.compact(LogIndex(3));
    let expected = LogStart {
        position: position(3, 1),
        membership: voters(&[1, 2]),
        membership_index: LogIndex(2),
    };
    assert_eq!((begins, log.start_at(LogIndex(3))), (expected.clone(), Some(expected)));
    assert_eq!((log.membership_at(LogIndex(2)), log.start_at(LogIndex(2))), (None, None));
    assert_eq!(log.membership_at(LogIndex(3)), Some(&voters(&[1, 2])));
    assert_eq!((log.membership(), log.membership_index()), (&voters(&[1, 2, 3]), LogIndex(4)));
}

#[test]
fn only_a_write_of_what_the_log_still_holds_makes_it_stable() {
    let mut log = log(&[1]);
    for index in 2..5 {
        log.append(entry(index, 1));
    }
    log.stable_to(position(3, 1));
    assert_eq!((log.stable(), log.unstable()), (LogIndex(3), &entries(4, &[1])[..]));
    log.stable_to(position(2, 1));
    assert_eq!(log.stable(), LogIndex(3), "an older write takes nothing back");
    log.try_append(position(1, 1), &entries(2, &[2, 2, 2])).expect("it matches");
    assert_eq!((log.stable(), log.unstable()), (LogIndex(1), &entries(2, &[2, 2, 2])[..]));
    log.stable_to(position(4, 1));
    assert_eq!(log.stable(), LogIndex(1), "the write was of entries that are gone");
    log.stable_to(position(9, 2));
    assert_eq!(log.stable(), LogIndex(1), "nothing stands there");
    log.stable_to(position(4, 2));
    assert_eq!((log.stable(), log.unstable().len()), (LogIndex(4), 0));
}

#[test]
fn commit_reaches_no_further_than_the_log_and_never_falls() {
    let mut log = log(&[1, 1, 1]);
    assert_eq!(log.committed(), LogIndex(0));
    assert!(log.commit_to(LogIndex(2)) && !log.commit_to(LogIndex(1)));
    assert_eq!(log.committed(), LogIndex(2));
    assert!(log.commit_to(LogIndex(9)) && !log.commit_to(LogIndex(3)));
    assert_eq!(log.committed(), LogIndex(3));
}

#[test]
fn a_slice_costs_what_is_allowed_but_holds_one_entry_at_least() {
    let log = Log::new(start(2, 1), entries(3, &[1, 1, 1]));
    let each = entry(3, 1).cost_bytes();
    let count = |from, bytes| log.slice(LogIndex(from), bytes).map(|entries| entries.len());
    assert_eq!(
        (count(3, 2 * each), count(3, 2 * each - 1), count(3, 0)),
        (Some(2), Some(1), Some(1))
    );
    assert_eq!((count(4, usize::MAX), count(6, 100), count(9, 100)), (Some(2), Some(0), Some(0)));
    assert_eq!((count(2, 100), count(0, 100)), (None, None));
    assert_eq!(log.slice(LogIndex(4), each), Some(entries(4, &[1])));
}

#[test]
fn entries_by_their_indices() {
    let log = Log::new(start(2, 1), entries(3, &[1, 1, 1]));
    let between = |from, through| log.entries_between(LogIndex(from), LogIndex(through));
    assert_eq!(between(3, 4), entries(3, &[1, 1]));
    assert_eq!(between(5, 9), entries(5, &[1]));
    assert_eq!((between(4, 3), between(7, 9)), (&[][..], &[][..]));
    assert_eq!(log.entries_from(LogIndex(1)).len(), 3);
}

#[test]
fn compaction_keeps_what_is_not_committed_and_durable() {
    // Section 5.1.
    let mut log = log(&[1, 1, 1, 2]);
    log.append(entry(5, 2));
    log.compact(LogIndex(9));
    assert_eq!(log.start(), position(0, 0), "nothing is committed");
    log.commit_to(LogIndex(3));
    log.compact(LogIndex(2));
    assert_eq!((log.start(), terms(&log)), (position(2, 1), vec![1, 2, 2]));
    log.compact(LogIndex(1));
    assert_eq!(log.start(), position(2, 1), "compacted already");
    log.compact(LogIndex(9));
    assert_eq!((log.start(), terms(&log)), (position(3, 1), vec![2, 2]));
    log.commit_to(LogIndex(5));
    log.compact(LogIndex(9));
    assert_eq!((log.start(), terms(&log)), (position(4, 2), vec![2]), "5 is not durable");
    assert_eq!(log.bytes(), entry(5, 2).cost_bytes());
}

#[test]
fn a_snapshot_takes_the_place_of_a_log_that_lacks_its_last_entry() {
    // Section 5.1. Behind the log's end, and in place of entries of another term.
    for (index, term) in [(9, 4), (3, 4)] {
        let mut log = log(&[1, 1, 1, 2]);
        log.append(membership_entry(5, 2, &[1, 2]));
        log.reset(start(index, term));
        assert_eq!((log.start(), log.last()), (position(index, term), position(index, term)));
        assert_eq!((log.stable(), log.committed()), (LogIndex(index), LogIndex(index)));
        assert_eq!((log.membership(), log.bytes()), (&voters(&[1]), 0));
        log.append(entry(index + 1, term));
        assert_eq!(log.unstable(), entries(index + 1, &[term]));
    }
}

#[test]
fn entries_behind_a_snapshot_that_the_log_matches_stay() {
    // Section 5.1: they may have been acknowledged before a delayed snapshot arrived.
    let mut log = log(&[1, 1]);
    (3..6).for_each(|index| log.append(entry(index, 1)));
    log.reset(start(3, 1));
    assert_eq!((log.start(), terms(&log)), (position(3, 1), vec![1, 1]));
    assert_eq!((log.stable(), log.committed()), (LogIndex(3), LogIndex(3)));
    log.reset(start(2, 1));
    assert_eq!(log.start(), position(3, 1), "an older snapshot changes nothing");
}
