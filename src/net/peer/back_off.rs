//! How long to wait before dialling again.

use std::time::Duration;

/// The first delay; a peer that restarts is back within some hundred milliseconds.
const DELAY_MIN: Duration = Duration::from_millis(50);

/// The longest delay: a peer that is back waits no longer than this, unless gossip tells earlier.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// Doubles from [`DELAY_MIN`] to [`DELAY_MAX`]; each delay is cut by up to half.
///
/// The jitter spreads the nodes that lost the same peer at the same moment, so it need only differ
/// between pairs: it is drawn from their ids, and no randomness enters here.
#[derive(Debug)]
pub(crate) struct BackOff {
    seed: u64,
    failures: u32,
    draws: u64,
}

impl BackOff {
    /// The seed tells one pair of nodes from another.
    pub(crate) fn new(seed: u64) -> Self {
        BackOff { seed, failures: 0, draws: 0 }
    }

    /// Begins with the shortest delay again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        const DOUBLINGS_MAX: u32 = 10;
        let full = DELAY_MIN.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX)).min(DELAY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.jittered(full)
    }

    /// Between half of a delay and all of it.
    pub(crate) fn jittered(&mut self, full: Duration) -> Duration {
        self.draws = self.draws.wrapping_add(1);
        let part = mix(self.seed.wrapping_add(self.draws)) % 1024;
        full / 2 + full * u32::try_from(part).unwrap_or(0) / 2048
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_within_their_jitter_and_stay_bounded() {
        let mut back_off = BackOff::new(7);
        for full_ms in [50, 100, 200, 400, 800, 1000, 1000, 1000] {
            let delay = back_off.next_delay();
            let full = Duration::from_millis(full_ms);
            assert!(delay >= full / 2 && delay <= full, "{delay:?} of {full:?}");
        }
        back_off.reset();
        assert!(back_off.next_delay() <= DELAY_MIN);
    }

    #[test]
    fn pairs_differ() {
        let delays = |seed| {
            let mut back_off = BackOff::new(seed);
            (0..4).map(|_| back_off.next_delay()).collect::<Vec<_>>()
        };
        assert_ne!(delays(1), delays(2));
    }
}
