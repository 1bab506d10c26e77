//! One write: stamp it, send it to all replicas, answer at W acknowledgements, hint the absent.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::net::transport::SendError;
use crate::node::committer::ReplyTo;
use crate::node::coordinator::{Coordinator, Owner, placement};
use crate::node::gate::Turned;
use crate::node::request::{Receipt, RequestError, RequestOptions};
use crate::node::topology::{Placement, Topology, WriteRings};
use crate::protocol::expiry::expiry;
use crate::protocol::message::{Class, Message, Refusal, RequestId, Write};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::quorum::write::{Coming, WriteEffect, WriteQuorum, WriteSetup, WriteSuccess};
use crate::protocol::quorum::{Outcome, Primary, QuorumError};
use crate::protocol::ring::Ring;
use crate::protocol::version::merging::Change;
use crate::types::{
    Epoch, Expiry, Key, KeyspaceId, Moment, NodeId, PartitionId, Record, Row, Version,
};

type Answer = Result<Written, QuorumError>;

/// What a write came to.
struct Written {
    success: WriteSuccess,
    /// Versions that it met and its writer had not seen.
    unseen: Vec<Version>,
}

/// Whom a write is sent to, by which version of the ring.
pub(super) struct Aimed {
    pub(super) setup: WriteSetup,
    pub(super) partition: PartitionId,
    pub(super) epoch: Epoch,
    /// Replicas in effect.
    replicas: u32,
}

/// A write in flight.
pub(crate) struct WriteOperation {
    core: WriteQuorum,
    row: Row,
    /// What its writer had seen, if it told, and what it met beyond that.
    seen: Option<Version>,
    unseen: BTreeSet<Version>,
    partition: PartitionId,
    epoch: Epoch,
    started: Moment,
    deadline: Moment,
    client: Option<oneshot::Sender<Answer>>,
    /// Primaries whose hint was not admitted; the receipt must not name them as hinted.
    unhinted: Vec<NodeId>,
}

/// What the core wants done, with what it takes to do it.
enum Order {
    Send { to: NodeId, write: Write, partition: PartitionId },
    Hint { target: NodeId, row: Row, waited: Duration },
}

impl Coordinator {
    /// Writes a record (a tombstone when `value` is `None`) and waits for its write quorum.
    ///
    /// # Errors
    /// Any [`RequestError`]; its outcome tells what is known of the effect.
    pub(crate) async fn write(
        &self,
        keyspace: KeyspaceId,
        key: Key,
        value: Option<Bytes>,
        options: &RequestOptions,
    ) -> Result<Receipt, RequestError> {
        if keyspace.merge().joins() {
            let change = value.map_or(Change::Delete, Change::Put);
            let changed = self.change((keyspace, key), change, options).await;
            return changed.map(|(_, receipt)| receipt);
        }
        // It counts as long as the client waits.
        let _ticket = self.gate.replica.admission.enter()?;
        let started = self.env.now();
        let deadline = started + self.timeout(options.timeout);
        options.check_context_is_version()?;
        let expires_at = self.expires_at(options)?;
        let version = self.stamp(options)?;
        let record = Record::new(version, value).expiring(expires_at);
        let row = Row { keyspace, key, record };
        let receipt = self.replicate(row, options, (started, deadline), false).await?;
        Ok(Receipt { expires_at, ..receipt })
    }

    /// Sends a row to all its owners and waits for its write quorum. `may_exist` says that some
    /// node has it already.
    pub(super) async fn replicate(
        &self,
        row: Row,
        options: &RequestOptions,
        (started, deadline): (Moment, Moment),
        mut may_exist: bool,
    ) -> Result<Receipt, RequestError> {
        let (keyspace, version) = (row.keyspace, row.record.version);
        loop {
            let topology = self.topology.load();
            let aimed = match self.aim(&topology, (keyspace, &row.key), options, deadline) {
                Ok(aimed) => aimed,
                Err(_) if may_exist => {
                    let (refusals, outcome) = (Vec::new(), Outcome::Unknown);
                    let lost = QuorumError::Failed { required: 1, received: 0, refusals, outcome };
                    return Err(self.fail(lost, started));
                }
                Err(error) => return Err(error),
            };
            let required = aimed.setup.required;
            let replicas = aimed.replicas;
            let answer = self.begin_write(aimed, row.clone(), options.context, started).await;
            let error = match answer {
                Ok(Written { success, unseen }) => {
                    let placement = placement(&topology, keyspace, options)?;
                    let receipt = receipt(success, version, (required, replicas), placement);
                    return Ok(Receipt { unseen, ..receipt });
                }
                Err(error) => error,
            };
            may_exist |= error.outcome() == Outcome::Unknown;
            let again = error.is_by_stale_ring() && self.hears_news(topology.epoch, deadline).await;
            if !again {
                return Err(self.fail(error.doubted(may_exist), started));
            }
        }
    }

