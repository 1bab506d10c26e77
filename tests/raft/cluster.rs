//! A whole group of bare cores in virtual time; every action is followed by every invariant.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coterie::protocol::raft::membership::{Membership, Target};
use coterie::protocol::raft::reads::ReadState;
use coterie::protocol::raft::{Raft, Ready};
use coterie::types::{LogIndex, Moment, ReplicaId};

use crate::dice::Dice;
use crate::invariants::steps::Event as Step;
use crate::invariants::steps::ledger::Ledger;
use crate::invariants::{Event, Invariants, Violation};
use crate::machine::Machine;
use crate::network::{Network, Packet, Parcel};
use crate::setup::{Setup, empty_log};
use crate::trace::Trace;

/// Units of virtual time after which a snapshot that nobody confirms is given up.
const SENDING_UNITS: u64 = 300;

/// What the invariants look at.
pub(crate) struct World {
    /// Units of virtual time; a tick takes several.
    pub(crate) now: u64,
    pub(crate) machines: BTreeMap<ReplicaId, Machine>,
    pub(crate) ledger: Ledger,
    pub(crate) setup: Setup,
}

/// A group under test.
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    /// What broke first; nothing happens after it.
    pub(crate) broken: Option<Violation>,
    invariants: Invariants,
    dice: Dice,
    tokens: u64,
}

impl Cluster {
    pub(crate) fn new(setup: Setup, trace: Trace) -> Cluster {
        let dice = Dice::new(setup.seed);
        let network = Network::new(dice.fork("network"), setup.weather);
        let founding = empty_log(setup.founding());
        let machines = setup.pool().into_iter().map(|id| {
            let joins_later = !founding.membership.contains(id);
            let start =
                if joins_later { empty_log(Membership::default()) } else { founding.clone() };
            (id, Machine::new(id, start))
        });
        let (machines, ledger) = (machines.collect(), Ledger::default());
        let dice = dice.fork("cluster");
        let invariants = Invariants::new();
        let world = World { now: 0, machines, ledger, setup };
        let mut cluster =
            Cluster { world, network, trace, broken: None, invariants, dice, tokens: 0 };
        cluster.ids().into_iter().for_each(|id| cluster.start(id));
        cluster
    }

    pub(crate) fn ids(&self) -> Vec<ReplicaId> {
        self.world.machines.keys().copied().collect()
    }

    fn machine(&mut self, id: ReplicaId) -> &mut Machine {
        self.world.machines.get_mut(&id).expect("only machines of the pool are named")
    }

    fn note(&self, line: std::fmt::Arguments<'_>) {
        self.trace.note(Moment(self.world.now), line);
    }

    /// Lets one unit of time pass.
    pub(crate) fn pass(&mut self) {
        self.world.now += 1;
        let now = self.world.now;
        while let Some(packet) = self.network.arrived(now) {
            self.deliver(packet);
        }
        for id in self.ids() {
            self.tick(id);
            self.give_up_sending(id);
            let due = self.machine(id).outstanding.as_ref().is_some_and(|(due, _)| *due <= now);
            if due && self.machine(id).is_working() {
                self.sync(id);
            }
        }
    }

    fn tick(&mut self, id: ReplicaId) {
        let ticks_now = self.world.setup.clock(id).ticks_at(self.world.now);
        let by_deadline = self.world.setup.by_deadline;
        let committed = self.world.ledger.last();
        let machine = self.machine(id);
        if !ticks_now {
            return;
        }
        machine.ticks += 1;
        machine.committed_at.push(committed);
        let ticks = machine.ticks;
        let due = |core: &Raft| !by_deadline || core.deadline() <= ticks;
        if machine.is_working() && machine.core.as_ref().is_some_and(due) {
            self.act(id, "tick", |_| ());
        }
    }

    /// Lets a core do something, and everything follow that follows at once.
    pub(crate) fn act<T>(
        &mut self,
        id: ReplicaId,
        name: &str,
        what: impl FnOnce(&mut Raft) -> T,
    ) -> Option<T> {
        if self.broken.is_some() {
            return None;
        }
        let done = self.machine(id).act(what)?;
        self.note(format_args!("{id} {name}"));
        self.settle(id, Vec::new());
        Some(done)
    }

