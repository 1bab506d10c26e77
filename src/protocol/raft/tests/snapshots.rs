//! Compaction, and snapshots in place of what is compacted (Ongaro 2014, chapter 5).

use super::*;
use crate::protocol::raft::progress::State as Sending;

fn start(index: u64, term: u64) -> LogStart {
    LogStart {
        position: at(index, term),
        membership: membership(&[1, 2, 3], &[]),
        membership_index: LogIndex(0),
    }
}

/// A leader in term 2 whose log begins behind its committed entry 3 of 4; the last is its own.
fn compacted() -> Raft {
    let mut raft = replica(&[1, 1, 1]);
    let term = lead(&mut raft);
    tell(&mut raft, 2, term, matches(4));
    raft.compact(LogIndex(3));
    assert_eq!(raft.log().start(), at(3, 1));
    raft
}

fn state(raft: &Raft, replica: u64) -> Sending {
    raft.status().progress[&id(replica)].state
}

/// What is asked for and sent while everything that is to do is done.
fn wants(raft: &mut Raft) -> (Vec<(ReplicaId, LogIndex)>, usize) {
    let ready = raft.ready();
    (ready.snapshots_wanted, ready.messages.len())
}

#[test]
fn a_log_is_compacted_through_what_was_handed_out() {
    let mut raft = replica(&[1, 1, 1]);
    raft.compact(LogIndex(3));
    assert_eq!(raft.log().start(), at(0, 0));
    raft.step(Message { from: id(2), to: id(1), term: Term(1), body: heartbeat(1, 2) });
    raft.compact(LogIndex(2));
    assert_eq!(raft.log().start(), at(0, 0), "committed, but not handed out yet");
    settle(&mut raft);
    raft.compact(LogIndex(3));
    assert_eq!((raft.log().start(), raft.log().last()), (at(2, 1), at(3, 1)));
}

#[test]
fn a_replica_that_needs_what_is_compacted_needs_a_snapshot_once() {
    let mut raft = compacted();
    let reject = Message { from: id(3), to: id(1), term: Term(2), body: rejected(3, at(1, 1)) };
    raft.step(reject.clone());
    assert_eq!(wants(&mut raft), (vec![(id(3), LogIndex(3))], 0));
    assert_eq!(state(&raft, 3), Sending::Snapshot { through: LogIndex(3) });
    raft.step(reject);
    raft.propose(Bytes::new()).unwrap();
    let (wanted, messages) = wants(&mut raft);
    assert_eq!((wanted, messages), (vec![], 1), "the append to replica 2 alone");
}

#[test]
fn appends_go_on_behind_a_snapshot_in_place() {
    let mut raft = compacted();
    tell(&mut raft, 3, 2, rejected(3, at(1, 1)));
    raft.snapshot_done(id(3), Some(LogIndex(3)));
    let sent = settle(&mut raft);
    assert!(matches!(&sent[0].body, Body::Append(append) if append.previous == at(3, 1)));
    tell(&mut raft, 3, 2, matches(4));
    assert_eq!(state(&raft, 3), Sending::Replicate);
}

/// A leader whose snapshot for 3 failed, and that has heard of 3 since: it asks 3 then whether
/// the log will do.
fn asked_after_a_failure() -> Raft {
    let mut raft = compacted();
    tell(&mut raft, 3, 2, rejected(3, at(1, 1)));
    raft.snapshot_done(id(3), None);
    assert_eq!(wants(&mut raft).0, []);
    raft.tick(raft.deadline());
    raft.ready();
    let body = Body::HeartbeatReply { round: 2, last: LogIndex(1) };
    let asked = tell(&mut raft, 3, 2, body);
    assert!(matches!(&asked[0].body, Body::Append(append) if append.previous == at(3, 1)));
    raft
}

#[test]
fn a_snapshot_that_failed_is_wanted_again_once_the_replica_is_found_to_lack_it_still() {
    let mut raft = asked_after_a_failure();
    raft.step(Message { from: id(3), to: id(1), term: Term(2), body: rejected(3, at(1, 1)) });
    assert_eq!(wants(&mut raft).0, [(id(3), LogIndex(3))]);
}

/// Its leader would else send it for ever what it refuses for ever.
#[test]
fn a_replica_that_refused_a_snapshot_as_it_needs_none_gets_the_log() {
    let mut raft = asked_after_a_failure();
    raft.step(Message { from: id(3), to: id(1), term: Term(2), body: matches(4) });
    assert_eq!(wants(&mut raft).0, []);
    assert_eq!(state(&raft, 3), Sending::Replicate);
}

#[test]
fn a_snapshot_takes_the_place_of_a_log_that_lacks_its_end() {
    for terms in [&[][..], &[1, 1], &[1, 1, 1, 1, 1, 1]] {
        let mut raft = replica(terms);
        assert!(raft.restore(start(5, 3)));
        assert_eq!((raft.log().start(), raft.log().last()), (at(5, 3), at(5, 3)));
        assert_eq!((raft.commit(), raft.applied()), (LogIndex(5), LogIndex(5)));
        let replies = tell(&mut raft, 2, 4, append(at(5, 3), vec![entry(6, 4)], 6));
        assert_eq!(bodies(&replies), [&matches(6)]);
        assert_eq!(raft.applied(), LogIndex(6));
    }
}

