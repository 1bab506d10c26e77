//! One read: ask R replicas, merge, repair the stale, hedge the slow.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::net::transport::SendError;
use crate::node::committer::ReplyTo;
use crate::node::coordinator::write::stopped;
use crate::node::coordinator::{Coordinator, Owner, placement};
use crate::node::gate::Turned;
use crate::node::replica::Lookup;
use crate::node::request::{ReadAnswer, Receipt, RequestError, RequestOptions};
use crate::node::topology::{Placement, Topology};
use crate::protocol::message::{Class, Found, Message, Read, Refusal, Want, Write};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::quorum::level::majority;
use crate::protocol::quorum::read::{Alongside, ReadEffect, ReadQuorum, ReadSetup, ReadSuccess};
use crate::protocol::quorum::{Primary, QuorumError};
use crate::protocol::version::dvv::{Context, Siblings};
use crate::protocol::version::merging::Reading;
use crate::types::{Epoch, Key, KeyspaceId, Merge, Moment, NodeId, PartitionId, Record, Row};

type Answer = Result<ReadSuccess, QuorumError>;

/// What a read is about; the same from its beginning to its end.
#[derive(Clone)]
struct Subject {
    keyspace: KeyspaceId,
    partition: PartitionId,
    key: Key,
    epoch: Epoch,
    started: Moment,
    deadline: Moment,
}

impl Subject {
    fn lookup(&self, want: Want) -> Lookup {
        let Subject { keyspace, partition, epoch, deadline, .. } = *self;
        Lookup { keyspace, partition, key: self.key.clone(), want, epoch, deadline }
    }
}

/// A read in flight.
pub(crate) struct ReadOperation {
    core: ReadQuorum,
    subject: Subject,
    client: Option<oneshot::Sender<Answer>>,
}

/// What came of a read that succeeded.
pub(super) struct RowRead {
    pub(super) success: ReadSuccess,
    required: u32,
    replicas: u32,
    under_replicated: bool,
}

/// What the core wants done, with what it takes to do it.
enum Order {
    Ask { to: NodeId, want: Want },
    Repair { to: NodeId, record: Record, awaited: bool },
}

