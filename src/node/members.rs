//! Keeps the member set, the view of who is up, and the ring made from them.
//!
//! Who is a member, and under which epoch, is what the system group has decided. Gossip says who
//! is alive and where, and nothing else. A node that has not heard of the system group yet works
//! with the members that it knew when it stopped, or that a seed told it of; a digest in each
//! node's gossip shows those that are behind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::ClusterSettings;
use crate::net::transport::{Discovery, NodeFacts, Sighting, Transport};
use crate::node::env::{Env, run_blocking};
use crate::node::epochs::EpochsInUse;
use crate::node::health::Health;
use crate::node::identity_keeper::IdentityKeeper;
use crate::node::tasks::Stop;
use crate::node::topology::{Keyspaces, Placed, Topology, TopologyCell};
use crate::protocol::membership::view::{ClusterView, Heard, State};
use crate::protocol::membership::{Member, MemberSet};
use crate::protocol::ring::RingError;
use crate::protocol::system::SystemState;
use crate::protocol::system::placing::Placing;
use crate::protocol::system::reaping::Reaping;
use crate::protocol::system::state::Standing;
use crate::protocol::system::transfers::Report;
use crate::types::{Epoch, KeyspaceId, NodeId};

/// What a node says that has left.
const LEFT: &str = "this node has left its cluster; it can be stopped for good";

/// What a node says that was removed.
const REMOVED: &str =
    "this node was removed from its cluster; empty its data directory to have it join as a new one";

/// What the node knows of its cluster's members.
struct Known {
    set: MemberSet,
    view: ClusterView,
    sightings: Arc<Vec<Sighting>>,
    facts: NodeFacts,
    epoch: Epoch,
    placing: Placing,
    reaping: Reaping,
    /// Whether this node was told to leave.
    leaves: bool,
    /// How many states of the system group this node has heard of.
    heard: u64,
    keyspaces: Keyspaces,
    /// Whether the system group knows this node in its present life.
    is_admitted: bool,
}

impl Known {
    /// Where a member is reached: gossip hears of a new address before the system group decides
    /// anything, which it may not be able to before its voters have found each other.
    fn address(&self, node: NodeId, member: &Member) -> SocketAddr {
        let sighting = self.sightings.iter().find(|sighting| sighting.facts.node_id == node);
        let newer = sighting.filter(|sighting| sighting.facts.revision >= member.revision);
        newer.map_or(member.peer_address, |sighting| sighting.facts.peer_address)
    }

    /// The other members, with where they are reached.
    fn others(&self) -> Vec<(NodeId, SocketAddr)> {
        let own = self.facts.node_id;
        let others = self.set.iter().filter(|(node, _)| *node != own);
        others.map(|(node, member)| (node, self.address(node, member))).collect()
    }

    /// What this node says once it is no member any more.
    fn let_go_text(&self) -> &'static str {
        if self.leaves { LEFT } else { REMOVED }
    }

    /// Nodes that gossip shows and that are no members: they want to become some, and must be
    /// connected to ask.
    fn strangers(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
        let own = self.facts.node_id;
        let shown = self.sightings.iter().filter(|sighting| sighting.alive);
        let others = shown.map(|sighting| (sighting.facts.node_id, sighting.facts.peer_address));
        others.filter(move |(node, _)| {
            *node != own && self.set.get(*node).is_none() && !self.set.is_forgotten(*node)
        })
    }
}

/// Why a member is not found, or cannot be removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    /// Nobody of that id or name.
    #[error("no member has the id or name {asked:?}")]
    Unknown {
        /// What was asked.
        asked: String,
    },
    /// Several members of that name.
    #[error("{count} members are named {asked:?}; use the node id")]
    Ambiguous {
        /// What was asked.
        asked: String,
        /// How many bear the name.
        count: usize,
    },
    /// It is alive.
    #[error("node {node} is up; have it leave, or stop it first")]
    Up {
        /// The member.
        node: NodeId,
    },
}

