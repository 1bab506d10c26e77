//! Raft (Ongaro, "Consensus: Bridging Theory and Practice", 2014), one replica of one group, as a
//! pure state machine.
//!
//! [`Raft`] takes what happens (time, messages, requests) and hands out what to do ([`Ready`]); it
//! performs no I/O and decides nothing by chance but what follows from its seed. The same calls in
//! the same order give the same replica.
//!
//! # What is guaranteed
//!
//! * At most one leader per term (section 3.4), and every leader holds all that is committed
//!   (section 3.6.3). So all replicas hand out the same entries in the same order.
//! * An entry is handed out as committed only when it is durable here and on a quorum.
//! * No vote and no acknowledgement leaves before what it promises is durable (section 3.8).
//! * A read index covers every entry that was committed anywhere when the read was asked for
//!   (section 6.4); so does what a leader has committed while [`Raft::lease_holds`].
//! * A membership changes by one quorum-sharing step at a time, in force once appended
//!   (sections 4.1 and 4.3), and never by an order that was meant for another membership.
//!
//! All this holds under loss, delay, repetition and reordering of messages, and under crashes that
//! lose what was not durable. Leases and [`Raft::freshness`] also need clocks that run at the same
//! rate; nothing else does.
//!
//! # What the driver does
//!
//! 1. It calls [`Raft::tick`] when [`Raft::deadline`] has come, and before any other call if the
//!    present tick is another than it told last: everything that is received or asked is dated by
//!    the last tick told.
//! 2. It passes messages to [`Raft::step`], whatever their age or order, and requests to
//!    [`Raft::propose`], [`Raft::read_index`] and their like.
//! 3. While [`Raft::has_ready`] it calls [`Raft::ready`], sends the messages, in order as far as
//!    the network keeps it, and answers the reads once their index is applied.
//! 4. It applies the committed entries in order. On a restart it is handed those behind
//!    `Restored::applied` again.
//! 5. It makes the write durable: the hard state and the entries together, behind all writes
//!    before. Then, and only then, it calls [`Raft::advance`]. Between the two it may call anything
//!    else.
//! 6. It sends a snapshot to each replica that wants one, taken at an index no lower than asked for
//!    and with the `LogStart` of [`log::Log::start_at`]; the outcome goes to
//!    [`Raft::snapshot_done`].
//! 7. It puts a snapshot's rows in place only if they reach further than [`Raft::applied`], and
//!    makes them and the new start durable behind the writes that it was handed, the outstanding
//!    one included; on disk as in memory, entries behind the start stay if the log holds the
//!    start's position, and go otherwise. Then it calls [`Raft::restore`]. Entries that were handed
//!    out before and lie at or below the start are not applied any more.
//! 8. It calls [`Raft::compact`] with what its state machine holds durably, and makes the new start
//!    durable when it likes.
//! 9. It never starts two replicas with one id, and never one with less than was durable: a replica
//!    that lost its disk comes back under another id.
//!
//! # Caveats
//!
//! * Followers learn that an entry is committed with the next append or heartbeat.
//! * A replica that was removed may not learn of it, as nobody sends to it any more; it asks for
//!   pre-votes in vain until its driver removes it.
//! * A read that waits when leadership is lost is reported lost, never answered by another replica.

mod change;
mod election;
pub mod entry;
mod follower;
mod leading;
pub mod log;
pub mod membership;
pub mod message;
pub mod planted;
pub mod progress;
mod reading;
pub mod reads;
mod ready;
mod replica;
mod replication;
mod rounds;
mod status;
#[cfg(test)]
mod tests;
mod transfer;

pub use change::MembershipError;
pub use reading::Freshness;
pub use ready::{Ready, Write};
pub use replication::ProposeError;
pub use status::{ProgressView, Role, Status};
pub use transfer::TransferError;

use std::collections::BTreeMap;

use self::leading::Leading;
use self::log::Log;
use self::ready::Outbox;
use self::replica::Dice;
use self::rounds::Rounds;
use crate::types::{LogIndex, ReplicaId, Term};

/// How a replica behaves; the same for all replicas of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A follower stands for election once it has heard no leader for a time that is drawn anew
    /// from this many ticks up to twice as many. A multiple of `heartbeat_ticks`.
    pub election_ticks: u64,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: u64,
    /// What the entries of one append may cost, as [`entry::Entry::cost_bytes`] counts; one entry
    /// that costs more travels alone.
    pub append_bytes_max: usize,
    /// Appends that may be under way to one replica.
    pub appends_in_flight_max: usize,
    /// What entries that are not committed yet may cost before proposals are refused.
    pub uncommitted_bytes_max: usize,
    /// Whether a leader may hold a lease. All replicas of a group must agree on it.
    pub lease_reads: bool,
}

/// One replica of one group.
#[derive(Clone, Debug)]
pub struct Raft {
    own: ReplicaId,
    options: Options,
    dice: Dice,
    now: u64,
    term: Term,
    voted_for: Option<ReplicaId>,
    /// The entries, and how far they are committed and durable.
    log: Log,
    /// Entries up to here were handed out as committed.
    applied: LogIndex,
    leader: Option<ReplicaId>,
    state: State,
    /// When to stand for election; without meaning on a leader.
    election_at: u64,
    /// The tick at which a leader, of whatever term, was last heard.
    heard_at: Option<u64>,
    /// Before this tick no vote is granted.
    no_votes_before: u64,
    /// The term in which this life began: answers of a former life in it may still be confirmed.
    began_in: Term,
    /// The rounds of this term's leader that were answered.
    answered: Rounds,
    fresh: Option<Freshness>,
    outbox: Outbox,
}

/// What a replica is, with what it needs for that.
#[derive(Clone, Debug)]
enum State {
    Follower,
    PreCandidate(Campaign),
    Candidate(Campaign),
    Leader(Box<Leading>),
}

/// The votes that are known so far.
#[derive(Clone, Debug, Default)]
struct Campaign {
    votes: BTreeMap<ReplicaId, bool>,
}