impl Coordinator {
    /// Reads a key and waits for its read quorum.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub(crate) async fn read(
        &self,
        keyspace: KeyspaceId,
        key: Key,
        options: &RequestOptions,
    ) -> Result<ReadAnswer, RequestError> {
        // It counts as long as the client waits.
        let _ticket = self.gate.replica.admission.enter()?;
        let started = self.env.now();
        let deadline = started + self.timeout(options.timeout);
        let seen = match keyspace.merge() {
            Merge::Lww => options.check_context_is_version().map(|()| None)?,
            Merge::Siblings | Merge::Counter | Merge::Set => options.seen_of((keyspace, &key))?,
        };
        let read = self.read_row((keyspace, &key), seen, options, (started, deadline)).await?;
        let answer = read_answer(read, (keyspace, &key), self.clock.wall_ms());
        match answer.siblings.len() {
            siblings if options.one && siblings > 1 => {
                Err(RequestError::SeveralSiblings { siblings })
            }
            _ => Ok(answer),
        }
    }

    /// What a read quorum holds of a key.
    ///
    /// # Errors
    /// As [`Coordinator::read`].
    pub(super) async fn read_row(
        &self,
        (keyspace, key): (KeyspaceId, &Key),
        seen: Option<Context>,
        options: &RequestOptions,
        (started, deadline): (Moment, Moment),
    ) -> Result<RowRead, RequestError> {
        loop {
            let topology = self.topology.load();
            let placement = placement(&topology, keyspace, options)?;
            let partition = placement.ring.partition_of(key);
            let ring = placement.read_ring(partition);
            let required = placement.read_quorum(ring, options)?;
            let (subject_key, epoch) = (key.clone(), topology.epoch);
            let subject =
                Subject { keyspace, partition, key: subject_key, epoch, started, deadline };
            let mut setup = self.read_setup(&topology, placement, (required, options), &subject);
            let floor = topology.reap_floor(partition).at;
            let seen = seen.clone().map(|seen| seen.above(floor));
            setup.seen = seen.filter(|it| !it.is_nothing() && !planted(Planted::ContextIgnored));
            let error = match self.begin_read(setup, subject).await {
                Ok(success) => {
                    let replicas = ring.replicas_in_effect();
                    let under_replicated = placement.is_under_replicated();
                    return Ok(RowRead { success, required, replicas, under_replicated });
                }
                Err(error) => error,
            };
            let again = error.is_by_stale_ring() && self.hears_news(epoch, deadline).await;
            if !again {
                return Err(self.fail(error, started));
            }
        }
    }

    fn read_setup(
        &self,
        topology: &Topology,
        placement: &Placement,
        (required, options): (u32, &RequestOptions),
        subject: &Subject,
    ) -> ReadSetup {
        let (partition, deadline) = (subject.partition, subject.deadline);
        let ring = placement.read_ring(partition);
        let mut primaries = self.primaries(&topology.up, ring, partition);
        let hedge_after = self.order(&mut primaries, required, subject.started);
        let is_majority = required >= majority(ring.replicas_in_effect());
        let other = placement.other_ring(partition).filter(|_| is_majority);
        let alongside = other.map(|other| {
            let answering = primaries.len();
            let owners = other.primaries(partition).to_vec();
            let beyond: Vec<NodeId> = owners
                .iter()
                .copied()
                .filter(|it| primaries.iter().all(|p| p.node != *it))
                .collect();
            primaries.extend(beyond.into_iter().map(|node| self.primary(&topology.up, node)));
            // A number that the other owners cannot give is all of them.
            let all = other.replicas_in_effect();
            let required = placement.read_quorum(other, options).unwrap_or(all);
            Alongside { answering, owners, required }
        });
        let blocking_repair = required > 1 || alongside.is_some();
        let at_least = options.context.filter(|seen| {
            // What all owners share needs no looking for, and may have been reaped.
            seen.timestamp > topology.reap_floor(partition).at && !planted(Planted::ContextIgnored)
        });
        ReadSetup {
            primaries,
            required,
            merge: subject.keyspace.merge(),
            at_least,
            seen: None,
            blocking_repair,
            alongside,
            hedge_after,
            deadline,
        }
    }

    /// Puts replicas in the order in which they should be asked; how long one may keep silent
    /// before another is asked, where there is another.
    pub(super) fn order(
        &self,
        primaries: &mut [Primary],
        required: u32,
        now: Moment,
    ) -> Option<Duration> {
        // This node itself first: its answer costs no message.
        primaries.sort_by_key(|primary| primary.node != self.own);
        let own_first = usize::from(primaries.first().is_some_and(|p| p.node == self.own));
        let remote = &mut primaries[own_first..];
        let mut latencies = self.latencies.reads.lock();
        latencies.sort(remote, |primary| primary.node, now);
        (remote.len() + own_first > required as usize)
            .then(|| latencies.hedge_after(remote.iter().map(|p| p.node), now))
    }

    /// Serves what this node itself can answer before anything is queued or sent: a read at ONE on
    /// a replica ends right here.
    async fn begin_read(&self, setup: ReadSetup, subject: Subject) -> Answer {
        let required = setup.required;
        let mut core = ReadQuorum::new(setup, subject.started);
        let mut orders = Vec::new();
        let mut answered = None;
        while let Some(effect) = core.poll() {
            match effect {
                ReadEffect::Ask { to, want } if to == self.own => {
                    match self.read_here(&subject, want) {
                        Some(outcome) => hear(&mut core, to, outcome, subject.started),
                        None => orders.push(Order::Ask { to, want }),
                    }
                }
                effect => answered = sort_effect(effect, &mut orders).or(answered),
            }
        }
        match answered {
            Some(answer) if core.is_done() && orders.is_empty() => answer,
            Some(answer) => {
                let number = self.keep_read(core, subject, orders, None);
                self.note_lingering(Owner::Read.request(number));
                answer
            }
            None => self.continue_read(core, subject, orders, required).await,
        }
    }

    async fn continue_read(
        &self,
        core: ReadQuorum,
        subject: Subject,
        orders: Vec<Order>,
        required: u32,
    ) -> Answer {
        let (client, answer) = oneshot::channel();
        self.keep_read(core, subject, orders, Some(client));
        // The sender goes without an answer only when the node stops under the request.
        answer.await.unwrap_or(Err(stopped(required)))
    }

    /// Keeps a read until it is done, and begins what its core wants done; its number.
    fn keep_read(
        &self,
        core: ReadQuorum,
        subject: Subject,
        orders: Vec<Order>,
        client: Option<oneshot::Sender<Answer>>,
    ) -> u64 {
        let next = core.next_deadline();
        let number = self.reads.insert(ReadOperation { core, subject: subject.clone(), client });
        if let Some(moment) = next {
            self.deadlines.add(moment, Owner::Read.request(number));
        }
        for order in orders {
            self.carry_out_read(number, &subject, order);
        }
        number
    }

    /// Takes one replica's answer.
    pub(super) fn on_found(&self, from: NodeId, number: u64, outcome: Result<Found, Refusal>) {
        let mut asked_at = None;
        self.step_read(number, |core, now| {
            asked_at = core.awaited().find(|(node, _)| *node == from).map(|(_, at)| at);
            hear(core, from, outcome, now);
        });
        if let Some(asked_at) = asked_at {
            let now = self.env.now();
            self.latencies.reads.lock().on_answer(from, now.since(asked_at), now);
        }
    }

    /// Takes one replica's answer to a repair.
    pub(super) fn on_repaired(&self, from: NodeId, number: u64, outcome: Result<(), Refusal>) {
        self.step_read(number, |core, now| match outcome {
            Ok(()) => core.on_repaired(from, now),
            Err(refusal) => core.on_repair_refused(from, refusal, now),
        });
    }

    pub(super) fn on_read_deadline(&self, number: u64) {
        let next = self.reads.step(number, |operation| {
            let hedges = operation.core.next_deadline() < Some(operation.subject.deadline);
            (hedges, false)
        });
        if next == Some(true) {
            self.metrics.reads_hedged.inc();
        }
        let mut silent = Vec::new();
        self.step_read(number, |core, now| {
            silent.extend(core.awaited());
            core.on_tick(now);
        });
        self.note_silence(silent);
        let next = self.reads.step(number, |operation| (operation.core.next_deadline(), false));
        if let Some(Some(moment)) = next {
            self.deadlines.add(moment, Owner::Read.request(number));
        }
    }

    /// Takes into account who has not answered yet.
    fn note_silence(&self, silent: Vec<(NodeId, Moment)>) {
        let now = self.env.now();
        let mut latencies = self.latencies.reads.lock();
        // Nobody is asked before this node itself, however long it takes.
        let others = silent.into_iter().filter(|(node, _)| *node != self.own);
        for (node, asked_at) in others {
            latencies.on_silence(node, now.since(asked_at), now);
        }
    }

    /// Gives one event to a read's core and does what it then wants; `None` when there is no such
    /// read any more.
    pub(super) fn step_read(
        &self,
        number: u64,
        event: impl FnOnce(&mut ReadQuorum, Moment),
    ) -> Option<()> {
        let now = self.env.now();
        let (orders, subject, lingers) = self.reads.step(number, |operation| {
            let waited = operation.client.is_some();
            event(&mut operation.core, now);
            let (orders, done) = (operation.drain(), operation.core.is_done());
            let lingers = waited && operation.client.is_none() && !done;
            ((orders, operation.subject.clone(), lingers), done)
        })?;
        for order in orders {
            self.carry_out_read(number, &subject, order);
        }
        if lingers {
            self.note_lingering(Owner::Read.request(number));
        }
        Some(())
    }

    fn carry_out_read(&self, number: u64, subject: &Subject, order: Order) {
        match order {
            Order::Ask { to, want } if to == self.own => match self.read_here(subject, want) {
                Some(outcome) => self.on_found_here(number, outcome),
                None => self.read_behind(number, subject, want),
            },
            Order::Ask { to, want } => self.ask(number, subject, to, want),
            Order::Repair { to, record, awaited } => {
                self.repair(number, subject, to, record, awaited);
            }
        }
    }

    /// What this node itself holds; `None` where it may have to wait for the disk.
    fn read_here(&self, subject: &Subject, want: Want) -> Option<Result<Found, Refusal>> {
        self.gate.read(&subject.lookup(want)).map_err(Turned::refusal).transpose()
    }

    fn read_behind(&self, number: u64, subject: &Subject, want: Want) {
        let me = Weak::clone(&self.me);
        self.gate.read_behind(subject.lookup(want), move |outcome| {
            if let Some(me) = me.upgrade() {
                me.on_found_here(number, outcome.map_err(Turned::refusal));
            }
        });
    }

    fn on_found_here(&self, number: u64, outcome: Result<Found, Refusal>) {
        self.step_read(number, |core, now| hear(core, self.own, outcome, now));
    }

    fn ask(&self, number: u64, subject: &Subject, to: NodeId, want: Want) {
        let read = Read {
            request: Owner::Read.request(number),
            keyspace: subject.keyspace,
            key: subject.key.clone(),
            want,
            epoch: subject.epoch,
            time_left: subject.deadline.since(self.env.now()),
        };
        let sent = self.transport.send(to, Class::Client, Message::Read(read));
        if let Err(error) = sent {
            self.step_read(number, |core, now| match error {
                SendError::NotConnected { .. } => core.on_unsent(to, now),
                SendError::QueueFull { .. } => core.on_refusal(to, Refusal::Overloaded, now),
            });
        }
    }

    fn repair(&self, number: u64, subject: &Subject, to: NodeId, record: Record, awaited: bool) {
        self.metrics.read_repairs.inc();
        let request = Owner::Read.request(number);
        let row = Row { keyspace: subject.keyspace, key: subject.key.clone(), record };
        let (epoch, time_left) = (subject.epoch, subject.deadline.since(self.env.now()));
        let class = if awaited { Class::Client } else { Class::Repair };
        let refused = if to == self.own {
            let reply_to = ReplyTo::Own(request, None);
            let urgency = (class, time_left);
            let taken = self.gate.write(row, subject.partition, epoch, urgency, reply_to);
            taken.map_err(Turned::refusal).err()
        } else if !self.gate.replica.admission.admits(class) {
            Some(Refusal::Overloaded)
        } else {
            let write = Write { request, row, epoch, hint_for: None, seen: None, class, time_left };
            // What could not be sent is as good as refused: nothing was changed.
            self.transport.send(to, class, Message::Write(write)).err().map(|_| Refusal::NotServing)
        };
        if let Some(refusal) = refused {
            self.step_read(number, |core, now| core.on_repair_refused(to, refusal, now));
        }
    }
}

