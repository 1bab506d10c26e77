//! Who a group consists of, and which sets of replicas decide for it.
//!
//! A quorum of a simple membership is a majority of its voters; one of a joint membership is a
//! majority of the new voters and a majority of the outgoing ones (Ongaro 2014, section 4.3).
//! Learners never count. A membership without voters has no quorum at all.
//!
//! Invariant: any two quorums of one membership meet, and so do those of a membership and of what
//! [`Membership::begin_change`] or [`Membership::leave_joint`] makes of it. Safety across changes
//! rests on this (section 4.1).

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::protocol::raft::planted::{Planted, planted};
use crate::types::{LogIndex, NodeId, ReplicaId};

/// The replicas of a group: simple, or joint while it changes (Ongaro 2014, section 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Those whose majority decides.
    pub voters: BTreeSet<ReplicaId>,
    /// In a joint membership, the voters of before, whose majority must agree as well; else empty.
    pub outgoing: BTreeSet<ReplicaId>,
    /// Those that are sent everything and decide nothing. In a joint membership an outgoing voter
    /// among them still decides, and becomes a learner when the joint membership is left.
    pub learners: BTreeSet<ReplicaId>,
    /// Where each of them runs.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
}

/// What the votes that are known so far decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A quorum granted its vote.
    Won,
    /// No quorum can grant its vote any more.
    Lost,
    /// The missing votes decide.
    Open,
}

/// What a group is to consist of after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The voters, and where they run.
    pub voters: BTreeMap<ReplicaId, NodeId>,
    /// The learners, and where they run.
    pub learners: BTreeMap<ReplicaId, NodeId>,
}

/// Why a membership cannot change to a target; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The change before has not been left yet.
    #[error("the membership is joint: an earlier change is under way")]
    Joint,
    /// Nobody could decide anything any more.
    #[error("the target has no voters")]
    NoVoters,
    /// A replica is to be two things at once.
    #[error("replica {replica} is both a voter and a learner of the target")]
    InBothLists {
        /// The replica.
        replica: ReplicaId,
    },
    /// A replica never changes its node: its log and its votes would stay behind.
    #[error("replica {replica} runs on node {from}, not on {to}; a new one needs another number")]
    Moved {
        /// The replica.
        replica: ReplicaId,
        /// Where it runs.
        from: NodeId,
        /// Where the target has it.
        to: NodeId,
    },
}

impl Membership {
    /// The simple membership of these voters, without learners.
    pub fn founding(voters: BTreeMap<ReplicaId, NodeId>) -> Membership {
        Membership {
            voters: voters.keys().copied().collect(),
            outgoing: BTreeSet::new(),
            learners: BTreeSet::new(),
            nodes: voters,
        }
    }

