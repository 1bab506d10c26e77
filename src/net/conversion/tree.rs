//! Comparisons of hash trees.

use crate::net::conversion::quorum::{decode_refusal, encode_refusal};
use crate::net::conversion::{ConversionError, even, required, unknown};
use crate::proto::cluster as wire;
use crate::protocol::message::tree::{Answer, Question, RowList, TreeAsk, TreeReply};
use crate::protocol::message::{Message, RequestId};
use crate::types::{Epoch, Incarnation, Key, KeyspaceId, PartitionId, Timestamp, Version};

pub(super) fn encode_ask(ask: TreeAsk) -> wire::TreeAsk {
    let question = match ask.question {
        Question::Root => wire::tree_ask::Question::Root(wire::TreeRoot {}),
        Question::Branches => wire::tree_ask::Question::Branches(wire::TreeBranches {}),
        Question::Buckets(branches) => {
            let branches = branches.into_iter().map(u32::from).collect();
            wire::tree_ask::Question::Buckets(wire::TreeBuckets { branches })
        }
        Question::Rows { buckets, after } => {
            let buckets = buckets.into_iter().map(u32::from).collect();
            let after = after.map(|key| key.0);
            wire::tree_ask::Question::Rows(wire::TreeRows { buckets, after })
        }
    };
    wire::TreeAsk {
        request: ask.request.0,
        keyspace: ask.keyspace.0,
        partition: u32::from(ask.partition.0),
        epoch: ask.epoch.0,
        question: Some(question),
    }
}

pub(super) fn decode_ask(ask: wire::TreeAsk) -> Result<Message, ConversionError> {
    let partition =
        u16::try_from(ask.partition).map_err(|_| unknown("TreeAsk.partition", ask.partition))?;
    Ok(Message::TreeAsk(TreeAsk {
        request: RequestId(ask.request),
        keyspace: KeyspaceId(ask.keyspace),
        partition: PartitionId(partition),
        epoch: Epoch(ask.epoch),
        question: decode_question(required(ask.question, "TreeAsk.question")?)?,
    }))
}

fn decode_question(question: wire::tree_ask::Question) -> Result<Question, ConversionError> {
    Ok(match question {
        wire::tree_ask::Question::Root(_) => Question::Root,
        wire::tree_ask::Question::Branches(_) => Question::Branches,
        wire::tree_ask::Question::Buckets(asked) => {
            Question::Buckets(narrowed(asked.branches, "TreeBuckets.branches")?)
        }
        wire::tree_ask::Question::Rows(asked) => {
            let buckets = narrowed(asked.buckets, "TreeRows.buckets")?;
            Question::Rows { buckets, after: asked.after.map(Key) }
        }
    })
}

fn narrowed<T: TryFrom<u32>>(
    numbers: Vec<u32>,
    field: &'static str,
) -> Result<Vec<T>, ConversionError> {
    let narrow = |number: u32| T::try_from(number).map_err(|_| unknown(field, number));
    numbers.into_iter().map(narrow).collect()
}

pub(super) fn encode_reply(reply: TreeReply) -> wire::TreeReply {
    let (request, complete, fence) = (reply.request.0, reply.complete, reply.fence.0);
    let mut to = wire::TreeReply { request, complete, fence, ..Default::default() };
    match reply.outcome {
        Err(refusal) => to.refusal = encode_refusal(refusal),
        Ok(Answer::Hashes(hashes)) => {
            to.answer = Some(wire::tree_reply::Answer::Hashes(wire::TreeHashes { hashes }));
        }
        Ok(Answer::Rows(list)) => {
            to.answer = Some(wire::tree_reply::Answer::Rows(encode_rows(list)));
        }
    }
    to
}

fn encode_rows(list: RowList) -> wire::TreeRowList {
    let complete_to = list.complete_to.map(|key| key.0);
    let mut to = wire::TreeRowList { complete_to, ..Default::default() };
    for (key, version) in list.rows {
        to.keys.push(key.0);
        to.timestamps.push(version.timestamp.0);
        to.incarnations.push(version.incarnation.0);
    }
    to
}

pub(super) fn decode_reply(reply: wire::TreeReply) -> Result<Message, ConversionError> {
    let outcome = match decode_refusal(reply.refusal, "TreeReply.refusal")? {
        Some(refusal) => Err(refusal),
        None => Ok(match required(reply.answer, "TreeReply.answer")? {
            wire::tree_reply::Answer::Hashes(answer) => Answer::Hashes(answer.hashes),
            wire::tree_reply::Answer::Rows(list) => Answer::Rows(decode_rows(list)?),
        }),
    };
    let (request, complete) = (RequestId(reply.request), reply.complete);
    let fence = Timestamp(reply.fence);
    Ok(Message::TreeReply(TreeReply { request, outcome, complete, fence }))
}

fn decode_rows(list: wire::TreeRowList) -> Result<RowList, ConversionError> {
    let wire::TreeRowList { keys, timestamps, incarnations, complete_to } = list;
    let others = [
        ("TreeRowList.timestamps", timestamps.len()),
        ("TreeRowList.incarnations", incarnations.len()),
    ];
    even(("TreeRowList.keys", keys.len()), others)?;
    let versions = timestamps.into_iter().zip(incarnations).map(|(timestamp, incarnation)| {
        Version { timestamp: Timestamp(timestamp), incarnation: Incarnation(incarnation) }
    });
    let rows = keys.into_iter().map(Key).zip(versions).collect();
    Ok(RowList { rows, complete_to: complete_to.map(Key) })
}
