//! What a leader knows of one other replica, and whether it may send it more.
//!
//! A replica is probed, one append at a time, until its log is known to match somewhere; then
//! appends are pipelined, as many as the window allows, each on the assumption that those before
//! arrive (Ongaro 2014, section 10.2.2). Anything that contradicts the assumption leads back to
//! probing. While a snapshot is on its way nothing is appended.
//!
//! Invariants: `matched < next`; in [`State::Replicate`] the window holds the last indices of
//! the appends that are not yet acknowledged, rising, all above `matched` and below `next`.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::types::LogIndex;

/// How a replica is sent entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Where its log matches is a guess: one append at a time finds out.
    Probe {
        /// One is under way.
        sent: bool,
    },
    /// It is known to match, and appends are pipelined.
    Replicate,
    /// It needs entries that are compacted, so a snapshot goes first.
    Snapshot {
        /// The last index that the snapshot covers.
        through: LogIndex,
    },
}

/// One replica as its leader sees it.
#[derive(Clone, Debug)]
pub struct Progress {
    matched: LogIndex,
    /// The last round of heartbeats that had begun when that was last news.
    matched_round: u64,
    next: LogIndex,
    state: State,
    in_flight: VecDeque<LogIndex>,
    appends_in_flight_max: usize,
    /// The oldest append in flight when the replica last answered a heartbeat.
    oldest_seen: Option<LogIndex>,
    recent_tick: u64,
    round: u64,
    round_tick: Option<u64>,
}

impl Progress {
    /// A replica of which nothing is known yet. A new leader begins behind its own last entry
    /// (section 3.5); `now` counts as the last time that it was heard, so that it has a whole
    /// election timeout to answer.
    pub fn new(next: LogIndex, appends_in_flight_max: usize, now: u64) -> Progress {
        Progress {
            matched: LogIndex(0),
            matched_round: 0,
            next: next.max(LogIndex(1)),
            state: State::Probe { sent: false },
            in_flight: VecDeque::new(),
            appends_in_flight_max: appends_in_flight_max.max(1),
            oldest_seen: None,
            recent_tick: now,
            round: 0,
            round_tick: None,
        }
    }

    /// Its log is durable and matches the leader's up to here.
    pub fn matched(&self) -> LogIndex {
        self.matched
    }

    /// The first index of the next append to it.
    pub fn next(&self) -> LogIndex {
        self.next
    }

    /// How it is sent entries.
    pub fn state(&self) -> State {
        self.state
    }

    /// Appends that are not acknowledged yet; counted in [`State::Replicate`] alone.
    pub fn appends_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The tick at which it was last heard.
    pub fn recent_tick(&self) -> u64 {
        self.recent_tick
    }

    /// The last round of heartbeats that it confirmed; 0 before the first.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The tick at which the last confirmed round was begun: until then at least, the replica knew
    /// of no later leader.
    pub fn round_tick(&self) -> Option<u64> {
        self.round_tick
    }

    /// Whether an append may be sent to it now.
    pub fn may_send(&self) -> bool {
        match self.state {
            State::Probe { sent } => !sent,
            State::Replicate => self.in_flight.len() < self.appends_in_flight_max,
            State::Snapshot { .. } => false,
        }
    }

    /// Notes that an append from [`Progress::next`] through `last` is sent; `last` is the index
    /// before `next` when it bears no entries.
    pub fn on_sent(&mut self, last: LogIndex) {
        match self.state {
            State::Probe { .. } => self.state = State::Probe { sent: true },
            State::Replicate if last >= self.next => {
                self.next = last.next();
                self.in_flight.push_back(last);
            }
            State::Replicate | State::Snapshot { .. } => {}
        }
    }

