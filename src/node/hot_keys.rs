//! Counts which keys this node's clients ask for, by a sample of their requests.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::node::service::Node;
use crate::node::status::HotKey;
use crate::protocol::hot_keys::{HotKeys, WINDOW};
use crate::protocol::system::keyspace::DEFAULT_NAME;
use crate::types::{Key, KeyspaceId, Moment};

/// One request in so many is counted: counting one takes as long as comparing some 64 keys, and
/// spread over these it is far below a hundredth of what a request takes.
const SAMPLE_ONE_IN: u64 = 64;

/// Keys that status shows.
const SHOWN_MAX: usize = 10;

/// Samples the keys of requests.
pub(crate) struct KeySampler {
    requests: AtomicU64,
    keys: Mutex<HotKeys>,
}

impl KeySampler {
    pub(crate) fn new(now: Moment) -> KeySampler {
        KeySampler { requests: AtomicU64::new(0), keys: Mutex::new(HotKeys::new(now)) }
    }

    /// Takes a request into account, if the sample has it in; `now` is asked only then.
    pub(crate) fn note(&self, keyspace: KeyspaceId, key: &Key, now: impl FnOnce() -> Moment) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        if !is_sampled(number) {
            return;
        }
        // Whoever finds it taken goes on: a sample more or less says nothing.
        if let Some(mut keys) = self.keys.try_lock() {
            keys.note(keyspace, key, now());
        }
    }

    /// The hottest keys of the last window, with the requests for each in a second.
    fn report(&self, now: Moment) -> Vec<(KeyspaceId, Key, u64, f64)> {
        let (hot, seen) = self.keys.lock().report(now);
        let told = hot.into_iter().take(SHOWN_MAX).map(|counted| {
            let share = counted.count as f64 / seen.max(1) as f64;
            (counted.keyspace, counted.key, per_second(counted.count), share)
        });
        told.collect()
    }

    /// Requests in a second for the hottest key.
    pub(crate) fn hottest_per_second(&self, now: Moment) -> u64 {
        self.report(now).first().map_or(0, |(_, _, per_second, _)| *per_second)
    }
}

/// Spreads the samples over the requests, so that clients with a rhythm do not fall in with it; the
/// same requests are always sampled alike (SplitMix64's finalizer).
fn is_sampled(number: u64) -> bool {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).is_multiple_of(SAMPLE_ONE_IN)
}

fn per_second(samples: u64) -> u64 {
    const WINDOW_S: u64 = WINDOW.as_secs();
    samples.saturating_mul(SAMPLE_ONE_IN).div_ceil(WINDOW_S)
}

/// The hottest keys, for status.
pub(crate) fn hot_keys(node: &Node) -> Vec<HotKey> {
    let state = node.system();
    let name_of = |id: KeyspaceId| match &state {
        _ if id == KeyspaceId::DEFAULT => Some(DEFAULT_NAME.to_owned()),
        state => Some(state.as_ref()?.keyspace(id)?.name.clone()),
    };
    let report = node.local.hot_keys.report(node.local.env.now());
    let shown = report.into_iter().filter_map(|(keyspace, key, requests_per_second, share)| {
        let share_percent = (share * 100.0).round() as u32;
        let (keyspace, key) = (name_of(keyspace)?, key.to_string());
        Some(HotKey { keyspace, key, requests_per_second, share_percent })
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1);

    #[test]
    fn one_request_in_so_many_is_sampled() {
        let sampled = (0..640_000).filter(|number| is_sampled(*number)).count();
        assert!((9_500..10_500).contains(&sampled), "{sampled}");
        let in_step = (0..10_000).filter(|step| is_sampled(step * SAMPLE_ONE_IN)).count();
        assert!((100..220).contains(&in_step), "a rhythm of 64 is sampled alike: {in_step}");
    }

    #[test]
    fn rates_are_those_of_all_requests() {
        let sampler = KeySampler::new(NOW);
        let (hot, cold) = (Key::from("hot"), Key::from("cold"));
        for number in 0..100_000 {
            let key = if number % 4 == 0 { &cold } else { &hot };
            sampler.note(KeyspaceId::DEFAULT, key, || NOW);
        }
        let report = sampler.report(NOW + WINDOW);
        let (_, key, per_second, share) = &report[0];
        assert_eq!(*key, hot);
        assert!((6_500..8_500).contains(per_second), "{per_second}");
        assert!((0.7..0.8).contains(share), "{share}");
        assert_eq!(sampler.hottest_per_second(NOW + WINDOW), *per_second);
        assert_eq!(sampler.hottest_per_second(NOW + WINDOW * 3), 0);
    }
}
