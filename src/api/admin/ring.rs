//! Changes of the ring on the wire.

use crate::api::convert;
use crate::node::request::RequestError;
use crate::node::steering;
use crate::node::steering::RingChange;
use crate::proto::v1;
use crate::types::Epoch;

/// A change that may be empty: to plan nothing shows what is under way.
pub(super) fn change(change: v1::RingChange) -> RingChange {
    RingChange {
        join: change.join,
        leave: change.leave,
        replace: change.replace.into_iter().map(|it| (it.old, it.new)).collect(),
        remove: change.remove,
        force: change.force,
        expected_epoch: change.expected_epoch.map(Epoch),
    }
}

/// A change that is to be made.
pub(super) fn asked(asked: v1::RingChange) -> Result<RingChange, RequestError> {
    let v1::RingChange { join, leave, replace, remove, .. } = &asked;
    if join.is_empty() && leave.is_empty() && replace.is_empty() && remove.is_empty() {
        let right = "is empty, as are leave, replace and remove; name a member, or give its id";
        return Err(convert::invalid("join", right));
    }
    Ok(change(asked))
}

impl From<steering::PlanView> for v1::RingPlan {
    fn from(plan: steering::PlanView) -> Self {
        let share = |share: steering::ShareView| v1::RingShare {
            node_id: share.node_id.to_string(),
            name: share.name,
            gains: share.gains as u32,
            loses: share.loses as u32,
        };
        v1::RingPlan {
            epoch: plan.epoch.0,
            partitions: plan.partitions as u32,
            copies: plan.copies as u32,
            bytes_estimated: plan.bytes_estimated,
            groups: plan.groups as u32,
            shares: plan.shares.into_iter().map(share).collect(),
            moves: plan.moves.into_iter().map(Into::into).collect(),
            at_risk: plan.at_risk,
        }
    }
}

impl From<steering::MoveView> for v1::PartitionMove {
    fn from(it: steering::MoveView) -> Self {
        v1::PartitionMove {
            partition: u32::from(it.partition.0),
            to: convert::ids(&it.to),
            from: convert::ids(&it.from),
            step: it.step.to_owned(),
            waiting: convert::ids(&it.waiting),
        }
    }
}

impl From<steering::TransfersView> for v1::TransfersResponse {
    fn from(view: steering::TransfersView) -> Self {
        let standing = |member: steering::StandingView| v1::MemberStanding {
            node_id: member.node_id.to_string(),
            name: member.name,
            standing: member.standing.to_owned(),
            holds: member.holds,
        };
        v1::TransfersResponse {
            epoch: view.epoch.0,
            settled: view.settled,
            partitions: view.partitions,
            unmoved: view.unmoved as u32,
            moves: view.moves.into_iter().map(Into::into).collect(),
            groups: view.groups as u32,
            members: view.members.into_iter().map(standing).collect(),
            bytes_taken_over: view.bytes_taken_over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_without_nodes_is_no_change() {
        let error = asked(v1::RingChange::default()).unwrap_err();
        assert!(error.to_string().contains("join"), "{error}");
        let some = v1::RingChange { remove: vec!["n".to_owned()], ..Default::default() };
        assert_eq!(asked(some).unwrap().remove, ["n"]);
    }
}
