//! The Raft core under everything that can happen to it: every run is a seed.
//!
//! Bare cores run on simulated disks, clocks and a simulated network (`cluster.rs`), faults happen
//! as the seed has them (`faults.rs`), and after every action `invariants/` judges what was done.
//! When the faults stop the group must serve again (`run.rs`).
//!
//! * `COTERIE_RAFT_SEED=7 cargo test --test raft replay -- --nocapture` runs one seed, and with
//!   `COTERIE_RAFT_TRACE=1` prints everything that happens in it;
//! * `COTERIE_RAFT_SEEDS=1000 cargo test --test raft fresh` runs so many new seeds, counting up
//!   from `COTERIE_RAFT_BASE` if that is set;
//! * `seeds.txt` keeps seeds that once failed, or that reach something rare; they always run;
//! * `differential.rs` compares the core with another implementation;
//! * `scripts/` shows in words what the core says and does; `COTERIE_GOLDEN=update` rewrites it.

#![allow(missing_docs, reason = "nothing outside reads a test's crate")]

mod cluster;
#[path = "../simulation/dice.rs"]
mod dice;
mod differential;
mod disk;
mod faults;
mod invariants;
mod machine;
mod network;
mod planted;
mod run;
mod scripts;
mod setup;
mod show;
#[path = "../simulation/trace.rs"]
mod trace;

use std::hash::{BuildHasher, RandomState};

use run::{Report, run};
use trace::Counts;

/// How many fresh seeds `cargo test` runs.
const FRESH_SEEDS: u64 = 50;

#[test]
fn recorded_seeds_hold() {
    let recorded = include_str!("seeds.txt").lines().map(|line| line.split('#').next());
    let seeds: Vec<u64> = recorded
        .filter_map(|text| text.map(str::trim).filter(|text| !text.is_empty()))
        .map(|text| text.parse().expect("seeds.txt: a decimal seed, then a # comment"))
        .collect();
    hold("recorded", &seeds);
}

#[test]
fn fresh_seeds_hold() {
    let count = number("COTERIE_RAFT_SEEDS").unwrap_or(FRESH_SEEDS);
    // The standard library's hasher keys are the operating system's randomness.
    let base = number("COTERIE_RAFT_BASE").unwrap_or_else(|| RandomState::new().hash_one(0) >> 20);
    println!("fresh seeds from {base}; the same again: COTERIE_RAFT_BASE={base}");
    let seeds: Vec<u64> = (base..base + count).collect();
    hold("fresh", &seeds);
}

#[test]
fn replay_of_the_seed_in_the_environment() {
    let seeds: Vec<u64> = number("COTERIE_RAFT_SEED").into_iter().collect();
    hold("replayed", &seeds);
}

#[test]
fn a_seed_replays_message_by_message() {
    for seed in 1..=4 {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        assert_eq!(first, second, "seed {seed}: something depends on more than the seed");
        assert_ne!(first.counts.messages, 0, "seed {seed}: nothing was sent");
    }
}

/// Runs seeds and fails with all that was violated, and how to see it again.
fn hold(kind: &str, seeds: &[u64]) {
    let printing = std::env::var_os("COTERIE_RAFT_TRACE").is_some_and(|value| value == "1");
    let reports: Vec<Report> = seeds.iter().map(|seed| run(*seed, None, printing)).collect();
    println!("{}", summary(kind, &reports));
    let broken: Vec<String> = reports.iter().filter_map(complaint).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

fn summary(kind: &str, reports: &[Report]) -> String {
    let sum = |count: fn(&Counts) -> u64| reports.iter().map(|r| count(&r.counts)).sum::<u64>();
    format!(
        "{} {kind} seeds: {} steps, {} messages, {} reads answered, {} faults",
        reports.len(),
        sum(|counts| counts.steps),
        sum(|counts| counts.messages),
        sum(|counts| counts.answers),
        sum(|counts| counts.faults),
    )
}

fn complaint(report: &Report) -> Option<String> {
    let (seed, broken) = (report.seed, report.broken.as_ref()?);
    Some(format!(
        "seed {seed}: {}: {}\n  replay: COTERIE_RAFT_SEED={seed} cargo test --test raft replay -- \
         --nocapture",
        broken.invariant, broken.detail
    ))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{variable} must be a decimal number, not {text:?}")))
}
