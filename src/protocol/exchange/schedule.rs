//! Which partition is compared with whom next.
//!
//! Every pair of a partition and another replica of it is compared once an interval: by one of the
//! two, or both would go through the same rows for the same answer. First come
//! those that somebody asked for, or of which a hint was lost. What could not be compared is tried
//! again soon, and holds nobody up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::types::{KeyspaceId, Moment, NodeId, PartitionId};

/// After how long a pair that could not be compared is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A partition, and another replica of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The partition.
    pub partition: PartitionId,
    /// The other replica.
    pub peer: NodeId,
}

/// When a pair is to be compared, and whether before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    urgent: bool,
    at: Moment,
}

/// When pairs are to be compared.
#[derive(Debug)]
pub struct Schedule {
    /// `None` when pairs are compared on demand only.
    interval: Option<Duration>,
    own: NodeId,
    pairs: BTreeMap<Pair, Due>,
    urgent: BTreeSet<(Moment, Pair)>,
    regular: BTreeSet<(Moment, Pair)>,
}

impl Schedule {
    /// Nothing is to be compared yet; later each pair whose peer has a higher id than `own` once
    /// an `interval`, if there is one.
    pub fn new(own: NodeId, interval: Option<Duration>) -> Schedule {
        let (pairs, urgent, regular) = Default::default();
        Schedule { interval, own, pairs, urgent, regular }
    }

    /// These are the pairs that there are. New ones come one after another in the course of an
    /// interval, so that a node that starts does not compare everything at once.
    pub fn set_pairs(&mut self, pairs: &BTreeSet<Pair>, now: Moment) {
        let gone: Vec<Pair> =
            self.pairs.keys().filter(|pair| !pairs.contains(pair)).copied().collect();
        gone.into_iter().for_each(|pair| self.remove(pair));
        let fresh: Vec<Pair> =
            pairs.iter().filter(|pair| !self.pairs.contains_key(pair)).copied().collect();
        let count = fresh.len() as u128;
        for (number, pair) in fresh.into_iter().enumerate() {
            let share = |interval: Duration| {
                let nanos = interval.as_nanos() * (number as u128 + 1) / count;
                now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            };
            let at = self.turns(pair).map_or(NEVER, share);
            self.insert(pair, Due { urgent: false, at });
        }
    }

    /// Pairs that `wanted` says come first, now; returns them.
    pub fn hurry(&mut self, wanted: impl Fn(&Pair) -> bool, now: Moment) -> Vec<Pair> {
        let chosen: Vec<Pair> = self.pairs.keys().filter(|pair| wanted(pair)).copied().collect();
        for pair in &chosen {
            self.insert(*pair, Due { urgent: true, at: now });
        }
        chosen
    }

    /// The pairs to be compared now, at most `most`: the urgent ones first.
    pub fn due(&self, most: usize, now: Moment) -> Vec<Pair> {
        let is_due = |(at, _): &&(Moment, Pair)| *at <= now;
        let urgent = self.urgent.iter().take_while(is_due);
        urgent
            .chain(self.regular.iter().take_while(is_due))
            .map(|(_, pair)| *pair)
            .take(most)
            .collect()
    }

    /// When the next pair is due.
    pub fn next_deadline(&self) -> Option<Moment> {
        let firsts = [self.urgent.first(), self.regular.first()].into_iter().flatten();
        firsts.map(|(at, _)| *at).min().filter(|at| *at < NEVER)
    }

    /// A pair was compared; it comes again an interval later.
    pub fn on_compared(&mut self, pair: Pair, now: Moment) {
        let at = self.turns(pair).map_or(NEVER, |interval| now + interval);
        self.reinsert(pair, Due { urgent: false, at });
    }

    /// A pair could not be compared.
    pub fn on_failed(&mut self, pair: Pair, now: Moment) {
        let Some(due) = self.pairs.get(&pair).copied() else { return };
        let retry = self.interval.map_or(RETRY, |interval| interval.min(RETRY));
        self.reinsert(pair, Due { at: now + retry, ..due });
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// How many pairs come before their turn.
    pub fn urgent(&self) -> usize {
        self.urgent.len()
    }

    /// How often a pair has its turn here.
    fn turns(&self, pair: Pair) -> Option<Duration> {
        self.interval.filter(|_| self.own < pair.peer)
    }

    /// A pair that is gone stays gone.
    fn reinsert(&mut self, pair: Pair, due: Due) {
        if self.pairs.contains_key(&pair) {
            self.insert(pair, due);
        }
    }

    fn insert(&mut self, pair: Pair, due: Due) {
        self.remove(pair);
        self.pairs.insert(pair, due);
        self.queue(due.urgent).insert((due.at, pair));
    }

    fn remove(&mut self, pair: Pair) {
        if let Some(due) = self.pairs.remove(&pair) {
            self.queue(due.urgent).remove(&(due.at, pair));
        }
    }

    fn queue(&mut self, urgent: bool) -> &mut BTreeSet<(Moment, Pair)> {
        if urgent { &mut self.urgent } else { &mut self.regular }
    }
}

const NEVER: Moment = Moment(u64::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn pair(partition: u16) -> Pair {
        let keyspace = KeyspaceId::DEFAULT;
        Pair { keyspace, partition: PartitionId(partition), peer: NodeId(5) }
    }

    fn seconds(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000)
    }

