//! One read: asks as many replicas as must answer, merges what they hold, mends the stale.
//!
//! The first replica asked sends its value, the others only versions. The answer is the newest
//! record that any replica reported, never an older one: if only its version is known, its value
//! is fetched from a replica that holds it. A replica that refuses, is lost, or keeps silent for
//! `hedge_after` is made up for by the next one on the list.
//!
//! With `blocking_repair` the answer waits until `required` replicas are known to hold the record
//! or a newer one, so that no later quorum read can go back in time. Without it, stale replicas
//! are repaired behind the answer. Either way the machine lives on after the answer until every
//! replica that it asked has replied, or the deadline, and repairs those that reply late.
//!
//! While the key's partition moves, a read at a majority also sees to it that the owners which do
//! not answer reads now, those to come or those that were, hold what it answers ([`Alongside`]):
//! a write that was never acknowledged may have reached one of the two sets only, and once it was
//! read, reads that ask the other set must not miss it.
//!
//! A read may ask for a version at least ([`ReadSetup::at_least`]), and then begins as if some
//! replica had reported it: further replicas are asked, at ONE too, until one holds that version or
//! a newer one. Where all that can be asked have answered and none does, the read fails with
//! [`QuorumError::Behind`] rather than answer with what is older.
//!
//! Caveat: a replica that refills after a loss (`Found::complete` is false) never counts, but what
//! it does hold is merged and, being durable, supports blocking repair like any other copy.

mod known;
#[cfg(test)]
mod properties;
mod replica;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::replica::{Heard, Part, Question, Repair, Replica};
use crate::protocol::message::{Found, Holding, Refusal, Want};
use crate::protocol::quorum::{Outcome, Primary, QuorumError};
use crate::protocol::version::dvv::Context;
use crate::types::{Merge, Moment, NodeId, Record, Version};

/// What a read begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadSetup {
    /// The first N nodes of the preference list, each once, in the order in which they should be
    /// asked: nearest first; then owners [alongside](Alongside) that are not among them.
    pub primaries: Vec<Primary>,
    /// R; at least 1.
    pub required: u32,
    /// How copies of the key become one: with siblings, the answer is the join of all that is
    /// heard, and whoever holds another row than that is stale.
    pub merge: Merge,
    /// The version that the reader has seen: the answer is that one or a newer one.
    pub at_least: Option<Version>,
    /// What the reader has seen of siblings: the answer has heard of all of it.
    pub seen: Option<Context>,
    /// Whether stale replicas are repaired before the answer, as far as `required` demands.
    pub blocking_repair: bool,
    /// Set while the partition moves, where the answer must be found by later reads that ask its
    /// other owners; with `blocking_repair` only.
    pub alongside: Option<Alongside>,
    /// How long a replica may keep silent before another is asked as well; `None` for ever.
    pub hedge_after: Option<Duration>,
    /// When the client stops waiting.
    pub deadline: Moment,
}

/// Owners of a partition that moves who take its writes and do not answer this read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alongside {
    /// How many of the primaries, from the first on, answer.
    pub answering: usize,
    /// The other owners, all among the primaries; some may answer as well.
    pub owners: Vec<NodeId>,
    /// How many of them must hold the answer before it is given; at least 1.
    pub required: u32,
}

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadEffect {
    /// Ask a replica. A replica is never asked while it owes a reply to an earlier question.
    Ask {
        /// The replica.
        to: NodeId,
        /// How much of the record to ask for.
        want: Want,
    },
    /// Send a stale replica the newest record.
    Repair {
        /// The replica.
        to: NodeId,
        /// The newest record.
        record: Record,
        /// Whether the answer waits for it. A replica is never sent another awaited repair
        /// before it has replied to the one before; replies to the others need not be reported.
        awaited: bool,
    },
    /// Answer the client. Comes exactly once.
    Answer(Result<ReadSuccess, QuorumError>),
}

/// What was read, and which guarantee held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSuccess {
    /// The newest record; a tombstone is a record. `None` when no replica asked has one.
    pub record: Option<Record>,
    /// Replicas whose answers counted.
    pub answered: Vec<NodeId>,
    /// Replicas that acknowledged the record as a repair before the answer.
    pub repaired: Vec<NodeId>,
}

