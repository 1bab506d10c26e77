//! What must hold after every action, one file each, with the paper's section.
//!
//! An invariant sees the machine that has just acted, what that made happen, and the ledger of
//! what was ever committed; it keeps what it must remember and says in words what broke it.

use coterie::protocol::raft::Raft;
use coterie::protocol::raft::entry::Entry;
use coterie::protocol::raft::message::Message;
use coterie::protocol::raft::reads::ReadState;
use coterie::types::{LogIndex, ReplicaId};

use crate::cluster::World;
use crate::disk::Disk;
use crate::machine::Machine;

mod acknowledged_is_kept;
mod applied_is_committed;
mod at_most_one_change_is_uncommitted;
mod commits_only_its_own_term;
mod committed_is_on_a_quorum;
mod durable_before_acknowledged;
mod election_safety;
mod freshness_is_honest;
mod leader_append_only;
mod leader_completeness;
mod lease_is_exclusive;
mod log_matching;
mod orders_are_current;
mod read_index_is_linearizable;
mod state_machine_safety;
mod terms_and_commits_are_monotone;

/// Something that happened in an action.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A new life began, with the state machine that its disk had.
    Started,
    /// A snapshot took the state machine's place.
    Installed,
    /// A message was handed out to be sent.
    Sent(Message),
    /// An entry was handed out to be applied.
    Applied(Entry),
    /// A read was asked for when so much was committed anywhere.
    ReadAsked { token: u64, floor: LogIndex },
    /// A read may be served by a state machine that has applied so much.
    ReadAnswered(ReadState),
    /// A membership was accepted that was ordered on top of `expected`, when `before` was in force.
    Ordered { expected: LogIndex, before: LogIndex },
}

/// What an invariant looks at: the machine that acted, and everything else.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    pub(crate) machine: &'a Machine,
    pub(crate) core: &'a Raft,
    pub(crate) events: &'a [Event],
}

impl View<'_> {
    pub(crate) fn id(&self) -> ReplicaId {
        self.machine.id
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.machine.disk
    }

    /// This life of this machine.
    pub(crate) fn life(&self) -> (ReplicaId, u64) {
        (self.machine.id, self.machine.life)
    }
}

/// A rule that is checked after every action.
trait Invariant {
    /// What is wrong, in words.
    fn check(&mut self, view: View<'_>) -> Result<(), String>;
}

/// An invariant that a run broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The invariant.
    pub(crate) invariant: &'static str,
    /// What broke it.
    pub(crate) detail: String,
}

/// All invariants, with what they remember of one run.
pub(crate) struct Invariants {
    all: Vec<(&'static str, Box<dyn Invariant>)>,
}

/// Names an invariant like its file.
macro_rules! invariants {
    ($($file:ident :: $rule:ident),* $(,)?) => {
        vec![$((stringify!($file), Box::new($file::$rule::default()) as Box<dyn Invariant>)),*]
    };
}

impl Invariants {
    pub(crate) fn new() -> Invariants {
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
            read_index_is_linearizable::ReadIndexIsLinearizable,
            at_most_one_change_is_uncommitted::AtMostOneChangeIsUncommitted,
            orders_are_current::OrdersAreCurrent,
            lease_is_exclusive::LeaseIsExclusive,
            freshness_is_honest::FreshnessIsHonest,
        ];
        Invariants { all }
    }

    /// Judges what a machine has just done; nothing can be said of one that is down.
    pub(crate) fn check(
        &mut self,
        world: &World,
        id: ReplicaId,
        events: &[Event],
    ) -> Option<Violation> {
        let machine = &world.machines[&id];
        let view = View { world, machine, core: machine.core.as_ref()?, events };
        self.all.iter_mut().find_map(|(invariant, rule)| {
            let detail = rule.check(view).err()?;
            Some(Violation { invariant, detail: format!("unit {}: {detail}", world.now) })
        })
    }
}

/// Fails with a text unless the condition holds.
fn ensure(condition: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(wrong()) }
}
