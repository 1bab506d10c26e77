//! One page of a partition as a quorum has it: asks as many replicas as must answer for the same
//! range of keys, and merges what they list.
//!
//! A page ends where its replica found enough, and that may be at another key on each. What they
//! list together is complete only up to the least of these keys: beyond it, somebody was not heard
//! out. So every write that was acknowledged before the page was asked for, by a write quorum that
//! meets this read quorum, is in the merged page or beyond its end (DeCandia et al., "Dynamo",
//! 2007, section 4.5).
//!
//! A replica that refuses, is lost, or keeps silent for `hedge_after` is made up for by the next
//! one on the list. The machine ends with its answer. Unlike a read, it repairs nothing: it names
//! the keys that some replica is stale for.
//!
//! Caveat: an older record of two listings may come after a newer one, where the newer one was not
//! acknowledged and only the first listing met a replica that has it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::protocol::message::{ListPage, Refusal};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::quorum::{Outcome, Primary, QuorumError};
use crate::protocol::version::merging::joined;
use crate::types::{Key, Merge, Moment, NodeId, Record};

/// What a page begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListSetup {
    /// The first N nodes of the preference list, each once, in the order in which they should be
    /// asked: nearest first.
    pub primaries: Vec<Primary>,
    /// R; at least 1.
    pub required: u32,
    /// How copies of a key become one.
    pub merge: Merge,
    /// How long a replica may keep silent before another is asked as well; `None` for ever.
    pub hedge_after: Option<Duration>,
    /// When the client stops waiting.
    pub deadline: Moment,
}

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq)]
pub enum ListEffect {
    /// Ask a replica for its page. Each is asked once at most.
    Ask(NodeId),
    /// Answer the client. Comes exactly once, and ends the machine.
    Answer(Result<Merged, QuorumError>),
}

/// What a quorum has of a range.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// What the replicas together have of each key, deleted ones included, in key order.
    pub rows: Vec<(Key, Record)>,
    /// The key up to which these are all; `None` when it is the end of the range.
    pub reached: Option<Key>,
    /// Keys of these of which a replica that answered has an older record, or none.
    pub stale: BTreeSet<Key>,
}

/// How far the question to a replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It was not asked, and can be.
    Not,
    /// It owes an answer since then.
    Owes(Moment),
    /// It has answered, refused, was lost, or could not be reached to begin with.
    Over,
}

/// The decisions of one page.
#[derive(Clone, Debug)]
pub struct ListQuorum {
    replicas: Vec<(NodeId, Asked)>,
    required: usize,
    merge: Merge,
    hedge_after: Option<Duration>,
    deadline: Moment,
    pages: Vec<ListPage>,
    refusals: Vec<(NodeId, Refusal)>,
    effects: Vec<ListEffect>,
    done: bool,
}

impl ListQuorum {
    /// Begins a page; poll it at once. If too few replicas can be reached, its only effect is the
    /// answer that says so.
    pub fn new(setup: ListSetup, now: Moment) -> Self {
        let asked = |reachable| if reachable { Asked::Not } else { Asked::Over };
        let replicas = setup.primaries.iter().map(|it| (it.node, asked(it.reachable)));
        let mut list = ListQuorum {
            replicas: replicas.collect(),
            required: (setup.required as usize).max(1),
            merge: setup.merge,
            hedge_after: setup.hedge_after,
            deadline: setup.deadline,
            pages: Vec::new(),
            refusals: Vec::new(),
            effects: Vec::new(),
            done: false,
        };
        let reachable = list.count(|asked| asked == Asked::Not);
        if reachable < list.required {
            list.answer(Err(QuorumError::Unavailable {
                required: list.required as u32,
                reachable: reachable as u32,
            }));
        }
        list.advance(now);
        list
    }

    /// A replica answered.
    pub fn on_page(&mut self, from: NodeId, page: ListPage, now: Moment) {
        if self.settle(from) {
            self.pages.push(page);
            self.advance(now);
        }
    }

    /// A replica refused.
    pub fn on_refusal(&mut self, from: NodeId, refusal: Refusal, now: Moment) {
        if self.settle(from) {
            self.refusals.push((from, refusal));
            self.advance(now);
        }
    }