/// The decisions of one read.
#[derive(Clone, Debug)]
pub struct ReadQuorum {
    replicas: Vec<Replica>,
    /// How many of those that answer must, and of those alongside must hold the answer.
    required: [usize; 2],
    blocking_repair: bool,
    hedge_after: Option<Duration>,
    deadline: Moment,
    merge: Merge,
    /// The version that the reader asks for at least.
    at_least: Option<Version>,
    /// What the answer must have heard of, until it has.
    seen: Option<Context>,
    /// The newest version that any replica reported, or that is asked for. Never falls back.
    newest: Option<Version>,
    /// The newest record known with its value; older than `newest` while that is to be fetched.
    record: Option<Record>,
    /// Whether a counted replica has sent a value.
    value_counted: bool,
    refusals: Vec<(NodeId, Refusal)>,
    /// Whether a replica was lost while it owed a reply.
    any_lost: bool,
    decided: bool,
    answer: Option<Result<ReadSuccess, QuorumError>>,
    /// Whether the deadline has passed.
    over: bool,
}

impl ReadQuorum {
    /// Begins a read; poll it at once. If too few replicas can be reached, its only effect is the
    /// answer that says so.
    pub fn new(setup: ReadSetup, now: Moment) -> Self {
        let alongside = setup.alongside.as_ref().map_or(0, |it| it.required.max(1) as usize);
        let mut read = ReadQuorum {
            replicas: replicas(&setup),
            required: [(setup.required as usize).max(1), alongside],
            blocking_repair: setup.blocking_repair,
            hedge_after: setup.hedge_after,
            deadline: setup.deadline,
            merge: setup.merge,
            at_least: setup.at_least,
            seen: setup.seen,
            newest: setup.at_least,
            record: None,
            value_counted: false,
            refusals: Vec::new(),
            any_lost: false,
            decided: false,
            answer: None,
            over: false,
        };
        let out_of_reach =
            Part::BOTH.into_iter().find(|part| !read.has(*part, Replica::is_unasked));
        if let Some(part) = out_of_reach {
            read.over = true;
            read.decide(Err(QuorumError::Unavailable {
                required: read.required[part as usize] as u32,
                reachable: read.count(part, Replica::is_unasked) as u32,
            }));
        }
        read.advance(now);
        read
    }

    /// A replica answered a question.
    pub fn on_found(&mut self, from: NodeId, found: Found, now: Moment) {
        let replica = self.replicas.iter_mut().find(|r| r.node == from && r.takes_answers());
        if let Some(replica) = replica {
            replica.note(&found);
            if let Some(holding) = found.holding {
                self.value_counted |= found.complete && matches!(holding, Holding::Record(_));
                self.merge(holding);
            }
        }
        self.advance(now);
    }

    /// A replica refused a question.
    pub fn on_refusal(&mut self, from: NodeId, refusal: Refusal, now: Moment) {
        let replica = self.replicas.iter_mut().find(|r| r.node == from && r.owes_answer());
        if let Some(replica) = replica {
            replica.close_question();
            if refusal == Refusal::Corrupt {
                replica.mark_corrupt();
            }
            self.refusals.push((from, refusal));
        }
        self.advance(now);
    }

    /// The transport certainly did not send the replica its last question or repair.
    pub fn on_unsent(&mut self, to: NodeId, now: Moment) {
        self.give_up(to);
        self.advance(now);
    }

    /// The stream to the replica ended; what was in flight may have arrived.
    pub fn on_lost(&mut self, peer: NodeId, now: Moment) {
        self.any_lost |= self.give_up(peer);
        self.advance(now);
    }

    /// A replica has its awaited repair durably. Report only replies to the latest repair.
    pub fn on_repaired(&mut self, from: NodeId, now: Moment) {
        if let Some(replica) = self.replicas.iter_mut().find(|r| r.node == from) {
            replica.note_repaired();
        }
        self.advance(now);
    }

    /// A replica refused its awaited repair. Report only replies to the latest repair.
    pub fn on_repair_refused(&mut self, from: NodeId, refusal: Refusal, now: Moment) {
        let replica = self.replicas.iter_mut().find(|r| r.node == from);
        if replica.is_some_and(Replica::give_up_repair) {
            self.refusals.push((from, refusal));
        }
        self.advance(now);
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Moment) {
        self.advance(now);
    }

    /// What to do next; to be called until `None` after each event and after `new`.
    pub fn poll(&mut self) -> Option<ReadEffect> {
        if let Some((to, want)) = self.replicas.iter_mut().find_map(Replica::poll_question) {
            return Some(ReadEffect::Ask { to, want });
        }
        if !self.decided
            && let Some(repair) = self.poll_repair(true)
        {
            return Some(repair);
        }
        if let Some(answer) = self.answer.take() {
            return Some(ReadEffect::Answer(answer));
        }
        if self.decided { self.poll_repair(false) } else { None }
    }

