//! How long each replica takes to answer: who is asked first, and when a read stops waiting.
//!
//! The estimate is the one that TCP uses for its retransmission time-out (RFC 6298): a smoothed
//! mean and mean deviation. Replicas are compared by powers of two of their mean, so that noise
//! does not reorder them, and an estimate is forgotten after a while, so that a replica that
//! was slow once is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::types::{Moment, NodeId};

/// An estimate older than this says nothing any more.
const ESTIMATE_AGE_MAX: Duration = Duration::from_secs(5);

/// Bounds of the hedge delay: below, hedging would only add load on a busy machine; above, it would
/// come too late to help within the default request timeout.
const HEDGE_MIN: Duration = Duration::from_millis(10);
const HEDGE_MAX: Duration = Duration::from_millis(500);

/// The hedge delay while nothing has been measured.
const HEDGE_UNMEASURED: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
struct Estimate {
    mean_us: u64,
    deviation_us: u64,
    taken: Moment,
}

/// Estimates of all replicas.
pub(crate) struct Latencies(Mutex<BTreeMap<NodeId, Estimate>>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Latencies(Mutex::new(BTreeMap::new()))
    }

    /// Takes one measured answer into account.
    pub(crate) fn record(&self, node: NodeId, took: Duration, now: Moment) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let fresh = Estimate { mean_us: took_us, deviation_us: took_us / 2, taken: now };
        let mut estimates = self.0.lock();
        let estimate = estimates.entry(node).or_insert(fresh);
        *estimate = if now.since(estimate.taken) > ESTIMATE_AGE_MAX {
            fresh
        } else {
            let error_us = estimate.mean_us.abs_diff(took_us);
            Estimate {
                mean_us: (estimate.mean_us * 7 + took_us) / 8,
                deviation_us: (estimate.deviation_us * 3 + error_us) / 4,
                taken: now,
            }
        };
    }

    /// Sorts replicas, fastest first; equals keep their order.
    pub(crate) fn sort<T>(&self, replicas: &mut [T], node: impl Fn(&T) -> NodeId, now: Moment) {
        let estimates = self.0.lock();
        replicas.sort_by_key(|replica| fresh(&estimates, node(replica), now).map_or(0, rank));
    }

    /// How long to wait for these replicas before another is asked: what the fastest of them would
    /// hardly ever exceed.
    pub(crate) fn hedge_after(
        &self,
        replicas: impl Iterator<Item = NodeId>,
        now: Moment,
    ) -> Duration {
        let estimates = self.0.lock();
        let fastest = replicas
            .filter_map(|node| fresh(&estimates, node, now))
            .map(|estimate| estimate.mean_us.saturating_add(estimate.deviation_us * 4))
            .min();
        fastest.map_or(HEDGE_UNMEASURED, Duration::from_micros).clamp(HEDGE_MIN, HEDGE_MAX)
    }
}

fn fresh(estimates: &BTreeMap<NodeId, Estimate>, node: NodeId, now: Moment) -> Option<Estimate> {
    estimates.get(&node).copied().filter(|e| now.since(e.taken) <= ESTIMATE_AGE_MAX)
}

/// Powers of two above 4 ms: replicas faster than that are all alike.
fn rank(estimate: Estimate) -> u32 {
    const ALIKE_BELOW_US: u64 = 4_096;
    (estimate.mean_us / ALIKE_BELOW_US + 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: NodeId = NodeId(2);
    const SLOW: NodeId = NodeId(1);

    fn measured() -> Latencies {
        let latencies = Latencies::new();
        for _ in 0..20 {
            latencies.record(FAST, Duration::from_millis(2), Moment(0));
            latencies.record(SLOW, Duration::from_millis(80), Moment(0));
        }
        latencies
    }

    #[test]
    fn the_slow_replica_is_asked_last_until_its_estimate_has_aged() {
        let latencies = measured();
        let mut replicas = [SLOW, FAST];
        latencies.sort(&mut replicas, |node| *node, Moment(1));
        assert_eq!(replicas, [FAST, SLOW]);
        let mut later = [SLOW, FAST];
        latencies.sort(&mut later, |node| *node, Moment(0) + Duration::from_secs(6));
        assert_eq!(later, [SLOW, FAST]);
    }

    #[test]
    fn the_hedge_follows_the_fastest_within_its_bounds() {
        let latencies = measured();
        let both = [SLOW, FAST].into_iter();
        assert_eq!(latencies.hedge_after(both, Moment(1)), HEDGE_MIN);
        let slow = latencies.hedge_after([SLOW].into_iter(), Moment(1));
        assert!(slow >= Duration::from_millis(80) && slow <= HEDGE_MAX, "{slow:?}");
        let unknown = latencies.hedge_after([NodeId(9)].into_iter(), Moment(1));
        assert_eq!(unknown, HEDGE_UNMEASURED);
    }
}
