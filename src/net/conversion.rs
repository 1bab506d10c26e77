//! Messages as protobuf frames and back.
//!
//! Both directions are total: every [`Message`] has a form on the wire, and every frame is either
//! understood whole or refused with an error that names the field at fault. Acknowledgements, the
//! commonest message, shrink to a packed list of request ids, and the heartbeats of all groups to
//! packed columns. Keys and values are handed through as [`Bytes`] and so not copied: what is kept
//! for long should be copied out of the frame. Commands of groups are copied here, since a log
//! keeps each of them.
//!
//! The order of messages is kept within a kind only. Replicas of groups rely on none: of their
//! messages, heartbeats and replies to heartbeats are kinds of their own, and overtake the rest.

use std::time::Duration;

use bytes::Bytes;

use crate::proto::cluster as wire;
use crate::protocol::membership::MemberSet;
use crate::protocol::message::{Message, RequestId, WriteReply};
use crate::protocol::version::dvv::SiblingsError;
use crate::types::{Expiry, GroupId, Incarnation, ReplicaId, Timestamp, Version};

mod forward;
mod groups;
mod heartbeats;
mod listing;
mod log;
mod mint;
mod quorum;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;
mod watch;

/// Why a frame cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConversionError {
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing { field: &'static str },
    /// A field holds what this version does not know.
    #[error("{field} has the unknown value {value}")]
    Unknown { field: &'static str, value: i64 },
    /// A member set is not the JSON that it should be.
    #[error("the member set cannot be read")]
    Members { source: serde_json::Error },
    /// A field that counts from 1 holds 0.
    #[error("{field} is 0")]
    Zero { field: &'static str },
    /// A set names something twice.
    #[error("{field} names {value} twice")]
    Repeated { field: &'static str, value: u64 },
    /// Columns that belong together have different lengths.
    #[error("{field} has {length} values, {than} has {expected}")]
    Uneven { field: &'static str, length: usize, than: &'static str, expected: usize },
    /// A membership does not say where one of its replicas runs.
    #[error("Membership.replicas lacks {replica} of {field}")]
    Unplaced { field: &'static str, replica: ReplicaId },
    /// A context of siblings is none.
    #[error("{field} cannot be read: it {source}")]
    Context { field: &'static str, source: SiblingsError },
    /// Fields that exclude each other are both there.
    #[error("{field} and another that excludes it are both set")]
    Contradiction { field: &'static str },
    /// A second handshake on a stream that stands.
    #[error("a Hello after the handshake")]
    SecondHello,
}

/// Packs messages into one frame, keeping the order within each kind.
pub(crate) fn encode(messages: impl Iterator<Item = Message>) -> wire::Frame {
    let mut frame = wire::Frame::default();
    for message in messages {
        encode_one(message, &mut frame);
    }
    frame
}

fn encode_one(message: Message, to: &mut wire::Frame) {
    match message {
        Message::Write(write) => to.writes.push(quorum::encode_write(write)),
        Message::WriteReply(reply) => quorum::encode_write_reply(&reply, to),
        Message::Mint(mint) => to.mints.push(mint::encode(mint)),
        Message::MintReply(reply) => to.mint_replies.push(mint::encode_reply(reply)),
        Message::Read(read) => to.reads.push(quorum::encode_read(read)),
        Message::ReadReply(reply) => to.read_replies.push(quorum::encode_read_reply(reply)),
        Message::Scan(scan) => to.scans.push(quorum::encode_scan(scan)),
        Message::ScanReply(reply) => to.scan_replies.push(quorum::encode_scan_reply(reply)),
        Message::TreeAsk(ask) => to.tree_asks.push(tree::encode_ask(ask)),
        Message::TreeReply(reply) => to.tree_replies.push(tree::encode_reply(reply)),
        Message::List(list) => to.lists.push(listing::encode(list)),
        Message::ListReply(reply) => to.list_replies.push(listing::encode_reply(reply)),
        Message::Group(message) => groups::encode(message, to),
        Message::Forward(forward) => to.forwards.push(forward::encode(forward)),
        Message::ForwardReply(reply) => to.forward_replies.push(forward::encode_reply(reply)),
        Message::Snapshot(chunk) => to.snapshots.push(snapshot::encode(chunk)),
        Message::SnapshotReply(reply) => to.snapshot_replies.push(snapshot::encode_reply(reply)),
    }
}

/// Unpacks a frame, replies before requests: someone waits for them already.
///
/// # Errors
/// [`ConversionError`] names the first field at fault; no message of such a frame is used.
pub(crate) fn decode(frame: wire::Frame) -> Result<Vec<Message>, ConversionError> {
    if frame.hello.is_some() {
        return Err(ConversionError::SecondHello);
    }
    let mut messages = Vec::with_capacity(count(&frame));
    messages.extend(frame.acknowledged.into_iter().map(|request| {
        Message::WriteReply(WriteReply { request: RequestId(request), outcome: Ok(None) })
    }));
    let to = &mut messages;
    heartbeats::decode_replies(frame.group_heartbeat_replies.unwrap_or_default(), to)?;
    heartbeats::decode(frame.group_heartbeats.unwrap_or_default(), to)?;
    append(to, frame.writes_met, quorum::decode_write_met)?;
    append(to, frame.write_refusals, quorum::decode_write_refusal)?;
    append(to, frame.mint_replies, mint::decode_reply)?;
    append(to, frame.read_replies, quorum::decode_read_reply)?;
    append(to, frame.scan_replies, quorum::decode_scan_reply)?;
    append(to, frame.tree_replies, tree::decode_reply)?;
    append(to, frame.list_replies, listing::decode_reply)?;
    append(to, frame.forward_replies, forward::decode_reply)?;
    append(to, frame.snapshot_replies, snapshot::decode_reply)?;
    append(to, frame.group_messages, groups::decode)?;
    append(to, frame.reads, |read| Ok(quorum::decode_read(read)))?;
    append(to, frame.writes, quorum::decode_write)?;
    append(to, frame.mints, mint::decode)?;
    append(to, frame.forwards, forward::decode)?;
    append(to, frame.lists, listing::decode)?;
    append(to, frame.scans, quorum::decode_scan)?;
    append(to, frame.snapshots, snapshot::decode)?;
    append(to, frame.tree_asks, tree::decode_ask)?;
    Ok(messages)
}

/// A member set as it travels.
pub(crate) fn encode_members(members: &MemberSet) -> Bytes {
    let json = serde_json::to_vec(members);
    Bytes::from(json.expect("invariant: a member set has string keys and plain values"))
}

/// The inverse of [`encode_members`].
///
/// # Errors
/// [`ConversionError::Members`] with the position at fault.
pub(crate) fn decode_members(json: &[u8]) -> Result<MemberSet, ConversionError> {
    serde_json::from_slice(json).map_err(|source| ConversionError::Members { source })
}

fn count(frame: &wire::Frame) -> usize {
    frame.acknowledged.len()
        + frame.writes_met.len()
        + frame.write_refusals.len()
        + frame.read_replies.len()
        + frame.scan_replies.len()
        + frame.reads.len()
        + frame.writes.len()
        + frame.mints.len()
        + frame.mint_replies.len()
        + frame.scans.len()
        + frame.group_heartbeats.as_ref().map_or(0, |beats| beats.group.len())
        + frame.group_heartbeat_replies.as_ref().map_or(0, |replies| replies.group.len())
        + frame.group_messages.len()
        + frame.forwards.len()
        + frame.forward_replies.len()
        + frame.snapshots.len()
        + frame.snapshot_replies.len()
        + frame.tree_asks.len()
        + frame.tree_replies.len()
}

fn append<W>(
    messages: &mut Vec<Message>,
    from: Vec<W>,
    decode_one: impl Fn(W) -> Result<Message, ConversionError>,
) -> Result<(), ConversionError> {
    for one in from {
        messages.push(decode_one(one)?);
    }
    Ok(())
}

fn required<T>(value: Option<T>, field: &'static str) -> Result<T, ConversionError> {
    value.ok_or(ConversionError::Missing { field })
}

fn unknown(field: &'static str, value: impl Into<i64>) -> ConversionError {
    ConversionError::Unknown { field, value: value.into() }
}

/// Checks that columns are of one length, which is that of the first.
fn even<const COLUMNS: usize>(
    first: (&'static str, usize),
    others: [(&'static str, usize); COLUMNS],
) -> Result<(), ConversionError> {
    let (than, expected) = first;
    match others.into_iter().find(|(_, length)| *length != expected) {
        None => Ok(()),
        Some((field, length)) => Err(ConversionError::Uneven { field, length, than, expected }),
    }
}

fn encode_version(version: Version) -> Option<wire::Version> {
    let Version { timestamp, incarnation } = version;
    Some(wire::Version { timestamp: timestamp.0, incarnation: incarnation.0 })
}

fn decode_version(
    version: Option<wire::Version>,
    field: &'static str,
) -> Result<Version, ConversionError> {
    let wire::Version { timestamp, incarnation } = required(version, field)?;
    Ok(Version { timestamp: Timestamp(timestamp), incarnation: Incarnation(incarnation) })
}

fn encode_expiry(expires_at: Option<Expiry>) -> Option<u64> {
    expires_at.map(|end| end.0)
}

fn decode_expiry(expires_at_ms: Option<u64>) -> Option<Expiry> {
    expires_at_ms.map(Expiry)
}

/// Whole microseconds: finer than any timeout needs.
fn encode_duration(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn decode_duration(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn encode_group(group: GroupId) -> u32 {
    u32::from(group.0)
}

fn decode_group(group: u32, field: &'static str) -> Result<GroupId, ConversionError> {
    u16::try_from(group).map(GroupId).map_err(|_| unknown(field, group))
}
