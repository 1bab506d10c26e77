//! How long a value lives, from what a client asks for to the moment that its record carries.
//!
//! The coordinator reads its wall clock once, when it stamps the write, and the moment that it
//! comes to travels with the record from there on: no replica counts again, so all of them agree on
//! the end, however late the record reaches them. Whoever answers a read compares that moment with
//! a wall clock of its own. So a value lives as long as was asked for, give or take the difference
//! of two nodes' clocks, and near its end two nodes may answer differently.

use std::time::Duration;

use crate::types::Expiry;

/// The shortest life: the clock of an [`Expiry`] counts milliseconds.
pub const TTL_MIN: Duration = Duration::from_millis(1);

/// The longest life, ten years of 365 days: what is to last longer should not end by itself, and
/// more is a mistaken unit.
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A life that is too short or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is from {} ms to {} ms (ten years); got {} ms",
    TTL_MIN.as_millis(),
    TTL_MAX.as_millis(),
    asked.as_millis()
)]
pub struct TtlOutOfRange {
    /// What was asked for.
    pub asked: Duration,
}

/// The end of a life of `ttl` that begins at `wall_ms`, to the millisecond.
///
/// # Errors
/// [`TtlOutOfRange`].
pub fn expiry(wall_ms: u64, ttl: Duration) -> Result<Expiry, TtlOutOfRange> {
    if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
        return Err(TtlOutOfRange { asked: ttl });
    }
    let life_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    Ok(Expiry(wall_ms.saturating_add(life_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_within_the_bounds_ends_by_the_clock_that_it_began_by() {
        let ms = Duration::from_millis;
        let cases = [
            (ms(0), None),
            (Duration::from_micros(999), None),
            (ms(1), Some(1_001)),
            (Duration::from_micros(1_999), Some(1_001)),
            (ms(30_000), Some(31_000)),
            (TTL_MAX, Some(315_360_001_000)),
            (TTL_MAX + ms(1), None),
            (Duration::MAX, None),
        ];
        for (ttl, end) in cases {
            assert_eq!(expiry(1_000, ttl).ok(), end.map(Expiry), "{ttl:?}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_named_with_the_range() {
        let error = expiry(0, Duration::ZERO).expect_err("no life at all").to_string();
        assert_eq!(error, "is from 1 ms to 315360000000 ms (ten years); got 0 ms");
    }
}
