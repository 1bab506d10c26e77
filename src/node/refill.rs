//! Fills a node that lacks rows: one that lost its engine, or one that has just joined.
//!
//! For each leaderless keyspace and each partition that the node is a primary of there, it lists
//! the rows of those who held it without this node: the other primaries, and the primaries of the
//! ring that this node is not on. Until it has heard enough of them that every write acknowledged
//! by the keyspace's default write quorum must be among what it heard, the node's answers do not
//! count towards read quorums.
//!
//! Which keyspaces there are, the node learns from the system group, so it is not complete before
//! that knows it in its present life. A keyspace that is created later was never placed on a ring
//! without this node.
//!
//! Caveat: writes that race a change of the ring on nodes that do not know of it yet are not
//! fenced; that takes ring epochs agreed by all (see `docs/ARCHITECTURE.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::config::Replication;
use crate::net::transport::Transport;
use crate::node::committer::{Committer, ReplyTo, Submission};
use crate::node::coordinator::Owner;
use crate::node::env::Env;
use crate::node::health::Health;
use crate::node::tasks::Stop;
use crate::node::topology::{Placement, Topology, TopologyCell};
use crate::protocol::message::{Class, Message, Refusal, Scan, ScanPage, ScanReply};
use crate::protocol::quorum::requirement::default_in_effect;
use crate::protocol::ring::Ring;
use crate::telemetry::Metrics;
use crate::types::{Key, KeyspaceId, Moment, NodeId, PartitionId, Row};

/// Bytes of one page.
const PAGE_BYTES: u32 = 256 << 10;

/// How long one page is waited for before it is asked for again.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a source that cannot serve now is left alone.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// One partition of one keyspace.
type Place = (KeyspaceId, PartitionId);

/// One source of one of them.
type Piece = (Place, NodeId);

struct Waiting {
    from: NodeId,
    page: oneshot::Sender<Result<ScanPage, Refusal>>,
}

/// Pulls the rows that this node lacks.
pub(crate) struct Refill {
    pub(crate) own: NodeId,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) state: RefillState,
}

/// What a refill has got so far.
#[derive(Default)]
pub(crate) struct RefillState {
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    next: AtomicU64,
    heard: Mutex<BTreeSet<Piece>>,
    woken: Notify,
}

