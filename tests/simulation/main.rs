//! Whole clusters in one process on virtual time: every run is a seed.
//!
//! Several nodes run on simulated machines, disks, clocks and a simulated network, while clients
//! work and faults happen as the seed has them. When all faults have stopped the cluster must
//! heal, and `invariants/` judges what the clients saw. A seed replays with an identical trace:
//!
//! * `COTERIE_SIM_SEED=7 cargo test --test simulation replay -- --nocapture` runs one seed, and
//!   with `COTERIE_SIM_TRACE=1` prints everything that happens in it;
//! * `COTERIE_SIM_SEEDS=200 cargo test --test simulation fresh` runs 200 new seeds, counting up
//!   from `COTERIE_SIM_BASE` if that is set;
//! * `seeds.txt` keeps seeds that once failed, or that reach something rare; they always run.

mod agenda;
mod cluster;
mod converging;
mod dice;
mod directed;
mod disk;
mod faults;
mod gossip;
mod history;
mod invariants;
mod keyspaces;
#[path = "../linearizability/mod.rs"]
mod linearizability;
mod listing;
mod looks;
mod machine;
mod mending;
mod mergeable;
mod merging;
mod network;
mod planted;
mod reaping;
mod run;
mod scenario;
mod siblings;
mod steps;
mod strong;
mod trace;
mod workload;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};

use planted::Planted;
use run::{Kind, Report, Setup, run};
use trace::Counts;

/// How many fresh seeds `cargo test` runs.
const FRESH_SEEDS: u64 = 20;

/// Within how many seeds a bug planted under strong keyspaces must be caught.
const PLANTED_IN_STRONG_SEEDS_MAX: u64 = 200;

/// Within how many seeds a planted bug must be caught.
const PLANTED_SEEDS_MAX: u64 = 40;

#[test]
fn recorded_seeds_hold() {
    let recorded = include_str!("seeds.txt").lines().map(|line| line.split('#').next());
    let lines = recorded.filter_map(|text| text.map(str::trim).filter(|text| !text.is_empty()));
    let seeds: Vec<(Kind, u64)> = lines
        .map(|text| recorded_seed(text).expect("seeds.txt: a kind, a decimal seed, a # comment"))
        .collect();
    hold("recorded", &seeds);
}

fn recorded_seed(text: &str) -> Option<(Kind, u64)> {
    let (kind, seed) = text.split_once(' ')?;
    Some((Kind::named(kind)?, seed.trim().parse().ok()?))
}

#[test]
fn fresh_seeds_hold() {
    let count = number("COTERIE_SIM_SEEDS").unwrap_or(FRESH_SEEDS);
    // The standard library's hasher keys are the operating system's randomness.
    let base = number("COTERIE_SIM_BASE").unwrap_or_else(|| RandomState::new().hash_one(0) >> 20);
    println!("fresh seeds from {base}; the same again: COTERIE_SIM_BASE={base}");
    let seeds: Vec<(Kind, u64)> = (base..base + count).map(of_any_kind).collect();
    hold("fresh", &seeds);
}

#[test]
fn replay_of_the_seed_in_the_environment() {
    let seeds: Vec<(Kind, u64)> = number("COTERIE_SIM_SEED").into_iter().map(of_any_kind).collect();
    hold("replayed", &seeds);
}

#[test]
fn a_seed_replays_message_by_message() {
    let kinds = [Kind::Quorum, Kind::Strong, Kind::Ring];
    for (kind, seed) in kinds.into_iter().flat_map(|kind| (1..=4).map(move |seed| (kind, seed))) {
        let setup = Setup { seed, kind, planted: None, ring: None, raft: None, printing: false };
        let (first, second) = (run(setup), run(setup));
        assert_eq!(first, second, "{kind:?} {seed}: something depends on more than the seed");
        assert_ne!(first.counts.messages, 0, "{kind:?} {seed}: nothing was sent");
    }
}

#[test]
fn every_planted_bug_is_caught() {
    for bug in Planted::ALL {
        let mut broken: BTreeSet<&str> = BTreeSet::new();
        let caught = (0..PLANTED_SEEDS_MAX).find(|seed| {
            let (kind, planted) = (Kind::Quorum, Some(bug));
            let report =
                run(Setup { seed: *seed, kind, planted, ring: None, raft: None, printing: false });
            broken.extend(report.violations.iter().map(|violation| violation.invariant));
            bug.caught_by().iter().any(|expected| broken.contains(expected))
        });
        let Some(seed) = caught else {
            let expected = bug.caught_by();
            panic!("{bug:?} broke {broken:?} in {PLANTED_SEEDS_MAX} seeds, none of {expected:?}");
        };
        println!("{bug:?} was caught by seed {seed}");
    }
}

/// A seed with the kind that the environment names, else the one that it stands for itself.
fn of_any_kind(seed: u64) -> (Kind, u64) {
    let Ok(name) = std::env::var("COTERIE_SIM_KIND") else { return (Kind::of(seed), seed) };
    let kind = Kind::named(&name);
    (
        kind.unwrap_or_else(|| {
            panic!("COTERIE_SIM_KIND must be quorum, strong or ring, not {name:?}")
        }),
        seed,
    )
}

