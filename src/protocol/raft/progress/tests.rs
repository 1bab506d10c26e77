use super::*;

const NOW: u64 = 10;

fn at(index: u64) -> LogIndex {
    LogIndex(index)
}

/// A replica that is known to match through `matched`, with a window of two appends.
fn replicating(matched: u64) -> Progress {
    let mut progress = Progress::new(at(matched + 1), 2, NOW);
    progress.on_matched(at(matched), 0);
    assert_eq!(progress.state(), State::Replicate);
    progress
}

/// The same, with an append in flight up to each of `sent`.
fn in_flight(matched: u64, sent: &[u64]) -> Progress {
    let mut progress = replicating(matched);
    sent.iter().for_each(|&last| progress.on_sent(at(last)));
    progress
}

fn probing(matched: u64, next: u64) -> Progress {
    let mut progress = replicating(matched);
    progress.on_unreachable();
    progress.next = at(next);
    progress.on_sent(at(next - 1));
    progress
}

const SENT: State = State::Probe { sent: true };
const UNSENT: State = State::Probe { sent: false };

fn shown(progress: &Progress) -> (u64, u64, State, usize) {
    let Progress { matched, next, state, .. } = progress;
    (matched.0, next.0, *state, progress.appends_in_flight())
}

#[test]
fn a_new_replica_is_probed_behind_the_leaders_log_with_one_append_at_a_time() {
    // Section 3.5.
    let mut progress = Progress::new(at(8), 2, NOW);
    assert_eq!(shown(&progress), (0, 8, UNSENT, 0));
    assert!(progress.may_send());
    progress.on_sent(at(9));
    assert_eq!(shown(&progress), (0, 8, SENT, 0));
    assert!(!progress.may_send());
    assert_eq!(Progress::new(at(0), 2, NOW).next(), at(1), "nothing stands before the first entry");
}

#[test]
fn a_probe_that_matches_begins_the_pipeline() {
    let mut progress = probing(0, 8);
    assert!(progress.on_matched(at(9), 0));
    assert_eq!(shown(&progress), (9, 10, State::Replicate, 0));
    let mut fresh = probing(0, 1);
    assert!(!fresh.on_matched(at(0), 0), "an empty log matches before its first entry");
    assert_eq!(shown(&fresh), (0, 1, State::Replicate, 0));
}

#[test]
fn an_old_acknowledgement_does_not_end_a_probe() {
    let mut progress = probing(5, 6);
    assert!(!progress.on_matched(at(4), 0));
    assert_eq!(shown(&progress), (5, 6, SENT, 0));
    assert!(!progress.on_matched(at(5), 0));
    assert_eq!(shown(&progress), (5, 6, State::Replicate, 0));
}

#[test]
fn the_pipeline_sends_on_until_its_window_is_full() {
    // Section 10.2.2.
    let mut progress = replicating(5);
    progress.on_sent(at(7));
    assert_eq!(shown(&progress), (5, 8, State::Replicate, 1));
    assert!(progress.may_send());
    progress.on_sent(at(9));
    assert_eq!(shown(&progress), (5, 10, State::Replicate, 2));
    assert!(!progress.may_send());
    assert!(progress.on_matched(at(7), 0));
    assert_eq!(shown(&progress), (7, 10, State::Replicate, 1));
    assert!(progress.may_send());
}

#[test]
fn an_append_without_entries_takes_no_place_in_the_window() {
    assert_eq!(shown(&in_flight(5, &[5])), (5, 6, State::Replicate, 0));
}

#[test]
fn acknowledgements_may_be_repeated_overtaken_and_within_an_append() {
    let mut progress = in_flight(5, &[7, 9]);
    assert!(progress.on_matched(at(8), 0), "8 confirms the first append whole");
    assert_eq!(shown(&progress), (8, 10, State::Replicate, 1));
    assert!(!progress.on_matched(at(7), 0));
    assert!(!progress.on_matched(at(8), 0));
    assert_eq!(shown(&progress), (8, 10, State::Replicate, 1));
    assert!(progress.on_matched(at(9), 0));
    assert_eq!(shown(&progress), (9, 10, State::Replicate, 0));
}

