//! What the system group has decided so far.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::protocol::membership::Member;
use crate::protocol::raft::membership::Target;
use crate::protocol::ring::{PARTITIONS_MAX, RingMember};
use crate::protocol::system::apply::members::check_member;
use crate::protocol::system::keyspace::{DEFAULT_NAME, Keyspace, Marker, Mode, check_replication};
use crate::protocol::system::limits::KeyspaceLimits;
use crate::protocol::system::placement::{Placement, ReplicaIds};
use crate::protocol::system::placing::Placing;
use crate::protocol::system::reaping::Reaping;
use crate::protocol::system::refusal::{SystemRefusal, rule};
use crate::protocol::system::settings::{ClusterSettings, Replication};
use crate::types::{
    ClusterId, Epoch, GroupId, Incarnation, KeyspaceId, LogIndex, Merge, NodeId, ReplicaId,
};

/// The version of the state's text that this program writes and reads.
pub const STATE_FORMAT: u32 = 2;

/// The oldest version that it reads: the one in which every member had its place at once.
const STATE_FORMAT_OLDEST: u32 = 1;

/// A member and its place in the system group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemMember {
    /// What it says of itself.
    pub member: Member,
    /// Its replica of the system group; another one with each incarnation.
    pub system_replica: ReplicaId,
    /// Whether it is to have a place on the ring.
    #[serde(default)]
    pub standing: Standing,
    /// Whose tokens it claims, if not its own: those of the node that it has replaced.
    #[serde(default)]
    pub seat: Option<NodeId>,
}

/// Whether a member is to have a place on the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It waits until it is told to join.
    Waiting,
    /// It has one, or is to get it.
    #[default]
    Active,
    /// It gives its place up.
    Leaving,
}

impl Standing {
    /// The standing's name at the interfaces.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Waiting => "waiting",
            Standing::Active => "active",
            Standing::Leaving => "leaving",
        }
    }
}

impl SystemMember {
    /// What the ring depends on.
    pub(super) fn ring_member(&self, node: NodeId) -> RingMember {
        let Member { zone, vnodes, .. } = &self.member;
        let seat = self.seat.unwrap_or(node);
        RingMember { node, seat, zone: zone.clone(), vnodes: *vnodes }
    }
}

/// The cluster's facts, the same on every node that has applied the same entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemState {
    format: u32,
    cluster_id: ClusterId,
    partitions: u32,
    pub(super) members: BTreeMap<NodeId, SystemMember>,
    pub(super) removed: BTreeSet<NodeId>,
    pub(super) epoch: Epoch,
    pub(super) keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    pub(super) next_keyspace: KeyspaceId,
    /// N of all strong keyspaces, from the first of them on.
    pub(super) strong_factor: Option<u32>,
    pub(super) groups: BTreeMap<GroupId, Placement>,
    pub(super) replica_ids: ReplicaIds,
    #[serde(default)]
    pub(super) placing: Placing,
    #[serde(default)]
    pub(super) reaping: Reaping,
}

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another version wrote it.
    #[error(
        "the system state has format {got}, this program knows format {STATE_FORMAT}; start the \
         program that wrote it, or a newer one"
    )]
    UnknownFormat {
        /// Its format.
        got: u64,
    },
    /// It is not what any program wrote.
    #[error("the system state cannot be read: {source}")]
    Malformed {
        /// What was found.
        #[from]
        source: serde_json::Error,
    },
}

/// As much of a state as all formats share.
#[derive(Deserialize)]
struct Formatted {
    format: u64,
}

impl SystemState {
    /// The state of a new cluster: its founder, and the default keyspace.
    ///
    /// # Errors
    /// [`SystemRefusal::Unusable`] when the settings or the founder's description break a rule.
    pub fn found(
        settings: &ClusterSettings,
        founder: NodeId,
        member: Member,
    ) -> Result<SystemState, SystemRefusal> {
        check_settings(settings)?;
        check_member(&member)?;
        let mut replica_ids = ReplicaIds::new();
        let system_replica = replica_ids.fresh();
        let default = default_keyspace(settings.replication);
        let standing = Standing::Active;
        let founding = SystemMember { member, system_replica, standing, seat: None };
        let placing = Placing::at_rest(vec![founding.ring_member(founder)]);
        Ok(SystemState {
            format: STATE_FORMAT,
            cluster_id: settings.cluster_id,
            partitions: settings.partitions,
            members: BTreeMap::from([(founder, founding)]),
            removed: BTreeSet::new(),
            epoch: Epoch(1),
            keyspaces: BTreeMap::from([(KeyspaceId::DEFAULT, default)]),
            next_keyspace: KeyspaceId(KeyspaceId::DEFAULT.0 + 1),
            strong_factor: None,
            groups: BTreeMap::new(),
            replica_ids,
            placing,
            reaping: Reaping::default(),
        })
    }

    /// The state as JSON, for the engine and for snapshots.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("invariant: ids and numbers are the state's only map keys")
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// [`StateError`] when this program did not write it.
    pub fn decode(bytes: &[u8]) -> Result<SystemState, StateError> {
        let Formatted { format: got } = serde_json::from_slice(bytes)?;
        if !(u64::from(STATE_FORMAT_OLDEST)..=u64::from(STATE_FORMAT)).contains(&got) {
            return Err(StateError::UnknownFormat { got });
        }
        let mut state: SystemState = serde_json::from_slice(bytes)?;
        if got < u64::from(STATE_FORMAT) {
            state.format = STATE_FORMAT;
            state.placing = Placing::at_rest(state.wanted_layout());
        }
        Ok(state)
    }

