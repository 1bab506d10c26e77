//! What every ring must be: fixed values, lookups, and properties of any set of members.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

pub(super) fn member(node: u64, zone: &str, vnodes: u32) -> RingMember {
    RingMember::new(NodeId(node), zone, vnodes)
}

fn ring(partitions: u32, replication_factor: u32, members: &[RingMember]) -> Ring {
    Ring::new(Epoch(1), partitions, replication_factor, members).expect("valid parameters")
}

/// Five members without zones, of the default 128 vnodes.
fn five() -> Vec<RingMember> {
    (1..=5).map(|node| member(node, "", 128)).collect()
}

fn preference_list(ring: &Ring, partition: PartitionId) -> Vec<NodeId> {
    ring.primaries(partition).iter().copied().chain(ring.fallbacks(partition)).collect()
}

/// Stored keys are found by these tokens, so the values are fixed for good. The two words that
/// the reference implementation prints for "hello" are cbd8a7b341bd9b02 and 5b1e906a48ae1d19.
#[test]
fn the_token_of_a_key_never_changes() {
    assert_eq!(token_of(&Key::from("hello")), Token(0x5b1e_906a_48ae_1d19));
    assert_eq!(token_of(&Key::from("")), Token(0));
    let long = "The quick brown fox jumps over the lazy dog";
    assert_eq!(token_of(&Key::from(long)), Token(0x7a43_3ca9_c49a_9347));
}

/// Nodes of different versions must place alike, so these values are fixed for good too.
#[test]
fn the_placement_of_given_members_never_changes() {
    let tokens: Vec<u64> =
        tokens_of(NodeId(1), 128).map(|token| token.0).step_by(100).take(4).collect();
    assert_eq!(
        tokens,
        [
            0x47aa_f80d_5158_a76e,
            0xefeb_848d_dfca_aef6,
            0x1ead_8a7b_6d67_39cd,
            0x18a3_e3c8_58fa_267a
        ]
    );
    let ring = ring(256, 3, &five());
    let placed: Vec<String> = [0, 1, 100, 255]
        .map(|partition| preference_list(&ring, PartitionId(partition)))
        .iter()
        .map(|nodes| nodes.iter().map(|node| node.0.to_string()).collect())
        .collect();
    assert_eq!(placed, ["21345", "12345", "43215", "15342"]);
}

#[test]
fn a_tier_has_one_token_in_each_arc_and_each_stratum() {
    let tokens: Vec<u64> = tokens_of(NodeId(9), 64).map(|token| token.0).collect();
    assert_eq!(tokens.len(), 2 * tokens::TIER_TOKENS);
    for tier in tokens.chunks(tokens::TIER_TOKENS) {
        let arcs: BTreeSet<u64> = tier.iter().map(|token| token >> 57).collect();
        let strata: BTreeSet<u64> = tier.iter().map(|token| (token >> 50) & 127).collect();
        assert_eq!((arcs.len(), strata.len()), (128, 128));
    }
}

#[test]
fn more_vnodes_keep_the_tokens_of_fewer() {
    let tokens = |vnodes| tokens_of(NodeId(9), vnodes).collect::<Vec<_>>();
    let (few, many) = (tokens(40), tokens(130));
    assert_eq!(few, many[..few.len()]);
    assert_eq!(many.len(), 130 * TOKENS_PER_VNODE);
}

#[test]
fn impossible_parameters_are_named() {
    let error = |partitions, factor, members: &[RingMember]| {
        Ring::new(Epoch(1), partitions, factor, members).expect_err("an error")
    };
    for got in [0, 3, 255, 65_536] {
        assert_eq!(error(got, 3, &[]), RingError::PartitionsNotPowerOfTwo { got });
    }
    assert_eq!(error(256, 0, &[]), RingError::ReplicationFactorZero);
    let (node, vnodes_max) = (NodeId(1), VNODES_MAX);
    for got in [0, VNODES_MAX + 1] {
        let expected = RingError::VnodesOutOfRange { node, got, vnodes_max };
        assert_eq!(error(256, 3, &[member(1, "", got)]), expected);
    }
    let twice = [member(1, "", 8), member(2, "", 8), member(1, "a", 9)];
    assert_eq!(error(256, 3, &twice), RingError::DuplicateNode { node });
}

