//! How evenly rings of equal nodes spread their load: the bounds that hold for every seed tried.
//!
//! The table of `docs/decisions/0001-ring-placement.md` is printed by
//! `cargo test --lib ring::spread_tests -- --ignored --nocapture`.

use super::tests::member;
use super::*;

/// The default number of vnodes.
const VNODES: u32 = 128;

/// A seeded sequence of node ids (splitmix64; Steele et al., 2014).
fn node_ids(seed: u64) -> impl Iterator<Item = u64> {
    (1u64..).map(move |index| {
        let golden_gamma = 0x9e37_79b9_7f4a_7c15u64;
        let mut word =
            seed.wrapping_mul(0x1_0000_0001).wrapping_add(index.wrapping_mul(golden_gamma));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    })
}

/// A ring of equal nodes, dealt out to so many zones (0 for none) in turn.
fn ring_of(seed: u64, nodes: usize, zones: usize, partitions: u32, factor: u32) -> Ring {
    let members: Vec<RingMember> = (node_ids(seed).take(nodes).enumerate())
        .map(|(index, node)| match index.checked_rem(zones) {
            Some(zone) => member(node, &format!("z{zone}"), VNODES),
            None => member(node, "", VNODES),
        })
        .collect();
    Ring::new(Epoch(1), partitions, factor, &members).expect("valid parameters")
}

/// Each node's partitions over its fair share of them, less 1.
fn deviations(ring: &Ring) -> Vec<f64> {
    let places = f64::from(ring.partitions() * ring.replicas_in_effect());
    let fair = places / ring.members().len() as f64;
    (ring.members().iter())
        .map(|member| ring.partitions_of(member.node).count() as f64 / fair - 1.0)
        .collect()
}

fn worst(ring: &Ring) -> f64 {
    deviations(ring).into_iter().fold(0.0, |worst, deviation| deviation.abs().max(worst))
}

fn assert_spread_within(bound: f64, seeds: u64, nodes: usize, partitions: u32) {
    for seed in 1..=seeds {
        let worst = worst(&ring_of(seed, nodes, 0, partitions, 3));
        assert!(worst <= bound, "seed {seed}, {nodes} nodes: {:.1} %", worst * 100.0);
    }
}

#[test]
fn with_4096_partitions_3_to_32_nodes_are_within_15_percent() {
    for nodes in 3..=32 {
        assert_spread_within(0.15, 4, nodes, 4096);
    }
}

#[test]
fn with_128_partitions_per_node_they_are_within_15_percent() {
    for nodes in [4, 8, 16] {
        assert_spread_within(0.15, 20, nodes, 128 * nodes as u32);
    }
}

/// Regression bounds for the default Q, as measured; see the module's caveat.
#[test]
fn with_the_default_256_partitions_the_spread_is_what_the_docs_say() {
    for (nodes, bound) in [(3, 0.15), (5, 0.15), (12, 0.25), (32, 0.5)] {
        assert_spread_within(bound, 20, nodes, 256);
    }
}

/// A join is a leave read backwards, so both are bounded here.
#[test]
fn a_joiner_moves_no_more_than_its_fair_share_and_a_third() {
    for (partitions, nodes_max) in [(256, 8), (4096, 32)] {
        for nodes in 3..nodes_max {
            let seed = nodes as u64;
            let before = ring_of(seed, nodes, 0, partitions, 3);
            let after = ring_of(seed, nodes + 1, 0, partitions, 3);
            let fair = f64::from(partitions * 3) / (nodes + 1) as f64;
            let moved = moves(&before, &after).len() as f64;
            assert!(moved <= 1.3 * fair, "{partitions} partitions, {nodes} nodes: {moved}");
        }
    }
}

#[test]
fn a_node_carries_in_proportion_to_its_vnodes() {
    let members: Vec<RingMember> = (node_ids(1).take(12).enumerate())
        .map(|(index, node)| member(node, "", if index < 6 { 64 } else { 192 }))
        .collect();
    let ring = Ring::new(Epoch(1), 4096, 1, &members).expect("valid parameters");
    let small: usize =
        (members[..6].iter()).map(|member| ring.partitions_of(member.node).count()).sum();
    let share = small as f64 / 4096.0;
    assert!((0.22..0.28).contains(&share), "a quarter of the vnodes carries {share:.3}");
}

/// Standard deviation, median and greatest of the rings' worst deviations, in per cent.
fn print_row(nodes: usize, zones: usize, partitions: u32, factor: u32, seeds: u64) {
    let (mut squares, mut count, mut worst_of_ring) = (0.0, 0, Vec::new());
    for seed in 1..=seeds {
        let ring = ring_of(seed, nodes, zones, partitions, factor);
        squares += deviations(&ring).iter().map(|deviation| deviation.powi(2)).sum::<f64>();
        count += nodes;
        worst_of_ring.push(worst(&ring));
    }
    worst_of_ring.sort_by(f64::total_cmp);
    let percent = |fraction: f64| format!("{:.1}", fraction * 100.0);
    println!(
        "| {nodes} | {zones} | {factor} | {partitions} | {} | {} | {} |",
        percent((squares / f64::from(count as u32)).sqrt()),
        percent(worst_of_ring[worst_of_ring.len() / 2]),
        percent(worst_of_ring[worst_of_ring.len() - 1]),
    );
}

#[test]
#[ignore = "prints the table of the decision, in some minutes"]
fn print_the_table() {
    println!("| nodes | zones | N | Q | standard deviation | median worst | worst |");
    for partitions in [256, 1024, 4096, 16_384] {
        for nodes in [3, 4, 5, 8, 12, 16, 24, 32] {
            print_row(nodes, 0, partitions, 3, 100);
        }
        print_row(12, 3, partitions, 3, 100);
        print_row(32, 0, partitions, 1, 100);
        print_row(32, 0, partitions, 5, 100);
    }
}