impl Refill {
    /// Fills the node and then calls `completed`, unless asked to stop before.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop, completed: impl FnOnce()) {
        while self.health.is_rebuilding() && !stop.is_requested() {
            let topology = self.topology.load();
            let plan = Plan::new(&topology, self.own);
            tokio::select! { biased;
                () = stop.requested() => return,
                () = self.pull(&plan) => {}
            }
            if self.is_complete(&plan) {
                return completed();
            }
            let retry = self.env.now() + RETRY_INTERVAL;
            tokio::select! { biased;
                () = stop.requested() => return,
                () = self.state.woken.notified() => {}
                () = self.env.sleep_until(retry) => {}
            }
        }
    }

    /// Looks at once whether more can be pulled.
    pub(crate) fn wake(&self) {
        self.state.woken.notify_one();
    }

    /// Takes a page, or why there is none.
    pub(crate) fn on_page(&self, from: NodeId, reply: ScanReply) {
        let Some((Owner::Scan, number)) = Owner::of(reply.request) else { return };
        let mut waiting = self.state.waiting.lock();
        if waiting.get(&number).is_some_and(|waiting| waiting.from == from)
            && let Some(waiting) = waiting.remove(&number)
        {
            // Who gave up on the page asks for it again.
            let _gave_up = waiting.page.send(reply.outcome);
        }
    }

    /// Stops waiting for a peer whose stream is gone.
    pub(crate) fn on_disconnected(&self, peer: NodeId) {
        self.state.waiting.lock().retain(|_, waiting| waiting.from != peer);
    }

    /// Pieces heard and pieces in all, for status.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let plan = Plan::new(&self.topology.load(), self.own);
        let heard = self.state.heard.lock();
        (plan.pieces().filter(|piece| heard.contains(piece)).count(), plan.pieces().count())
    }

    fn is_complete(&self, plan: &Plan) -> bool {
        // A plan that no longer matches the rings is made anew.
        let topology = self.topology.load();
        let current = Plan::new(&topology, self.own);
        let heard = self.state.heard.lock();
        let is_heard = |piece: &Piece| heard.contains(piece);
        topology.is_admitted
            && current == *plan
            && current.places.iter().all(|(place, wanted)| {
                let count = wanted.sources.iter().filter(|s| is_heard(&(*place, **s))).count();
                let reachable_left = wanted.sources.iter().any(|source| {
                    !is_heard(&(*place, *source)) && self.transport.is_connected(*source)
                });
                count >= wanted.enough && !reachable_left
            })
    }

    /// Lists every piece of the plan that can be reached and was not heard yet. A source that
    /// refuses is left alone until the next time.
    async fn pull(&self, plan: &Plan) {
        let mut refusing = BTreeSet::new();
        for piece in plan.pieces() {
            let known = self.state.heard.lock().contains(&piece);
            if known || refusing.contains(&piece.1) || !self.transport.is_connected(piece.1) {
                continue;
            }
            match self.pull_piece(piece).await {
                Ok(()) => {
                    self.state.heard.lock().insert(piece);
                }
                Err(refusal) => {
                    let (keyspace, partition) = (piece.0.0.0, piece.0.1.0);
                    tracing::debug!(keyspace, partition, source = %piece.1, %refusal, "refill");
                    refusing.insert(piece.1);
                }
            }
        }
    }

    async fn pull_piece(&self, (place, source): Piece) -> Result<(), Refusal> {
        let mut after = None;
        loop {
            let page = self.page(place, source, after.clone()).await?;
            after = page.rows.last().map(|(key, _)| key.clone()).or(after);
            let done = page.done;
            self.store(place, page).await?;
            if done {
                return Ok(());
            }
        }
    }

    async fn page(
        &self,
        (keyspace, partition): Place,
        source: NodeId,
        after: Option<Key>,
    ) -> Result<ScanPage, Refusal> {
        let number = self.state.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.state.waiting.lock().insert(number, Waiting { from: source, page: sender });
        let scan = Scan {
            request: Owner::Scan.request(number),
            keyspace,
            partition,
            after,
            page_bytes_max: PAGE_BYTES,
        };
        let sent = self.transport.send(source, Class::Transfer, Message::Scan(scan));
        let outcome = match sent {
            Err(_) => Err(Refusal::NotServing),
            Ok(()) => tokio::select! { biased;
                page = receiver => page.unwrap_or(Err(Refusal::NotServing)),
                () = self.env.sleep_until(self.env.now() + PAGE_TIMEOUT) => Err(Refusal::Expired),
            },
        };
        self.state.waiting.lock().remove(&number);
        outcome
    }

    async fn store(&self, (keyspace, partition): Place, page: ScanPage) -> Result<(), Refusal> {
        if page.rows.is_empty() {
            return Ok(());
        }
        self.metrics.refill_rows.inc_by(page.rows.len() as u64);
        let (sender, durable) = oneshot::channel();
        let mut waiter = Some(sender);
        let last = page.rows.len() - 1;
        let submissions = page.rows.into_iter().enumerate().map(|(index, (key, record))| {
            let waiter = if index == last { waiter.take() } else { None };
            let reply_to = waiter.map_or(ReplyTo::Nobody, ReplyTo::Waiter);
            let row = Row { keyspace, key, record };
            Submission { row, partition, expires: Moment(u64::MAX), reply_to }
        });
        self.committer.submit_together(submissions)?;
        durable.await.unwrap_or(Err(Refusal::NotServing))
    }
}

/// Whom to hear about which partition of which keyspace.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    places: BTreeMap<Place, Wanted>,
}

/// The sources of one partition.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    sources: BTreeSet<NodeId>,
    /// How many of them must have been heard.
    enough: usize,
}

impl Plan {
    fn new(topology: &Topology, own: NodeId) -> Plan {
        let mut rings_before: BTreeMap<u32, Ring> = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (keyspace, placement) in topology.placements() {
            let factor = placement.replication.factor;
            let before =
                rings_before.entry(factor).or_insert_with(|| ring_without(&placement.ring, own));
            for partition in placement.ring.partitions_of(own) {
                let wanted = Wanted::new(placement, before, partition, own);
                places.insert((keyspace, partition), wanted);
            }
        }
        Plan { places }
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        self.places
            .iter()
            .flat_map(|(place, wanted)| wanted.sources.iter().map(move |source| (*place, *source)))
    }
}

impl Wanted {
    fn new(placement: &Placement, before: &Ring, partition: PartitionId, own: NodeId) -> Wanted {
        let Replication { factor, write_quorum, .. } = placement.replication;
        let in_effect = before.replicas_in_effect();
        let write_quorum = default_in_effect(write_quorum, factor, in_effect) as usize;
        let mut sources: BTreeSet<NodeId> = before.primaries(partition).iter().copied().collect();
        // Any write quorum among those that held the partition meets any set of this size.
        let enough = sources.len().saturating_sub(write_quorum) + 1;
        let enough = enough.min(sources.len());
        let primaries = placement.ring.primaries(partition).iter();
        sources.extend(primaries.filter(|node| **node != own));
        Wanted { sources, enough }
    }
}

/// The ring as it is without a node.
fn ring_without(ring: &Ring, node: NodeId) -> Ring {
    let others: Vec<_> =
        ring.members().iter().filter(|member| member.node != node).cloned().collect();
    Ring::new(ring.epoch(), ring.partitions(), ring.replication_factor(), &others)
        .expect("invariant: a valid ring stays valid with one member less")
}

#[cfg(test)]
mod tests;
