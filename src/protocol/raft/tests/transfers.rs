//! Handing leadership over (Ongaro 2014, section 3.10).

use super::group::Group;
use super::*;
use crate::protocol::raft::{ProposeError, TransferError};

/// A leader of three in term 2; replica 2 holds its whole log and replica 3 nothing.
fn established() -> Raft {
    let state = restored(membership(&[1, 2, 3], &[4]), &[1]);
    let options = Options { lease_reads: true, ..options() };
    let mut raft = Raft::new(id(1), options, state, 7, 0);
    lead(&mut raft);
    tell(&mut raft, 2, 2, matches(2));
    raft
}

fn asked(messages: &[Message]) -> Vec<u64> {
    let asked = messages.iter().filter(|message| message.body == TIMEOUT_NOW);
    asked.map(|message| message.to.0).collect()
}

#[test]
fn a_transfer_needs_a_leader_and_a_voter_and_is_one_at_a_time() {
    let mut raft = replica(&[1]);
    let refused = Err(TransferError::NotLeader { leader: None });
    assert_eq!(raft.transfer_leader(id(2)), refused);
    let mut raft = established();
    for to in [4, 9] {
        let refused = Err(TransferError::NotVoter { to: id(to) });
        assert_eq!(raft.transfer_leader(id(to)), refused);
    }
    raft.transfer_leader(id(1)).unwrap();
    assert_eq!(raft.status().transferring_to, None);
    raft.transfer_leader(id(3)).unwrap();
    let refused = Err(TransferError::Transferring { to: id(3) });
    assert_eq!(raft.transfer_leader(id(2)), refused);
    assert_eq!(raft.transfer_leader(id(3)), Ok(()));
    assert_eq!(raft.status().transferring_to, Some(id(3)));
}

#[test]
fn the_target_is_asked_once_it_holds_the_whole_log() {
    let mut raft = established();
    raft.transfer_leader(id(2)).unwrap();
    assert_eq!(asked(&settle(&mut raft)), [2]);

    let mut raft = established();
    raft.propose(Bytes::from_static(b"x")).unwrap();
    raft.transfer_leader(id(3)).unwrap();
    assert!(asked(&settle(&mut raft)).is_empty());
    assert!(asked(&tell(&mut raft, 2, 2, matches(3))).is_empty());
    assert!(asked(&tell(&mut raft, 3, 2, matches(2))).is_empty());
    assert_eq!(asked(&tell(&mut raft, 3, 2, matches(3))), [3]);
}

#[test]
fn the_target_is_told_whether_somebody_ordered_it() {
    let told = |raft: &mut Raft| bodies(&settle(raft)).into_iter().cloned().collect::<Vec<_>>();
    let mut raft = established();
    raft.transfer_leader_as_ordered(id(2)).unwrap();
    assert_eq!(told(&mut raft), [Body::TimeoutNow { ordered: true }]);

    let mut raft = established();
    raft.transfer_leader(id(3)).unwrap();
    raft.transfer_leader_as_ordered(id(3)).unwrap();
    raft.transfer_leader(id(3)).unwrap();
    let told = tell(&mut raft, 3, 2, matches(2));
    assert!(told.iter().any(|message| message.body == Body::TimeoutNow { ordered: true }));
}

#[test]
fn nothing_is_proposed_meanwhile_and_an_election_timeout_ends_it() {
    let mut raft = established();
    raft.transfer_leader(id(3)).unwrap();
    let begun = raft.now;
    while raft.status().transferring_to.is_some() {
        assert_eq!(raft.propose(Bytes::new()), Err(ProposeError::Transferring));
        // Reads are served on.
        raft.read_index(1).unwrap();
        raft.tick(raft.deadline());
        settle(&mut raft);
        tell(&mut raft, 2, 2, Body::HeartbeatReply { round: 0, last: LogIndex(2) });
    }
    assert_eq!(raft.now, begun + ELECTION);
    assert!(raft.propose(Bytes::new()).is_ok());
}

#[test]
fn the_lease_ends_with_the_beginning_of_a_transfer_and_stays_void() {
    let mut raft = established();
    tell(&mut raft, 2, 2, Body::HeartbeatReply { round: 1, last: LogIndex(2) });
    assert!(raft.lease_holds(raft.now));
    raft.transfer_leader(id(2)).unwrap();
    assert!(!raft.lease_holds(raft.now));
    // The request to stand may arrive at any later time, so giving up does not bring it back.
    for round in 2..20 {
        raft.tick(raft.deadline());
        settle(&mut raft);
        tell(&mut raft, 2, 2, Body::HeartbeatReply { round, last: LogIndex(2) });
    }
    assert_eq!(raft.status().transferring_to, None);
    assert!(raft.is_leader() && !raft.lease_holds(raft.now));
}

#[test]
fn who_is_asked_stands_at_once_and_says_why() {
    let mut raft = replica(&[1]);
    tell(&mut raft, 2, 1, heartbeat(1, 0));
    let sent = tell(&mut raft, 2, 1, TIMEOUT_NOW);
    let expected = Body::Vote(Vote { last: at(1, 1), pre_vote: false, transfer: true });
    assert_eq!(bodies(&sent), [&expected, &expected]);
    assert_eq!(raft.term(), Term(2));
    // A repeat of the request is of an earlier term by now.
    assert!(tell(&mut raft, 2, 1, TIMEOUT_NOW).is_empty());
    assert_eq!(raft.term(), Term(2));
}

#[test]
fn leadership_moves_without_waiting_for_a_timeout() {
    let mut group = Group::calm(&[1, 2, 3]);
    let leader = group.elect();
    group.raft(leader).propose(Bytes::from_static(b"x")).unwrap();
    let to = group.numbers().into_iter().find(|&number| number != leader).unwrap();
    group.raft(leader).transfer_leader(id(to)).unwrap();
    let before = group.now;
    group.settle();
    assert_eq!((group.leading(), group.now), (vec![to], before));
    assert_eq!(group.commands(), ["x"]);
}
