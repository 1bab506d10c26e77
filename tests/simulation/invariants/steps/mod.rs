//! What must hold after every step of one group, one file each, with the paper's section: of bare
//! cores (`tests/raft`) and of the groups of whole nodes alike.
//!
//! An invariant sees the replica that has just acted, what that made happen, what every replica
//! holds durably, and the ledger of what was ever committed; it keeps what it must remember and
//! says in words what broke it.

use coterie::protocol::raft::Raft;
use coterie::protocol::raft::entry::{Entry, HardState, LogPosition};
use coterie::protocol::raft::message::Message;
use coterie::types::{LogIndex, ReplicaId, Term};

use self::ledger::Ledger;

mod acknowledged_is_kept;
mod applied_is_committed;
mod at_most_one_change_is_uncommitted;
mod commits_only_its_own_term;
mod committed_is_on_a_quorum;
mod durable_before_acknowledged;
mod election_safety;
mod leader_append_only;
mod leader_completeness;
pub(crate) mod ledger;
mod log_matching;
mod state_machine_safety;
mod terms_and_commits_are_monotone;

/// Something that happened in a step.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A new life began, with a state machine that had applied so much.
    Started(LogIndex),
    /// A snapshot took the state machine's place: it had applied so much.
    Installed(LogIndex),
    /// A message was handed out to be sent.
    Sent(Message),
    /// An entry was handed out to be applied.
    Applied(Entry),
}

/// What the replicas of a group hold durably, running or not, and what leaders had in their logs.
pub(crate) trait Replicas {
    /// What a replica must not forget; nothing of one that was never heard of.
    fn hard_state(&self, replica: ReplicaId) -> HardState;

    /// For whom it voted in a term, durably.
    fn vote(&self, replica: ReplicaId, term: Term) -> Option<ReplicaId>;

    /// The end of its log.
    fn last(&self, replica: ReplicaId) -> LogPosition;

    /// The term of its entry at an index, if that is still in its log.
    fn term_at(&self, replica: ReplicaId, index: LogIndex) -> Option<Term>;

    /// Whether the entry is there: in its log, or so old that its state machine has it.
    fn holds(&self, replica: ReplicaId, at: LogPosition) -> bool;

    /// The term of the entry at an index in the log of this leader of that term, if it can be told.
    fn led_term_at(&self, leader: ReplicaId, term: Term, index: LogIndex) -> Option<Term>;
}

/// What an invariant looks at: the replica that acted, and everything else.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) replica: ReplicaId,
    /// Counts the lives of its machine.
    pub(crate) life: u64,
    pub(crate) core: &'a Raft,
    /// What its state machine has applied.
    pub(crate) applied: LogIndex,
    pub(crate) events: &'a [Event],
    pub(crate) ledger: &'a Ledger,
    pub(crate) replicas: &'a dyn Replicas,
}

impl View<'_> {
    fn id(&self) -> ReplicaId {
        self.replica
    }

    /// This life of this replica.
    fn life(&self) -> (ReplicaId, u64) {
        (self.replica, self.life)
    }
}

/// A rule that is checked after every step.
trait Invariant: Send {
    /// What is wrong, in words.
    fn check(&mut self, view: View<'_>) -> Result<(), String>;
}

/// All invariants, with what they remember of one group.
pub(crate) struct Invariants {
    all: Vec<(&'static str, Box<dyn Invariant>)>,
}

/// Names an invariant like its file.
macro_rules! invariants {
    ($($file:ident :: $rule:ident),* $(,)?) => {
        vec![$((stringify!($file), Box::new($file::$rule::default()) as Box<dyn Invariant>)),*]
    };
}

impl Default for Invariants {
    fn default() -> Invariants {
        let all = invariants![
            election_safety::ElectionSafety,
            leader_append_only::LeaderAppendOnly,
            log_matching::LogMatching,
            leader_completeness::LeaderCompleteness,
            state_machine_safety::StateMachineSafety,
            commits_only_its_own_term::CommitsOnlyItsOwnTerm,
            committed_is_on_a_quorum::CommittedIsOnAQuorum,
            applied_is_committed::AppliedIsCommitted,
            terms_and_commits_are_monotone::TermsAndCommitsAreMonotone,
            durable_before_acknowledged::DurableBeforeAcknowledged,
            acknowledged_is_kept::AcknowledgedIsKept,
            at_most_one_change_is_uncommitted::AtMostOneChangeIsUncommitted,
        ];
        Invariants { all }
    }
}

impl Invariants {
    /// Judges what a replica has just done: the first invariant that it breaks, and how.
    pub(crate) fn check(&mut self, view: View<'_>) -> Option<(&'static str, String)> {
        self.all.iter_mut().find_map(|(name, rule)| Some((*name, rule.check(view).err()?)))
    }
}

/// Fails with a text unless the condition holds.
fn ensure(condition: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests;
