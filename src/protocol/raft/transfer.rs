//! Handing leadership over to a chosen replica (Ongaro 2014, section 3.10).
//!
//! The leader takes no more proposals, brings the target up to date, and asks it to stand for
//! election at once. After an election timeout it gives up and serves again.

use crate::protocol::raft::message::Body;
use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::raft::{Raft, State};
use crate::types::ReplicaId;

/// A transfer of leadership under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) to: ReplicaId,
    /// Whether somebody ordered it, which the target is told.
    ordered: bool,
    /// The tick at which the leader serves again.
    pub(super) given_up_at: u64,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Another replica leads, or none.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// The target cannot lead.
    #[error("replica {to} is no voter of the group")]
    NotVoter {
        /// The target.
        to: ReplicaId,
    },
    /// Leadership is being handed over already.
    #[error("leadership of the group is being handed over to replica {to}")]
    Transferring {
        /// To whom.
        to: ReplicaId,
    },
}

impl Raft {
    /// Begins to hand leadership over to a voter; to itself, or to whom it is being handed over,
    /// there is nothing to do. Whether it worked shows in who leads. From here on, and for the rest
    /// of the term, there is no lease.
    ///
    /// # Errors
    /// When the replica does not lead, the target is no voter, or a transfer to another one is
    /// under way.
    pub fn transfer_leader(&mut self, to: ReplicaId) -> Result<(), TransferError> {
        self.begin_transfer(to, false)
    }

    /// As [`Raft::transfer_leader`], and the target is told that somebody ordered it.
    ///
    /// # Errors
    /// As there.
    pub fn transfer_leader_as_ordered(&mut self, to: ReplicaId) -> Result<(), TransferError> {
        self.begin_transfer(to, true)
    }

    fn begin_transfer(&mut self, to: ReplicaId, ordered: bool) -> Result<(), TransferError> {
        let is_voter = self.log.membership().is_voter(to);
        let State::Leader(leading) = &mut self.state else {
            return Err(TransferError::NotLeader { leader: self.leader });
        };
        if let Some(transfer) = &mut leading.transfer {
            let is_same = transfer.to == to;
            transfer.ordered |= ordered && is_same;
            let under_way = TransferError::Transferring { to: transfer.to };
            return if is_same { Ok(()) } else { Err(under_way) };
        }
        if !is_voter {
            return Err(TransferError::NotVoter { to });
        }
        if to != self.own {
            let given_up_at = self.now + self.options.election_ticks;
            leading.transfer = Some(Transfer { to, ordered, given_up_at });
            leading.lease_void |= !planted(Planted::LeaseAfterTransfer);
            self.hasten_transfer(to);
        }
        Ok(())
    }

    /// Asks the target of a transfer to stand for election once it holds the whole log.
    pub(super) fn hasten_transfer(&mut self, replica: ReplicaId) {
        let State::Leader(leading) = &self.state else { return };
        let Some(transfer) = leading.transfer.filter(|transfer| transfer.to == replica) else {
            return;
        };
        let holds_all = |matched| matched == self.log.last_index();
        let peer = leading.peers.get(&replica);
        if peer.is_some_and(|peer| holds_all(peer.progress.matched())) {
            self.send(replica, Body::TimeoutNow { ordered: transfer.ordered });
        }
    }
}
