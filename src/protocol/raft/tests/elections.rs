//! Who may vote for whom, who stands, and who wins (Ongaro 2014, sections 3.4, 3.6.1, 4.2, 9.6).

use super::*;
use crate::protocol::raft::Role;

fn asks(pre_vote: bool, transfer: bool) -> Body {
    Body::Vote(Vote { last: at(9, 9), pre_vote, transfer })
}

fn with(membership: Membership, terms: &[u64]) -> Raft {
    Raft::new(id(1), options(), restored(membership, terms), 7, 0)
}

#[test]
fn a_vote_goes_to_a_log_that_is_up_to_date_once_per_term() {
    // Own log, own vote in term 5, the candidate's term and last entry; whether it is granted.
    type Case<'a> = (&'a [u64], Option<u64>, u64, LogPosition, bool);
    let cases: [Case<'_>; 12] = [
        (&[], None, 5, at(0, 0), true),
        (&[1, 2], None, 5, at(2, 2), true),
        (&[1, 2], None, 5, at(3, 2), true),
        (&[1, 2], None, 5, at(1, 3), true),
        (&[1, 2], None, 5, at(1, 2), false),
        (&[1, 2], None, 5, at(9, 1), false),
        (&[1, 2], Some(2), 5, at(2, 2), true),
        (&[1, 2], Some(3), 5, at(9, 9), false),
        (&[1, 2], Some(3), 6, at(9, 9), true),
        (&[1, 2], Some(3), 6, at(9, 1), false),
        (&[1, 2], None, 4, at(9, 9), false),
        (&[1, 2], Some(2), 4, at(9, 9), false),
    ];
    for (terms, voted, term, last, expected) in cases {
        let mut state = restored(membership(&[1, 2, 3], &[]), terms);
        state.hard_state.term = Term(5);
        state.hard_state.voted_for = voted.map(id);
        let mut raft = Raft::new(id(1), options(), state, 7, 0);
        let replies = tell(&mut raft, 2, term, vote(last));
        let case = format!("{terms:?} {voted:?} {term} {last:?}");
        assert_eq!(granted(&replies), Some(expected), "{case}");
        assert_eq!(raft.term(), Term(term.max(5)), "{case}");
        assert_eq!(replies[0].term, raft.term(), "{case}");
    }
}

#[test]
fn a_second_candidate_gets_no_vote_in_the_same_term() {
    let mut raft = replica(&[1]);
    assert_eq!(granted(&tell(&mut raft, 2, 2, vote(at(1, 1)))), Some(true));
    assert_eq!(granted(&tell(&mut raft, 3, 2, vote(at(1, 1)))), Some(false));
    assert_eq!(granted(&tell(&mut raft, 2, 2, vote(at(1, 1)))), Some(true));
}

#[test]
fn a_pre_vote_changes_nothing() {
    // The asked term and last entry; whether it is granted, and the term of the answer.
    let cases = [
        (3, at(2, 2), true, 3),
        (9, at(2, 2), true, 9),
        (3, at(9, 1), false, 2),
        (2, at(9, 9), false, 2),
    ];
    for (term, last, expected, answered) in cases {
        let mut raft = replica(&[1, 2]);
        let (before, deadline) = (raft.term(), raft.deadline());
        let replies = tell(&mut raft, 2, term, pre_vote(last));
        assert_eq!((granted(&replies), replies[0].term), (Some(expected), Term(answered)));
        assert_eq!((raft.term(), raft.deadline()), (before, deadline));
        // It binds nobody.
        let other = tell(&mut raft, 3, 9, pre_vote(at(2, 2)));
        assert_eq!(granted(&other), Some(true));
    }
}

#[test]
fn who_has_heard_a_leader_lately_refuses_elections_but_a_transfer() {
    for (ticks, kind, transfer, answers) in [
        (ELECTION - 1, true, false, false),
        (ELECTION - 1, false, false, false),
        (ELECTION - 1, false, true, true),
        (ELECTION, true, false, true),
        (ELECTION, false, false, true),
    ] {
        let mut raft = replica(&[1]);
        tell(&mut raft, 3, 1, heartbeat(1, 0));
        raft.now = ticks;
        let replies = tell(&mut raft, 2, 2, asks(kind, transfer));
        assert_eq!(granted(&replies), answers.then_some(true), "{ticks} {kind} {transfer}");
        let voted = answers && !kind;
        assert_eq!(raft.term(), Term(if voted { 2 } else { 1 }), "{ticks} {kind} {transfer}");
    }
}

