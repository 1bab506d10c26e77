//! A bare Raft core on a machine of its own, with a disk and a clock: the driver of the tests.
//!
//! A crash loses what was not told to be durable by `advance()`, and of an outstanding write any
//! part. The state machine is as good as the index up to which it was applied, since everything
//! that is applied is compared with what was chosen.

use std::collections::BTreeMap;

use coterie::protocol::raft::entry::LogStart;
use coterie::protocol::raft::{Options, Raft, Ready, Write};
use coterie::types::{LogIndex, ReplicaId};

use crate::disk::Disk;
use crate::planted::{Planted, planted};

/// One replica, running or not.
pub(crate) struct Machine {
    pub(crate) id: ReplicaId,
    /// None while it is down.
    pub(crate) core: Option<Raft>,
    pub(crate) disk: Disk,
    /// What is being written, and when it will be durable.
    pub(crate) outstanding: Option<(u64, Write)>,
    /// The last entry that this life's state machine was given.
    pub(crate) applied: LogIndex,
    /// Counts the starts.
    pub(crate) life: u64,
    /// Its own ticks; they go on while it is paused or down.
    pub(crate) ticks: u64,
    /// What was committed anywhere when each of its ticks began.
    pub(crate) committed_at: Vec<LogIndex>,
    /// A paused machine does nothing.
    pub(crate) paused: bool,
    /// Snapshots that are being sent, and when to give them up.
    pub(crate) sending: BTreeMap<ReplicaId, u64>,
}

impl Machine {
    pub(crate) fn new(id: ReplicaId, start: LogStart) -> Machine {
        let applied = start.position.index;
        Machine {
            id,
            core: None,
            disk: Disk::new(start),
            outstanding: None,
            applied,
            life: 0,
            ticks: 0,
            committed_at: vec![LogIndex(0)],
            paused: false,
            sending: BTreeMap::new(),
        }
    }

    /// Starts a new life from what the disk holds; a planted bug makes it forget for whom it voted.
    pub(crate) fn start(&mut self, options: Options, seed: u64) {
        let mut restored = self.disk.restored();
        if planted(Planted::ForgetVoteOnRestart) {
            restored.hard_state.voted_for = None;
        }
        self.life += 1;
        self.applied = restored.applied;
        self.core = Some(Raft::new(self.id, options, restored, seed, self.ticks));
    }

    /// Loses everything that is not durable; `kept` entries of an outstanding write are.
    pub(crate) fn crash(&mut self, kept: Option<usize>) {
        self.core = None;
        self.paused = false;
        self.sending.clear();
        if let (Some((_, write)), Some(kept)) = (self.outstanding.take(), kept) {
            self.disk.write(&write, kept.min(write.entries.len()));
        }
    }

    pub(crate) fn is_working(&self) -> bool {
        self.core.is_some() && !self.paused
    }

    /// Brings the core's clock up to date and lets it do something; None while it cannot.
    pub(crate) fn act<T>(&mut self, what: impl FnOnce(&mut Raft) -> T) -> Option<T> {
        let (working, ticks) = (self.is_working(), self.ticks);
        let core = self.core.as_mut().filter(|_| working)?;
        core.tick(ticks);
        Some(what(core))
    }

    /// What the core has for its driver; its write is under way until `due`.
    pub(crate) fn take(&mut self, due: u64) -> Option<Ready> {
        let core = self.core.as_mut().filter(|core| core.has_ready())?;
        let mut ready = core.ready();
        if let Some(write) = ready.write.take() {
            assert!(self.outstanding.is_none(), "a second write before the first is durable");
            self.outstanding = Some((due, write));
        }
        if let Some(last) = ready.committed.last() {
            self.applied = last.index;
        }
        Some(ready)
    }

    /// The outstanding write is durable.
    pub(crate) fn sync(&mut self) {
        let Some((_, write)) = self.outstanding.take() else { return };
        self.disk.write(&write, write.entries.len());
        if let Some(core) = self.core.as_mut() {
            core.advance();
        }
    }

    /// The state machine's rows up to what it was given are durable.
    pub(crate) fn checkpoint(&mut self) {
        self.disk.applied = self.disk.applied.max(self.applied);
    }

    /// Drops the log up to `through`, or less if the state machine does not hold that durably.
    pub(crate) fn compact(&mut self, through: LogIndex) {
        let through = through.min(self.disk.applied);
        if let Some(core) = self.core.as_mut() {
            core.compact(through);
            self.disk.compact_like(core);
        }
    }

    /// The state machine as a snapshot: where a log behind it begins.
    pub(crate) fn snapshot(&self) -> Option<LogStart> {
        self.core.as_ref()?.log().start_at(self.applied)
    }

    /// Puts a snapshot in place, unless what is here is newer.
    pub(crate) fn install(&mut self, start: LogStart) {
        let Some(core) = self.core.as_mut() else { return };
        assert!(self.outstanding.is_none(), "a snapshot waits for the write before it");
        if start.position.index > core.commit() {
            self.disk.install(start.clone());
            self.applied = start.position.index;
            core.restore(start);
        }
    }
}
