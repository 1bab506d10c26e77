//! What the replicas of one group say to each other.
//!
//! Every message may be lost, repeated, delayed or reordered. Rows of a snapshot do not travel
//! here: they are streamed by the driver, which tells the core when they are in place.

use crate::protocol::raft::entry::{Entry, LogPosition};
use crate::types::{LogIndex, ReplicaId, Term};

/// One message between two replicas of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub from: ReplicaId,
    /// Whom it is for: a replica ignores what is not for it, as a later replica of the same node
    /// is another one.
    pub to: ReplicaId,
    /// The sender's term; that which it would have if elected for a request of a pre-vote.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A leader's entries (Ongaro 2014, section 3.5).
    Append(Append),
    /// What a follower made of them.
    AppendReply(AppendReply),
    /// The leader lives.
    Heartbeat(Heartbeat),
    /// The follower has heard it.
    HeartbeatReply {
        /// The heartbeat's round.
        round: u64,
        /// The last index of the follower's log: lets the leader notice what got lost.
        last: LogIndex,
    },
    /// May the sender become leader?
    Vote(Vote),
    /// Whether it may.
    VoteReply {
        /// Whether the vote was for a pre-vote.
        pre_vote: bool,
        /// Whether it is granted.
        granted: bool,
    },
    /// The receiver is to stand for election at once (leader transfer, section 3.10).
    TimeoutNow {
        /// Whether somebody ordered it; otherwise the leader does so by itself.
        ordered: bool,
    },
}

/// Entries to append behind one that both logs are thought to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The entry before the first of `entries`.
    pub previous: LogPosition,
    /// What follows; empty to probe.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: LogIndex,
    /// The leader's present round of heartbeats; the reply confirms it as well.
    pub round: u64,
}

/// A follower's answer to [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendReply {
    /// The round that the append bore.
    pub round: u64,
    /// What became of it.
    pub outcome: AppendOutcome,
}

/// What a follower made of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Its log matches the leader's up to this index, durably.
    Matches(LogIndex),
    /// It lacks the entry that the append was to follow.
    Rejected {
        /// The index of that entry.
        previous: LogIndex,
        /// The last index at which its log may match: its own conflicting term skipped
        /// (section 3.5, "conflicting terms").
        hint: LogPosition,
    },
}

/// A leader's sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// How far the receiver may commit: the leader's commit index, or less if the receiver's log is
    /// not known to match so far.
    pub commit: LogIndex,
    /// Counts the leader's rounds; a quorum that answers one confirms that it still leads.
    pub round: u64,
    /// The leader's whole commit index: what a read here must have applied to be as fresh as this.
    pub fresh_commit: LogIndex,
    /// The last round that the receiver is known to have answered; 0 when the leader cannot tell
    /// yet how fresh the receiver is.
    pub confirmed_round: u64,
    /// How many ticks before that answer arrived a quorum last confirmed the leader; 0 if since.
    /// Told from an answer of the receiver's, as it knows when it gave that: a heartbeat itself
    /// may be of any age when it arrives.
    pub quorum_age_ticks: u64,
}

/// A candidate's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The last entry of its log (section 3.6.1).
    pub last: LogPosition,
    /// True for a pre-vote, which changes nobody's term (section 9.6).
    pub pre_vote: bool,
    /// True when the leader itself asked for the election: a live leader is no reason to refuse
    /// (section 4.2.3).
    pub transfer: bool,
}
