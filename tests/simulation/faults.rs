//! What goes wrong in a run, drawn from its seed before it begins.
//!
//! Each run enables a random part of the kinds of faults (Groce et al., "Swarm Testing", 2012):
//! runs in which everything happens at once hide what a single kind would show.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coterie::config::Replication;
use coterie::node::steering::RingChange;
use coterie::types::Moment;

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::disk::Survival;
use crate::keyspaces;
use crate::network::Weather;
use crate::strong;

/// One fault, with what ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The weather turns.
    Storm(Weather),
    /// Some machines cannot talk to the others.
    Partition { side: BTreeSet<usize> },
    /// One direction between two machines is dead.
    OneWay { from: usize, to: usize },
    /// Nodes die and are started again at the fault's end, with clocks that are then behind.
    Crash { machines: BTreeSet<usize>, survival: Survival, behind_ms: i64 },
    /// A machine stands still.
    Pause { machine: usize },
    /// A machine's wall clock is off.
    Skew { machine: usize, skew_ms: i64 },
    /// A machine's disk takes its time.
    SlowDisk { machine: usize, job_ms_max: u64 },
    /// A machine's next sync fails; its node is started anew at the fault's end.
    FailedSync { machine: usize },
    /// A machine's disk is full.
    FullDisk { machine: usize },
    /// A node hands over some of the groups that it leads.
    HandOver { machine: usize, seed: u64 },
    /// Replicas of some groups are moved to other nodes.
    Place { machine: usize, seed: u64 },
    /// A machine's node joins the cluster.
    Join { machine: usize },
    /// A machine's node is told to leave, by another one.
    Leave { machine: usize },
    /// A machine's node joins, and is put into the place of another one's.
    Replace { old: usize, new: usize },
    /// The default keyspace gets another N, with R and W of which any two meet.
    Alter { replication: Replication },
    /// A machine burns down with its disk, and its node is removed from the cluster.
    Burn { machine: usize },
    /// A machine's node hears nothing of Raft groups, and so no news of the ring.
    Deaf { machine: usize },
}

/// How many kinds of faults there are that concern every keyspace.
pub(crate) const KINDS: u64 = 9;

/// How many there are with those that concern groups.
pub(crate) const KINDS_WITH_GROUPS: u64 = 11;

/// A fault and when it begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) begins: Moment,
    pub(crate) ends: Moment,
    pub(crate) fault: Fault,
}

/// The faults of a run, in the order of their beginnings.
pub(crate) fn plan(dice: &mut Dice, machines: usize, phase: Duration, kinds: u64) -> Vec<Planned> {
    let enabled: Vec<u64> = (0..kinds).filter(|_| dice.chance(450)).collect();
    let mut planned: Vec<Planned> = Vec::new();
    if enabled.is_empty() {
        return planned;
    }
    let count = dice.between(2, 14);
    let phase_ms = u64::try_from(phase.as_millis()).expect("phases are short");
    for _ in 0..count {
        let kind = dice.pick(&enabled);
        let fault = draw(dice, kind, machines);
        let begins_ms = dice.between(0, phase_ms);
        let lasts_ms = dice.between(50, 8000);
        let begins = Moment(begins_ms * 1000);
        let candidate = Planned { begins, ends: begins + Duration::from_millis(lasts_ms), fault };
        if !planned.iter().any(|other| collide(other, &candidate)) {
            planned.push(candidate);
        }
    }
    planned.sort_by_key(|planned| planned.begins);
    planned
}

fn draw(dice: &mut Dice, kind: u64, machines: usize) -> Fault {
    let machine = dice.index(machines);
    let other = (machine + 1 + dice.index(machines.max(2) - 1)) % machines;
    match kind {
        0 => Fault::Storm(storm(dice)),
        1 => Fault::Partition { side: some_machines(dice, machines) },
        2 => Fault::OneWay { from: machine, to: other },
        3 => crash(dice, machines),
        4 => Fault::Pause { machine },
        5 => Fault::Skew { machine, skew_ms: skew_ms(dice) },
        6 => Fault::SlowDisk { machine, job_ms_max: dice.pick(&[50, 300, 2000]) },
        7 => Fault::FailedSync { machine },
        8 => Fault::FullDisk { machine },
        9 => Fault::HandOver { machine, seed: dice.next() },
        _ => Fault::Place { machine, seed: dice.next() },
    }
}