#[test]
fn a_rejected_probe_goes_on_at_the_guess() {
    // Section 3.5. Matched and next, the rejected index and the guess, and next then.
    let cases = [
        ((0, 8), (7, 4), Some(4)),
        ((0, 8), (7, 9), Some(7)),
        ((0, 8), (7, 0), Some(1)),
        ((5, 8), (7, 2), Some(6)),
        ((0, 8), (6, 3), None),
        ((0, 8), (8, 3), None),
        ((5, 6), (5, 3), None),
    ];
    for ((matched, next), (previous, guess), expected) in cases {
        let mut progress = probing(matched, next);
        assert_eq!(progress.on_rejected(at(previous), at(guess)), expected.is_some());
        let (next, state) = expected.map_or((next, SENT), |next| (next, UNSENT));
        assert_eq!(shown(&progress), (matched, next, state, 0), "{previous} {guess}");
    }
}

#[test]
fn a_rejection_ends_the_pipeline_unless_it_is_old() {
    let cases = [
        ((7, 7), Some(7)),
        ((9, 7), Some(7)),
        ((7, 3), Some(6)),
        ((5, 3), None),
        ((4, 3), None),
        ((10, 7), None),
    ];
    for ((previous, guess), expected) in cases {
        let mut progress = in_flight(5, &[7, 9]);
        assert_eq!(progress.on_rejected(at(previous), at(guess)), expected.is_some());
        let expected = match expected {
            Some(next) => (5, next, UNSENT, 0),
            None => (5, 10, State::Replicate, 2),
        };
        assert_eq!(shown(&progress), expected, "{previous} {guess}");
    }
}

#[test]
fn every_rejection_of_a_pipeline_but_the_first_is_old() {
    let mut progress = in_flight(5, &[7, 9]);
    assert!(progress.on_rejected(at(7), at(6)));
    progress.on_sent(at(9));
    assert!(!progress.on_rejected(at(9), at(6)));
    assert_eq!(shown(&progress), (5, 6, SENT, 0));
}

#[test]
fn an_answered_heartbeat_repeats_a_probe() {
    let mut progress = probing(5, 8);
    progress.on_heartbeat_reply(0, at(9));
    assert_eq!(shown(&progress), (5, 8, UNSENT, 0));
}

#[test]
fn an_append_that_outlives_two_answered_heartbeats_is_given_up() {
    // The follower's last index, and where the leader probes: not below what is matched, not
    // beyond what was sent.
    for (last, next) in [(5, 6), (7, 8), (20, 10), (3, 6)] {
        let mut progress = in_flight(5, &[7, 9]);
        progress.on_heartbeat_reply(0, at(last));
        assert_eq!(shown(&progress), (5, 10, State::Replicate, 2));
        progress.on_heartbeat_reply(0, at(last));
        assert_eq!(shown(&progress), (5, next, UNSENT, 0), "the log ends at {last}");
    }
}

#[test]
fn a_pipeline_that_moves_is_not_given_up() {
    let mut progress = in_flight(5, &[7, 9]);
    progress.on_heartbeat_reply(0, at(7));
    progress.on_matched(at(7), 0);
    progress.on_heartbeat_reply(0, at(9));
    progress.on_matched(at(9), 0);
    progress.on_heartbeat_reply(0, at(9));
    progress.on_heartbeat_reply(0, at(9));
    assert_eq!(shown(&progress), (9, 10, State::Replicate, 0));
}

