//! What a leader appends, sends, commits and gives up (Ongaro 2014, sections 3.5, 3.6.2, 6.2).

use super::*;
use crate::protocol::raft::ProposeError;
use crate::protocol::raft::progress::State as Sending;

fn propose(raft: &mut Raft, command: &'static str) -> LogPosition {
    raft.propose(Bytes::from_static(command.as_bytes())).unwrap()
}

/// Appends among messages: to whom, behind which index, and how many entries.
fn appends(messages: &[Message]) -> Vec<(u64, u64, usize)> {
    let appends = messages.iter().filter_map(|message| match &message.body {
        Body::Append(append) => Some((message.to.0, append.previous.index.0, append.entries.len())),
        _ => None,
    });
    appends.collect()
}

fn commits(messages: &[Message]) -> Vec<(u64, u64)> {
    let heartbeats = messages.iter().filter_map(|message| match &message.body {
        Body::Heartbeat(heartbeat) => Some((message.to.0, heartbeat.commit.0)),
        _ => None,
    });
    heartbeats.collect()
}

/// The replica as leader, with its own term's first entry (the second of the log) committed.
fn established(terms: &[u64]) -> (Raft, u64) {
    let mut raft = replica(terms);
    let term = lead(&mut raft);
    let last = raft.log().last_index().0;
    tell(&mut raft, 2, term, matches(last));
    assert_eq!(raft.commit(), LogIndex(last));
    (raft, term)
}

#[test]
fn a_new_leader_appends_an_entry_of_its_term_and_probes_with_it() {
    let mut raft = replica(&[1, 1]);
    raft.tick(raft.deadline());
    tell(&mut raft, 2, 2, Body::VoteReply { pre_vote: true, granted: true });
    let sent = tell(&mut raft, 2, 2, Body::VoteReply { pre_vote: false, granted: true });
    let last = raft.log().entry(LogIndex(3)).unwrap();
    assert_eq!((last.term, &last.payload), (Term(2), &Payload::Empty));
    assert_eq!(appends(&sent), [(2, 2, 1), (3, 2, 1)]);
}

#[test]
fn a_majority_commits_and_a_learner_does_not_count() {
    let state = restored(membership(&[1, 2, 3], &[4]), &[1]);
    let mut raft = Raft::new(id(1), options(), state, 7, 0);
    let term = lead(&mut raft);
    let last = raft.log().last_index();
    tell(&mut raft, 4, term, matches(last.0));
    tell(&mut raft, 9, term, matches(last.0));
    assert_eq!(raft.commit(), LogIndex(0));
    tell(&mut raft, 3, term, matches(last.0));
    assert_eq!(raft.commit(), last);
}

/// Figure 3.7: entries of an earlier term on a majority may still be replaced; they are committed
/// together with one of the leader's own.
#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    let mut raft = replica(&[1, 2]);
    let term = lead(&mut raft);
    assert_eq!((term, raft.log().last_index()), (3, LogIndex(3)));
    tell(&mut raft, 2, term, matches(2));
    tell(&mut raft, 3, term, matches(2));
    assert_eq!(raft.commit(), LogIndex(0));
    tell(&mut raft, 3, term, matches(3));
    assert_eq!(raft.commit(), LogIndex(3));
}

#[test]
fn repeated_and_reordered_replies_change_nothing() {
    let (mut raft, term) = established(&[1]);
    for n in 3..=5 {
        assert_eq!(propose(&mut raft, "x").index, LogIndex(n));
        settle(&mut raft);
    }
    for (body, commit) in [
        (matches(4), 4),
        (matches(3), 4),
        (matches(4), 4),
        // Rejections from before: what is known to match stays so.
        (rejected(1, at(0, 0)), 4),
        (rejected(4, at(2, 1)), 4),
        (matches(5), 5),
        // Beyond the log: nonsense, and no more than the log is taken from it.
        (matches(99), 5),
    ] {
        tell(&mut raft, 2, term, body);
        assert_eq!(raft.commit(), LogIndex(commit));
        let view = raft.status().progress[&id(2)];
        assert!(view.matched >= LogIndex(4) && view.next > view.matched);
    }
}

#[test]
fn what_has_gathered_travels_together_within_the_limits() {
    let (mut raft, term) = established(&[1]);
    for command in ["a", "b", "c", "d", "e", "f", "g"] {
        propose(&mut raft, command);
    }
    // 33 bytes each, 200 at most in one append; replica 3 has not answered its probe.
    assert_eq!(appends(&settle(&mut raft)), [(2, 2, 6), (2, 8, 1)]);
    assert_eq!(raft.status().progress[&id(2)].appends_in_flight, 2);
    let caught_up = tell(&mut raft, 3, term, rejected(1, at(0, 0)));
    assert_eq!(appends(&caught_up), [(3, 0, 6)]);
    let more = tell(&mut raft, 3, term, matches(6));
    assert_eq!(appends(&more), [(3, 6, 3)]);
}

#[test]
fn no_more_appends_are_under_way_than_the_window_allows() {
    let (mut raft, term) = established(&[1]);
    for n in 0..6 {
        propose(&mut raft, "x");
        let sent = appends(&settle(&mut raft)).len();
        assert_eq!(sent, usize::from(n < 4), "{n}");
    }
    // The window opens with the first answer, and what has gathered goes at once.
    assert_eq!(appends(&tell(&mut raft, 2, term, matches(3))), [(2, 6, 2)]);
}