#[test]
fn a_leader_in_office_is_not_deposed_by_a_candidate() {
    let mut raft = replica(&[1]);
    let term = lead(&mut raft);
    for body in [asks(true, false), asks(false, false)] {
        assert!(tell(&mut raft, 3, term + 5, body).is_empty());
    }
    assert!(raft.is_leader());
    // A candidate that the leader itself sent forth is another matter.
    assert_eq!(granted(&tell(&mut raft, 3, term + 1, asks(false, true))), Some(true));
    assert!(!raft.is_leader());
}

#[test]
fn with_leases_a_restarted_replica_grants_nothing_for_an_election_timeout() {
    for (lease_reads, ticks, expected) in
        [(true, ELECTION - 1, None), (true, ELECTION, Some(true)), (false, 0, Some(true))]
    {
        let state = restored(membership(&[1, 2, 3], &[]), &[1]);
        let mut raft = Raft::new(id(1), Options { lease_reads, ..options() }, state, 7, 100);
        raft.now += ticks;
        assert_eq!(granted(&tell(&mut raft, 2, 2, asks(false, false))), expected);
    }
    // Nor does it elect itself: the leader that made it the sole voter may not have left yet.
    let state = restored(membership(&[1], &[]), &[1]);
    let raft = Raft::new(id(1), Options { lease_reads: true, ..options() }, state, 7, 100);
    assert_eq!(raft.deadline(), 100 + ELECTION);
}

#[test]
fn timeouts_are_drawn_from_one_to_two_election_timeouts() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let state = restored(membership(&[1, 2, 3], &[]), &[]);
        let raft = Raft::new(id(1), options(), state, seed, 1000);
        seen.insert(raft.deadline() - 1000);
    }
    assert_eq!(seen, (ELECTION..2 * ELECTION).collect());
}

#[test]
fn an_election_goes_through_a_pre_vote() {
    let mut raft = replica(&[1]);
    raft.tick(raft.deadline() - 1);
    assert!(settle(&mut raft).is_empty());
    raft.tick(raft.deadline());
    let asked = settle(&mut raft);
    assert_eq!(bodies(&asked), vec![&pre_vote(at(1, 1)); 2]);
    assert!(asked.iter().all(|message| message.term == Term(2)));
    assert_eq!((raft.role(), raft.term()), (Role::PreCandidate, Term(1)));

    let yes = |pre_vote| Body::VoteReply { pre_vote, granted: true };
    let asked = tell(&mut raft, 2, 2, yes(true));
    assert_eq!(bodies(&asked), vec![&vote(at(1, 1)); 2]);
    assert_eq!((raft.role(), raft.term()), (Role::Candidate, Term(2)));

    // A late answer to the pre-vote is no vote.
    tell(&mut raft, 3, 2, yes(true));
    assert_eq!(raft.role(), Role::Candidate);
    tell(&mut raft, 3, 2, yes(false));
    assert_eq!((raft.role(), raft.leader()), (Role::Leader, Some(id(1))));
}

#[test]
fn a_refused_pre_vote_leaves_the_term_alone_and_tells_of_a_later_one() {
    let no = Body::VoteReply { pre_vote: true, granted: false };
    let mut raft = replica(&[1]);
    raft.tick(raft.deadline());
    settle(&mut raft);
    tell(&mut raft, 2, 1, no.clone());
    assert_eq!(raft.role(), Role::PreCandidate);
    tell(&mut raft, 3, 1, no.clone());
    assert_eq!((raft.role(), raft.term()), (Role::Follower, Term(1)));

    raft.tick(raft.deadline());
    tell(&mut raft, 2, 7, no);
    assert_eq!((raft.role(), raft.term()), (Role::Follower, Term(7)));
}

#[test]
fn a_granted_vote_stays_granted_and_is_counted_once() {
    let mut raft = with(membership(&[1, 2, 3, 4, 5], &[]), &[1]);
    raft.tick(raft.deadline());
    settle(&mut raft);
    let reply = |pre_vote, granted| Body::VoteReply { pre_vote, granted };
    tell(&mut raft, 2, 2, reply(true, true));
    tell(&mut raft, 2, 2, reply(true, true));
    assert_eq!(raft.role(), Role::PreCandidate);
    tell(&mut raft, 3, 2, reply(true, true));
    for (from, granted) in [(2, true), (2, true), (2, false), (4, false), (9, true)] {
        tell(&mut raft, from, 2, reply(false, granted));
        assert_eq!(raft.role(), Role::Candidate);
    }
    tell(&mut raft, 5, 2, reply(false, true));
    assert_eq!(raft.role(), Role::Leader);
}

#[test]
fn a_candidate_that_hears_a_leader_of_its_term_follows() {
    let mut raft = replica(&[1]);
    raft.tick(raft.deadline());
    tell(&mut raft, 2, 2, Body::VoteReply { pre_vote: true, granted: true });
    assert_eq!(raft.role(), Role::Candidate);
    tell(&mut raft, 3, 2, heartbeat(1, 0));
    assert_eq!((raft.role(), raft.leader()), (Role::Follower, Some(id(3))));
}

