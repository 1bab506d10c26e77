//! One replica of one group: its Raft core, its state machine, and who waits for what.
//!
//! [`Group::pass`] does the driver's duties in the order that the core prescribes: what may leave
//! leaves, what must be durable goes into the batch, what is committed is applied, and those who
//! waited are answered.

mod applying;
mod backlog;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::config::GroupOptions;
use crate::node::groups::batch::{Batch, Outcome};
use crate::node::groups::fetching::{Errand, Fetching};
use crate::node::groups::group::backlog::Backlog;
use crate::node::groups::machine::{GroupMachine, MachineError};
use crate::node::groups::observer::Observed;
use crate::node::groups::open::start_of;
use crate::node::groups::overlay::{GroupRows, Overlay};
use crate::node::groups::waiting::{Answer, Asker, ReadWaiting, Waiting};
use crate::protocol::message::{ForwardRefusal, GroupMessage, SnapshotChunk};
use crate::protocol::raft::entry::{HardState, LogStart, Restored};
use crate::protocol::raft::message::{Body, Message as RaftMessage};
use crate::protocol::raft::{Options, ProposeError, Raft, Ready, Write};
use crate::storage::store::Store;
use crate::storage::wal::{GroupRecord, LogRecord};
use crate::types::{GroupId, Key, KeyspaceId, LogIndex, NodeId, PartitionId, ReplicaId, Row, Term};

/// What a pass wants done.
#[derive(Default)]
pub(crate) struct Effects {
    /// What a record of entries may have at most, in bytes.
    record_bytes_max: usize,
    /// Messages, each with the node that it is for.
    pub(crate) messages: Vec<(NodeId, GroupMessage)>,
    /// What must become durable.
    pub(crate) batch: Batch,
    /// Answers to those who asked.
    pub(crate) answers: Vec<(Asker, Answer)>,
    /// Replicas that need a snapshot of their group.
    pub(crate) snapshots: Vec<(GroupId, ReplicaId)>,
    /// Keys that changed, for snapshots under way.
    pub(crate) changed: Vec<(GroupId, Vec<Row>)>,
    /// Groups that were led by another replica, or by none, before.
    pub(crate) leaders_changed: Vec<GroupId>,
    /// What a group has applied, kept only for an observer.
    pub(crate) observed: Option<Vec<Observed>>,
    /// The rows that each entry has changed which the group has applied, for those who watch.
    pub(crate) applied: Vec<(LogIndex, Vec<Row>)>,
    /// What is to be fetched from the disk.
    pub(crate) errands: Vec<Errand>,
}

impl Effects {
    /// Nothing to do yet.
    pub(crate) fn new(record_bytes_max: usize) -> Effects {
        Effects { record_bytes_max, ..Effects::default() }
    }
}

/// One replica of one group.
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) machine: GroupMachine,
    overlay: Overlay,
    /// Committed and not applied yet: rows that they act on are being fetched, or the store failed
    /// when it was their turn.
    backlog: Backlog,
    fetching: Fetching,
    waiting: Waiting,
    /// Where replicas run that the membership here does not name yet.
    heard: BTreeMap<ReplicaId, NodeId>,
    /// The last entry whose outcome is on its way to the log, or there.
    logged: LogIndex,
    /// The last entry whose outcome is durable.
    durable: LogIndex,
    leader_before: (Term, Option<ReplicaId>),
    installing: bool,
    /// A row that is needed here cannot be read, for the stored bytes are no row.
    damaged: bool,
    /// True while the end of a snapshot is on its way to the log: what the core wants written now
    /// would follow the log that the snapshot replaces.
    sealed: bool,
}

/// What a group starts with.
pub(crate) struct Beginning {
    pub(crate) id: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) restored: Restored,
    pub(crate) machine: GroupMachine,
    /// True when its rows are of no single moment: it waits for a snapshot.
    pub(crate) installing: bool,
}

impl Group {
    pub(crate) fn new(beginning: Beginning, options: Options, seed: u64, now: u64) -> Group {
        let Beginning { id, replica, restored, machine, installing } = beginning;
        let durable = restored.applied;
        let overlay = Overlay::new(machine.applied().revision);
        Group {
            id,
            replica,
            raft: Raft::new(replica, options, restored, seed, now),
            machine,
            overlay,
            backlog: Backlog::default(),
            fetching: Fetching::default(),
            waiting: Waiting::default(),
            heard: BTreeMap::new(),
            logged: durable,
            durable,
            leader_before: (Term::default(), None),
            installing,
            damaged: false,
            sealed: false,
        }
    }

    /// Takes a message of another replica.
    pub(crate) fn on_message(&mut self, from: NodeId, message: RaftMessage) {
        // Entries that are passed over come again, as lost ones do.
        let is_too_much = matches!(message.body, Body::Append(_)) && self.backlog.is_full();
        if message.to == self.replica && !is_too_much {
            self.heard.insert(message.from, from);
            self.raft.step(message);
        }
    }

