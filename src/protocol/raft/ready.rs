//! What the driver has to do, and what waits for it.
//!
//! A message that promises something leaves only after the write that makes it true is durable
//! (Ongaro 2014, section 3.8). One write is under way at a time. What is promised about changes
//! that came after it waits for the write after it; what needs no write leaves at once.

use crate::protocol::raft::entry::{Entry, HardState, LogPosition, LogStart};
use crate::protocol::raft::message::{Body, Message};
use crate::protocol::raft::reads::ReadState;
use crate::protocol::raft::{Raft, State};
use crate::types::{LogIndex, ReplicaId, Term};

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To be sent. They may leave at once: those that wait for a write are not among them.
    pub messages: Vec<Message>,
    /// To be made durable; [`Raft::advance`] says that it is. `None` while an earlier one is under
    /// way, or when there is nothing to write.
    pub write: Option<Write>,
    /// To be applied, in this order; each entry is handed out once, and is durable here.
    pub committed: Vec<Entry>,
    /// Reads that may be served once the state machine has applied their index.
    pub reads: Vec<ReadState>,
    /// Reads that this replica cannot answer any more.
    pub reads_lost: Vec<u64>,
    /// Replicas that need a snapshot which covers at least that index. Each is handed out once;
    /// [`Raft::snapshot_done`] ends it.
    pub snapshots_wanted: Vec<(ReplicaId, LogIndex)>,
}

/// What to make durable, all of it or nothing, behind the writes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Entries that replace everything from the index of the first one on.
    pub entries: Vec<Entry>,
}

/// The write that is under way.
#[derive(Clone, Debug)]
struct Outstanding {
    term: Term,
    voted_for: Option<ReplicaId>,
    /// Whether it makes a term or a vote durable that was not before.
    bears_vote: bool,
    last: Option<LogPosition>,
}

/// What waits to be handed out, and for what.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    messages: Vec<Message>,
    /// Wait for the write that is under way.
    behind_write: Vec<Message>,
    /// Wait for the one after that, which is not handed out yet.
    behind_next: Vec<Message>,
    write: Option<Outstanding>,
    /// The hard state as it was last handed out.
    handed: HardState,
    /// Whether the log has changed since its entries were last handed out.
    log_changed: bool,
    reads: Vec<ReadState>,
    reads_lost: Vec<u64>,
    snapshots_wanted: Vec<(ReplicaId, LogIndex)>,
}

impl Outbox {
    /// Nothing to do; the hard state is durable.
    pub(super) fn new(durable: HardState) -> Outbox {
        Outbox {
            messages: Vec::new(),
            behind_write: Vec::new(),
            behind_next: Vec::new(),
            write: None,
            handed: durable,
            log_changed: false,
            reads: Vec::new(),
            reads_lost: Vec::new(),
            snapshots_wanted: Vec::new(),
        }
    }

    /// Adds a message that promises nothing that is not durable.
    pub(super) fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    pub(super) fn note_log_changed(&mut self) {
        self.log_changed = true;
    }

    pub(super) fn serve_reads(&mut self, mut reads: Vec<ReadState>) {
        self.reads.append(&mut reads);
    }

    pub(super) fn lose_reads(&mut self, mut tokens: Vec<u64>) {
        self.reads_lost.append(&mut tokens);
    }

    pub(super) fn want_snapshot(&mut self, to: ReplicaId, through: LogIndex) {
        self.snapshots_wanted.push((to, through));
    }

    /// Drops the messages whose write has not begun. A message may always be lost.
    pub(super) fn drop_unwritten(&mut self) {
        self.behind_next.clear();
    }

    /// Drops what was said about a log that is gone.
    fn drop_acknowledgements(&mut self) {
        for queue in [&mut self.messages, &mut self.behind_write, &mut self.behind_next] {
            queue.retain(|message| !matches!(message.body, Body::AppendReply(_)));
        }
    }

    fn has_something(&self) -> bool {
        !self.messages.is_empty()
            || !self.reads.is_empty()
            || !self.reads_lost.is_empty()
            || !self.snapshots_wanted.is_empty()
    }
}

impl Raft {
    /// Whether [`Raft::ready`] would hand out anything.
    pub fn has_ready(&self) -> bool {
        self.outbox.has_something()
            || self.may_write()
            || self.applicable() > self.applied
            || self.wants_read_round()
            || matches!(&self.state, State::Leader(leading) if leading.appends_due)
    }

    /// Hands out what there is to do.
    pub fn ready(&mut self) -> Ready {
        if self.wants_read_round() {
            self.begin_round();
        }
        self.send_appends();
        let write = self.take_write();
        let committed = self.take_committed();
        let outbox = &mut self.outbox;
        Ready {
            messages: std::mem::take(&mut outbox.messages),
            write,
            committed,
            reads: std::mem::take(&mut outbox.reads),
            reads_lost: std::mem::take(&mut outbox.reads_lost),
            snapshots_wanted: std::mem::take(&mut outbox.snapshots_wanted),
        }
    }

