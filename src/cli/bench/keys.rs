//! Which key is next: uniform, or Zipfian as in YCSB.

use crate::cli::bench::{Action, Distribution, Step};

/// A small random generator: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", OOPSLA 2014). A load needs speed and repeatability, not secrecy.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The sequence of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number of `0..bound`, which is not empty.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // Multiply and shift (Lemire 2019): the bias is below bound / 2^64.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// The next number of the half-open interval from 0 to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        const MANTISSA_BITS: u32 = 53;
        (self.next() >> (64 - MANTISSA_BITS)) as f64 / (1u64 << MANTISSA_BITS) as f64
    }
}

/// Chooses keys of `0..keys`; shared by all callers, since Zipf's constants take a while.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chooser {
    Uniform { keys: u64 },
    Zipfian(Zipfian),
}

impl Chooser {
    /// Chooses from at least one key.
    pub(crate) fn new(keys: u64, distribution: Distribution) -> Self {
        let keys = keys.max(1);
        match distribution {
            Distribution::Uniform => Chooser::Uniform { keys },
            Distribution::Zipfian { theta } => Chooser::Zipfian(Zipfian::new(keys, theta)),
        }
    }

    fn choose(&self, random: &mut Random) -> u64 {
        match self {
            Chooser::Uniform { keys } => random.below(*keys),
            Chooser::Zipfian(zipfian) => scramble(zipfian.rank(random), zipfian.keys),
        }
    }
}

/// Ranks by Zipf's law, after Gray et al., "Quickly generating billion-record synthetic
/// databases" (SIGMOD 1994), as YCSB does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipfian {
    keys: u64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipfian {
    fn new(keys: u64, theta: f64) -> Self {
        let harmonic = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-theta)).sum::<f64>();
        let zeta = harmonic(keys);
        let alpha = 1.0 / (1.0 - theta);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - theta)) / (1.0 - harmonic(2) / zeta);
        Zipfian { keys, theta, zeta, alpha, eta }
    }

    /// The next rank; 0 is the most frequent.
    fn rank(&self, random: &mut Random) -> u64 {
        let fraction = random.fraction();
        let scaled = fraction * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1.min(self.keys - 1);
        }
        let rank = self.keys as f64 * (self.eta * fraction - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.keys - 1)
    }
}

/// Spreads ranks over the key space, so that frequent keys are no neighbours (FNV-1a, as YCSB).
fn scramble(rank: u64, keys: u64) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    rank.to_le_bytes().iter().fold(OFFSET, mix) % keys
}

/// One caller's operations.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    chooser: Chooser,
    read_ratio: f64,
    random: Random,
}

impl Steps {
    /// The operations of one caller; another number makes other ones.
    pub(crate) fn new(chooser: Chooser, read_ratio: f64, seed: u64, caller: usize) -> Self {
        let mut seeds = Random::new(seed ^ (caller as u64).rotate_left(32));
        Steps { chooser, read_ratio, random: Random::new(seeds.next()) }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Step {
        let reads = self.random.fraction() < self.read_ratio;
        let action = if reads { Action::Get } else { Action::Put };
        Step { action, key: self.chooser.choose(&mut self.random) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u64 = 200_000;

    fn share(mut event: impl FnMut() -> bool) -> f64 {
        (0..DRAWS).filter(|_| event()).count() as f64 / DRAWS as f64
    }

    #[test]
    fn uniform_keys_are_equally_frequent() {
        let chooser = Chooser::new(10, Distribution::Uniform);
        let mut counts = [0u64; 10];
        let mut random = Random::new(1);
        (0..DRAWS).for_each(|_| counts[chooser.choose(&mut random) as usize] += 1);
        for count in counts {
            let expected = DRAWS as f64 / 10.0;
            assert!((count as f64 - expected).abs() < expected * 0.05, "{counts:?}");
        }
    }

    #[test]
    fn zipfian_ranks_follow_the_law() {
        for (keys, theta) in [(1000, 0.99), (1000, 0.5), (100_000, 0.99)] {
            let zipfian = Zipfian::new(keys, theta);
            for rank in [0u64, 1] {
                let mut random = Random::new(7);
                let found = share(|| zipfian.rank(&mut random) == rank);
                let expected = ((rank + 1) as f64).powf(-theta) / zipfian.zeta;
                let error = (found - expected).abs() / expected;
                assert!(error < 0.1, "{keys} {theta} {rank}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn zipfian_ranks_fall_off_and_stay_in_range() {
        let zipfian = Zipfian::new(1000, 0.99);
        let mut random = Random::new(3);
        let ranks: Vec<u64> = (0..DRAWS).map(|_| zipfian.rank(&mut random)).collect();
        assert!(ranks.iter().all(|rank| *rank < 1000));
        let within = |from, to| ranks.iter().filter(|rank| (from..to).contains(*rank)).count();
        assert!(within(0, 10) > within(10, 100) && within(10, 100) > within(900, 1000));
        assert!(within(500, 1000) > 0, "the tail is never chosen");
    }

    #[test]
    fn a_single_key_is_always_chosen() {
        for distribution in [Distribution::Uniform, Distribution::Zipfian { theta: 0.99 }] {
            let chooser = Chooser::new(1, distribution);
            let mut random = Random::new(9);
            assert!((0..1000).all(|_| chooser.choose(&mut random) == 0), "{distribution:?}");
        }
    }

    #[test]
    fn frequent_keys_are_spread_over_the_key_space() {
        let top: Vec<u64> = (0..4).map(|rank| scramble(rank, 1_000_000)).collect();
        assert!(top.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 1000), "{top:?}");
    }

    #[test]
    fn callers_differ_and_repeat_themselves_by_seed() {
        let chooser = Chooser::new(1000, Distribution::Uniform);
        let keys = |seed, caller| -> Vec<Step> {
            let mut steps = Steps::new(chooser, 0.5, seed, caller);
            (0..20).map(|_| steps.next()).collect()
        };
        assert_eq!(keys(1, 0), keys(1, 0));
        assert_ne!(keys(1, 0), keys(1, 1));
        assert_ne!(keys(1, 0), keys(2, 0));
    }

    #[test]
    fn the_read_ratio_holds() {
        let chooser = Chooser::new(10, Distribution::Uniform);
        for ratio in [0.0, 0.3, 1.0] {
            let mut steps = Steps::new(chooser, ratio, 5, 0);
            let found = share(|| steps.next().action == Action::Get);
            assert!((found - ratio).abs() < 0.01, "{found} for {ratio}");
        }
    }
}
