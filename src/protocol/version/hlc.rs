//! The hybrid logical clock that stamps writes (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! A stamp is the wall clock's milliseconds and a counter below them. It is always above every
//! stamp that this clock has given or seen, so of two writes of which one knew the other the later
//! one wins, however the wall clocks stand; and it stays near the wall clock, so that of two that
//! did not know each other the later one mostly wins.
//!
//! Invariants: stamps of one clock strictly increase; a stamp further ahead of the wall clock than
//! the greatest offset allowed never moves the clock. Without that bound, one node with a clock in
//! the far future would make every later write carry its time, and every write of a correct node
//! that had not heard of it would lose.
//!
//! Caveat: when the wall clock is set back, stamps go on from the last one and count up slowly,
//! ahead of it. Other nodes refuse them while they lie too far ahead of *their* clocks. Stamps at
//! or below the last one change nothing and are accepted whatever the wall clock says.

use std::time::Duration;

use crate::types::Timestamp;

/// A stamp lies further ahead of the wall clock than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stamp lies {ahead_ms} ms ahead of this node's clock; at most {max_ms} ms are allowed")]
pub struct ClockOffset {
    /// How far it lies ahead.
    pub ahead_ms: u64,
    /// How far it may.
    pub max_ms: u64,
}

/// One node's clock for stamps.
#[derive(Clone, Debug)]
pub struct Hlc {
    last: Timestamp,
    max_offset_ms: u64,
}

impl Hlc {
    /// A clock that stamps above `floor`, the highest stamp known from an earlier run, and believes
    /// no stamp further ahead of the wall clock than `max_offset` (to the millisecond).
    pub fn new(floor: Timestamp, max_offset: Duration) -> Self {
        let max_offset_ms = u64::try_from(max_offset.as_millis()).unwrap_or(u64::MAX);
        Hlc { last: floor, max_offset_ms }
    }

    /// A new stamp: above all earlier ones, all observed ones and `above`, the client's context,
    /// and not below the wall clock. A counter that is used up carries into the milliseconds.
    ///
    /// # Errors
    /// [`ClockOffset`] when `above` lies too far ahead; the clock has not moved then.
    pub fn stamp(
        &mut self,
        wall_ms: u64,
        above: Option<Timestamp>,
    ) -> Result<Timestamp, ClockOffset> {
        if let Some(context) = above {
            self.observe(wall_ms, context)?;
        }
        let next = Timestamp(self.last.0.saturating_add(1));
        self.last = next.max(Timestamp::from_wall_ms(wall_ms));
        Ok(self.last)
    }

    /// Takes note of another node's stamp: later ones of this clock lie above it.
    ///
    /// # Errors
    /// [`ClockOffset`] when it lies too far ahead; the clock has not moved then.
    pub fn observe(&mut self, wall_ms: u64, remote: Timestamp) -> Result<(), ClockOffset> {
        if remote <= self.last {
            return Ok(());
        }
        let ahead_ms = remote.wall_ms().saturating_sub(wall_ms);
        if ahead_ms > self.max_offset_ms {
            return Err(ClockOffset { ahead_ms, max_ms: self.max_offset_ms });
        }
        self.last = remote;
        Ok(())
    }

