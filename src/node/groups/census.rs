//! A node's groups in numbers: counted with the housekeeping, read by status and metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::groups::driver::{Driver, ticks};
use crate::types::GroupId;

/// How long a group may be without a leader before an operator hears of it. An election takes 1 to
/// 2 seconds of silence and some more for each round that nobody wins.
pub(crate) const LEADERLESS_WARNED: Duration = Duration::from_secs(10);

/// How the groups of this node are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Replicas that the node has, that of the system group included.
    pub(crate) groups: u64,
    /// Groups that it leads.
    pub(crate) led: u64,
    /// Groups of which it knows no leader.
    pub(crate) leaderless: u64,
    /// Those of which it has known none for [`LEADERLESS_WARNED`].
    pub(crate) leaderless_long: Vec<GroupId>,
    /// Replicas that take in a snapshot.
    pub(crate) installing: u64,
    /// Requests that wait for a group here.
    pub(crate) waiting: u64,
    /// Watches that wait for a group here, each counted once for every group.
    pub(crate) watches_waiting: u64,
    /// Changes of keys that are kept for those who watch.
    pub(crate) history_events: u64,
    /// Bytes of them.
    pub(crate) history_bytes: u64,
}

/// Since which tick groups have had no leader.
#[derive(Debug, Default)]
pub(super) struct Leaderless(BTreeMap<GroupId, u64>);

impl Leaderless {
    /// Takes note of all groups that have no leader now; returns those that have had none for long.
    fn update(&mut self, now: u64, without: impl Iterator<Item = GroupId>) -> Vec<GroupId> {
        let since = |group: GroupId| (group, self.0.get(&group).copied().unwrap_or(now));
        self.0 = without.map(since).collect();
        let long = ticks(LEADERLESS_WARNED);
        let is_long = |(_, since): &(&GroupId, &u64)| now.saturating_sub(**since) >= long;
        self.0.iter().filter(is_long).map(|(group, _)| *group).collect()
    }
}

impl Driver {
    /// Counts the groups and shows the numbers.
    pub(super) fn take_census(&mut self) {
        let mut census = Census::default();
        let mut without = Vec::new();
        for group in self.host.groups() {
            census.groups += 1;
            census.led += u64::from(group.raft.is_leader());
            census.installing += u64::from(group.is_installing());
            census.waiting += group.waiting_len() as u64;
            if group.raft.leader().is_none() {
                without.push(group.id);
            }
        }
        census.leaderless = without.len() as u64;
        census.leaderless_long = self.leaderless.update(self.host.now(), without.into_iter());
        let watches = &self.host.watches;
        census.watches_waiting = watches.waiting() as u64;
        census.history_events = watches.history().events() as u64;
        census.history_bytes = watches.history().bytes() as u64;
        self.gateway.publish_census(census);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_from_when_it_lost_its_leader() {
        let (one, two) = (GroupId(1), GroupId(2));
        let long = ticks(LEADERLESS_WARNED);
        let mut leaderless = Leaderless::default();
        assert!(leaderless.update(100, [one].into_iter()).is_empty());
        assert!(leaderless.update(100 + long - 1, [one, two].into_iter()).is_empty());
        assert_eq!(leaderless.update(100 + long, [one, two].into_iter()), vec![one]);
        // It found a leader and lost it again: the time begins anew.
        assert!(leaderless.update(101 + long, [two].into_iter()).is_empty());
        assert_eq!(leaderless.update(100 + 2 * long, [one, two].into_iter()), vec![two]);
    }
}