    /// A replica could not be sent the question, or its stream is gone.
    pub fn on_lost(&mut self, from: NodeId, now: Moment) {
        if self.settle(from) {
            self.advance(now);
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Moment) {
        if now >= self.deadline {
            let (required, received) = self.counts();
            let outcome = Outcome::NotAttempted;
            self.answer(Err(QuorumError::Timeout { required, received, outcome }));
        }
        self.advance(now);
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<ListEffect> {
        (!self.effects.is_empty()).then(|| self.effects.remove(0))
    }

    /// When [`ListQuorum::on_tick`] is to be called at the latest.
    pub fn next_deadline(&self) -> Moment {
        let may_hedge = self.count(|asked| asked == Asked::Not) > 0;
        let hedge = self.hedge_after.filter(|_| may_hedge);
        let patient = |asked: &Asked| match (asked, hedge) {
            (Asked::Owes(since), Some(after)) => Some(*since + after),
            _ => None,
        };
        let hedges = self.replicas.iter().filter_map(|(_, asked)| patient(asked));
        hedges.chain([self.deadline]).min().unwrap_or(self.deadline)
    }

    fn settle(&mut self, node: NodeId) -> bool {
        let owes = |it: &&mut (NodeId, Asked)| it.0 == node && matches!(it.1, Asked::Owes(_));
        let replica = self.replicas.iter_mut().find(owes);
        replica.map(|it| it.1 = Asked::Over).is_some()
    }

    /// Answers, or asks as many as are still needed for an answer.
    fn advance(&mut self, now: Moment) {
        if self.done {
            return;
        }
        if self.pages.len() >= self.required {
            let merged = merge(self.merge, std::mem::take(&mut self.pages));
            return self.answer(Ok(merged));
        }
        let hedge_after = self.hedge_after;
        let is_slow = |since: Moment| hedge_after.is_some_and(|after| now >= since + after);
        let counted_on = self.count(|asked| matches!(asked, Asked::Owes(since) if !is_slow(since)));
        let missing = self.required.saturating_sub(self.pages.len() + counted_on);
        let unasked = self.replicas.iter_mut().filter(|(_, asked)| *asked == Asked::Not);
        for (node, asked) in unasked.take(missing) {
            *asked = Asked::Owes(now);
            self.effects.push(ListEffect::Ask(*node));
        }
        let owing = self.count(|asked| matches!(asked, Asked::Owes(_)));
        if self.pages.len() + owing < self.required {
            let (required, received) = self.counts();
            let refusals = std::mem::take(&mut self.refusals);
            let outcome = Outcome::NotAttempted;
            self.answer(Err(QuorumError::Failed { required, received, refusals, outcome }));
        }
    }

    fn answer(&mut self, answer: Result<Merged, QuorumError>) {
        if !self.done {
            self.done = true;
            self.effects.push(ListEffect::Answer(answer));
        }
    }

    fn counts(&self) -> (u32, u32) {
        (self.required as u32, self.pages.len() as u32)
    }

    fn count(&self, is: impl Fn(Asked) -> bool) -> usize {
        self.replicas.iter().filter(|(_, asked)| is(*asked)).count()
    }
}

/// What these pages of the same range say together.
///
/// Invariant: no key above the least that a page reached is in the outcome, so that every page was
/// heard out on each key that is.
pub fn merge(merge: Merge, pages: Vec<ListPage>) -> Merged {
    let reached = reached(&pages);
    let is_complete = |key: &Key| reached.as_ref().is_none_or(|last| key <= last);
    let (mut newest, heard) = (BTreeMap::<Key, (Record, usize)>::new(), pages.len());
    let rows = pages.into_iter().flat_map(|page| page.rows);
    for (key, record) in rows.filter(|(key, _)| is_complete(key)) {
        match newest.get_mut(&key) {
            None => drop(newest.insert(key, (record, 1))),
            Some((held, holders)) if record == *held => *holders += 1,
            Some((held, holders)) => {
                // Whichever stands, somebody has another: never are all of one mind again.
                *holders = 0;
                *held = joined(merge, held.clone(), record);
            }
        }
    }
    let is_stale = |(_, (_, holders)): &(&Key, &(Record, usize))| *holders < heard;
    let stale = newest.iter().filter(is_stale).map(|(key, _)| key.clone()).collect();
    let rows = newest.into_iter().map(|(key, (record, _))| (key, record)).collect();
    Merged { rows, reached, stale }
}

/// The key up to which all pages are complete.
fn reached(pages: &[ListPage]) -> Option<Key> {
    let ends = pages.iter().map(|page| page.reached.clone());
    if planted(Planted::ListedBeyondComplete) {
        let ends: Option<Vec<Key>> = ends.collect();
        return ends.and_then(|ends| ends.into_iter().max());
    }
    ends.flatten().min()
}
