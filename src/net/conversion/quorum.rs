//! Reads, writes and scans of `quorum` keyspaces.

use crate::net::conversion::{
    ConversionError, decode_duration, decode_expiry, decode_version, encode_duration,
    encode_expiry, encode_version, required, unknown,
};
use crate::proto::cluster as wire;
use crate::protocol::message::{
    Class, Compare, Found, Holding, Message, Read, ReadReply, Refusal, RequestId, Scan, ScanPage,
    ScanReply, Want, Write, WriteReply,
};
use crate::types::{Epoch, Key, KeyspaceId, NodeId, PartitionId, Record, Row};

pub(super) fn encode_write(write: Write) -> wire::Write {
    let Write { request, row, epoch, hint_for, seen, class, time_left } = write;
    wire::Write {
        request: request.0,
        keyspace: row.keyspace.0,
        key: row.key.0,
        version: encode_version(row.record.version),
        value: row.record.value,
        hint_for: hint_for.map(|node| node.0),
        time_left_us: encode_duration(time_left),
        epoch: epoch.0,
        expires_at_ms: encode_expiry(row.record.expires_at),
        class: encode_class(class),
        seen: seen.and_then(encode_version),
    }
}

pub(super) fn decode_write(write: wire::Write) -> Result<Message, ConversionError> {
    let version = decode_version(write.version, "Write.version")?;
    let record = Record::new(version, write.value).expiring(decode_expiry(write.expires_at_ms));
    let row = Row { keyspace: KeyspaceId(write.keyspace), key: Key(write.key), record };
    Ok(Message::Write(Write {
        request: RequestId(write.request),
        row,
        epoch: Epoch(write.epoch),
        hint_for: write.hint_for.map(NodeId),
        seen: write.seen.map(|seen| decode_version(Some(seen), "Write.seen")).transpose()?,
        class: decode_class(write.class)?,
        time_left: decode_duration(write.time_left_us),
    }))
}

fn encode_class(class: Class) -> i32 {
    i32::from(match class {
        Class::Client => wire::Class::Client,
        Class::Repair => wire::Class::Repair,
        Class::Hint => wire::Class::Hint,
        Class::Transfer => wire::Class::Transfer,
        Class::AntiEntropy => wire::Class::AntiEntropy,
    })
}

fn decode_class(value: i32) -> Result<Class, ConversionError> {
    Ok(match wire::Class::try_from(value).map_err(|_| unknown("Write.class", value))? {
        wire::Class::Client => Class::Client,
        wire::Class::Repair => Class::Repair,
        wire::Class::Hint => Class::Hint,
        wire::Class::Transfer => Class::Transfer,
        wire::Class::AntiEntropy => Class::AntiEntropy,
    })
}

pub(super) fn encode_write_reply(reply: &WriteReply, frame: &mut wire::Frame) {
    let request = reply.request.0;
    match reply.outcome {
        Ok(None) => frame.acknowledged.push(request),
        Ok(Some(met)) => {
            frame.writes_met.push(wire::WriteMet { request, version: encode_version(met) });
        }
        Err(refusal) => {
            let refusal = encode_refusal(refusal);
            frame.write_refusals.push(wire::WriteRefusal { request, refusal });
        }
    }
}

pub(super) fn decode_write_met(reply: wire::WriteMet) -> Result<Message, ConversionError> {
    let met = decode_version(reply.version, "WriteMet.version")?;
    Ok(Message::WriteReply(WriteReply {
        request: RequestId(reply.request),
        outcome: Ok(Some(met)),
    }))
}

pub(super) fn decode_write_refusal(reply: wire::WriteRefusal) -> Result<Message, ConversionError> {
    const FIELD: &str = "WriteRefusal.refusal";
    let refusal = decode_refusal(reply.refusal, FIELD)?;
    let refusal = required(refusal, FIELD)?;
    Ok(Message::WriteReply(WriteReply { request: RequestId(reply.request), outcome: Err(refusal) }))
}

pub(super) fn encode_read(read: Read) -> wire::Read {
    wire::Read {
        request: read.request.0,
        keyspace: read.keyspace.0,
        key: read.key.0,
        version_only: read.want == Want::Version,
        time_left_us: encode_duration(read.time_left),
        epoch: read.epoch.0,
    }
}

