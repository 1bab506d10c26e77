//! Chunks of snapshots and their replies.

use crate::net::conversion::log::{decode_start, encode_start};
use crate::net::conversion::{
    ConversionError, decode_expiry, decode_group, decode_version, encode_expiry, encode_group,
    encode_version, unknown,
};
use crate::proto::cluster as wire;
use crate::protocol::message::{Message, SnapshotChunk, SnapshotRefusal, SnapshotReply};
use crate::types::{Key, KeyspaceId, LogIndex, Record, ReplicaId, Row};

pub(super) fn encode(chunk: SnapshotChunk) -> wire::SnapshotChunk {
    wire::SnapshotChunk {
        group: encode_group(chunk.group),
        to: chunk.to.0,
        from: chunk.from.0,
        transfer: chunk.transfer,
        number: chunk.number,
        log_start: chunk.log_start.0,
        start: chunk.start.map(|start| encode_start(&start)),
        rows: chunk.rows.into_iter().map(encode_row).collect(),
        checksum: chunk.checksum,
        last: chunk.last,
    }
}

pub(super) fn decode(chunk: wire::SnapshotChunk) -> Result<Message, ConversionError> {
    let start = chunk.start.map(decode_start).transpose()?.map(Box::new);
    if chunk.last && start.is_none() {
        return Err(ConversionError::Missing { field: "SnapshotChunk.start" });
    }
    let rows: Result<_, _> = chunk.rows.into_iter().map(decode_row).collect();
    Ok(Message::Snapshot(SnapshotChunk {
        group: decode_group(chunk.group, "SnapshotChunk.group")?,
        to: ReplicaId(chunk.to),
        from: ReplicaId(chunk.from),
        transfer: chunk.transfer,
        number: chunk.number,
        log_start: LogIndex(chunk.log_start),
        start,
        rows: rows?,
        checksum: chunk.checksum,
        last: chunk.last,
    }))
}

fn encode_row(row: Row) -> wire::SnapshotRow {
    wire::SnapshotRow {
        keyspace: row.keyspace.0,
        key: row.key.0,
        version: encode_version(row.record.version),
        value: row.record.value,
        expires_at_ms: encode_expiry(row.record.expires_at),
    }
}

fn decode_row(row: wire::SnapshotRow) -> Result<Row, ConversionError> {
    let version = decode_version(row.version, "SnapshotRow.version")?;
    let record = Record::new(version, row.value).expiring(decode_expiry(row.expires_at_ms));
    Ok(Row { keyspace: KeyspaceId(row.keyspace), key: Key(row.key), record })
}

pub(super) fn encode_reply(reply: SnapshotReply) -> wire::SnapshotReply {
    let SnapshotReply { group, to, from, transfer, next, outcome } = reply;
    let refusal = i32::from(match outcome {
        Ok(()) => wire::SnapshotRefusal::Unspecified,
        Err(SnapshotRefusal::Checksum) => wire::SnapshotRefusal::Checksum,
        Err(SnapshotRefusal::Unwanted) => wire::SnapshotRefusal::Unwanted,
        Err(SnapshotRefusal::Storage) => wire::SnapshotRefusal::Storage,
        Err(SnapshotRefusal::Overloaded) => wire::SnapshotRefusal::Overloaded,
        Err(SnapshotRefusal::Wanted) => wire::SnapshotRefusal::Wanted,
    });
    let group = encode_group(group);
    wire::SnapshotReply { group, to: to.0, from: from.0, transfer, next, refusal }
}

pub(super) fn decode_reply(reply: wire::SnapshotReply) -> Result<Message, ConversionError> {
    let refusal = wire::SnapshotRefusal::try_from(reply.refusal)
        .map_err(|_| unknown("SnapshotReply.refusal", reply.refusal))?;
    let outcome = match refusal {
        wire::SnapshotRefusal::Unspecified => Ok(()),
        wire::SnapshotRefusal::Checksum => Err(SnapshotRefusal::Checksum),
        wire::SnapshotRefusal::Unwanted => Err(SnapshotRefusal::Unwanted),
        wire::SnapshotRefusal::Storage => Err(SnapshotRefusal::Storage),
        wire::SnapshotRefusal::Overloaded => Err(SnapshotRefusal::Overloaded),
        wire::SnapshotRefusal::Wanted => Err(SnapshotRefusal::Wanted),
    };
    Ok(Message::SnapshotReply(SnapshotReply {
        group: decode_group(reply.group, "SnapshotReply.group")?,
        to: ReplicaId(reply.to),
        from: ReplicaId(reply.from),
        transfer: reply.transfer,
        next: reply.next,
        outcome,
    }))
}