    /// Proposes a command; the asker hears once it was applied here, or that it never will be.
    pub(crate) fn propose(&mut self, command: Bytes, asker: Asker) -> Option<(Asker, Answer)> {
        if self.backlog.is_full() {
            return Some((asker, Err(ForwardRefusal::Overloaded)));
        }
        match self.raft.propose(command) {
            Ok(position) => {
                self.waiting.proposed(position, asker);
                None
            }
            Err(error) => Some((asker, Err(self.refusal(&error)))),
        }
    }

    /// Asks for a read that is as fresh as any answer given before it was asked.
    pub(crate) fn read(&mut self, read: ReadWaiting) -> Option<(Asker, Answer)> {
        let token = self.waiting.token();
        match self.raft.read_index(token) {
            Ok(()) => {
                self.waiting.reading(token, read);
                None
            }
            Err(error) => Some((read.asker, Err(self.refusal(&error)))),
        }
    }

    /// Whether one more read may wait here.
    pub(crate) fn has_room_for_read(&self) -> bool {
        self.waiting.has_room_for_read(self.fetching.len())
    }

    /// Queues a read that may be answered once the entry is applied.
    pub(crate) fn read_at(&mut self, index: LogIndex, read: ReadWaiting) {
        self.waiting.ripens(index, read);
    }

    /// What the core wants, done: to be called whenever anything happened to the group.
    ///
    /// # Errors
    /// [`MachineError`] when the store failed: what is committed is applied at a later pass.
    pub(crate) fn pass(
        &mut self,
        store: &Store,
        effects: &mut Effects,
    ) -> Result<(), MachineError> {
        if self.sealed {
            return Ok(());
        }
        while self.raft.has_ready() {
            let ready = self.raft.ready();
            self.route(&ready.messages, effects);
            let Ready { write, committed, reads, reads_lost, snapshots_wanted, .. } = ready;
            if let Some(write) = write {
                self.write(write, effects);
            }
            self.backlog.extend(committed);
            for read in reads {
                self.waiting.read_index_known(read.token, read.index);
            }
            let leader = self.leader_node();
            let refusal = ForwardRefusal::NotLeader { leader };
            effects.answers.extend(self.waiting.reads_lost(&reads_lost, refusal));
            let wanted = snapshots_wanted.into_iter();
            effects.snapshots.extend(wanted.map(|(replica, _)| (self.id, replica)));
        }
        self.notice_leader(effects);
        if self.installing {
            return Ok(());
        }
        self.apply(store, effects)?;
        self.answer_reads(store, effects)
    }

    /// The group's write in the batch is durable.
    pub(crate) fn on_written(&mut self) {
        self.raft.advance();
    }

    /// The outcome of what was applied is durable and in the store.
    pub(crate) fn on_outcome(&mut self, outcome: &Outcome) {
        self.overlay.note_published(outcome.revision);
        self.trim();
        self.durable = self.durable.max(outcome.applied);
    }

    /// Cuts the log where it has grown long: a record that says where it begins from now on.
    ///
    /// Not while the end of a snapshot is on its way to the log, which then begins further on.
    pub(crate) fn compact(&mut self, limits: GroupOptions) -> Option<LogRecord> {
        let log = self.raft.log();
        if self.sealed || self.durable.0 < log.start().index.0 + limits.log_entries_max {
            return None;
        }
        let start = log.start_at(LogIndex(self.durable.0 - limits.log_entries_kept))?;
        self.raft.compact(start.position.index);
        Some(self.start_record(start))
    }

    /// The node that leads, as far as this replica knows.
    pub(crate) fn leader_node(&self) -> Option<NodeId> {
        self.raft.leader().and_then(|leader| self.node_of(leader))
    }

