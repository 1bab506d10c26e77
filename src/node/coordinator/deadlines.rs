//! When which operation wants to be told the time: one heap and one task for all of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::node::env::Env;
use crate::node::tasks::Stop;
use crate::types::Moment;

/// Deadlines closer together than this are served in one go. Hedges and time-outs are tens of
/// milliseconds and more; waking for each alone would cost more than it gains.
const GRANULARITY: Duration = Duration::from_millis(2);

/// Moments at which to wake, each with a tag that its owner understands.
pub(crate) struct Deadlines<T> {
    heap: Mutex<BinaryHeap<Reverse<(Moment, T)>>>,
    earlier: Notify,
}

impl<T: Copy + Ord> Deadlines<T> {
    pub(crate) fn new() -> Self {
        Deadlines { heap: Mutex::new(BinaryHeap::new()), earlier: Notify::new() }
    }

    /// Asks for `tag` to be served at `moment`.
    pub(crate) fn add(&self, moment: Moment, tag: T) {
        let mut heap = self.heap.lock();
        let is_first = heap.peek().is_none_or(|Reverse((first, _))| moment < *first);
        heap.push(Reverse((moment, tag)));
        drop(heap);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Serves tags as their moments come, until asked to stop.
    pub(crate) async fn run(&self, env: Arc<dyn Env>, mut stop: Stop, serve: impl Fn(T)) {
        loop {
            let next = self.heap.lock().peek().map(|Reverse((moment, _))| *moment);
            let wait = async {
                match next {
                    Some(moment) => env.sleep_until(moment.max(env.now() + GRANULARITY)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                () = stop.requested() => return,
                () = self.earlier.notified() => {}
                () = wait => self.serve_due(env.now(), &serve),
            }
        }
    }

    fn serve_due(&self, now: Moment, serve: &impl Fn(T)) {
        while let Some(tag) = self.pop_due(now) {
            serve(tag);
        }
    }

    fn pop_due(&self, now: Moment) -> Option<T> {
        let mut heap = self.heap.lock();
        let due = heap.peek().is_some_and(|Reverse((moment, _))| *moment <= now);
        if due { heap.pop().map(|Reverse((_, tag))| tag) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_in_the_order_of_their_moments_and_not_before() {
        let deadlines = Deadlines::new();
        deadlines.add(Moment(30), 'c');
        deadlines.add(Moment(10), 'a');
        deadlines.add(Moment(20), 'b');
        assert_eq!(deadlines.pop_due(Moment(5)), None);
        assert_eq!(deadlines.pop_due(Moment(20)), Some('a'));
        assert_eq!(deadlines.pop_due(Moment(20)), Some('b'));
        assert_eq!(deadlines.pop_due(Moment(20)), None);
    }
}