    /// When `on_tick` is next needed: when a silent replica is hedged, or at the deadline.
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.over || self.is_done() {
            return None;
        }
        let hedge_after = self.hedge_after.filter(|_| !self.decided);
        let oldest = self.replicas.iter().filter_map(Replica::prompt_since).min();
        let hedge = hedge_after.zip(oldest).map(|(after, since)| since + after);
        Some(hedge.map_or(self.deadline, |at| at.min(self.deadline)))
    }

    /// Replicas that owe an answer, and when each was asked.
    pub fn awaited(&self) -> impl Iterator<Item = (NodeId, Moment)> {
        self.replicas.iter().filter_map(|replica| Some((replica.node, replica.asked_at()?)))
    }

    /// True once no further event can matter: drop the machine.
    pub fn is_done(&self) -> bool {
        self.decided
            && self.answer.is_none()
            && !self.replicas.iter().any(|r| r.is_question_due() || r.is_repair_due())
            && (self.over || !self.replicas.iter().any(Replica::owes_answer))
    }
}

/// Whom to ask next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    With(Part),
    Any,
}

fn replicas(setup: &ReadSetup) -> Vec<Replica> {
    let Some(alongside) = &setup.alongside else {
        return setup
            .primaries
            .iter()
            .map(|primary| Replica::new(primary, [true, false]))
            .collect();
    };
    let replica = |(at, primary): (usize, &Primary)| {
        let parts = [at < alongside.answering, alongside.owners.contains(&primary.node)];
        Replica::new(primary, parts)
    };
    setup.primaries.iter().enumerate().map(replica).collect()
}

impl ReadQuorum {
    fn advance(&mut self, now: Moment) {
        if self.over {
            return;
        }
        if !self.decided {
            self.mark_slow(now);
        }
        self.fetch_value(now);
        if !self.decided {
            while let Some(wanted) = self.wanted()
                && self.ask(wanted, now)
            {}
            self.settle();
        }
        self.plan_repairs();
        if now >= self.deadline {
            self.expire();
        }
    }

    fn mark_slow(&mut self, now: Moment) {
        let Some(hedge_after) = self.hedge_after else { return };
        for replica in &mut self.replicas {
            replica.mark_slow(now, hedge_after);
        }
    }

    /// Asks a holder of the newest version for its value, if nothing else will bring it. Once the
    /// client has its answer the value serves only repairs.
    fn fetch_value(&mut self, now: Moment) {
        let wanted = !self.decided || self.replicas.iter().any(|replica| self.is_stale(replica));
        // Rows that are joined come with every answer.
        let wanted = wanted && !self.merge.joins();
        if !self.lacks_value() || !wanted || self.is_value_coming() {
            return;
        }
        let newest = self.newest;
        let holder = self.replicas.iter_mut().find(|r| r.can_be_asked_again() && r.holds == newest);
        if let Some(holder) = holder {
            holder.question = Question::Due { want: Want::Value, since: now };
        }
    }

    /// Whom else to ask, if the replicas asked so far will not do even if all goes well. Slow ones
    /// do not count as going well.
    fn wanted(&self) -> Option<Wanted> {
        let is_asked = |r: &Replica| r.heard == Heard::Nothing && r.is_prompt_question();
        if !self.has(Part::Answers, |r| r.is_counted() || is_asked(r)) {
            return Some(Wanted::With(Part::Answers));
        }
        if self.lacks_value() {
            return (!self.is_value_coming()).then_some(Wanted::Any);
        }
        let will_do = |part| self.has(part, |r| self.may_be_holder(r) || is_asked(r));
        let short = Part::BOTH.into_iter().find(|part| !will_do(*part));
        short.filter(|_| self.blocking_repair).map(Wanted::With)
    }

    /// Whether it permits to answer with the newest record that these replicas hold it.
    fn is_supported_by(&self, is_holder: impl Fn(&Replica) -> bool) -> bool {
        !self.blocking_repair
            || self.newest.is_none()
            || Part::BOTH.into_iter().all(|part| self.has(part, &is_holder))
    }

    fn is_supported(&self) -> bool {
        self.is_supported_by(|replica| self.is_holder(replica))
    }

