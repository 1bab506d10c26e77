//! What a seed stands for: a cluster, who works on it, and what goes wrong.

use std::time::Duration;

use coterie::config::{GroupOptions, HistoryLimits, Replication};
use coterie::types::Moment;

use crate::cluster::{Mending, Shape};
use crate::dice::Dice;
use crate::faults::{self, Fault, Planned};
use crate::keyspaces;
use crate::run::Kind;
use crate::strong::client::StrongWorkload;
use crate::strong::keys::Keys;
use crate::workload::Workload;

/// What a seed stands for.
pub(crate) struct Scenario {
    pub(crate) shape: Shape,
    pub(crate) workload: Workload,
    pub(crate) plan: Vec<Planned>,
    pub(crate) strong: Option<StrongPart>,
}

/// What there is of a strong keyspace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StrongPart {
    pub(crate) workload: StrongWorkload,
    /// How often every replica is looked at.
    pub(crate) looks_every: Duration,
}

impl Scenario {
    /// That of a kind, drawn from a seed.
    pub(crate) fn draw(kind: Kind, dice: &Dice) -> Scenario {
        match kind {
            Kind::Quorum => of_quorum(dice),
            Kind::Strong => of_strong(dice),
            Kind::Ring => of_ring(dice),
        }
    }
}

fn of_quorum(dice: &Dice) -> Scenario {
    let mending = Mending::draw(dice);
    let mut dice = dice.fork("scenario");
    let machines = dice.pick(&[2, 3, 3, 3, 4, 5, 5]);
    let (read_quorum, write_quorum) = dice.pick(&[(2, 2), (2, 2), (2, 2), (1, 3), (3, 1)]);
    let replication = Replication { factor: 3, read_quorum, write_quorum };
    let think_ms_max = dice.pick(&[20, 300, 1000]);
    let operations = dice.between(20, 100);
    let workload = Workload {
        clients: usize::try_from(dice.between(2, 6)).expect("few clients"),
        operations_per_client: usize::try_from(operations).expect("few operations"),
        keys: usize::try_from(dice.between(1, 8)).expect("few keys"),
        sloppy: dice.chance(400),
        think_ms_max,
        second: keyspaces::second(&dice),
        ttl_per_mille: dice.fork("expiry").pick(&[0, 300, 900]),
    };
    // Faults fall into the time in which the clients are at work, and a little beyond.
    let phase = Duration::from_millis((think_ms_max / 2 + 100) * operations);
    let plan = faults::plan(&mut dice, machines, phase, faults::KINDS);
    let (partitions, groups) = (16, GroupOptions::default());
    let wal_segment_bytes = 16 * 1024;
    let shape =
        Shape { machines, late: 0, replication, partitions, groups, wal_segment_bytes, mending };
    Scenario { shape, workload, plan, strong: None }
}

