//! How a leader replicates: proposals, appends, their answers, and what is committed.
//!
//! A proposal is only put into the log; [`Raft::ready`] sends what has gathered, so proposals that
//! come together travel together. Appends leave before the leader's own write is durable, which
//! counts as one more replica once it is (Ongaro 2014, section 10.2.1).

use bytes::Bytes;

use crate::protocol::raft::entry::{Entry, LogPosition, Payload};
use crate::protocol::raft::leading::Peer;
use crate::protocol::raft::log::Log;
use crate::protocol::raft::message::{Append, AppendOutcome, AppendReply, Body, Message};
use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::raft::{Options, Raft, State};
use crate::types::{LogIndex, ReplicaId};

/// Why a command was not taken; nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads, or none.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// Leadership is being handed over.
    #[error("leadership of the group is being handed over")]
    Transferring,
    /// Too many entries wait for being committed.
    #[error("{bytes} bytes wait for being committed, {bytes_max} are the most")]
    TooMuchUncommitted {
        /// What the waiting entries cost.
        bytes: usize,
        /// The most that they may.
        bytes_max: usize,
    },
}

impl Raft {
    /// Appends a command, and says where; it is committed if it comes out of [`Raft::ready`] with
    /// this position's index and term, and lost if another entry does with its index.
    ///
    /// # Errors
    /// When the replica does not lead, hands leadership over, or has too much uncommitted. A
    /// command beyond the limit is taken when nothing else waits.
    pub fn propose(&mut self, command: Bytes) -> Result<LogPosition, ProposeError> {
        let leader = self.leader;
        let State::Leader(leading) = &self.state else {
            return Err(ProposeError::NotLeader { leader });
        };
        if leading.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        let (bytes, bytes_max) = (leading.uncommitted_bytes, self.options.uncommitted_bytes_max);
        if bytes > 0 && bytes.saturating_add(command.len()) > bytes_max {
            return Err(ProposeError::TooMuchUncommitted { bytes, bytes_max });
        }
        Ok(self.append_own(Payload::Command(command)))
    }

    /// The stream to a replica's node broke: what was in flight to it may be lost.
    pub fn on_unreachable(&mut self, replica: ReplicaId) {
        if let Some(peer) = self.peer_mut(replica) {
            peer.progress.on_unreachable();
        }
    }

    /// A snapshot that this leader was asked for is in place at `to` through that index, or has
    /// failed (`None`).
    pub fn snapshot_done(&mut self, to: ReplicaId, through: Option<LogIndex>) {
        let last = self.log.last_index();
        let State::Leader(leading) = &mut self.state else { return };
        if let Some(peer) = leading.peers.get_mut(&to) {
            peer.progress.end_snapshot(through.map(|index| index.min(last)));
            leading.appends_due |= peer.wants_append(last);
        }
    }

    /// Puts an entry of its own at the end of a leader's log (leader append-only, section 3.6.3).
    pub(super) fn append_own(&mut self, payload: Payload) -> LogPosition {
        let entry = Entry { term: self.term, index: self.log.last_index().next(), payload };
        let position = entry.position();
        if let State::Leader(leading) = &mut self.state {
            leading.uncommitted_bytes += entry.cost_bytes();
            leading.appends_due = true;
        }
        self.log.append(entry);
        self.outbox.note_log_changed();
        position
    }

    /// Sends every replica what it lacks, as far as its window allows.
    pub(super) fn send_appends(&mut self) {
        let State::Leader(leading) = &mut self.state else { return };
        if !std::mem::take(&mut leading.appends_due) {
            return;
        }
        let (last, round) = (self.log.last_index(), leading.rounds.latest());
        for (&to, peer) in &mut leading.peers {
            while peer.wants_append(last) {
                let Some(append) = next_append(&self.log, peer, round, &self.options) else {
                    let through = self.log.start().index;
                    peer.progress.begin_snapshot(through);
                    self.outbox.want_snapshot(to, through);
                    break;
                };
                peer.progress
                    .on_sent(LogIndex(append.previous.index.0 + append.entries.len() as u64));
                let body = Body::Append(append);
                self.outbox.push(Message { from: self.own, to, term: self.term, body });
            }
        }
    }

    /// A replica's answer to an append.
    pub(super) fn on_append_reply(&mut self, from: ReplicaId, reply: AppendReply) {
        let State::Leader(leading) = &mut self.state else { return };
        leading.note_answer(from, reply.round, self.now);
        let (last, round) = (self.log.last_index(), leading.rounds.latest());
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        let advanced = match reply.outcome {
            AppendOutcome::Matches(index) => peer.progress.on_matched(index.min(last), round),
            AppendOutcome::Rejected { previous, hint } => {
                peer.progress.on_rejected(previous, self.log.find_conflict(hint).next());
                false
            }
        };
        leading.appends_due |= peer.wants_append(last);
        if advanced {
            self.advance_commit();
            self.hasten_transfer(from);
        }
        self.confirm_reads();
    }

    /// Commits what a quorum holds durably, if its last entry is of this term: replicas of an
    /// earlier term's entry prove nothing, as a later leader may still replace it (section 3.6.2,
    /// figure 3.7). What lies before is committed along (log matching).
    pub(super) fn advance_commit(&mut self) {
        let index = self.quorum_matched();
        let own_term = self.log.term_at(index) == Some(self.term);
        if index > self.log.committed() && (own_term || planted(Planted::CommitEarlierTerm)) {
            self.commit_own(index);
        }
    }

    /// Takes entries as committed, and does what follows from that.
    pub(super) fn commit_own(&mut self, index: LogIndex) {
        let State::Leader(leading) = &mut self.state else { return };
        let news = self.log.entries_between(self.log.committed().next(), index);
        leading.uncommitted_bytes -= news.iter().map(Entry::cost_bytes).sum::<usize>();
        if self.log.commit_to(index) {
            self.on_membership_committed();
        }
    }

    /// The last index that a quorum holds durably.
    fn quorum_matched(&self) -> LogIndex {
        let State::Leader(leading) = &self.state else { return LogIndex(0) };
        if planted(Planted::CommitBeforeMajority) {
            return self.log.stable();
        }
        self.log.membership().commit_index(|replica| {
            if replica == self.own {
                return self.log.stable();
            }
            leading.peers.get(&replica).map_or(LogIndex(0), |peer| peer.progress.matched())
        })
    }

    fn peer_mut(&mut self, replica: ReplicaId) -> Option<&mut Peer> {
        match &mut self.state {
            State::Leader(leading) => leading.peers.get_mut(&replica),
            _ => None,
        }
    }
}

/// The next append to a replica; `None` when it needs entries that are compacted.
fn next_append(log: &Log, peer: &Peer, round: u64, options: &Options) -> Option<Append> {
    let next = peer.progress.next();
    let index = LogIndex(next.0 - 1);
    let previous = LogPosition { index, term: log.term_at(index)? };
    let entries = log.slice(next, options.append_bytes_max)?;
    Some(Append { previous, entries, commit: log.committed(), round })
}