#[test]
fn an_undecided_election_begins_again_with_a_pre_vote() {
    let mut raft = replica(&[1]);
    raft.tick(raft.deadline());
    tell(&mut raft, 2, 2, Body::VoteReply { pre_vote: true, granted: true });
    raft.tick(raft.deadline());
    assert_eq!((raft.role(), raft.term()), (Role::PreCandidate, Term(2)));
}

#[test]
fn a_sole_voter_elects_itself_once_its_vote_is_durable() {
    let mut raft = with(membership(&[1], &[2]), &[1]);
    assert_eq!(raft.deadline(), 1);
    raft.tick(1);
    let ready = raft.ready();
    let hard_state = ready.write.and_then(|write| write.hard_state).unwrap();
    assert_eq!((hard_state.term, hard_state.voted_for), (Term(2), Some(id(1))));
    assert_eq!((raft.role(), ready.messages), (Role::Candidate, vec![]));
    raft.advance();
    assert_eq!(raft.role(), Role::Leader);
    settle(&mut raft);
    assert_eq!(raft.commit(), LogIndex(2));
}

#[test]
fn only_voters_stand_for_election() {
    for others in [membership(&[2, 3], &[1]), membership(&[2, 3], &[])] {
        let mut raft = with(others, &[1]);
        assert_eq!(raft.deadline(), u64::MAX);
        raft.tick(1000);
        assert!(settle(&mut raft).is_empty());
        // Nor when it is asked to, and it forgets a leader that fell silent.
        tell(&mut raft, 2, 1, heartbeat(1, 0));
        assert!(tell(&mut raft, 2, 1, TIMEOUT_NOW).is_empty());
        raft.tick(raft.deadline());
        assert_eq!((raft.role(), raft.leader()), (Role::Follower, None));
    }
}

/// A removed voter with the longest log, without whose vote nobody can be elected.
#[test]
fn a_voter_whose_removal_is_not_committed_still_stands() {
    let removal = Entry {
        term: Term(1),
        index: LogIndex(2),
        payload: Payload::Membership(membership(&[2, 3], &[])),
    };
    let mut state = restored(membership(&[1, 2, 3], &[]), &[1]);
    state.entries.push(removal);
    let mut raft = Raft::new(id(1), options(), state.clone(), 7, 0);
    raft.tick(raft.deadline());
    for pre_vote in [true, false] {
        for from in [2, 3] {
            // Its own vote does not count.
            assert!(!raft.is_leader());
            tell(&mut raft, from, 2, Body::VoteReply { pre_vote, granted: true });
        }
    }
    // Nor does its log; that of both others does, and then its duty is done.
    let term = 2;
    tell(&mut raft, 2, term, matches(3));
    assert_eq!((raft.commit(), raft.is_leader()), (LogIndex(0), true));
    tell(&mut raft, 3, term, matches(3));
    assert_eq!((raft.commit(), raft.is_leader()), (LogIndex(3), false));
    assert_eq!(raft.deadline(), u64::MAX);

    state.hard_state.commit = LogIndex(2);
    let raft = Raft::new(id(1), options(), state, 7, 0);
    assert_eq!(raft.deadline(), u64::MAX);
}

#[test]
fn a_joint_membership_elects_by_both_majorities() {
    let mut joint = membership(&[1, 2, 3], &[]);
    joint.outgoing = [1, 4, 5].map(id).into();
    for (voters, elected) in
        [(&[2, 3][..], false), (&[4, 5], false), (&[2, 4], true), (&[3, 5], true)]
    {
        let mut raft = with(joint.clone(), &[1]);
        raft.tick(raft.deadline());
        settle(&mut raft);
        for &voter in voters {
            tell(&mut raft, voter, 2, Body::VoteReply { pre_vote: true, granted: true });
        }
        assert_eq!(raft.role() == Role::Candidate, elected, "{voters:?}");
        for &voter in voters {
            tell(&mut raft, voter, 2, Body::VoteReply { pre_vote: false, granted: true });
        }
        assert_eq!(raft.is_leader(), elected, "{voters:?}");
    }
}

#[test]
fn replicas_that_do_not_disturb_each_other_elect_one_leader() {
    let mut group = group::Group::calm(&[1, 2, 3, 4, 5]);
    let leader = group.elect();
    let term = group.raft(leader).term();
    for _ in 0..20 * ELECTION {
        group.tick();
        group.settle();
    }
    assert_eq!((group.leading(), group.raft(leader).term()), (vec![leader], term));
}