    /// Whether a change is half done, so that two majorities must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the replica belongs to the group in any role.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica) || self.learners.contains(&replica)
    }

    /// Whether the replica's vote counts: it is a new or an outgoing voter.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.outgoing.contains(&replica)
    }

    /// All replicas, in any role.
    pub fn replicas(&self) -> BTreeSet<ReplicaId> {
        let sets = [&self.voters, &self.outgoing, &self.learners];
        sets.into_iter().flatten().copied().collect()
    }

    /// Where a replica runs.
    pub fn node(&self, replica: ReplicaId) -> Option<NodeId> {
        self.nodes.get(&replica).copied()
    }

    /// The highest index that a quorum holds, given how far each voter's log is known to match
    /// (section 3.5); 0 without voters. Whether it may be committed depends on its term as well
    /// (section 3.6.2).
    pub fn commit_index(&self, matched: impl Fn(ReplicaId) -> LogIndex) -> LogIndex {
        self.quorum_latest(matched)
    }

    /// The latest value that some quorum has reached, given how far each voter is; the default
    /// value without voters.
    pub fn quorum_latest<T: Ord + Copy + Default>(&self, at: impl Fn(ReplicaId) -> T) -> T {
        let incoming = if planted(Planted::LearnerCounts) {
            majority_latest(&self.voters.union(&self.learners).copied().collect(), &at)
        } else {
            majority_latest(&self.voters, &at)
        };
        if self.is_joint() && !planted(Planted::SingleQuorumInJoint) {
            incoming.min(majority_latest(&self.outgoing, &at))
        } else {
            incoming
        }
    }

    /// Whether those that agree hold a quorum.
    pub fn has_quorum(&self, agrees: impl Fn(ReplicaId) -> bool) -> bool {
        self.quorum_latest(agrees)
    }

    /// What an election's votes decide (section 3.4): true is granted, false refused, and whoever
    /// is absent has not answered. Votes of replicas that are no voters are not counted.
    pub fn tally(&self, votes: &BTreeMap<ReplicaId, bool>) -> Tally {
        if self.has_quorum(|voter| votes.get(&voter) == Some(&true)) {
            Tally::Won
        } else if self.has_quorum(|voter| votes.get(&voter) != Some(&false)) {
            Tally::Open
        } else {
            Tally::Lost
        }
    }

    /// The membership to append in order to reach `target`, or `None` when it is reached already.
    ///
    /// The result is simple when at most one voter comes or goes, as majorities then meet anyway
    /// (section 4.1); else it is joint, and [`Membership::leave_joint`] follows once it is
    /// committed (section 4.3).
    ///
    /// # Errors
    /// When this membership is joint, or the target is none that a group can have.
    pub fn begin_change(&self, target: &Target) -> Result<Option<Membership>, ChangeError> {
        self.check(target)?;
        let mut next = Membership {
            voters: target.voters.keys().copied().collect(),
            outgoing: BTreeSet::new(),
            learners: target.learners.keys().copied().collect(),
            nodes: target.voters.iter().chain(&target.learners).map(|(r, n)| (*r, *n)).collect(),
        };
        if next == *self {
            return Ok(None);
        }
        if self.voters.symmetric_difference(&next.voters).count() > 1 {
            next.outgoing = self.voters.clone();
            let kept = self.nodes.iter().filter(|(replica, _)| self.voters.contains(replica));
            next.nodes.extend(kept.map(|(replica, node)| (*replica, *node)));
        }
        Ok(Some(next))
    }

    /// The membership to append once this joint one is committed, or `None` when it is simple.
    /// Outgoing voters leave the group, except those that the target kept as learners.
    pub fn leave_joint(&self) -> Option<Membership> {
        if !self.is_joint() {
            return None;
        }
        let mut left = Membership { outgoing: BTreeSet::new(), ..self.clone() };
        let staying = left.replicas();
        left.nodes.retain(|replica, _| staying.contains(replica));
        Some(left)
    }

    fn check(&self, target: &Target) -> Result<(), ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::Joint);
        }
        if target.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        if let Some(&replica) = target.voters.keys().find(|r| target.learners.contains_key(r)) {
            return Err(ChangeError::InBothLists { replica });
        }
        target.voters.iter().chain(&target.learners).try_for_each(|(&replica, &to)| {
            match self.node(replica) {
                Some(from) if from != to => Err(ChangeError::Moved { replica, from, to }),
                _ => Ok(()),
            }
        })
    }
}

/// The latest value that a majority of `set` has reached; the default when the set is empty.
fn majority_latest<T: Ord + Copy + Default>(
    set: &BTreeSet<ReplicaId>,
    at: &impl Fn(ReplicaId) -> T,
) -> T {
    // Asked with every acknowledgement, so it allocates for large sets alone.
    let (mut few, mut many) = ([T::default(); 8], Vec::new());
    let values = if let Some(values) = few.get_mut(..set.len()) {
        values
    } else {
        many.resize(set.len(), T::default());
        &mut many[..]
    };
    values.iter_mut().zip(set).for_each(|(value, &replica)| *value = at(replica));
    values.sort_unstable_by(|one, other| other.cmp(one));
    values.get(set.len() / 2).copied().unwrap_or_default()
}
