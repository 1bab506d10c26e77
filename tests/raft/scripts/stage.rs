//! The replicas of one script and the commands that move them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coterie::protocol::raft::entry::{LogStart, Payload};
use coterie::protocol::raft::membership::{Membership, Target};
use coterie::protocol::raft::message::Message;
use coterie::protocol::raft::{Options, Raft, Ready};
use coterie::types::{LogIndex, ReplicaId};

use crate::machine::Machine;
use crate::setup::{empty_log, node_of};
use crate::show;

/// Deliveries after which a script that never comes to rest is stopped.
const DELIVERIES_MAX: usize = 400;

/// What is on its way.
enum Parcel {
    Message(Message),
    Snapshot(ReplicaId, ReplicaId, LogStart),
}

/// Everything that a script moves.
#[derive(Default)]
pub(super) struct Stage {
    machines: BTreeMap<ReplicaId, Machine>,
    queue: VecDeque<Parcel>,
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Replicas whose disks do not finish their writes.
    held: BTreeSet<ReplicaId>,
    /// What the entries of one append may cost, if the script says.
    append_bytes_max: Option<u64>,
    leases: bool,
    out: Vec<String>,
}

impl Stage {
    /// Carries out a command and returns what came of it.
    pub(super) fn command(&mut self, command: &str) -> Vec<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (name, rest) = words.split_first().expect("a command has a name");
        let known = self.move_group(name, rest) || self.move_replica(name, rest);
        assert!(known, "no such command: {command}");
        std::mem::take(&mut self.out)
    }

    /// Commands about all replicas or what is between them.
    fn move_group(&mut self, name: &str, rest: &[&str]) -> bool {
        let ids: Vec<ReplicaId> = rest.iter().filter_map(|word| id(word)).collect();
        match name {
            "cluster" => self.found(rest),
            "deliver" => self.deliver(rest.first().map(|count| number(count))),
            "drop" => self.queue.clear(),
            "cut" => drop(self.cut.insert((ids[0], ids[1]))),
            "isolate" => ids.iter().for_each(|id| self.isolate(*id)),
            "mend" => self.cut.clear(),
            "pass" => self.pass(number(rest[0])),
            "status" => self.each(&ids, |machine, core| {
                let waits = if machine.outstanding.is_some() { ", writing" } else { "" };
                format!("{}: {}{waits}", machine.id, show::state(core))
            }),
            "log" => self.each(&ids, |machine, core| {
                let entries = core.log().entries_from(core.log().first_index());
                let start = show::position(core.log().start());
                format!("{}: {start} | {}", machine.id, show::entries(entries))
            }),
            "membership" => self.each(&ids, |machine, core| {
                let (members, at) = (core.log().membership(), core.log().membership_index());
                format!("{}: {} of {at}", machine.id, show::membership(members))
            }),
            "lease" => self.each(&ids, |machine, core| {
                let holds = core.lease_holds(machine.ticks);
                format!("{}: {}", machine.id, if holds { "lease holds" } else { "no lease" })
            }),
            "progress" => self.each(&ids, |_, core| {
                let progress = core.status().progress;
                let each = progress.iter().map(|(id, view)| {
                    let (matched, next, state) = (view.matched, view.next, view.state);
                    let in_flight = view.appends_in_flight;
                    format!(
                        "{id}: matched {matched}, next {next}, {state:?}, {in_flight} in flight"
                    )
                });
                each.collect::<Vec<_>>().join("\n").to_lowercase()
            }),
            _ => return false,
        }
        true
    }

    /// Commands about the one replica that is named first.
    fn move_replica(&mut self, name: &str, rest: &[&str]) -> bool {
        let Some(own) = rest.first().and_then(|word| id(word)) else { return false };
        let other = || id(rest[1]).expect("the second word is a replica");
        match name {
            "campaign" => self.campaign(own),
            "tick" => self.tick(own, number(rest[1])),
            "propose" => {
                let command = Bytes::copy_from_slice(rest[1].as_bytes());
                self.ask(own, |core| core.propose(command).map(|_| ()).map_err(|e| e.to_string()));
            }
            "read" => {
                let token = number(rest[1]);
                self.ask(own, |core| core.read_index(token).map_err(|e| e.to_string()));
            }
            "transfer" => {
                self.ask(own, |core| core.transfer_leader(other()).map_err(|e| e.to_string()));
            }
            "unreachable" => self.act(own, |core| core.on_unreachable(other())),
            "order" => self.order(own, &rest[1..]),
            "hold" => drop(self.held.insert(own)),
            "sync" => {
                self.held.remove(&own);
                self.machine(own).sync();
                self.settle(own);
            }
            "crash" => self.machine(own).crash(None),
            "start" => self.start(own),
            "compact" => {
                let machine = self.machine(own);
                machine.checkpoint();
                machine.compact(LogIndex(number(rest[1])));
            }
            _ => return false,
        }
        true
    }

    fn found(&mut self, words: &[&str]) {
        let setting = |name: &str| {
            let pair = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            pair.map(number)
        };
        let voters = setting("voters").expect("cluster needs voters=");
        let machines = setting("machines").unwrap_or(voters).max(voters);
        self.leases = words.contains(&"leases");
        self.append_bytes_max = setting("append_bytes_max");
        let placed = (1..=voters).map(|id| (ReplicaId(id), node_of(ReplicaId(id))));
        let membership = Membership::founding(placed.collect());
        for own in (1..=machines).map(ReplicaId) {
            let member = membership.contains(own);
            let membership = if member { membership.clone() } else { Membership::default() };
            self.machines.insert(own, Machine::new(own, empty_log(membership)));
            self.start(own);
        }
    }

    fn machine(&mut self, own: ReplicaId) -> &mut Machine {
        self.machines.get_mut(&own).expect("the script names a replica of its cluster")
    }

    fn start(&mut self, own: ReplicaId) {
        let options = Options {
            election_ticks: 10,
            heartbeat_ticks: 2,
            append_bytes_max: self.append_bytes_max.map_or(1_000, |bytes| bytes as usize),
            appends_in_flight_max: 4,
            uncommitted_bytes_max: 10_000,
            lease_reads: self.leases,
        };
        let seed = 40 + own.0 + 7 * self.machine(own).life;
        self.machine(own).start(options, seed);
        self.settle(own);
    }

    fn each(&mut self, ids: &[ReplicaId], show: impl Fn(&Machine, &Raft) -> String) {
        for machine in self.machines.values() {
            if !ids.is_empty() && !ids.contains(&machine.id) {
                continue;
            }
            let down = || format!("{}: down", machine.id);
            let line = machine.core.as_ref().map_or_else(down, |core| show(machine, core));
            self.out.extend(line.lines().map(str::to_owned));
        }
    }

    fn isolate(&mut self, own: ReplicaId) {
        for other in self.machines.keys().filter(|other| **other != own) {
            self.cut.extend([(own, *other), (*other, own)]);
        }
    }

    /// Lets so much time pass for one replica that it stands for election; for the others as much,
    /// as long as they don't.
    fn campaign(&mut self, own: ReplicaId) {
        let own_ticks = self.machine(own).ticks;
        let deadline =
            self.machine(own).core.as_ref().expect("only who is up campaigns").deadline();
        let passed = deadline.saturating_sub(own_ticks);
        let others: Vec<ReplicaId> = self.machines.keys().copied().collect();
        for other in others.into_iter().filter(|other| *other != own) {
            let Some(core) = &self.machines[&other].core else { continue };
            let until = (self.machines[&other].ticks + passed).min(core.deadline() - 1);
            let ticks = until.saturating_sub(self.machines[&other].ticks);
            self.tick(other, ticks);
        }
        self.tick(own, passed);
    }

    fn tick(&mut self, own: ReplicaId, ticks: u64) {
        self.machine(own).ticks += ticks;
        self.act(own, |_| ());
    }

    fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            let ids: Vec<ReplicaId> = self.machines.keys().copied().collect();
            ids.into_iter().for_each(|own| self.tick(own, 1));
        }
    }

    fn order(&mut self, own: ReplicaId, words: &[&str]) {
        let listed = |name: &str| {
            let list = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            let ids = list.into_iter().flat_map(|list| list.split(',').filter_map(id));
            ids.map(|id| (id, node_of(id))).collect()
        };
        let target = Target { voters: listed("voters"), learners: listed("learners") };
        let on = words.iter().find_map(|word| word.strip_prefix("on=")).map(number);
        self.ask(own, |core| {
            let expected = on.map_or(core.log().membership_index(), LogIndex);
            let made = core.propose_membership(&target, expected);
            made.map(|_| ()).map_err(|e| e.to_string())
        });
    }

    fn ask(&mut self, own: ReplicaId, what: impl FnOnce(&mut Raft) -> Result<(), String>) {
        let mut refusal = None;
        self.act(own, |core| refusal = what(core).err());
        self.out.extend(refusal.map(|refusal| format!("{own} refuses: {refusal}")));
    }

    fn act(&mut self, own: ReplicaId, what: impl FnOnce(&mut Raft)) {
        let before = self.role(own);
        self.machine(own).act(what);
        let after = self.role(own);
        if before != after {
            self.out.extend(after.map(|role| format!("{own} is {role}")));
        }
        self.settle(own);
    }

    fn role(&self, own: ReplicaId) -> Option<String> {
        let core = self.machines[&own].core.as_ref()?;
        Some(format!("{:?} of term {}", core.role(), core.term()).to_lowercase())
    }

    fn settle(&mut self, own: ReplicaId) {
        loop {
            while let Some(ready) = self.machine(own).take(0) {
                self.carry_out(own, ready);
            }
            if self.machine(own).outstanding.is_none() || self.held.contains(&own) {
                return;
            }
            self.machine(own).sync();
        }
    }

    fn carry_out(&mut self, own: ReplicaId, ready: Ready) {
        for entry in ready.committed.iter().filter(|entry| entry.payload != Payload::Empty) {
            self.out.push(format!("{own} applies {}", show::entry(entry)));
        }
        for read in &ready.reads {
            self.out.push(format!("{own} serves read {} at {}", read.token, read.index));
        }
        for token in &ready.reads_lost {
            self.out.push(format!("{own} loses read {token}"));
        }
        self.queue.extend(ready.messages.into_iter().map(Parcel::Message));
        for (to, _) in ready.snapshots_wanted {
            let start = self.machine(own).snapshot().expect("what is applied is in the log");
            self.queue.push_back(Parcel::Snapshot(own, to, start));
        }
    }

    /// Delivers `count` parcels, or all and what they lead to.
    fn deliver(&mut self, count: Option<u64>) {
        let count = count.map_or(DELIVERIES_MAX, |count| count.try_into().expect("a small number"));
        for _ in 0..count {
            let Some(parcel) = self.queue.pop_front() else { return };
            match parcel {
                Parcel::Message(message) => self.deliver_message(message),
                Parcel::Snapshot(from, to, start) => self.deliver_snapshot(from, to, start),
            }
        }
        assert!(count < DELIVERIES_MAX, "the script never comes to rest");
    }

    fn arrives(&mut self, from: ReplicaId, to: ReplicaId, what: &str) -> bool {
        let arrives = !self.cut.contains(&(from, to)) && self.machine(to).is_working();
        self.out.push(if arrives { what.to_owned() } else { format!("lost: {what}") });
        arrives
    }

    fn deliver_message(&mut self, message: Message) {
        let to = message.to;
        if self.arrives(message.from, to, &show::message(&message)) {
            self.act(to, |core| core.step(message));
        }
    }

    fn deliver_snapshot(&mut self, from: ReplicaId, to: ReplicaId, start: LogStart) {
        let at = start.position;
        let arrives =
            self.arrives(from, to, &format!("{from}->{to} rows to {}", show::position(at)));
        if arrives {
            self.machine(to).install(start);
            self.settle(to);
        }
        self.act(from, |core| core.snapshot_done(to, arrives.then_some(at.index)));
    }
}

fn id(word: &str) -> Option<ReplicaId> {
    word.parse().ok().map(ReplicaId)
}

fn number(word: &str) -> u64 {
    word.parse().expect("the script gives a number here")
}
