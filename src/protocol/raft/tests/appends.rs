//! What a follower makes of appends and heartbeats (Ongaro 2014, sections 3.3 and 3.5).

use super::*;

fn only_reply(messages: &[Message]) -> &Body {
    assert_eq!(messages.len(), 1, "{messages:?}");
    &messages[0].body
}

fn terms(raft: &Raft) -> Vec<u64> {
    raft.log().entries_from(LogIndex(1)).iter().map(|entry| entry.term.0).collect()
}

#[test]
fn an_append_is_taken_where_the_logs_meet() {
    // Own log, what the append follows, its entries; the answer, and the log after it.
    type Case<'a> = (&'a [u64], LogPosition, Vec<Entry>, Body, &'a [u64]);
    let cases: [Case<'_>; 11] = [
        (&[], at(0, 0), vec![entry(1, 3)], matches(1), &[3]),
        (&[1, 1], at(2, 1), vec![entry(3, 3)], matches(3), &[1, 1, 3]),
        (&[1, 1], at(2, 1), vec![], matches(2), &[1, 1]),
        // A gap, another term there, and a term that is skipped as a whole.
        (&[1, 1], at(3, 1), vec![entry(4, 3)], rejected(3, at(2, 1)), &[1, 1]),
        (&[1, 1], at(2, 2), vec![entry(3, 3)], rejected(2, at(2, 1)), &[1, 1]),
        (&[1, 2, 2, 2], at(4, 1), vec![], rejected(4, at(1, 1)), &[1, 2, 2, 2]),
        // Conflicts go, together with all behind them.
        (&[1, 2, 2], at(1, 1), vec![entry(2, 3)], matches(2), &[1, 3]),
        (&[1, 2, 2], at(1, 1), vec![entry(2, 2), entry(3, 3)], matches(3), &[1, 2, 3]),
        // What is there stays, and so does what lies behind an old message.
        (&[1, 2, 2], at(1, 1), vec![entry(2, 2)], matches(2), &[1, 2, 2]),
        (&[1, 2, 2], at(0, 0), vec![entry(1, 1)], matches(1), &[1, 2, 2]),
        (&[1, 2, 2], at(1, 1), vec![], matches(1), &[1, 2, 2]),
    ];
    for (own, previous, entries, reply, after) in cases {
        let mut raft = replica(own);
        let case = format!("{own:?} {previous:?} {entries:?}");
        let body = append(previous, entries, 0);
        for _ in 0..2 {
            // A repeat has the same answer, except that a refused one stays refused.
            let replies = tell(&mut raft, 2, 3, body.clone());
            assert_eq!(only_reply(&replies), &reply, "{case}");
            assert_eq!(terms(&raft), after, "{case}");
        }
        assert_eq!((raft.leader(), raft.term()), (Some(id(2)), Term(3)), "{case}");
    }
}

#[test]
fn an_old_append_that_arrives_late_takes_nothing_away() {
    let mut raft = replica(&[1]);
    let newer = append(at(1, 1), vec![entry(2, 1), entry(3, 1)], 0);
    let older = append(at(1, 1), vec![entry(2, 1)], 0);
    assert_eq!(only_reply(&tell(&mut raft, 2, 1, newer)), &matches(3));
    assert_eq!(only_reply(&tell(&mut raft, 2, 1, older)), &matches(2));
    assert_eq!(terms(&raft), [1, 1, 1]);
}

#[test]
fn a_follower_commits_no_further_than_its_log_is_known_to_match() {
    // Own log, the append behind (1, 1), the leader's commit index; what is committed then.
    let cases: [(&[u64], Vec<Entry>, u64, u64); 4] = [
        (&[1], vec![entry(2, 2)], 1, 1),
        (&[1], vec![entry(2, 2)], 9, 2),
        (&[1, 1, 1], vec![], 3, 1),
        (&[1, 1, 1], vec![entry(2, 1)], 3, 2),
    ];
    for (own, entries, commit, expected) in cases {
        let mut raft = replica(own);
        tell(&mut raft, 2, 2, append(at(1, 1), entries, commit));
        assert_eq!(raft.commit(), LogIndex(expected), "{own:?} {commit}");
    }
}

