//! Writes that are minted into siblings.

use crate::net::conversion::quorum::{decode_refusal, decode_row, encode_refusal, encode_row};
use crate::net::conversion::{ConversionError, decode_duration, encode_duration, required};
use crate::proto::cluster as wire;
use crate::protocol::message::{Message, Mint, MintReply, RequestId};
use crate::protocol::version::dvv::Context;
use crate::protocol::version::merging::Change;
use crate::types::{Epoch, Key, KeyspaceId};

pub(super) fn encode(mint: Mint) -> wire::Mint {
    let Mint { request, keyspace, key, change, context, epoch, time_left } = mint;
    let (mut value, mut add, mut elements) = (None, None, None);
    match change {
        Change::Delete => {}
        Change::Put(put) => value = Some(put),
        Change::Add(by) => add = Some(by),
        Change::Elements { added, removed } => {
            let [added, removed] = [added, removed].map(|it| it.into_iter().collect());
            elements = Some(wire::Elements { added, removed });
        }
    }
    wire::Mint {
        request: request.0,
        keyspace: keyspace.0,
        key: key.0,
        value,
        add,
        elements,
        context: context.map(|context| context.encode()),
        time_left_us: encode_duration(time_left),
        epoch: epoch.0,
    }
}

pub(super) fn decode(mint: wire::Mint) -> Result<Message, ConversionError> {
    let context = mint.context.map(Context::decode).transpose();
    let context =
        context.map_err(|source| ConversionError::Context { field: "Mint.context", source })?;
    let change = match (mint.value, mint.add, mint.elements) {
        (None, None, None) => Change::Delete,
        (Some(value), None, None) => Change::Put(value),
        (None, Some(by), None) => Change::Add(by),
        (None, None, Some(wire::Elements { added, removed })) => {
            let [added, removed] = [added, removed].map(|it| it.into_iter().collect());
            Change::Elements { added, removed }
        }
        _ => return Err(ConversionError::Contradiction { field: "Mint.value" }),
    };
    Ok(Message::Mint(Mint {
        request: RequestId(mint.request),
        keyspace: KeyspaceId(mint.keyspace),
        key: Key(mint.key),
        change,
        context,
        epoch: Epoch(mint.epoch),
        time_left: decode_duration(mint.time_left_us),
    }))
}

pub(super) fn encode_reply(reply: MintReply) -> wire::MintReply {
    let mut to = wire::MintReply { request: reply.request.0, ..Default::default() };
    match reply.outcome {
        Ok(record) => to.row = Some(encode_row((Key::default(), record))),
        Err(refusal) => to.refusal = encode_refusal(refusal),
    }
    to
}

pub(super) fn decode_reply(reply: wire::MintReply) -> Result<Message, ConversionError> {
    let outcome = match decode_refusal(reply.refusal, "MintReply.refusal")? {
        Some(refusal) => Err(refusal),
        None => {
            let (_, record) = decode_row(required(reply.row, "MintReply.row")?)?;
            Ok(record)
        }
    };
    Ok(Message::MintReply(MintReply { request: RequestId(reply.request), outcome }))
}
