//! How long to wait before trying again: longer after each failure, never the same for all.

use std::time::Duration;

/// Exponential back-off with jitter from a seed.
#[derive(Clone, Debug)]
pub struct Backoff {
    delay_min: Duration,
    delay_max: Duration,
    failures: u32,
    seed: u64,
}

impl Backoff {
    /// Waits `delay_min` after the first failure, doubling up to `delay_max`; of that, a random
    /// half to whole, so that many who failed together do not return together.
    pub fn new(delay_min: Duration, delay_max: Duration, seed: u64) -> Self {
        Backoff { delay_min, delay_max: delay_max.max(delay_min), failures: 0, seed }
    }

    /// Notes a failure: how long to wait after it.
    pub fn on_failure(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let delay = self.delay_min.saturating_mul(factor).min(self.delay_max);
        self.failures = self.failures.saturating_add(1);
        let half = delay / 2;
        let half_us = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(self.draw() % half_us.saturating_add(1))
    }

    /// Notes a success: the next failure is a first one again.
    pub fn on_success(&mut self) {
        self.failures = 0;
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn delays_double_up_to_the_maximum_within_their_jitter() {
        let mut backoff = Backoff::new(MIN, MAX, 7);
        for whole_ms in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let (delay, whole) = (backoff.on_failure(), Duration::from_millis(whole_ms));
            assert!(delay >= whole / 2 && delay <= whole, "{delay:?} of {whole:?}");
        }
    }

    #[test]
    fn any_number_of_failures_stays_below_the_maximum() {
        let mut backoff = Backoff::new(MIN, MAX, 7);
        assert!((0..100).all(|_| backoff.on_failure() <= MAX));
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(MIN, MAX, 7);
        let total: Duration = (0..5).map(|_| backoff.on_failure()).sum();
        assert!(total > MIN);
        backoff.on_success();
        assert!(backoff.on_failure() <= MIN);
    }

    #[test]
    fn the_seed_decides_the_jitter() {
        let delays = |seed| {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            (0..5).map(|_| backoff.on_failure()).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }
}