    fn next(schedule: &Schedule, now: Moment) -> Option<Pair> {
        schedule.due(1, now).first().copied()
    }

    fn schedule(pairs: u16, interval: Option<Duration>) -> Schedule {
        let mut schedule = Schedule::new(NodeId(4), interval);
        schedule.set_pairs(&(0..pairs).map(pair).collect(), seconds(0));
        schedule
    }

    #[test]
    fn new_pairs_are_spread_over_an_interval_and_come_again() {
        let mut schedule = schedule(3, Some(INTERVAL));
        let mut order = Vec::new();
        for _ in 0..6 {
            let at = schedule.next_deadline().expect("something is due some day");
            let due = next(&schedule, at).expect("it is due");
            order.push((at.0 / 1_000_000, due.partition.0));
            schedule.on_compared(due, at);
        }
        assert_eq!(order, [(20, 0), (40, 1), (60, 2), (80, 0), (100, 1), (120, 2)]);
    }

    #[test]
    fn those_that_are_due_come_together_the_urgent_ones_first() {
        let mut schedule = schedule(4, Some(INTERVAL));
        schedule.hurry(|it| it.partition.0 == 3, seconds(30));
        assert_eq!(schedule.due(9, seconds(30)), [pair(3), pair(0), pair(1)]);
        assert_eq!(schedule.due(2, seconds(30)), [pair(3), pair(0)]);
    }

    #[test]
    fn what_is_urgent_comes_first_and_only_once() {
        let mut schedule = schedule(3, Some(INTERVAL));
        assert_eq!(schedule.hurry(|it| it.partition.0 == 2, seconds(20)), [pair(2)]);
        assert_eq!((next(&schedule, seconds(20)), schedule.urgent()), (Some(pair(2)), 1));
        schedule.on_compared(pair(2), seconds(20));
        assert_eq!((next(&schedule, seconds(20)), schedule.urgent()), (Some(pair(0)), 0));
    }

    #[test]
    fn what_fails_stays_urgent_and_holds_nobody_up() {
        let mut schedule = schedule(3, Some(INTERVAL));
        schedule.hurry(|it| it.partition.0 == 2, seconds(20));
        schedule.on_failed(pair(2), seconds(20));
        assert_eq!(next(&schedule, seconds(20)), Some(pair(0)));
        assert_eq!(next(&schedule, seconds(25)), Some(pair(2)));
    }

    #[test]
    fn without_an_interval_only_what_is_asked_for_is_due() {
        let mut schedule = schedule(2, None);
        assert_eq!((next(&schedule, seconds(1_000_000)), schedule.next_deadline()), (None, None));
        schedule.hurry(|_| true, seconds(1));
        assert_eq!(schedule.next_deadline(), Some(seconds(1)));
        schedule.on_compared(pair(0), seconds(1));
        schedule.on_compared(pair(1), seconds(1));
        assert_eq!(schedule.next_deadline(), None);
    }

    #[test]
    fn the_other_side_begins_unless_it_is_urgent() {
        let mut schedule = Schedule::new(NodeId(6), Some(INTERVAL));
        schedule.set_pairs(&BTreeSet::from([pair(1)]), seconds(0));
        assert_eq!(schedule.next_deadline(), None);
        schedule.hurry(|_| true, seconds(1));
        assert_eq!(next(&schedule, seconds(1)), Some(pair(1)));
        schedule.on_compared(pair(1), seconds(1));
        assert_eq!(schedule.next_deadline(), None);
    }

    #[test]
    fn pairs_that_are_gone_do_not_come_back() {
        let mut schedule = schedule(2, Some(INTERVAL));
        schedule.set_pairs(&BTreeSet::from([pair(1)]), seconds(1));
        schedule.on_failed(pair(0), seconds(2));
        schedule.on_compared(pair(0), seconds(2));
        assert_eq!((schedule.len(), schedule.is_empty()), (1, false));
        assert_eq!(schedule.next_deadline(), Some(seconds(60)), "and the others keep their turn");
    }
}