#[test]
fn a_ring_without_members_has_partitions_but_no_primaries() {
    let ring = ring(256, 3, &[]);
    assert_eq!((ring.replicas_in_effect(), ring.vnodes(), ring.members().len()), (0, 0, 0));
    let partition = ring.partition_of(&Key::from("k"));
    assert!(preference_list(&ring, partition).is_empty());
    assert_eq!(ring.partitions_of(NodeId(1)).count(), 0);
}

#[test]
fn a_ring_says_what_it_was_made_of() {
    let unsorted = [member(7, "b", 3), member(2, "a", 5)];
    let ring = Ring::new(Epoch(4), 1024, 3, &unsorted).expect("valid parameters");
    assert_eq!((ring.epoch(), ring.partitions(), ring.replication_factor()), (Epoch(4), 1024, 3));
    assert_eq!((ring.replicas_in_effect(), ring.vnodes()), (2, 8));
    assert_eq!(ring.members(), [unsorted[1].clone(), unsorted[0].clone()]);
    assert!(ring.contains(NodeId(7)) && !ring.contains(NodeId(3)));
}

#[test]
fn the_uppermost_bits_of_a_token_are_its_partition() {
    for (partitions, token, expected) in [
        (1, u64::MAX, 0),
        (2, u64::MAX >> 1, 0),
        (2, 1 << 63, 1),
        (256, 0x7f << 56, 0x7f),
        (PARTITIONS_MAX, u64::MAX, 32_767),
    ] {
        let found = ring(partitions, 1, &[]).partition_of_token(Token(token));
        assert_eq!(found, PartitionId(expected), "{partitions} partitions, {token:x}");
    }
}

#[test]
fn a_partition_that_the_ring_lacks_has_no_nodes() {
    let ring = ring(16, 3, &five());
    assert!(!preference_list(&ring, PartitionId(15)).is_empty());
    for beyond in [16, u16::MAX] {
        assert!(preference_list(&ring, PartitionId(beyond)).is_empty());
    }
}

#[test]
fn partitions_of_a_node_are_those_that_name_it() {
    let ring = ring(64, 3, &five());
    let places: usize = (1..=5).map(|node| ring.partitions_of(NodeId(node)).count()).sum();
    assert_eq!(places, 64 * 3);
    for partition in ring.partitions_of(NodeId(2)) {
        assert!(ring.primaries(partition).contains(&NodeId(2)));
    }
}

#[test]
fn moves_name_what_is_gained_and_lost() {
    let (four, five) = (ring(64, 3, &five()[..4]), ring(64, 3, &five()));
    assert_eq!(moves(&five, &five), []);
    let (joins, leaves) = (moves(&four, &five), moves(&five, &four));
    assert_eq!(joins.len(), five.partitions_of(NodeId(5)).count());
    for (join, leave) in joins.iter().zip(&leaves) {
        assert_eq!(
            (join.partition, &join.gained, &join.lost),
            (leave.partition, &leave.lost, &leave.gained)
        );
        assert_eq!((&join.gained[..], join.lost.len()), (&[NodeId(5)][..], 1));
    }
    let founded = moves(&ring(64, 3, &[]), &four);
    assert_eq!(founded.len(), 64);
    assert!(founded.iter().all(|found| found.gained == four.primaries(found.partition)));
}

/// Members of few vnodes in up to four zones or none; ids spread over the whole range.
fn any_members() -> impl Strategy<Value = Vec<RingMember>> {
    let zone = proptest::sample::select(vec!["", "", "a", "b", "c", "d"]);
    proptest::collection::btree_map(any::<u64>(), (zone, 1u32..12), 1..9).prop_map(|members| {
        members.into_iter().map(|(node, (zone, vnodes))| member(node, zone, vnodes)).collect()
    })
}