#[test]
fn an_append_that_is_sent_again_has_all_its_time_again() {
    let mut progress = in_flight(5, &[7]);
    progress.on_heartbeat_reply(0, at(5));
    progress.on_unreachable();
    progress.on_matched(at(5), 0);
    progress.on_sent(at(7));
    progress.on_heartbeat_reply(0, at(5));
    assert_eq!(shown(&progress), (5, 8, State::Replicate, 1));
}

#[test]
fn a_broken_stream_ends_the_pipeline() {
    let mut progress = in_flight(5, &[7, 9]);
    progress.on_unreachable();
    assert_eq!(shown(&progress), (5, 6, UNSENT, 0));
    let mut probed = probing(5, 8);
    probed.on_unreachable();
    assert_eq!(shown(&probed), (5, 8, SENT, 0), "the next answered heartbeat repeats the probe");
}

#[test]
fn nothing_is_appended_while_a_snapshot_is_under_way() {
    // Section 5.1.
    let mut progress = in_flight(5, &[7]);
    let snapshot = State::Snapshot { through: at(20) };
    progress.begin_snapshot(at(20));
    assert_eq!(shown(&progress), (5, 6, snapshot, 0));
    assert!(!progress.may_send());
    progress.on_sent(at(9));
    progress.on_heartbeat_reply(0, at(5));
    progress.on_unreachable();
    assert!(!progress.on_rejected(at(7), at(6)));
    assert_eq!(shown(&progress), (5, 6, snapshot, 0));
    assert!(progress.on_matched(at(7), 0), "an append that was in flight");
    assert_eq!(shown(&progress), (7, 8, snapshot, 0));
    assert!(progress.on_matched(at(20), 0), "the snapshot is no longer needed");
    assert_eq!(shown(&progress), (20, 21, State::Replicate, 0));
}

#[test]
fn appends_go_on_behind_a_snapshot() {
    for (through, next, state) in [(Some(20), 21, UNSENT), (Some(3), 6, UNSENT), (None, 21, SENT)] {
        let mut progress = replicating(5);
        progress.begin_snapshot(at(20));
        progress.end_snapshot(through.map(at));
        assert_eq!(shown(&progress), (5, next, state, 0), "{through:?}");
    }
    let mut other = in_flight(5, &[7]);
    other.end_snapshot(Some(at(20)));
    assert_eq!(shown(&other), (5, 8, State::Replicate, 1), "a report of an earlier snapshot");
}

#[test]
fn a_failed_snapshot_is_tried_again_once_the_replica_answers() {
    let mut progress = replicating(5);
    progress.begin_snapshot(at(20));
    progress.end_snapshot(None);
    assert!(!progress.may_send());
    progress.on_heartbeat_reply(0, at(5));
    assert!(progress.may_send());
}

#[test]
fn contact_and_rounds_never_go_back() {
    let mut progress = Progress::new(at(1), 2, NOW);
    assert_eq!((progress.recent_tick(), progress.round(), progress.round_tick()), (NOW, 0, None));
    progress.on_heard(NOW + 5);
    progress.on_heard(NOW + 3);
    progress.on_round(7, NOW + 4);
    progress.on_round(6, NOW + 2);
    assert_eq!(progress.recent_tick(), NOW + 5);
    assert_eq!((progress.round(), progress.round_tick()), (7, Some(NOW + 4)));
}

/// Its disk was put back to an earlier state: it acknowledged 7, and says in a later round that it
/// ends at 4.
#[test]
fn what_a_replica_has_lost_counts_no_more_and_is_sent_anew() {
    let mut progress = replicating(5);
    assert!(progress.on_matched(at(7), 3));
    progress.on_heartbeat_reply(3, at(4));
    assert_eq!(progress.matched(), at(7), "it may have said so before it had acknowledged 7");
    progress.on_heartbeat_reply(4, at(4));
    assert_eq!((progress.matched(), progress.next()), (at(0), at(5)));
    assert!(progress.may_send());
    assert!(progress.on_matched(at(9), 4));
    assert_eq!(progress.matched(), at(9));
}
