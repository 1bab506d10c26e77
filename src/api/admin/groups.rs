//! The Raft groups of a node, and who leads them.

use crate::api::convert;
use crate::node::groups::report::GroupStatus;
use crate::node::request::RequestError;
use crate::node::service::Node;
use crate::proto::v1;
use crate::protocol::raft::Role;
use crate::types::{GroupId, NodeId, ReplicaId};

/// The groups that the node has a replica of, or that one.
///
/// # Errors
/// [`RequestError::Invalid`] for a number that no group can have.
pub(super) async fn list(
    node: &Node,
    asked: Option<u32>,
) -> Result<v1::GroupsResponse, RequestError> {
    let asked = asked.map(group_id).transpose()?;
    let is_asked = |status: &GroupStatus| asked.is_none_or(|asked| status.group == asked);
    let groups = node.groups().await.into_iter().filter(is_asked).map(Into::into).collect();
    Ok(v1::GroupsResponse { groups })
}

/// Hands leadership on.
///
/// # Errors
/// [`RequestError::Invalid`] for a group or node that cannot be; [`RequestError::Rejected`] when
/// this node does not lead the group, which says who does; [`RequestError::NoLeader`] while it is
/// being handed to another node.
pub(super) async fn transfer(
    node: &Node,
    asked: v1::TransferLeaderRequest,
) -> Result<(), RequestError> {
    let group = group_id(asked.group)?;
    if asked.node.is_empty() {
        return Err(convert::invalid("node", "is empty; name a member, or give its id"));
    }
    let to = node.member_named(&asked.node)?;
    node.transfer_leader(group, to).await
}

fn group_id(number: u32) -> Result<GroupId, RequestError> {
    let wrong = |_| {
        let right = format!("use a partition's number, or {} for the system group", u16::MAX);
        convert::invalid("group", format!("{number} is not a group; {right}"))
    };
    u16::try_from(number).map(GroupId).map_err(wrong)
}

impl From<GroupStatus> for v1::Group {
    fn from(status: GroupStatus) -> Self {
        let matched = |id: ReplicaId| {
            let progress = status.progress.iter().find(|(replica, _)| *replica == id);
            progress.map(|(_, progress)| progress.matched.0)
        };
        let replica = |&(id, node, voter): &(ReplicaId, Option<NodeId>, bool)| v1::GroupReplica {
            replica: id.0,
            node_id: text(node),
            voter,
            matched: matched(id),
        };
        v1::Group {
            group: u32::from(status.group.0),
            replica: status.replica.0,
            role: role_name(status.role).to_owned(),
            term: status.term.0,
            leader: text(status.leader),
            commit: status.commit.0,
            applied: status.applied.0,
            first_index: status.log.0.0,
            last_index: status.log.1.0,
            replicas: status.replicas.iter().map(replica).collect(),
            waiting: status.waiting as u64,
            installing: status.installing,
        }
    }
}

fn text(node: Option<NodeId>) -> String {
    node.map(|node| node.to_string()).unwrap_or_default()
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::PreCandidate => "pre-candidate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::raft::ProgressView;
    use crate::protocol::raft::progress::State;
    use crate::types::{LogIndex, Term};

    fn status() -> GroupStatus {
        let progress = ProgressView {
            matched: LogIndex(9),
            next: LogIndex(10),
            state: State::Probe { sent: false },
            appends_in_flight: 0,
            recent_tick: 0,
        };
        GroupStatus {
            group: GroupId(1),
            replica: ReplicaId(2),
            role: Role::Leader,
            term: Term(3),
            leader: Some(NodeId(0xa)),
            commit: LogIndex(4),
            applied: LogIndex(5),
            log: (LogIndex(6), LogIndex(7)),
            replicas: vec![(ReplicaId(2), Some(NodeId(0xa)), true), (ReplicaId(8), None, false)],
            replicas_decided: true,
            progress: vec![(ReplicaId(8), progress)],
            waiting: 11,
            installing: true,
        }
    }

    #[test]
    fn every_field_of_a_group_arrives() {
        let node_id = "000000000000000a".to_owned();
        let replicas = vec![
            v1::GroupReplica { replica: 2, node_id: node_id.clone(), voter: true, matched: None },
            v1::GroupReplica { replica: 8, node_id: String::new(), voter: false, matched: Some(9) },
        ];
        let expected = v1::Group {
            group: 1,
            replica: 2,
            role: "leader".to_owned(),
            term: 3,
            leader: node_id,
            commit: 4,
            applied: 5,
            first_index: 6,
            last_index: 7,
            replicas,
            waiting: 11,
            installing: true,
        };
        assert_eq!(v1::Group::from(status()), expected);
    }

    #[test]
    fn only_numbers_of_sixteen_bits_are_groups() {
        assert_eq!(group_id(65_535), Ok(GroupId::SYSTEM));
        let refused = group_id(65_536).expect_err("too large").to_string();
        assert!(refused.starts_with("group: 65536 is not a group"), "{refused}");
    }

    #[test]
    fn roles_have_the_names_of_the_interface() {
        let roles = [Role::Leader, Role::Follower, Role::Candidate, Role::PreCandidate];
        let names = ["leader", "follower", "candidate", "pre-candidate"];
        assert_eq!(roles.map(role_name), names);
    }
}
