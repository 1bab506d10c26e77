//! One comparison of a partition's rows on two replicas, and what is to be done about differences.
//!
//! The replica that began it asks the other and itself the same questions: for the roots; if they
//! differ, for the branches; then for the buckets of branches that differ; then for the rows of
//! buckets that differ, in key order, list by list. A write that is on its way makes a difference
//! too, and is no business of ours. So rows that differ are listed once more after a pause, and a
//! row is repaired only if the replica that lacked something still lacks the very same thing.
//!
//! Of two versions the greater says all that the lesser says, where the last writer wins. Where
//! rows are joined each may say what the other does not; so what still differs is copied both ways,
//! and both end with the join.
//!
//! What the driver owes: both answers to every question of [`Effect::Ask`], and to do what
//! [`Effect::Repair`] says before it comes back. A session that cannot go on is dropped; the next
//! one begins anew, and finds what is repaired repaired.

pub mod schedule;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::merkle::{BRANCHES, BUCKETS_OF_BRANCH};
use crate::protocol::message::tree::{Answer, Question, RowList};
use crate::protocol::planted::{Planted, planted};
use crate::types::{Key, Merge, Moment, Version};

/// Rows that are repaired before more are listed.
pub const DIFFERENCES_MAX: usize = 256;

/// How long a write may be on its way: the usual timeout of a request. A replica that has not got
/// it by then is not about to.
pub const PAUSE: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put this to both replicas.
    Ask(Question),
    /// Wait until then.
    Wait(Moment),
    /// Have rows copied.
    Repair(Repairs),
    /// Nothing: it is over.
    Done(Summary),
}

/// Keys of which one replica lacks what the other has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs {
    /// The rows here are newer.
    pub send: Vec<Key>,
    /// The rows there are newer; to be fetched when the others have been sent, as a key may be
    /// among both.
    pub fetch: Vec<Key>,
}

/// What a session came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that differed both times.
    pub differing: u64,
    /// Rows that differed the first time and were not looked at again: of them nothing is known.
    pub unconfirmed: u64,
}

/// An answer that does not fit its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer does not fit its question")]
pub struct Misfit;

/// A row that is not the same on both replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    here: Option<Version>,
    there: Option<Version>,
}

impl Difference {
    fn newer(&self) -> Option<Version> {
        self.here.max(self.there)
    }

    fn older(&self) -> Option<Version> {
        self.here.min(self.there)
    }
}

#[derive(Debug)]
enum State {
    Root,
    Branches,
    Buckets(Vec<u8>),
    Listing,
    Pausing(Moment),
    Confirming,
    Repairing(Repairs),
    Done,
}

/// One session.
#[derive(Debug)]
pub struct Exchange {
    merge: Merge,
    state: State,
    /// Buckets that differ.
    buckets: Vec<u16>,
    /// Rows up to this key are dealt with.
    after: Option<Key>,
    /// Rows up to this key are being dealt with; `None` when they are the last.
    through: Option<Key>,
    found: BTreeMap<Key, Difference>,
    summary: Summary,
}

