//! Quorums against their definition, over all sets of a few replicas.

use proptest::prelude::*;

use super::*;

/// Replicas are the bits of a set.
type Set = u8;

const UNIVERSE: u64 = 6;
const ALL: Set = (1 << UNIVERSE) - 1;

fn members(set: Set) -> impl Iterator<Item = ReplicaId> {
    (0..UNIVERSE).filter(move |n| set & (1 << n) != 0).map(ReplicaId)
}

fn has(set: Set, replica: ReplicaId) -> bool {
    set & (1 << replica.0) != 0
}

fn target(voters: Set, learners: Set) -> Target {
    let nodes = |set| members(set).map(|replica| (replica, NodeId(replica.0))).collect();
    Target { voters: nodes(voters), learners: nodes(learners & !voters) }
}

/// What a quorum is, said once more in other words: more than half of every set that decides.
fn is_quorum(membership: &Membership, set: Set) -> bool {
    let majority = |of: &BTreeSet<ReplicaId>| {
        2 * of.iter().filter(|replica| has(set, **replica)).count() > of.len()
    };
    majority(&membership.voters)
        && (membership.outgoing.is_empty() || majority(&membership.outgoing))
}

fn quorums(membership: &Membership) -> Vec<Set> {
    (0..=ALL).filter(|&set| is_quorum(membership, set)).collect()
}

fn all_meet(one: &Membership, other: &Membership) -> bool {
    let others = quorums(other);
    quorums(one).iter().all(|one| others.iter().all(|other| one & other != 0))
}

prop_compose! {
    fn targets()(voters in 1..=ALL, learners in 0..=ALL) -> Target {
        target(voters, learners)
    }
}

prop_compose! {
    fn simple()(target in targets()) -> Membership {
        let founded = Membership::founding(target.voters.clone());
        founded.begin_change(&target).expect("a fair target").unwrap_or(founded)
    }
}

prop_compose! {
    /// Simple or joint.
    fn memberships()(before in simple(), target in targets()) -> Membership {
        before.begin_change(&target).expect("a fair target").unwrap_or(before)
    }
}

proptest! {
    #[test]
    fn any_two_quorums_of_one_membership_meet(membership in memberships()) {
        prop_assert!(all_meet(&membership, &membership));
    }

    #[test]
    fn quorums_meet_across_every_step_of_a_change(before in simple(), target in targets()) {
        let Some(next) = before.begin_change(&target).expect("a fair target") else {
            return Ok(());
        };
        prop_assert!(all_meet(&before, &next));
        let Some(after) = next.leave_joint() else { return Ok(()) };
        prop_assert!(all_meet(&next, &after));
    }

    #[test]
    fn a_change_arrives_at_its_target(before in simple(), target in targets()) {
        let next = before.begin_change(&target).expect("a fair target").unwrap_or(before);
        let after = next.leave_joint().unwrap_or_else(|| next.clone());
        prop_assert_eq!(after.begin_change(&target), Ok(None));
        for membership in [next, after] {
            let located: BTreeSet<ReplicaId> = membership.nodes.keys().copied().collect();
            prop_assert_eq!(located, membership.replicas());
        }
    }

    #[test]
    fn the_commit_index_is_the_highest_that_a_quorum_holds(
        membership in memberships(),
        matched in prop::collection::vec(0u64..8, UNIVERSE as usize),
    ) {
        let holders = |index: u64| (0..UNIVERSE)
            .filter(|n| matched[*n as usize] >= index)
            .fold(0, |set, n| set | (1 << n));
        let expected = (0..8).filter(|&index| is_quorum(&membership, holders(index))).max();
        let index = membership.commit_index(|replica| LogIndex(matched[replica.0 as usize]));
        prop_assert_eq!(Some(index.0), expected);
    }

    #[test]
    fn a_tally_is_what_every_completion_of_the_votes_says(
        membership in memberships(),
        granted in 0..=ALL,
        refused in 0..=ALL,
    ) {
        let refused = refused & !granted;
        let votes = |set: Set, vote: bool| members(set).map(move |replica| (replica, vote));
        let known = votes(granted, true).chain(votes(refused, false)).collect();
        let expected = match (is_quorum(&membership, granted), is_quorum(&membership, !refused)) {
            (true, _) => Tally::Won,
            (false, true) => Tally::Open,
            (false, false) => Tally::Lost,
        };
        prop_assert_eq!(membership.tally(&known), expected);
        prop_assert_eq!(
            membership.has_quorum(|replica| has(granted, replica)),
            expected == Tally::Won
        );
    }
}
