//! When all rows of a partition are looked at, whether or not a write says that they changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::node::env::Env;
use crate::node::pages::Place;
use crate::protocol::message::tree::Question;
use crate::storage::store::Pass;
use crate::types::Moment;

/// When each partition was last looked at as a whole. An exchange that begins is the occasion: what
/// is found to be damaged is copied back by it.
pub(crate) struct Scrubs {
    env: Arc<dyn Env>,
    /// Zero for never.
    interval: Duration,
    last: Mutex<BTreeMap<Place, Moment>>,
}

impl Scrubs {
    pub(crate) fn new(env: Arc<dyn Env>, interval: Duration) -> Scrubs {
        Scrubs { env, interval, last: Mutex::default() }
    }

    /// How much is looked at to answer a question. A partition that was never looked at counts as
    /// looked at just now: its tree is made of all rows anyway.
    pub(super) fn pass(&self, place: Place, question: &Question) -> Pass {
        if self.interval.is_zero() || *question != Question::Root {
            return Pass::Stale;
        }
        let now = self.env.now();
        let mut last = self.last.lock();
        let last = last.entry(place).or_insert(now);
        if now.since(*last) < self.interval {
            return Pass::Stale;
        }
        *last = now;
        Pass::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::env::Machine;
    use crate::types::{KeyspaceId, PartitionId};

    const PLACE: Place = (KeyspaceId::DEFAULT, PartitionId(1));

    fn scrubs(interval: Duration) -> Scrubs {
        Scrubs::new(Arc::new(Machine::new()), interval)
    }

    #[test]
    fn only_the_first_question_of_an_exchange_is_an_occasion() {
        let scrubs = scrubs(Duration::from_nanos(1));
        assert_eq!(scrubs.pass(PLACE, &Question::Root), Pass::Stale, "its tree is new");
        scrubs.last.lock().insert(PLACE, Moment(0));
        let long_ago = scrubs.env.now().since(Moment(0)) >= scrubs.interval;
        assert_eq!(scrubs.pass(PLACE, &Question::Branches), Pass::Stale);
        assert_eq!(scrubs.pass(PLACE, &Question::Root) == Pass::All, long_ago);
    }

    #[test]
    fn without_an_interval_there_are_none() {
        let scrubs = scrubs(Duration::ZERO);
        for _ in 0..2 {
            assert_eq!(scrubs.pass(PLACE, &Question::Root), Pass::Stale);
        }
    }
}