/// What lies behind a snapshot may have been acknowledged, so a late snapshot must not take it.
#[test]
fn a_snapshot_of_what_the_log_holds_takes_nothing_behind_it() {
    let mut raft = replica(&[1, 1, 2, 2]);
    assert!(raft.restore(start(2, 1)));
    assert_eq!((raft.log().start(), raft.log().last()), (at(2, 1), at(4, 2)));
    assert_eq!((raft.applied(), raft.log().stable()), (LogIndex(2), LogIndex(4)));
}

/// The log in the files begins there by then: were it cut less far later, it would contradict that.
#[test]
fn a_snapshot_older_than_the_state_machine_cuts_the_log_alone() {
    let mut raft = replica(&[1, 1, 1]);
    tell(&mut raft, 2, 1, heartbeat(1, 2));
    for index in [1, 2, 1] {
        assert!(!raft.restore(start(index, 1)));
    }
    assert_eq!((raft.log().start(), raft.applied()), (at(2, 1), LogIndex(2)));
    assert!(raft.restore(start(3, 1)));
}

#[test]
fn a_snapshot_during_a_write_leaves_its_entries_behind() {
    let mut raft = replica(&[1]);
    let body = append(at(1, 1), vec![entry(2, 1), entry(3, 1)], 0);
    raft.step(Message { from: id(2), to: id(1), term: Term(1), body });
    assert!(raft.ready().write.is_some());
    assert!(raft.restore(start(2, 2)));
    raft.advance();
    // Nothing is acknowledged that the snapshot took away, and nothing of it counts as durable.
    assert_eq!(raft.ready(), Default::default());
    assert_eq!((raft.log().last(), raft.log().stable()), (at(2, 2), LogIndex(2)));
    let replies = tell(&mut raft, 3, 3, append(at(2, 2), vec![entry(3, 3)], 0));
    assert_eq!(bodies(&replies), [&matches(3)]);
}

#[test]
fn a_snapshot_within_a_write_keeps_what_the_write_brings() {
    let mut raft = replica(&[1]);
    let body = append(at(1, 1), vec![entry(2, 1), entry(3, 1)], 0);
    raft.step(Message { from: id(2), to: id(1), term: Term(1), body });
    assert!(raft.ready().write.is_some());
    assert!(raft.restore(start(2, 1)));
    assert_eq!((raft.log().last(), raft.log().stable()), (at(3, 1), LogIndex(2)));
    raft.advance();
    assert_eq!(raft.log().stable(), LogIndex(3));
    assert_eq!(bodies(&raft.ready().messages), [&matches(3)]);
}

#[test]
fn a_deposed_leader_that_is_restored_gives_up() {
    let mut raft = replica(&[1]);
    lead(&mut raft);
    raft.read_index(4).unwrap();
    assert!(raft.restore(start(7, 5)));
    assert!(!raft.is_leader());
    assert_eq!(raft.ready().reads_lost, [4]);
}

#[test]
fn a_leader_that_is_restored_to_what_it_holds_leads_on() {
    let mut raft = replica(&[1, 1, 1]);
    let term = lead(&mut raft);
    raft.propose(Bytes::from_static(b"x")).unwrap();
    settle(&mut raft);
    assert!(raft.restore(start(3, 1)));
    assert_eq!((raft.is_leader(), raft.commit()), (true, LogIndex(3)));
    tell(&mut raft, 2, term, matches(5));
    assert_eq!(raft.applied(), LogIndex(5));
}

#[test]
fn a_snapshot_brings_its_membership() {
    let mut raft = replica(&[1]);
    let membership = membership(&[1, 2, 4], &[3]);
    let membership_index = LogIndex(4);
    let brought = LogStart { position: at(5, 3), membership, membership_index };
    assert!(raft.restore(brought.clone()));
    assert_eq!(raft.log().membership(), &brought.membership);
    assert_eq!(raft.log().start_at(LogIndex(5)), Some(brought));
}

#[test]
fn a_replica_that_was_away_catches_up_by_a_snapshot() {
    let mut group = group::Group::calm(&[1, 2, 3]);
    let leader = group.elect();
    let away = group.numbers().into_iter().find(|&number| number != leader).unwrap();
    group.members.get_mut(&away).unwrap().is_up = false;
    for _ in 0..30 {
        group.raft(leader).propose(Bytes::from_static(b"x")).unwrap();
        group.settle();
    }
    group.compact(leader);
    group.members.get_mut(&away).unwrap().is_up = true;
    while group.snapshots.is_empty() {
        assert!(group.now < 1000, "nobody asks for a snapshot");
        group.tick();
        group.settle();
    }
    let (from, to, through) = group.snapshots.remove(0);
    let taken = group.snapshot_of(from).unwrap();
    assert_eq!((from, to.0), (leader, away));
    assert!(taken.position.index >= through);
    group.install(away, taken.clone());
    group.raft(leader).snapshot_done(to, Some(taken.position.index));
    group.raft(leader).propose(Bytes::from_static(b"y")).unwrap();
    group.settle();
    group.tick();
    group.tick();
    group.settle();
    group.check_converged();
}
