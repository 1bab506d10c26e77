//! Bugs planted on purpose, to prove that tests, invariants and checkers can fail.
//!
//! Each is one decision of this protocol made wrong. They exist only in tests and under the
//! feature `planted`; elsewhere [`planted`] is the constant `false` and costs nothing.

use crate::protocol::planted::plantable;

/// One decision made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A leader commits what it alone holds durably.
    CommitBeforeMajority,
    /// Votes and pre-votes compare the length of logs and not their last terms.
    VoteByIndexOnly,
    /// A leader commits entries of earlier terms by counting replicas.
    CommitEarlierTerm,
    /// A leader serves reads before it has committed an entry of its own term.
    ReadIndexWithoutOwnTerm,
    /// A leader serves reads without asking whether it still leads.
    ReadIndexWithoutQuorum,
    /// A vote leaves before it is durable.
    VoteBeforeSync,
    /// Entries are acknowledged before they are durable.
    AckBeforeSync,
    /// A leader keeps its lease while it hands leadership over.
    LeaseAfterTransfer,
    /// A change of membership is accepted though it was meant for an earlier membership.
    StaleMembershipOrder,
    /// A change of membership is accepted while the one before is not committed.
    ChangeWhileUncommitted,
    /// In a joint membership the majority of the new voters decides alone.
    SingleQuorumInJoint,
    /// A follower drops its entries from the first one sent on, even when it holds that already.
    TruncateOnOverlap,
    /// A replica votes for whoever asks, as often as it is asked.
    TwoVotesPerTerm,
    /// A replica never takes over a later term from a message.
    IgnoreHigherTerm,
    /// A replica obeys a leader of an earlier term.
    ObeyEarlierTerm,
    /// Heartbeats tell the leader's commit index to replicas that are not known to hold so much.
    CommitBeyondMatched,
    /// Learners count towards quorums.
    LearnerCounts,
    /// A replica forgets its vote when it restarts. The driver's to plant.
    ForgetVoteOnRestart,
    /// Sessions are looked at before a command is proposed and not when it is applied: what is
    /// proposed twice is executed twice. The state machine's to plant.
    DedupeOnlyBeforePropose,
    /// A new replica of a group gets the number of one that went, and a replica that has lost its
    /// memory keeps its own. The placement's to plant.
    ReusedReplicaId,
    /// A replica tells those who watch what it has, though it does not have all that came behind
    /// their position. The history's to plant.
    WatchGapOverlooked,
}

plantable!(Planted);

impl Planted {
    /// Every bug of the core, those that its driver plants included.
    pub const ALL: [Planted; 18] = [
        Planted::CommitBeforeMajority,
        Planted::VoteByIndexOnly,
        Planted::CommitEarlierTerm,
        Planted::ReadIndexWithoutOwnTerm,
        Planted::ReadIndexWithoutQuorum,
        Planted::VoteBeforeSync,
        Planted::AckBeforeSync,
        Planted::LeaseAfterTransfer,
        Planted::StaleMembershipOrder,
        Planted::ChangeWhileUncommitted,
        Planted::SingleQuorumInJoint,
        Planted::TruncateOnOverlap,
        Planted::TwoVotesPerTerm,
        Planted::IgnoreHigherTerm,
        Planted::ObeyEarlierTerm,
        Planted::CommitBeyondMatched,
        Planted::LearnerCounts,
        Planted::ForgetVoteOnRestart,
    ];

    /// Bugs that bare cores cannot show.
    pub const BEYOND_THE_CORE: [Planted; 3] =
        [Planted::DedupeOnlyBeforePropose, Planted::ReusedReplicaId, Planted::WatchGapOverlooked];
}