pub(super) fn decode_read(read: wire::Read) -> Message {
    Message::Read(Read {
        request: RequestId(read.request),
        keyspace: KeyspaceId(read.keyspace),
        key: Key(read.key),
        want: if read.version_only { Want::Version } else { Want::Value },
        epoch: Epoch(read.epoch),
        time_left: decode_duration(read.time_left_us),
    })
}

pub(super) fn encode_read_reply(reply: ReadReply) -> wire::ReadReply {
    let mut to = wire::ReadReply { request: reply.request.0, ..Default::default() };
    match reply.outcome {
        Ok(found) => encode_found(found, &mut to),
        Err(refusal) => to.refusal = encode_refusal(refusal),
    }
    to
}

fn encode_found(found: Found, to: &mut wire::ReadReply) {
    to.complete = found.complete;
    to.version = found.holding.as_ref().and_then(|holding| encode_version(holding.version()));
    let holding = match found.holding {
        None => wire::Holding::Nothing,
        Some(Holding::Version(_)) => wire::Holding::Version,
        Some(Holding::Record(record)) => {
            to.expires_at_ms = encode_expiry(record.expires_at);
            let holding = match record.value {
                None => wire::Holding::Tombstone,
                Some(_) => wire::Holding::Value,
            };
            to.value = record.value.unwrap_or_default();
            holding
        }
    };
    to.holding = i32::from(holding);
}

pub(super) fn decode_read_reply(reply: wire::ReadReply) -> Result<Message, ConversionError> {
    let request = RequestId(reply.request);
    let outcome = match decode_refusal(reply.refusal, "ReadReply.refusal")? {
        Some(refusal) => Err(refusal),
        None => Ok(Found { complete: reply.complete, holding: decode_holding(reply)? }),
    };
    Ok(Message::ReadReply(ReadReply { request, outcome }))
}

fn decode_holding(reply: wire::ReadReply) -> Result<Option<Holding>, ConversionError> {
    const FIELD: &str = "ReadReply.holding";
    let version = || decode_version(reply.version, "ReadReply.version");
    let record = |value| {
        let record = Record::new(version()?, value);
        Ok(Some(Holding::Record(record.expiring(decode_expiry(reply.expires_at_ms)))))
    };
    Ok(match wire::Holding::try_from(reply.holding).map_err(|_| unknown(FIELD, reply.holding))? {
        wire::Holding::Unspecified => return Err(ConversionError::Missing { field: FIELD }),
        wire::Holding::Nothing => None,
        wire::Holding::Version => Some(Holding::Version(version()?)),
        wire::Holding::Tombstone => record(None)?,
        wire::Holding::Value => record(Some(reply.value))?,
    })
}

pub(super) fn encode_scan(scan: Scan) -> wire::Scan {
    wire::Scan {
        request: scan.request.0,
        keyspace: scan.keyspace.0,
        partition: u32::from(scan.partition.0),
        after: scan.after.map(|key| key.0),
        page_bytes_max: scan.page_bytes_max,
        epoch: scan.epoch.0,
        compare: scan.compare.map(|Compare { up_to, digest }| wire::Compare {
            up_to: up_to.map(|key| key.0),
            digest,
        }),
    }
}

pub(super) fn decode_scan(scan: wire::Scan) -> Result<Message, ConversionError> {
    let partition =
        u16::try_from(scan.partition).map_err(|_| unknown("Scan.partition", scan.partition))?;
    Ok(Message::Scan(Scan {
        request: RequestId(scan.request),
        keyspace: KeyspaceId(scan.keyspace),
        partition: PartitionId(partition),
        after: scan.after.map(Key),
        page_bytes_max: scan.page_bytes_max,
        epoch: Epoch(scan.epoch),
        compare: scan
            .compare
            .map(|wire::Compare { up_to, digest }| Compare { up_to: up_to.map(Key), digest }),
    }))
}

pub(super) fn encode_scan_reply(reply: ScanReply) -> wire::ScanReply {
    let (request, complete) = (reply.request.0, reply.complete);
    let mut to = wire::ScanReply { request, complete, ..Default::default() };
    match reply.outcome {
        Err(refusal) => to.refusal = encode_refusal(refusal),
        Ok(page) => {
            to.done = page.done;
            to.same = page.same;
            to.damaged = page.damaged.into_iter().map(|key| key.0).collect();
            to.rows = page.rows.into_iter().map(encode_row).collect();
        }
    }
    to
}