    /// Asks a replica that is wanted; false if there is none left.
    fn ask(&mut self, wanted: Wanted, now: Moment) -> bool {
        let has_value = self.value_counted && !self.lacks_value();
        let spared = !self.merge.joins() && (has_value || self.is_value_coming());
        let want = if spared { Want::Version } else { Want::Value };
        let mut unasked = self.replicas.iter_mut().filter(|replica| replica.is_unasked());
        let next = unasked.find(|replica| match wanted {
            Wanted::With(part) => replica.has(part),
            Wanted::Any => true,
        });
        if let Some(replica) = next {
            replica.question = Question::Due { want, since: now };
            return true;
        }
        false
    }

    /// Decides, if it is time: for an answer, or because an answer has become impossible.
    fn settle(&mut self) {
        let is_unheard = |r: &Replica| r.heard == Heard::Nothing && r.owes_answer();
        if !self.is_heard() {
            if !self.has(Part::Answers, |r| r.is_counted() || is_unheard(r)) {
                self.fail();
            }
        } else if self.lacks_value() {
            if !self.replicas.iter().any(Replica::owes_answer) {
                match self.behind() {
                    Some(behind) => self.decide(Err(behind)),
                    None => self.fail(),
                }
            }
        } else if self.is_supported() {
            self.decide(Ok(self.success()));
        } else if !self.is_supported_by(|r| self.may_be_holder(r) || is_unheard(r)) {
            self.fail();
        }
    }

    fn decide(&mut self, answer: Result<ReadSuccess, QuorumError>) {
        self.decided = true;
        self.answer = Some(answer);
    }

    fn success(&self) -> ReadSuccess {
        ReadSuccess {
            record: self.newest_record().cloned(),
            answered: self.nodes(|replica| replica.has(Part::Answers) && replica.is_counted()),
            repaired: self.nodes(|replica| replica.repair == Repair::Done),
        }
    }

    fn fail(&mut self) {
        let heard_or_open = |r: &Replica| r.heard != Heard::Nothing || r.owes_answer();
        let any_effect = self.any_lost || self.replicas.iter().any(heard_or_open);
        let (required, received) = self.progress();
        let error = QuorumError::Failed {
            required,
            received,
            refusals: self.refusals.clone(),
            outcome: if any_effect { Outcome::Unknown } else { Outcome::Failed },
        };
        self.cancel_unsent();
        self.decide(Err(error));
    }

    /// How many replicas are required, and have counted so far: answers, then holders of the
    /// record that was to be answered, then those alongside.
    fn progress(&self) -> (u32, u32) {
        let is_holder = |replica: &Replica| self.is_holder(replica);
        let [answers, alongside] = self.required;
        let (required, received) = if !self.is_heard() {
            (answers, self.counted())
        } else if self.has(Part::Answers, is_holder) && !self.has(Part::Alongside, is_holder) {
            (alongside, self.count(Part::Alongside, is_holder))
        } else {
            (answers, self.count(Part::Answers, is_holder).min(self.counted()))
        };
        (required as u32, received as u32)
    }

    /// Plans a repair of every stale replica: before the answer only if that is short of holders.
    fn plan_repairs(&mut self) {
        let short = self.is_heard() && !self.is_supported();
        if self.newest_record().is_none() || !(self.decided || short) {
            return;
        }
        let (newest, decided) = (self.newest, self.decided);
        for replica in &mut self.replicas {
            if replica.is_known() && replica.holds < newest {
                replica.plan_repair(newest, decided);
            }
        }
    }

    fn poll_repair(&mut self, awaited: bool) -> Option<ReadEffect> {
        let record = self.record.as_ref()?;
        let to = self.replicas.iter_mut().find_map(|r| r.poll_repair(record.version))?;
        Some(ReadEffect::Repair { to, record: record.clone(), awaited })
    }

    /// Expects no more of the replica; false if nothing was expected.
    fn give_up(&mut self, node: NodeId) -> bool {
        let Some(replica) = self.replicas.iter_mut().find(|r| r.node == node) else {
            return false;
        };
        let owed_answer = replica.owes_answer();
        replica.close_question();
        replica.give_up_repair() || owed_answer
    }

    fn cancel_unsent(&mut self) {
        for replica in &mut self.replicas {
            replica.cancel_unsent();
        }
    }

    fn expire(&mut self) {
        self.over = true;
        self.cancel_unsent();
        if !self.decided {
            let (required, received) = self.progress();
            self.decide(Err(QuorumError::Timeout {
                required,
                received,
                outcome: Outcome::Unknown,
            }));
        }
    }
}
