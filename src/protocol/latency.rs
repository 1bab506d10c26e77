//! How long each replica takes to answer: who is asked first, when a read stops waiting for it, and
//! which replicas are slow.
//!
//! The estimate is the one that TCP uses for its retransmission time-out (RFC 6298): a smoothed
//! mean and mean deviation. Silence counts as well: a replica that has not answered for a while has
//! taken at least that long, and without this, one that hangs would look as good as one that nobody
//! asked. Replicas are compared by powers of two of their mean, so that noise does not reorder
//! them.
//!
//! An estimate is forgotten after a while, so that a replica that was slow once is tried again: by
//! one request at a time, while the others still go round it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Moment, NodeId};

/// An estimate older than this says nothing any more.
const ESTIMATE_AGE_MAX: Duration = Duration::from_secs(5);

/// A slow replica is called so until this long after it was last seen to be: longer than the age
/// after which it is tried again.
const SLOW_AGE_MAX: Duration = Duration::from_secs(15);

/// Bounds of the hedge delay: below, hedging would only add load on a busy machine; above, it would
/// come too late to help within the default request timeout.
const HEDGE_MIN: Duration = Duration::from_millis(10);
const HEDGE_MAX: Duration = Duration::from_millis(500);

/// The hedge delay while nothing has been measured.
const HEDGE_UNMEASURED: Duration = Duration::from_millis(50);

/// A replica is slow when it takes so many times as long as the fastest other one, and so long at
/// least: what is slower than that is felt in spite of hedging.
const SLOW_TIMES: u64 = 8;
const SLOW_MIN: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
struct Estimate {
    mean_us: u64,
    deviation_us: u64,
    /// When it was last measured.
    measured: Moment,
    /// When it was last found too old by somebody who then tried the replica.
    tried: Moment,
}

impl Estimate {
    fn first(took_us: u64, now: Moment) -> Estimate {
        Estimate { mean_us: took_us, deviation_us: took_us / 2, measured: now, tried: now }
    }

    fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.measured) <= ESTIMATE_AGE_MAX
    }

    /// Powers of two above 4 ms: replicas faster than that are all alike.
    fn rank(&self) -> u32 {
        const ALIKE_BELOW_US: u64 = 4_096;
        (self.mean_us / ALIKE_BELOW_US + 1).ilog2()
    }
}

/// Estimates of all replicas, of one kind of request.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    estimates: BTreeMap<NodeId, Estimate>,
}

impl Latencies {
    /// A replica has answered.
    pub fn on_answer(&mut self, node: NodeId, took: Duration, now: Moment) {
        let took_us = microseconds(took);
        let first = Estimate::first(took_us, now);
        let estimate = self.estimates.entry(node).or_insert(first);
        *estimate = if estimate.is_fresh(now) {
            let error_us = estimate.mean_us.abs_diff(took_us);
            Estimate {
                mean_us: (estimate.mean_us.saturating_mul(7).saturating_add(took_us)) / 8,
                deviation_us: (estimate.deviation_us.saturating_mul(3).saturating_add(error_us))
                    / 4,
                measured: now,
                tried: now,
            }
        } else {
            first
        };
    }

    /// A replica has not answered yet, and was asked that long ago.
    pub fn on_silence(&mut self, node: NodeId, silent: Duration, now: Moment) {
        let silent_us = microseconds(silent);
        let known = self.estimates.get(&node).filter(|estimate| estimate.is_fresh(now));
        if known.is_none_or(|estimate| estimate.mean_us < silent_us) {
            self.estimates.insert(node, Estimate::first(silent_us, now));
        }
    }

    /// Sorts replicas, fastest first; equals keep their order. Whoever finds an estimate of a slow
    /// replica too old may try it, and for others it stays as slow as it was meanwhile.
    pub fn sort<T>(&mut self, replicas: &mut [T], node: impl Fn(&T) -> NodeId, now: Moment) {
        replicas.sort_by_cached_key(|replica| self.rank(node(replica), now));
    }

    fn rank(&mut self, node: NodeId, now: Moment) -> u32 {
        let Some(estimate) = self.estimates.get_mut(&node) else { return 0 };
        if !estimate.is_fresh(now) && now.since(estimate.tried) > ESTIMATE_AGE_MAX {
            estimate.tried = now;
            return 0;
        }
        estimate.rank()
    }

    /// How long to wait for these replicas before another is asked: what the fastest of them would
    /// hardly ever exceed.
    pub fn hedge_after(&self, replicas: impl Iterator<Item = NodeId>, now: Moment) -> Duration {
        let fresh = |node| self.estimates.get(&node).filter(|estimate| estimate.is_fresh(now));
        let usual = |estimate: &Estimate| {
            estimate.mean_us.saturating_add(estimate.deviation_us.saturating_mul(4))
        };
        let fastest = replicas.filter_map(fresh).map(usual).min();
        fastest.map_or(HEDGE_UNMEASURED, Duration::from_micros).clamp(HEDGE_MIN, HEDGE_MAX)
    }

    /// How long a replica takes on average, if it was measured lately.
    pub fn mean(&self, node: NodeId, now: Moment) -> Option<Duration> {
        let estimate = self.lately(node, now)?;
        Some(Duration::from_micros(estimate.mean_us))
    }

