use super::*;

/// Replicas by number; the replica n runs on node 100 + n.
fn nodes(replicas: &[u64]) -> BTreeMap<ReplicaId, NodeId> {
    replicas.iter().map(|&n| (ReplicaId(n), NodeId(100 + n))).collect()
}

fn ids(replicas: &[u64]) -> BTreeSet<ReplicaId> {
    replicas.iter().map(|&n| ReplicaId(n)).collect()
}

fn membership(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
    Membership {
        voters: ids(voters),
        outgoing: ids(outgoing),
        learners: ids(learners),
        nodes: nodes(&[voters, outgoing, learners].concat()),
    }
}

fn target(voters: &[u64], learners: &[u64]) -> Target {
    Target { voters: nodes(voters), learners: nodes(learners) }
}

/// How far each replica's log matches: of replica n, the n-th number.
fn commit(membership: &Membership, matched: &[u64]) -> u64 {
    membership.commit_index(|replica| LogIndex(matched[replica.0 as usize - 1])).0
}

#[test]
fn an_index_is_held_by_a_quorum_once_a_majority_of_voters_holds_it() {
    // Section 3.5.
    let cases: [(&[u64], &[u64], u64); 9] = [
        (&[1], &[7], 7),
        (&[1, 2], &[7, 3], 3),
        (&[1, 2, 3], &[7, 3, 5], 5),
        (&[1, 2, 3], &[7, 0, 0], 0),
        (&[1, 2, 3], &[4, 4, 0], 4),
        (&[1, 2, 3, 4], &[9, 8, 7, 6], 7),
        (&[1, 2, 3, 4], &[9, 9, 0, 0], 0),
        (&[1, 2, 3, 4, 5], &[1, 5, 3, 2, 4], 3),
        (&[1, 3, 5], &[1, 9, 3, 9, 2], 2),
    ];
    for (voters, matched, expected) in cases {
        let membership = membership(voters, &[], &[]);
        assert_eq!(commit(&membership, matched), expected, "{voters:?} at {matched:?}");
    }
}

#[test]
fn a_joint_membership_commits_what_both_majorities_hold() {
    // Section 4.3.
    type Case<'a> = (&'a [u64], &'a [u64], &'a [u64], u64);
    let cases: [Case; 5] = [
        (&[1, 2, 3], &[4, 5, 6], &[9, 9, 9, 0, 0, 0], 0),
        (&[1, 2, 3], &[4, 5, 6], &[0, 0, 0, 9, 9, 9], 0),
        (&[1, 2, 3], &[4, 5, 6], &[9, 8, 0, 7, 6, 0], 6),
        (&[1, 2, 3], &[1, 2, 4], &[5, 4, 9, 0], 4),
        (&[1], &[1, 2, 3], &[9, 4, 2], 4),
    ];
    for (voters, outgoing, matched, expected) in cases {
        let membership = membership(voters, outgoing, &[]);
        assert_eq!(commit(&membership, matched), expected, "{voters:?}, {outgoing:?}: {matched:?}");
    }
}

#[test]
fn learners_count_neither_for_commits_nor_for_votes() {
    // Section 4.2.1.
    let membership = membership(&[1, 2, 3], &[], &[4, 5]);
    assert_eq!(commit(&membership, &[9, 1, 1, 9, 9]), 1);
    assert_eq!(tally(&membership, &[(1, true), (4, true), (5, true)]), Tally::Open);
    assert_eq!(tally(&membership, &[(4, false), (5, false), (6, false)]), Tally::Open);
    assert!(!membership.has_quorum(|replica| [1, 4, 5].contains(&replica.0)));
}

#[test]
fn a_membership_without_voters_decides_nothing() {
    let empty = Membership::default();
    assert_eq!(empty.commit_index(|_| LogIndex(7)), LogIndex(0));
    assert!(!empty.has_quorum(|_| true));
    assert_eq!(empty.tally(&BTreeMap::new()), Tally::Lost);
    assert_eq!(empty.quorum_latest(|_| Some(3)), None);
}

fn tally(membership: &Membership, votes: &[(u64, bool)]) -> Tally {
    membership.tally(&votes.iter().map(|&(n, granted)| (ReplicaId(n), granted)).collect())
}

#[test]
fn an_election_is_won_by_a_majority_and_lost_once_none_is_possible() {
    // Section 3.4.
    let (yes, no) = (true, false);
    type Case<'a> = (&'a [u64], &'a [(u64, bool)], Tally);
    let cases: [Case; 10] = [
        (&[1], &[], Tally::Open),
        (&[1], &[(1, yes)], Tally::Won),
        (&[1, 2], &[(1, yes)], Tally::Open),
        (&[1, 2], &[(1, yes), (2, no)], Tally::Lost),
        (&[1, 2, 3], &[(1, yes)], Tally::Open),
        (&[1, 2, 3], &[(1, yes), (3, yes)], Tally::Won),
        (&[1, 2, 3], &[(1, yes), (2, no)], Tally::Open),
        (&[1, 2, 3], &[(1, yes), (2, no), (3, no)], Tally::Lost),
        (&[1, 2, 3, 4], &[(1, yes), (2, no), (3, no)], Tally::Lost),
        (&[1, 2, 3, 4, 5], &[(1, yes), (2, no), (3, no)], Tally::Open),
    ];
    for (voters, votes, expected) in cases {
        assert_eq!(tally(&membership(voters, &[], &[]), votes), expected, "{voters:?}: {votes:?}");
    }
}

