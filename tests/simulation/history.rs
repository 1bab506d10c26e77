//! What clients asked, when, and what they were told: the evidence that invariants are judged by.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coterie::config::Replication;
use coterie::node::request::{Outcome, ReadAnswer, Receipt, RequestError, RequestOptions};
use coterie::protocol::quorum::level::Level;
use coterie::types::{Key, NodeId, Record, Version};
use parking_lot::Mutex;

use crate::invariants::Violation;
use crate::listing::Listed;
use crate::machine::Wall;
use crate::mergeable::Tallied;
use crate::siblings::Shopped;
use crate::strong::StrongEvidence;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// To store a value that no other operation of the run stores.
    Put(Bytes),
    /// To store a tombstone.
    Delete,
    /// To read.
    Get,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A write was acknowledged.
    Written(Receipt),
    /// A read was answered.
    Read(ReadAnswer),
    /// The node said no, or that it does not know.
    Refused(RequestError),
    /// The node died before it answered: anything may have happened.
    NodeDied,
    /// The node lived and never answered: a fault of its own.
    Silence,
}

/// One operation. Places count the invocations and answers of a run in the order of their time.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// Which client; the harness's own reads have numbers above all clients'.
    pub(crate) client: usize,
    /// The machine of the node that coordinated it.
    pub(crate) machine: usize,
    /// The key.
    pub(crate) key: Key,
    /// What was asked for.
    pub(crate) action: Action,
    /// How.
    pub(crate) options: RequestOptions,
    /// Place of the invocation.
    pub(crate) invoked: u64,
    /// Place of the answer; `u64::MAX` while there is none.
    pub(crate) answered: u64,
    /// The answer.
    pub(crate) answer: Option<Answer>,
    /// What the machine's wall clock showed at the invocation and at the answer.
    pub(crate) walls: (Wall, Wall),
}

impl Operation {
    /// The receipt of an acknowledged write.
    pub(crate) fn acknowledged(&self) -> Option<&Receipt> {
        match &self.answer {
            Some(Answer::Written(receipt)) => Some(receipt),
            _ => None,
        }
    }

    /// The answer of a read that was answered.
    pub(crate) fn read(&self) -> Option<&ReadAnswer> {
        match &self.answer {
            Some(Answer::Read(read)) => Some(read),
            _ => None,
        }
    }

    /// True of a write that left no trace, if what the client was told is so.
    pub(crate) fn had_no_effect(&self) -> Option<Outcome> {
        match &self.answer {
            Some(Answer::Refused(error)) if error.outcome() != Outcome::Unknown => {
                Some(error.outcome())
            }
            _ => None,
        }
    }

    /// True when the operation had ended before the other began.
    pub(crate) fn precedes(&self, other: &Operation) -> bool {
        self.answered < other.invoked
    }
}

/// True when any `w` and `r` of the replicas in effect meet.
pub(crate) fn quorums_meet(write: &Receipt, read: &Receipt) -> bool {
    write.required + read.required > write.replicas.max(read.replicas)
}

/// When something was read, and by which quorum; `None` is all replicas. Places count invocations
/// and answers in the order of their time.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'e> {
    pub(crate) evidence: &'e Evidence,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) receipt: Option<&'e Receipt>,
}

