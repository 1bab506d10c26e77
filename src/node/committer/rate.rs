//! How many writes arrive: whether a commit should wait for more.

use std::time::Duration;

use crate::types::Moment;

/// The arrival rate is measured over windows of at least this length.
const RATE_WINDOW: Duration = Duration::from_millis(20);

/// How many writes arrive per second, roughly.
#[derive(Clone, Copy, Default)]
pub(super) struct Rate {
    window_began: Moment,
    arrived: u64,
    per_second: u64,
}

impl Rate {
    pub(super) fn count(&mut self, writes: usize, now: Moment) {
        self.arrived += writes as u64;
        let window = now.since(self.window_began);
        if window >= RATE_WINDOW {
            let window_us = u64::try_from(window.as_micros()).unwrap_or(u64::MAX).max(1);
            self.per_second = self.arrived.saturating_mul(1_000_000) / window_us;
            *self = Rate { window_began: now, arrived: 0, per_second: self.per_second };
        }
    }

    pub(super) fn expected_within(self, interval: Duration) -> u64 {
        let interval_us = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        self.per_second.saturating_mul(interval_us) / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::committer::GATHER_MIN_WRITES;

    #[test]
    fn a_lone_writer_is_never_made_to_wait_and_a_crowd_is() {
        let interval = Duration::from_millis(2);
        let mut rate = Rate::default();
        rate.count(20, Moment(20_000));
        assert!(rate.expected_within(interval) < GATHER_MIN_WRITES);
        rate.count(200, Moment(40_000));
        assert!(rate.expected_within(interval) >= GATHER_MIN_WRITES);
    }

    #[test]
    fn the_rate_falls_once_writes_cease() {
        let mut rate = Rate::default();
        rate.count(1_000, Moment(20_000));
        rate.count(1, Moment(2_020_000));
        assert_eq!(rate.expected_within(Duration::from_millis(2)), 0);
    }
}
