//! Nothing is promised before it is durable (Ongaro 2014, section 3.8), and nothing waits that
//! need not.

use super::*;

fn step(raft: &mut Raft, from: u64, term: u64, body: Body) {
    raft.step(Message { from: id(from), to: id(1), term: Term(term), body });
}

/// A follower of replica 2 in term 1 whose disk is busy with entry 2.
fn busy() -> Raft {
    let mut raft = replica(&[1]);
    step(&mut raft, 2, 1, append(at(1, 1), vec![entry(2, 1)], 0));
    let ready = raft.ready();
    assert_eq!(ready.write.unwrap().entries, [entry(2, 1)]);
    assert_eq!(ready.messages, []);
    raft
}

#[test]
fn a_vote_leaves_after_its_write_and_a_pre_vote_at_once() {
    let mut raft = replica(&[1]);
    step(&mut raft, 2, 3, pre_vote(at(1, 1)));
    let ready = raft.ready();
    assert_eq!((granted(&ready.messages), ready.write), (Some(true), None));

    step(&mut raft, 2, 3, vote(at(1, 1)));
    let ready = raft.ready();
    let hard_state = ready.write.unwrap().hard_state.unwrap();
    assert_eq!((hard_state.term, hard_state.voted_for), (Term(3), Some(id(2))));
    assert_eq!(ready.messages, []);
    assert!(!raft.has_ready());
    raft.advance();
    assert_eq!(granted(&raft.ready().messages), Some(true));
    // Asked again, there is nothing to wait for.
    step(&mut raft, 2, 3, vote(at(1, 1)));
    let ready = raft.ready();
    assert_eq!((granted(&ready.messages), ready.write), (Some(true), None));
}

#[test]
fn a_candidate_asks_after_its_own_vote_is_durable() {
    let mut raft = replica(&[1]);
    raft.tick(raft.deadline());
    raft.ready();
    step(&mut raft, 2, 2, Body::VoteReply { pre_vote: true, granted: true });
    let ready = raft.ready();
    assert_eq!((ready.messages.len(), ready.write.is_some()), (0, true));
    raft.advance();
    assert_eq!(bodies(&raft.ready().messages), vec![&vote(at(1, 1)); 2]);
}

#[test]
fn an_acknowledgement_leaves_after_its_write() {
    let mut raft = busy();
    assert!(!raft.has_ready());
    raft.advance();
    assert_eq!(bodies(&raft.ready().messages), [&matches(2)]);
}

#[test]
fn what_depends_on_no_write_overtakes_one() {
    let mut raft = busy();
    step(&mut raft, 2, 1, heartbeat(3, 0));
    step(&mut raft, 2, 1, append(at(0, 0), vec![entry(1, 1)], 0));
    step(&mut raft, 2, 1, append(at(9, 1), vec![], 0));
    let alive = Body::HeartbeatReply { round: 3, last: LogIndex(2) };
    let expected = [&alive, &matches(1), &rejected(9, at(2, 1))];
    assert_eq!(bodies(&raft.ready().messages), expected);
    // A repeat of what is being written waits for the same write.
    step(&mut raft, 2, 1, append(at(1, 1), vec![entry(2, 1)], 0));
    assert_eq!(raft.ready().messages, []);
    raft.advance();
    assert_eq!(bodies(&raft.ready().messages), [&matches(2), &matches(2)]);
}

#[test]
fn what_comes_during_a_write_goes_with_the_next_one() {
    let mut raft = busy();
    step(&mut raft, 2, 1, append(at(2, 1), vec![entry(3, 1)], 0));
    assert_eq!(raft.ready(), Default::default());
    raft.advance();
    let ready = raft.ready();
    assert_eq!(bodies(&ready.messages), [&matches(2)]);
    assert_eq!(ready.write.unwrap().entries, [entry(3, 1)]);
    raft.advance();
    assert_eq!(bodies(&raft.ready().messages), [&matches(3)]);
}

#[test]
fn entries_that_are_replaced_during_their_write_are_not_taken_as_durable() {
    let mut raft = busy();
    step(&mut raft, 3, 2, append(at(1, 1), vec![entry(2, 2)], 2));
    raft.advance();
    let ready = raft.ready();
    // The old leader's acknowledgement was true when the write ended, and may leave.
    assert_eq!(bodies(&ready.messages), [&matches(2)]);
    assert_eq!(ready.messages[0].term, Term(1));
    // Entry 2 is committed, but what is durable is another one.
    let write = ready.write.unwrap();
    assert_eq!((write.entries, ready.committed), (vec![entry(2, 2)], vec![entry(1, 1)]));
    assert_eq!(write.hard_state.unwrap().commit, LogIndex(1));
    raft.advance();
    let ready = raft.ready();
    assert_eq!(bodies(&ready.messages), [&matches(2)]);
    assert_eq!((ready.messages[0].term, ready.committed), (Term(2), vec![entry(2, 2)]));
}

