//! Reads that wait until a quorum has confirmed that the leader still leads (Ongaro 2014,
//! section 6.4).
//!
//! A round of heartbeats that is begun after a read arrived, and that a quorum answers, proves that
//! no later leader had committed anything when the read arrived. So all reads that wait when a
//! round begins share it; those that arrive while it is under way gather for the next one.
//!
//! The leader alone knows whether it has committed an entry of its own term yet; until then it
//! must not begin a round for reads, as its commit index may lag. How many reads may wait is the
//! driver's limit on requests in progress.

#[cfg(test)]
mod tests;

use crate::types::LogIndex;

/// A read that may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// The reader's own name for it.
    pub token: u64,
    /// What the state machine must have applied first.
    pub index: LogIndex,
}

/// The reads of one leader.
#[derive(Clone, Debug, Default)]
pub struct ReadQueue {
    under_way: Option<Round>,
    waiting: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Round {
    round: u64,
    index: LogIndex,
    tokens: Vec<u64>,
}

impl ReadQueue {
    /// A queue without reads.
    pub fn new() -> ReadQueue {
        ReadQueue::default()
    }

    /// Whether no read waits for anything.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_none() && self.waiting.is_empty()
    }

    /// Whether reads wait for a round to begin, and one may.
    pub fn wants_round(&self) -> bool {
        self.under_way.is_none() && !self.waiting.is_empty()
    }

    /// Adds a read; it waits for the next round.
    pub fn push(&mut self, token: u64) {
        self.waiting.push(token);
    }

    /// A round of heartbeats begins, with this commit index, which has an entry of the leader's
    /// own term. Takes the waiting reads along unless others are under way; says whether it did.
    pub fn begin(&mut self, round: u64, commit: LogIndex) -> bool {
        let begins = self.wants_round();
        if begins {
            let tokens = std::mem::take(&mut self.waiting);
            self.under_way = Some(Round { round, index: commit, tokens });
        }
        begins
    }

    /// A quorum has confirmed `round`: the reads that it or an earlier one carries may be served,
    /// in the order in which they came.
    pub fn confirm(&mut self, round: u64) -> Vec<ReadState> {
        match self.under_way.take_if(|under_way| under_way.round <= round) {
            Some(Round { index, tokens, .. }) => {
                tokens.into_iter().map(|token| ReadState { token, index }).collect()
            }
            None => Vec::new(),
        }
    }

    /// Leadership is lost: all reads that are not served, in the order in which they came.
    pub fn take_all(&mut self) -> Vec<u64> {
        let mut tokens = self.under_way.take().map_or_else(Vec::new, |round| round.tokens);
        tokens.append(&mut self.waiting);
        tokens
    }
}
