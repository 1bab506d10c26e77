//! How much of its rates background work has: all of them while a node comes to what is due in
//! time, less while it is late.
//!
//! Rows that are copied beside requests cost processor time, and a client feels that as a node
//! which comes to its request late. So a node that copies takes its own pulse: it asks to be woken
//! at short intervals, and a pulse that is felt late halves what background work may use, while
//! each in time gives a little back (additive increase, multiplicative decrease: Chiu and Jain,
//! "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance", 1989). Such a rule
//! settles where about one pulse in a hundred is late: fewer than the requests that a 99th
//! percentile leaves out.
//!
//! It cannot tell who keeps the node from being in time. Where others do so all the time, a
//! sixteenth of the rates is left, so that nothing waits for ever.

use std::time::Duration;

/// All of the rates.
const WHOLE: u32 = 1 << 16;

/// The least of them: a sixteenth.
const LEAST: u32 = WHOLE / 16;

/// Where background work begins: it is not known yet what the node bears.
const FIRST: u32 = WHOLE / 8;

/// What a pulse in time gives back. From the least to all it takes four seconds of
/// [`PULSE_INTERVAL`] and a timer's grain.
const STEP: u32 = WHOLE / 700;

/// How often a pulse is taken.
pub const PULSE_INTERVAL: Duration = Duration::from_millis(5);

/// From where on a pulse is late. Timers have a grain of a millisecond, and what a node does for
/// clients keeps a pulse below two on a machine that is half busy.
pub const LATE: Duration = Duration::from_micros(2_000);

/// The part of its rates that background work may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pace(u32);

impl Pace {
    /// All of it.
    pub const WHOLE: Pace = Pace(WHOLE);

    /// What an item of so many bytes counts against a rate of which this part may be used.
    pub fn cost(self, bytes: u64) -> u64 {
        let cost = u128::from(bytes) * u128::from(WHOLE) / u128::from(self.0.max(1));
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    /// The part that `used` is of `max`, all of it at most.
    pub fn of(used: usize, max: usize) -> Pace {
        let part = (used as u128 * u128::from(WHOLE)).checked_div(max as u128);
        Pace(part.and_then(|part| u32::try_from(part).ok()).map_or(WHOLE, |part| part.min(WHOLE)))
    }

    /// How long to rest after work of so long, so that it takes this part of the time.
    pub fn rest_after(self, work: Duration) -> Duration {
        let part = self.0.clamp(1, WHOLE);
        work.saturating_mul(WHOLE - part) / part
    }

    /// This part of a size.
    pub fn part_of(self, bytes: u32) -> u32 {
        let part = u64::from(bytes) * u64::from(self.0) / u64::from(WHOLE);
        u32::try_from(part).unwrap_or(bytes)
    }

    /// In percent, rounded up.
    pub fn percent(self) -> u32 {
        (self.0 * 100).div_ceil(WHOLE)
    }
}

/// Sets the pace by the pulse.
#[derive(Clone, Copy, Debug)]
pub struct Pacemaker {
    part: u32,
}

impl Pacemaker {
    /// Where background work begins, or begins again after a pause.
    pub fn new() -> Pacemaker {
        Pacemaker { part: FIRST }
    }

    /// The part of the rates that may be used now.
    pub fn pace(&self) -> Pace {
        Pace(self.part)
    }

    /// A pulse was felt so late; true if that was too late.
    pub fn on_pulse(&mut self, late: Duration) -> bool {
        let is_late = late > LATE;
        let part = if is_late { self.part / 2 } else { self.part + STEP };
        self.part = part.clamp(LEAST, WHOLE);
        is_late
    }
}

impl Default for Pacemaker {
    fn default() -> Self {
        Pacemaker::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IN_TIME: Duration = Duration::from_micros(1_900);
    const TOO_LATE: Duration = Duration::from_millis(3);

    fn after(pulses: impl IntoIterator<Item = Duration>) -> Pacemaker {
        let mut pacemaker = Pacemaker::new();
        for late in pulses {
            pacemaker.on_pulse(late);
        }
        pacemaker
    }

    #[test]
    fn a_node_in_time_gives_all_and_one_that_is_late_a_sixteenth() {
        assert_eq!(after([]).pace().percent(), 13);
        assert_eq!(after([IN_TIME; 700]).pace(), Pace::WHOLE);
        assert_eq!(after([TOO_LATE; 2]).pace().percent(), 7);
        assert_eq!(after([TOO_LATE; 100]).pace().percent(), 7);
        assert_eq!(after([LATE; 700]).pace(), Pace::WHOLE, "the bound itself is in time");
    }

    #[test]
    fn one_pulse_in_a_hundred_leaves_it_in_between() {
        let hundred = || [IN_TIME; 99].into_iter().chain([TOO_LATE]);
        let settled = after(std::iter::repeat_with(hundred).take(50).flatten()).pace().percent();
        assert!((10..=20).contains(&settled), "after a late one it is at {settled} %");
        let rising = after(std::iter::repeat_with(hundred).take(50).flatten().chain([IN_TIME; 99]));
        assert!((20..=40).contains(&rising.pace().percent()), "{rising:?}");
    }

    #[test]
    fn half_the_pace_counts_each_byte_twice() {
        let half = Pace(WHOLE / 2);
        assert_eq!((half.cost(1_000), half.part_of(1_000), half.percent()), (2_000, 500, 50));
        assert_eq!((Pace::WHOLE.cost(1_000), Pace::WHOLE.part_of(1_000)), (1_000, 1_000));
        assert_eq!(Pace(LEAST).cost(u64::MAX), u64::MAX);
    }

    #[test]
    fn work_at_a_quarter_rests_three_times_as_long() {
        let ms = Duration::from_millis;
        assert_eq!(Pace::of(1, 4).rest_after(ms(2)), ms(6));
        assert_eq!(Pace::of(4, 4).rest_after(ms(2)), ms(0));
        assert_eq!((Pace::of(9, 4), Pace::of(1, 0)), (Pace::WHOLE, Pace::WHOLE));
        assert_eq!(Pace::of(usize::MAX, 1), Pace::WHOLE);
        assert!(Pace::of(0, 4) < Pace::of(1, 1 << 10));
    }

    proptest! {
        #[test]
        fn it_stays_between_a_sixteenth_and_all(
            pulses in prop::collection::vec(0_u64..10_000, 0..2_000),
            bytes in 0_u64..1 << 40,
        ) {
            let pace = after(pulses.into_iter().map(Duration::from_micros)).pace();
            prop_assert!((Pace(LEAST)..=Pace::WHOLE).contains(&pace));
            prop_assert!((bytes..=bytes * 16).contains(&pace.cost(bytes)));
        }

        /// A late pulse never raises the pace, and one in time never lowers it.
        #[test]
        fn a_late_pulse_slows_and_one_in_time_does_not(
            pulses in prop::collection::vec(0_u64..5_000, 0..200),
            next in 0_u64..5_000,
        ) {
            let mut pacemaker = after(pulses.into_iter().map(Duration::from_micros));
            let before = pacemaker.pace();
            let late = pacemaker.on_pulse(Duration::from_micros(next));
            let (slower, faster) = (pacemaker.pace() <= before, pacemaker.pace() >= before);
            prop_assert_eq!((late && slower) || (!late && faster), true);
        }
    }
}
