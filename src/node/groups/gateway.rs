//! What the groups' driver shows to the rest of the node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use crate::node::groups::census::Census;
use crate::node::groups::host::Question;
use crate::node::groups::inbox::{Event, Inbox, TransferRefusal};
use crate::node::groups::report::GroupStatus;
use crate::node::groups::waiting::{Answer, Asker};
use crate::protocol::message::{Ask, ForwardRefusal, RequestId};
use crate::protocol::system::SystemState;
use crate::types::{GroupId, NodeId, ReplicaId};

/// The driver's door.
pub(crate) struct Gateway {
    pub(super) inbox: Inbox,
    system: watch::Sender<Option<Arc<SystemState>>>,
    leaders: RwLock<BTreeMap<GroupId, NodeId>>,
    /// The groups that this node leads: what others say of them does not count.
    led: RwLock<BTreeSet<GroupId>>,
    census: RwLock<Census>,
    closed: AtomicBool,
}

impl Gateway {
    pub(crate) fn new(system: Option<Arc<SystemState>>) -> Gateway {
        Gateway {
            inbox: Inbox::default(),
            system: watch::Sender::new(system),
            leaders: RwLock::default(),
            led: RwLock::default(),
            census: RwLock::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// What the system group has decided, as far as this node has heard.
    pub(crate) fn system(&self) -> Option<Arc<SystemState>> {
        self.system.borrow().clone()
    }

    /// Wakes whoever follows what the system group decides.
    pub(crate) fn follow_system(&self) -> watch::Receiver<Option<Arc<SystemState>>> {
        self.system.subscribe()
    }

    /// The node that leads a group, as far as this node knows.
    pub(crate) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.leaders.read().get(&group).copied()
    }

    /// The leaders of all groups, as far as this node knows.
    pub(crate) fn leaders(&self) -> BTreeMap<GroupId, NodeId> {
        self.leaders.read().clone()
    }

    /// This node's groups in numbers, half a second old at most.
    pub(crate) fn census(&self) -> Census {
        self.census.read().clone()
    }

    /// Learns from this node's own replica who leads a group.
    pub(super) fn publish_leader(&self, group: GroupId, leader: Option<NodeId>, own: NodeId) {
        let mut led = self.led.write();
        match leader == Some(own) {
            true => led.insert(group),
            false => led.remove(&group),
        };
        drop(led);
        self.set_leader(group, leader);
    }

    /// Learns from another node who leads a group. It may answer late, when this node leads.
    pub(crate) fn note_leader(&self, group: GroupId, leader: Option<NodeId>) {
        if !self.led.read().contains(&group) {
            self.set_leader(group, leader);
        }
    }

    fn set_leader(&self, group: GroupId, leader: Option<NodeId>) {
        let mut leaders = self.leaders.write();
        match leader {
            Some(leader) => leaders.insert(group, leader),
            None => leaders.remove(&group),
        };
    }

    /// Asks this node's own replica of a group.
    pub(crate) async fn ask(&self, group: GroupId, ask: Ask) -> Answer {
        let (sender, receiver) = oneshot::channel();
        self.question(Question { group, ask, asker: Asker::Own(sender) });
        // Without an answer the driver has ended with the question in its queue or under way.
        receiver.await.unwrap_or(Err(ForwardRefusal::Unknown))
    }

    /// Takes a peer's question.
    pub(crate) fn ask_for(
        &self,
        (peer, request): (NodeId, RequestId),
        group: GroupId,
        ask: Ask,
    ) -> Result<(), ForwardRefusal> {
        if self.is_closed() {
            return Err(ForwardRefusal::NotServing);
        }
        let asker = Asker::Peer(peer, request);
        let event = Event::Ask(Question { group, ask, asker });
        self.inbox.push(event).map_err(|_| ForwardRefusal::Overloaded)
    }

    /// Hands leadership of a group to another node.
    ///
    /// # Errors
    /// [`TransferRefusal`].
    pub(crate) async fn transfer(&self, group: GroupId, to: NodeId) -> Result<(), TransferRefusal> {
        let (sender, receiver) = oneshot::channel();
        self.push(Event::Transfer(group, to, sender));
        let stopping = || TransferRefusal::NotNow { reason: "the node is stopping".to_owned() };
        receiver.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// How this node's groups are.
    pub(crate) async fn report(&self) -> Vec<GroupStatus> {
        let (sender, receiver) = oneshot::channel();
        self.push(Event::Report(sender));
        // A driver that has ended has no groups.
        receiver.await.unwrap_or_default()
    }

    /// This node's replica of the system group has been given its number.
    pub(crate) fn host_system(&self, replica: ReplicaId) {
        self.push(Event::HostSystem(replica));
    }

    /// Queues what may be lost.
    pub(crate) fn push(&self, event: Event) {
        if !self.is_closed() && self.inbox.push(event).is_err() {
            tracing::debug!("the groups' queue is full; a message was dropped");
        }
    }

    pub(super) fn publish_census(&self, census: Census) {
        *self.census.write() = census;
    }

    pub(super) fn publish_system(&self, state: &Arc<SystemState>) {
        self.system.send_if_modified(|known| {
            let changed = known.as_ref().is_none_or(|known| !Arc::ptr_eq(known, state));
            if changed {
                *known = Some(Arc::clone(state));
            }
            changed
        });
    }

    /// The driver has ended: what waits is let go of, and nothing more is taken.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.inbox.close();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn question(&self, question: Question) {
        if self.is_closed() {
            return refuse(question, ForwardRefusal::NotServing);
        }
        if let Err(Event::Ask(question)) = self.inbox.push(Event::Ask(question)) {
            refuse(question, ForwardRefusal::Overloaded);
        }
    }
}

fn refuse(question: Question, refusal: ForwardRefusal) {
    if let Asker::Own(waiter) = question.asker {
        // Whoever asked may have gone.
        let _gone = waiter.send(Err(refusal));
    }
}
