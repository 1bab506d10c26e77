//! What can be asked of the system group, how it stands in the log, and what is answered.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::membership::Member;
use crate::protocol::reaping::Share;
use crate::protocol::system::keyspace::{Mode, ReplicationAsked};
use crate::protocol::system::limits::LimitsAsked;
use crate::types::{
    Epoch, GroupId, Incarnation, KeyspaceId, Merge, NodeId, PartitionId, ReplicaId,
};

/// The version of the commands' text that this program writes and reads.
pub const COMMAND_VERSION: u32 = 1;

/// A command and the number by which whoever asks finds the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemRequest {
    /// Drawn at random by the proposer. A keyspace that is created or dropped remembers it, so a
    /// request that is proposed twice is answered alike the second time.
    pub request_id: u64,
    /// What is asked.
    pub command: SystemCommand,
}

/// A change of the cluster's facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SystemCommand {
    /// A node joins, or says what has changed about it. The higher revision wins. A new incarnation
    /// has lost what its replicas promised, so all of them get new numbers.
    Describe {
        /// The node.
        node: NodeId,
        /// Its description of itself.
        member: Member,
        /// Whether it takes a place on the ring as soon as it is a member; otherwise it waits until
        /// it is told to. Of no meaning for one that is a member already.
        #[serde(default = "by_itself")]
        joins: bool,
    },
    /// Members take places on the ring, or give them up. Partitions begin to move; a node that
    /// gives its place up stays a member until it is told to [retire](SystemCommand::Retire).
    Reshape {
        /// Members that take a place.
        join: BTreeSet<NodeId>,
        /// Members that give theirs up.
        leave: BTreeSet<NodeId>,
        /// Members that give their place up to another, which takes exactly that one.
        replace: BTreeMap<NodeId, NodeId>,
        /// The epoch that this was decided on; anything else is refused.
        expected_epoch: Option<Epoch>,
    },
    /// Partitions take the next step of their moves, as the leader of the system group finds them
    /// ready for it.
    Advance {
        /// Those that set out.
        prepare: BTreeSet<PartitionId>,
        /// Those that arrive: their new owners serve, and nobody reads from the old ones any more.
        settle: BTreeSet<PartitionId>,
        /// The epoch that this was decided on; anything else is refused.
        expected_epoch: Epoch,
    },
    /// A node has taken over all rows of partitions that move to it.
    Synced {
        /// The node.
        node: NodeId,
        /// The life that has them.
        incarnation: Incarnation,
        /// The partitions, and the epochs in which their moves were prepared.
        partitions: BTreeMap<PartitionId, Epoch>,
    },
    /// A node shares everything up to some stamps with all owners that it compares itself with.
    Shared {
        /// The node.
        node: NodeId,
        /// The life that does.
        incarnation: Incarnation,
        /// The partitions.
        partitions: BTreeMap<PartitionId, Share>,
    },
    /// A member that has given up its place, and holds nothing any more that others need, goes for
    /// good.
    Retire {
        /// The member.
        node: NodeId,
    },
    /// A member goes for good. Each of its replicas is replaced by one on the next node of the
    /// partition's preference list, if there is one that holds none yet.
    Remove {
        /// The member.
        node: NodeId,
        /// The epoch that the removal was decided on; anything else is refused.
        expected_epoch: Option<Epoch>,
    },
    /// A new keyspace.
    CreateKeyspace {
        /// Its name.
        name: String,
        /// What it promises.
        mode: Mode,
        /// How copies that differ become one; in a strong keyspace there are none.
        #[serde(default)]
        merge: Merge,
        /// N, R and W; what is absent is filled in from the default keyspace, or for a strong
        /// keyspace with the N that the groups were founded with.
        replication: Option<ReplicationAsked>,
        /// What it may ask of each node.
        #[serde(default, skip_serializing_if = "LimitsAsked::is_nothing")]
        limits: LimitsAsked,
    },
    /// Other N, R and W for a quorum keyspace, those of a strong one being fixed; other limits for
    /// any.
    AlterKeyspace {
        /// Its name.
        name: String,
        /// What changes; what is absent stays.
        replication: ReplicationAsked,
        /// Limits that change; what is absent stays.
        #[serde(default, skip_serializing_if = "LimitsAsked::is_nothing")]
        limits: LimitsAsked,
    },
    /// A keyspace goes, with all its keys; its name may be used again, its id never.
    DropKeyspace {
        /// Its name.
        name: String,
    },
    /// Groups consist of what was ordered, for good, as their leaders find.
    Followed {
        /// The groups, and the generations that they consist of.
        groups: BTreeMap<GroupId, u64>,
    },
    /// A group's replicas move.
    PlaceGroup {
        /// The group.
        group: GroupId,
        /// The generation that the move was decided on; anything else is refused.
        expected_generation: u64,
        /// All nodes that are to have a replica: as many as the factor asks and members allow.
        nodes: BTreeSet<NodeId>,
    },
}