fn of_strong(dice: &Dice) -> Scenario {
    let mending = Mending::draw(dice);
    let mut dice = dice.fork("strong scenario");
    let machines = dice.pick(&[3, 3, 4, 5, 5]);
    let late = if machines > 3 { dice.index(3).saturating_sub(1) } else { 0 };
    let replication = Replication { factor: 3, read_quorum: 2, write_quorum: 2 };
    let log_entries_max = dice.pick(&[8, 30, 100, 256]);
    let groups = GroupOptions {
        log_entries_max,
        log_entries_kept: dice.between(0, log_entries_max / 2),
        snapshot_chunk_bytes: dice.pick(&[64, 500, 256 << 10]),
        record_bytes_max: dice.pick(&[100, 4000]),
        lease_reads: dice.fork("lease reads").chance(500),
        watch_history: HistoryLimits {
            events_max: dice.fork("watch history").pick(&[8, 64, 65_536]),
            bytes_max: 1 << 20,
        },
    };
    let partitions = dice.pick(&[16, 16, 16, 32, 64]);
    // The system group's state is one row and must fit.
    let wal_segment_bytes = 64 * 1024;
    let shape =
        Shape { machines, late, replication, partitions, groups, wal_segment_bytes, mending };
    let think_ms_max = dice.pick(&[20, 100, 400]);
    let commands = dice.between(20, 80);
    let mut strong = StrongWorkload {
        clients: usize::try_from(dice.between(2, 6)).expect("few clients"),
        commands_per_client: usize::try_from(commands).expect("few commands"),
        keys: Keys::draw(&mut dice),
        think_ms_max,
        sessions_per_mille: dice.pick(&[0, 500, 900]),
    };
    let phase = Duration::from_millis((think_ms_max / 2 + 100) * commands);
    let mut plan = faults::plan(&mut dice, machines, phase, faults::KINDS_WITH_GROUPS);
    let phase_ms = (think_ms_max / 2 + 100) * commands;
    for machine in machines - late..machines {
        let begins = Moment(dice.between(0, phase_ms) * 1000);
        let joins = Planned { begins, ends: begins, fault: Fault::Join { machine } };
        plan.retain(|planned| !faults::collide(planned, &joins));
        plan.push(joins);
    }
    let workload = Workload {
        clients: dice.index(3),
        operations_per_client: 20,
        keys: 3,
        sloppy: false,
        second: None,
        ttl_per_mille: 0,
        think_ms_max: think_ms_max * 4,
    };
    let looks_every = Duration::from_millis(dice.pick(&[50, 200, 1000]));
    if plan.iter().any(|planned| planned.fault.repeats_messages()) {
        // A proposal that arrives twice is executed twice, unless its session tells.
        strong.sessions_per_mille = 1000;
    }
    Scenario { shape, workload, plan, strong: Some(StrongPart { workload: strong, looks_every }) }
}

/// A machine that hears nothing of the ring around a moment.
fn deaf_about(dice: &mut Dice, moment: Moment, machines: usize) -> Planned {
    let begins = moment - Duration::from_millis(dice.between(0, 300));
    let ends = moment + Duration::from_millis(dice.between(500, 8000));
    Planned { begins, ends, fault: Fault::Deaf { machine: dice.index(machines) } }
}

/// At least three nodes are on the ring at any time.
fn of_ring(dice: &Dice) -> Scenario {
    let mending = Mending::draw(dice);
    let mut dice = dice.fork("ring scenario");
    let founding = dice.pick(&[3, 3, 4, 5]);
    let late = dice.index(4).min(7 - founding);
    let leaving = dice.index(founding - 2).max(usize::from(late == 0 && founding > 3));
    let machines = founding + late;
    let replication = dice.pick(&[(3, 2, 2), (3, 2, 2), (3, 1, 3), (2, 1, 2), (1, 1, 1)]);
    let (factor, read_quorum, write_quorum) = replication;
    let replication = Replication { factor, read_quorum, write_quorum };
    let think_ms_max = dice.pick(&[10, 40, 150]);
    let operations = dice.between(40, 150);
    let mut workload = Workload {
        clients: usize::try_from(dice.between(2, 6)).expect("few clients"),
        operations_per_client: usize::try_from(operations).expect("few operations"),
        keys: usize::try_from(dice.between(2, 12)).expect("few keys"),
        sloppy: dice.chance(300),
        ttl_per_mille: dice.pick(&[0, 0, 200]),
        think_ms_max,
        second: keyspaces::second(&dice).filter(|second| second.factor <= 2),
    };
    let phase_ms = (think_ms_max / 2 + 100) * operations;
    let kinds = dice.pick(&[0, faults::KINDS, faults::KINDS]);
    let mut plan = faults::plan(&mut dice, machines, Duration::from_millis(phase_ms), kinds);
    let mut changes: Vec<Fault> =
        (founding..machines).map(|machine| Fault::Join { machine }).collect();
    if let Some(replace) = replacing(&dice, (founding, late, leaving)) {
        changes[0] = replace;
    }
    let first = dice.index(founding);
    changes.extend((0..leaving).map(|n| Fault::Leave { machine: (first + n) % founding }));
    for change in changes {
        let begins = Moment(dice.between(300, phase_ms * 2 / 3) * 1000);
        plan_change(&mut dice, &mut plan, (begins, change), machines);
    }
    let replaces = plan.iter().any(|it| matches!(it.fault, Fault::Replace { .. }));
    let burns = burning(&dice, founding, phase_ms);
    let burns = burns.filter(|_| founding > 3 && leaving == 0 && factor == 3 && !replaces);
    let is_spared = burns.is_none();
    match burns {
        Some(burns) => {
            plan.retain(|planned| !faults::collide(planned, &burns));
            plan.push(burns);
            // Of one copy, or two, nothing may be left.
            workload.second = None;
        }
        None => altering(&dice, &mut plan, factor, (phase_ms, machines)),
    }
    let (partitions, groups) = (dice.pick(&[4, 4, 16]), GroupOptions::default());
    let wal_segment_bytes = 64 * 1024;
    let shape =
        Shape { machines, late, replication, partitions, groups, wal_segment_bytes, mending };
    let repeats = plan.iter().any(|planned| planned.fault.repeats_messages());
    let strong = beside(&dice, (think_ms_max, repeats)).filter(|_| factor == 3 && is_spared);
    Scenario { shape, workload, plan, strong }
}