    /// Its log matches through `index`, durably, as is heard while `round` is the latest round of
    /// heartbeats. Says whether that is news, so that more may be committed. A probe is over with
    /// it.
    pub fn on_matched(&mut self, index: LogIndex, round: u64) -> bool {
        let (before, advanced) = (self.matched, index > self.matched);
        if advanced {
            (self.matched, self.matched_round) = (index, round);
        }
        while self.in_flight.front().is_some_and(|&last| last <= index) {
            self.in_flight.pop_front();
        }
        match self.state {
            State::Probe { .. } if index >= before => self.replicate(),
            State::Snapshot { through } if self.matched >= through => self.replicate(),
            _ => self.next = self.next.max(self.matched.next()),
        }
        advanced
    }

    /// It lacks the entry at `previous`, and `next_guess` is what to send it instead. Says whether
    /// to do so: false when the answer is older than what is known.
    pub fn on_rejected(&mut self, previous: LogIndex, next_guess: LogIndex) -> bool {
        let stale = match self.state {
            State::Probe { .. } => previous.next() != self.next || previous <= self.matched,
            State::Replicate => previous <= self.matched || previous >= self.next,
            State::Snapshot { .. } => true,
        };
        if !stale {
            self.probe(next_guess.min(previous));
        }
        !stale
    }

    /// Anything was heard of it in this term.
    pub fn on_heard(&mut self, now: u64) {
        self.recent_tick = self.recent_tick.max(now);
    }

    /// It confirmed a round of heartbeats that was begun at `begun_tick`.
    pub fn on_round(&mut self, round: u64, begun_tick: u64) {
        if round > self.round {
            self.round = round;
            self.round_tick = Some(begun_tick);
        }
    }

    /// It answered a heartbeat of that round, and its log ends at `last`: a probe is tried again,
    /// and when the oldest append in flight was that at the last answer as well, it is given up as
    /// lost.
    ///
    /// A log that ends before what it acknowledged earlier than the round began has lost that: its
    /// disk was put back to an earlier state. Nothing can undo what was committed by its word; but
    /// it counts for nothing from now on, and is sent what it lacks, so that it hears of the loss.
    pub fn on_heartbeat_reply(&mut self, round: u64, last: LogIndex) {
        let installs = matches!(self.state, State::Snapshot { .. });
        if last < self.matched && round > self.matched_round && !installs {
            self.matched = LogIndex(0);
            return self.probe(last.next());
        }
        let oldest = self.in_flight.front().copied();
        match self.state {
            State::Probe { .. } => self.state = State::Probe { sent: false },
            State::Replicate if oldest.is_some() && oldest == self.oldest_seen => {
                self.probe(last.next().min(self.next));
            }
            State::Replicate => self.oldest_seen = oldest,
            State::Snapshot { .. } => {}
        }
    }

    /// It needs a snapshot, which is to cover everything through `through`.
    pub fn begin_snapshot(&mut self, through: LogIndex) {
        self.probe(self.matched.next());
        self.state = State::Snapshot { through };
    }

    /// The snapshot is in place there through that index, or has failed, or was refused. What it
    /// covers counts as matched once an append behind it is confirmed. After a failure nothing is
    /// sent until the replica answers a heartbeat; then it is asked whether it has by now what the
    /// snapshot was to bring, and needs another only if it has not.
    pub fn end_snapshot(&mut self, through: Option<LogIndex>) {
        let State::Snapshot { through: wanted } = self.state else { return };
        self.probe(through.unwrap_or(wanted).next());
        self.state = State::Probe { sent: through.is_none() };
    }

    /// The stream to its node broke: what is in flight may be lost.
    pub fn on_unreachable(&mut self) {
        if self.state == State::Replicate {
            self.probe(self.matched.next());
        }
    }

    fn probe(&mut self, next: LogIndex) {
        self.state = State::Probe { sent: false };
        self.next = next.max(self.matched.next());
        self.in_flight.clear();
        self.oldest_seen = None;
    }

    fn replicate(&mut self) {
        self.probe(self.matched.next());
        self.state = State::Replicate;
    }
}
