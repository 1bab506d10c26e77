//! Routes what arrives, from peers and from the log, to whom it concerns.

use std::sync::{Arc, OnceLock};

use crate::net::transport::{Inbox, Transport};
use crate::node::anti_entropy::Answering;
use crate::node::committer::{self, Committed, Completions, ReplyTo};
use crate::node::coordinator::Coordinator;
use crate::node::early::Early;
use crate::node::errands::{Errands, Reply};
use crate::node::gate::{Gate, Turned};
use crate::node::groups::client::GroupClient;
use crate::node::groups::gateway::Gateway;
use crate::node::groups::inbox::Event;
use crate::node::hinted_handoff::HintedHandoff;
use crate::node::lists::Lists;
use crate::node::members::Members;
use crate::node::pages::Pages;
use crate::node::refill::Refill;
use crate::node::replica::{Lookup, Replica};
use crate::node::scans::Scans;
use crate::node::tasks::Stop;
use crate::node::topology::{Topology, TopologyCell};
use crate::node::transfers::Transfers;
use crate::protocol::message::{
    Class, Forward, ForwardRefusal, ForwardReply, Found, Message, Mint, MintReply, Read, ReadReply,
    Refusal, RequestId, Write, WriteReply,
};
use crate::types::{NodeId, PartitionId, Record, Version};

/// Those whom a message may concern.
pub(crate) struct Recipients {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) early: Early,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) handoff: Arc<HintedHandoff>,
    pub(crate) members: Arc<Members>,
    pub(crate) scans: Arc<Scans>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) answering: Answering,
    pub(crate) errands: Arc<Errands>,
    pub(crate) lists: Arc<Lists>,
    pub(crate) refill: Arc<Refill>,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) groups: Arc<Gateway>,
    pub(crate) group_client: Arc<GroupClient>,
}

/// Takes messages before its recipients exist: what arrives until then is lost, as on any network.
#[derive(Default)]
pub(crate) struct Dispatcher {
    recipients: OnceLock<Recipients>,
}

impl Dispatcher {
    /// Names the recipients, once.
    pub(crate) fn connect(&self, recipients: Recipients) {
        let first = self.recipients.set(recipients).is_ok();
        assert!(first, "invariant: a node is attached to its cluster once");
    }

    /// Serves what waits for news of its keyspace when there is news, until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        let Some(recipients) = self.recipients.get() else { return };
        let mut topologies = recipients.topology.follow();
        while !stop.is_requested() {
            tokio::select! { biased;
                () = stop.requested() => {}
                changed = topologies.changed() => if changed.is_err() { return },
            }
            recipients.serve_early();
        }
    }
}

impl Inbox for Dispatcher {
    fn on_messages(&self, from: NodeId, messages: Vec<Message>) {
        let Some(recipients) = self.recipients.get() else { return };
        if recipients.members.is_forgotten(from) {
            return;
        }
        for message in messages {
            recipients.on_message(from, message);
        }
    }

    fn on_connected(&self, peer: NodeId) {
        let Some(recipients) = self.recipients.get() else { return };
        recipients.handoff.on_reachable(peer);
        recipients.refill.wake();
        recipients.transfers.wake();
    }

    fn on_disconnected(&self, peer: NodeId) {
        let Some(recipients) = self.recipients.get() else { return };
        recipients.coordinator.on_disconnected(peer);
        recipients.group_client.on_disconnected(peer);
        recipients.groups.push(Event::Disconnected(peer));
        recipients.handoff.on_disconnected(peer);
        recipients.pages.on_disconnected(peer);
        recipients.errands.on_disconnected(peer);
        recipients.lists.on_disconnected(peer);
    }
}

impl Completions for Dispatcher {
    fn on_committed(&self, reply_to: ReplyTo, outcome: Result<Committed, Refusal>) {
        let Some(recipients) = self.recipients.get() else { return };
        match reply_to {
            ReplyTo::Own(request, _) => {
                let own = recipients.coordinator.own;
                let met = outcome.map(|committed| committed.met);
                recipients.coordinator.on_write_reply(own, request, met);
            }
            ReplyTo::Peer(peer, request, _) => {
                recipients.acknowledge(peer, request, outcome.map(|committed| committed.met));
            }
            ReplyTo::Minted(peer, request) => {
                recipients.tell_minted(peer, request, minted(outcome))
            }
            // Who stopped waiting learns it by a read.
            ReplyTo::Writer(writer) => drop(writer.send(minted(outcome))),
            // Who stopped waiting does not need to hear.
            ReplyTo::Waiter(waiter) => drop(waiter.send(outcome.map(drop))),
            ReplyTo::Nobody => {}
        }
    }
}

