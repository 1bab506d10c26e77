//! What clients, operators and fate do to a group, as the dice have it.

use std::collections::{BTreeMap, BTreeSet};

use coterie::protocol::raft::membership::Target;
use coterie::types::{LogIndex, Moment, NodeId, ReplicaId};

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::setup::{TICK, node_of};

/// Something that may happen in a unit of time.
type Deed = fn(&mut Fate, &mut Cluster);

/// Throws the dice of one run.
pub(crate) struct Fate {
    dice: Dice,
    plot: Option<Plot>,
}

/// A leader that one follower does not hear will soon be heard by nobody.
#[derive(Clone, Copy)]
struct Plot {
    leader: ReplicaId,
    estranged: ReplicaId,
    due: u64,
}

impl Fate {
    pub(crate) fn new(seed: u64) -> Fate {
        Fate { dice: Dice::new(seed).fork("fate"), plot: None }
    }

    /// What happens in one unit of time.
    pub(crate) fn strike(&mut self, cluster: &mut Cluster) {
        let rates = cluster.world.setup.rates;
        let deeds: [(u64, Deed); 13] = [
            (rates.propose, Fate::propose),
            (rates.read, Fate::read),
            (rates.crash, Fate::crash),
            (rates.start, Fate::start),
            (rates.blink, Fate::blink),
            (rates.plot, Fate::plot),
            (rates.cut, Fate::cut),
            (rates.mend, Fate::mend),
            (rates.pause, Fate::pause),
            (rates.mend, Fate::resume),
            (rates.order, Fate::order),
            (rates.transfer, Fate::transfer),
            (rates.compact, Fate::compact),
        ];
        self.ask_rivals(cluster);
        self.carry_out_plot(cluster);
        for (rate, deed) in deeds {
            if self.dice.between(0, 9_999) < rate {
                deed(self, cluster);
            }
        }
    }

    /// While two think that they lead, clients of both go on asking.
    fn ask_rivals(&mut self, cluster: &mut Cluster) {
        let leaders = cluster.leaders();
        for id in leaders.iter().filter(|_| leaders.len() > 1) {
            if self.dice.chance(300) {
                cluster.read(*id);
            }
        }
    }

    fn anyone(&mut self, cluster: &Cluster) -> ReplicaId {
        self.dice.pick(&cluster.ids())
    }

    /// Mostly somebody who thinks that it leads, as clients would find it.
    fn someone_leading(&mut self, cluster: &Cluster) -> ReplicaId {
        let leaders = cluster.leaders();
        if leaders.is_empty() || self.dice.chance(100) {
            return self.anyone(cluster);
        }
        self.dice.pick(&leaders)
    }

    fn propose(&mut self, cluster: &mut Cluster) {
        if self.plot.is_some() {
            // An estranged follower can be elected only if it misses nothing.
            return;
        }
        let id = self.someone_leading(cluster);
        for _ in 0..self.dice.pick(&[1, 1, 3]) {
            cluster.propose(id);
        }
    }

    fn read(&mut self, cluster: &mut Cluster) {
        let id = self.someone_leading(cluster);
        cluster.read(id);
    }

    fn crash(&mut self, cluster: &mut Cluster) {
        let id = if self.dice.chance(500) {
            self.someone_leading(cluster)
        } else {
            self.anyone(cluster)
        };
        self.count(cluster, "crash");
        cluster.crash(id);
    }

    /// A crash that nobody has the time to notice.
    fn blink(&mut self, cluster: &mut Cluster) {
        let id = self.anyone(cluster);
        self.count(cluster, "blink");
        cluster.crash(id);
        cluster.start(id);
    }

    /// Begins to estrange a follower from its leader.
    fn plot(&mut self, cluster: &mut Cluster) {
        let (leader, estranged) = (self.someone_leading(cluster), self.anyone(cluster));
        self.count(cluster, "plot");
        cluster.network.cut(leader, estranged);
        let due = cluster.world.now + 2 * TICK * cluster.world.setup.options.election_ticks;
        self.plot = Some(Plot { leader, estranged, due });
    }

    /// All who still hear the leader forget it, by a blink, and hear it no more; only a lease binds
    /// them now.
    fn carry_out_plot(&mut self, cluster: &mut Cluster) {
        let now = cluster.world.now;
        let Some(plot) = self.plot.take_if(|plot| plot.due <= now) else { return };
        cluster.network.mend();
        for other in cluster.ids().into_iter().filter(|id| *id != plot.leader) {
            cluster.network.cut(plot.leader, other);
            if other != plot.estranged {
                cluster.crash(other);
                cluster.start(other);
            }
        }
    }

