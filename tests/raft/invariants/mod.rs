//! What must hold after every action, one file each, with the paper's section: what whole nodes are
//! judged by as well is in `steps`, next to it what only bare cores show.
//!
//! An invariant sees the machine that has just acted, what that made happen, and the ledger of
//! what was ever committed; it keeps what it must remember and says in words what broke it.

use coterie::protocol::raft::Raft;
use coterie::protocol::raft::entry::{HardState, LogPosition};
use coterie::protocol::raft::reads::ReadState;
use coterie::types::{LogIndex, ReplicaId, Term};

use crate::cluster::World;
use crate::machine::Machine;

mod freshness_is_honest;
mod lease_is_exclusive;
mod orders_are_current;
mod read_index_is_linearizable;
#[path = "../../simulation/invariants/steps/mod.rs"]
pub(crate) mod steps;

/// Something that happened in an action.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// What the groups of whole nodes show as well.
    Step(steps::Event),
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
}

impl steps::Replicas for World {
    fn hard_state(&self, replica: ReplicaId) -> HardState {
        self.machines[&replica].disk.hard_state
    }

    fn vote(&self, replica: ReplicaId, term: Term) -> Option<ReplicaId> {
        self.machines[&replica].disk.votes.get(&term).copied()
    }

    fn last(&self, replica: ReplicaId) -> LogPosition {
        self.machines[&replica].disk.last()
    }

    fn term_at(&self, replica: ReplicaId, index: LogIndex) -> Option<Term> {
        self.machines[&replica].disk.term_at(index)
    }

    fn holds(&self, replica: ReplicaId, at: LogPosition) -> bool {
        self.machines[&replica].disk.holds(at)
    }

    fn led_term_at(&self, leader: ReplicaId, term: Term, index: LogIndex) -> Option<Term> {
        let core = self.machines.get(&leader)?.core.as_ref()?;
        let leads = core.is_leader() && core.term() == term;
        if leads { core.log().term_at(index) } else { None }
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
    steps: steps::Invariants,
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
            read_index_is_linearizable::ReadIndexIsLinearizable,
            orders_are_current::OrdersAreCurrent,
            lease_is_exclusive::LeaseIsExclusive,
            freshness_is_honest::FreshnessIsHonest,
        ];
        Invariants { steps: steps::Invariants::default(), all }
    }

    /// Judges what a machine has just done; nothing can be said of one that is down.
    pub(crate) fn check(
        &mut self,
        world: &World,
        id: ReplicaId,
        events: &[Event],
    ) -> Option<Violation> {
        let machine = &world.machines[&id];
        let core = machine.core.as_ref()?;
        let of_steps = events.iter().filter_map(|event| match event {
            Event::Step(event) => Some(event.clone()),
            _ => None,
        });
        let of_steps: Vec<steps::Event> = of_steps.collect();
        let broken = self.steps.check(steps::View {
            replica: id,
            life: machine.life,
            core,
            applied: machine.applied,
            events: &of_steps,
            ledger: &world.ledger,
            replicas: world,
        });
        let view = View { world, machine, core, events };
        let mut own = self.all.iter_mut();
        let broken =
            broken.or_else(|| own.find_map(|(name, rule)| Some((*name, rule.check(view).err()?))));
        let (invariant, detail) = broken?;
        Some(Violation { invariant, detail: format!("unit {}: {detail}", world.now) })
    }
}

/// Fails with a text unless the condition holds.
fn ensure(condition: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(wrong()) }
}
