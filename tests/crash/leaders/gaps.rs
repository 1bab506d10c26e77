//! How long writes were not acknowledged.

use std::fmt;

/// Times in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Vec<u64>);

impl Gaps {
    pub(crate) fn note(&mut self, gap: u64) {
        self.0.push(gap);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or_default() / 1_000_000
        };
        write!(f, "p50 {} ms, p99 {} ms of {}", at(50), at(99), sorted.len())
    }
}
