//! Who may look on while a node's groups work: a simulation, which judges every step. A node that
//! serves has nobody.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::protocol::message::GroupMessage;
use crate::protocol::raft::Raft;
use crate::protocol::raft::entry::{Entry, LogPosition};
use crate::storage::group_log::GroupLogs;
use crate::types::{GroupId, NodeId, ReplicaId};

/// What a group has just done, before any of it leaves the node.
pub struct Sight<'a> {
    /// The node.
    pub node: NodeId,
    /// The group.
    pub group: GroupId,
    /// Its replica here.
    pub replica: ReplicaId,
    /// The core.
    pub core: &'a Raft,
    /// How far the rows are applied.
    pub applied: LogPosition,
    /// What is sent, and to whom.
    pub messages: &'a [(NodeId, GroupMessage)],
    /// What was applied to the rows.
    pub entries: &'a [Observed],
    /// What the node's log holds durably, now and later.
    pub logs: &'a Arc<Mutex<GroupLogs>>,
}

/// An entry that was applied, and what its proposer hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The entry.
    pub entry: Entry,
    /// The state machine's answer, encoded; `None` for an entry that nobody proposed.
    pub reply: Option<bytes::Bytes>,
}

/// Sees every pass over a group.
pub trait GroupObserver: Send + Sync {
    /// A group was touched and has done what it wants.
    fn on_pass(&self, sight: &Sight<'_>);
}

/// An observer, with what it is shown besides the group.
pub(crate) struct Observing {
    pub(crate) observer: Arc<dyn GroupObserver>,
    pub(crate) node: NodeId,
    pub(crate) logs: Arc<Mutex<GroupLogs>>,
}
