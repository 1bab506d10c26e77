//! Who is chosen in a few plain situations, and what holds of every choice.

use proptest::prelude::*;

use super::*;
use crate::protocol::system::SystemCommand;
use crate::protocol::system::samples::{Cluster, describe, nodes, remove};
use crate::types::Incarnation;

/// The membership in which these nodes vote, under the replicas that they have now.
fn voting(cluster: &Cluster, voters: impl IntoIterator<Item = u64>) -> Membership {
    let all = cluster.state.members().iter();
    let all = all.map(|(node, known)| (known.system_replica, *node)).collect::<BTreeMap<_, _>>();
    let chosen = nodes(voters);
    let voters = all.iter().filter(|(_, node)| chosen.contains(node)).map(|(replica, _)| *replica);
    Membership { voters: voters.collect(), nodes: all, ..Membership::default() }
}

/// The membership that a target makes.
fn reached(target: &Target) -> Membership {
    let all = target.voters.iter().chain(&target.learners);
    Membership {
        voters: target.voters.keys().copied().collect(),
        outgoing: BTreeSet::new(),
        learners: target.learners.keys().copied().collect(),
        nodes: all.map(|(replica, node)| (*replica, *node)).collect(),
    }
}

fn voting_nodes(target: &Target) -> BTreeSet<NodeId> {
    target.voters.values().copied().collect()
}

/// Zones, who is up, who votes, and who shall vote.
type Case = (&'static [&'static str], &'static [u64], &'static [u64], &'static [u64]);

#[test]
fn plain_situations() {
    let cases: [Case; 16] = [
        // The number follows the members, as far as they are up.
        (&[""], &[1], &[1], &[1]),
        (&["", ""], &[1, 2], &[1], &[1]),
        (&["", "", ""], &[1, 2, 3], &[1], &[1, 2, 3]),
        (&["", "", ""], &[1, 2], &[1], &[1]),
        (&["", "", "", ""], &[1, 2, 3, 4], &[2, 3, 4], &[2, 3, 4]),
        (&["", "", "", "", ""], &[1, 2, 3, 4, 5], &[2, 3, 4], &[1, 2, 3, 4, 5]),
        (&["", "", "", "", ""], &[1, 2, 3, 4], &[2, 3, 4], &[2, 3, 4]),
        (&["", "", "", "", "", "", ""], &[1, 2, 3, 4, 5, 6, 7], &[3, 4, 5, 6, 7], &[3, 4, 5, 6, 7]),
        // The dead are replaced by the living, and only by them.
        (&["", "", "", ""], &[1, 2, 4], &[1, 2, 3], &[1, 2, 4]),
        (&["", "", ""], &[1, 2], &[1, 2, 3], &[1, 2, 3]),
        (&["", "", "", "", ""], &[1, 2, 3], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]),
        // Without a majority nothing can be changed.
        (&["", "", "", ""], &[1, 4], &[1, 2, 3], &[1, 2, 3]),
        // Zones: one voter each while there are enough, then as even as can be.
        (&["a", "a", "b", "c"], &[1, 2, 3, 4], &[1, 2, 3], &[1, 3, 4]),
        (&["a", "a", "b", "b"], &[1, 2, 3, 4], &[2, 4, 1], &[1, 2, 4]),
        (&["a", "a", "a", "b", "b", "c"], &[1, 2, 3, 4, 5, 6], &[3, 4, 6], &[1, 3, 4, 5, 6]),
        (&["a", "b", "c", "a"], &[1, 3, 4], &[1, 2, 3], &[1, 3, 4]),
    ];
    for (zones, up, voters, expected) in cases {
        let cluster = Cluster::of(zones);
        let current = voting(&cluster, voters.iter().copied());
        let target = choose_voters(&cluster.state, &nodes(up.iter().copied()), &current);
        let expected = nodes(expected.iter().copied());
        assert_eq!(voting_nodes(&target), expected, "{zones:?} up {up:?} voters {voters:?}");
        assert_eq!(target.learners.len(), zones.len() - expected.len());
    }
}

#[test]
fn a_removed_voter_goes_and_the_number_shrinks() {
    let mut cluster = Cluster::sized(3);
    let current = voting(&cluster, 1..=3);
    cluster.apply(remove(1)).unwrap();
    let target = choose_voters(&cluster.state, &nodes([2, 3]), &current);
    assert_eq!(voting_nodes(&target), nodes([2]));
    assert_eq!(target.learners.values().copied().collect::<BTreeSet<_>>(), nodes([3]));
    let target = choose_voters(&cluster.state, &nodes([3]), &current);
    assert_eq!(target.voters, present_voters(&current), "the one that is left cannot decide");
    let target = choose_voters(&cluster.state, &nodes([1, 3]), &current);
    assert_eq!(voting_nodes(&target), nodes([3]), "the removed one still agrees to its going");
}

#[test]
fn whoever_leaves_votes_no_more_once_nothing_keeps_it() {
    let mut cluster = Cluster::sized(6);
    cluster.settle();
    let current = voting(&cluster, 2..=6);
    let up = nodes(1..=6);
    let leave = SystemCommand::Reshape {
        join: BTreeSet::new(),
        leave: nodes(4..=6),
        replace: BTreeMap::new(),
        expected_epoch: None,
    };
    cluster.apply(leave).unwrap();
    let target = choose_voters(&cluster.state, &up, &current);
    assert_eq!(voting_nodes(&target), nodes(2..=6), "partitions lie on those that leave");
    cluster.settle();
    assert_eq!(cluster.state.needs(NodeId(4)), None);
    let target = choose_voters(&cluster.state, &up, &current);
    assert_eq!(voting_nodes(&target), nodes(1..=3));
    assert_eq!(target.learners.len(), 3, "they hear of it");
    let target = choose_voters(&cluster.state, &nodes(4..=6), &current);
    assert_eq!(voting_nodes(&target), nodes(2..=6), "nobody who stays is there");
}