impl ReadOperation {
    /// Hears the core out: answers the client here, returns what must be done outside the lock.
    fn drain(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        while let Some(effect) = self.core.poll() {
            // The client is let go of only with its answer: other effects come before it.
            if let Some(answer) = sort_effect(effect, &mut orders)
                && let Some(client) = self.client.take()
            {
                // A client that went away does not end its read: repairs go on.
                let _client_gone = client.send(answer);
            }
        }
        orders
    }
}

fn sort_effect(effect: ReadEffect, orders: &mut Vec<Order>) -> Option<Answer> {
    match effect {
        ReadEffect::Ask { to, want } => orders.push(Order::Ask { to, want }),
        ReadEffect::Repair { to, record, awaited } => {
            orders.push(Order::Repair { to, record, awaited });
        }
        ReadEffect::Answer(answer) => return Some(answer),
    }
    None
}

fn hear(core: &mut ReadQuorum, from: NodeId, outcome: Result<Found, Refusal>, now: Moment) {
    match outcome {
        Ok(found) => core.on_found(from, found, now),
        Err(refusal) => core.on_refusal(from, refusal, now),
    }
}

/// What the reader is told when the wall clock shows `wall_ms`. An expired record has its version,
/// as a tombstone does, and no value.
fn read_answer(read: RowRead, (keyspace, key): (KeyspaceId, &Key), wall_ms: u64) -> ReadAnswer {
    let RowRead { success, required, replicas, under_replicated } = read;
    let receipt = Receipt {
        version: success.record.as_ref().map(|record| record.version),
        required,
        replicas,
        acknowledged: success.answered,
        repaired: success.repaired,
        under_replicated,
        ..Receipt::default()
    };
    let merge = keyspace.merge();
    let joined = success.record.as_ref().filter(|_| merge.joins()).map(Siblings::of_record);
    // What a replica holds for such a row and is none, which nobody writes, is shown as it is.
    if let Some(Ok(row)) = joined {
        let Reading { value, mut siblings, elements } = Reading::of(&row, merge);
        let context = Some(row.context().to_text((keyspace, key)));
        let count = (merge == Merge::Siblings).then_some(siblings.len() as u32);
        let receipt = Receipt { siblings: count, context, ..receipt };
        if siblings.len() == 1 {
            siblings.clear();
        }
        return ReadAnswer { value, siblings, elements, receipt };
    }
    let expires_at = success.record.as_ref().and_then(|record| record.expires_at);
    let living = success.record.filter(|record| !record.is_expired(wall_ms));
    let value = living.and_then(|record| record.value);
    ReadAnswer { value, receipt: Receipt { expires_at, ..receipt }, ..ReadAnswer::default() }
}
