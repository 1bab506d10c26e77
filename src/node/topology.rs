//! Where rows lie and who is alive, as a request is served on it: one immutable value, swapped
//! whole.
//!
//! Every leaderless keyspace has a [`Placement`] of its own. Keyspaces of one replication factor
//! share their rings: one for each layout that partitions lie by or move to
//! ([`crate::protocol::system::placing`]). A key's partition is the same on each. A keyspace of
//! which N is changed has the old one on older layouts, and R and W with it.
//!
//! What a coordinator has decided under one epoch may be out of date where it arrives:
//! [`Topology::admits`] says whether that does harm.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use crate::config::Replication;
use crate::node::env::Env;
use crate::node::request::{RequestError, RequestOptions};
use crate::protocol::message::Refusal;
use crate::protocol::planted::{Planted, planted};
use crate::protocol::quorum::requirement::{Asked, default_in_effect};
use crate::protocol::reaping::ReapFloor;
use crate::protocol::ring::{Ring, RingError};
use crate::protocol::system::SystemState;
use crate::protocol::system::keyspace::{Keyspace, Mode};
use crate::protocol::system::placing::{LayoutId, Located, Placing, partition_ids};
use crate::protocol::system::reaping::Reaping;
use crate::protocol::system::spread::{Factors, Spread};
use crate::types::{Epoch, KeyspaceId, Moment, NodeId, PartitionId};

/// The cluster's keyspaces, as far as placing rows goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keyspaces {
    /// N, R and W of the default keyspace.
    default: Spread,
    /// Those of the other leaderless keyspaces.
    quorum: BTreeMap<KeyspaceId, Spread>,
    strong: BTreeSet<KeyspaceId>,
    /// All ids below this one have been given out.
    next: KeyspaceId,
}

impl Keyspaces {
    /// What a node knows that has not heard of the system group yet.
    pub(crate) fn founding(default: Replication) -> Keyspaces {
        let next = KeyspaceId(KeyspaceId::DEFAULT.0 + 1);
        let default = Spread::even(default);
        Keyspaces { default, quorum: BTreeMap::new(), strong: BTreeSet::new(), next }
    }

    /// What the system group has decided.
    pub(crate) fn decided(state: &SystemState) -> Keyspaces {
        let of_mode = |mode| move |keyspace: &&Keyspace| keyspace.mode == mode;
        let quorum = state.keyspaces().filter(of_mode(Mode::Quorum));
        let mut quorum: BTreeMap<KeyspaceId, Spread> =
            quorum.map(|keyspace| (keyspace.id, keyspace.spread())).collect();
        let default = quorum.remove(&KeyspaceId::DEFAULT);
        let strong = state.keyspaces().filter(of_mode(Mode::Strong));
        Keyspaces {
            default: default.unwrap_or_else(|| Spread::even(state.settings().replication)),
            quorum,
            strong: strong.map(|keyspace| keyspace.id).collect(),
            next: state.next_keyspace(),
        }
    }

    fn is_dropped(&self, keyspace: KeyspaceId) -> bool {
        keyspace.number() < self.next.number()
            && keyspace != KeyspaceId::DEFAULT
            && !self.quorum.contains_key(&keyspace)
            && !self.strong.contains(&keyspace)
    }
}

/// Which nodes hold the rows of a keyspace, and how many of them answer.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// Who is to own what.
    pub(crate) ring: Arc<Ring>,
    /// N, R and W, as they are to be.
    pub(crate) replication: Replication,
    /// As they are on rings of another N, while partitions are on their way from there.
    before: Option<Replication>,
    rings: Arc<BTreeMap<LayoutId, Arc<Ring>>>,
    located: Arc<[Located]>,
}

/// The rings by which a partition takes writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteRings<'t> {
    /// That of its present owners.
    pub(crate) present: &'t Ring,
    /// That of its coming owners, while it moves.
    pub(crate) coming: Option<&'t Ring>,
}

/// What a replica is asked to do with rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Take them.
    Write,
    /// Tell of them.
    Read,
}

/// What becomes of a request that a replica was sent under some epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is served.
    Serve,
    /// It comes from a coordinator that has heard of the ring what this node has not, and may be
    /// right in thinking that this node owns the key.
    Early,
    /// It would do harm, or its coordinator is wrong about this node.
    Stale,
}

impl Access {
    /// The bug that lets it past its fence.
    fn unfenced(self) -> Planted {
        match self {
            Access::Write => Planted::WriteFenceIgnored,
            Access::Read => Planted::ReadFenceIgnored,
        }
    }
}