#[test]
fn a_joint_election_needs_both_majorities() {
    // Section 4.3.
    let joint = membership(&[1, 4, 5], &[1, 2, 3], &[]);
    let (yes, no) = (true, false);
    let cases: [(&[(u64, bool)], Tally); 5] = [
        (&[(1, yes), (2, yes), (3, yes)], Tally::Open),
        (&[(1, yes), (4, yes), (5, yes)], Tally::Open),
        (&[(1, yes), (2, yes), (4, yes)], Tally::Won),
        (&[(1, yes), (2, yes), (4, no), (5, no)], Tally::Lost),
        (&[(1, yes), (4, yes), (2, no), (3, no)], Tally::Lost),
    ];
    for (votes, expected) in cases {
        assert_eq!(tally(&joint, votes), expected, "{votes:?}");
    }
}

#[test]
fn roles_and_nodes_of_a_joint_membership() {
    let joint = membership(&[1, 2], &[2, 3], &[4]);
    assert!(joint.is_joint() && !membership(&[1, 2], &[], &[4]).is_joint());
    assert_eq!(joint.replicas(), ids(&[1, 2, 3, 4]));
    let voters: Vec<u64> = (0..6).filter(|&n| joint.is_voter(ReplicaId(n))).collect();
    let contained: Vec<u64> = (0..6).filter(|&n| joint.contains(ReplicaId(n))).collect();
    assert_eq!((voters, contained), (vec![1, 2, 3], vec![1, 2, 3, 4]));
    assert_eq!(joint.node(ReplicaId(4)), Some(NodeId(104)));
    assert_eq!(joint.node(ReplicaId(5)), None);
}

#[test]
fn a_group_is_founded_with_its_voters_alone() {
    assert_eq!(Membership::founding(nodes(&[1, 2, 3])), membership(&[1, 2, 3], &[], &[]));
}

#[test]
fn at_most_one_voter_comes_or_goes_in_a_simple_change() {
    // Section 4.1.
    let start = membership(&[1, 2, 3], &[], &[4]);
    let cases: [(&[u64], &[u64]); 7] = [
        (&[1, 2, 3, 5], &[4]),
        (&[1, 2], &[4]),
        (&[1, 2, 3, 4], &[]),
        (&[1, 2], &[3, 4]),
        (&[1, 2, 3], &[]),
        (&[1, 2, 3], &[5, 6]),
        (&[1, 2, 3, 4], &[5]),
    ];
    for (voters, learners) in cases {
        let next = start.begin_change(&target(voters, learners));
        assert_eq!(next, Ok(Some(membership(voters, &[], learners))), "{voters:?} {learners:?}");
    }
}

#[test]
fn a_change_of_several_voters_passes_through_a_joint_membership() {
    // Section 4.3; a replacement is an addition and a removal.
    let start = membership(&[1, 2, 3], &[], &[4]);
    let cases: [(&[u64], &[u64]); 6] = [
        (&[1, 2, 4], &[]),
        (&[1, 2, 5], &[4]),
        (&[1], &[]),
        (&[1, 2, 3, 5, 6], &[4]),
        (&[5, 6, 7], &[]),
        (&[4], &[1, 2, 3]),
    ];
    for (voters, learners) in cases {
        let joint = start.begin_change(&target(voters, learners));
        let joint = joint.expect("a fair target").expect("a change");
        assert_eq!(joint, membership(voters, &[1, 2, 3], learners), "{voters:?} {learners:?}");
        assert_eq!(joint.leave_joint(), Some(membership(voters, &[], learners)));
    }
}

#[test]
fn a_target_that_is_reached_changes_nothing() {
    let start = membership(&[1, 2, 3], &[], &[4]);
    assert_eq!(start.begin_change(&target(&[1, 2, 3], &[4])), Ok(None));
    assert_eq!(start.leave_joint(), None);
}

#[test]
fn an_outgoing_voter_that_stays_as_a_learner_decides_until_the_joint_membership_is_left() {
    let start = membership(&[1, 2, 3], &[], &[]);
    let joint = start.begin_change(&target(&[1, 4], &[3])).expect("fair").expect("a change");
    assert!(joint.is_voter(ReplicaId(3)) && joint.learners.contains(&ReplicaId(3)));
    assert_eq!(tally(&joint, &[(1, true), (4, true)]), Tally::Open);
    assert_eq!(tally(&joint, &[(1, true), (4, true), (3, true)]), Tally::Won);
    let left = joint.leave_joint().expect("joint");
    assert!(left.contains(ReplicaId(3)) && !left.is_voter(ReplicaId(3)));
    assert!(!left.contains(ReplicaId(2)) && left.node(ReplicaId(2)).is_none());
}

#[test]
fn an_impossible_target_is_refused() {
    let simple = membership(&[1, 2, 3], &[], &[4]);
    let joint = membership(&[1], &[1, 2, 3], &[]);
    let moved = |replica: u64| ChangeError::Moved {
        replica: ReplicaId(replica),
        from: NodeId(100 + replica),
        to: NodeId(9),
    };
    let elsewhere = |replica: u64| [(ReplicaId(replica), NodeId(9))].into();
    let cases: [(&Membership, Target, ChangeError); 6] = [
        (&joint, target(&[1], &[]), ChangeError::Joint),
        (&simple, target(&[], &[1]), ChangeError::NoVoters),
        (&simple, target(&[1, 2], &[2]), ChangeError::InBothLists { replica: ReplicaId(2) }),
        (&simple, Target { voters: elsewhere(2), learners: nodes(&[]) }, moved(2)),
        (&simple, Target { voters: elsewhere(4), learners: nodes(&[]) }, moved(4)),
        (&simple, Target { voters: nodes(&[1]), learners: elsewhere(4) }, moved(4)),
    ];
    for (membership, target, expected) in cases {
        assert_eq!(membership.begin_change(&target), Err(expected), "{target:?}");
    }
}
