//! Requests of clients that are handed on, and their answers.

use bytes::Bytes;

use crate::net::conversion::{
    ConversionError, decode_duration, decode_expiry, decode_group, decode_version, encode_duration,
    encode_expiry, encode_group, encode_version, listing, required, unknown, watch,
};
use crate::proto::cluster as wire;
use crate::proto::cluster::forward_reply::Outcome;
use crate::protocol::consistency::Consistency;
use crate::protocol::message::{
    Ask, Forward, ForwardRefusal, ForwardReply, Message, RequestId, Told,
};
use crate::types::{Key, KeyspaceId, LogIndex, NodeId, Record};

pub(super) fn encode(forward: Forward) -> wire::Forward {
    let Forward { request, group, time_left, ask } = forward;
    wire::Forward {
        request: request.0,
        group: encode_group(group),
        time_left_us: encode_duration(time_left),
        ask: Some(encode_ask(ask)),
    }
}

pub(super) fn decode(forward: wire::Forward) -> Result<Message, ConversionError> {
    Ok(Message::Forward(Forward {
        request: RequestId(forward.request),
        group: decode_group(forward.group, "Forward.group")?,
        time_left: decode_duration(forward.time_left_us),
        ask: decode_ask(required(forward.ask, "Forward.ask")?)?,
    }))
}

fn encode_ask(ask: Ask) -> wire::forward::Ask {
    match ask {
        Ask::Propose(command) => wire::forward::Ask::Propose(command),
        Ask::Read { keyspace, key, consistency } => {
            let (kind, max_staleness_us) = encode_consistency(consistency);
            wire::forward::Ask::Read(wire::GroupRead {
                keyspace: keyspace.0,
                key: key.0,
                consistency: i32::from(kind),
                max_staleness_us,
            })
        }
        Ask::List { keyspace, range, consistency } => {
            let (kind, max_staleness_us) = encode_consistency(consistency);
            wire::forward::Ask::List(wire::GroupList {
                keyspace: keyspace.0,
                range: Some(listing::encode_range(*range)),
                consistency: i32::from(kind),
                max_staleness_us,
            })
        }
        Ask::Watch(ask) => wire::forward::Ask::Watch(watch::encode_ask(*ask)),
    }
}

fn decode_ask(ask: wire::forward::Ask) -> Result<Ask, ConversionError> {
    Ok(match ask {
        wire::forward::Ask::Propose(command) => Ask::Propose(Bytes::copy_from_slice(&command)),
        wire::forward::Ask::Read(read) => Ask::Read {
            keyspace: KeyspaceId(read.keyspace),
            consistency: decode_consistency(read.consistency, read.max_staleness_us)?,
            key: Key(read.key),
        },
        wire::forward::Ask::List(list) => Ask::List {
            keyspace: KeyspaceId(list.keyspace),
            range: Box::new(listing::decode_range(required(list.range, "GroupList.range")?)),
            consistency: decode_consistency(list.consistency, list.max_staleness_us)?,
        },
        wire::forward::Ask::Watch(ask) => Ask::Watch(Box::new(watch::decode_ask(ask)?)),
    })
}

fn encode_consistency(consistency: Consistency) -> (wire::Consistency, u64) {
    match consistency {
        Consistency::Linearizable => (wire::Consistency::Linearizable, 0),
        Consistency::Lease => (wire::Consistency::Lease, 0),
        Consistency::Stale { max_staleness } => {
            (wire::Consistency::Stale, encode_duration(max_staleness))
        }
    }
}

fn decode_consistency(value: i32, max_staleness_us: u64) -> Result<Consistency, ConversionError> {
    const FIELD: &str = "GroupRead.consistency";
    Ok(match wire::Consistency::try_from(value).map_err(|_| unknown(FIELD, value))? {
        wire::Consistency::Unspecified => return Err(ConversionError::Missing { field: FIELD }),
        wire::Consistency::Linearizable => Consistency::Linearizable,
        wire::Consistency::Lease => Consistency::Lease,
        wire::Consistency::Stale => {
            Consistency::Stale { max_staleness: decode_duration(max_staleness_us) }
        }
    })
}