impl Placement {
    /// The number of replicas that a read must hear.
    pub(crate) fn read_quorum(
        &self,
        ring: &Ring,
        options: &RequestOptions,
    ) -> Result<u32, RequestError> {
        let replication = self.replication_on(ring);
        self.required("r", (replication.read_quorum, replication.factor), ring, options)
    }

    /// The number of replicas that must acknowledge a write.
    pub(crate) fn write_quorum(
        &self,
        ring: &Ring,
        options: &RequestOptions,
    ) -> Result<u32, RequestError> {
        let replication = self.replication_on(ring);
        self.required("w", (replication.write_quorum, replication.factor), ring, options)
    }

    /// While partitions go over to a larger N, a number of replicas that it allows means all where
    /// they have not arrived: a client cannot know which these are.
    fn required(
        &self,
        field: &'static str,
        (default, factor): (u32, u32),
        ring: &Ring,
        options: &RequestOptions,
    ) -> Result<u32, RequestError> {
        let replicas = ring.replicas_in_effect();
        let coming = self.replication.factor.min(ring.members().len() as u32);
        let most = if self.before.is_some() { replicas.max(coming) } else { replicas };
        let meant = |asked: u32| if asked > most { asked } else { asked.min(replicas) };
        let explicit = options.quorum.map(meant);
        Asked { explicit, level: options.level, default, factor }
            .required(replicas)
            .map_err(|error| RequestError::Invalid { field, problem: error.to_string() })
    }

    /// N, R and W on a ring of this keyspace.
    fn replication_on(&self, ring: &Ring) -> Replication {
        let before = self.before.filter(|it| it.factor == ring.replication_factor());
        before.unwrap_or(self.replication)
    }

    /// How many replicas acknowledged a write by default while the ring was this one.
    pub(crate) fn usual_write_quorum(&self, ring: &Ring) -> usize {
        let Replication { factor, write_quorum, .. } = self.replication_on(ring);
        default_in_effect(write_quorum, factor, ring.replicas_in_effect()) as usize
    }

    /// The layout whose owners of a partition answer reads.
    pub(crate) fn read_layout(&self, partition: PartitionId) -> LayoutId {
        self.locate(partition).map(Located::read_layout).unwrap_or_default()
    }

    /// The ring of those.
    pub(crate) fn read_ring(&self, partition: PartitionId) -> &Ring {
        self.ring_of(self.read_layout(partition))
    }

    /// While a partition moves, the ring whose owners take its writes and do not answer reads.
    pub(crate) fn other_ring(&self, partition: PartitionId) -> Option<&Ring> {
        let located = self.locate(partition)?;
        let (coming, serving) = located.next?;
        Some(self.ring_of(if serving { located.at } else { coming }))
    }

    /// The rings whose owners of a partition take writes.
    pub(crate) fn write_rings(&self, partition: PartitionId) -> WriteRings<'_> {
        let Some(located) = self.locate(partition) else {
            return WriteRings { present: &self.ring, coming: None };
        };
        let coming = located.next.map(|(layout, _)| self.ring_of(layout));
        WriteRings { present: self.ring_of(located.at), coming }
    }

    /// Whether a node is about to give a partition up: until the others serve it, what the node is
    /// given alone may be missed by them.
    pub(crate) fn is_given_up_by(&self, node: NodeId, partition: PartitionId) -> bool {
        let next = self.locate(partition).and_then(|located| located.next);
        next.is_some_and(|(layout, serving)| {
            !serving && !self.ring_of(layout).primaries(partition).contains(&node)
        })
    }

    /// Whether a node is among those that take a partition's writes.
    pub(crate) fn owns(&self, node: NodeId, partition: PartitionId) -> bool {
        let WriteRings { present, coming } = self.write_rings(partition);
        let mut rings = std::iter::once(present).chain(coming);
        rings.any(|ring| ring.primaries(partition).contains(&node))
    }

    /// Those who are to get what comes late for a partition, each once: its owners and the coming
    /// ones; from when these serve, these alone.
    pub(crate) fn keepers(&self, partition: PartitionId) -> Vec<NodeId> {
        let WriteRings { present, coming } = self.write_rings(partition);
        let serving = self.locate(partition).is_some_and(|it| it.read_layout() != it.at);
        let present = if serving { &[][..] } else { present.primaries(partition) };
        let coming = coming.map_or(&[][..], |ring| ring.primaries(partition));
        let mut keepers = present.to_vec();
        keepers.extend(coming.iter().filter(|node| !present.contains(node)));
        keepers
    }

    fn locate(&self, partition: PartitionId) -> Option<&Located> {
        self.located.get(usize::from(partition.0))
    }

    fn ring_of(&self, layout: LayoutId) -> &Ring {
        self.rings.get(&layout).unwrap_or(&self.ring)
    }

    /// A default quorum as it holds with the members that there are.
    pub(crate) fn in_effect(&self, default: u32) -> u32 {
        default_in_effect(default, self.replication.factor, self.ring.replicas_in_effect())
    }

    /// True while there are fewer members than the replication factor.
    pub(crate) fn is_under_replicated(&self) -> bool {
        self.ring.replicas_in_effect() < self.replication.factor
    }
}