    fn start(&mut self, cluster: &mut Cluster) {
        let down = cluster.world.machines.values().filter(|machine| machine.core.is_none());
        let down: Vec<ReplicaId> = down.map(|machine| machine.id).collect();
        if !down.is_empty() {
            cluster.start(self.dice.pick(&down));
        }
    }

    fn cut(&mut self, cluster: &mut Cluster) {
        self.count(cluster, "cut");
        let (here, there) = (self.someone_leading(cluster), self.anyone(cluster));
        match self.dice.between(0, 3) {
            0 => cluster.network.cut(here, there),
            3 => deafen(cluster, here),
            1 => cluster.network.split(&BTreeSet::from([here]), &cluster.all()),
            _ => cluster.network.split(&BTreeSet::from([here, there]), &cluster.all()),
        }
        if self.dice.chance(300) {
            cluster.act(here, "unreachable", |core| core.on_unreachable(there));
        }
    }

    fn mend(&mut self, cluster: &mut Cluster) {
        cluster.network.mend();
    }

    fn pause(&mut self, cluster: &mut Cluster) {
        self.count(cluster, "pause");
        let id = self.someone_leading(cluster);
        cluster.set_paused(id, true);
    }

    fn resume(&mut self, cluster: &mut Cluster) {
        let id = self.anyone(cluster);
        cluster.set_paused(id, false);
    }

    fn order(&mut self, cluster: &mut Cluster) {
        let id = self.someone_leading(cluster);
        let target = self.target(cluster);
        let Some(core) = &cluster.world.machines[&id].core else { return };
        let current = core.status().membership_index;
        let late = LogIndex(current.0.saturating_sub(self.dice.between(1, 9)));
        let expected = if self.dice.chance(250) { late } else { current };
        cluster.order(id, &target, expected);
    }

    /// One voter more or less than now, or any other membership.
    fn target(&mut self, cluster: &Cluster) -> Target {
        let ids = cluster.ids();
        let now = cluster.leader().and_then(|id| cluster.world.machines[&id].core.as_ref());
        let mut voters: BTreeSet<ReplicaId> =
            now.map(|core| core.status().membership.voters.clone()).unwrap_or_default();
        if self.dice.chance(500) || voters.is_empty() {
            voters = (0..self.dice.between(1, 5)).map(|_| self.dice.pick(&ids)).collect();
        } else {
            let other = self.dice.pick(&ids);
            if !voters.remove(&other) || voters.is_empty() {
                voters.insert(other);
            }
        }
        let learners = ids.into_iter().filter(|id| !voters.contains(id) && self.dice.chance(300));
        Target { learners: placed(learners.collect()), voters: placed(voters) }
    }

    fn transfer(&mut self, cluster: &mut Cluster) {
        let id = self.someone_leading(cluster);
        let Some(core) = &cluster.world.machines[&id].core else { return };
        let voters = core.log().membership().voters.iter().copied();
        let others: Vec<ReplicaId> = voters.filter(|voter| *voter != id).collect();
        let known = !others.is_empty() && self.dice.chance(900);
        let to = if known { self.dice.pick(&others) } else { self.anyone(cluster) };
        self.count(cluster, "transfer");
        cluster.act(id, "transfer", |core| core.transfer_leader(to).is_ok());
        if self.dice.chance(600) {
            // It asks the other to take over and hears nothing of what comes of it.
            deafen(cluster, id);
        }
    }

    fn compact(&mut self, cluster: &mut Cluster) {
        let id = self.anyone(cluster);
        cluster.compact(id, self.dice.between(0, 5));
    }

    fn count(&mut self, cluster: &Cluster, fault: &str) {
        let now = Moment(cluster.world.now);
        cluster.trace.count(now, format_args!("fault: {fault}"), |counts| counts.faults += 1);
    }
}

/// Nothing reaches this replica any more, while it is still heard.
fn deafen(cluster: &mut Cluster, id: ReplicaId) {
    cluster.all().into_iter().for_each(|other| cluster.network.cut(other, id));
}

fn placed(ids: BTreeSet<ReplicaId>) -> BTreeMap<ReplicaId, NodeId> {
    ids.into_iter().map(|id| (id, node_of(id))).collect()
}