pub(super) fn encode_reply(reply: ForwardReply) -> wire::ForwardReply {
    let outcome = match reply.outcome {
        Ok(Told::Proposed(answer)) => Outcome::Proposed(answer),
        Ok(Told::Read { record, applied }) => {
            let record = record.map(encode_record);
            Outcome::Read(wire::GroupReadReply { record, applied: applied.0 })
        }
        Ok(Told::Listed(page)) => Outcome::Listed(listing::encode_page(page)),
        Ok(Told::Watched(page)) => watch::encode_page(page),
        Err(refusal) => Outcome::Refused(encode_refusal(refusal)),
    };
    wire::ForwardReply { request: reply.request.0, outcome: Some(outcome) }
}

pub(super) fn decode_reply(reply: wire::ForwardReply) -> Result<Message, ConversionError> {
    let outcome = match required(reply.outcome, "ForwardReply.outcome")? {
        Outcome::Proposed(answer) => Ok(Told::Proposed(answer)),
        Outcome::Read(wire::GroupReadReply { record, applied }) => {
            let record = record.map(decode_record).transpose()?;
            Ok(Told::Read { record, applied: LogIndex(applied) })
        }
        Outcome::Listed(page) => Ok(Told::Listed(listing::decode_page(page)?)),
        Outcome::Watched(page) => Ok(Told::Watched(watch::decode_page(page))),
        Outcome::WatchGone(oldest) => Ok(Told::Watched(watch::decode_gone(oldest))),
        Outcome::Refused(refused) => Err(decode_refusal(&refused)?),
    };
    Ok(Message::ForwardReply(ForwardReply { request: RequestId(reply.request), outcome }))
}

fn encode_record(record: Record) -> wire::Record {
    let Record { version, value, expires_at } = record;
    let expires_at_ms = encode_expiry(expires_at);
    wire::Record { version: encode_version(version), value, expires_at_ms }
}

fn decode_record(record: wire::Record) -> Result<Record, ConversionError> {
    let version = decode_version(record.version, "Record.version")?;
    Ok(Record::new(version, record.value).expiring(decode_expiry(record.expires_at_ms)))
}

fn encode_refusal(refusal: ForwardRefusal) -> wire::ForwardRefused {
    let mut leader = None;
    let refusal = i32::from(match refusal {
        ForwardRefusal::NotLeader { leader: known } => {
            leader = known.map(|node| node.0);
            wire::ForwardRefusal::NotLeader
        }
        ForwardRefusal::NotReplica => wire::ForwardRefusal::NotReplica,
        ForwardRefusal::Overloaded => wire::ForwardRefusal::Overloaded,
        ForwardRefusal::Expired => wire::ForwardRefusal::Expired,
        ForwardRefusal::Unknown => wire::ForwardRefusal::Unknown,
        ForwardRefusal::Storage => wire::ForwardRefusal::Storage,
        ForwardRefusal::NotServing => wire::ForwardRefusal::NotServing,
        ForwardRefusal::Lost => wire::ForwardRefusal::Lost,
    });
    wire::ForwardRefused { refusal, leader }
}

fn decode_refusal(refused: &wire::ForwardRefused) -> Result<ForwardRefusal, ConversionError> {
    const FIELD: &str = "ForwardRefused.refusal";
    let value = refused.refusal;
    Ok(match wire::ForwardRefusal::try_from(value).map_err(|_| unknown(FIELD, value))? {
        wire::ForwardRefusal::Unspecified => {
            return Err(ConversionError::Missing { field: FIELD });
        }
        wire::ForwardRefusal::NotLeader => {
            ForwardRefusal::NotLeader { leader: refused.leader.map(NodeId) }
        }
        wire::ForwardRefusal::NotReplica => ForwardRefusal::NotReplica,
        wire::ForwardRefusal::Overloaded => ForwardRefusal::Overloaded,
        wire::ForwardRefusal::Expired => ForwardRefusal::Expired,
        wire::ForwardRefusal::Unknown => ForwardRefusal::Unknown,
        wire::ForwardRefusal::Storage => ForwardRefusal::Storage,
        wire::ForwardRefusal::NotServing => ForwardRefusal::NotServing,
        wire::ForwardRefusal::Lost => ForwardRefusal::Lost,
    })
}