/// Where partitions are, as the system group has decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'s> {
    pub(crate) epoch: Epoch,
    pub(crate) partitions: u32,
    pub(crate) placing: &'s Placing,
    pub(crate) reaping: &'s Reaping,
}

/// The rings of one replication factor.
#[derive(Clone)]
struct FactorRings {
    target: Arc<Ring>,
    rings: Arc<BTreeMap<LayoutId, Arc<Ring>>>,
}

impl Placed<'_> {
    fn rings(&self, factors: Factors) -> Result<FactorRings, RingError> {
        let mut rings = BTreeMap::new();
        for (id, layout) in self.placing.layouts() {
            let ring = Ring::new(self.epoch, self.partitions, factors.on(*id), layout)?;
            rings.insert(*id, Arc::new(ring));
        }
        let target = match rings.get(&self.placing.target()) {
            Some(target) => Arc::clone(target),
            // Nothing is decided yet, as far as this node has heard: nobody owns anything.
            None => {
                let factor = factors.on(self.placing.target());
                Arc::new(Ring::new(self.epoch, self.partitions, factor, &[])?)
            }
        };
        Ok(FactorRings { target, rings: Arc::new(rings) })
    }
}

/// What one request sees from beginning to end.
pub(crate) struct Topology {
    /// The ring by which the default keyspace is to lie: as good as any for telling members and
    /// partitions.
    pub(crate) ring: Arc<Ring>,
    /// The version of the ring.
    pub(crate) epoch: Epoch,
    /// All members, those included that have no place on the ring.
    pub(crate) members: BTreeSet<NodeId>,
    /// Members that gossip holds to be alive, this node among them.
    pub(crate) up: BTreeSet<NodeId>,
    /// Whether the system group has decided this, knowing this node in its present life: then no
    /// keyspace is missing here whose rows may lie where this node was not yet.
    pub(crate) is_admitted: bool,
    keyspaces: Keyspaces,
    placements: BTreeMap<KeyspaceId, Placement>,
    located: Arc<[Located]>,
    floors: BTreeMap<PartitionId, ReapFloor>,
}