/// The commands' names in their text.
const NAMES: [&str; 12] = [
    "describe",
    "reshape",
    "advance",
    "synced",
    "shared",
    "retire",
    "remove",
    "create_keyspace",
    "alter_keyspace",
    "drop_keyspace",
    "followed",
    "place_group",
];

/// What a description says that was written before nodes could wait.
fn by_itself() -> bool {
    true
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemReply {
    /// The node is a member.
    Described {
        /// Its replica in the system group.
        system_replica: ReplicaId,
        /// The epoch of the ring with it.
        epoch: Epoch,
    },
    /// The partitions are on their way.
    Reshaped {
        /// The epoch of the ring now.
        epoch: Epoch,
    },
    /// The node is no member any more.
    Removed {
        /// The epoch of the ring without it.
        epoch: Epoch,
    },
    /// The keyspace is there.
    Created {
        /// Its id.
        keyspace: KeyspaceId,
    },
    /// The keyspace has the N, R and W that were asked for.
    Altered {
        /// Its id.
        keyspace: KeyspaceId,
    },
    /// The keyspace is gone.
    Dropped {
        /// The id that it had.
        keyspace: KeyspaceId,
    },
    /// The group is to be where it was asked to be.
    Placed {
        /// The index of the entry that ordered so.
        generation: u64,
    },
}

/// Why an entry of the system group's log cannot be read. A node that meets one must stop applying:
/// if it went on without, its state would differ from the others'.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Another version wrote it.
    #[error(
        "a system command has version {got}, this program knows version {COMMAND_VERSION}; start a \
         newer program on this node"
    )]
    UnknownVersion {
        /// Its version.
        got: u64,
    },
    /// A newer program wrote it.
    #[error("the system command {name:?} is unknown; start a newer program on this node")]
    UnknownCommand {
        /// Its name.
        name: String,
    },
    /// It is not what any program wrote.
    #[error("a system command cannot be read: {source}")]
    Malformed {
        /// What was found.
        #[from]
        source: serde_json::Error,
    },
}

/// A request as it stands in the log.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<C> {
    version: u32,
    request_id: u64,
    command: C,
}

/// As much of an envelope as all versions share.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl SystemRequest {
    /// The request as JSON, for an entry of the system group's log.
    pub fn encode(&self) -> Vec<u8> {
        let SystemRequest { request_id, command } = self;
        let envelope = Envelope { version: COMMAND_VERSION, request_id: *request_id, command };
        serde_json::to_vec(&envelope).expect("invariant: a command has only text for map keys")
    }

    /// Reads an entry of the system group's log.
    ///
    /// # Errors
    /// [`CommandError`] when this program did not write it.
    pub fn decode(bytes: &[u8]) -> Result<SystemRequest, CommandError> {
        let Versioned { version: got } = serde_json::from_slice(bytes)?;
        if got != u64::from(COMMAND_VERSION) {
            return Err(CommandError::UnknownVersion { got });
        }
        let Envelope { request_id, command, .. } =
            serde_json::from_slice::<Envelope<Value>>(bytes)?;
        let name = command.as_object().and_then(|command| command.keys().next());
        if let Some(name) = name.filter(|name| !NAMES.contains(&name.as_str())) {
            return Err(CommandError::UnknownCommand { name: name.clone() });
        }
        Ok(SystemRequest { request_id, command: serde_json::from_value(command)? })
    }
}

#[cfg(test)]
mod tests;