#[test]
fn a_heartbeat_commits_what_it_says_and_no_less_than_before() {
    let mut raft = replica(&[1, 1, 1]);
    for (commit, expected) in [(2, 2), (1, 2), (3, 3), (9, 3)] {
        let replies = tell(&mut raft, 2, 1, heartbeat(4, commit));
        assert_eq!(raft.commit(), LogIndex(expected));
        let expected = Body::HeartbeatReply { round: 4, last: LogIndex(3) };
        assert_eq!(only_reply(&replies), &expected);
    }
}

#[test]
fn a_leader_of_an_earlier_term_is_told_so_and_not_obeyed() {
    for body in [append(at(1, 1), vec![entry(2, 1)], 1), heartbeat(8, 1)] {
        let mut raft = replica(&[1]);
        tell(&mut raft, 3, 5, vote(at(9, 9)));
        let replies = tell(&mut raft, 2, 4, body);
        assert_eq!(replies[0].term, Term(5));
        // Round 0: the sender may come to lead in term 5, and must not take this for its own.
        assert_eq!(only_reply(&replies), &Body::HeartbeatReply { round: 0, last: LogIndex(1) });
        assert_eq!((raft.commit(), raft.leader(), terms(&raft)), (LogIndex(0), None, vec![1]));
    }
    let mut raft = replica(&[1, 5]);
    for body in [matches(2), TIMEOUT_NOW, rejected(1, at(0, 0))] {
        assert!(tell(&mut raft, 2, 4, body).is_empty());
    }
}

#[test]
fn a_later_term_is_taken_over_from_any_message() {
    let replies = [matches(1), Body::HeartbeatReply { round: 0, last: LogIndex(0) }];
    for body in replies.into_iter().chain([append(at(0, 0), vec![], 0), heartbeat(1, 0)]) {
        let mut raft = replica(&[1]);
        let term = lead(&mut raft);
        tell(&mut raft, 9, term + 3, body);
        assert_eq!((raft.term(), raft.is_leader()), (Term(term + 3), false));
    }
}

#[test]
fn what_is_for_another_replica_is_ignored() {
    let mut raft = replica(&[1]);
    let body = append(at(1, 1), vec![entry(2, 9)], 0);
    raft.step(Message { from: id(2), to: id(9), term: Term(9), body });
    assert!(!raft.has_ready());
    assert_eq!(raft.term(), Term(1));
}

#[test]
fn committed_entries_are_handed_out_once_and_in_order() {
    let mut raft = replica(&[1, 1, 1]);
    let mut seen = Vec::new();
    for commit in [1, 1, 3, 2] {
        raft.step(Message { from: id(2), to: id(1), term: Term(1), body: heartbeat(1, commit) });
        seen.extend(raft.ready().committed.iter().map(|entry| entry.index.0));
    }
    assert_eq!((seen, raft.applied()), (vec![1, 2, 3], LogIndex(3)));
}

#[test]
fn a_membership_is_in_force_once_appended_and_falls_back_with_its_entry() {
    let mut raft = replica(&[1]);
    let payload = Payload::Membership(membership(&[1, 2, 3, 4], &[]));
    let change = Entry { term: Term(1), index: LogIndex(2), payload };
    tell(&mut raft, 2, 1, append(at(1, 1), vec![change], 0));
    assert_eq!(raft.log().membership(), &membership(&[1, 2, 3, 4], &[]));
    tell(&mut raft, 3, 2, append(at(1, 1), vec![entry(2, 2)], 0));
    assert_eq!(raft.log().membership(), &membership(&[1, 2, 3], &[]));
}