/// The seams through which members are learned and told.
pub(crate) struct MemberSeams {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) discovery: Arc<dyn Discovery>,
    pub(crate) identity: Arc<IdentityKeeper>,
    pub(crate) health: Arc<Health>,
}

/// Keeps members, view and ring.
pub(crate) struct Members {
    own: NodeId,
    partitions: u32,
    seams: MemberSeams,
    topology: Arc<TopologyCell>,
    /// Since when the requests are under way that this node coordinates.
    pub(crate) epochs: EpochsInUse,
    known: Mutex<Known>,
    changed: Notify,
}

impl Members {
    /// Begins with the set kept from earlier, and what a seed told.
    ///
    /// # Errors
    /// [`RingError`] when the settings make no ring.
    pub(crate) fn new(
        settings: &ClusterSettings,
        set: MemberSet,
        facts: NodeFacts,
        seams: MemberSeams,
    ) -> Result<(Self, Arc<TopologyCell>), RingError> {
        let own = facts.node_id;
        let mut view = ClusterView::new(own, seams.env.now());
        view.on_members(&set, seams.env.now());
        let known = Known {
            set,
            view,
            sightings: Arc::new(Vec::new()),
            facts,
            epoch: Epoch(0),
            placing: Placing::default(),
            reaping: Reaping::default(),
            leaves: false,
            heard: 0,
            keyspaces: Keyspaces::founding(settings.replication),
            is_admitted: false,
        };
        let partitions = settings.partitions;
        let topology = Arc::new(TopologyCell::new(make_topology(partitions, &known)?));
        let shared = Arc::clone(&topology);
        let (known, changed) = (Mutex::new(known), Notify::new());
        let epochs = EpochsInUse::default();
        Ok((Members { own, partitions, seams, topology, epochs, known, changed }, shared))
    }

