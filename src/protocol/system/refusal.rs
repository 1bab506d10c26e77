//! Why the system group did not do what it was asked.

use serde::{Deserialize, Serialize};

use crate::types::{Epoch, GroupId, KeyspaceId, NodeId};

/// A command that was committed and changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SystemRefusal {
    /// A value breaks a rule of its own.
    #[error("{field} is {sent}: {right}")]
    Unusable {
        /// What the value is called.
        field: String,
        /// What was sent.
        sent: String,
        /// The rule.
        right: String,
    },
    /// The node was a member once and was removed for good.
    #[error(
        "node {node} was removed from this cluster and cannot return; empty its data directory to \
         join as a new node"
    )]
    NodeRemoved {
        /// The node.
        node: NodeId,
    },
    /// A newer description of the node is known, or another one with the same revision.
    #[error(
        "revision is {sent}: node {node} has described itself with revision {held}; a new \
         description must have a higher one"
    )]
    StaleDescription {
        /// The node.
        node: NodeId,
        /// The revision of the description.
        sent: u64,
        /// The revision that is known.
        held: u64,
    },
    /// Nobody of that id belongs to the cluster.
    #[error("node {node} is not a member of this cluster")]
    UnknownMember {
        /// What was sent.
        node: NodeId,
    },
    /// The node has no place on the ring to give up, or has one already.
    #[error("node {node} is {standing}: it cannot {asked}")]
    WrongStanding {
        /// The node.
        node: NodeId,
        /// How it stands.
        standing: String,
        /// What was asked of it.
        asked: String,
    },
    /// Somebody must hold the data.
    #[error("no node would be left on the ring; a cluster keeps at least one")]
    RingEmpty,
    /// The node still has, or is still to have, what others need.
    #[error("node {node} cannot go yet: {holds}")]
    StillNeeded {
        /// The node.
        node: NodeId,
        /// What it holds.
        holds: String,
    },
    /// Partitions are on their way.
    #[error(
        "partitions are moving; {asked} when they have arrived (see `coterie cluster transfers`)"
    )]
    PartitionsMove {
        /// What was asked.
        asked: String,
    },
    /// A cluster has at least one member.
    #[error("node {node} is the last member and cannot be removed")]
    LastMember {
        /// The member.
        node: NodeId,
    },
    /// With the node, strong keyspaces would lose a partition.
    #[error(
        "node {node} holds the only replica of group {group}; place the group on another node first"
    )]
    SoleReplica {
        /// The node.
        node: NodeId,
        /// One such group.
        group: GroupId,
    },
    /// The ring has changed since the request was thought of.
    #[error("expected_epoch is {sent}: the ring has epoch {held}; look at it and ask again",
        sent = .sent.0, held = .held.0)]
    StaleEpoch {
        /// What was expected.
        sent: Epoch,
        /// The epoch that holds.
        held: Epoch,
    },
    /// Names are unique.
    #[error("name is {name:?}: a keyspace of that name exists (id {id})", id = .keyspace.0)]
    NameTaken {
        /// What was sent.
        name: String,
        /// The keyspace that bears it.
        keyspace: KeyspaceId,
    },
    /// No keyspace of that name, or it was dropped.
    #[error("name is {name:?}: there is no keyspace of that name")]
    UnknownKeyspace {
        /// What was sent.
        name: String,
    },
    /// The default keyspace is always there.
    #[error("name is {name:?}: the default keyspace cannot be dropped")]
    DefaultKeyspace {
        /// Its name.
        name: String,
    },
    /// The cluster has as many keyspaces as it may.
    #[error("there are {count} keyspaces, and {keyspaces_max} are the most; drop one first")]
    TooManyKeyspaces {
        /// How many there are.
        count: usize,
        /// The limit.
        keyspaces_max: usize,
    },
    /// All strong keyspaces, also those to come, are served by the same groups.
    #[error(
        "n is {sent}: all strong keyspaces share one set of groups, which was founded with n = \
         {held} and is kept for good; leave n out or give {held}"
    )]
    FactorHeld {
        /// What was sent.
        sent: u32,
        /// The factor that the groups were founded with.
        held: u32,
    },
    /// There never was a strong keyspace, or there is no such partition.
    #[error("group {group} does not exist")]
    UnknownGroup {
        /// What was sent.
        group: GroupId,
    },
    /// The group was placed anew since the request was thought of.
    #[error(
        "expected_generation is {sent}: group {group} was last placed by entry {held}; look at it \
         and ask again"
    )]
    StaleGeneration {
        /// The group.
        group: GroupId,
        /// What was expected.
        sent: u64,
        /// The generation that holds.
        held: u64,
    },
}

/// One rule: when it does not hold, the field is at fault.
pub(super) fn rule(
    holds: bool,
    field: &str,
    sent: impl ToString,
    right: impl ToString,
) -> Result<(), SystemRefusal> {
    if holds {
        return Ok(());
    }
    let (field, sent, right) = (field.to_owned(), sent.to_string(), right.to_string());
    let sent = if sent.is_empty() { String::from("empty") } else { sent };
    Err(SystemRefusal::Unusable { field, sent, right })
}
