//! A small group: replicas with disks, a network that holds messages until they are delivered, and
//! the invariants that hold whatever happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{founding, id, membership, options};
use crate::protocol::raft::entry::{Entry, HardState, LogStart, Payload, Restored};
use crate::protocol::raft::message::{AppendOutcome, Body, Message};
use crate::protocol::raft::{Options, Raft, Ready, Role, Write};
use crate::types::{LogIndex, ReplicaId, Term};

/// What a replica has made durable.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    hard_state: HardState,
    start: LogStart,
    entries: Vec<Entry>,
}

impl Disk {
    fn new(start: LogStart) -> Disk {
        Disk { hard_state: HardState::default(), start, entries: Vec::new() }
    }

    fn write(&mut self, write: &Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(&write.entries);
        }
    }

    fn begin_at(&mut self, start: LogStart) {
        if !self.entries.iter().any(|entry| entry.position() == start.position) {
            self.entries.clear();
        }
        self.entries.retain(|entry| entry.index > start.position.index);
        self.start = start;
    }

    fn last_index(&self) -> LogIndex {
        self.entries.last().map_or(self.start.position.index, |entry| entry.index)
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        let start = self.start.position;
        let held = self.entries.iter().find(|entry| entry.index == index);
        held.map(|entry| entry.term).or((index == start.index).then_some(start.term))
    }
}

/// One replica with its disk and its state machine, which is the list of what it applied.
pub(super) struct Member {
    pub(super) raft: Raft,
    pub(super) disk: Disk,
    pub(super) write: Option<Write>,
    /// The last entry that the state machine holds; the machine itself counts as durable.
    pub(super) applied: LogIndex,
    pub(super) is_up: bool,
    /// Its clock stands still.
    pub(super) is_frozen: bool,
}

/// Replicas, and what was seen of them.
pub(super) struct Group {
    pub(super) members: BTreeMap<u64, Member>,
    pub(super) network: VecDeque<Message>,
    /// Pairs between which nothing passes.
    pub(super) cut: BTreeSet<(u64, u64)>,
    pub(super) now: u64,
    options: Options,
    /// Every entry that any replica handed out as committed.
    pub(super) committed: BTreeMap<LogIndex, Entry>,
    leaders: BTreeMap<Term, ReplicaId>,
    /// What was committed when a tick began.
    committed_by_tick: Vec<LogIndex>,
    /// What was committed when a read was asked for.
    reads: BTreeMap<u64, LogIndex>,
    pub(super) reads_served: u64,
    /// Whether all clocks go at the same rate, as leases and freshness need.
    pub(super) clocks_agree: bool,
    pub(super) snapshots: Vec<(u64, ReplicaId, LogIndex)>,
}

impl Group {
    /// A group of these voters; replicas beyond them exist and know of no other member.
    pub(super) fn new(voters: &[u64], spare: &[u64], options: Options, seed: u64) -> Group {
        let mut group = Group {
            members: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            now: 0,
            options,
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            committed_by_tick: vec![LogIndex(0)],
            reads: BTreeMap::new(),
            reads_served: 0,
            clocks_agree: true,
            snapshots: Vec::new(),
        };
        for &number in voters.iter().chain(spare) {
            let disk = Disk::new(founding(membership(voters, &[])));
            group.start(number, disk, LogIndex(0), seed);
        }
        group
    }

    pub(super) fn calm(voters: &[u64]) -> Group {
        Group::new(voters, &[], options(), 1)
    }

    fn start(&mut self, number: u64, disk: Disk, applied: LogIndex, seed: u64) {
        let restored = Restored {
            hard_state: disk.hard_state,
            start: disk.start.clone(),
            entries: disk.entries.clone(),
            applied,
        };
        let raft = Raft::new(id(number), self.options.clone(), restored, seed, self.now);
        let member = Member { raft, disk, write: None, applied, is_up: true, is_frozen: false };
        self.members.insert(number, member);
    }