#[test]
fn a_voter_that_lost_its_memory_is_replaced_by_what_it_is_now() {
    let mut cluster = Cluster::sized(3);
    let current = voting(&cluster, 1..=3);
    cluster.apply(describe(2, 2, |member| member.incarnation = Incarnation(8))).unwrap();
    let target = choose_voters(&cluster.state, &nodes(1..=3), &current);
    assert_eq!(reached(&target), voting(&cluster, 1..=3));
    assert!(!current.voters.contains(&cluster.state.members()[&NodeId(2)].system_replica));
    let target = choose_voters(&cluster.state, &nodes(1..=2), &current);
    assert_eq!(target.voters, present_voters(&current), "its old vote does not count");
}

/// What a choice is judged by, best first: dead voters, unevenness of zones, voters changed.
fn cost(chosen: &[&Candidate]) -> (usize, usize, usize) {
    let mut zones: BTreeMap<_, usize> = BTreeMap::new();
    for candidate in chosen {
        *zones.entry(&candidate.zone).or_default() += 1;
    }
    let dead = chosen.iter().filter(|candidate| !candidate.is_up).count();
    let new = chosen.iter().filter(|candidate| !candidate.is_voter).count();
    (dead, zones.values().map(|count| count * count).sum(), new)
}

/// The least cost of all ways to choose so many.
fn least_cost(candidates: &[Candidate], count: usize) -> (usize, usize, usize) {
    let subsets = (0_u32..1 << candidates.len()).filter(|set| set.count_ones() as usize == count);
    let costs = subsets.map(|set| {
        let all = candidates.iter().enumerate();
        let chosen: Vec<&Candidate> =
            all.filter(|(at, _)| set & (1 << at) != 0).map(|(_, candidate)| candidate).collect();
        cost(&chosen)
    });
    costs.min().unwrap()
}

/// Up to eight nodes: the zone of each, whether it is up, and whether it votes.
fn situations() -> impl Strategy<Value = Vec<(&'static str, bool, bool)>> {
    let zone = prop::sample::select(vec!["", "a", "b", "c"]);
    prop::collection::vec((zone, prop::bool::weighted(0.75), any::<bool>()), 1..=8)
}

fn numbers(flags: impl Iterator<Item = bool>) -> Vec<u64> {
    (1..).zip(flags).filter(|(_, flag)| *flag).map(|(number, _)| number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_choice_is_the_best(situation in situations()) {
        let zones: Vec<&str> = situation.iter().map(|(zone, _, _)| *zone).collect();
        let cluster = Cluster::of(&zones);
        let up = nodes(numbers(situation.iter().map(|(_, up, _)| *up)));
        let current = voting(&cluster, numbers(situation.iter().map(|(_, _, votes)| *votes)));
        let target = choose_voters(&cluster.state, &up, &current);

        let all = target.voters.iter().chain(&target.learners);
        let members = cluster.state.members().iter();
        let expected = members.map(|(node, known)| (known.system_replica, *node));
        let expected: BTreeMap<ReplicaId, NodeId> = expected.collect();
        prop_assert_eq!(all.map(|(r, n)| (*r, *n)).collect::<BTreeMap<_, _>>(), expected);

        if !can_decide(&cluster.state, &up, &current) {
            prop_assert_eq!(target.voters, present_voters(&current));
            return Ok(());
        }
        let count = target.voters.len();
        prop_assert!(count % 2 == 1 && count <= zones.len().min(VOTERS_MAX));
        let live = target.voters.values().filter(|node| up.contains(node)).count();
        prop_assert!(2 * live > count, "{live} of {count} are up");

        let candidates = candidates(&cluster.state, &up, &current);
        let chosen: Vec<&Candidate> = candidates
            .iter()
            .filter(|candidate| target.voters.contains_key(&candidate.replica))
            .collect();
        prop_assert_eq!(chosen.len(), count, "nobody becomes a voter while down");
        prop_assert_eq!(cost(&chosen), least_cost(&candidates, count));
        let more = count + 2;
        prop_assert!(
            more > candidates.len().min(VOTERS_MAX) || more > 2 * up.len() - 1,
            "{count} of {candidates:?} are too few"
        );

        let again = choose_voters(&cluster.state, &up, &reached(&target));
        prop_assert_eq!(again, target);
    }

    #[test]
    fn a_node_that_comes_and_goes_costs_at_most_its_own_place(
        situation in situations(),
        flapping in 1_u64..=8,
    ) {
        // Without zones, whoever took the place keeps it.
        let cluster = Cluster::sized(situation.len());
        let flapping = NodeId(flapping.min(situation.len() as u64));
        let all = nodes(1..=situation.len() as u64);
        let first = choose_voters(&cluster.state, &all, &voting(&cluster, [1]));
        let without = all.iter().copied().filter(|node| *node != flapping).collect();
        let second = choose_voters(&cluster.state, &without, &reached(&first));
        let third = choose_voters(&cluster.state, &all, &reached(&second));
        prop_assert_eq!(voting_nodes(&third), voting_nodes(&second));
        let changed = voting_nodes(&first).difference(&voting_nodes(&second)).count();
        prop_assert!(changed <= 1);
    }
}
