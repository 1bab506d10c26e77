//! Reads, leases and freshness (Ongaro 2014, section 6.4).

use super::*;
use crate::protocol::raft::reads::ReadState;
use crate::protocol::raft::{Freshness, ProposeError, Ready};

fn leased() -> Options {
    Options { lease_reads: true, ..options() }
}

/// A leader of three in term 2, with an entry of its own term committed by replica 2.
fn established(options: Options) -> Raft {
    let state = restored(membership(&[1, 2, 3], &[]), &[1]);
    let mut raft = Raft::new(id(1), options, state, 7, 0);
    lead(&mut raft);
    tell(&mut raft, 2, 2, matches(2));
    raft
}

fn answer(raft: &mut Raft, from: u64, round: u64) {
    let body = Body::HeartbeatReply { round, last: LogIndex(2) };
    raft.step(Message { from: id(from), to: id(1), term: raft.term(), body });
}

fn rounds(ready: &Ready) -> Vec<u64> {
    let rounds = ready.messages.iter().filter_map(|message| match message.body {
        Body::Heartbeat(heartbeat) => Some(heartbeat.round),
        _ => None,
    });
    rounds.collect()
}

fn served(token: u64, index: u64) -> ReadState {
    ReadState { token, index: LogIndex(index) }
}

#[test]
fn a_read_waits_for_an_entry_of_the_leaders_term() {
    let mut raft = replica(&[1]);
    let refused = Err(ProposeError::NotLeader { leader: None });
    assert_eq!(raft.read_index(1), refused);
    let term = lead(&mut raft);
    raft.read_index(1).unwrap();
    assert!(!raft.has_ready());
    // A round that is begun meanwhile is none for reads.
    raft.tick(raft.deadline());
    raft.ready();
    answer(&mut raft, 2, 2);
    answer(&mut raft, 3, 2);
    assert_eq!(raft.ready().reads, []);

    raft.step(Message { from: id(2), to: id(1), term: Term(term), body: matches(2) });
    assert_eq!(rounds(&raft.ready()), [3, 3]);
    answer(&mut raft, 3, 3);
    assert_eq!(raft.ready().reads, [served(1, 2)]);
}

#[test]
fn a_read_waits_for_a_quorum_that_answers_its_round_or_a_later_one() {
    // Who answers which round; whether the read, of round 2, is served.
    let cases: [(&[(u64, u64)], bool); 6] = [
        (&[(2, 2)], true),
        (&[(3, 2)], true),
        (&[(2, 3)], true),
        (&[(2, 1), (3, 1)], false),
        (&[(9, 2)], false),
        (&[(1, 2)], false),
    ];
    for (answers, expected) in cases {
        let mut raft = established(options());
        raft.read_index(7).unwrap();
        assert_eq!(rounds(&raft.ready()), [2, 2]);
        raft.tick(raft.deadline());
        assert_eq!(rounds(&raft.ready()), [3, 3]);
        answers.iter().for_each(|&(from, round)| answer(&mut raft, from, round));
        let reads = raft.ready().reads;
        assert_eq!(reads == [served(7, 2)], expected, "{answers:?} {reads:?}");
    }
}

#[test]
fn an_answer_to_an_append_confirms_its_round_as_well() {
    let mut raft = established(options());
    raft.read_index(7).unwrap();
    raft.ready();
    let body = |round| {
        let outcome = AppendOutcome::Rejected { previous: LogIndex(0), hint: at(0, 0) };
        Body::AppendReply(AppendReply { round, outcome })
    };
    raft.step(Message { from: id(3), to: id(1), term: Term(2), body: body(1) });
    assert_eq!(raft.ready().reads, []);
    raft.step(Message { from: id(3), to: id(1), term: Term(2), body: body(2) });
    assert_eq!(raft.ready().reads, [served(7, 2)]);
}

#[test]
fn reads_that_come_together_share_a_round_and_later_ones_the_next() {
    let mut raft = established(options());
    raft.read_index(1).unwrap();
    raft.read_index(2).unwrap();
    assert_eq!(rounds(&raft.ready()), [2, 2]);
    raft.read_index(3).unwrap();
    assert!(rounds(&raft.ready()).is_empty());
    answer(&mut raft, 2, 2);
    let ready = raft.ready();
    assert_eq!(ready.reads, [served(1, 2), served(2, 2)]);
    assert_eq!(rounds(&ready), [3, 3]);
    answer(&mut raft, 2, 2);
    assert_eq!(raft.ready().reads, []);
    answer(&mut raft, 3, 3);
    assert_eq!(raft.ready().reads, [served(3, 2)]);
}

#[test]
fn reads_are_reported_lost_with_leadership() {
    let mut raft = established(options());
    raft.read_index(1).unwrap();
    raft.ready();
    raft.read_index(2).unwrap();
    raft.step(Message { from: id(3), to: id(1), term: Term(9), body: heartbeat(1, 0) });
    let ready = raft.ready();
    assert_eq!((ready.reads, ready.reads_lost), (vec![], vec![1, 2]));
    assert!(raft.read_index(3).is_err());
}