/// Whoever hears late of a change of the ring is what the fences are for.
fn plan_change(
    dice: &mut Dice,
    plan: &mut Vec<Planned>,
    (begins, fault): (Moment, Fault),
    machines: usize,
) {
    let change = Planned { begins, ends: begins, fault };
    plan.retain(|planned| !faults::collide(planned, &change));
    plan.push(change);
    let deaf = deaf_about(dice, begins, machines);
    if dice.chance(700) && !plan.iter().any(|planned| faults::collide(planned, &deaf)) {
        plan.push(deaf);
    }
}

/// A machine that burns down, in some runs. Three nodes must be left, and of each row one more copy
/// than is lost. The founder's address is what others join by.
fn burning(dice: &Dice, founding: usize, phase_ms: u64) -> Option<Planned> {
    let mut dice = dice.fork("burning");
    let burns = dice.chance(500);
    let machine = 1 + dice.index(founding - 1);
    let begins = Moment(dice.between(300, phase_ms * 2 / 3) * 1000);
    burns.then_some(Planned { begins, ends: begins, fault: Fault::Burn { machine } })
}

/// The default keyspace gets another N, in some runs: never more than there are nodes at any time.
/// Drawn apart from all else.
fn altering(dice: &Dice, plan: &mut Vec<Planned>, factor: u32, (phase_ms, machines): (u64, usize)) {
    let mut dice = dice.fork("altering");
    let other = dice.pick(&[1, 2, 3, 3]);
    let begins = Moment(dice.between(300, phase_ms * 2 / 3) * 1000);
    if dice.chance(350) && other != factor {
        let majority = Replication::majority_of(other);
        let read_one = Replication { read_quorum: 1, write_quorum: other, ..majority };
        let write_one = Replication { read_quorum: other, write_quorum: 1, ..majority };
        // Drawn on its own: what comes with the change is as it was when all were majorities.
        let quorums = [majority, read_one, write_one];
        let replication = dice.fork("quorums").pick(&quorums);
        plan_change(&mut dice, plan, (begins, Fault::Alter { replication }), machines);
    }
}

/// One who joins takes the place of a node, in some runs in which none leaves. Drawn apart from all
/// else.
fn replacing(dice: &Dice, (founding, late, leaving): (usize, usize, usize)) -> Option<Fault> {
    let mut dice = dice.fork("replacing");
    let replaces = late > 0 && leaving == 0 && dice.chance(500);
    replaces.then(|| Fault::Replace { old: dice.index(founding), new: founding })
}

/// A strong keyspace beside the leaderless ones, in some runs. Drawn apart from all else, so that
/// the others are as they were before there were any.
fn beside(dice: &Dice, (think_ms_max, repeats): (u64, bool)) -> Option<StrongPart> {
    let mut dice = dice.fork("strong beside");
    let workload = StrongWorkload {
        clients: usize::try_from(dice.between(1, 3)).expect("few clients"),
        commands_per_client: usize::try_from(dice.between(20, 60)).expect("few commands"),
        keys: Keys::draw(&mut dice),
        think_ms_max: think_ms_max * 2,
        // A proposal that arrives twice is executed twice, unless its session tells.
        sessions_per_mille: if repeats { 1000 } else { dice.pick(&[0, 500, 900]) },
    };
    let looks_every = Duration::from_millis(dice.pick(&[200, 1000]));
    dice.chance(400).then_some(StrongPart { workload, looks_every })
}