#[test]
fn every_bug_planted_under_strong_keyspaces_is_caught() {
    for bug in Planted::OF_STRONG {
        catch(bug, bug.caught_by(), |seed| Setup { planted: Some(bug), ..strong(seed) });
    }
    for (bug, expected) in planted::IN_RAFT {
        catch(bug, expected, |seed| Setup { raft: Some(bug), ..strong(seed) });
    }
}

#[test]
fn every_bug_planted_under_a_ring_that_changes_is_caught() {
    for (bug, expected) in planted::IN_RING {
        catch(bug, expected, |seed| Setup { ring: Some(bug), ..of_ring(seed) });
    }
}

#[test]
fn every_bug_planted_under_listings_is_caught() {
    for (bug, expected) in planted::IN_LISTINGS {
        catch(bug, expected, |seed| Setup { kind: Kind::Quorum, ring: Some(bug), ..strong(seed) });
    }
}

#[test]
fn every_bug_planted_under_watches_is_caught() {
    for (bug, expected) in planted::IN_WATCHES {
        catch(bug, expected, |seed| Setup { raft: Some(bug), ..strong(seed) });
    }
}

#[test]
fn every_bug_planted_under_contexts_is_caught() {
    for (bug, expected) in planted::IN_CONTEXTS {
        catch(bug, expected, |seed| Setup { kind: Kind::Quorum, ring: Some(bug), ..strong(seed) });
    }
}

#[test]
fn every_bug_planted_under_siblings_is_caught() {
    for (bug, expected) in planted::IN_SIBLINGS {
        catch(bug, expected, |seed| Setup { kind: Kind::Quorum, ring: Some(bug), ..strong(seed) });
    }
}

#[test]
fn every_bug_planted_under_counters_and_sets_is_caught() {
    for (bug, expected) in planted::IN_MERGEABLE {
        catch(bug, expected, |seed| Setup { kind: Kind::Quorum, ring: Some(bug), ..strong(seed) });
    }
}

fn of_ring(seed: u64) -> Setup {
    Setup { kind: Kind::Ring, ..strong(seed) }
}

fn strong(seed: u64) -> Setup {
    Setup { seed, kind: Kind::Strong, planted: None, ring: None, raft: None, printing: false }
}

/// Runs seed after seed until one breaks what is expected.
fn catch(bug: impl Debug, expected: &[&str], setup: impl Fn(u64) -> Setup) {
    let mut broken: BTreeSet<&str> = BTreeSet::new();
    let caught = (0..PLANTED_IN_STRONG_SEEDS_MAX).find(|seed| {
        let violations = run(setup(*seed)).violations;
        broken.extend(violations.iter().map(|violation| violation.invariant));
        expected.iter().any(|expected| broken.contains(expected))
    });
    let Some(seed) = caught else {
        panic!("{bug:?} broke {broken:?} in {PLANTED_IN_STRONG_SEEDS_MAX} seeds");
    };
    println!("{bug:?} was caught by seed {seed}: {broken:?}");
}

/// Runs seeds and fails with all that was violated, and how to see it again.
fn hold(which: &str, seeds: &[(Kind, u64)]) {
    let printing = std::env::var_os("COTERIE_SIM_TRACE").is_some_and(|value| value == "1");
    let setup =
        |&(kind, seed)| Setup { seed, kind, planted: None, ring: None, raft: None, printing };
    let reports: Vec<Report> = seeds.iter().map(|seed| run(setup(seed))).collect();
    println!("{}", summary(which, &reports));
    let broken: Vec<String> = reports.iter().filter_map(complaint).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

fn summary(which: &str, reports: &[Report]) -> String {
    let sum = |count: fn(&Counts) -> u64| reports.iter().map(|r| count(&r.counts)).sum::<u64>();
    format!(
        "{} {which} seeds: {} steps, {} messages, {} answers, {} faults",
        reports.len(),
        sum(|counts| counts.steps),
        sum(|counts| counts.messages),
        sum(|counts| counts.answers),
        sum(|counts| counts.faults),
    )
}

fn complaint(report: &Report) -> Option<String> {
    const SHOWN_MAX: usize = 8;
    let (seed, kind) = (report.seed, report.kind.name());
    if report.violations.is_empty() {
        return None;
    }
    let shown = report.violations.iter().take(SHOWN_MAX);
    let lines: Vec<String> =
        shown.map(|violation| format!("  {}: {}", violation.invariant, violation.detail)).collect();
    Some(format!(
        "{kind} seed {seed}, {} violations:\n{}\n  replay: COTERIE_SIM_KIND={kind} \
         COTERIE_SIM_SEED={seed} COTERIE_SIM_TRACE=1 \
         cargo test --test simulation replay -- --nocapture",
        report.violations.len(),
        lines.join("\n")
    ))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{variable} must be a decimal number, not {text:?}")))
}