#[test]
fn what_was_never_written_is_never_acknowledged() {
    let mut raft = busy();
    step(&mut raft, 2, 1, append(at(2, 1), vec![entry(3, 1)], 0));
    step(&mut raft, 3, 2, append(at(2, 1), vec![entry(3, 2)], 0));
    raft.advance();
    assert_eq!(bodies(&raft.ready().messages), [&matches(2)]);
    raft.advance();
    let replies = raft.ready().messages;
    assert_eq!((bodies(&replies), replies[0].term), (vec![&matches(3)], Term(2)));
}

#[test]
fn a_term_is_durable_before_anything_bears_it() {
    let mut raft = busy();
    step(&mut raft, 3, 5, heartbeat(1, 0));
    step(&mut raft, 2, 1, heartbeat(9, 0));
    step(&mut raft, 2, 4, pre_vote(at(9, 9)));
    assert_eq!(raft.ready().messages, []);
    raft.advance();
    let ready = raft.ready();
    assert_eq!(bodies(&ready.messages), [&matches(2)]);
    assert_eq!(ready.write.unwrap().hard_state.unwrap().term, Term(5));
    // Neither does an answer that comes while the term is being written.
    step(&mut raft, 3, 5, heartbeat(2, 0));
    assert_eq!(raft.ready().messages, []);
    raft.advance();
    let replies = raft.ready().messages;
    assert_eq!(replies.iter().map(|reply| reply.term).collect::<Vec<_>>(), [Term(5); 4]);
}

#[test]
fn a_commit_index_alone_is_no_reason_to_write() {
    let mut raft = replica(&[1, 1]);
    step(&mut raft, 2, 1, heartbeat(1, 2));
    let ready = raft.ready();
    assert_eq!((ready.write, ready.committed.len()), (None, 2));
    // It goes along with the next entries.
    step(&mut raft, 2, 1, append(at(2, 1), vec![entry(3, 1)], 3));
    let write = raft.ready().write.unwrap();
    assert_eq!(write.hard_state.unwrap().commit, LogIndex(2));
}

#[test]
fn a_leaders_entries_leave_before_its_own_write_is_durable() {
    let mut raft = replica(&[1]);
    let term = lead(&mut raft);
    tell(&mut raft, 2, term, matches(2));
    raft.propose(Bytes::from_static(b"x")).unwrap();
    let ready = raft.ready();
    assert!(ready.write.is_some());
    assert!(matches!(&ready.messages[0].body, Body::Append(append) if append.entries.len() == 1));
    assert_eq!(raft.status().progress[&id(2)].next, LogIndex(4));
    // Its own copy counts once it is durable.
    step(&mut raft, 2, term, matches(3));
    assert_eq!(raft.commit(), LogIndex(2));
    raft.advance();
    assert_eq!(raft.commit(), LogIndex(3));
}

#[test]
fn a_restart_begins_with_what_was_durable() {
    let mut state = restored(membership(&[1, 2, 3], &[]), &[1, 1, 2]);
    state.hard_state = HardState { term: Term(4), voted_for: Some(id(3)), commit: LogIndex(1) };
    state.applied = LogIndex(2);
    let mut raft = Raft::new(id(1), options(), state, 7, 50);
    let status = raft.status();
    assert_eq!((status.term, status.commit, status.applied), (Term(4), LogIndex(2), LogIndex(2)));
    assert_eq!((status.last, raft.has_ready()), (at(3, 2), false));
    assert_eq!(granted(&tell(&mut raft, 2, 4, vote(at(9, 9)))), Some(false));
    assert_eq!(granted(&tell(&mut raft, 3, 4, vote(at(9, 9)))), Some(true));
    // What lay beyond the commit index may go.
    tell(&mut raft, 2, 5, append(at(2, 1), vec![entry(3, 5)], 3));
    assert_eq!((raft.log().last(), raft.commit()), (at(3, 5), LogIndex(3)));
}

#[test]
fn advance_without_a_write_does_nothing() {
    let mut raft = replica(&[1]);
    raft.advance();
    step(&mut raft, 2, 1, append(at(1, 1), vec![entry(2, 1)], 0));
    raft.advance();
    let ready = raft.ready();
    assert_eq!((ready.messages.len(), ready.write.is_some()), (0, true));
}
