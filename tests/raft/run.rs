//! One run: first anything may happen, then all faults stop and the group must serve again.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use coterie::protocol::raft::Raft;
use coterie::types::{LogIndex, ReplicaId};

use crate::cluster::Cluster;
use crate::faults::Fate;
use crate::invariants::Violation;
use crate::network::Weather;
use crate::planted::{Planted, Planting};
use crate::setup::{Setup, TICK};
use crate::trace::{Counts, Trace};

/// Units of virtual time with faults.
const SAFETY_UNITS: u64 = 2_000;

/// Within how many election timeouts a group must serve once nothing disturbs it, and how many
/// units of time it has besides for each entry, as the smallest window sends one at a time.
const RECOVERY_ELECTIONS: u64 = 30;
const RECOVERY_ENTRY_UNITS: u64 = 12;

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// What became of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) broken: Option<Violation>,
    pub(crate) counts: Counts,
    pub(crate) hash: u64,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, planted: Option<Planted>, printing: bool) -> Report {
    let _planting = Planting::new(planted);
    let mut cluster = Cluster::new(Setup::new(seed), Trace::new(printing));
    let played = silently(planted.is_some(), || play(&mut cluster));
    let broken = cluster.broken.take().or_else(|| {
        let panic = played.err()?;
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Some(Violation { invariant: "own_assertions", detail: text.to_owned() })
    });
    Report { seed, broken, counts: cluster.trace.counts(), hash: cluster.trace.hash() }
}

/// Runs something that may panic, without the panic's text on the terminal if that is expected.
fn silently(expected: bool, what: impl FnOnce()) -> std::thread::Result<()> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SILENT.get() {
                loud(info);
            }
        }));
    });
    SILENT.set(expected);
    let result = catch_unwind(AssertUnwindSafe(what));
    SILENT.set(false);
    result
}

fn play(cluster: &mut Cluster) {
    let mut fate = Fate::new(cluster.world.setup.seed);
    for _ in 0..SAFETY_UNITS {
        fate.strike(cluster);
        cluster.pass();
        if cluster.broken.is_some() {
            return;
        }
    }
    heal(cluster);
    recover(cluster);
}

fn heal(cluster: &mut Cluster) {
    cluster.network.mend();
    cluster.network.weather = Weather::CALM;
    cluster.world.setup.write_delay_max = 2;
    for id in cluster.ids() {
        cluster.set_paused(id, false);
        if cluster.world.machines[&id].core.is_none() {
            cluster.start(id);
        }
    }
}

/// A leader, a committed proposal, a read, and the same log everywhere, all in bounded time.
fn recover(cluster: &mut Cluster) {
    let election_units = cluster.world.setup.options.election_ticks * TICK * 2;
    let (committed, answers) = (cluster.world.ledger.last(), cluster.trace.counts().answers);
    let entries = cluster.longest_log().0 * RECOVERY_ENTRY_UNITS;
    for unit in 0..RECOVERY_ELECTIONS * election_units + entries {
        cluster.pass();
        let served = cluster.world.ledger.last() > committed
            && cluster.trace.counts().answers > answers
            && converged(cluster);
        if served || cluster.broken.is_some() {
            return;
        }
        let asks = unit % election_units == election_units - 1;
        if let Some(leader) = cluster.leader().filter(|_| asks) {
            cluster.propose(leader);
            cluster.read(leader);
        }
    }
    let states = cluster.world.machines.values().filter_map(|machine| {
        let core = machine.core.as_ref()?;
        Some(format!("\n    {}: {}", machine.id, crate::show::state(core)))
    });
    let detail = format!(
        "no leader, commit, read and equal logs within {RECOVERY_ELECTIONS} elections:{}",
        states.collect::<String>()
    );
    cluster.broken = Some(Violation { invariant: "recovers", detail });
}

/// Whether all members of the group have applied all of the leader's log.
fn converged(cluster: &Cluster) -> bool {
    let core = |id: &ReplicaId| cluster.world.machines[id].core.as_ref();
    let Some(leader) = cluster.leader().and_then(|id| core(&id)) else { return false };
    let membership = leader.log().membership();
    let at_end = |raft: &Raft, applied: LogIndex| {
        raft.log().last() == leader.log().last() && applied == raft.log().last_index()
    };
    !membership.is_joint()
        && membership.replicas().iter().all(|id| {
            let applied = cluster.world.machines[id].applied;
            core(id).is_some_and(|raft| raft.term() == leader.term() && at_end(raft, applied))
        })
}
