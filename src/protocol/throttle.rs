//! A byte rate kept: the generic cell rate algorithm (ITU-T I.371), a token bucket that stores
//! one moment instead of a count of tokens.
//!
//! An item larger than the burst passes once the bucket is full, and is paid for afterwards; so
//! no size is ever stuck, and the long-run rate holds all the same.

use std::time::Duration;

use crate::types::Moment;

const NANOS_PER_MICRO: u64 = 1_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A limit on bytes per second.
#[derive(Clone, Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    burst_ns: u64,
    /// When everything taken so far is paid for, in nanoseconds of the monotonic clock:
    /// microseconds would round small items up by half.
    paid_at_ns: u64,
}

impl Throttle {
    /// Allows `bytes_per_second` (at least 1) in the long run, and after a pause the bytes of
    /// `burst` at once. Begins with a full burst.
    pub fn new(bytes_per_second: u64, burst: Duration) -> Self {
        let burst_ns = u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX);
        Throttle { bytes_per_second: bytes_per_second.max(1), burst_ns, paid_at_ns: 0 }
    }

    /// Whether an item of any size may pass now.
    pub fn is_ready(&self, now: Moment) -> bool {
        self.ready_at() <= now
    }

    /// From when on an item of any size may pass; may lie in the past.
    pub fn ready_at(&self) -> Moment {
        Moment(self.paid_at_ns.saturating_sub(self.burst_ns).div_ceil(NANOS_PER_MICRO))
    }

    /// Notes that an item passes now, whether it should have or not.
    pub fn take(&mut self, bytes: u64, now: Moment) {
        let cost_ns = u128::from(bytes) * NANOS_PER_SECOND / u128::from(self.bytes_per_second);
        let now_ns = now.0.saturating_mul(NANOS_PER_MICRO);
        let cost_ns = u64::try_from(cost_ns).unwrap_or(u64::MAX);
        self.paid_at_ns = self.paid_at_ns.max(now_ns).saturating_add(cost_ns);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BURST: Duration = Duration::from_millis(100);

    fn moment_ms(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        let mut throttle = Throttle::new(1_000, BURST);
        let mut passed = 0;
        while throttle.is_ready(moment_ms(0)) {
            throttle.take(10, moment_ms(0));
            passed += 10;
        }
        assert_eq!(passed, 110, "a full burst of 100 bytes and the item that overdraws it");
        assert_eq!(throttle.ready_at(), moment_ms(10));
    }

    #[test]
    fn an_item_larger_than_the_burst_passes_and_is_paid_for_afterwards() {
        let mut throttle = Throttle::new(1_000, BURST);
        assert!(throttle.is_ready(moment_ms(0)));
        throttle.take(5_000, moment_ms(0));
        assert!(!throttle.is_ready(moment_ms(4_899)));
        assert!(throttle.is_ready(moment_ms(4_900)));
    }

    #[test]
    fn a_pause_saves_up_no_more_than_one_burst() {
        let mut throttle = Throttle::new(1_000, BURST);
        let later = moment_ms(3_600_000);
        throttle.take(101, later);
        assert!(!throttle.is_ready(later));
    }

    #[test]
    fn a_rate_of_nothing_still_moves() {
        let mut throttle = Throttle::new(0, BURST);
        throttle.take(1, moment_ms(0));
        assert!(throttle.is_ready(moment_ms(1_000)));
    }

    proptest! {
        #[test]
        fn never_more_than_rate_and_burst_and_one_item(
            rate in 1u64..1 << 31,
            items in prop::collection::vec((1u64..100_000, 0u64..5_000), 1..200),
        ) {
            let mut throttle = Throttle::new(rate, BURST);
            let (mut now, mut passed, mut last) = (Moment(0), 0u128, 0);
            for (bytes, wait_us) in items {
                now = now + Duration::from_micros(wait_us);
                if throttle.is_ready(now) {
                    throttle.take(bytes, now);
                    passed += u128::from(bytes);
                    last = bytes;
                }
                let allowed_us = u128::from(now.0) + BURST.as_micros() + 1;
                let slack = u128::from(last) + 200; // each item rounds down by under a nanosecond
                prop_assert!(passed <= u128::from(rate) * allowed_us / 1_000_000 + slack);
            }
        }
    }
}
