//! What a replica tells of itself to whoever looks.

use std::collections::BTreeMap;

use crate::protocol::raft::entry::LogPosition;
use crate::protocol::raft::leading::Peer;
use crate::protocol::raft::membership::Membership;
use crate::protocol::raft::progress::State as Sending;
use crate::protocol::raft::{Raft, State};
use crate::types::{LogIndex, ReplicaId, Term};

/// What a replica is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows, or waits for a leader.
    Follower,
    /// It asks whether it could win an election.
    PreCandidate,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
}

/// A replica's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// The latest term that it has seen.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<ReplicaId>,
    /// What is committed, as far as it knows.
    pub commit: LogIndex,
    /// What was handed out to be applied.
    pub applied: LogIndex,
    /// The end of its log.
    pub last: LogPosition,
    /// The last entry that was compacted away.
    pub start: LogPosition,
    /// The membership in force.
    pub membership: Membership,
    /// The entry that put it in force; 0 for the founding one.
    pub membership_index: LogIndex,
    /// To whom leadership is being handed over.
    pub transferring_to: Option<ReplicaId>,
    /// A leader's view of all other replicas; empty elsewhere.
    pub progress: BTreeMap<ReplicaId, ProgressView>,
}

/// Another replica as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressView {
    /// Its log is durable and matches through here.
    pub matched: LogIndex,
    /// The first index of the next append to it.
    pub next: LogIndex,
    /// How it is sent entries.
    pub state: Sending,
    /// Appends that it has not answered.
    pub appends_in_flight: usize,
    /// The tick at which it was last heard.
    pub recent_tick: u64,
}

impl Raft {
    /// The replica's state, copied.
    pub fn status(&self) -> Status {
        let mut status = Status {
            role: self.role(),
            term: self.term,
            leader: self.leader,
            commit: self.log.committed(),
            applied: self.applied,
            last: self.log.last(),
            start: self.log.start(),
            membership: self.log.membership().clone(),
            membership_index: self.log.membership_index(),
            transferring_to: None,
            progress: BTreeMap::new(),
        };
        if let State::Leader(leading) = &self.state {
            status.transferring_to = leading.transfer.map(|transfer| transfer.to);
            status.progress = leading.peers.iter().map(|(&id, peer)| (id, peer.view())).collect();
        }
        status
    }
}

impl Peer {
    fn view(&self) -> ProgressView {
        ProgressView {
            matched: self.progress.matched(),
            next: self.progress.next(),
            state: self.progress.state(),
            appends_in_flight: self.progress.appends_in_flight(),
            recent_tick: self.progress.recent_tick(),
        }
    }
}