impl Exchange {
    /// A session that has not begun, about rows that are merged in some way.
    pub fn new(merge: Merge) -> Exchange {
        Exchange {
            merge,
            state: State::Root,
            buckets: Vec::new(),
            after: None,
            through: None,
            found: BTreeMap::new(),
            summary: Summary::default(),
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self, now: Moment) -> Effect {
        if let State::Pausing(until) = self.state
            && until <= now
        {
            self.state = State::Confirming;
        }
        match &self.state {
            State::Root => Effect::Ask(Question::Root),
            State::Branches => Effect::Ask(Question::Branches),
            State::Buckets(branches) => Effect::Ask(Question::Buckets(branches.clone())),
            State::Listing | State::Confirming => Effect::Ask(Question::Rows {
                buckets: self.buckets.clone(),
                after: self.after.clone(),
            }),
            State::Pausing(until) => Effect::Wait(*until),
            State::Repairing(repairs) => Effect::Repair(repairs.clone()),
            State::Done => Effect::Done(self.summary),
        }
    }

    /// Takes both answers to the question that was to be asked.
    ///
    /// # Errors
    /// [`Misfit`] when they do not fit it; the session is to be dropped.
    pub fn on_answers(&mut self, here: Answer, there: Answer, now: Moment) -> Result<(), Misfit> {
        match (&self.state, here, there) {
            (State::Root, Answer::Hashes(here), Answer::Hashes(there)) => {
                let differing = differing(&here, &there, 1)?;
                self.state = if differing.is_empty() { State::Done } else { State::Branches };
            }
            (State::Branches, Answer::Hashes(here), Answer::Hashes(there)) => {
                let differing = differing(&here, &there, BRANCHES)?;
                self.state = match differing.is_empty() {
                    true => State::Done,
                    false => State::Buckets(differing.into_iter().map(|at| at as u8).collect()),
                };
            }
            (State::Buckets(branches), Answer::Hashes(here), Answer::Hashes(there)) => {
                let differing = differing(&here, &there, branches.len() * BUCKETS_OF_BRANCH)?;
                self.buckets = differing.into_iter().map(|at| numbered(branches, at)).collect();
                self.state = if self.buckets.is_empty() { State::Done } else { State::Listing };
            }
            (State::Listing, Answer::Rows(here), Answer::Rows(there)) => {
                self.compare(here, there, now)?;
            }
            (State::Confirming, Answer::Rows(here), Answer::Rows(there)) => {
                self.confirm(here, there);
            }
            _ => return Err(Misfit),
        }
        Ok(())
    }

    /// The repairs are done, as far as they could be.
    pub fn on_repaired(&mut self) {
        if matches!(self.state, State::Repairing(_)) {
            self.go_on();
        }
    }

    fn compare(&mut self, here: RowList, there: RowList, now: Moment) -> Result<(), Misfit> {
        self.through = earlier(here.complete_to.clone(), there.complete_to.clone());
        if self.through.is_some() && self.through <= self.after {
            // It would go on for ever.
            return Err(Misfit);
        }
        let differences = differences(here, there).into_iter();
        let is_within = |key: &Key| self.through.as_ref().is_none_or(|last| key <= last);
        self.found = differences.take_while(|(key, _)| is_within(key)).collect();
        if self.found.len() > DIFFERENCES_MAX {
            let beyond = self.found.keys().nth(DIFFERENCES_MAX).cloned();
            let beyond = beyond.expect("invariant: there are more than so many");
            drop(self.found.split_off(&beyond));
            self.through = self.found.last_key_value().map(|(key, _)| key.clone());
        }
        match self.found.is_empty() {
            true => self.go_on(),
            false => self.state = State::Pausing(now + PAUSE),
        }
        Ok(())
    }

    /// Of what differed, keeps what differs in the same way still.
    fn confirm(&mut self, here: RowList, there: RowList) {
        let listed = earlier(here.complete_to.clone(), there.complete_to.clone());
        let now = differences(here, there);
        let mut repairs = Repairs::default();
        for (key, then) in std::mem::take(&mut self.found) {
            if listed.as_ref().is_some_and(|last| key > *last) {
                self.summary.unconfirmed += 1;
                continue;
            }
            let Some(now) = now.get(&key) else { continue };
            let (sends, fetches) = match self.merge {
                Merge::Lww if now.older() >= then.newer() => continue,
                Merge::Lww => {
                    let sends = (now.here > now.there) != planted(Planted::RepairsBackwards);
                    (sends, !sends)
                }
                Merge::Siblings | Merge::Counter | Merge::Set => {
                    (now.here.is_some(), now.there.is_some())
                }
            };
            self.summary.differing += 1;
            repairs.fetch.extend(fetches.then(|| key.clone()));
            repairs.send.extend(sends.then_some(key));
        }
        match repairs == Repairs::default() {
            true => self.go_on(),
            false => self.state = State::Repairing(repairs),
        }
    }

    /// Lists what follows, if anything does.
    fn go_on(&mut self) {
        self.after = self.through.take();
        self.state = if self.after.is_some() { State::Listing } else { State::Done };
    }
}

/// Where two lists of hashes that must be so long differ.
fn differing(here: &[u64], there: &[u64], length: usize) -> Result<Vec<usize>, Misfit> {
    if here.len() != length || there.len() != length {
        return Err(Misfit);
    }
    Ok((0..length).filter(|at| here[*at] != there[*at]).collect())
}

/// The bucket at some place of an answer for these branches.
fn numbered(branches: &[u8], at: usize) -> u16 {
    let branch = usize::from(branches[at / BUCKETS_OF_BRANCH]);
    (branch * BUCKETS_OF_BRANCH + at % BUCKETS_OF_BRANCH) as u16
}

fn differences(here: RowList, there: RowList) -> BTreeMap<Key, Difference> {
    let mut all = BTreeMap::new();
    let nowhere = || Difference { here: None, there: None };
    for (key, version) in here.rows {
        all.entry(key).or_insert_with(nowhere).here = Some(version);
    }
    for (key, version) in there.rows {
        all.entry(key).or_insert_with(nowhere).there = Some(version);
    }
    let is_whole = |it: &Difference| it.here.is_some() && it.there.is_some();
    all.retain(|_, it| {
        it.here != it.there && (is_whole(it) || !planted(Planted::AbsentRowsOverlooked))
    });
    all
}

/// The earlier of two ends, of which `None` is the last.
fn earlier(a: Option<Key>, b: Option<Key>) -> Option<Key> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