pub(super) fn encode_row((key, record): (Key, Record)) -> wire::Row {
    let version = encode_version(record.version);
    let expires_at_ms = encode_expiry(record.expires_at);
    wire::Row { key: key.0, version, value: record.value, expires_at_ms }
}

pub(super) fn decode_scan_reply(reply: wire::ScanReply) -> Result<Message, ConversionError> {
    let outcome = match decode_refusal(reply.refusal, "ScanReply.refusal")? {
        Some(refusal) => Err(refusal),
        None => {
            let rows: Result<_, _> = reply.rows.into_iter().map(decode_row).collect();
            let damaged = reply.damaged.into_iter().map(Key).collect();
            Ok(ScanPage { rows: rows?, done: reply.done, same: reply.same, damaged })
        }
    };
    let (request, complete) = (RequestId(reply.request), reply.complete);
    Ok(Message::ScanReply(ScanReply { request, outcome, complete }))
}

pub(super) fn decode_row(row: wire::Row) -> Result<(Key, Record), ConversionError> {
    let version = decode_version(row.version, "Row.version")?;
    let record = Record::new(version, row.value).expiring(decode_expiry(row.expires_at_ms));
    Ok((Key(row.key), record))
}

pub(super) fn encode_refusal(refusal: Refusal) -> i32 {
    i32::from(match refusal {
        Refusal::Overloaded => wire::Refusal::Overloaded,
        Refusal::DiskFull => wire::Refusal::DiskFull,
        Refusal::LogFailed => wire::Refusal::LogFailed,
        Refusal::InDoubt => wire::Refusal::InDoubt,
        Refusal::ClockOffset => wire::Refusal::ClockOffset,
        Refusal::Corrupt => wire::Refusal::Corrupt,
        Refusal::Expired => wire::Refusal::Expired,
        Refusal::HintNotAdmitted => wire::Refusal::HintNotAdmitted,
        Refusal::Storage => wire::Refusal::Storage,
        Refusal::NotServing => wire::Refusal::NotServing,
        Refusal::KeyspaceDropped => wire::Refusal::KeyspaceDropped,
        Refusal::StaleRing => wire::Refusal::StaleRing,
        Refusal::TooManySiblings => wire::Refusal::TooManySiblings,
        Refusal::ContextUnheard => wire::Refusal::ContextUnheard,
        Refusal::OutOfRange => wire::Refusal::OutOfRange,
    })
}

/// `None` when the field is not set.
pub(super) fn decode_refusal(
    value: i32,
    field: &'static str,
) -> Result<Option<Refusal>, ConversionError> {
    let refusal = wire::Refusal::try_from(value).map_err(|_| unknown(field, value))?;
    Ok(match refusal {
        wire::Refusal::Unspecified => None,
        wire::Refusal::Overloaded => Some(Refusal::Overloaded),
        wire::Refusal::DiskFull => Some(Refusal::DiskFull),
        wire::Refusal::LogFailed => Some(Refusal::LogFailed),
        wire::Refusal::InDoubt => Some(Refusal::InDoubt),
        wire::Refusal::ClockOffset => Some(Refusal::ClockOffset),
        wire::Refusal::Corrupt => Some(Refusal::Corrupt),
        wire::Refusal::Expired => Some(Refusal::Expired),
        wire::Refusal::HintNotAdmitted => Some(Refusal::HintNotAdmitted),
        wire::Refusal::Storage => Some(Refusal::Storage),
        wire::Refusal::NotServing => Some(Refusal::NotServing),
        wire::Refusal::KeyspaceDropped => Some(Refusal::KeyspaceDropped),
        wire::Refusal::StaleRing => Some(Refusal::StaleRing),
        wire::Refusal::TooManySiblings => Some(Refusal::TooManySiblings),
        wire::Refusal::ContextUnheard => Some(Refusal::ContextUnheard),
        wire::Refusal::OutOfRange => Some(Refusal::OutOfRange),
    })
}