impl Recipients {
    fn on_message(&self, from: NodeId, message: Message) {
        match message {
            Message::Write(write) => self.on_write(from, write),
            Message::WriteReply(reply) => {
                let WriteReply { request, outcome } = reply;
                match self.errands.asked(request) {
                    true => self.errands.on_reply(from, request, Reply::Write(outcome.map(drop))),
                    false => self.coordinator.on_write_reply(from, request, outcome),
                }
            }
            Message::Mint(mint) => self.on_mint(from, mint),
            Message::MintReply(reply) => {
                let reply_of_mint = Reply::Mint(reply.outcome);
                self.coordinator.mints.on_reply(from, reply.request, reply_of_mint);
            }
            Message::Read(read) => self.on_read(from, read),
            Message::ReadReply(reply) => self.on_read_reply(from, reply),
            Message::TreeAsk(ask) => self.answering.serve(from, ask),
            Message::TreeReply(reply) => {
                self.errands.on_reply(from, reply.request, Reply::Tree(reply));
            }
            Message::Scan(scan) => self.scans.serve(from, scan),
            Message::ScanReply(reply) => self.pages.on_page(from, reply),
            Message::List(list) => self.lists.serve(from, list),
            Message::ListReply(reply) => self.lists.on_reply(from, reply),
            Message::Group(message) => self.groups.push(Event::Message(from, message)),
            Message::Forward(forward) => self.on_forward(from, forward),
            Message::ForwardReply(reply) => self.group_client.on_reply(from, reply),
            Message::Snapshot(chunk) => self.groups.push(Event::Snapshot(from, chunk)),
            Message::SnapshotReply(reply) => self.groups.push(Event::SnapshotReply(reply)),
        }
    }

    fn on_read_reply(&self, from: NodeId, reply: ReadReply) {
        let ReadReply { request, outcome } = reply;
        if self.errands.asked(request) {
            self.errands.on_reply(from, request, Reply::Read(outcome));
        } else {
            self.coordinator.on_read_reply(from, request, outcome);
        }
    }

    fn on_forward(&self, from: NodeId, forward: Forward) {
        let Forward { request, group, ask, time_left } = forward;
        let asker = (from, request);
        let taken = match time_left.is_zero() {
            true => Err(ForwardRefusal::Expired),
            false => self.groups.ask_for(asker, group, ask),
        };
        if let Err(refusal) = taken {
            let reply = ForwardReply { request, outcome: Err(refusal) };
            self.reply(from, Class::Client, Message::ForwardReply(reply));
        }
    }

    /// Lets a request wait until this node has heard of its keyspace, or of the ring by which it
    /// was made. It was judged by this topology.
    fn on_early(&self, from: NodeId, topology: &Arc<Topology>, message: Message) {
        let Err(refused) = self.early.keep(from, message) else {
            // The news may have come in between.
            if !Arc::ptr_eq(topology, &self.topology.load()) {
                self.serve_early();
            }
            return;
        };
        let unheard = Err(Refusal::NotServing);
        match *refused {
            Message::Write(write) => self.acknowledge(from, write.request, unheard),
            Message::Mint(mint) => self.tell_minted(from, mint.request, Err(Refusal::NotServing)),
            Message::Read(Read { request, .. }) => {
                answering(&self.transport, from, request)(Err(Refusal::NotServing));
            }
            _ => {}
        }
    }

    fn serve_early(&self) {
        for (from, message) in self.early.take() {
            self.on_message(from, message);
        }
    }

    fn on_write(&self, from: NodeId, write: Write) {
        let topology = self.topology.load();
        let partition = topology.ring.partition_of(&write.row.key);
        let known = topology.check_keyspace(write.row.keyspace);
        let outcome = match known {
            Err(Refusal::NotServing) => Err(Turned::Early),
            Err(refusal) => Err(Turned::Away(refusal)),
            Ok(()) => self.take_write(from, &write, partition),
        };
        match outcome {
            Ok(()) => {}
            Err(Turned::Early) => {
                self.on_early(from, &topology, Message::Write(write));
            }
            Err(Turned::Away(refusal)) => self.acknowledge(from, write.request, Err(refusal)),
        }
    }