/// The preference list by its definition: nodes sorted by the distance to their next token, one of
/// each zone first.
fn defined_preference_list(ring: &Ring, partition: PartitionId) -> Vec<NodeId> {
    let start = (u128::from(partition.0) << 64) / u128::from(ring.partitions());
    let mut nearest: Vec<(u64, &RingMember)> = (ring.members().iter())
        .map(|member| {
            let tokens = tokens_of(member.node, member.vnodes);
            let distances = tokens.map(|token| token.0.wrapping_sub(start as u64));
            (distances.min().expect("a token"), member)
        })
        .collect();
    nearest.sort_by_key(|(distance, member)| (*distance, member.node));
    let mut zones = BTreeSet::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for (_, member) in nearest {
        let new_zone = member.zone.is_empty() || zones.insert(&member.zone);
        if new_zone { first.push(member.node) } else { rest.push(member.node) }
    }
    first.extend(rest);
    first
}

/// Zones that the nodes are of, a node without one counting as one of its own.
fn zones_among(ring: &Ring, nodes: &[NodeId]) -> usize {
    let zones: BTreeSet<String> = (ring.members().iter())
        .filter(|member| nodes.contains(&member.node))
        .map(|member| match member.zone.as_str() {
            "" => member.node.to_string(),
            zone => format!("zone {zone}"),
        })
        .collect();
    zones.len()
}

/// What a join does, zones or not: the joiner gains, at most one other loses, nobody else gains.
fn assert_only_the_joiner_gains(before: &Ring, after: &Ring, joiner: NodeId) {
    let displaces = before.replicas_in_effect() == before.replication_factor();
    let moved = moves(before, after);
    for change in &moved {
        assert_eq!(change.gained, [joiner]);
        assert_eq!(change.lost.len(), usize::from(displaces));
    }
    let gained: Vec<PartitionId> = moved.iter().map(|change| change.partition).collect();
    assert_eq!(gained, after.partitions_of(joiner).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn a_preference_list_is_what_its_definition_says(
        members in any_members(), bits in 0u32..5, factor in 1u32..6,
    ) {
        let ring = ring(1 << bits, factor, &members);
        for partition in ring.partition_ids() {
            let list = preference_list(&ring, partition);
            prop_assert_eq!(&list, &defined_preference_list(&ring, partition));
            prop_assert_eq!(list.len(), members.len());
            prop_assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
            let primaries = ring.primaries(partition);
            prop_assert_eq!(primaries.len(), members.len().min(factor as usize));
            let all_nodes: Vec<NodeId> = members.iter().map(|member| member.node).collect();
            let zones = zones_among(&ring, &all_nodes).min(factor as usize);
            prop_assert_eq!(zones_among(&ring, primaries), zones);
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter(
        (members, shuffled) in any_members()
            .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
    ) {
        prop_assert_eq!(ring(32, 3, &members), ring(32, 3, &shuffled));
    }

    #[test]
    fn a_join_moves_only_what_the_joiner_gains_and_a_leave_only_what_it_loses(
        members in any_members(),
        bits in 0u32..7,
        factor in 1u32..6,
        which in any::<prop::sample::Index>(),
    ) {
        let joiner = which.get(&members).node;
        let others: Vec<RingMember> =
            members.iter().filter(|member| member.node != joiner).cloned().collect();
        let (before, after) = (ring(1 << bits, factor, &others), ring(1 << bits, factor, &members));
        assert_only_the_joiner_gains(&before, &after, joiner);
        let reversed: Vec<Move> = moves(&before, &after)
            .into_iter()
            .map(|Move { partition, gained, lost }| Move { partition, gained: lost, lost: gained })
            .collect();
        prop_assert_eq!(moves(&after, &before), reversed);
    }

    #[test]
    fn without_zones_a_join_leaves_the_order_of_the_others(
        members in any_members(), which in any::<prop::sample::Index>(),
    ) {
        let zoneless: Vec<RingMember> =
            members.iter().map(|of| member(of.node.0, "", of.vnodes)).collect();
        let joiner = which.get(&zoneless).node;
        let others: Vec<RingMember> =
            zoneless.iter().filter(|member| member.node != joiner).cloned().collect();
        let (before, after) = (ring(32, 3, &others), ring(32, 3, &zoneless));
        for partition in before.partition_ids() {
            let mut list = preference_list(&after, partition);
            list.retain(|node| *node != joiner);
            prop_assert_eq!(list, preference_list(&before, partition));
        }
    }
}
