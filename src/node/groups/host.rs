//! All groups of a node: events come in, effects go out, and only groups that something happened to
//! are touched.
//!
//! At most one batch is on its way to the log. What groups want written meanwhile gathers in the
//! next, which makes one sync serve many groups. Invariant: batches become durable in the order in
//! which they were made, since one that fails for want of room is tried again before any other.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::GroupOptions;
use crate::node::groups::batch::Batch;
use crate::node::groups::driver::ticks;
use crate::node::groups::fetching::Fetched;
use crate::node::groups::group::{Beginning, Effects, Group};
use crate::node::groups::incoming::ChunkWritten;
use crate::node::groups::observer::{Observing, Sight};
use crate::node::groups::timers::Timers;
use crate::node::groups::waiting::{Answer, Asker, ReadWaiting, Sought};
use crate::node::groups::watches::Watches;
use crate::protocol::consistency::Consistency;
use crate::protocol::message::{Ask, ForwardRefusal, GroupMessage};
use crate::protocol::raft::Options;
use crate::storage::store::Store;
use crate::storage::wal::LogRecord;
use crate::types::{GroupId, NodeId, ReplicaId};

/// All groups of a node.
pub(crate) struct Host {
    options: Options,
    limits: GroupOptions,
    record_bytes_max: usize,
    groups: BTreeMap<GroupId, Group>,
    timers: Timers,
    pub(super) watches: Watches,
    touched: BTreeSet<GroupId>,
    gathering: Batch,
    in_flight: Option<Batch>,
    now: u64,
    seed: u64,
    observing: Option<Observing>,
}

/// A question for a group, and how long its asker waits.
pub(crate) struct Question {
    pub(crate) group: GroupId,
    pub(crate) ask: Ask,
    pub(crate) asker: Asker,
}

impl Host {
    /// No groups yet; records of entries are cut to at most so many bytes.
    pub(crate) fn new(
        options: Options,
        limits: GroupOptions,
        record_bytes_max: usize,
        seed: u64,
        now: u64,
    ) -> Host {
        Host {
            options,
            limits,
            record_bytes_max,
            groups: BTreeMap::new(),
            timers: Timers::default(),
            watches: Watches::new(limits.watch_history),
            touched: BTreeSet::new(),
            gathering: Batch::default(),
            in_flight: None,
            now,
            seed,
            observing: None,
        }
    }

    /// Shows every pass to an observer from now on.
    pub(crate) fn observe(&mut self, observing: Observing) {
        self.observing = Some(observing);
    }

    /// Begins to host a replica of a group.
    pub(crate) fn host(&mut self, beginning: Beginning) {
        let id = beginning.id;
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let group = Group::new(beginning, self.options.clone(), self.seed, self.now);
        self.groups.insert(id, group);
        self.touched.insert(id);
    }

