//! The Raft groups in a node's status, metrics and warnings.

use crate::node::groups::census::{Census, LEADERLESS_WARNED};
use crate::node::service::{Attached, Node};
use crate::node::status::{Activity, RaftStatus};
use crate::types::GroupId;

/// Groups that a warning names; of more it tells the number.
const NAMED_MAX: usize = 8;

/// The groups in numbers.
pub(super) fn status(node: &Node, attached: Option<&Attached>) -> RaftStatus {
    let Some(attached) = attached else { return RaftStatus::default() };
    let gateway = &attached.groups.gateway;
    let census = gateway.census();
    RaftStatus {
        groups: census.groups,
        led: census.led,
        leaderless: census.leaderless,
        waiting: census.waiting,
        installing: census.installing,
        system_leader: gateway.leader(GroupId::SYSTEM),
        snapshots_sent: node.metrics().group_snapshots_sent.get(),
        snapshots_installed: node.metrics().group_snapshots_installed.get(),
    }
}

/// Sets the gauges of groups.
pub(super) fn read_gauges(node: &Node, attached: &Attached) {
    let (metrics, census) = (node.metrics(), attached.groups.gateway.census());
    metrics.groups.set(census.groups);
    metrics.groups_led.set(census.led);
    metrics.groups_leaderless.set(census.leaderless);
    metrics.group_requests_waiting.set(census.waiting);
    metrics.watches_waiting.set(census.watches_waiting);
    metrics.watch_history_events.set(census.history_events);
    metrics.watch_history_bytes.set(census.history_bytes);
}

/// What the groups do in the background.
pub(super) fn activity(status: &RaftStatus) -> Activity {
    let state = if status.leaderless > 0 {
        "waiting"
    } else if status.waiting > 0 || status.installing > 0 {
        "busy"
    } else {
        "idle"
    };
    let detail = format!(
        "{} groups, {} led here, {} without a leader, {} requests waiting, {} snapshots sent, {} \
         installed",
        status.groups,
        status.led,
        status.leaderless,
        status.waiting,
        status.snapshots_sent,
        status.snapshots_installed
    );
    Activity { name: "raft groups", state, detail }
}

/// What the node does for those who watch.
pub(super) fn watch_activity(node: &Node, attached: &Attached) -> Activity {
    let (metrics, census) = (node.metrics(), attached.groups.gateway.census());
    let open = metrics.watches_open.get();
    let state = if open > 0 || census.watches_waiting > 0 { "busy" } else { "idle" };
    let detail = format!(
        "{open} open, {} waiting for groups here, {} changes told, {} lost, {} changes of {} bytes \
         kept",
        census.watches_waiting,
        metrics.watch_events.get(),
        metrics.watches_lost.get(),
        census.history_events,
        census.history_bytes
    );
    Activity { name: "watches", state, detail }
}

/// What an operator should know of groups without a leader.
pub(super) fn warnings(census: &Census) -> impl Iterator<Item = String> {
    let (system, others): (Vec<GroupId>, Vec<GroupId>) =
        census.leaderless_long.iter().partition(|group| **group == GroupId::SYSTEM);
    let long = LEADERLESS_WARNED.as_secs();
    let system = system.first().map(|_| {
        format!(
            "the system group has had no leader for {long} s: members and keyspaces cannot change; \
             start or reach a majority of its voters"
        )
    });
    let others = (!others.is_empty()).then(|| {
        format!(
            "{} groups have had no leader for {long} s, so that their keys in strong keyspaces \
             cannot be served: {}",
            others.len(),
            named(&others)
        )
    });
    system.into_iter().chain(others)
}

fn named(groups: &[GroupId]) -> String {
    let first: Vec<String> = groups.iter().take(NAMED_MAX).map(GroupId::to_string).collect();
    let more = groups.len() - first.len();
    let first = first.join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_without_a_leader_are_warned_of_by_number() {
        let leaderless = |groups: Vec<GroupId>| {
            warnings(&Census { leaderless_long: groups, ..Census::default() }).collect::<Vec<_>>()
        };
        assert!(leaderless(Vec::new()).is_empty());
        let all = leaderless((0..10).map(GroupId).chain([GroupId::SYSTEM]).collect());
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all[0].starts_with("the system group has had no leader for 10 s"), "{all:?}");
        assert!(all[1].starts_with("10 groups have had no leader for 10 s"), "{all:?}");
        assert!(all[1].ends_with(": 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"), "{all:?}");
    }

    #[test]
    fn the_activity_says_what_holds_it_up() {
        let state = |status: RaftStatus| activity(&status).state;
        let all_well = RaftStatus { groups: 5, led: 2, ..RaftStatus::default() };
        assert_eq!(state(all_well.clone()), "idle");
        assert_eq!(state(RaftStatus { waiting: 1, ..all_well.clone() }), "busy");
        assert_eq!(state(RaftStatus { installing: 1, ..all_well.clone() }), "busy");
        assert_eq!(state(RaftStatus { leaderless: 1, waiting: 1, ..all_well }), "waiting");
    }
}