fn storm(dice: &mut Dice) -> Weather {
    Weather {
        loss_per_mille: dice.pick(&[0, 10, 100, 300]),
        repeat_per_mille: dice.pick(&[0, 0, 50, 300]),
        congestion_per_mille: dice.pick(&[0, 0, 0, 50]),
        delay_ms_max: dice.pick(&[3, 20, 200, 1500]),
        reorders: dice.chance(500),
    }
}

fn crash(dice: &mut Dice, machines: usize) -> Fault {
    let all = dice.chance(200);
    let machines =
        if all { (0..machines).collect() } else { BTreeSet::from([dice.index(machines)]) };
    let survival = if dice.chance(300) {
        Survival::Everything
    } else {
        Survival::Pages(dice.pick(&[0, 0, 300, 700, 950]))
    };
    Fault::Crash { machines, survival, behind_ms: dice.pick(&[0, 0, 0, 10_000]) }
}

fn some_machines(dice: &mut Dice, machines: usize) -> BTreeSet<usize> {
    let drawn: BTreeSet<usize> = (0..machines).filter(|_| dice.chance(500)).collect();
    if drawn.is_empty() { BTreeSet::from([dice.index(machines)]) } else { drawn }
}

/// Mostly within what other nodes accept (500 ms), at times beyond.
fn skew_ms(dice: &mut Dice) -> i64 {
    let size_ms = dice.pick(&[20, 150, 400, 400, 3000]);
    if dice.chance(500) { size_ms } else { -size_ms }
}

/// Prepares machines for what they are to do in a run.
pub(crate) fn prepare(cluster: &Cluster, plan: &[Planned]) {
    for planned in plan {
        if let Fault::Replace { new, .. } = planned.fault {
            cluster.let_wait(new);
        }
    }
}

impl Fault {
    /// Whether messages arrive more than once while it lasts.
    pub(crate) fn repeats_messages(&self) -> bool {
        matches!(self, Fault::Storm(weather) if weather.repeat_per_mille > 0)
    }

    /// What it needs for itself: machines, or the weather.
    fn claims(&self) -> BTreeSet<Claim> {
        match self {
            Fault::Storm(_) => BTreeSet::from([Claim::Weather]),
            Fault::Partition { .. } | Fault::OneWay { .. } => BTreeSet::from([Claim::Links]),
            Fault::Crash { machines, .. } => {
                machines.iter().map(|machine| Claim::Machine(*machine)).collect()
            }
            Fault::Pause { machine }
            | Fault::SlowDisk { machine, .. }
            | Fault::FailedSync { machine }
            | Fault::FullDisk { machine } => BTreeSet::from([Claim::Machine(*machine)]),
            Fault::Skew { machine, .. } => BTreeSet::from([Claim::Clock(*machine)]),
            Fault::Join { machine }
            | Fault::Replace { new: machine, .. }
            | Fault::Burn { machine } => BTreeSet::from([Claim::Machine(*machine)]),
            Fault::Leave { .. } | Fault::Alter { .. } => BTreeSet::new(),
            Fault::Deaf { machine } => BTreeSet::from([Claim::Ears(*machine)]),
            Fault::HandOver { .. } | Fault::Place { .. } => BTreeSet::new(),
        }
    }

