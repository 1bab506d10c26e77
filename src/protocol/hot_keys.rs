//! Which keys take the most requests: heavy hitters in little memory, by the Space-Saving algorithm
//! (Metwally, Agrawal and El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data
//! Streams", 2005).
//!
//! A sketch follows a fixed number of keys. A key that it does not follow takes the place of the
//! one with the least count, and takes over that count as its possible error: so counts are never
//! too low, are too high by at most their error, and whoever has more than one part in `capacity`
//! of all is among those that are followed.
//!
//! Counts are of one window of time; what is told is the last whole one.

use std::time::Duration;

use bytes::Bytes;

use crate::types::{Key, KeyspaceId, Moment};

/// Keys that are followed at once: enough to tell any key with more than 1.6 % of all, few enough
/// to be looked through one by one.
const FOLLOWED_MAX: usize = 64;

/// What is told is so long.
pub const WINDOW: Duration = Duration::from_secs(10);

/// A key whose count is certain to be less than this may have come by chance.
const CERTAIN_MIN: u64 = 4;

/// A key, and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The key's keyspace.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Key,
    /// Not less than how often it was seen.
    pub count: u64,
    /// By how much the count may be too high.
    pub error: u64,
}

/// Counts of the keys that are seen most.
#[derive(Clone, Debug, Default)]
struct Sketch {
    followed: Vec<Counted>,
    seen: u64,
}

impl Sketch {
    fn note(&mut self, keyspace: KeyspaceId, key: &Key) {
        self.seen += 1;
        let is_it = |counted: &&mut Counted| counted.key == *key && counted.keyspace == keyspace;
        if let Some(counted) = self.followed.iter_mut().find(is_it) {
            counted.count += 1;
            return;
        }
        // A copy: the key may be a slice of a whole request.
        let key = Key(Bytes::copy_from_slice(key.as_bytes()));
        if self.followed.len() < FOLLOWED_MAX {
            self.followed.push(Counted { keyspace, key, count: 1, error: 0 });
        } else if let Some(least) = self.followed.iter_mut().min_by_key(|counted| counted.count) {
            let error = least.count;
            *least = Counted { keyspace, key, count: error + 1, error };
        }
    }
}

/// The keys that a node's requests are about, window by window.
#[derive(Clone, Debug)]
pub struct HotKeys {
    current: Sketch,
    last: Sketch,
    window_began: Moment,
}

impl HotKeys {
    /// Begins to count.
    pub fn new(now: Moment) -> HotKeys {
        HotKeys { current: Sketch::default(), last: Sketch::default(), window_began: now }
    }

    /// Counts a request for a key.
    pub fn note(&mut self, keyspace: KeyspaceId, key: &Key, now: Moment) {
        self.turn(now);
        self.current.note(keyspace, key);
    }

    /// The keys of the last whole window that were certainly seen more than by chance, most seen
    /// first, and how much was seen of all keys.
    pub fn report(&mut self, now: Moment) -> (Vec<Counted>, u64) {
        self.turn(now);
        let certain = |counted: &&Counted| counted.count - counted.error >= CERTAIN_MIN;
        let mut hot: Vec<Counted> = self.last.followed.iter().filter(certain).cloned().collect();
        hot.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.key.cmp(&other.key)));
        (hot, self.last.seen)
    }

    /// Begins a new window, if it is time to. One in which nothing came is empty.
    fn turn(&mut self, now: Moment) {
        let passed = now.since(self.window_began);
        if passed < WINDOW {
            return;
        }
        let current = std::mem::take(&mut self.current);
        self.last = if passed < WINDOW * 2 { current } else { Sketch::default() };
        self.window_began = now;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KEYSPACE: KeyspaceId = KeyspaceId(1);

    fn key(number: usize) -> Key {
        Key::from(format!("key-{number}"))
    }

    fn seconds(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000)
    }

    #[test]
    fn the_hottest_come_first_and_chance_is_left_out() {
        let mut keys = HotKeys::new(seconds(0));
        for number in 0..500 {
            keys.note(KEYSPACE, &key(number), seconds(1));
            keys.note(KEYSPACE, &Key::from("hottest"), seconds(1));
            if number % 2 == 0 {
                keys.note(KEYSPACE, &Key::from("hot"), seconds(1));
            }
        }
        assert_eq!(keys.report(seconds(9)), (vec![], 0), "the first window is not over");
        let (hot, seen) = keys.report(seconds(10));
        let named: Vec<String> = hot.iter().map(|counted| counted.key.to_string()).collect();
        assert_eq!((named, seen), (vec!["hottest".to_owned(), "hot".to_owned()], 1250));
        assert!(hot[0].count >= 500 && hot[0].count - hot[0].error <= 500);
    }

    #[test]
    fn the_same_key_of_two_keyspaces_is_two() {
        let mut keys = HotKeys::new(seconds(0));
        for count in 0..10 {
            keys.note(KeyspaceId(count % 2), &key(1), seconds(0));
        }
        assert_eq!(keys.report(seconds(10)).0.len(), 2);
    }

    #[test]
    fn what_has_cooled_down_is_forgotten() {
        let mut keys = HotKeys::new(seconds(0));
        let warm = |keys: &mut HotKeys, at| (0..9).for_each(|_| keys.note(KEYSPACE, &key(1), at));
        warm(&mut keys, seconds(1));
        assert_eq!(keys.report(seconds(12)).0.len(), 1);
        assert_eq!(keys.report(seconds(23)).0.len(), 0, "nothing came in the second window");
        warm(&mut keys, seconds(24));
        assert_eq!(keys.report(seconds(60)).0.len(), 0, "the window after it was empty");
    }

    proptest! {
        #[test]
        fn counts_are_as_exact_as_they_say(
            seen in proptest::collection::vec((0_usize..12, 0_usize..400, any::<bool>()), 0..3_000),
        ) {
            let mut sketch = Sketch::default();
            let mut exact: BTreeMap<usize, u64> = BTreeMap::new();
            for (hot, cold, is_hot) in seen {
                let number = if is_hot { hot } else { cold };
                sketch.note(KEYSPACE, &key(number));
                *exact.entry(number).or_default() += 1;
            }
            prop_assert!(sketch.followed.len() <= FOLLOWED_MAX);
            let sum: u64 = sketch.followed.iter().map(|counted| counted.count).sum();
            prop_assert_eq!(sum, sketch.seen);
            for (number, exact) in exact {
                let found = sketch.followed.iter().find(|counted| counted.key == key(number));
                if let Some(Counted { count, error, .. }) = found {
                    prop_assert!(count - error <= exact && exact <= *count);
                } else {
                    prop_assert!(exact <= sketch.seen / FOLLOWED_MAX as u64);
                }
            }
        }
    }
}