impl<'e> Sight<'e> {
    /// Of a read of all replicas, once everything has ended.
    pub(crate) fn last(evidence: &'e Evidence) -> Sight<'e> {
        Sight { evidence, began: u64::MAX, ended: u64::MAX, receipt: None }
    }

    /// Whether it cannot have missed what a write left that was acknowledged at that place.
    pub(crate) fn sees(&self, answered: u64, receipt: &Receipt) -> bool {
        let met = self.receipt.is_none_or(|read| quorums_meet(receipt, read));
        answered < self.began && met && self.evidence.outlasts(receipt)
    }
}

/// True when an answer waited for a majority of the replicas.
pub(crate) fn is_majority(receipt: &Receipt) -> bool {
    2 * receipt.required > receipt.replicas
}

/// What a level asks for, counted here anew: a judge does not ask the accused.
pub(crate) fn required(level: Level, replicas: u32) -> u32 {
    match level {
        Level::One => 1,
        Level::Quorum => replicas / 2 + 1,
        Level::All => replicas,
    }
}

/// The operations of a run, as they happen.
#[derive(Default)]
pub(crate) struct History {
    state: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    place: u64,
    operations: Vec<Operation>,
    listings: Vec<Listed>,
}

/// Names an operation of a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(usize);

impl History {
    /// Records that a client asks.
    pub(crate) fn invoke(
        &self,
        (client, machine, wall): (usize, usize, Wall),
        key: &Key,
        action: &Action,
        options: &RequestOptions,
    ) -> Ticket {
        let mut state = self.state.lock();
        state.place += 1;
        let invoked = state.place;
        state.operations.push(Operation {
            client,
            machine,
            key: key.clone(),
            action: action.clone(),
            options: options.clone(),
            invoked,
            answered: u64::MAX,
            answer: None,
            walls: (wall, wall),
        });
        Ticket(state.operations.len() - 1)
    }

    /// Records what it was told.
    pub(crate) fn answer(&self, ticket: Ticket, answer: Answer, wall: Wall) {
        let mut state = self.state.lock();
        state.place += 1;
        let answered = state.place;
        let operation = &mut state.operations[ticket.0];
        // A dead node's operation may take effect at any later time: it never ends.
        if !matches!(answer, Answer::NodeDied | Answer::Silence) {
            operation.answered = answered;
        }
        operation.answer = Some(answer);
        operation.walls.1 = wall;
    }

    /// The next place.
    pub(crate) fn place(&self) -> u64 {
        let mut state = self.state.lock();
        state.place += 1;
        state.place
    }

    /// Records a listing that came to its end.
    pub(crate) fn listed(&self, listed: Listed) {
        self.state.lock().listings.push(listed);
    }

    pub(crate) fn listings(&self) -> Vec<Listed> {
        self.state.lock().listings.clone()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.state.lock().operations.clone()
    }
}

/// What each primary of a key holds, by machine.
pub(crate) type Held = Vec<(usize, Option<Record>)>;

/// Everything that a run leaves to be judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// All operations, in the order of their invocation.
    pub(crate) operations: Vec<Operation>,
    /// Listings that came to their end.
    pub(crate) listings: Vec<Listed>,
    /// What is left of the keyspace that keeps siblings.
    pub(crate) shopped: Shopped,
    /// What is left of the keyspaces of counters and of sets.
    pub(crate) tallied: Tallied,
    /// Nodes of the cluster.
    pub(crate) machines: u32,
    /// Their ids, by machine.
    pub(crate) node_ids: BTreeMap<usize, NodeId>,
    /// Nodes that are lost with their disks.
    pub(crate) burnt: BTreeSet<NodeId>,
    /// N of the default keyspace.
    pub(crate) replication_factor: u32,
    /// What N, R and W of the default keyspace were changed to.
    pub(crate) altered: Option<Replication>,
    /// Whether deletes were reaped.
    pub(crate) reaps: bool,
    /// Whether messages arrived more than once: a refused write may then have a second try.
    pub(crate) messages_repeated: bool,
    /// Hints that were left when healing had its time, in words.
    pub(crate) hints_left: Vec<String>,
    /// Keys that nobody could read at QUORUM or ALL after healing, and what was answered last.
    pub(crate) unreadable: Vec<(Key, String)>,
    /// What every read key's primaries held in the end, by machine.
    pub(crate) replicas: Vec<(Key, Held)>,
    /// What the primaries of each key held when they had had the time to become equal, and nobody
    /// had read; empty when only hints mend.
    pub(crate) unread: Vec<(Key, Held)>,
    /// Nodes that did not come up again, and why.
    pub(crate) failed_starts: Vec<String>,
    /// Panics of the code under simulation.
    pub(crate) panics: Vec<String>,
    /// Answers of the final reads at ALL.
    pub(crate) final_reads: Vec<(Key, Option<Version>)>,
    /// What groups of nodes did wrong, judged as they did it.
    pub(crate) steps: Vec<Violation>,
    /// What is left of the strong keyspace, if there was one.
    pub(crate) strong: StrongEvidence,
}