    pub(super) fn raft(&mut self, number: u64) -> &mut Raft {
        &mut self.members.get_mut(&number).unwrap().raft
    }

    /// Loses what is not durable and starts again.
    pub(super) fn restart(&mut self, number: u64, seed: u64) {
        let member = self.members.remove(&number).unwrap();
        self.start(number, member.disk, member.applied, seed);
    }

    pub(super) fn tick(&mut self) {
        self.now += 1;
        self.committed_by_tick.push(self.last_committed());
        for number in self.numbers() {
            let member = self.members.get_mut(&number).unwrap();
            if member.is_up && !member.is_frozen {
                member.raft.tick(self.now);
            }
            self.check(number);
        }
    }

    pub(super) fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from.0, message.to.0);
        if self.cut.contains(&(from, to)) {
            return;
        }
        if let Some(member) = self.members.get_mut(&to).filter(|member| member.is_up) {
            member.raft.step(message);
        }
    }

    /// Hands out what one replica has to do; its write stays under way.
    pub(super) fn poll(&mut self, number: u64) {
        let Some(member) = self.members.get_mut(&number).filter(|member| member.is_up) else {
            return;
        };
        if !member.raft.has_ready() {
            return;
        }
        let ready = member.raft.ready();
        self.take(number, ready);
        self.check(number);
    }

    pub(super) fn finish_write(&mut self, number: u64) {
        let member = self.members.get_mut(&number).unwrap();
        if let Some(write) = member.write.take() {
            member.disk.write(&write);
            member.raft.advance();
            self.check(number);
        }
    }

    /// Delivers, writes and hands out until nothing is left to do.
    pub(super) fn settle(&mut self) {
        loop {
            for number in self.numbers() {
                self.poll(number);
                self.finish_write(number);
                self.poll(number);
            }
            match self.network.pop_front() {
                Some(message) => self.deliver(message),
                None if self.members.values().any(|m| m.is_up && m.raft.has_ready()) => {}
                None => return,
            }
        }
    }

    /// Lets time pass without faults until one replica leads and the others follow it.
    pub(super) fn elect(&mut self) -> u64 {
        for _ in 0..400 {
            self.tick();
            self.settle();
            let leaders: Vec<u64> = self.leading();
            if let &[leader] = leaders.as_slice() {
                return leader;
            }
        }
        panic!("nobody was elected");
    }

    pub(super) fn leading(&self) -> Vec<u64> {
        let up = self.members.iter().filter(|(_, member)| member.is_up);
        up.filter(|(_, member)| member.raft.is_leader()).map(|(&number, _)| number).collect()
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    pub(super) fn last_committed(&self) -> LogIndex {
        self.committed.keys().next_back().copied().unwrap_or_default()
    }

    pub(super) fn ask_for_read(&mut self, number: u64, token: u64) {
        let committed = self.last_committed();
        if self.raft(number).read_index(token).is_ok() {
            self.reads.insert(token, committed);
        }
    }

    /// What a snapshot of a replica's state machine says of itself.
    pub(super) fn snapshot_of(&self, number: u64) -> Option<LogStart> {
        let member = &self.members[&number];
        member.raft.log().start_at(member.applied)
    }

    /// Puts a snapshot in place, if it reaches further than what is there.
    pub(super) fn install(&mut self, number: u64, start: LogStart) {
        let member = self.members.get_mut(&number).unwrap();
        if start.position.index <= member.raft.applied() {
            return;
        }
        // The write under way was handed out before the start, so it lies before it on disk.
        if let Some(write) = &mut member.write {
            member.disk.write(write);
            *write = Write { hard_state: None, entries: Vec::new() };
        }
        member.disk.begin_at(start.clone());
        member.applied = start.position.index;
        assert!(member.raft.restore(start));
    }

    pub(super) fn compact(&mut self, number: u64) {
        let member = self.members.get_mut(&number).unwrap();
        member.raft.compact(member.applied);
        let start = member.raft.log().start_at(member.raft.log().start().index).unwrap();
        if start.position.index > member.disk.start.position.index {
            member.disk.begin_at(start);
        }
    }

    fn take(&mut self, number: u64, ready: Ready) {
        let member = self.members.get_mut(&number).unwrap();
        for message in &ready.messages {
            check_durable(&member.disk, message);
        }
        if ready.write.is_some() {
            assert!(member.write.is_none(), "one write at a time");
            member.write = ready.write;
        }
        for entry in ready.committed {
            let disk_term = member.disk.term_at(entry.index);
            assert!(disk_term == Some(entry.term), "{number} hands out {entry:?} undurably");
            assert_eq!(entry.index, member.applied.next(), "{number} skips or repeats entries");
            member.applied = entry.index;
            let known = self.committed.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(*known, entry, "state machine safety (section 3.6.3) at {number}");
        }
        for read in ready.reads {
            let asked = self.reads.remove(&read.token).expect("a read is served once");
            assert!(read.index >= asked, "{number} serves a stale read: {read:?}, {asked} before");
            self.reads_served += 1;
        }
        for token in ready.reads_lost {
            assert!(self.reads.remove(&token).is_some());
        }
        let wanted = ready.snapshots_wanted.into_iter();
        self.snapshots.extend(wanted.map(|(to, through)| (number, to, through)));
        self.network.extend(ready.messages);
    }

    fn check(&mut self, number: u64) {
        let member = &self.members[&number];
        let raft = &member.raft;
        if raft.role() == Role::Leader {
            let leader = *self.leaders.entry(raft.term()).or_insert(raft.own());
            assert_eq!(leader, raft.own(), "election safety (section 3.4)");
            assert!(member.disk.hard_state.term >= raft.term(), "leads a term that may be lost");
        }
        assert!(raft.applied() <= raft.commit());
        if self.clocks_agree {
            self.check_clocked(number);
        }
    }

    fn check_clocked(&self, number: u64) {
        let raft = &self.members[&number].raft;
        if raft.lease_holds(self.now) {
            assert!(raft.commit() >= self.last_committed(), "{number} has a lease and is stale");
        }
        if let Some(fresh) = raft.freshness() {
            let committed = self.committed_by_tick[fresh.tick as usize];
            assert!(committed <= fresh.commit, "{number} claims {fresh:?}, but {committed} was");
        }
    }

    /// Every replica of the membership holds and has applied everything that was committed.
    pub(super) fn check_converged(&self) {
        let last = self.last_committed();
        let leader = &self.members[&self.leading()[0]];
        for replica in leader.raft.log().membership().replicas() {
            assert_eq!(self.members[&replica.0].applied, last, "{replica} lags behind");
        }
    }

    /// The commands that were committed, as text.
    pub(super) fn commands(&self) -> Vec<String> {
        let commands = self.committed.values().filter_map(|entry| match &entry.payload {
            Payload::Command(command) => Some(String::from_utf8_lossy(command).into_owned()),
            _ => None,
        });
        commands.collect()
    }
}

/// What a message promises is on the disk of who sends it.
fn check_durable(disk: &Disk, message: &Message) {
    match &message.body {
        Body::Vote(vote) if vote.pre_vote => return,
        Body::VoteReply { pre_vote: true, .. } => return,
        Body::VoteReply { granted: true, .. } if disk.hard_state.term == message.term => {
            assert_eq!(disk.hard_state.voted_for, Some(message.to), "a vote that may be forgotten");
        }
        Body::AppendReply(reply) => {
            if let AppendOutcome::Matches(index) = reply.outcome {
                assert!(disk.last_index() >= index, "acknowledges {index}, which may be lost");
            }
        }
        _ => {}
    }
    assert!(disk.hard_state.term >= message.term, "{message:?} bears a term that may be lost");
}