    /// What those that join take over. The replication is that of the default keyspace as it is
    /// now.
    pub fn settings(&self) -> ClusterSettings {
        ClusterSettings {
            cluster_id: self.cluster_id,
            partitions: self.partitions,
            replication: self.default_replication(),
        }
    }

    /// Q.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The members, by node.
    pub fn members(&self) -> &BTreeMap<NodeId, SystemMember> {
        &self.members
    }

    /// The nodes that were removed, for good. They are kept, 8 bytes each.
    pub fn removed(&self) -> &BTreeSet<NodeId> {
        &self.removed
    }

    /// Where the partitions are and are to go.
    pub fn placing(&self) -> &Placing {
        &self.placing
    }

    /// Up to where the owners of each partition share everything.
    pub fn reaping(&self) -> &Reaping {
        &self.reaping
    }

    /// The version of the ring.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The keyspaces that can be read and written.
    pub fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.keyspaces.values().filter(|keyspace| keyspace.is_live())
    }

    /// A keyspace that can be read and written, by id.
    pub fn keyspace(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.keyspaces.get(&id).filter(|keyspace| keyspace.is_live())
    }

    /// A keyspace that can be read and written, by name.
    pub fn keyspace_named(&self, name: &str) -> Option<&Keyspace> {
        self.keyspaces().find(|keyspace| keyspace.name == name)
    }

    /// The number that the next keyspace gets: all below it were given out.
    pub fn next_keyspace(&self) -> KeyspaceId {
        self.next_keyspace
    }

    /// Whether rows of this keyspace are of no more use: it existed once and was dropped. One that
    /// does not exist yet is another matter, as this node may be behind.
    pub fn is_dropped(&self, id: KeyspaceId) -> bool {
        id.number() < self.next_keyspace.number() && self.keyspace(id).is_none()
    }

    /// The strong keyspaces that were dropped and are remembered.
    pub fn dropped_strong(&self) -> impl Iterator<Item = KeyspaceId> + '_ {
        let dropped = self.keyspaces.values().filter(|keyspace| !keyspace.is_live());
        dropped.filter(|keyspace| keyspace.mode == Mode::Strong).map(|keyspace| keyspace.id)
    }

    /// N of all strong keyspaces, those to come included; `None` until there was a first one.
    pub fn strong_factor(&self) -> Option<u32> {
        self.strong_factor
    }

    /// The groups of the partitions: none until the first strong keyspace is created, and all of
    /// them ever after, also while there is no strong keyspace.
    pub fn groups(&self) -> &BTreeMap<GroupId, Placement> {
        &self.groups
    }

    /// The replica id that will be given out next: all below it were given out before.
    pub fn next_replica(&self) -> ReplicaId {
        self.replica_ids.next()
    }

    /// The replica that a node in this life of its data directory runs for a group, the system
    /// group included.
    ///
    /// None while the state knows the node under another incarnation: its earlier replicas have
    /// voted in ways that the node has forgotten, so they must not be started again.
    pub fn own_replica(
        &self,
        group: GroupId,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Option<ReplicaId> {
        let known = self.members.get(&node)?;
        if known.member.incarnation != incarnation {
            return None;
        }
        match group {
            GroupId::SYSTEM => Some(known.system_replica),
            group => self.groups.get(&group)?.replica_on(node),
        }
    }

    /// The system group as it is on the day of its founding: the founder, alone. `None` from the
    /// second member on.
    pub fn founding_target(&self) -> Option<Target> {
        let mut members = self.members.iter();
        let (founder, known) = members.next()?;
        let voters = BTreeMap::from([(known.system_replica, *founder)]);
        members.next().is_none().then(|| Target { voters, learners: BTreeMap::new() })
    }

    pub(super) fn default_replication(&self) -> Replication {
        let default = self.keyspaces.get(&KeyspaceId::DEFAULT);
        default.expect("invariant: the default keyspace cannot be dropped").replication
    }

    pub(super) fn create_keyspace_entry(
        &mut self,
        name: String,
        (mode, merge): (Mode, Merge),
        replication: Replication,
        created: Marker,
    ) -> KeyspaceId {
        let id = KeyspaceId::numbered(self.next_keyspace.number(), merge);
        self.next_keyspace = KeyspaceId(id.number() + 1);
        self.keyspaces.insert(id, keyspace(id, name, mode, replication, created));
        id
    }
}

fn default_keyspace(replication: Replication) -> Keyspace {
    let founded = Marker { index: LogIndex(0), request_id: 0 };
    keyspace(KeyspaceId::DEFAULT, DEFAULT_NAME.to_owned(), Mode::Quorum, replication, founded)
}

fn keyspace(
    id: KeyspaceId,
    name: String,
    mode: Mode,
    replication: Replication,
    created: Marker,
) -> Keyspace {
    let (before, dropped, altered_by) = (None, None, Vec::new());
    let limits = KeyspaceLimits::default();
    Keyspace { id, name, mode, replication, before, created, dropped, altered_by, limits }
}

fn check_settings(settings: &ClusterSettings) -> Result<(), SystemRefusal> {
    let partitions = settings.partitions;
    let power = partitions.is_power_of_two() && partitions <= PARTITIONS_MAX;
    let right = format!("it must be a power of two from 1 to {PARTITIONS_MAX}");
    rule(power, "partitions", partitions, right)?;
    check_replication(settings.replication)
}

#[cfg(test)]
mod tests;
