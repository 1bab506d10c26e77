//! The one task that owns a node's groups: takes what has come in, lets the cores step, carries out
//! what they want, and has one batch at a time made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::net::transport::Transport;
use crate::node::aside::Aside;
use crate::node::clock::Clock;
use crate::node::committer::{Committer, ReplyTo};
use crate::node::env::Env;
use crate::node::groups::census::Leaderless;
use crate::node::groups::fetching::{Catch, Errand, Fetched};
use crate::node::groups::gateway::Gateway;
use crate::node::groups::group::{Effects, Group};
use crate::node::groups::handed_over::HandedOver;
use crate::node::groups::host::Host;
use crate::node::groups::inbox::{Event, TransferRefusal};
use crate::node::groups::incoming::Incoming;
use crate::node::groups::outgoing::Outgoing;
use crate::node::groups::waiting::{Answer, Asker};
use crate::node::health::Health;
use crate::node::keyspace_limits::Meters;
use crate::node::tasks::Stop;
use crate::node::topology::TopologyCell;
use crate::protocol::message::{Class, ForwardReply, Message, Refusal};
use crate::protocol::raft::membership::Membership;
use crate::protocol::raft::{Raft, TransferError};
use crate::protocol::system::SystemState;
use crate::storage::store::Store;
use crate::telemetry::Metrics;
use crate::types::{Epoch, GroupId, Incarnation, KeyspaceId, Moment, NodeId, ReplicaId};

/// The length of a tick.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// How long the driver waits before it tries again what failed for want of room.
const RETRY: Duration = Duration::from_millis(200);

/// How often the driver looks at what nothing announces.
const HOUSEKEEPING_TICKS: u64 = 10;

/// What the driver works with.
pub(crate) struct Seams {
    pub(crate) own: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) store: Arc<Store>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) health: Arc<Health>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) aside: Arc<Aside>,
}

type Written = oneshot::Receiver<Result<(), Refusal>>;

/// Drives the groups of a node.
pub(crate) struct Driver {
    pub(super) seams: Seams,
    pub(super) gateway: Arc<Gateway>,
    pub(super) host: Host,
    pub(super) outgoing: BTreeMap<(GroupId, ReplicaId), Outgoing>,
    pub(super) incoming: BTreeMap<GroupId, Incoming>,
    /// The epoch of the ring by which all groups are known to be placed.
    pub(super) ring_epoch_settled: Option<Epoch>,
    /// What the system group has decided, until it is durable here.
    pub(super) decided: Option<Arc<SystemState>>,
    /// As much of it as is in the batch on its way.
    pub(super) in_batch: Option<Arc<SystemState>>,
    /// Keyspaces of which the log is being told that they are gone.
    pub(super) dropping: BTreeSet<KeyspaceId>,
    /// For how many rounds of housekeeping each node has been up.
    pub(super) settled: BTreeMap<NodeId, u32>,
    pub(super) handed_over: HandedOver,
    pub(super) leaderless: Leaderless,
    writing: Option<Written>,
    retry_at: Option<Moment>,
    next_housekeeping: u64,
}

impl Driver {
    pub(crate) fn new(seams: Seams, gateway: Arc<Gateway>, host: Host) -> Driver {
        Driver {
            seams,
            gateway,
            host,
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            ring_epoch_settled: None,
            decided: None,
            in_batch: None,
            dropping: BTreeSet::new(),
            settled: BTreeMap::new(),
            handed_over: HandedOver::default(),
            leaderless: Leaderless::default(),
            writing: None,
            retry_at: None,
            next_housekeeping: 0,
        }
    }

    /// Drives until asked to stop, or until the log fails: a node that can promise nothing leaves
    /// its groups to the others.
    pub(crate) async fn run(mut self, mut stop: Stop) {
        let _closing = Closing { gateway: self.gateway.clone(), health: self.seams.health.clone() };
        while !stop.is_requested() && !self.seams.health.is_failed() {
            // What has come first, then the time: nothing may be dated before it came, however
            // long the process stood still in between.
            let events = self.gateway.inbox.take();
            self.tick();
            for event in events {
                self.on_event(event);
            }
            while self.host.is_touched() {
                let effects = self.host.pass(&self.seams.store);
                self.carry_out(effects);
            }
            self.submit();
            self.wait(&mut stop).await;
        }
    }