impl Evidence {
    /// Whether an acknowledged write is durable on some disk that is left: one that fewer
    /// acknowledged than burnt promised no more than that.
    pub(crate) fn outlasts(&self, receipt: &Receipt) -> bool {
        receipt.acknowledged.iter().any(|node| !self.burnt.contains(node))
    }

    /// Whether a read that found nothing of a key may have done so because what it had to find, or
    /// something newer, was a delete or a value that ended, and has been reaped.
    pub(crate) fn may_be_reaped(&self, key: &Key, found: Option<Version>, due: Version) -> bool {
        let ends = |it: &Operation| it.action == Action::Delete || it.options.ttl.is_some();
        let is_newer = |it: &Operation| match it.acknowledged() {
            Some(receipt) => receipt.version >= Some(due),
            None => it.had_no_effect().is_none(),
        };
        let mut writes = self.operations.iter().filter(|it| it.action != Action::Get);
        self.reaps && found.is_none() && writes.any(|it| it.key == *key && ends(it) && is_newer(it))
    }
}

/// Short ways to tell a history in the tests of the invariants.
#[cfg(test)]
pub(crate) mod story {
    use coterie::types::{Incarnation, Timestamp};

    use super::*;

    pub(crate) fn version(stamp: u64) -> Version {
        Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) }
    }

    pub(crate) fn receipt(stamp: Option<u64>, required: u32) -> Receipt {
        Receipt {
            version: stamp.map(version),
            required,
            replicas: 3,
            acknowledged: (0..u64::from(required)).map(NodeId).collect(),
            ..Receipt::default()
        }
    }

    /// In a story, places are milliseconds too.
    fn wall(ms: u64) -> Wall {
        Wall { ms, settings: 0 }
    }

    /// An operation on key `k`, invoked and answered at the given places.
    pub(crate) fn operation(action: Action, span: (u64, u64), answer: Answer) -> Operation {
        Operation {
            client: 0,
            machine: 0,
            key: Key::from("k"),
            action,
            options: RequestOptions::default(),
            invoked: span.0,
            answered: span.1,
            answer: Some(answer),
            walls: (wall(span.0), wall(span.1)),
        }
    }

    /// An acknowledged write of a value at a quorum.
    pub(crate) fn put(
        value: &'static str,
        stamp: u64,
        required: u32,
        span: (u64, u64),
    ) -> Operation {
        let answer = Answer::Written(receipt(Some(stamp), required));
        operation(Action::Put(Bytes::from_static(value.as_bytes())), span, answer)
    }

    /// An answered read at a quorum.
    pub(crate) fn get(
        found: Option<(&'static str, u64)>,
        required: u32,
        span: (u64, u64),
    ) -> Operation {
        let value = found.map(|(value, _)| Bytes::from_static(value.as_bytes()));
        let receipt = receipt(found.map(|(_, stamp)| stamp), required);
        operation(
            Action::Get,
            span,
            Answer::Read(ReadAnswer { value, receipt, ..ReadAnswer::default() }),
        )
    }

    pub(crate) fn evidence(operations: Vec<Operation>) -> Evidence {
        let node_ids = (0..3).map(|machine| (machine, NodeId(machine as u64))).collect();
        let shape = Evidence { machines: 3, replication_factor: 3, ..Evidence::default() };
        Evidence { operations, node_ids, ..shape }
    }
}