    fn begin(&self, cluster: &Arc<Cluster>) {
        match self {
            Fault::Storm(weather) => cluster.network.set_weather(*weather),
            Fault::Partition { side } => cut(cluster, side, true),
            Fault::OneWay { from, to } => cluster.network.set_blocked(*from, *to, true),
            Fault::Crash { machines, survival, .. } => {
                machines.iter().for_each(|machine| cluster.crash(*machine, *survival));
            }
            Fault::Pause { machine } => cluster.set_paused(*machine, true),
            Fault::Skew { machine, skew_ms } => cluster.machine(*machine).set_skew_ms(*skew_ms),
            Fault::SlowDisk { machine, job_ms_max } => {
                cluster.machine(*machine).set_job_ms_max(Some(*job_ms_max));
            }
            Fault::FailedSync { machine } => {
                cluster.disk(*machine).set_faults(|faults| faults.next_sync_fails = true);
            }
            Fault::FullDisk { machine } => {
                cluster.disk(*machine).set_faults(|faults| faults.full = true);
            }
            Fault::HandOver { machine, seed } => {
                // Ends with the run's runtime at the latest, as do the following.
                tokio::spawn(strong::hand_over(cluster.clone(), *machine, *seed));
            }
            Fault::Place { machine, seed } => {
                tokio::spawn(strong::place(cluster.clone(), *machine, *seed));
            }
            Fault::Join { machine } => cluster.start(*machine),
            Fault::Deaf { machine } => cluster.network.set_deaf(*machine, true),
            Fault::Leave { machine } => {
                tokio::spawn(leave(cluster.clone(), *machine));
            }
            Fault::Replace { old, new } => {
                cluster.start(*new);
                tokio::spawn(replace(cluster.clone(), *old, *new));
            }
            Fault::Alter { replication } => {
                tokio::spawn(keyspaces::alter(cluster.clone(), *replication));
            }
            Fault::Burn { machine } => {
                cluster.burn(*machine);
                // What fewer have than must, to spare one, is lost: `Evidence::outlasts`.
                let change = |remove| RingChange { remove, force: true, ..RingChange::default() };
                tokio::spawn(decide(cluster.clone(), *machine, change));
            }
        }
    }

    fn end(&self, cluster: &Cluster) {
        match self {
            Fault::Storm(_) => cluster.network.set_weather(Weather::default()),
            Fault::Partition { side } => cut(cluster, side, false),
            Fault::OneWay { from, to } => cluster.network.set_blocked(*from, *to, false),
            Fault::Crash { machines, behind_ms, .. } => {
                for machine in machines {
                    cluster.machine(*machine).set_skew_ms(-behind_ms);
                    cluster.start(*machine);
                }
            }
            Fault::Pause { machine } => cluster.set_paused(*machine, false),
            Fault::Skew { machine, .. } => cluster.machine(*machine).set_skew_ms(0),
            Fault::SlowDisk { machine, .. } => cluster.machine(*machine).set_job_ms_max(None),
            Fault::FailedSync { machine } => {
                cluster.disk(*machine).set_faults(|faults| faults.next_sync_fails = false);
                // A failed sync may poison a node for life; only a new life is trusted again.
                cluster.crash(*machine, Survival::Pages(0));
                cluster.start(*machine);
            }
            Fault::FullDisk { machine } => {
                cluster.disk(*machine).set_faults(|faults| faults.full = false);
            }
            Fault::Deaf { machine } => cluster.network.set_deaf(*machine, false),
            Fault::HandOver { .. }
            | Fault::Place { .. }
            | Fault::Join { .. }
            | Fault::Leave { .. }
            | Fault::Replace { .. }
            | Fault::Alter { .. }
            | Fault::Burn { .. } => {}
        }
    }
}

async fn leave(cluster: Arc<Cluster>, machine: usize) {
    let change = |leave| RingChange { leave, ..RingChange::default() };
    if decide(cluster.clone(), machine, change).await {
        cluster.expect_to_leave(machine);
    }
}

async fn replace(cluster: Arc<Cluster>, old: usize, new: usize) {
    let change = |old: Vec<String>| {
        let replace = old.into_iter().map(|old| (old, format!("n{new}"))).collect();
        RingChange { replace, ..RingChange::default() }
    };
    if decide(cluster.clone(), old, change).await {
        cluster.expect_to_leave(old);
    }
}