    /// Whom a row is to be sent to by the present ring, and how many of them must have it.
    pub(super) fn aim(
        &self,
        topology: &Topology,
        (keyspace, key): (KeyspaceId, &Key),
        options: &RequestOptions,
        deadline: Moment,
    ) -> Result<Aimed, RequestError> {
        let placement = placement(topology, keyspace, options)?;
        let partition = placement.ring.partition_of(key);
        let WriteRings { present, coming } = placement.write_rings(partition);
        let coming = coming.filter(|_| !planted(Planted::WritesToOldOwnersOnly));
        let required = placement.write_quorum(present, options)?;
        let sloppy = options.sloppy.unwrap_or(self.sloppy);
        let mut primaries = self.primaries(&topology.up, present, partition);
        let coming = coming.map(|ring| Coming {
            present: primaries.len(),
            owners: ring.primaries(partition).to_vec(),
            required: placement.write_quorum(ring, options).unwrap_or(ring.replicas_in_effect()),
        });
        if let Some(Coming { owners, .. }) = &coming {
            let new = owners.iter().filter(|node| !present.primaries(partition).contains(node));
            let new = new.map(|node| self.primary(&topology.up, *node));
            primaries.extend(new.collect::<Vec<Primary>>());
        }
        let mut fallbacks = self.fallbacks(&topology.up, present, partition, sloppy);
        fallbacks.retain(|node| primaries.iter().all(|primary| primary.node != *node));
        let setup = WriteSetup { primaries, fallbacks, required, coming, sloppy, deadline };
        let replicas = present.replicas_in_effect();
        Ok(Aimed { setup, partition, epoch: topology.epoch, replicas })
    }

    async fn begin_write(
        &self,
        aimed: Aimed,
        row: Row,
        seen: Option<Version>,
        started: Moment,
    ) -> Answer {
        let Aimed { setup, partition, epoch, .. } = aimed;
        let (required, deadline) = (setup.required, setup.deadline);
        let core = WriteQuorum::new(setup, started);
        let (client, answer) = oneshot::channel();
        let client = Some(client);
        let unhinted = Vec::new();
        let number = self.writes.insert(WriteOperation {
            core,
            row,
            seen,
            unseen: BTreeSet::new(),
            partition,
            epoch,
            started,
            deadline,
            client,
            unhinted,
        });
        self.deadlines.add(deadline, Owner::Write.request(number));
        self.step_write(number, |_, _| {});
        // The sender goes without an answer only when the node stops under the request.
        answer.await.unwrap_or(Err(stopped(required)))
    }

    /// Takes one replica's answer.
    pub(super) fn on_acknowledged(
        &self,
        from: NodeId,
        number: u64,
        outcome: Result<Option<Version>, Refusal>,
    ) {
        if let Ok(Some(unseen)) = outcome {
            self.note_unseen(number, unseen);
        }
        let started = self.step_write(number, |core, now| match outcome {
            Ok(_) => core.on_ack(from, now),
            Err(refusal) => core.on_refusal(from, refusal, now),
        });
        if let (Some(started), Ok(_)) = (started, outcome) {
            let now = self.env.now();
            self.latencies.writes.lock().on_answer(from, now.since(started), now);
        }
    }

    /// Notes that a write met a version which its writer had not seen: one of the two is discarded,
    /// and that is counted, once for each version that a write meets.
    fn note_unseen(&self, number: u64, version: Version) {
        let is_new = self.writes.step(number, |write| (write.unseen.insert(version), false));
        if is_new == Some(true) {
            self.metrics.concurrent_writes_discarded.inc();
        }
    }

    pub(super) fn on_write_deadline(&self, number: u64) {
        self.step_write(number, WriteQuorum::on_tick);
    }

    /// Gives one event to a write's core and does what it then wants.
    /// When the write began; `None` when there is no such write any more.
    pub(super) fn step_write(
        &self,
        number: u64,
        event: impl FnOnce(&mut WriteQuorum, Moment),
    ) -> Option<Moment> {
        let now = self.env.now();
        let stepped = self.writes.step(number, |operation| {
            let waited = operation.client.is_some();
            event(&mut operation.core, now);
            let (orders, done) = (operation.drain(number, now), operation.core.is_done());
            let lingers = waited && operation.client.is_none() && !done;
            ((orders, lingers, operation.started), done)
        });
        let (orders, lingers, started) = stepped?;
        for order in orders {
            self.carry_out_write(number, order);
        }
        if lingers {
            self.note_lingering(Owner::Write.request(number));
        }
        Some(started)
    }

