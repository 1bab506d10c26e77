//! Operations in flight, found by the number that their messages carry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::node::coordinator::NUMBERS;

/// Lock stripes: enough that two cores seldom meet on one.
const STRIPES: usize = 16;

/// A table of operations; each is reached by one caller at a time.
pub(crate) struct Pending<T> {
    stripes: Vec<Mutex<HashMap<u64, T>>>,
    next: AtomicU64,
    count: AtomicUsize,
}

impl<T> Pending<T> {
    /// An empty table whose numbers count up from a random one: a reply to what this node asked
    /// in an earlier life must not be taken for one to what it asks now.
    pub(crate) fn new(random: u64) -> Self {
        Pending {
            stripes: (0..STRIPES).map(|_| Mutex::new(HashMap::new())).collect(),
            next: AtomicU64::new(first_number(random)),
            count: AtomicUsize::new(0),
        }
    }

    /// Adds an operation and returns its number.
    pub(crate) fn insert(&self, operation: T) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.stripe(number).lock().insert(number, operation);
        number
    }

    /// Lets `step` change an operation; it is removed when `step` says that it is done.
    /// `None` when there is no such operation (any more).
    pub(crate) fn step<R>(&self, number: u64, step: impl FnOnce(&mut T) -> (R, bool)) -> Option<R> {
        let mut stripe = self.stripe(number).lock();
        let (result, done) = step(stripe.get_mut(&number)?);
        if done {
            stripe.remove(&number);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        Some(result)
    }

    /// The numbers of all operations, oldest first.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = Vec::with_capacity(self.len());
        for stripe in &self.stripes {
            numbers.extend(stripe.lock().keys());
        }
        // Sorted, so that a simulation meets the same order every time.
        numbers.sort_unstable();
        numbers
    }

    /// Operations in flight.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn stripe(&self, number: u64) -> &Mutex<HashMap<u64, T>> {
        &self.stripes[number as usize % STRIPES]
    }
}

/// Where numbers of a life begin. Half of the numbers that a request id can carry lie above it, so
/// that they never run out.
pub(crate) fn first_number(random: u64) -> u64 {
    random & (NUMBERS / 2 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_there_until_its_step_says_done() {
        let pending = Pending::new(7);
        let number = pending.insert(5);
        assert_eq!(pending.step(number, |value| (*value, false)), Some(5));
        assert_eq!(pending.step(number, |value| (*value, true)), Some(5));
        assert_eq!(pending.step(number, |value| (*value, true)), None);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn numbers_are_listed_oldest_first() {
        let pending = Pending::new(u64::MAX);
        let inserted: Vec<u64> = (0..40).map(|value| pending.insert(value)).collect();
        assert_eq!(pending.numbers(), inserted);
    }

    #[test]
    fn lives_do_not_share_numbers_and_none_outgrows_a_request_id() {
        let first = |random| Pending::new(random).insert(());
        assert_ne!(first(1), first(2));
        assert!(first(u64::MAX) < NUMBERS / 2);
    }
}