    /// Whether a replica is slow, as others go.
    pub fn is_slow(&self, node: NodeId, now: Moment) -> bool {
        let Some(estimate) = self.lately(node, now) else { return false };
        let others = self.estimates.keys().filter(|other| **other != node);
        let fastest =
            others.filter_map(|other| self.lately(*other, now)).map(|it| it.mean_us).min();
        fastest.is_some_and(|fastest_us| {
            estimate.mean_us >= fastest_us.saturating_mul(SLOW_TIMES)
                && estimate.mean_us >= microseconds(SLOW_MIN)
        })
    }

    fn lately(&self, node: NodeId, now: Moment) -> Option<&Estimate> {
        self.estimates.get(&node).filter(|it| now.since(it.measured) <= SLOW_AGE_MAX)
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: NodeId = NodeId(2);
    const SLOW: NodeId = NodeId(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(ms: u64) -> Moment {
        Moment(ms * 1000)
    }

    fn measured(slow: Duration) -> Latencies {
        let mut latencies = Latencies::default();
        for _ in 0..20 {
            latencies.on_answer(FAST, ms(2), at(0));
            latencies.on_answer(SLOW, slow, at(0));
        }
        latencies
    }

    fn sorted(latencies: &mut Latencies, now: Moment) -> [NodeId; 2] {
        let mut replicas = [SLOW, FAST];
        latencies.sort(&mut replicas, |node| *node, now);
        replicas
    }

    #[test]
    fn the_slow_replica_is_asked_last_until_its_estimate_has_aged() {
        let mut latencies = measured(ms(80));
        assert_eq!(sorted(&mut latencies, at(1)), [FAST, SLOW]);
        assert_eq!(sorted(&mut latencies, at(6_000)), [SLOW, FAST]);
    }

    #[test]
    fn one_tries_the_slow_replica_again_and_others_wait_for_what_becomes_of_it() {
        let mut latencies = measured(ms(80));
        assert_eq!(sorted(&mut latencies, at(6_000)), [SLOW, FAST]);
        latencies.on_answer(FAST, ms(2), at(6_000));
        assert_eq!(sorted(&mut latencies, at(6_001)), [FAST, SLOW]);
        assert_eq!(sorted(&mut latencies, at(11_500)), [SLOW, FAST], "the one before was lost");
        latencies.on_answer(SLOW, ms(2), at(11_501));
        assert_eq!(sorted(&mut latencies, at(11_502)), [SLOW, FAST], "it has recovered");
    }

    #[test]
    fn a_silent_replica_is_as_slow_as_it_has_been_silent() {
        let mut latencies = Latencies::default();
        latencies.on_answer(FAST, ms(2), at(0));
        latencies.on_answer(SLOW, ms(1), at(0));
        assert_eq!(sorted(&mut latencies, at(1)), [SLOW, FAST]);
        latencies.on_silence(SLOW, ms(60), at(60));
        assert_eq!(sorted(&mut latencies, at(60)), [FAST, SLOW]);
        assert!(latencies.is_slow(SLOW, at(60)) && !latencies.is_slow(FAST, at(60)));
        latencies.on_silence(SLOW, ms(50), at(70));
        assert_eq!(latencies.mean(SLOW, at(70)), Some(ms(60)), "it is known to be slower");
    }

    #[test]
    fn the_hedge_follows_the_fastest_within_its_bounds() {
        let latencies = measured(ms(80));
        assert_eq!(latencies.hedge_after([SLOW, FAST].into_iter(), at(1)), HEDGE_MIN);
        let slow = latencies.hedge_after([SLOW].into_iter(), at(1));
        assert!(slow >= ms(80) && slow <= HEDGE_MAX, "{slow:?}");
        let unknown = latencies.hedge_after([NodeId(9)].into_iter(), at(1));
        assert_eq!(unknown, HEDGE_UNMEASURED);
    }

    #[test]
    fn slow_is_who_takes_much_longer_than_another_and_long() {
        let cases = [(10, false), (49, false), (50, true), (500, true)];
        for (slow_ms, slow) in cases {
            let latencies = measured(ms(slow_ms));
            assert_eq!(latencies.is_slow(SLOW, at(1)), slow, "{slow_ms}");
            assert!(!latencies.is_slow(FAST, at(1)));
            assert!(!latencies.is_slow(SLOW, at(16_000)), "that was long ago");
        }
        let mut alone = Latencies::default();
        alone.on_answer(SLOW, ms(900), at(0));
        assert!(!alone.is_slow(SLOW, at(0)), "nobody is faster");
    }

    proptest! {
        /// However answers and silences come, the order is one of the same replicas, and no two
        /// replicas are slow at each other's expense.
        #[test]
        fn sorting_only_reorders(
            events in proptest::collection::vec((1_u64..4, 0_u64..900, any::<bool>()), 0..60),
            step_ms in 0_u64..2_000,
        ) {
            let mut latencies = Latencies::default();
            for (count, (node, took_ms, answered)) in events.into_iter().enumerate() {
                let now = at(count as u64 * step_ms);
                match answered {
                    true => latencies.on_answer(NodeId(node), ms(took_ms), now),
                    false => latencies.on_silence(NodeId(node), ms(took_ms), now),
                }
                let mut replicas = [NodeId(3), NodeId(1), NodeId(2)];
                latencies.sort(&mut replicas, |node| *node, now);
                replicas.sort_unstable();
                prop_assert_eq!(replicas, [NodeId(1), NodeId(2), NodeId(3)]);
                let slow = replicas.iter().filter(|node| latencies.is_slow(**node, now)).count();
                prop_assert!(slow < 3);
            }
        }
    }
}
