//! Entries, positions and memberships of groups.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::net::conversion::{ConversionError, even, required};
use crate::proto::cluster as wire;
use crate::protocol::raft::entry::{Entry, LogPosition, LogStart, Payload};
use crate::protocol::raft::membership::Membership;
use crate::types::{LogIndex, NodeId, ReplicaId, Term};

pub(super) fn encode_position(position: LogPosition) -> wire::LogPosition {
    wire::LogPosition { index: position.index.0, term: position.term.0 }
}

pub(super) fn decode_position(
    position: Option<wire::LogPosition>,
    field: &'static str,
) -> Result<LogPosition, ConversionError> {
    let wire::LogPosition { index, term } = required(position, field)?;
    Ok(LogPosition { index: LogIndex(index), term: Term(term) })
}

/// Entries as they follow `previous`. Each is told by how far it is off the one before.
pub(super) fn encode_entries(mut previous: LogPosition, entries: Vec<Entry>) -> Vec<wire::Entry> {
    let encode = |entry: Entry| {
        let (LogIndex(index), Term(term)) = (entry.index, entry.term);
        let index_ahead = index.wrapping_sub(previous.index.0).wrapping_sub(1);
        let term_ahead = term.wrapping_sub(previous.term.0);
        previous = entry.position();
        wire::Entry { term_ahead, index_ahead, payload: Some(encode_payload(entry.payload)) }
    };
    entries.into_iter().map(encode).collect()
}

/// The inverse of [`encode_entries`].
pub(super) fn decode_entries(
    mut previous: LogPosition,
    entries: Vec<wire::Entry>,
) -> Result<Vec<Entry>, ConversionError> {
    let decode = |entry: wire::Entry| {
        let index = previous.index.0.wrapping_add(1).wrapping_add(entry.index_ahead);
        let term = previous.term.0.wrapping_add(entry.term_ahead);
        let (index, term) = (not_zero(index, "Entry.index")?, not_zero(term, "Entry.term")?);
        previous = LogPosition { index: LogIndex(index), term: Term(term) };
        let payload = decode_payload(required(entry.payload, "Entry.payload")?)?;
        Ok(Entry { term: previous.term, index: previous.index, payload })
    };
    entries.into_iter().map(decode).collect()
}

fn not_zero(value: u64, field: &'static str) -> Result<u64, ConversionError> {
    if value == 0 { Err(ConversionError::Zero { field }) } else { Ok(value) }
}

fn encode_payload(payload: Payload) -> wire::entry::Payload {
    match payload {
        Payload::Empty => wire::entry::Payload::Empty(wire::Nothing {}),
        Payload::Command(command) => wire::entry::Payload::Command(command),
        Payload::Membership(membership) => {
            wire::entry::Payload::Membership(encode_membership(&membership))
        }
    }
}

fn decode_payload(payload: wire::entry::Payload) -> Result<Payload, ConversionError> {
    Ok(match payload {
        wire::entry::Payload::Empty(wire::Nothing {}) => Payload::Empty,
        wire::entry::Payload::Command(command) => {
            Payload::Command(Bytes::copy_from_slice(&command))
        }
        wire::entry::Payload::Membership(membership) => {
            Payload::Membership(decode_membership(membership)?)
        }
    })
}

fn encode_membership(membership: &Membership) -> wire::Membership {
    let list = |set: &BTreeSet<ReplicaId>| set.iter().map(|replica| replica.0).collect();
    wire::Membership {
        voters: list(&membership.voters),
        outgoing: list(&membership.outgoing),
        learners: list(&membership.learners),
        replicas: membership.nodes.keys().map(|replica| replica.0).collect(),
        nodes: membership.nodes.values().map(|node| node.0).collect(),
    }
}

fn decode_membership(membership: wire::Membership) -> Result<Membership, ConversionError> {
    let wire::Membership { voters, outgoing, learners, replicas, nodes } = membership;
    even(("Membership.replicas", replicas.len()), [("Membership.nodes", nodes.len())])?;
    decode_set(&replicas, "Membership.replicas")?;
    let nodes: BTreeMap<_, _> = replicas
        .into_iter()
        .zip(nodes)
        .map(|(replica, node)| (ReplicaId(replica), NodeId(node)))
        .collect();
    let placed = |list: &[u64], field| {
        let set = decode_set(list, field)?;
        match set.iter().find(|replica| !nodes.contains_key(replica)) {
            None => Ok(set),
            Some(&replica) => Err(ConversionError::Unplaced { field, replica }),
        }
    };
    Ok(Membership {
        voters: placed(&voters, "Membership.voters")?,
        outgoing: placed(&outgoing, "Membership.outgoing")?,
        learners: placed(&learners, "Membership.learners")?,
        nodes,
    })
}

fn decode_set(list: &[u64], field: &'static str) -> Result<BTreeSet<ReplicaId>, ConversionError> {
    let mut set = BTreeSet::new();
    for &value in list {
        if !set.insert(ReplicaId(value)) {
            return Err(ConversionError::Repeated { field, value });
        }
    }
    Ok(set)
}

pub(super) fn encode_start(start: &LogStart) -> wire::LogStart {
    wire::LogStart {
        position: Some(encode_position(start.position)),
        membership: Some(encode_membership(&start.membership)),
        membership_index: start.membership_index.0,
    }
}

pub(super) fn decode_start(start: wire::LogStart) -> Result<LogStart, ConversionError> {
    let membership = required(start.membership, "LogStart.membership")?;
    Ok(LogStart {
        position: decode_position(start.position, "LogStart.position")?,
        membership: decode_membership(membership)?,
        membership_index: LogIndex(start.membership_index),
    })
}
