//! Drives client requests: asks the quorum cores what to do and does it.
//!
//! An operation lives in a table ([`pending::Pending`]) under the number that its messages
//! carry. Whoever has an event for it — a reply, a commit, a lost connection, a deadline —
//! steps its core under a short lock and then carries out what the core wants. The client's
//! task only waits for the answer; the operation may outlive it, to hear late replies, keep
//! hints and repair.

pub(crate) mod deadlines;
pub(crate) mod latency;
mod list;
mod mint;
pub(crate) mod pending;
mod read;
mod write;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Limits;
use crate::net::transport::Transport;
use crate::node::clock::Clock;
use crate::node::coordinator::deadlines::Deadlines;
use crate::node::coordinator::latency::ReplicaLatencies;
use crate::node::coordinator::pending::Pending;
use crate::node::coordinator::read::ReadOperation;
use crate::node::coordinator::write::WriteOperation;
use crate::node::env::Env;
use crate::node::errands::Errands;
use crate::node::gate::Gate;
use crate::node::hinted_handoff::HintedHandoff;
use crate::node::request::{RequestError, RequestOptions};
use crate::node::tasks::Stop;
use crate::node::topology::{Placement, Topology, TopologyCell};
use crate::protocol::message::{Found, Refusal, RequestId};
use crate::protocol::quorum::{Primary, QuorumError};
use crate::protocol::ring::Ring;
use crate::protocol::system::keyspace::DEFAULT_NAME;
use crate::telemetry::Metrics;
use crate::types::{Epoch, Incarnation, KeyspaceId, Moment, NodeId, PartitionId, Version};

/// Whose request a number names: kept in its top byte, so that a reply finds its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// A write that this node coordinates.
    Write,
    /// A read that this node coordinates, and the repairs that it sends.
    Read,
    /// A hint on its way.
    Hint,
    /// A page of a partition.
    Scan,
    /// A request that another node was handed.
    Forward,
    /// A question of an exchange, or a row that it copies.
    Exchange,
    /// A page that a client wants listed.
    List,
    /// A write that another node is to mint.
    Mint,
}

/// All of them, in order.
const OWNERS: [Owner; 8] = [
    Owner::Write,
    Owner::Read,
    Owner::Hint,
    Owner::Scan,
    Owner::Forward,
    Owner::Exchange,
    Owner::List,
    Owner::Mint,
];

const OWNER_SHIFT: u32 = 56;

/// How many times as many answered requests may wait for late replicas as may wait for their
/// answers. One of them takes a place in a table, and its row, until the last replica has replied:
/// with the default limit this is two seconds' worth of 8,000 requests a second of which one
/// replica stays silent, and two seconds are the default deadline.
const LINGERING_PER_REQUEST: usize = 4;

/// How many numbers a request id can carry besides its owner.
pub(crate) const NUMBERS: u64 = 1 << OWNER_SHIFT;

impl Owner {
    /// The request id for one of the owner's own numbers.
    pub(crate) fn request(self, number: u64) -> RequestId {
        RequestId(((self as u64) << OWNER_SHIFT) | (number & (NUMBERS - 1)))
    }

    /// Whose request it is, and the owner's number for it; `None` for an id of another making.
    pub(crate) fn of(request: RequestId) -> Option<(Owner, u64)> {
        let number = request.0 & (NUMBERS - 1);
        let owner = OWNERS.into_iter().find(|owner| *owner as u64 == request.0 >> OWNER_SHIFT)?;
        Some((owner, number))
    }
}

/// Coordinates reads and writes.
pub(crate) struct Coordinator {
    /// For what comes back to it.
    pub(crate) me: Weak<Coordinator>,
    pub(crate) own: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) limits: Limits,
    pub(crate) sloppy: bool,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) handoff: Arc<HintedHandoff>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) latencies: ReplicaLatencies,
    pub(crate) deadlines: Deadlines<RequestId>,
    pub(crate) writes: Pending<WriteOperation>,
    pub(crate) reads: Pending<ReadOperation>,
    /// Writes that other nodes are to mint.
    pub(crate) mints: Errands,
    /// Requests that were answered before they were done, in this order; most of them are by now.
    pub(crate) lingering: Mutex<VecDeque<RequestId>>,
}

impl Coordinator {
    /// Takes a replica's answer to a write, or to a repair.
    pub(crate) fn on_write_reply(
        &self,
        from: NodeId,
        request: RequestId,
        outcome: Result<Option<Version>, Refusal>,
    ) {
        match Owner::of(request) {
            Some((Owner::Write, number)) => self.on_acknowledged(from, number, outcome),
            Some((Owner::Read, number)) => self.on_repaired(from, number, outcome.map(drop)),
            Some((Owner::Hint, number)) => self.handoff.on_reply(from, number, outcome.map(drop)),
            Some((
                Owner::Scan | Owner::Forward | Owner::Exchange | Owner::List | Owner::Mint,
                _,
            ))
            | None => {}
        }
    }