impl Topology {
    /// The topology of these keyspaces on a ring of so many partitions, placed like this.
    ///
    /// # Errors
    /// [`RingError`] when a layout makes no ring.
    pub(crate) fn new(
        keyspaces: Keyspaces,
        (members, up): (BTreeSet<NodeId>, BTreeSet<NodeId>),
        is_admitted: bool,
        placed: Placed<'_>,
    ) -> Result<Topology, RingError> {
        let located: Arc<[Located]> =
            partition_ids(placed.partitions).map(|it| placed.placing.locate(it)).collect();
        let mut made: BTreeMap<Factors, FactorRings> = BTreeMap::new();
        let mut place = |spread: Spread| -> Result<Placement, RingError> {
            let factors = spread.factors();
            let FactorRings { target, rings } = match made.entry(factors) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(free) => free.insert(placed.rings(factors)?).clone(),
            };
            let (replication, located) = (spread.now, Arc::clone(&located));
            let before = spread.before.map(|before| before.replication);
            Ok(Placement { ring: target, replication, before, rings, located })
        };
        let default = place(keyspaces.default)?;
        let ring = Arc::clone(&default.ring);
        let mut placements = BTreeMap::from([(KeyspaceId::DEFAULT, default)]);
        for (keyspace, spread) in &keyspaces.quorum {
            placements.insert(*keyspace, place(*spread)?);
        }
        let (epoch, floors) = (placed.epoch, placed.reaping.floors().collect());
        Ok(Topology {
            ring,
            epoch,
            members,
            up,
            is_admitted,
            keyspaces,
            placements,
            located,
            floors,
        })
    }

    /// Whether what was decided under an epoch is done here.
    pub(crate) fn admits(
        &self,
        own: NodeId,
        access: Access,
        (keyspace, partition): (KeyspaceId, PartitionId),
        epoch: Epoch,
    ) -> Admission {
        if epoch < self.fence(partition, access) && !planted(access.unfenced()) {
            return Admission::Stale;
        }
        let owns = self.placement(keyspace).is_some_and(|it| it.owns(own, partition));
        match owns {
            true => Admission::Serve,
            false if epoch > self.epoch => Admission::Early,
            false => Admission::Stale,
        }
    }

    /// Whether what a fallback keeps for another node may count.
    pub(crate) fn admits_hint(&self, partition: PartitionId, epoch: Epoch) -> bool {
        epoch >= self.fence(partition, Access::Write)
    }

    /// Up to where the owners of a partition share everything.
    pub(crate) fn reap_floor(&self, partition: PartitionId) -> ReapFloor {
        self.floors.get(&partition).copied().unwrap_or_default()
    }

    /// The epoch from which on an access must have been decided.
    fn fence(&self, partition: PartitionId, access: Access) -> Epoch {
        let of = |located: &Located| match access {
            Access::Write => located.write_fence,
            Access::Read => located.read_fence,
        };
        self.located.get(usize::from(partition.0)).map_or(Epoch(0), of)
    }

    /// Where the rows of a leaderless keyspace lie; `None` if there is none of that id, as far as
    /// this node has heard.
    pub(crate) fn placement(&self, keyspace: KeyspaceId) -> Option<&Placement> {
        self.placements.get(&keyspace)
    }

    /// Where the rows of the default keyspace lie.
    pub(crate) fn default_placement(&self) -> &Placement {
        let default = self.placements.get(&KeyspaceId::DEFAULT);
        default.expect("invariant: every topology is made with the default keyspace")
    }

    /// The leaderless keyspaces and where their rows lie.
    pub(crate) fn placements(&self) -> impl Iterator<Item = (KeyspaceId, &Placement)> {
        self.placements.iter().map(|(keyspace, placement)| (*keyspace, placement))
    }

    /// Whether a keyspace existed once and was dropped.
    pub(crate) fn is_dropped(&self, keyspace: KeyspaceId) -> bool {
        self.keyspaces.is_dropped(keyspace)
    }

    /// Whether a keyspace is known here, or was.
    pub(crate) fn has_heard_of(&self, keyspace: KeyspaceId) -> bool {
        keyspace.number() < self.keyspaces.next.number()
    }

    /// Whether the topology has the keyspaces that the system group has decided on.
    pub(crate) fn has_keyspaces_of(&self, state: &SystemState) -> bool {
        self.keyspaces == Keyspaces::decided(state)
    }

    /// Whether a peer may read and write rows of a keyspace here.
    ///
    /// # Errors
    /// [`Refusal::KeyspaceDropped`]; [`Refusal::NotServing`] when this node has not heard of it.
    pub(crate) fn check_keyspace(&self, keyspace: KeyspaceId) -> Result<(), Refusal> {
        match self.placements.contains_key(&keyspace) {
            true => Ok(()),
            false if self.is_dropped(keyspace) => Err(Refusal::KeyspaceDropped),
            false => Err(Refusal::NotServing),
        }
    }
}

/// Where the present topology is read and replaced.
pub(crate) struct TopologyCell {
    present: RwLock<Arc<Topology>>,
    changes: watch::Sender<()>,
    news: Notify,
}

impl TopologyCell {
    pub(crate) fn new(first: Topology) -> Self {
        let (changes, news) = (watch::Sender::new(()), Notify::new());
        TopologyCell { present: RwLock::new(Arc::new(first)), changes, news }
    }

    /// The present topology; holds for as long as the caller keeps it.
    pub(crate) fn load(&self) -> Arc<Topology> {
        Arc::clone(&self.present.read())
    }

    /// Replaces the topology for requests that begin from now on.
    pub(crate) fn store(&self, next: Topology) {
        *self.present.write() = Arc::new(next);
        self.changes.send_replace(());
        self.news.notify_waiters();
    }

    /// Does something that no change of the topology may come in between.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&Topology) -> R) -> R {
        act(&self.present.read())
    }

    /// Resolves once the ring is newer than in an epoch; true then, false at the deadline.
    pub(crate) async fn newer_than(&self, epoch: Epoch, env: &dyn Env, deadline: Moment) -> bool {
        tokio::select! { biased;
            () = self.until(|topology| topology.epoch > epoch) => true,
            () = env.sleep_until(deadline) => false,
        }
    }

    /// Resolves once something holds of the topology. Whoever waits longest hears first: those who
    /// follow it by a channel are told in no order.
    pub(crate) async fn until(&self, holds: impl Fn(&Topology) -> bool) {
        loop {
            let told = self.news.notified();
            if holds(&self.load()) {
                return;
            }
            told.await;
        }
    }

    /// Wakes whoever waits for another topology.
    pub(crate) fn follow(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
pub(crate) mod tests;