    /// Follows gossip and keeps the data directory up to date, until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        let mut sightings = self.seams.discovery.sightings();
        self.announce();
        while !stop.is_requested() {
            let latest = Arc::clone(&sightings.borrow_and_update());
            self.on_sightings(latest);
            self.persist().await;
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.changed.notified() => {}
                changed = sightings.changed() => {
                    if changed.is_err() {
                        tracing::error!("gossip has ended; members are no longer followed");
                        return stop.requested().await;
                    }
                }
            }
        }
    }

    /// Takes over what the system group has decided.
    pub(crate) fn on_state(&self, state: &SystemState) {
        let set = member_set(state);
        let keyspaces = Keyspaces::decided(state);
        self.update(|known| {
            let own = state.members().get(&known.facts.node_id);
            known.is_admitted =
                own.is_some_and(|own| own.member.incarnation == known.facts.incarnation);
            known.leaves |= own.is_some_and(|own| own.standing == Standing::Leaving);
            known.heard += 1;
            known.epoch = state.epoch();
            known.placing = state.placing().clone();
            known.reaping = state.reaping().clone();
            known.set = set;
            known.keyspaces = keyspaces;
        });
    }

    /// Whether a keyspace existed once and was dropped.
    pub(crate) fn is_dropped(&self, keyspace: KeyspaceId) -> bool {
        self.topology.load().is_dropped(keyspace)
    }

    /// The cluster has let this node go, as it asked for.
    pub(crate) fn has_left(&self) {
        self.known.lock().leaves = true;
        self.on_let_go();
    }

    /// The cluster has let this node go, whether it asked for that or not.
    pub(crate) fn on_let_go(&self) {
        let text = self.known.lock().let_go_text();
        self.seams.health.fail(text.to_owned());
    }

    /// Whether the cluster has forgotten a node.
    pub(crate) fn is_forgotten(&self, node: NodeId) -> bool {
        self.known.lock().set.is_forgotten(node)
    }

    /// The other members, with where they are reached.
    pub(crate) fn others(&self) -> Vec<(NodeId, SocketAddr)> {
        self.known.lock().others()
    }

    /// This node as it describes itself.
    pub(crate) fn own_member(&self) -> Member {
        member(&self.known.lock().facts)
    }

    /// The present member set.
    pub(crate) fn set(&self) -> MemberSet {
        self.known.lock().set.clone()
    }

    /// A node's state as this node sees it.
    pub(crate) fn state(&self, node: NodeId) -> State {
        self.known.lock().view.state(node)
    }

    /// What gossip last said of a node.
    pub(crate) fn sighting(&self, node: NodeId) -> Option<Sighting> {
        let sightings = Arc::clone(&self.known.lock().sightings);
        sightings.iter().find(|sighting| sighting.facts.node_id == node).cloned()
    }

    /// What all nodes say of themselves, as far as moves of partitions depend on it.
    pub(crate) fn reports(&self) -> BTreeMap<NodeId, Report> {
        let known = self.known.lock();
        let own = (self.own, Report { epoch: known.epoch, up: true });
        let report = |sighting: &Sighting| {
            let NodeFacts { node_id, epoch, .. } = sighting.facts;
            (node_id, Report { epoch, up: sighting.alive })
        };
        let heard = known.sightings.iter().map(report);
        heard.filter(|(node, _)| known.set.get(*node).is_some()).chain([own]).collect()
    }

    /// Whether a member that is up may have requests under way which began before it had heard of
    /// an epoch.
    pub(crate) fn have_requests_before(&self, epoch: Epoch) -> bool {
        let known = self.known.lock();
        let others = known.sightings.iter().filter(|it| it.facts.node_id != self.own && it.alive);
        let mut members = others.filter(|it| known.set.get(it.facts.node_id).is_some());
        self.epochs.earliest() < epoch || members.any(|it| it.facts.requests_since < epoch)
    }

    /// Tells the others since when requests are under way here, if that is not what was told last.
    pub(crate) fn tell_of_requests(&self) {
        let since = self.epochs.earliest();
        if self.known.lock().facts.requests_since != since {
            self.describe(|facts| facts.requests_since = since);
        }
    }

    /// For how long a node has been down; `None` while it is up.
    pub(crate) fn down_for(&self, node: NodeId) -> Option<std::time::Duration> {
        let since = self.known.lock().view.down_since(node)?;
        Some(self.seams.env.now().since(since))
    }

    /// Changes what this node says of itself.
    pub(crate) fn describe(&self, change: impl FnOnce(&mut NodeFacts)) {
        let mut known = self.known.lock();
        let before = known.facts.clone();
        change(&mut known.facts);
        let facts = known.facts.clone();
        drop(known);
        if facts != before {
            self.seams.discovery.publish(facts);
        }
    }

    /// The member of that id or name.
    ///
    /// # Errors
    /// [`MemberError::Unknown`]; [`MemberError::Ambiguous`].
    pub(crate) fn find(&self, asked: &str) -> Result<NodeId, MemberError> {
        let known = self.known.lock();
        if let Ok(node) = asked.parse::<NodeId>()
            && known.set.get(node).is_some()
        {
            return Ok(node);
        }
        let named: Vec<NodeId> = known
            .set
            .iter()
            .filter(|(_, member)| member.name == asked)
            .map(|(node, _)| node)
            .collect();
        match named.as_slice() {
            [node] => Ok(*node),
            [] => Err(MemberError::Unknown { asked: asked.to_owned() }),
            several => {
                Err(MemberError::Ambiguous { asked: asked.to_owned(), count: several.len() })
            }
        }
    }

    fn on_sightings(&self, sightings: Arc<Vec<Sighting>>) {
        let heard: Vec<Heard> = sightings.iter().map(heard).collect();
        let now = self.seams.env.now();
        self.update(|known| {
            for change in known.view.on_heard(&heard, now) {
                tracing::info!(?change, "member");
            }
            known.sightings = sightings;
        });
        self.announce();
    }

    /// Changes what is known; then remakes ring, peers and own facts if need be.
    fn update(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock();
        let (before, up_before) = (known.set.clone(), up(&known));
        let (heard_before, epoch_before) = (known.heard, known.epoch);
        change(&mut known);
        let now = self.seams.env.now();
        let set_changed = known.set != before;
        if set_changed {
            let set = known.set.clone();
            known.view.on_members(&set, now);
        }
        let up_changed = up(&known) != up_before;
        // Whoever waits for a decision follows the topology, even if it does not show there.
        if set_changed || up_changed || known.heard != heard_before {
            self.swap_topology(&known);
        }
        let epoch_changed = known.epoch != epoch_before;
        drop(known);
        if set_changed || up_changed || epoch_changed {
            self.announce();
        }
        if set_changed {
            self.changed.notify_one();
        }
    }

    fn swap_topology(&self, known: &Known) {
        if known.set.is_forgotten(self.own) {
            self.seams.health.fail(known.let_go_text().to_owned());
        }
        match make_topology(self.partitions, known) {
            Ok(topology) => {
                self.topology.store(topology);
                self.epochs.advance(known.epoch);
            }
            Err(error) => {
                tracing::error!(%error, "the member set makes no ring; the old one stays")
            }
        }
    }

    /// Tells the transport whom to connect to, and gossip what the member set is.
    fn announce(&self) {
        let (peers, forgotten, digest, epoch) = {
            let known = self.known.lock();
            let mut peers = known.others();
            peers.extend(known.strangers());
            let forgotten: Vec<NodeId> = known.set.forgotten().iter().copied().collect();
            (peers, forgotten, known.set.digest(), known.epoch)
        };
        self.seams.transport.set_forgotten(&forgotten);
        self.seams.transport.set_peers(&peers);
        self.describe(|facts| {
            (facts.members_digest, facts.epoch) = (digest, epoch);
            facts.requests_since = self.epochs.earliest();
        });
    }

    async fn persist(&self) {
        let set = self.known.lock().set.clone();
        let identity = Arc::clone(&self.seams.identity);
        let kept = run_blocking(&*self.seams.env, move || identity.keep_members(set)).await;
        if let Err(error) = kept {
            tracing::error!(%error, "the member set could not be kept; it is tried again");
        }
    }
}

