//! Groups that were handed to this node because somebody ordered it: the balance of leaders leaves
//! them here for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::node::groups::driver::{Driver, ticks};
use crate::protocol::message::GroupMessage;
use crate::protocol::raft::message::Body;
use crate::protocol::system::placement::Placement;
use crate::types::{GroupId, NodeId};

/// How long such a group stays: long enough to look after the node that led it before.
const HELD: Duration = Duration::from_secs(300);

/// Which groups are left where they are, and until which tick.
#[derive(Debug, Default)]
pub(super) struct HandedOver(BTreeMap<GroupId, u64>);

impl HandedOver {
    /// Whether the balance of leaders leaves the group alone.
    pub(super) fn holds(&self, group: GroupId, now: u64) -> bool {
        self.0.get(&group).is_some_and(|until| now < *until)
    }

    fn hold(&mut self, group: GroupId, now: u64) {
        self.0.retain(|_, until| now < *until);
        self.0.insert(group, now.saturating_add(ticks(HELD)));
    }
}

impl Driver {
    /// Notes that a leader hands its group to this node because somebody ordered it.
    pub(super) fn note_handed_over(&mut self, message: &GroupMessage) {
        if message.message.body == (Body::TimeoutNow { ordered: true }) {
            self.handed_over.hold(message.group, self.host.now());
        }
    }
}

/// The nodes that should lead a group, the most preferred first: groups prefer their replicas in
/// turn, so that leaders spread.
pub(super) fn in_turn(group: GroupId, placement: &Placement) -> impl Iterator<Item = NodeId> {
    let mut nodes: Vec<NodeId> = placement.nodes().into_iter().collect();
    let first = usize::from(group.0) % nodes.len().max(1);
    nodes.rotate_left(first);
    nodes.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_held_for_a_while_and_others_are_not() {
        let mut handed_over = HandedOver::default();
        handed_over.hold(GroupId(1), 10);
        assert!(handed_over.holds(GroupId(1), 10) && !handed_over.holds(GroupId(2), 10));
        let last = 10 + ticks(HELD) - 1;
        assert!(handed_over.holds(GroupId(1), last) && !handed_over.holds(GroupId(1), last + 1));
    }

    #[test]
    fn what_has_run_out_is_forgotten() {
        let mut handed_over = HandedOver::default();
        handed_over.hold(GroupId(1), 10);
        handed_over.hold(GroupId(2), 10 + ticks(HELD));
        assert_eq!(handed_over.0.keys().copied().collect::<Vec<_>>(), [GroupId(2)]);
    }
}
