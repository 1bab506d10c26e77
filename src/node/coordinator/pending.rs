//! Operations in flight, found by the number that their messages carry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Lock stripes: enough that two cores seldom meet on one.
const STRIPES: usize = 16;

/// A table of operations; each is reached by one caller at a time.
pub(crate) struct Pending<T> {
    stripes: Vec<Mutex<HashMap<u64, T>>>,
    next: AtomicU64,
    count: AtomicUsize,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> Self {
        Pending {
            stripes: (0..STRIPES).map(|_| Mutex::new(HashMap::new())).collect(),
            next: AtomicU64::new(1),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_there_until_its_step_says_done() {
        let pending = Pending::new();
        let number = pending.insert(5);
        assert_eq!(pending.step(number, |value| (*value, false)), Some(5));
        assert_eq!(pending.step(number, |value| (*value, true)), Some(5));
        assert_eq!(pending.step(number, |value| (*value, true)), None);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn numbers_are_listed_oldest_first() {
        let pending = Pending::new();
        let inserted: Vec<u64> = (0..40).map(|value| pending.insert(value)).collect();
        assert_eq!(pending.numbers(), inserted);
    }
}
