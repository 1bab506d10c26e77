//! Changes of the membership (Ongaro 2014, chapter 4).

use super::group::Group;
use super::*;
use crate::protocol::raft::MembershipError;
use crate::protocol::raft::membership::ChangeError;

fn change(raft: &mut Raft, to: Target) -> Option<LogPosition> {
    let expected = raft.log().membership_index();
    raft.propose_membership(&to, expected).unwrap()
}

/// A leader of three in term 2, with an entry of its own term committed.
fn established() -> Raft {
    let mut raft = replica(&[1]);
    lead(&mut raft);
    tell(&mut raft, 2, 2, matches(2));
    raft
}

/// Lets heartbeats tell everybody what is committed.
fn spread(group: &mut Group) {
    for _ in 0..2 * ELECTION {
        group.tick();
        group.settle();
    }
}

#[test]
fn a_change_needs_an_established_leader_that_is_not_leaving() {
    let to = target(&[1, 2, 3, 4], &[]);
    let mut raft = replica(&[1]);
    let founding = LogIndex(0);
    let refused = Err(MembershipError::NotLeader { leader: None });
    assert_eq!(raft.propose_membership(&to, founding), refused);
    let term = lead(&mut raft);
    let refused = Err(MembershipError::NotEstablished);
    assert_eq!(raft.propose_membership(&to, founding), refused);
    tell(&mut raft, 2, term, matches(2));
    raft.transfer_leader(id(3)).unwrap();
    let refused = Err(MembershipError::Transferring);
    assert_eq!(raft.propose_membership(&to, founding), refused);
}

#[test]
fn one_change_at_a_time_and_none_that_was_meant_for_another_membership() {
    let mut raft = established();
    let to = target(&[1, 2, 3], &[4]);
    let (expected, in_force) = (LogIndex(1), LogIndex(0));
    let refused = Err(MembershipError::Stale { expected, in_force });
    assert_eq!(raft.propose_membership(&to, expected), refused);
    assert_eq!(change(&mut raft, target(&[1, 2, 3], &[])), None, "nothing to change");

    assert_eq!(change(&mut raft, to.clone()), Some(at(3, 2)));
    assert_eq!(raft.log().membership(), &membership(&[1, 2, 3], &[4]));
    let (expected, in_force) = (LogIndex(0), LogIndex(3));
    let refused = Err(MembershipError::Stale { expected, in_force });
    assert_eq!(raft.propose_membership(&to, expected), refused);
    let refused = Err(MembershipError::Uncommitted { index: in_force });
    assert_eq!(raft.propose_membership(&to, in_force), refused);
    settle(&mut raft);
    tell(&mut raft, 2, 2, matches(3));
    assert_eq!(change(&mut raft, target(&[1, 2, 3, 4], &[])), Some(at(4, 2)));
}

#[test]
fn a_membership_that_no_group_can_have_is_refused() {
    let mut raft = established();
    let refused = Err(MembershipError::Change(ChangeError::NoVoters));
    assert_eq!(raft.propose_membership(&target(&[], &[1]), LogIndex(0)), refused);
}

#[test]
fn a_new_replica_is_in_force_at_once_and_is_sent_everything() {
    let mut raft = established();
    change(&mut raft, target(&[1, 2, 3, 4], &[]));
    settle(&mut raft);
    // Of four voters, three are a majority.
    tell(&mut raft, 2, 2, matches(3));
    assert_eq!(raft.commit(), LogIndex(2));
    let sent = tell(&mut raft, 4, 2, rejected(3, at(0, 0)));
    assert!(matches!(&sent[0].body, Body::Append(append) if append.previous == at(0, 0)));
    tell(&mut raft, 4, 2, matches(3));
    assert_eq!(raft.commit(), LogIndex(3));
}

