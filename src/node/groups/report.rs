//! How a node's groups are, for status and for tests.

use crate::node::groups::driver::Driver;
use crate::node::groups::group::Group;
use crate::protocol::raft::{ProgressView, Role};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, Term};

/// One group as one of its replicas sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The replica that this node runs.
    pub replica: ReplicaId,
    /// What it is now.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The node that leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Its commit index.
    pub commit: LogIndex,
    /// The last entry that it has applied.
    pub applied: LogIndex,
    /// The first and the last entry of its log.
    pub log: (LogIndex, LogIndex),
    /// Replicas, where they run, and whether they vote.
    pub replicas: Vec<(ReplicaId, Option<NodeId>, bool)>,
    /// Whether that is decided for good, as far as it has heard: it is neither on its way to
    /// another, nor may it be taken back.
    pub replicas_decided: bool,
    /// What a leader knows of the others.
    pub progress: Vec<(ReplicaId, ProgressView)>,
    /// Requests that wait for it here.
    pub waiting: usize,
    /// True while a snapshot is being taken in.
    pub installing: bool,
}

impl GroupStatus {
    /// Whether the group may need this replica's vote.
    pub fn may_vote(&self) -> bool {
        let votes = self.replicas.iter().any(|(it, _, votes)| *it == self.replica && *votes);
        votes || !self.replicas_decided
    }
}

impl Driver {
    /// All groups, by number.
    pub(super) fn report(&self) -> Vec<GroupStatus> {
        self.host.groups().map(Group::status).collect()
    }
}

impl Group {
    fn status(&self) -> GroupStatus {
        let status = self.raft.status();
        let membership = self.raft.log().membership();
        let replica = |id: ReplicaId| (id, self.node_of(id), membership.is_voter(id));
        GroupStatus {
            group: self.id,
            replica: self.replica,
            role: status.role,
            term: status.term,
            leader: self.leader_node(),
            commit: status.commit,
            applied: self.machine.applied().position.index,
            log: (self.raft.log().first_index(), self.raft.log().last_index()),
            replicas: membership.replicas().into_iter().map(replica).collect(),
            replicas_decided: !membership.is_joint()
                && self.raft.log().membership_index() <= status.commit,
            progress: status.progress.into_iter().collect(),
            waiting: self.waiting_len(),
            installing: self.is_installing(),
        }
    }
}