    /// The write under way is durable: what waited for it may go, and comes with the next
    /// [`Raft::ready`]. Without a write under way this does nothing.
    pub fn advance(&mut self) {
        let Some(write) = self.outbox.write.take() else { return };
        self.outbox.messages.append(&mut self.outbox.behind_write);
        if let Some(last) = write.last {
            // Ignored when these entries were replaced meanwhile: the next write brings others.
            self.log.stable_to(last);
            self.advance_commit();
        }
        self.on_vote_durable(write.term, write.voted_for);
    }

    /// Drops entries that the state machine holds durably. Nothing is dropped that was not handed
    /// out as committed.
    pub fn compact(&mut self, through: LogIndex) {
        self.log.compact(through.min(self.applied));
    }

    /// A snapshot is in place, durably, and the log begins there. What the log holds behind it
    /// stays if the log holds its last entry, as that may have been acknowledged; else everything
    /// goes, also of the write that is under way. False if the state machine was further already:
    /// then only the log is cut, which in the files begins there, too.
    pub fn restore(&mut self, start: LogStart) -> bool {
        let position = start.position;
        if position.index <= self.applied {
            self.log.reset(start);
            return false;
        }
        if self.log.matches(position) {
            self.commit_through(position.index);
        } else {
            // On a leader this proves that there is a later one, as it lacks a committed entry.
            self.become_follower();
            self.outbox.drop_acknowledgements();
        }
        self.log.reset(start);
        self.applied = position.index;
        true
    }

    /// Adds a message of this term that may leave at once.
    pub(super) fn send(&mut self, to: ReplicaId, body: Body) {
        self.outbox.push(Message { from: self.own, to, term: self.term, body });
    }

    /// Adds a message of this term that may leave once the term, the vote in it and the log
    /// through that index are durable.
    pub(super) fn send_when_durable(&mut self, to: ReplicaId, body: Body, through: LogIndex) {
        let message = Message { from: self.own, to, term: self.term, body };
        let entries_wait = through > self.log.stable();
        let under_way = self.outbox.write.as_ref();
        let behind_write = under_way.is_some_and(|write| entries_wait || write.bears_vote);
        let entries_unwritten = entries_wait && (self.outbox.log_changed || under_way.is_none());
        let queue = if self.has_unwritten_vote() || entries_unwritten {
            &mut self.outbox.behind_next
        } else if behind_write {
            &mut self.outbox.behind_write
        } else {
            &mut self.outbox.messages
        };
        queue.push(message);
    }

    fn has_unwritten_vote(&self) -> bool {
        let handed = &self.outbox.handed;
        (handed.term, handed.voted_for) != (self.term, self.voted_for)
    }

    fn may_write(&self) -> bool {
        self.outbox.write.is_none()
            && (self.has_unwritten_vote()
                || !self.log.unstable().is_empty()
                || !self.outbox.behind_next.is_empty())
    }

    /// Committed entries may be applied as far as they are durable here.
    fn applicable(&self) -> LogIndex {
        self.log.committed().min(self.log.stable())
    }

    fn take_write(&mut self) -> Option<Write> {
        if !self.may_write() {
            return None;
        }
        self.outbox.log_changed = false;
        let entries = self.log.unstable().to_vec();
        let bears_vote = self.has_unwritten_vote();
        if entries.is_empty() && !bears_vote {
            self.outbox.messages.append(&mut self.outbox.behind_next);
            return None;
        }
        std::mem::swap(&mut self.outbox.behind_write, &mut self.outbox.behind_next);
        let (term, voted_for) = (self.term, self.voted_for);
        let last = entries.last().map(Entry::position);
        self.outbox.write = Some(Outstanding { term, voted_for, bears_vote, last });
        Some(Write { hard_state: self.take_hard_state(), entries })
    }

    /// The hard state, if it changed since it was last handed out. The commit index alone is never
    /// worth a write. It goes no further than what is durable, so that a disk which holds the hard
    /// state holds the entries as well.
    fn take_hard_state(&mut self) -> Option<HardState> {
        let commit = self.applicable().max(self.outbox.handed.commit);
        let present = HardState { term: self.term, voted_for: self.voted_for, commit };
        let changed = present != self.outbox.handed;
        self.outbox.handed = present;
        changed.then_some(present)
    }

    fn take_committed(&mut self) -> Vec<Entry> {
        let through = self.applicable();
        if through <= self.applied {
            return Vec::new();
        }
        let committed = self.log.entries_between(self.applied.next(), through).to_vec();
        self.applied = through;
        committed
    }

    fn commit_through(&mut self, index: LogIndex) {
        if self.is_leader() {
            self.commit_own(index);
        } else {
            self.log.commit_to(index);
        }
    }
}