#[test]
fn a_joint_membership_commits_by_both_majorities_and_is_left_by_itself() {
    let mut raft = established();
    change(&mut raft, target(&[1, 4, 5], &[]));
    assert!(raft.log().membership().is_joint());
    settle(&mut raft);
    tell(&mut raft, 4, 2, matches(3));
    assert_eq!(raft.commit(), LogIndex(2), "a majority of the new voters alone");
    tell(&mut raft, 5, 2, matches(3));
    assert_eq!(raft.commit(), LogIndex(2), "all of the new voters alone");
    let expected = raft.log().membership_index();
    let refused = Err(MembershipError::Uncommitted { index: expected });
    assert_eq!(raft.propose_membership(&target(&[1], &[]), expected), refused);

    tell(&mut raft, 2, 2, matches(3));
    assert_eq!(raft.commit(), LogIndex(3));
    assert_eq!(raft.log().membership(), &membership(&[1, 4, 5], &[]));
    assert_eq!((raft.log().membership_index(), raft.commit()), (LogIndex(4), LogIndex(3)));
    // The old voters count no more.
    tell(&mut raft, 2, 2, matches(4));
    assert_eq!(raft.commit(), LogIndex(3));
    tell(&mut raft, 5, 2, matches(4));
    assert_eq!(raft.commit(), LogIndex(4));
}

#[test]
fn the_old_majority_alone_does_not_commit_a_joint_membership() {
    let mut raft = established();
    change(&mut raft, target(&[4, 5, 6], &[]));
    settle(&mut raft);
    for from in [2, 3, 4] {
        tell(&mut raft, from, 2, matches(3));
        assert_eq!(raft.commit(), LogIndex(2));
    }
    tell(&mut raft, 6, 2, matches(3));
    assert_eq!(raft.commit(), LogIndex(3));
    // The leader is no voter any more and leads until that is committed.
    assert!(raft.is_leader());
    for (from, leads) in [(4, true), (2, true), (5, false)] {
        tell(&mut raft, from, 2, matches(4));
        assert_eq!(raft.is_leader(), leads, "{from}");
    }
    assert_eq!(raft.commit(), LogIndex(4));
}

#[test]
fn a_new_leader_leaves_the_joint_membership_that_it_finds() {
    let mut joint = membership(&[1, 4, 5], &[]);
    joint.outgoing = [1, 2, 3].map(id).into();
    let mut state = restored(membership(&[1, 2, 3], &[]), &[1]);
    let payload = Payload::Membership(joint);
    state.entries.push(Entry { term: Term(1), index: LogIndex(2), payload });
    let mut raft = Raft::new(id(1), options(), state, 7, 0);
    raft.tick(raft.deadline());
    for pre_vote in [true, false] {
        for from in [2, 4] {
            tell(&mut raft, from, 2, Body::VoteReply { pre_vote, granted: true });
        }
    }
    tell(&mut raft, 2, 2, matches(3));
    assert!(raft.log().membership().is_joint());
    tell(&mut raft, 4, 2, matches(3));
    assert_eq!(raft.log().membership(), &membership(&[1, 4, 5], &[]));
}

#[test]
fn a_group_moves_to_other_replicas_and_serves_on() {
    let mut group = Group::new(&[1, 2, 3], &[4, 5, 6], options(), 1);
    let leader = group.elect();
    group.raft(leader).propose(Bytes::from_static(b"before")).unwrap();
    group.settle();
    change(group.raft(leader), target(&[4, 5, 6], &[]));
    group.settle();
    // The old leader has stepped down and nobody of the old voters stands again.
    spread(&mut group);
    spread(&mut group);
    let leader = group.elect();
    assert!(leader > 3);
    group.raft(leader).propose(Bytes::from_static(b"after")).unwrap();
    group.settle();
    spread(&mut group);
    assert_eq!(group.commands(), ["before", "after"]);
    group.check_converged();
}

#[test]
fn a_removed_replica_does_not_disturb_the_others() {
    let mut group = Group::calm(&[1, 2, 3]);
    let leader = group.elect();
    let removed = group.numbers().into_iter().find(|&number| number != leader).unwrap();
    let staying: Vec<u64> = group.numbers().into_iter().filter(|&n| n != removed).collect();
    // It hears nothing of its removal.
    group.cut.extend(staying.iter().map(|&number| (number, removed)));
    change(group.raft(leader), target(&staying, &[]));
    group.settle();
    group.cut.clear();
    let term = group.raft(leader).term();
    for _ in 0..10 {
        spread(&mut group);
    }
    assert_eq!((group.leading(), group.raft(leader).term()), (vec![leader], term));
}