    /// Where a replica of the group runs.
    pub(crate) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let known = self.raft.log().membership().node(replica);
        known.or_else(|| self.heard.get(&replica).copied())
    }

    /// The group's rows, those applied a moment ago included.
    pub(crate) fn rows<'a>(&'a self, store: &'a Store) -> GroupRows<'a> {
        let (overlay, fetching) = (&self.overlay, &self.fetching);
        GroupRows { store, overlay, fetching, partition: self.partition() }
    }

    /// A snapshot's rows are on their way into the table: nothing is applied meanwhile.
    pub(crate) fn set_installing(&mut self) {
        self.installing = true;
    }

    /// Whether a row that is needed here is damaged, so that another replica's rows are.
    pub(crate) fn needs_other_rows(&self) -> bool {
        let mut voters = self.raft.log().membership().voters.iter();
        let has_others = voters.any(|replica| *replica != self.replica);
        self.damaged && has_others && !self.installing && !self.sealed
    }

    /// The last rows of a snapshot are on their way: the replica waits for them.
    pub(crate) fn seal(&mut self) {
        self.sealed = true;
    }

    /// Whether the end of a snapshot is on its way to the log.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Whether a snapshot that begins with this chunk may be taken in: from nobody but the leader,
    /// and only by a replica that the log cannot bring up to date, or whose table is of no single
    /// moment. A chunk that comes late, or twice, would undo what is there; a leader that is
    /// refused asks whether the log will do.
    pub(crate) fn wants_snapshot(&self, chunk: &SnapshotChunk) -> bool {
        let from_leader = self.raft.leader().is_none_or(|leader| leader == chunk.from);
        let behind = self.installing || self.raft.commit() < chunk.log_start;
        from_leader && behind && !self.raft.is_leader()
    }

    /// Whether the log may begin where a snapshot ends: it can't where it is gone already.
    pub(crate) fn may_begin_at(&self, start: &LogStart) -> bool {
        start.position.index >= self.raft.log().start().index
    }

    /// Whether the table is of no single moment.
    pub(crate) fn is_installing(&self) -> bool {
        self.installing
    }

    /// A snapshot's end is in the log of this node, and so the group's log begins there.
    ///
    /// Returns the answers to those whose proposals it may or may not hold.
    pub(crate) fn restore(&mut self, start: LogStart) -> Vec<(Asker, Answer)> {
        let through = start.position.index;
        self.sealed = false;
        self.backlog.pass_over(through);
        // If the core has handed out as much already, it goes on with that.
        self.raft.restore(start);
        self.waiting.passed_over(through)
    }

    /// A snapshot's rows are in place: the machine goes on from there.
    pub(crate) fn install(&mut self, machine: GroupMachine) {
        self.durable = self.durable.max(machine.applied().position.index);
        self.logged = self.durable;
        self.overlay = Overlay::new(machine.applied().revision);
        self.machine = machine;
        self.fetching.note_installed();
        (self.installing, self.damaged) = (false, false);
    }

    /// What another replica of the group begins with that takes this one's place here: its log
    /// begins behind what this one had applied, as after a snapshot.
    pub(crate) fn succeeded_by(self, replica: ReplicaId) -> (Beginning, Overlay) {
        let start = start_of(self.machine.applied());
        let applied = start.position.index;
        let (hard_state, entries) = (HardState::default(), Vec::new());
        let restored = Restored { hard_state, start, entries, applied };
        let (id, machine, installing) = (self.id, self.machine, self.installing);
        (Beginning { id, replica, restored, machine, installing }, self.overlay)
    }

    /// Takes over rows that were applied and are not in the table yet.
    pub(crate) fn set_overlay(&mut self, overlay: Overlay) {
        self.overlay = overlay;
    }

    /// Tells everyone who waits that the replica is gone from here.
    pub(crate) fn dismiss(&mut self) -> Vec<(Asker, Answer)> {
        self.waiting.take_all(&ForwardRefusal::NotReplica)
    }

    /// How many requests wait here.
    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting.len() + self.fetching.len()
    }

    /// Keys of rows that were applied and are not in the table yet.
    pub(crate) fn overlay_keys(&self) -> BTreeSet<(KeyspaceId, Key)> {
        self.overlay.keys()
    }

    /// How much of the log a replica is known to have; of a leader.
    pub(crate) fn matched(&self, replica: ReplicaId) -> Option<LogIndex> {
        self.raft.status().progress.get(&replica).map(|progress| progress.matched)
    }

    pub(crate) fn partition(&self) -> PartitionId {
        self.id.partition()
    }

    /// The record that makes the log begin there.
    pub(crate) fn start_record(&self, start: LogStart) -> LogRecord {
        let (group, replica) = (self.id, self.replica);
        LogRecord::Group(GroupRecord::Start { group, replica, start })
    }

    fn route(&self, messages: &[RaftMessage], effects: &mut Effects) {
        for message in messages {
            // A replica whose node nobody has named is one that was removed: it needs no word.
            if let Some(node) = self.node_of(message.to) {
                let message = GroupMessage { group: self.id, message: message.clone() };
                effects.messages.push((node, message));
            }
        }
    }

    fn write(&self, write: Write, effects: &mut Effects) {
        let (group, replica) = (self.id, self.replica);
        let records = &mut effects.batch.records;
        if let Some(hard_state) = write.hard_state {
            records.push(LogRecord::Group(GroupRecord::HardState { group, replica, hard_state }));
        }
        for entries in GroupRecord::cut(write.entries, effects.record_bytes_max) {
            records.push(LogRecord::Group(GroupRecord::Entries { group, replica, entries }));
        }
        effects.batch.writers.push((group, replica));
    }

    /// A new leader, or none: proposals of another term will be answered by what took their place.
    fn notice_leader(&mut self, effects: &mut Effects) {
        let leader = (self.raft.term(), self.raft.leader());
        if leader != self.leader_before {
            self.leader_before = leader;
            effects.leaders_changed.push(self.id);
        }
    }

    fn refusal(&self, error: &ProposeError) -> ForwardRefusal {
        match error {
            ProposeError::TooMuchUncommitted { .. } => ForwardRefusal::Overloaded,
            ProposeError::NotLeader { .. } | ProposeError::Transferring => {
                ForwardRefusal::NotLeader { leader: self.leader_node() }
            }
        }
    }
}
