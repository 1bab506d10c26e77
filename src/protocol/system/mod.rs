//! The system group's state machine: the facts that the whole cluster must agree on.
//!
//! One Raft group of all nodes, [`GroupId::SYSTEM`](crate::types::GroupId::SYSTEM), orders
//! commands; every node applies them, in that order, to its [`SystemState`]: members, the ring's
//! epoch, keyspaces, and which replicas the groups of the partitions consist of. Gossip tells who
//! is alive and never who owns what, so no two nodes can come to place data differently.
//!
//! * [`command`] says what can be asked, `apply` what becomes of it, [`refusal`] why nothing does.
//! * [`orders`] says of which replicas a group begins and consists, and which groups are to move.
//! * [`voters`] decides who votes in the system group.
//!
//! Invariants:
//! * [`SystemState::apply`] depends on the state, the index and the command alone, and a refused
//!   command changes nothing.
//! * Ids of keyspaces and of replicas are never used twice, not even by another group.
//! * A removed node never returns, and a replica never outlives the memory of its votes: a node
//!   that comes back with a new incarnation gets new replica ids in every group.
//! * The epoch grows by one with each command that changes what the ring is made of, or by which a
//!   reap floor rises, and with no other.
//! * The first strong keyspace founds the groups of all partitions, with its factor, and they are
//!   never given up, even when the last strong keyspace is dropped. What a partition's replicas
//!   keep (rows, sessions, the position that was applied) lies under the partition's number, so a
//!   second founding would have to begin above everything that the first left behind on any node.
//!   To keep idle groups costs little, and to go on with them needs no such care.
//!
//! Caveats:
//! * Removing a node moves its places at once in this state, while the groups follow one by one
//!   through their own membership changes (Ongaro 2014, chapter 4). Whoever removes several nodes
//!   in a row must wait until the groups have followed, or a group may find most of its voters
//!   gone. Their leaders tell when they have; a node that leaves in order waits for all of them.
//! * A group whose voters lost their memory in majority stays without a leader: the state gives
//!   their nodes new replicas, and nobody is left to let these in. That is meant, as acknowledged
//!   writes are gone. No command founds such a group anew.
//! * The factor of the first strong keyspace is that of all later ones, even if there is no other
//!   at the time.

mod apply;
pub mod command;
pub mod keyspace;
pub mod limits;
pub mod orders;
pub mod placement;
pub mod placing;
pub mod plan;
pub mod reaping;
pub mod refusal;
mod ring;
pub mod settings;
pub mod spread;
pub mod state;
pub mod transfers;
pub mod voters;

pub use self::command::{SystemCommand, SystemReply, SystemRequest};
pub use self::refusal::SystemRefusal;
pub use self::state::SystemState;

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod samples;