/// Asks one node after another for a change of the ring that a machine's node is to go by, until
/// it is decided: whoever had it decided may not have lived to tell.
async fn decide(
    cluster: Arc<Cluster>,
    machine: usize,
    change: impl Fn(Vec<String>) -> RingChange + Send,
) -> bool {
    const TRIES_MAX: usize = 300;
    let _pending = cluster.change_begins();
    for attempt in 0..TRIES_MAX {
        let asked = attempt % cluster.shape.machines;
        if asked != machine
            && let Some(mut session) = cluster.session(asked)
        {
            let (node, wanted) = (session.node.clone(), change(vec![format!("n{machine}")]));
            let told = tokio::select! {
                biased;
                () = session.ended() => continue,
                told = node.change_ring(&wanted) => told,
            };
            cluster.note(format_args!("{asked} has n{machine} go: {told:?}"));
            if told.is_ok() || cluster.has_let_go(machine) {
                return true;
            }
        }
        cluster.agenda.sleep(Duration::from_millis(500)).await;
    }
    false
}

/// What two faults cannot have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Weather,
    Links,
    Machine(usize),
    Clock(usize),
    Ears(usize),
}

/// Whether both cannot be at once.
pub(crate) fn collide(a: &Planned, b: &Planned) -> bool {
    a.begins <= b.ends && b.begins <= a.ends && !a.fault.claims().is_disjoint(&b.fault.claims())
}

fn cut(cluster: &Cluster, side: &BTreeSet<usize>, blocked: bool) {
    for inside in side {
        for outside in (0..cluster.shape.machines).filter(|machine| !side.contains(machine)) {
            cluster.network.set_blocked(*inside, outside, blocked);
            cluster.network.set_blocked(outside, *inside, blocked);
        }
    }
}

/// Lets every planned fault begin and end in its time; afterwards nothing is wrong any more.
pub(crate) async fn afflict(cluster: Arc<Cluster>, planned: Vec<Planned>, start: Moment) {
    let shifted = |moment: Moment| start + moment.since(Moment::default());
    let mut turns: Vec<(Moment, bool, &Fault)> = planned
        .iter()
        .flat_map(|planned| {
            let fault = &planned.fault;
            [(shifted(planned.begins), true, fault), (shifted(planned.ends), false, fault)]
        })
        .collect();
    turns.sort_by_key(|(moment, ..)| *moment);
    for (moment, begins, fault) in turns {
        cluster.agenda.sleep_until(moment).await;
        let verb = if begins { "begins" } else { "ends" };
        let line = format!("{fault:?} {verb}");
        cluster.trace.count(cluster.agenda.now(), format_args!("{line}"), |counts| {
            counts.faults += u64::from(begins);
        });
        if begins { fault.begin(&cluster) } else { fault.end(&cluster) }
    }
    (0..cluster.shape.machines).for_each(|machine| cluster.machine(machine).set_skew_ms(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASE: Duration = Duration::from_secs(30);

    #[test]
    fn a_seed_always_gives_the_same_plan() {
        let drawn = |seed| plan(&mut Dice::new(seed), 5, PHASE, KINDS);
        assert_eq!(drawn(3), drawn(3));
        assert!((0..10).any(|seed| drawn(seed) != drawn(seed + 1)));
    }

    #[test]
    fn every_kind_is_drawn_by_some_seed() {
        let mut kinds = Vec::new();
        for planned in
            (0..200).flat_map(|seed| plan(&mut Dice::new(seed), 3, PHASE, KINDS_WITH_GROUPS))
        {
            let kind = std::mem::discriminant(&planned.fault);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        assert_eq!(kinds.len() as u64, KINDS_WITH_GROUPS);
    }

    #[test]
    fn faults_of_one_machine_never_overlap() {
        for seed in 0..200 {
            let planned = plan(&mut Dice::new(seed), 3, PHASE, KINDS);
            let pairs = planned.iter().enumerate();
            for (at, one) in pairs {
                assert!(!planned[at + 1..].iter().any(|other| collide(one, other)));
            }
        }
    }
}
