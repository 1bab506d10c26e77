//! Reads without writing to the log: read index, leases, and how fresh a replica is.
//!
//! A read index needs a leader that has committed an entry of its own term, so that its commit
//! index covers what earlier leaders committed, and a quorum that confirms after the read arrived
//! that it still leads (Ongaro 2014, section 6.4). A lease replaces the second by clocks whose
//! rates agree (section 6.4.1). A follower may say how fresh it is at least, from its leader's
//! heartbeats.

use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::raft::{ProposeError, Raft, State};
use crate::types::LogIndex;

/// How fresh a replica is at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// A tick of this replica's own clock.
    pub tick: u64,
    /// What was committed and acknowledged up to that tick lies no further than here; a state
    /// machine that has applied so much is as fresh as that.
    pub commit: LogIndex,
}

impl Raft {
    /// Asks for an index that a linearizable read must have applied. The answer comes under the
    /// reader's own `token` in `Ready::reads` or, when leadership is lost, in `Ready::reads_lost`.
    /// How many reads may wait is for the caller to limit.
    ///
    /// # Errors
    /// When the replica does not lead.
    pub fn read_index(&mut self, token: u64) -> Result<(), ProposeError> {
        let State::Leader(leading) = &mut self.state else {
            return Err(ProposeError::NotLeader { leader: self.leader });
        };
        leading.reads.push(token);
        Ok(())
    }

    /// Whether this leader may serve a linearizable read at tick `now` from what it has committed,
    /// without asking anybody. One tick less than an election timeout after a quorum was last
    /// asked, as the ticks of others begin at other times.
    pub fn lease_holds(&self, now: u64) -> bool {
        let State::Leader(leading) = &self.state else { return false };
        let asked = self.quorum_tick().filter(|_| !leading.lease_void);
        self.options.lease_reads
            && self.has_committed_own_term()
            && asked.is_some_and(|tick| now + 1 < tick + self.options.election_ticks)
    }

    /// How fresh this replica is at least; `None` when that is not known.
    pub fn freshness(&self) -> Option<Freshness> {
        if !self.is_leader() {
            return self.fresh;
        }
        let tick = self.quorum_tick().filter(|_| self.has_committed_own_term())?;
        Some(Freshness { tick, commit: self.log.committed() })
    }

    /// Whether reads wait for a round of heartbeats that may begin.
    pub(super) fn wants_read_round(&self) -> bool {
        match &self.state {
            State::Leader(leading) => leading.reads.wants_round() && self.may_serve_reads(),
            _ => false,
        }
    }

    /// The round that has just begun is that of the waiting reads.
    pub(super) fn begin_reads(&mut self) {
        let may_serve = self.may_serve_reads();
        let State::Leader(leading) = &mut self.state else { return };
        if may_serve {
            leading.reads.begin(leading.rounds.latest(), self.log.committed());
        }
        self.confirm_reads();
    }

    /// Serves the reads whose round a quorum has confirmed.
    pub(super) fn confirm_reads(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        if leading.reads.is_empty() {
            return;
        }
        let present = leading.rounds.latest();
        let confirmed = self.log.membership().quorum_latest(|replica| {
            if replica == self.own {
                return present;
            }
            leading.peers.get(&replica).map_or(0, |peer| peer.progress.round())
        });
        let confirmed = if planted(Planted::ReadIndexWithoutQuorum) { present } else { confirmed };
        let State::Leader(leading) = &mut self.state else { return };
        self.outbox.serve_reads(leading.reads.confirm(confirmed));
    }

    fn may_serve_reads(&self) -> bool {
        self.has_committed_own_term() || planted(Planted::ReadIndexWithoutOwnTerm)
    }
}
