//! When rounds of heartbeats began, or were first answered.
//!
//! A leader counts its rounds and notes the tick at which each began; a follower notes the tick at
//! which it first answered each. From these follow the lease, and how fresh a follower is (Ongaro
//! 2014, section 6.4).
//!
//! Caveat: only the last [`MARKS_MAX`] ticks at which rounds were noted are remembered, and rounds
//! of one tick share a mark. A round's tick is thus never told too late, and for a round that lies
//! too far back it is not told at all.

use std::collections::VecDeque;

/// Ticks that are remembered. Leases and check-quorum look back one election timeout, in which far
/// fewer rounds begin unless reads ask for them, and then the latest rounds are what counts.
const MARKS_MAX: usize = 64;

/// The rounds of one leader.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    latest: u64,
    /// Rounds and their ticks, both rising.
    marks: VecDeque<(u64, u64)>,
}

impl Rounds {
    /// The last round that was noted; 0 before the first.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Notes a round at this tick. One that was noted already, or an earlier one, is ignored: what
    /// counts is the first time.
    pub(super) fn note(&mut self, round: u64, tick: u64) {
        if round <= self.latest {
            return;
        }
        self.latest = round;
        if self.marks.back().is_some_and(|&(_, marked)| marked == tick) {
            return;
        }
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((round, tick));
    }

    /// The tick of a round, or an earlier one; `None` when that is forgotten or was never known.
    pub(super) fn tick_of(&self, round: u64) -> Option<u64> {
        let mark = self.marks.iter().rev().find(|&&(marked, _)| marked <= round);
        mark.map(|&(_, tick)| tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_the_tick_at_which_it_was_first_noted() {
        let mut rounds = Rounds::default();
        for (round, tick) in [(1, 10), (2, 10), (3, 12), (2, 13), (3, 14), (5, 15)] {
            rounds.note(round, tick);
        }
        let ticks = [0, 1, 2, 3, 4, 5, 9].map(|round| rounds.tick_of(round));
        let expected = [None, Some(10), Some(10), Some(12), Some(12), Some(15), Some(15)];
        assert_eq!(ticks, expected);
        assert_eq!(rounds.latest(), 5);
    }

    #[test]
    fn a_round_that_shares_a_tick_is_not_noted_again_later() {
        let mut rounds = Rounds::default();
        rounds.note(1, 10);
        rounds.note(2, 10);
        rounds.note(2, 50);
        assert_eq!(rounds.tick_of(2), Some(10));
    }

    #[test]
    fn what_lies_too_far_back_is_not_told() {
        let mut rounds = Rounds::default();
        (1..=MARKS_MAX as u64 + 1).for_each(|round| rounds.note(round, round));
        assert_eq!(rounds.tick_of(1), None);
        assert_eq!(rounds.tick_of(2), Some(2));
    }
}