    /// The highest stamp given or seen.
    pub fn last(&self) -> Timestamp {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_OFFSET: Duration = Duration::from_millis(500);

    fn clock() -> Hlc {
        Hlc::new(Timestamp(0), MAX_OFFSET)
    }

    #[test]
    fn a_stamp_follows_the_wall_clock_when_that_is_ahead() {
        let mut hlc = clock();
        assert_eq!(hlc.stamp(1_000, None), Ok(Timestamp::from_wall_ms(1_000)));
        assert_eq!(hlc.stamp(1_000, None), Ok(Timestamp(Timestamp::from_wall_ms(1_000).0 + 1)));
        assert_eq!(hlc.stamp(1_001, None), Ok(Timestamp::from_wall_ms(1_001)));
    }

    #[test]
    fn stamps_increase_while_the_wall_clock_goes_back() {
        let mut hlc = clock();
        let before = hlc.stamp(5_000, None);
        let after = hlc.stamp(1_000, None);
        assert_eq!(after.map(|stamp| stamp.0), before.map(|stamp| stamp.0 + 1));
    }

    #[test]
    fn the_first_stamp_lies_above_the_floor() {
        let floor = Timestamp(Timestamp::from_wall_ms(9_000).0 + 7);
        let mut hlc = Hlc::new(floor, MAX_OFFSET);
        assert_eq!(hlc.last(), floor);
        assert!(hlc.stamp(1_000, None).is_ok_and(|stamp| stamp > floor));
    }

    #[test]
    fn a_used_up_counter_carries_into_the_milliseconds() {
        let counter_max = (1 << Timestamp::COUNTER_BITS) - 1;
        let last = Timestamp(Timestamp::from_wall_ms(1_000).0 + counter_max);
        let mut hlc = Hlc::new(last, MAX_OFFSET);
        assert_eq!(hlc.stamp(1_000, None), Ok(Timestamp::from_wall_ms(1_001)));
    }

    #[test]
    fn a_context_or_remote_stamp_is_exceeded() {
        let mut hlc = clock();
        let context = Timestamp::from_wall_ms(1_500);
        assert!(hlc.stamp(1_000, Some(context)).is_ok_and(|stamp| stamp > context));
        let remote = Timestamp(Timestamp::from_wall_ms(1_500).0 + 100);
        assert_eq!(hlc.observe(1_000, remote), Ok(()));
        assert!(hlc.stamp(1_000, None).is_ok_and(|stamp| stamp > remote));
    }

    #[test]
    fn a_stamp_too_far_ahead_is_refused_and_leaves_the_clock_unmoved() {
        let mut hlc = Hlc::new(Timestamp::from_wall_ms(900), MAX_OFFSET);
        let future = Timestamp::from_wall_ms(1_501);
        let refused = ClockOffset { ahead_ms: 501, max_ms: 500 };
        assert_eq!(hlc.observe(1_000, future), Err(refused));
        assert_eq!(hlc.stamp(1_000, Some(future)), Err(refused));
        assert_eq!(hlc.last(), Timestamp::from_wall_ms(900));
    }

    #[test]
    fn what_the_clock_has_reached_already_is_no_offence() {
        let reached = Timestamp::from_wall_ms(9_000);
        let mut hlc = Hlc::new(reached, MAX_OFFSET);
        assert_eq!(hlc.observe(1_000, reached), Ok(()));
        assert!(hlc.stamp(1_000, Some(reached)).is_ok_and(|stamp| stamp > reached));
    }

    proptest! {
        #[test]
        fn stamps_exceed_all_that_was_given_or_accepted(
            steps in proptest::collection::vec((0u64..3_000, 0u64..4_000, 0u8..3), 1..200),
        ) {
            let mut hlc = clock();
            let mut highest = Timestamp(0);
            for (wall_ms, other_ms, kind) in steps {
                let other = Timestamp::from_wall_ms(other_ms);
                let before = hlc.last();
                let context = (kind == 1).then_some(other);
                let outcome = match kind {
                    2 => hlc.observe(wall_ms, other).map(|()| None),
                    _ => hlc.stamp(wall_ms, context).map(Some),
                };
                let too_far = kind > 0 && other > before && other_ms > wall_ms + 500;
                prop_assert_eq!(outcome.is_err(), too_far);
                if let Ok(Some(stamp)) = outcome {
                    prop_assert!(stamp > highest && stamp.wall_ms() >= wall_ms);
                    prop_assert!(context.is_none_or(|context| stamp > context));
                }
                prop_assert!(!too_far || hlc.last() == before);
                highest = highest.max(hlc.last());
                prop_assert_eq!(hlc.last(), highest);
            }
        }
    }
}
