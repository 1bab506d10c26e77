//! Changes of the membership, one at a time.
//!
//! A membership is in force as soon as its entry is in the log (Ongaro 2014, section 4.1). A
//! change of more than one voter goes through a joint membership, which the leader leaves by
//! itself once it is committed (section 4.3).
//!
//! Caveat: learners are not made to catch up first (section 4.2.1); whoever orders a change looks
//! at [`Raft::status`] before it makes a voter of one.

use crate::protocol::raft::entry::{LogPosition, Payload};
use crate::protocol::raft::membership::{ChangeError, Membership, Target};
use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::raft::{Raft, State};
use crate::types::{LogIndex, ReplicaId};

/// Why a change of membership was not begun; nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Another replica leads, or none.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// Leadership is being handed over.
    #[error("leadership of the group is being handed over")]
    Transferring,
    /// The leader has not committed an entry of its own term yet. Without this rule two leaders
    /// could change the membership in ways that share no quorum (Ongaro, "bug in single-server
    /// membership changes", raft-dev, 2015).
    #[error("the leader is new and has committed nothing yet")]
    NotEstablished,
    /// The order was meant for another membership than the one in force.
    #[error("the membership in force is that of entry {in_force}, not of entry {expected}")]
    Stale {
        /// The membership that the order was meant for.
        expected: LogIndex,
        /// The one in force.
        in_force: LogIndex,
    },
    /// The change before is not committed yet.
    #[error("the change before, entry {index}, is not committed yet")]
    Uncommitted {
        /// Where it stands.
        index: LogIndex,
    },
    /// The membership cannot be changed so.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Raft {
    /// Begins to change the membership to `target`. `expected` is the index of the membership in
    /// force that the order was meant for, so that a late order does not undo a later one. Returns
    /// where the change stands in the log, or `None` if there is nothing to change.
    ///
    /// # Errors
    /// When the replica does not lead, is new to it or hands it over, when the order is stale, a
    /// change is under way, or a group cannot have such a membership.
    pub fn propose_membership(
        &mut self,
        target: &Target,
        expected: LogIndex,
    ) -> Result<Option<LogPosition>, MembershipError> {
        self.may_change_membership(expected)?;
        let next = self.log.membership().begin_change(target)?;
        Ok(next.map(|membership| self.append_membership(membership)))
    }

    /// The membership in force may have been committed: a joint one is left, and a leader that is
    /// no voter any more has done its last duty (section 4.2.2).
    pub(super) fn on_membership_committed(&mut self) {
        if self.log.membership_index() > self.log.committed() {
            return;
        }
        if let Some(left) = self.log.membership().leave_joint() {
            self.append_membership(left);
        } else if !self.is_voter() {
            self.become_follower();
        }
    }

    fn append_membership(&mut self, membership: Membership) -> LogPosition {
        let position = self.append_own(Payload::Membership(membership));
        self.refresh_peers();
        position
    }

    fn may_change_membership(&self, expected: LogIndex) -> Result<(), MembershipError> {
        let State::Leader(leading) = &self.state else {
            return Err(MembershipError::NotLeader { leader: self.leader });
        };
        let (index, committed) = (self.log.membership_index(), self.log.committed());
        if leading.transfer.is_some() {
            Err(MembershipError::Transferring)
        } else if !self.has_committed_own_term() {
            Err(MembershipError::NotEstablished)
        } else if expected != index && !planted(Planted::StaleMembershipOrder) {
            Err(MembershipError::Stale { expected, in_force: index })
        } else if index > committed && !planted(Planted::ChangeWhileUncommitted) {
            Err(MembershipError::Uncommitted { index })
        } else {
            Ok(())
        }
    }
}