fn up(known: &Known) -> Vec<NodeId> {
    known.set.iter().map(|(node, _)| node).filter(|node| known.view.is_up(*node)).collect()
}

fn heard(sighting: &Sighting) -> Heard {
    let NodeFacts { node_id, incarnation, .. } = sighting.facts;
    Heard { node: node_id, incarnation, alive: sighting.alive }
}

/// What the system group is told of a node.
pub(crate) fn member(facts: &NodeFacts) -> Member {
    Member {
        incarnation: facts.incarnation,
        revision: facts.revision,
        name: facts.name.clone(),
        zone: facts.zone.clone(),
        vnodes: facts.vnodes,
        peer_address: facts.peer_address,
        client_address: facts.client_address,
    }
}

/// The members that the system group has decided on.
fn member_set(state: &SystemState) -> MemberSet {
    let mut set = MemberSet::new();
    for (node, known) in state.members() {
        set.describe(*node, known.member.clone());
    }
    for node in state.removed() {
        set.forget(*node);
    }
    set
}

fn make_topology(partitions: u32, known: &Known) -> Result<Topology, RingError> {
    let Known { epoch, placing, reaping, .. } = known;
    let placed = Placed { epoch: *epoch, partitions, placing, reaping };
    let up = up(known).into_iter().collect();
    let members = known.set.iter().map(|(node, _)| node).collect();
    Topology::new(known.keyspaces.clone(), (members, up), known.is_admitted, placed)
}