#[test]
fn a_sole_voter_confirms_itself() {
    let mut raft = Raft::new(id(1), leased(), restored(membership(&[1], &[]), &[1]), 7, 0);
    raft.tick(raft.deadline());
    settle(&mut raft);
    raft.read_index(5).unwrap();
    assert_eq!(raft.ready().reads, [served(5, 2)]);
    assert!(raft.lease_holds(raft.now));
}

#[test]
fn a_lease_lasts_from_when_a_quorum_was_asked() {
    let mut raft = established(leased());
    let asked = raft.now;
    answer(&mut raft, 2, 1);
    // The answer comes late; what counts is when its round was begun.
    raft.now = asked + 3;
    assert!(raft.lease_holds(asked + ELECTION - 2));
    assert!(!raft.lease_holds(asked + ELECTION - 1));
    answer(&mut raft, 3, 1);
    assert!(!raft.lease_holds(asked + ELECTION - 1));

    raft.tick(raft.deadline().max(raft.now));
    settle(&mut raft);
    answer(&mut raft, 3, 2);
    assert!(raft.lease_holds(asked + ELECTION - 1));
    tell(&mut raft, 2, 9, heartbeat(1, 0));
    assert!(!raft.lease_holds(raft.now));
}

#[test]
fn there_is_no_lease_unless_it_is_asked_for_and_the_term_is_established() {
    let mut raft = established(options());
    answer(&mut raft, 2, 1);
    assert!(!raft.lease_holds(raft.now));
    let mut raft = Raft::new(id(1), leased(), restored(membership(&[1, 2, 3], &[]), &[1]), 7, 0);
    lead(&mut raft);
    answer(&mut raft, 2, 1);
    answer(&mut raft, 3, 1);
    assert!(!raft.lease_holds(raft.now));
    tell(&mut raft, 2, 2, matches(2));
    assert!(raft.lease_holds(raft.now));
}

fn fresh(round: u64, confirmed_round: u64, age: u64, commit: u64) -> Body {
    Body::Heartbeat(Heartbeat {
        commit: LogIndex(0),
        round,
        fresh_commit: LogIndex(commit),
        confirmed_round,
        quorum_age_ticks: age,
    })
}

#[test]
fn a_follower_is_as_fresh_as_its_last_answer_that_the_leader_has() {
    let mut raft = replica(&[1]);
    raft.now = 100;
    // The tick, the heartbeat's round, the confirmed round, its age and commit; what follows.
    let cases = [
        (100, 1, 0, 0, 5, None),
        (104, 2, 1, 0, 6, Some((99, 6))),
        // A heartbeat that was long under way makes nobody fresher than the answer before.
        (150, 3, 2, 0, 7, Some((103, 7))),
        // A quorum confirmed the leader two ticks before the answer came.
        (152, 4, 3, 2, 8, Some((147, 8))),
        // Nothing new: an old one again, a round never answered here, one of unknown age.
        (160, 3, 2, 0, 7, Some((147, 8))),
        (160, 5, 0, 0, 9, Some((147, 8))),
        (161, 6, 5, u64::MAX, 9, Some((147, 8))),
    ];
    for (tick, round, confirmed, age, commit, expected) in cases {
        raft.now = tick;
        tell(&mut raft, 2, 2, fresh(round, confirmed, age, commit));
        let expected = expected.map(|(tick, commit)| Freshness { tick, commit: LogIndex(commit) });
        assert_eq!(raft.freshness(), expected, "round {round}");
    }
    // What was true stays true, but another leader counts its rounds anew.
    tell(&mut raft, 3, 3, fresh(9, 6, 0, 9));
    assert_eq!(raft.freshness(), Some(Freshness { tick: 147, commit: LogIndex(8) }));
}

#[test]
fn an_answer_of_a_former_life_makes_nobody_fresh() {
    // It starts again in term 1, whose leader has answers of its former life to rounds 1 to 30.
    let mut raft = replica(&[1]);
    raft.now = 100;
    // Two heartbeats that were under way since before: the second names round 20, which this life
    // has answered only now, and the former one long ago.
    tell(&mut raft, 2, 1, fresh(20, 19, 0, 5));
    tell(&mut raft, 2, 1, fresh(21, 20, 0, 5));
    assert_eq!(raft.freshness(), None);
}

#[test]
fn a_leader_says_how_fresh_its_followers_are() {
    let mut raft = established(options());
    let begun = raft.now;
    raft.now += 1;
    answer(&mut raft, 2, 1);
    assert_eq!(raft.freshness(), Some(Freshness { tick: begun, commit: LogIndex(2) }));
    raft.tick(raft.deadline());
    let told: Vec<(u64, u64, u64)> = settle(&mut raft)
        .iter()
        .filter_map(|message| match message.body {
            Body::Heartbeat(heartbeat) => {
                let Heartbeat { confirmed_round, quorum_age_ticks, .. } = heartbeat;
                Some((message.to.0, confirmed_round, quorum_age_ticks))
            }
            _ => None,
        })
        .collect();
    // Replica 2's append was answered in the tick in which the round began.
    assert_eq!(told, [(2, 1, 0), (3, 0, 0)]);
}