    async fn wait(&mut self, stop: &mut Stop) {
        let wake_at = self.wake_at();
        let inbox = Arc::clone(&self.gateway);
        let written = async {
            match &mut self.writing {
                Some(written) => written.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            () = stop.requested() => {}
            outcome = written => {
                self.tick();
                // The committer goes without an answer only when the node stops.
                self.on_written(outcome.unwrap_or(Err(Refusal::NotServing)));
            }
            () = inbox.inbox.filled() => {}
            () = self.seams.env.sleep_until(wake_at) => {}
        }
    }

    fn wake_at(&self) -> Moment {
        let next = self.host.next_tick().unwrap_or(u64::MAX).min(self.next_housekeeping);
        let tick_at = Moment(next.saturating_mul(tick_us()));
        self.retry_at.map_or(tick_at, |retry_at| retry_at.min(tick_at))
    }

    fn tick(&mut self) {
        let now = self.seams.env.now().0 / tick_us();
        self.host.tick(now);
        if now >= self.next_housekeeping {
            self.next_housekeeping = now + HOUSEKEEPING_TICKS;
            self.keep_house();
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Message(from, message) => {
                self.note_handed_over(&message);
                self.host.on_message(from, message);
            }
            Event::Snapshot(from, chunk) => self.on_chunk(from, chunk),
            Event::SnapshotReply(reply) => self.on_chunk_reply(&reply),
            Event::Ask(question) => {
                let answer = self.host.ask(question);
                self.answer(answer);
            }
            Event::Disconnected(node) => self.host.on_disconnected(node),
            Event::HostSystem(replica) => self.host_system(replica),
            Event::Fetched(fetched) => self.on_fetched(*fetched),
            Event::Transfer(group, to, reply) => {
                // Whoever asked may have gone.
                let _gone = reply.send(self.transfer(group, to, Raft::transfer_leader_as_ordered));
            }
            Event::Report(reply) => {
                let _gone = reply.send(self.report());
            }
        }
    }

    fn carry_out(&mut self, effects: Effects) {
        for (node, message) in effects.messages {
            // What is not sent is a lost message, which Raft is made for.
            let sent = self.seams.transport.send(node, Class::Client, Message::Group(message));
            if let Err(error) = sent {
                tracing::trace!(%error, "a message of a group was not sent");
            }
        }
        self.answer(effects.answers);
        for (group, rows) in effects.changed {
            self.note_changed(group, &rows);
        }
        for errand in effects.errands {
            self.fetch(errand);
        }
        for (group, replica) in effects.snapshots {
            self.begin_snapshot(group, replica);
        }
        for group in effects.leaders_changed {
            self.publish_leader(group);
        }
        self.note_system();
    }

    pub(super) fn answer(&self, answers: impl IntoIterator<Item = (Asker, Answer)>) {
        for (asker, outcome) in answers {
            match asker {
                // A client that went away does not need to hear.
                Asker::Own(waiter) => drop(waiter.send(outcome)),
                Asker::Peer(node, request) => {
                    let reply = Message::ForwardReply(ForwardReply { request, outcome });
                    if let Err(error) = self.seams.transport.send(node, Class::Client, reply) {
                        tracing::debug!(%error, "an answer was not sent");
                    }
                }
            }
        }
    }

    /// Has another thread fetch what a group needs.
    pub(super) fn fetch(&self, errand: Errand) {
        let (aside, store) = (Arc::clone(&self.seams.aside), Arc::clone(&self.seams.store));
        let gateway = Arc::clone(&self.gateway);
        // There is one at most for each read that waits, group, and snapshot.
        self.seams.aside.turn_in_any_case().take(async move {
            let fetched = aside.read(move || errand.run(&store)).await;
            // A driver that is gone has nobody who waits.
            let _gone = gateway.inbox.push(Event::Fetched(Box::new(fetched)));
        });
    }

    fn on_fetched(&mut self, fetched: Fetched) {
        match fetched.catch {
            Catch::Page(wanted, page) => self.on_page(fetched.group, &wanted, page),
            _ => {
                let answer = self.host.on_fetched(fetched);
                self.answer(answer);
            }
        }
    }

    fn submit(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let again = self.retry_at.is_some_and(|at| self.seams.env.now() >= at);
        let batch = if self.retry_at.is_none() {
            self.in_batch = self.decided.clone();
            self.host.take_batch()
        } else if again {
            self.host.batch_again()
        } else {
            None
        };
        let Some(batch) = batch else {
            if self.retry_at.is_none() {
                // What was decided was written before, with a snapshot.
                self.publish_system();
            }
            return;
        };
        let (sender, receiver) = oneshot::channel();
        let records = batch.records.clone();
        match self.seams.committer.submit_group(records, ReplyTo::Waiter(sender)) {
            Ok(()) => {
                self.writing = Some(receiver);
                self.retry_at = None;
            }
            Err(refusal) => self.on_refused(refusal),
        }
    }

    fn on_written(&mut self, outcome: Result<(), Refusal>) {
        self.writing = None;
        match outcome {
            Ok(()) => {
                self.publish_system();
                let chunks = self.host.on_written();
                self.on_chunks_written(chunks);
            }
            Err(refusal) => self.on_refused(refusal),
        }
    }

    /// Nothing of the batch was written. A full disk passes; everything else ends the driver's
    /// loop, since the node's health has failed.
    fn on_refused(&mut self, refusal: Refusal) {
        tracing::debug!(%refusal, "a batch of the groups was not written; it is tried again");
        self.retry_at = Some(self.seams.env.now() + RETRY);
    }

    /// Makes room for this node's replica of the system group; its rows come with a snapshot.
    fn host_system(&mut self, replica: ReplicaId) {
        if self.host.replica(GroupId::SYSTEM) != Some(replica) {
            self.begin(GroupId::SYSTEM, replica, Membership::default());
        }
    }

    fn publish_leader(&self, id: GroupId) {
        let leader = self.host.group(id).and_then(Group::leader_node);
        self.gateway.publish_leader(id, leader, self.seams.own);
    }

    /// Hands a group on, in one of the core's ways to do so.
    pub(super) fn transfer(
        &mut self,
        group: GroupId,
        to: NodeId,
        begin: fn(&mut Raft, ReplicaId) -> Result<(), TransferError>,
    ) -> Result<(), TransferRefusal> {
        let Some(group) = self.host.group_mut(group) else {
            return Err(TransferRefusal::NotLeader { leader: self.gateway.leader(group) });
        };
        if !group.raft.is_leader() {
            return Err(TransferRefusal::NotLeader { leader: group.leader_node() });
        }
        let membership = group.raft.log().membership();
        let on_node = |replica: &&ReplicaId| membership.node(**replica) == Some(to);
        let target = membership.voters.iter().find(on_node).copied();
        let target = target.ok_or(TransferRefusal::NoVoter { to })?;
        let refused = |reason: String| TransferRefusal::NotNow { reason };
        begin(&mut group.raft, target).map_err(|error| refused(error.to_string()))
    }
}

/// Closes the driver's door however the driver ends: nobody may wait for one that is gone.
struct Closing {
    gateway: Arc<Gateway>,
    health: Arc<Health>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.gateway.close();
        if std::thread::panicking() {
            self.health.fail("the driver of the Raft groups panicked".to_owned());
        }
    }
}

/// Whole ticks of a time.
pub(crate) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / tick_us()
}

/// A tick in microseconds.
fn tick_us() -> u64 {
    TICK.as_micros() as u64
}
