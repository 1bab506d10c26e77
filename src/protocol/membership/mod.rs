//! The member set: every node of the cluster that was ever shown and not forgotten.
//!
//! It is a two-phase set that nodes exchange and merge: members are added when they describe
//! themselves and leave only when an operator forgets them. Being down removes nobody, because
//! gossip alone must never decide who owns data.
//!
//! Invariants:
//! * [`MemberSet::merge`] is commutative, associative and idempotent, so all nodes that have heard
//!   the same facts hold the same set, and with it the same ring.
//! * Forgetting is final: a forgotten node id never returns. A machine that shall come back does so
//!   with a new data directory, and so as a new node.
//!
//! Caveat: forgotten ids are kept for good, 8 bytes for each time that an operator forgets a node.

pub mod view;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::protocol::digest::murmur3;
use crate::types::{Incarnation, NodeId};

/// What the ring and the transport need to know of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The life of its data directory; a higher `revision` wins.
    pub incarnation: Incarnation,
    /// Grows each time the member describes itself anew.
    pub revision: u64,
    /// Its human name.
    pub name: String,
    /// Its failure domain; empty for none.
    pub zone: String,
    /// Its virtual nodes.
    pub vnodes: u32,
    /// Where peers reach it.
    pub peer_address: SocketAddr,
    /// Where clients reach it.
    pub client_address: SocketAddr,
}

/// Every node known and not forgotten, and the ids of those forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSet {
    members: BTreeMap<NodeId, Member>,
    #[serde(default)]
    forgotten: BTreeSet<NodeId>,
}

impl MemberSet {
    /// The set without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of a node's description of itself; true when the set has changed.
    ///
    /// Ignored when the node is forgotten, or when its description of a higher revision is known.
    pub fn describe(&mut self, node: NodeId, member: Member) -> bool {
        if self.is_forgotten(node) {
            return false;
        }
        match self.members.entry(node) {
            Entry::Vacant(entry) => {
                entry.insert(member);
                true
            }
            Entry::Occupied(mut entry) => {
                let replaces = member.rank() > entry.get().rank();
                if replaces {
                    entry.insert(member);
                }
                replaces
            }
        }
    }

    /// Removes a node for good, also one that is not known yet; its description if it had one.
    pub fn forget(&mut self, node: NodeId) -> Option<Member> {
        self.forgotten.insert(node);
        self.members.remove(&node)
    }

    /// The nodes that were removed.
    pub fn forgotten(&self) -> &BTreeSet<NodeId> {
        &self.forgotten
    }

    /// Whether the node was removed.
    pub fn is_forgotten(&self, node: NodeId) -> bool {
        self.forgotten.contains(&node)
    }

    /// Adds all that another node knows; true when the set has changed.
    pub fn merge(&mut self, other: &MemberSet) -> bool {
        let mut changed = false;
        for node in &other.forgotten {
            if !self.is_forgotten(*node) {
                self.forget(*node);
                changed = true;
            }
        }
        for (node, member) in &other.members {
            changed |= self.describe(*node, member.clone());
        }
        changed
    }

    /// A fingerprint of the whole set, the same on every machine; equal sets have equal ones.
    pub fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        write_number(&mut bytes, self.members.len() as u64);
        for (node, member) in &self.members {
            write_number(&mut bytes, node.0);
            member.write_to(&mut bytes);
        }
        for node in &self.forgotten {
            write_number(&mut bytes, node.0);
        }
        (murmur3(&bytes) >> 64) as u64
    }

    /// What is known of a member.
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// The members, sorted by node.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

impl Member {
    /// Orders descriptions of one node: by revision, and by all the rest so that nodes agree even
    /// about two descriptions with one revision.
    fn rank(&self) -> impl Ord + '_ {
        (
            self.revision,
            self.incarnation,
            (&self.name, &self.zone, self.vnodes),
            (self.peer_address, self.client_address),
        )
    }

    /// Appends every field; texts go with their length, so that no two members write the same.
    fn write_to(&self, bytes: &mut Vec<u8>) {
        write_number(bytes, self.incarnation.0);
        write_number(bytes, self.revision);
        write_text(bytes, &self.name);
        write_text(bytes, &self.zone);
        write_number(bytes, u64::from(self.vnodes));
        write_text(bytes, &self.peer_address.to_string());
        write_text(bytes, &self.client_address.to_string());
    }
}

fn write_number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_be_bytes());
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
