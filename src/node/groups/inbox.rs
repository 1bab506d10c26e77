//! What waits for the groups' driver.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::node::groups::fetching::Fetched;
use crate::node::groups::host::Question;
use crate::node::groups::report::GroupStatus;
use crate::node::request::RequestError;
use crate::protocol::message::{GroupMessage, SnapshotChunk, SnapshotReply};
use crate::types::{GroupId, NodeId, ReplicaId};

/// Questions of clients that may wait; beyond that they are refused.
pub(crate) const QUESTIONS_MAX: usize = 8192;

/// Messages of peers that may wait; beyond that they are dropped, as on any network.
const MESSAGES_MAX: usize = 65_536;

/// Something that the driver is to do.
pub(crate) enum Event {
    /// A replica of another node says something.
    Message(NodeId, GroupMessage),
    /// Rows of a snapshot came.
    Snapshot(NodeId, SnapshotChunk),
    /// What became of rows that were sent.
    SnapshotReply(SnapshotReply),
    /// A client asks.
    Ask(Question),
    /// The stream to a node broke.
    Disconnected(NodeId),
    /// The system group has given this node's replica of it a number.
    HostSystem(ReplicaId),
    /// Another node is to lead a group.
    Transfer(GroupId, NodeId, oneshot::Sender<Result<(), TransferRefusal>>),
    /// Something that a group needs has come from the disk.
    Fetched(Box<Fetched>),
    /// Somebody wants to know how the groups are.
    Report(oneshot::Sender<Vec<GroupStatus>>),
}

/// Why leadership is not handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransferRefusal {
    /// Only a leader hands on.
    #[error("this node does not lead the group; {}", leader_text(*leader))]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// No voter of the group runs there.
    #[error("node {to} has no voting replica of the group")]
    NoVoter {
        /// The node that was named.
        to: NodeId,
    },
    /// Another transfer is under way, or the node is stopping: it may work later.
    #[error("{reason}")]
    NotNow {
        /// Why.
        reason: String,
    },
}

impl TransferRefusal {
    /// What whoever asked for it is told.
    pub(crate) fn of_request(self, group: GroupId) -> RequestError {
        let reason = self.to_string();
        match self {
            TransferRefusal::NotNow { .. } => RequestError::NoLeader { group, reason },
            TransferRefusal::NotLeader { .. } | TransferRefusal::NoVoter { .. } => {
                RequestError::Rejected { reason }
            }
        }
    }
}

fn leader_text(leader: Option<NodeId>) -> String {
    leader.map_or_else(|| "nobody leads it now".to_owned(), |node| format!("node {node} does"))
}

/// The queue before the driver.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    questions: usize,
    messages: usize,
    closed: bool,
}

impl Inbox {
    /// Queues an event; gives it back when the queue of its kind is full, or closed.
    pub(crate) fn push(&self, event: Event) -> Result<(), Event> {
        let mut queue = self.queue.lock();
        match &event {
            _ if queue.closed => return Err(event),
            Event::Ask(_) if queue.questions >= QUESTIONS_MAX => return Err(event),
            Event::Message(..) | Event::Snapshot(..) if queue.messages >= MESSAGES_MAX => {
                return Err(event);
            }
            Event::Ask(_) => queue.questions += 1,
            Event::Message(..) | Event::Snapshot(..) => queue.messages += 1,
            _ => {}
        }
        let was_empty = queue.events.is_empty();
        queue.events.push_back(event);
        drop(queue);
        if was_empty {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Takes everything.
    pub(crate) fn take(&self) -> VecDeque<Event> {
        let mut queue = self.queue.lock();
        let closed = queue.closed;
        std::mem::replace(&mut *queue, Queue { closed, ..Queue::default() }).events
    }

    /// Lets go of everything, and takes nothing any more.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        drop(self.take());
    }

    /// Resolves when something was queued since the queue was last taken.
    pub(crate) async fn filled(&self) {
        self.wake.notified().await;
    }
}
