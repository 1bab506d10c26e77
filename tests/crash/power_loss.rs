//! Power loss under a node on real files: log and engine, several callers, values of all sizes.
//!
//! Each round runs the node on what the last one left, kills it at a random moment (while it
//! recovers, under load, or once it has stopped in good order), and takes away what was not synced:
//! all of it, or page by page a random part.

use coterie::proto::v1::Level;

use crate::dice::Dice;
use crate::disk::Disk;
use crate::harness::{NodeProcess, NodeSpec};
use crate::ledger::check_none;
use crate::load::{Load, Shape, Writer, acknowledged, read_back, writers};
use crate::plan::{Plan, pass, stop};

/// Tables and segments so small that each round feeds, checkpoints and changes segments.
pub(crate) const SMALL_TABLES: [&str; 7] = [
    "--partitions=16",
    "--request-timeout=20s",
    "--wal-segment-bytes=2MiB",
    "--value-bytes-max=512KiB",
    "--memtable-bytes-max=1MiB",
    "--memtable-age-max=100ms",
    "--disk-reserve-bytes=1MiB",
];

const WRITERS: usize = 4;
/// In so many rounds something must have been forgotten.
const ROUNDS_THAT_FORGET: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remains {
    WhatWasSynced,
    Some,
}

#[test]
fn what_was_acknowledged_survives_a_power_loss() {
    let name = "power_loss::what_was_acknowledged_survives_a_power_loss";
    run(&Plan::of(name, 4, 40), Remains::WhatWasSynced);
}

#[test]
fn what_was_acknowledged_survives_a_power_loss_that_keeps_some_pages() {
    let name = "power_loss::what_was_acknowledged_survives_a_power_loss_that_keeps_some_pages";
    run(&Plan::of(name, 4, 40), Remains::Some);
}

fn run(plan: &Plan, remains: Remains) {
    let mut dice = plan.dice();
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut spec = NodeSpec::new(root.path(), "n1", &[]);
    spec.arguments = SMALL_TABLES.map(str::to_owned).to_vec();
    let disk = Disk::under(&mut spec, true);
    let mut node = NodeProcess::new(spec);
    let mut crew = writers(WRITERS, &dice);
    let (mut forgotten, mut checkpoints) = (0, 0);
    for round in 0..plan.rounds {
        disk.power_up();
        node.start();
        // The first round must not be one that writes nothing.
        if round > 0 && dice.chance(350) {
            pass(&mut dice, 0, 150);
            node.kill();
        } else {
            let made;
            (crew, made) = work(&mut node, crew, &mut dice, round);
            checkpoints += made;
        }
        forgotten += match remains {
            Remains::WhatWasSynced => {
                let unsynced = disk.unsynced();
                disk.lose_power();
                unsynced
            }
            Remains::Some => disk.lose_power_partly(&mut dice),
        };
    }
    disk.power_up();
    node.start();
    node.wait_ready();
    check(&node, &mut crew, "at the end");
    // Most kills meet something that is not synced, but not every one does.
    let due = plan.rounds >= ROUNDS_THAT_FORGET;
    assert!(forgotten > 0 || !due, "nothing was ever forgotten: the disk does not do its part");
    assert!(acknowledged(&crew) > 0, "nothing was written");
    assert!(checkpoints > 0, "the engine was never fed");
}

/// Checks what the node recovered, keeps it busy, and ends it in one way or the other.
/// Returns the checkpoints that it made.
fn work(
    node: &mut NodeProcess,
    mut crew: Vec<Writer>,
    dice: &mut Dice,
    round: usize,
) -> (Vec<Writer>, u64) {
    node.wait_ready();
    check(node, &mut crew, &format!("round {round}"));
    let load = Load::start(std::slice::from_ref(node), crew, Shape::MIXED, false);
    pass(dice, 100, 1500);
    let made = checkpoints(node);
    let in_good_order = dice.chance(150);
    if !in_good_order {
        load.set_open(0, false);
        node.kill();
    }
    let (crew, complaints) = load.finish();
    check_none(&format!("round {round}, under load"), &complaints);
    if in_good_order {
        stop(node);
    }
    (crew, made)
}

/// Checkpoints since the node was started.
fn checkpoints(node: &NodeProcess) -> u64 {
    let metrics = node.get("/metrics").expect(200).text();
    let line = metrics.lines().find(|line| line.starts_with("coterie_engine_checkpoints_total"));
    let count = line.and_then(|line| line.rsplit(' ').next()).expect("the metric of checkpoints");
    count.parse().expect("a number")
}

fn check(node: &NodeProcess, crew: &mut [Writer], when: &str) {
    check_none(when, &read_back(node, crew, Level::Quorum));
    let status = node.status().expect("a status");
    let warnings = status["warnings"].to_string();
    assert!(!warnings.contains("set aside"), "{when}: {warnings}");
}