#[test]
fn a_follower_that_lacks_entries_is_found_by_whole_terms() {
    let mut raft = replica(&[1, 1, 4, 4, 5, 5]);
    let term = lead(&mut raft);
    // Its log is 1 1 2 2 2 2: no entry of its term 2 can be the leader's.
    let probe = tell(&mut raft, 2, term, rejected(6, at(6, 2)));
    assert_eq!(appends(&probe), [(2, 2, 5)]);
    tell(&mut raft, 2, term, matches(7));
    assert_eq!(raft.status().progress[&id(2)].state, Sending::Replicate);
}

#[test]
fn heartbeats_commit_no_further_than_a_replica_is_known_to_match() {
    let (mut raft, _) = established(&[1]);
    raft.tick(raft.deadline());
    let sent = settle(&mut raft);
    assert_eq!(commits(&sent), [(2, 2), (3, 0)]);
}

#[test]
fn lost_appends_and_probes_are_sent_again() {
    let (mut raft, term) = established(&[1]);
    propose(&mut raft, "lost");
    assert_eq!(appends(&settle(&mut raft)), [(2, 2, 1)]);
    let mut sent = Vec::new();
    for _ in 0..2 {
        raft.tick(raft.deadline());
        let round = settle(&mut raft).iter().find_map(|message| match message.body {
            Body::Heartbeat(heartbeat) => Some(heartbeat.round),
            _ => None,
        });
        for from in [2, 3] {
            let last = LogIndex(if from == 2 { 2 } else { 1 });
            let body = Body::HeartbeatReply { round: round.unwrap(), last };
            sent.push(appends(&tell(&mut raft, from, term, body)));
        }
    }
    // Replica 3's probe at once; replica 2's append once it is surely missing.
    assert_eq!(sent, [vec![], vec![(3, 1, 2)], vec![(2, 2, 1)], vec![(3, 1, 2)]]);
}

#[test]
fn a_broken_stream_is_probed_from_what_is_known() {
    let (mut raft, term) = established(&[1]);
    propose(&mut raft, "lost");
    settle(&mut raft);
    raft.on_unreachable(id(2));
    raft.on_unreachable(id(9));
    propose(&mut raft, "next");
    assert_eq!(appends(&settle(&mut raft)), [(2, 2, 2)]);
    tell(&mut raft, 2, term, matches(4));
    assert_eq!(raft.commit(), LogIndex(4));
}

#[test]
fn a_leader_without_a_quorum_gives_up_in_its_term() {
    let (mut raft, term) = established(&[1]);
    raft.read_index(5).unwrap();
    while raft.is_leader() {
        assert!(raft.now <= 3 * ELECTION, "it leads on without a quorum");
        raft.tick(raft.deadline());
        let ready = raft.ready();
        assert!(raft.is_leader() || ready.reads_lost == [5]);
    }
    assert_eq!((raft.term(), raft.leader()), (Term(term), None));
    assert!(raft.deadline() >= raft.now + ELECTION);
}

#[test]
fn a_leader_that_one_other_of_three_answers_stays() {
    let (mut raft, term) = established(&[1]);
    for _ in 0..5 * ELECTION {
        raft.tick(raft.deadline());
        settle(&mut raft);
        tell(&mut raft, 3, term, Body::HeartbeatReply { round: 0, last: LogIndex(0) });
    }
    assert!(raft.is_leader());
}

#[test]
fn proposals_need_a_leader_with_room() {
    let mut raft = replica(&[1]);
    let command = Bytes::from(vec![0; 6_000]);
    let refused = ProposeError::NotLeader { leader: None };
    assert_eq!(raft.propose(command.clone()), Err(refused));
    tell(&mut raft, 3, 1, heartbeat(1, 0));
    let refused = ProposeError::NotLeader { leader: Some(id(3)) };
    assert_eq!(raft.propose(command.clone()), Err(refused));

    raft.now = 100;
    let (mut raft, term) = established(&[1]);
    assert!(raft.propose(command.clone()).is_ok());
    let (bytes, bytes_max) = (6_032, 10_000);
    let refused = ProposeError::TooMuchUncommitted { bytes, bytes_max };
    assert_eq!(raft.propose(command.clone()), Err(refused));
    settle(&mut raft);
    tell(&mut raft, 2, term, matches(3));
    assert!(raft.propose(command).is_ok());
}

#[test]
fn one_command_beyond_the_limit_is_taken_alone() {
    let (mut raft, _) = established(&[1]);
    assert!(raft.propose(Bytes::from(vec![0; 20_000])).is_ok());
    assert!(raft.propose(Bytes::new()).is_err());
}

#[test]
fn a_leader_may_commit_before_its_own_disk_has_the_entry() {
    let (mut raft, term) = established(&[1]);
    propose(&mut raft, "x");
    let ready = raft.ready();
    assert_eq!((appends(&ready.messages), ready.write.is_some()), (vec![(2, 2, 1)], true));
    // The two followers are a quorum; but what this replica applies must be durable here.
    for from in [2, 3] {
        raft.step(Message { from: id(from), to: id(1), term: Term(term), body: matches(3) });
    }
    assert_eq!((raft.commit(), raft.ready().committed), (LogIndex(3), vec![]));
    raft.advance();
    let committed = raft.ready().committed;
    assert_eq!(committed.iter().map(|entry| entry.index.0).collect::<Vec<_>>(), [3]);
}
