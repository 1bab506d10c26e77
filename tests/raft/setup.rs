//! What kind of run a seed makes: sizes, options, network, disks and clocks.

use std::collections::{BTreeMap, BTreeSet};

use coterie::protocol::raft::Options;
use coterie::protocol::raft::entry::{LogPosition, LogStart};
use coterie::protocol::raft::membership::Membership;
use coterie::types::{LogIndex, NodeId, ReplicaId};

use crate::dice::Dice;
use crate::network::Weather;

/// Units of virtual time that a tick takes on a machine whose clock is right.
pub(crate) const TICK: u64 = 4;

/// How often something happens: so many times in 10,000 units of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) propose: u64,
    pub(crate) read: u64,
    pub(crate) crash: u64,
    pub(crate) start: u64,
    pub(crate) blink: u64,
    pub(crate) plot: u64,
    pub(crate) cut: u64,
    pub(crate) mend: u64,
    pub(crate) pause: u64,
    pub(crate) order: u64,
    pub(crate) transfer: u64,
    pub(crate) compact: u64,
}

/// All that is fixed for a run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) voters: u64,
    /// Machines in all: those beyond the voters may join later.
    pub(crate) machines: u64,
    pub(crate) options: Options,
    pub(crate) weather: Weather,
    pub(crate) rates: Rates,
    /// Writes take up to so many units of time.
    pub(crate) write_delay_max: u64,
    /// Cores are ticked only when their deadline has come.
    pub(crate) by_deadline: bool,
    clocks: BTreeMap<ReplicaId, Clock>,
    /// Whether all clocks run at the same rate, which leases and freshness suppose.
    pub(crate) clocks_agree: bool,
}

/// When a machine's clock ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Units of virtual time from tick to tick.
    every: u64,
    phase: u64,
}

impl Clock {
    /// Whether it ticks in this unit of time.
    pub(crate) fn ticks_at(self, now: u64) -> bool {
        (now + self.phase).is_multiple_of(self.every)
    }
}

impl Setup {
    pub(crate) fn new(seed: u64) -> Setup {
        let mut dice = Dice::new(seed).fork("setup");
        let machines = dice.between(5, 7);
        let options = options(&mut dice);
        // A lease trusts clocks, so where there is one they must run alike.
        let drift = if options.lease_reads { 0 } else { dice.between(0, 2) };
        let ids = (1..=machines).map(ReplicaId);
        let clocks = ids.map(|id| (id, clock(&mut dice, drift))).collect();
        Setup {
            seed,
            voters: dice.pick(&[1, 2, 3, 3, 3, 5, 5]),
            machines,
            options,
            weather: weather(&mut dice),
            rates: rates(&mut dice),
            write_delay_max: dice.pick(&[1, 4, 12, 40]),
            by_deadline: dice.chance(500),
            clocks,
            clocks_agree: drift == 0,
        }
    }

    pub(crate) fn founding(&self) -> Membership {
        let voters = (1..=self.voters).map(|id| (ReplicaId(id), node_of(ReplicaId(id))));
        Membership::founding(voters.collect())
    }

    pub(crate) fn pool(&self) -> BTreeSet<ReplicaId> {
        (1..=self.machines).map(ReplicaId).collect()
    }

    pub(crate) fn clock(&self, id: ReplicaId) -> Clock {
        self.clocks[&id]
    }

    pub(crate) fn write_delay(&self, dice: &mut Dice) -> u64 {
        dice.between(1, self.write_delay_max)
    }
}

/// Where the log of a new replica begins.
pub(crate) fn empty_log(membership: Membership) -> LogStart {
    LogStart { position: LogPosition::default(), membership, membership_index: LogIndex(0) }
}

/// Where a replica runs.
pub(crate) fn node_of(id: ReplicaId) -> NodeId {
    NodeId(100 + id.0)
}

fn clock(dice: &mut Dice, drift: u64) -> Clock {
    Clock { every: dice.between(TICK - drift, TICK + drift), phase: dice.between(0, TICK) }
}

fn options(dice: &mut Dice) -> Options {
    Options {
        election_ticks: dice.between(6, 12),
        heartbeat_ticks: dice.between(1, 3),
        append_bytes_max: dice.pick(&[1, 100, 400, 10_000]),
        appends_in_flight_max: dice.pick(&[1, 2, 4, 16]),
        uncommitted_bytes_max: dice.pick(&[300, 5_000]),
        lease_reads: dice.chance(400),
    }
}

fn weather(dice: &mut Dice) -> Weather {
    Weather {
        lost_per_mille: dice.pick(&[0, 20, 100, 250]),
        repeated_per_mille: dice.pick(&[0, 20, 150]),
        delay_max: dice.pick(&[1, 4, 8, 16]),
        late_per_mille: dice.pick(&[0, 30, 150]),
    }
}

fn rates(dice: &mut Dice) -> Rates {
    Rates {
        propose: dice.pick(&[200, 1000, 4000]),
        read: dice.pick(&[100, 1000]),
        crash: dice.pick(&[0, 20, 60, 120]),
        start: dice.pick(&[50, 200]),
        blink: dice.pick(&[0, 20, 200]),
        plot: dice.pick(&[0, 0, 40]),
        cut: dice.pick(&[0, 40, 100]),
        mend: dice.pick(&[50, 150]),
        pause: dice.pick(&[0, 20, 60]),
        order: dice.pick(&[0, 50, 200]),
        transfer: dice.pick(&[0, 20, 200]),
        compact: dice.pick(&[0, 50, 300]),
    }
}