    fn settle(&mut self, id: ReplicaId, events: Vec<Event>) {
        const READIES_MAX: usize = 8;
        self.check(id, &events);
        for _ in 0..READIES_MAX {
            let due = self.world.now + self.world.setup.write_delay(&mut self.dice);
            let Some(ready) = self.machine(id).take(due) else { return };
            self.carry_out(id, ready);
        }
        let detail = format!("{id} is ready again and again");
        self.broken.get_or_insert(Violation { invariant: "ready_ends", detail });
    }

    fn carry_out(&mut self, id: ReplicaId, ready: Ready) {
        let mut events: Vec<Event> = ready
            .messages
            .iter()
            .cloned()
            .map(|message| Event::Step(Step::Sent(message)))
            .collect();
        events.extend(ready.committed.into_iter().map(|entry| Event::Step(Step::Applied(entry))));
        for read in ready.reads {
            events.push(self.answered(id, read));
        }
        self.check(id, &events);
        for message in ready.messages {
            let (to, parcel) = (message.to, Parcel::Message(message));
            self.send(Packet { from: id, to, parcel });
        }
        for (to, _) in ready.snapshots_wanted {
            self.send_snapshot(id, to);
        }
    }

    fn send(&mut self, packet: Packet) {
        if let Parcel::Message(message) = &packet.parcel {
            let line = crate::show::message(message);
            self.trace.count(Moment(self.world.now), format_args!("{line}"), |c| c.messages += 1);
        }
        self.network.send(self.world.now, packet);
    }

    fn send_snapshot(&mut self, from: ReplicaId, to: ReplicaId) {
        let given_up_at = self.world.now + SENDING_UNITS;
        let machine = self.machine(from);
        let life = machine.life;
        let start = machine.snapshot().expect("what is applied is in the log, or begins it");
        machine.sending.insert(to, given_up_at);
        self.note(format_args!("{from} sends {to} a snapshot up to {}", start.position.index));
        self.send(Packet { from, to, parcel: Parcel::Snapshot { start, life } });
    }

    fn deliver(&mut self, packet: Packet) {
        let (from, to) = (packet.from, packet.to);
        if !self.machine(to).is_working() {
            return;
        }
        match packet.parcel {
            Parcel::Message(message) => {
                self.act(to, "step", |core| core.step(message));
            }
            Parcel::Snapshot { .. } if self.machine(to).outstanding.is_some() => {
                self.network.defer(self.world.now + 1, packet);
            }
            Parcel::Snapshot { start, life } => {
                let through = Some(start.position.index);
                self.note(format_args!("{to} installs a snapshot"));
                self.machine(to).install(start);
                let applied = self.world.machines[&to].applied;
                self.settle(to, vec![Event::Step(Step::Installed(applied))]);
                self.send(Packet { from: to, to: from, parcel: Parcel::Report { through, life } });
            }
            Parcel::Report { through, life } if self.machine(to).life == life => {
                self.machine(to).sending.remove(&from);
                self.act(to, "snapshot done", |core| core.snapshot_done(from, through));
            }
            Parcel::Report { .. } => {}
        }
    }

    /// Whoever sends rows notices at last that nobody takes them.
    fn give_up_sending(&mut self, id: ReplicaId) {
        let now = self.world.now;
        let machine = self.machine(id);
        if !machine.is_working() {
            return;
        }
        let due = machine.sending.iter().filter(|(_, given_up_at)| **given_up_at <= now);
        let late: Vec<ReplicaId> = due.map(|(to, _)| *to).collect();
        machine.sending.retain(|_, given_up_at| *given_up_at > now);
        for to in late {
            self.act(id, "gives up a snapshot", |core| core.snapshot_done(to, None));
        }
    }

    pub(crate) fn sync(&mut self, id: ReplicaId) {
        self.note(format_args!("{id} synced"));
        self.machine(id).sync();
        self.settle(id, Vec::new());
    }

    pub(crate) fn start(&mut self, id: ReplicaId) {
        let seed = self.dice.next();
        let options = self.world.setup.options.clone();
        self.machine(id).start(options, seed);
        self.note(format_args!("{id} starts"));
        let applied = self.world.machines[&id].applied;
        self.settle(id, vec![Event::Step(Step::Started(applied))]);
    }