    fn take_write(
        &self,
        from: NodeId,
        write: &Write,
        partition: PartitionId,
    ) -> Result<(), Turned> {
        let Write { request, row, epoch, hint_for, seen, class, time_left } = write.clone();
        let reply_to = ReplyTo::Peer(from, request, seen);
        let Some(target) = hint_for else {
            return self.gate.write(row, partition, epoch, (class, time_left), reply_to);
        };
        let topology = self.topology.load();
        self.gate.check_age(topology.reap_floor(partition), &row.record, epoch, true)?;
        let admitted = topology.admits_hint(partition, epoch);
        let outcome = match (time_left.is_zero(), admitted) {
            (true, _) => Err(Refusal::Expired),
            (_, false) => Err(Refusal::StaleRing),
            _ => self.replica.admit_stamp(&row),
        };
        let kept = outcome.and_then(|()| self.handoff.keep_durably(target, row, reply_to));
        kept.map_err(Turned::Away)
    }

    fn on_mint(&self, from: NodeId, mint: Mint) {
        let topology = self.topology.load();
        let partition = topology.ring.partition_of(&mint.key);
        let outcome = match topology.check_keyspace(mint.keyspace) {
            Err(Refusal::NotServing) => Err(Turned::Early),
            Err(refusal) => Err(Turned::Away(refusal)),
            Ok(()) if mint.time_left.is_zero() => Err(Turned::Away(Refusal::Expired)),
            Ok(()) => {
                let Mint { request, keyspace, key, change, context, epoch, time_left } =
                    mint.clone();
                let reply_to = ReplyTo::Minted(from, request);
                let mint = (key, committer::Mint { change, context });
                self.gate.mint((keyspace, partition), mint, epoch, time_left, reply_to)
            }
        };
        match outcome {
            Ok(()) => {}
            Err(Turned::Early) => self.on_early(from, &topology, Message::Mint(mint)),
            Err(Turned::Away(refusal)) => self.tell_minted(from, mint.request, Err(refusal)),
        }
    }

    fn tell_minted(&self, peer: NodeId, request: RequestId, outcome: Result<Record, Refusal>) {
        self.reply(peer, Class::Client, Message::MintReply(MintReply { request, outcome }));
    }

    fn on_read(&self, from: NodeId, read: Read) {
        let topology = self.topology.load();
        let partition = topology.ring.partition_of(&read.key);
        let Read { keyspace, epoch, want, time_left, .. } = read;
        let (key, deadline) = (read.key.clone(), self.replica.env.now() + time_left);
        let lookup = Lookup { keyspace, partition, key, want, epoch, deadline };
        let outcome = match topology.check_keyspace(keyspace) {
            Err(Refusal::NotServing) => Err(Turned::Early),
            Err(refusal) => Err(Turned::Away(refusal)),
            Ok(()) if time_left.is_zero() => Err(Turned::Away(Refusal::Expired)),
            Ok(()) => self.gate.read(&lookup),
        };
        let tell = answering(&self.transport, from, read.request);
        match outcome {
            Err(Turned::Early) => self.on_early(from, &topology, Message::Read(read)),
            Err(Turned::Away(refusal)) => tell(Err(refusal)),
            Ok(Some(found)) => tell(Ok(found)),
            Ok(None) => {
                let then = move |outcome: Result<_, Turned>| tell(outcome.map_err(Turned::refusal));
                self.gate.read_behind(lookup, then);
            }
        }
    }

    fn acknowledge(
        &self,
        peer: NodeId,
        request: RequestId,
        outcome: Result<Option<Version>, Refusal>,
    ) {
        self.reply(peer, Class::Client, Message::WriteReply(WriteReply { request, outcome }));
    }

    fn reply(&self, peer: NodeId, class: Class, message: Message) {
        send(&*self.transport, peer, class, message);
    }
}

/// Tells a peer what was found for it.
fn answering(
    transport: &Arc<dyn Transport>,
    peer: NodeId,
    request: RequestId,
) -> impl FnOnce(Result<Found, Refusal>) + Send + use<> {
    let transport = Arc::clone(transport);
    move |outcome| {
        let reply = Message::ReadReply(ReadReply { request, outcome });
        send(&*transport, peer, Class::Client, reply);
    }
}

fn send(transport: &dyn Transport, peer: NodeId, class: Class, message: Message) {
    // A reply that cannot be sent is a lost message: its request runs into its deadline.
    if let Err(error) = transport.send(peer, class, message) {
        tracing::debug!(%error, "a reply was not sent");
    }
}

/// What a write that was minted came to.
fn minted(outcome: Result<Committed, Refusal>) -> Result<Record, Refusal> {
    outcome
        .map(|committed| committed.record.expect("invariant: what is minted is a row of siblings"))
}