    fn carry_out_write(&self, number: u64, order: Order) {
        match order {
            Order::Send { to, write, partition } if to == self.own => {
                if let Err(refusal) = self.write_here(number, write, partition) {
                    self.step_write(number, |core, now| core.on_refusal(to, refusal, now));
                }
            }
            Order::Send { to, write, .. } => {
                let sent = self.transport.send(to, Class::Client, Message::Write(write));
                if let Err(error) = sent {
                    self.step_write(number, |core, now| match error {
                        SendError::NotConnected { .. } => core.on_unsent(to, now),
                        // A full queue is overload, and overload is never hinted.
                        SendError::QueueFull { .. } => {
                            core.on_refusal(to, Refusal::Overloaded, now);
                        }
                    });
                }
            }
            Order::Hint { target, row, waited } => {
                if self.transport.is_connected(target) {
                    // It is there and does not answer; one that refused has answered by then.
                    let now = self.env.now();
                    self.latencies.writes.lock().on_silence(target, waited, now);
                }
                // No stream leads to this node itself: a hint for it would never be delivered. Its
                // own copy, refused or late, is mended by the next read.
                if target == self.own || !self.handoff.keep(target, row) {
                    self.writes.step(number, |write| (write.unhinted.push(target), false));
                }
            }
        }
    }

    /// Writes this node's own copy, or as a fallback the hint for the primary that it stands in
    /// for: a row in its own table would never reach that one.
    fn write_here(&self, number: u64, write: Write, partition: PartitionId) -> Result<(), Refusal> {
        let reply_to = ReplyTo::Own(Owner::Write.request(number), write.seen);
        match write.hint_for {
            Some(target) => self.handoff.keep_durably(target, write.row, reply_to),
            None => {
                let Write { row, epoch, class, time_left, .. } = write;
                let taken = self.gate.write(row, partition, epoch, (class, time_left), reply_to);
                taken.map_err(Turned::refusal)
            }
        }
    }

    /// The end of the value's life: counted once, here, so that all replicas have the same.
    fn expires_at(&self, options: &RequestOptions) -> Result<Option<Expiry>, RequestError> {
        let end = options.ttl.map(|ttl| expiry(self.clock.wall_ms(), ttl)).transpose();
        end.map_err(|error| RequestError::Invalid { field: "ttl", problem: error.to_string() })
    }

    fn stamp(&self, options: &RequestOptions) -> Result<Version, RequestError> {
        let above = options.context.map(|context| context.timestamp);
        let timestamp = self.clock.stamp(above).map_err(|error| RequestError::Invalid {
            field: "context",
            problem: error.to_string(),
        })?;
        Ok(Version { timestamp, incarnation: self.incarnation })
    }

    fn fallbacks(
        &self,
        up: &BTreeSet<NodeId>,
        ring: &Ring,
        partition: PartitionId,
        sloppy: bool,
    ) -> Vec<NodeId> {
        if !sloppy {
            return Vec::new();
        }
        let reachable = |node: &NodeId| self.reach(up, *node);
        ring.fallbacks(partition).filter(reachable).collect()
    }
}

impl WriteOperation {
    /// Hears the core out: answers the client here, returns what must be done outside the lock.
    fn drain(&mut self, number: u64, now: Moment) -> Vec<Order> {
        let mut orders = Vec::new();
        while let Some(effect) = self.core.poll() {
            match effect {
                WriteEffect::Send { to, hint_for } => {
                    let write = self.message(Owner::Write.request(number), hint_for, now);
                    orders.push(Order::Send { to, write, partition: self.partition });
                }
                WriteEffect::Hint { target } => {
                    let (row, waited) = (self.row.clone(), now.since(self.started));
                    orders.push(Order::Hint { target, row, waited });
                }
                WriteEffect::Answer(answer) => self.answer(answer),
            }
        }
        orders
    }

    fn message(&self, request: RequestId, hint_for: Option<NodeId>, now: Moment) -> Write {
        let (row, epoch, time_left) = (self.row.clone(), self.epoch, self.deadline.since(now));
        let (seen, class) = (self.seen, Class::Client);
        Write { request, row, epoch, hint_for, seen, class, time_left }
    }

    fn answer(&mut self, answer: Result<WriteSuccess, QuorumError>) {
        let answer = answer.map(|mut success| {
            success.hinted.retain(|target| !self.unhinted.contains(target));
            Written { success, unseen: self.unseen.iter().copied().collect() }
        });
        if let Some(client) = self.client.take() {
            // A client that went away does not end its write.
            let _client_gone = client.send(answer);
        }
    }
}

fn receipt(
    success: WriteSuccess,
    version: Version,
    (required, replicas): (u32, u32),
    placement: &Placement,
) -> Receipt {
    Receipt {
        version: Some(version),
        required,
        replicas,
        acknowledged: success.acknowledged,
        hinted: success.hinted,
        fallbacks: success.fallbacks,
        repaired: Vec::new(),
        under_replicated: placement.is_under_replicated(),
        ..Receipt::default()
    }
}

/// What a request is told when the node stops before its quorum has answered.
pub(super) fn stopped(required: u32) -> QuorumError {
    QuorumError::Timeout {
        required,
        received: 0,
        outcome: crate::protocol::quorum::Outcome::Unknown,
    }
}
