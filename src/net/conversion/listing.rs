//! What replicas and groups are asked to list for clients, and what they list.

use crate::net::conversion::quorum::{decode_refusal, decode_row, encode_refusal, encode_row};
use crate::net::conversion::{
    ConversionError, decode_duration, encode_duration, required, unknown,
};
use crate::proto::cluster as wire;
use crate::proto::cluster::list_reply::Outcome;
use crate::protocol::message::{List, ListPage, ListRange, ListReply, Message, RequestId};
use crate::types::{Epoch, Key, KeyspaceId, PartitionId};

pub(super) fn encode(list: List) -> wire::List {
    wire::List {
        request: list.request.0,
        keyspace: list.keyspace.0,
        partition: u32::from(list.partition.0),
        range: Some(encode_range(list.range)),
        epoch: list.epoch.0,
        time_left_us: encode_duration(list.time_left),
    }
}

pub(super) fn decode(list: wire::List) -> Result<Message, ConversionError> {
    let partition =
        u16::try_from(list.partition).map_err(|_| unknown("List.partition", list.partition))?;
    Ok(Message::List(List {
        request: RequestId(list.request),
        keyspace: KeyspaceId(list.keyspace),
        partition: PartitionId(partition),
        range: decode_range(required(list.range, "List.range")?),
        epoch: Epoch(list.epoch),
        time_left: decode_duration(list.time_left_us),
    }))
}

pub(super) fn encode_reply(reply: ListReply) -> wire::ListReply {
    let outcome = match reply.outcome {
        Ok(page) => Outcome::Page(encode_page(page)),
        Err(refusal) => Outcome::Refusal(encode_refusal(refusal)),
    };
    wire::ListReply { request: reply.request.0, outcome: Some(outcome) }
}

pub(super) fn decode_reply(reply: wire::ListReply) -> Result<Message, ConversionError> {
    const REFUSAL: &str = "ListReply.refusal";
    let outcome = match required(reply.outcome, "ListReply.outcome")? {
        Outcome::Page(page) => Ok(decode_page(page)?),
        Outcome::Refusal(refusal) => Err(required(decode_refusal(refusal, REFUSAL)?, REFUSAL)?),
    };
    Ok(Message::ListReply(ListReply { request: RequestId(reply.request), outcome }))
}

pub(super) fn encode_range(range: ListRange) -> wire::ListRange {
    let ListRange { prefix, after, rows_max, bytes_max, keys_only } = range;
    wire::ListRange { prefix, after: after.map(|key| key.0), rows_max, bytes_max, keys_only }
}

pub(super) fn decode_range(range: wire::ListRange) -> ListRange {
    let wire::ListRange { prefix, after, rows_max, bytes_max, keys_only } = range;
    ListRange { prefix, after: after.map(Key), rows_max, bytes_max, keys_only }
}

pub(super) fn encode_page(page: ListPage) -> wire::ListPage {
    let rows = page.rows.into_iter().map(encode_row).collect();
    wire::ListPage { rows, reached: page.reached.map(|key| key.0) }
}

pub(super) fn decode_page(page: wire::ListPage) -> Result<ListPage, ConversionError> {
    let rows: Result<_, _> = page.rows.into_iter().map(decode_row).collect();
    Ok(ListPage { rows: rows?, reached: page.reached.map(Key) })
}