    /// Ceases to host a group; those who waited for it are to be told.
    pub(crate) fn drop_group(&mut self, id: GroupId) -> Option<(Group, Vec<(Asker, Answer)>)> {
        self.timers.remove(id);
        self.touched.remove(&id);
        let mut group = self.groups.remove(&id)?;
        let mut answers = group.dismiss();
        answers.extend(self.watches.dismiss(id));
        Some((group, answers))
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(crate) fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.touched.insert(id);
        let group = self.groups.get_mut(&id)?;
        group.raft.tick(self.now);
        Some(group)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// Whose replica of the group this node has.
    pub(crate) fn replica(&self, id: GroupId) -> Option<ReplicaId> {
        self.groups.get(&id).map(|group| group.replica)
    }

    /// Time has come to this tick.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = now;
        for id in self.timers.take_due(now) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.raft.tick(now);
                self.touched.insert(id);
            }
        }
    }

    /// The next tick at which anything is to be done.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Takes another replica's message.
    pub(crate) fn on_message(&mut self, from: NodeId, message: GroupMessage) {
        if let Some(group) = self.groups.get_mut(&message.group) {
            group.raft.tick(self.now);
            group.on_message(from, message.message);
            self.touched.insert(message.group);
        }
    }

    /// A stream to a node broke: what was under way to its replicas may be lost.
    pub(crate) fn on_disconnected(&mut self, node: NodeId) {
        for (id, group) in &mut self.groups {
            if group.raft.is_leader() {
                let on_node = |(_, place): &(&ReplicaId, &NodeId)| **place == node;
                let nodes = group.raft.log().membership().nodes.clone();
                for (replica, _) in nodes.iter().filter(on_node) {
                    group.raft.on_unreachable(*replica);
                    self.touched.insert(*id);
                }
            }
        }
    }

    /// Takes a client's question; the answer may come at once.
    pub(crate) fn ask(&mut self, question: Question) -> Option<(Asker, Answer)> {
        let Question { group: id, ask, asker } = question;
        let Some(group) = self.groups.get_mut(&id) else {
            return Some((asker, Err(ForwardRefusal::NotReplica)));
        };
        group.raft.tick(self.now);
        self.touched.insert(id);
        match ask {
            Ask::Propose(command) => group.propose(command, asker),
            Ask::Read { keyspace, key, consistency } => {
                let read = ReadWaiting { keyspace, sought: Sought::Key(key), asker };
                read_as(group, read, consistency, self.now)
            }
            Ask::List { keyspace, range, consistency } => {
                let read = ReadWaiting { keyspace, sought: Sought::Range(range), asker };
                read_as(group, read, consistency, self.now)
            }
            // It is answered by the pass that follows, if there is anything to tell.
            Ask::Watch(ask) => self.watches.wait(id, *ask, asker, self.now),
        }
    }

    /// Takes what was fetched for a group; answers the client that it was for, if it was for one.
    pub(crate) fn on_fetched(&mut self, fetched: Fetched) -> Option<(Asker, Answer)> {
        let Fetched { group: id, replica, catch } = fetched;
        let is_in_vain = catch.is_in_vain();
        let Some(group) = self.hosted(id, replica) else {
            let asker = catch.into_asker()?;
            return Some((asker, Err(ForwardRefusal::NotReplica)));
        };
        let answer = group.on_fetched(catch);
        // What cannot be read is tried again when something else happens, not over and over.
        if !is_in_vain {
            self.touched.insert(id);
        }
        answer
    }

    /// Lets every group that something happened to do what it wants.
    pub(crate) fn pass(&mut self, store: &Store) -> Effects {
        let mut effects = Effects::new(self.record_bytes_max);
        effects.observed = self.observing.as_ref().map(|_| Vec::new());
        for id in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.raft.tick(self.now);
            let sent_before = effects.messages.len();
            self.watches.follow(group);
            if let Err(error) = group.pass(store, &mut effects) {
                tracing::error!(group = %id, %error, "a group cannot apply what is committed");
            }
            if let Some(observing) = &self.observing {
                show(observing, group, &mut effects, sent_before);
            }
            let applied = std::mem::take(&mut effects.applied);
            effects.answers.extend(self.watches.serve(group, &applied, self.now));
            let deadline = group.raft.deadline().min(self.watches.deadline(id));
            self.timers.look_by(id, deadline);
        }
        let batch = std::mem::take(&mut effects.batch);
        self.gathering.append(batch);
        effects
    }

    /// Takes the next batch for the log, unless one is on its way.
    pub(crate) fn take_batch(&mut self) -> Option<&Batch> {
        if self.in_flight.is_none() && !self.gathering.is_empty() {
            self.in_flight = Some(std::mem::take(&mut self.gathering));
            return self.in_flight.as_ref();
        }
        None
    }

    /// The batch that is on its way, to be tried again.
    pub(crate) fn batch_again(&self) -> Option<&Batch> {
        self.in_flight.as_ref()
    }

    /// The batch on its way is durable, and its outcomes are in the store.
    /// Returns the chunks of snapshots that were among it.
    pub(crate) fn on_written(&mut self) -> Vec<ChunkWritten> {
        let Some(batch) = self.in_flight.take() else { return Vec::new() };
        let limits = self.limits;
        for outcome in &batch.outcomes {
            if let Some(group) = self.hosted(outcome.group, outcome.replica) {
                group.on_outcome(outcome);
                let cut = group.compact(limits);
                self.gathering.records.extend(cut);
            }
        }
        for (id, replica) in batch.writers {
            if let Some(group) = self.hosted(id, replica) {
                group.on_written();
                self.touched.insert(id);
            }
        }
        batch.chunks
    }

    /// Adds records that nobody waits for to the next batch.
    pub(crate) fn write(&mut self, records: Vec<LogRecord>) {
        self.gathering.records.extend(records);
    }

    /// Adds a snapshot's rows to the next batch.
    pub(crate) fn write_chunk(&mut self, records: Vec<LogRecord>, chunk: ChunkWritten) {
        self.gathering.records.extend(records);
        self.gathering.chunks.push(chunk);
    }

    fn hosted(&mut self, id: GroupId, replica: ReplicaId) -> Option<&mut Group> {
        self.groups.get_mut(&id).filter(|group| group.replica == replica)
    }

    /// What a record of the log may have at most, in bytes.
    pub(crate) fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// True when a pass would do something.
    pub(crate) fn is_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    pub(crate) fn limits(&self) -> GroupOptions {
        self.limits
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }
}

/// Shows an observer what a group has done in a pass.
fn show(observing: &Observing, group: &Group, effects: &mut Effects, sent_before: usize) {
    let entries = effects.observed.as_mut().map(std::mem::take).unwrap_or_default();
    observing.observer.on_pass(&Sight {
        node: observing.node,
        group: group.id,
        replica: group.replica,
        core: &group.raft,
        applied: group.machine.applied().position,
        messages: &effects.messages[sent_before..],
        entries: &entries,
        logs: &observing.logs,
    });
}

/// Serves a read as consistently as was asked, and never less.
fn read_as(
    group: &mut Group,
    read: ReadWaiting,
    consistency: Consistency,
    now: u64,
) -> Option<(Asker, Answer)> {
    if !group.has_room_for_read() {
        return Some((read.asker, Err(ForwardRefusal::Overloaded)));
    }
    if group.is_installing() {
        // Others have the rows.
        let leader = group.leader_node().filter(|_| !group.raft.is_leader());
        return Some((read.asker, Err(ForwardRefusal::NotLeader { leader })));
    }
    match consistency {
        Consistency::Lease if group.raft.lease_holds(now) => {
            group.read_at(group.raft.commit(), read);
            None
        }
        Consistency::Linearizable | Consistency::Lease => group.read(read),
        Consistency::Stale { max_staleness } => {
            let oldest = now.saturating_sub(ticks(max_staleness));
            match group.raft.freshness() {
                Some(fresh) if fresh.tick >= oldest => {
                    group.read_at(fresh.commit, read);
                    None
                }
                _ => group.read(read),
            }
        }
    }
}
