//! Fills a node that has lost its engine.
//!
//! For each leaderless keyspace and each partition that the node is a primary of there, it lists
//! the rows of the other primaries, and of those that would be primaries without this node. Until
//! it has heard enough of them that every write acknowledged by the keyspace's default write quorum
//! must be among what it heard, the node's answers do not count towards read quorums.
//!
//! The node was itself among those who acknowledged, so each of its writes may lie on one replica
//! less than its quorum had, and more of the other primaries must be heard. A source that is still
//! refilling, or whose rows are damaged, does not count, unless all sources have been heard: then
//! nobody knows more.
//!
//! Which keyspaces there are, the node learns from the system group, so it is not complete before
//! that knows it in its present life. A keyspace that is created later was never placed on a ring
//! without this node. Partitions that move to the node are another matter:
//! [`crate::node::transfers`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::net::transport::Transport;
use crate::node::admission::Admission;
use crate::node::env::Env;
use crate::node::health::Health;
use crate::node::pacing::PacedRate;
use crate::node::pages::{Pages, Place, Wish};
use crate::node::tasks::Stop;
use crate::node::topology::{Placement, Topology, TopologyCell};
use crate::protocol::message::{Class, Refusal};
use crate::protocol::ring::Ring;
use crate::protocol::system::placing::{LayoutId, partition_ids};
use crate::telemetry::Metrics;
use crate::types::{NodeId, PartitionId};

/// How long a source that cannot serve now is left alone.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// One source of one of them.
type Piece = (Place, NodeId);

/// Pulls the rows that this node lacks.
pub(crate) struct Refill {
    pub(crate) own: NodeId,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) rate: PacedRate,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) state: RefillState,
}

/// What a refill has got so far.
#[derive(Default)]
pub(crate) struct RefillState {
    heard: Mutex<Heard>,
    woken: Notify,
}

/// The pieces that were heard, and whether their source was complete and sound.
type Heard = BTreeMap<Piece, bool>;

impl Refill {
    /// Fills the node and then calls `completed`, unless asked to stop before.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop, completed: impl FnOnce()) {
        while self.health.is_rebuilding() && !stop.is_requested() {
            let topology = self.topology.load();
            let plan = self.plan(&topology);
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

    /// Looks at once whether more can be pulled. A source that was not complete may be so by now.
    pub(crate) fn wake(&self) {
        self.state.heard.lock().retain(|_, complete| *complete);
        self.state.woken.notify_one();
    }

    /// Pieces heard and pieces in all, for status.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let plan = self.plan(&self.topology.load());
        let heard = self.state.heard.lock();
        (plan.pieces().filter(|piece| heard.contains_key(piece)).count(), plan.pieces().count())
    }

    fn is_complete(&self, plan: &Plan) -> bool {
        // A plan that no longer matches the rings is made anew.
        let topology = self.topology.load();
        let current = self.plan(&topology);
        let heard = self.state.heard.lock();
        let connected = |source| self.transport.is_connected(source);
        topology.is_admitted
            && current == *plan
            && current.places.iter().all(|(place, wanted)| {
                wanted.is_satisfied(|source| heard.get(&(*place, source)).copied(), connected)
            })
    }

    fn plan(&self, topology: &Topology) -> Plan {
        Plan::new(topology, self.own)
    }

    /// Lists every piece of the plan that can be reached and was not heard yet. A source that
    /// refuses is left alone until the next time.
    async fn pull(&self, plan: &Plan) {
        let mut refusing = BTreeSet::new();
        for piece in plan.pieces() {
            let known = self.state.heard.lock().contains_key(&piece);
            if known || refusing.contains(&piece.1) || !self.transport.is_connected(piece.1) {
                continue;
            }
            match self.pull_piece(piece).await {
                Ok(complete) => {
                    self.state.heard.lock().insert(piece, complete);
                }
                Err(refusal) => {
                    let (keyspace, partition) = (piece.0.0.0, piece.0.1.0);
                    tracing::debug!(keyspace, partition, source = %piece.1, %refusal, "refill");
                    refusing.insert(piece.1);
                }
            }
        }
    }

    /// Whether the source was complete and sound all along.
    async fn pull_piece(&self, (place, source): Piece) -> Result<bool, Refusal> {
        let (mut after, mut complete) = (None, true);
        loop {
            self.admission.wait(Class::Transfer).await;
            self.rate.ready().await;
            let wish = Wish { after: after.clone(), ..Wish::default() };
            let reply = self.pages.ask(place, source, wish).await?;
            let page = reply.outcome?;
            complete &= reply.complete && page.damaged.is_empty();
            self.metrics.damaged_rows_missed.inc_by(page.damaged.len() as u64);
            after = page.rows.last().map(|(key, _)| key.clone()).or(after);
            let done = page.done;
            self.metrics.refill_rows.inc_by(page.rows.len() as u64);
            self.rate.pay(page.cost_bytes());
            self.pages.keep(place, page).await?;
            if done {
                return Ok(complete);
            }
        }
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
    /// Those among them on whom acknowledged writes must be found.
    holders: BTreeSet<NodeId>,
    /// How many of the holders must have been heard.
    enough: usize,
}

impl Plan {
    fn new(topology: &Topology, own: NodeId) -> Plan {
        let mut rings_before: BTreeMap<(LayoutId, u32), Ring> = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (keyspace, placement) in topology.placements() {
            for partition in partition_ids(placement.ring.partitions()) {
                let ring = placement.read_ring(partition);
                if ring.primaries(partition).contains(&own) {
                    let lies = (placement.read_layout(partition), ring.replication_factor());
                    let before = rings_before.entry(lies);
                    let before = before.or_insert_with(|| ring_without(ring, own));
                    let wanted = Wanted::after_loss(placement, (ring, before), partition, own);
                    places.insert((keyspace, partition), wanted);
                }
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
    /// Any write quorum of the primaries that this node was in meets any set of this size among the
    /// others. (A write that this node alone acknowledged is lost, whoever is heard.)
    fn after_loss(
        placement: &Placement,
        (ring, before): (&Ring, &Ring),
        at: PartitionId,
        own: NodeId,
    ) -> Wanted {
        let holders = others(ring, at, own);
        let without_own = placement.usual_write_quorum(ring).saturating_sub(1);
        let enough = holders.len().saturating_sub(without_own) + 1;
        Wanted::new(before.primaries(at).iter().copied().collect(), holders, enough)
    }

    fn new(others: BTreeSet<NodeId>, holders: BTreeSet<NodeId>, enough: usize) -> Wanted {
        let enough = enough.min(holders.len());
        Wanted { sources: &others | &holders, holders, enough }
    }

    /// `heard` says of a source whether it was complete, if it was heard.
    fn is_satisfied(
        &self,
        heard: impl Fn(NodeId) -> Option<bool>,
        connected: impl Fn(NodeId) -> bool,
    ) -> bool {
        let mut unheard = self.sources.iter().filter(|source| heard(**source).is_none()).peekable();
        if unheard.peek().is_none() {
            return true;
        }
        let complete = self.holders.iter().filter(|holder| heard(**holder) == Some(true)).count();
        complete >= self.enough && !unheard.any(|source| connected(*source))
    }
}

/// The primaries of a partition but one.
fn others(ring: &Ring, partition: PartitionId, own: NodeId) -> BTreeSet<NodeId> {
    ring.primaries(partition).iter().copied().filter(|node| *node != own).collect()
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
