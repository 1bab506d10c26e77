//! Where rows lie and who is alive, as a request is served on it: one immutable value, swapped
//! whole.
//!
//! Every leaderless keyspace has a [`Placement`] of its own. Keyspaces of one replication factor
//! share a ring, and all rings are of the same members, so a key's partition is the same on each.
//!
//! Caveat: a keyspace whose factor is raised has its rows where they were. Until repair has taken
//! them along, a read may meet none of the replicas that hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::config::Replication;
use crate::node::request::{RequestError, RequestOptions};
use crate::protocol::message::Refusal;
use crate::protocol::quorum::requirement::{Asked, default_in_effect};
use crate::protocol::ring::{Ring, RingError};
use crate::protocol::system::SystemState;
use crate::protocol::system::keyspace::{Keyspace, Mode};
use crate::types::{KeyspaceId, NodeId};

/// The cluster's keyspaces, as far as placing rows goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keyspaces {
    /// N, R and W of the default keyspace.
    default: Replication,
    /// Those of the other leaderless keyspaces.
    quorum: BTreeMap<KeyspaceId, Replication>,
    strong: BTreeSet<KeyspaceId>,
    /// All ids below this one have been given out.
    next: KeyspaceId,
}

impl Keyspaces {
    /// What a node knows that has not heard of the system group yet.
    pub(crate) fn founding(default: Replication) -> Keyspaces {
        let next = KeyspaceId(KeyspaceId::DEFAULT.0 + 1);
        Keyspaces { default, quorum: BTreeMap::new(), strong: BTreeSet::new(), next }
    }

    /// What the system group has decided.
    pub(crate) fn decided(state: &SystemState) -> Keyspaces {
        let of_mode = |mode| move |keyspace: &&Keyspace| keyspace.mode == mode;
        let others = state.keyspaces().filter(|keyspace| keyspace.id != KeyspaceId::DEFAULT);
        let quorum = others.filter(of_mode(Mode::Quorum));
        let strong = state.keyspaces().filter(of_mode(Mode::Strong));
        Keyspaces {
            default: state.settings().replication,
            quorum: quorum.map(|keyspace| (keyspace.id, keyspace.replication)).collect(),
            strong: strong.map(|keyspace| keyspace.id).collect(),
            next: state.next_keyspace(),
        }
    }

    fn is_dropped(&self, keyspace: KeyspaceId) -> bool {
        keyspace < self.next
            && keyspace != KeyspaceId::DEFAULT
            && !self.quorum.contains_key(&keyspace)
            && !self.strong.contains(&keyspace)
    }
}

/// Which nodes hold the rows of a keyspace, and how many of them answer.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// Who owns what.
    pub(crate) ring: Arc<Ring>,
    /// N, R and W.
    pub(crate) replication: Replication,
}

impl Placement {
    /// The number of replicas that a read must hear.
    pub(crate) fn read_quorum(&self, options: &RequestOptions) -> Result<u32, RequestError> {
        self.required("r", self.replication.read_quorum, options)
    }

    /// The number of replicas that must acknowledge a write.
    pub(crate) fn write_quorum(&self, options: &RequestOptions) -> Result<u32, RequestError> {
        self.required("w", self.replication.write_quorum, options)
    }

    /// A default quorum as it holds with the members that there are.
    pub(crate) fn in_effect(&self, default: u32) -> u32 {
        default_in_effect(default, self.replication.factor, self.ring.replicas_in_effect())
    }

    /// True while there are fewer members than the replication factor.
    pub(crate) fn is_under_replicated(&self) -> bool {
        self.ring.replicas_in_effect() < self.replication.factor
    }

    fn required(
        &self,
        field: &'static str,
        default: u32,
        options: &RequestOptions,
    ) -> Result<u32, RequestError> {
        let factor = self.replication.factor;
        Asked { explicit: options.quorum, level: options.level, default, factor }
            .required(self.ring.replicas_in_effect())
            .map_err(|error| RequestError::Invalid { field, problem: error.to_string() })
    }
}

/// What one request sees from beginning to end.
pub(crate) struct Topology {
    /// The ring of the default keyspace: as good as any for telling members and partitions.
    pub(crate) ring: Arc<Ring>,
    /// Members that gossip holds to be alive, this node among them.
    pub(crate) up: BTreeSet<NodeId>,
    /// Whether the system group has decided this, knowing this node in its present life: then no
    /// keyspace is missing here whose rows may lie where this node was not yet.
    pub(crate) is_admitted: bool,
    keyspaces: Keyspaces,
    placements: BTreeMap<KeyspaceId, Placement>,
}

impl Topology {
    /// The topology of these keyspaces; `make_ring` makes the ring of a replication factor.
    ///
    /// # Errors
    /// Those of `make_ring`.
    pub(crate) fn new(
        keyspaces: Keyspaces,
        up: BTreeSet<NodeId>,
        is_admitted: bool,
        make_ring: impl Fn(u32) -> Result<Ring, RingError>,
    ) -> Result<Topology, RingError> {
        let mut rings: BTreeMap<u32, Arc<Ring>> = BTreeMap::new();
        let mut place = |replication: Replication| -> Result<Placement, RingError> {
            if let Some(ring) = rings.get(&replication.factor) {
                return Ok(Placement { ring: Arc::clone(ring), replication });
            }
            let ring = Arc::new(make_ring(replication.factor)?);
            rings.insert(replication.factor, Arc::clone(&ring));
            Ok(Placement { ring, replication })
        };
        let default = place(keyspaces.default)?;
        let ring = Arc::clone(&default.ring);
        let mut placements = BTreeMap::from([(KeyspaceId::DEFAULT, default)]);
        for (keyspace, replication) in &keyspaces.quorum {
            placements.insert(*keyspace, place(*replication)?);
        }
        Ok(Topology { ring, up, is_admitted, keyspaces, placements })
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
}

impl TopologyCell {
    pub(crate) fn new(first: Topology) -> Self {
        TopologyCell { present: RwLock::new(Arc::new(first)), changes: watch::Sender::new(()) }
    }

    /// The present topology; holds for as long as the caller keeps it.
    pub(crate) fn load(&self) -> Arc<Topology> {
        Arc::clone(&self.present.read())
    }

    /// Replaces the topology for requests that begin from now on.
    pub(crate) fn store(&self, next: Topology) {
        *self.present.write() = Arc::new(next);
        self.changes.send_replace(());
    }

    /// Wakes whoever waits for another topology.
    pub(crate) fn follow(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
pub(crate) mod tests;