    /// Loses what is not durable; of an outstanding write `kept` entries, or all of it if None.
    pub(crate) fn crash(&mut self, id: ReplicaId) {
        let kept = match self.dice.between(0, 3) {
            0 => Some(usize::MAX),
            1 => Some(self.dice.index(4)),
            _ => None,
        };
        self.note(format_args!("{id} crashes, keeping {kept:?}"));
        self.machine(id).crash(kept);
    }

    pub(crate) fn propose(&mut self, id: ReplicaId) {
        self.tokens += 1;
        let size_bytes = self.dice.index(40);
        let mut command = self.tokens.to_string().into_bytes();
        command.resize(command.len() + size_bytes, b'.');
        self.act(id, "propose", |core| core.propose(Bytes::from(command)).is_ok());
    }

    /// Asks for a read, after taking note of what it must not miss.
    pub(crate) fn read(&mut self, id: ReplicaId) {
        self.tokens += 1;
        let (token, floor) = (self.tokens, self.world.ledger.last());
        if !self.machine(id).is_working() {
            return;
        }
        self.check(id, &[Event::ReadAsked { token, floor }]);
        let ticks = self.machine(id).ticks;
        let leased = self.act(id, "read", |core| {
            if core.lease_holds(ticks) {
                return Some(core.commit());
            }
            // A refusal is as good as an answer that never comes.
            core.read_index(token).ok();
            None
        });
        if let Some(index) = leased.flatten() {
            let answered = self.answered(id, ReadState { token, index });
            self.check(id, &[answered]);
        }
    }

    fn answered(&self, id: ReplicaId, read: ReadState) -> Event {
        let line = format_args!("{id} serves {} at {}", read.token, read.index);
        self.trace.count(Moment(self.world.now), line, |counts| counts.answers += 1);
        Event::ReadAnswered(read)
    }

    /// Orders another membership, which must be refused if it comes from one that is not in force.
    pub(crate) fn order(&mut self, id: ReplicaId, target: &Target, expected: LogIndex) {
        let Some(before) = self.machine(id).act(|core| core.status().membership_index) else {
            return;
        };
        let made = self.act(id, "order", |core| core.propose_membership(target, expected));
        if matches!(made, Some(Ok(_))) {
            self.note(format_args!("{id} changes to {target:?}"));
            self.check(id, &[Event::Ordered { expected, before }]);
        }
    }

    fn check(&mut self, id: ReplicaId, events: &[Event]) {
        if self.broken.is_none() {
            if let Some(core) = &self.world.machines[&id].core {
                self.world.ledger.note(core);
            }
            self.broken = self.invariants.check(&self.world, id, events);
        }
    }

    pub(crate) fn set_paused(&mut self, id: ReplicaId, paused: bool) {
        self.note(format_args!("{id} {}", if paused { "pauses" } else { "goes on" }));
        self.machine(id).paused = paused;
    }

    pub(crate) fn compact(&mut self, id: ReplicaId, held_back: u64) {
        if self.machine(id).core.is_some() {
            self.machine(id).checkpoint();
            let through = LogIndex(self.machine(id).applied.0.saturating_sub(held_back));
            self.machine(id).compact(through);
            self.note(format_args!("{id} compacts to {through}"));
            self.settle(id, Vec::new());
        }
    }

    /// Where the longest of all logs ends.
    pub(crate) fn longest_log(&self) -> LogIndex {
        let cores = self.world.machines.values().filter_map(|machine| machine.core.as_ref());
        cores.map(|core| core.log().last_index()).max().unwrap_or_default()
    }

    /// All who think that they lead.
    pub(crate) fn leaders(&self) -> Vec<ReplicaId> {
        let machines = self.world.machines.values();
        let lead =
            machines.filter(|machine| machine.core.as_ref().is_some_and(|core| core.is_leader()));
        lead.map(|machine| machine.id).collect()
    }

    /// The replica that leads the latest term, of those that work.
    pub(crate) fn leader(&self) -> Option<ReplicaId> {
        let working = self.world.machines.values().filter(|machine| machine.is_working());
        let leaders = working.filter_map(|machine| {
            let core = machine.core.as_ref().filter(|core| core.is_leader())?;
            Some((core.term(), machine.id))
        });
        leaders.max().map(|(_, id)| id)
    }

    pub(crate) fn all(&self) -> BTreeSet<ReplicaId> {
        self.world.machines.keys().copied().collect()
    }
}