    /// Takes a replica's answer to a read.
    pub(crate) fn on_read_reply(
        &self,
        from: NodeId,
        request: RequestId,
        outcome: Result<Found, Refusal>,
    ) {
        if let Some((Owner::Read, number)) = Owner::of(request) {
            self.on_found(from, number, outcome);
        }
    }

    /// Tells every operation that a peer's stream is gone.
    pub(crate) fn on_disconnected(&self, peer: NodeId) {
        for number in self.writes.numbers() {
            self.step_write(number, |core, now| core.on_lost(peer, now));
        }
        for number in self.reads.numbers() {
            self.step_read(number, |core, now| core.on_lost(peer, now));
        }
        self.mints.on_disconnected(peer);
    }

    /// Serves deadlines until asked to stop.
    pub(crate) async fn run_deadlines(self: Arc<Self>, stop: Stop) {
        let serve = |request| match Owner::of(request) {
            Some((Owner::Write, number)) => self.on_write_deadline(number),
            Some((Owner::Read, number)) => self.on_read_deadline(number),
            _ => {}
        };
        self.deadlines.run(Arc::clone(&self.env), stop, serve).await;
    }

    /// Requests under way, answered ones with late replicas included.
    pub(crate) fn operations(&self) -> usize {
        self.writes.len() + self.reads.len()
    }

    /// Notes that a request was answered and goes on for the sake of late replicas. Of too many
    /// such requests the one that was answered first gives them up: a replica that is slow, and
    /// not dead, would else make them gather until their deadlines.
    fn note_lingering(&self, request: RequestId) {
        let max = self.limits.requests_in_flight_max.saturating_mul(LINGERING_PER_REQUEST);
        let mut lingering = self.lingering.lock();
        lingering.push_back(request);
        let first = if lingering.len() > max { lingering.pop_front() } else { None };
        drop(lingering);
        if let Some(first) = first
            && self.give_up_late_replicas(first)
        {
            self.metrics.requests_cut_short.inc();
        }
    }

    /// Ends a request as its deadline would; false when it has ended already.
    fn give_up_late_replicas(&self, request: RequestId) -> bool {
        const OVER: Moment = Moment(u64::MAX);
        match Owner::of(request) {
            Some((Owner::Write, number)) => {
                self.step_write(number, |core, _| core.on_tick(OVER)).is_some()
            }
            Some((Owner::Read, number)) => {
                self.step_read(number, |core, _| core.on_tick(OVER)).is_some()
            }
            _ => false,
        }
    }

    /// A partition's primaries in preference order, each with whether it can be reached now.
    fn primaries(
        &self,
        up: &BTreeSet<NodeId>,
        ring: &Ring,
        partition: PartitionId,
    ) -> Vec<Primary> {
        ring.primaries(partition).iter().map(|node| self.primary(up, *node)).collect()
    }

    fn primary(&self, up: &BTreeSet<NodeId>, node: NodeId) -> Primary {
        Primary { node, reachable: self.reach(up, node) }
    }

    /// Waits until the ring is newer than that of a request which was refused for it; false when
    /// the deadline comes first.
    async fn hears_news(&self, epoch: Epoch, deadline: Moment) -> bool {
        self.topology.newer_than(epoch, &*self.env, deadline).await
    }

    fn reach(&self, up: &BTreeSet<NodeId>, node: NodeId) -> bool {
        node == self.own || (up.contains(&node) && self.transport.is_connected(node))
    }

    fn timeout(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.limits.request_timeout).min(self.limits.request_timeout_max)
    }

    fn fail(&self, error: QuorumError, started: Moment) -> RequestError {
        match error {
            QuorumError::Unavailable { required, reachable } => {
                RequestError::QuorumUnavailable { required, reachable }
            }
            QuorumError::Timeout { required, received, outcome } => {
                self.metrics.quorum_timeouts.inc();
                let waited = self.env.now().since(started).as_millis();
                let waited_ms = u64::try_from(waited).unwrap_or(u64::MAX);
                RequestError::Timeout { required, received, waited_ms, outcome }
            }
            QuorumError::Failed { required, received, refusals, outcome } => {
                RequestError::QuorumFailed { required, received, refusals, outcome }
            }
            QuorumError::Behind { wanted, newest, answered } => {
                self.metrics.contexts_not_reached.inc();
                RequestError::ContextNotReached { wanted, newest, answered }
            }
        }
    }
}

/// Where the rows of a request's keyspace lie.
fn placement<'t>(
    topology: &'t Topology,
    keyspace: KeyspaceId,
    options: &RequestOptions,
) -> Result<&'t Placement, RequestError> {
    topology.placement(keyspace).ok_or_else(|| {
        let name = options.keyspace.as_deref().unwrap_or(DEFAULT_NAME).to_owned();
        RequestError::UnknownKeyspace { name }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_finds_its_owner_again() {
        for owner in OWNERS {
            assert_eq!(Owner::of(owner.request(77)), Some((owner, 77)));
        }
        assert_eq!(Owner::of(RequestId(u64::MAX)), None);
    }
}
