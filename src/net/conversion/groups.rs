//! What replicas of groups say to each other.

use crate::net::conversion::heartbeats::{self, Envelope};
use crate::net::conversion::log::{
    decode_entries, decode_position, encode_entries, encode_position,
};
use crate::net::conversion::{ConversionError, decode_group, encode_group, required};
use crate::proto::cluster as wire;
use crate::proto::cluster::append_reply::Outcome;
use crate::protocol::message::{GroupMessage, Message};
use crate::protocol::raft::message::{
    Append, AppendOutcome, AppendReply, Body, Message as RaftMessage, Vote,
};
use crate::types::{LogIndex, ReplicaId, Term};

/// Packs a message: a heartbeat or its reply into columns, others into the list.
pub(super) fn encode(message: GroupMessage, frame: &mut wire::Frame) {
    let GroupMessage { group, message: RaftMessage { from, to, term, body } } = message;
    let envelope = Envelope { group, from, to, term };
    let body = match body {
        Body::Heartbeat(beat) => {
            let columns = frame.group_heartbeats.get_or_insert_default();
            return heartbeats::encode(envelope, beat, columns);
        }
        Body::HeartbeatReply { round, last } => {
            let columns = frame.group_heartbeat_replies.get_or_insert_default();
            return heartbeats::encode_reply(envelope, (round, last), columns);
        }
        Body::Append(append) => wire::group_message::Body::Append(encode_append(append)),
        Body::AppendReply(reply) => {
            wire::group_message::Body::AppendReply(encode_append_reply(&reply))
        }
        Body::Vote(vote) => wire::group_message::Body::Vote(encode_vote(vote)),
        Body::VoteReply { pre_vote, granted } => {
            wire::group_message::Body::VoteReply(wire::VoteReply { pre_vote, granted })
        }
        Body::TimeoutNow { ordered } => {
            wire::group_message::Body::TimeoutNow(wire::TimeoutNow { ordered })
        }
    };
    frame.group_messages.push(wire::GroupMessage {
        group: encode_group(group),
        from: from.0,
        to: to.0,
        term: term.0,
        body: Some(body),
    });
}

pub(super) fn decode(message: wire::GroupMessage) -> Result<Message, ConversionError> {
    let envelope = Envelope {
        group: decode_group(message.group, "GroupMessage.group")?,
        from: ReplicaId(message.from),
        to: ReplicaId(message.to),
        term: Term(message.term),
    };
    let body = match required(message.body, "GroupMessage.body")? {
        wire::group_message::Body::Append(append) => Body::Append(decode_append(append)?),
        wire::group_message::Body::AppendReply(reply) => {
            Body::AppendReply(decode_append_reply(reply)?)
        }
        wire::group_message::Body::Vote(vote) => Body::Vote(decode_vote(vote)?),
        wire::group_message::Body::VoteReply(wire::VoteReply { pre_vote, granted }) => {
            Body::VoteReply { pre_vote, granted }
        }
        wire::group_message::Body::TimeoutNow(wire::TimeoutNow { ordered }) => {
            Body::TimeoutNow { ordered }
        }
    };
    Ok(envelope.enclose(body))
}

fn encode_append(append: Append) -> wire::Append {
    let Append { previous, entries, commit, round } = append;
    wire::Append {
        previous: Some(encode_position(previous)),
        entries: encode_entries(previous, entries),
        commit: commit.0,
        round,
    }
}

fn decode_append(append: wire::Append) -> Result<Append, ConversionError> {
    let previous = decode_position(append.previous, "Append.previous")?;
    Ok(Append {
        previous,
        entries: decode_entries(previous, append.entries)?,
        commit: LogIndex(append.commit),
        round: append.round,
    })
}

fn encode_append_reply(reply: &AppendReply) -> wire::AppendReply {
    let outcome = match reply.outcome {
        AppendOutcome::Matches(index) => Outcome::Matches(index.0),
        AppendOutcome::Rejected { previous, hint } => {
            let hint = Some(encode_position(hint));
            Outcome::Rejected(wire::Rejection { previous: previous.0, hint })
        }
    };
    wire::AppendReply { round: reply.round, outcome: Some(outcome) }
}

fn decode_append_reply(reply: wire::AppendReply) -> Result<AppendReply, ConversionError> {
    let outcome = match required(reply.outcome, "AppendReply.outcome")? {
        Outcome::Matches(index) => AppendOutcome::Matches(LogIndex(index)),
        Outcome::Rejected(wire::Rejection { previous, hint }) => AppendOutcome::Rejected {
            previous: LogIndex(previous),
            hint: decode_position(hint, "Rejection.hint")?,
        },
    };
    Ok(AppendReply { round: reply.round, outcome })
}

fn encode_vote(vote: Vote) -> wire::Vote {
    let Vote { last, pre_vote, transfer } = vote;
    wire::Vote { last: Some(encode_position(last)), pre_vote, transfer }
}

fn decode_vote(vote: wire::Vote) -> Result<Vote, ConversionError> {
    let last = decode_position(vote.last, "Vote.last")?;
    Ok(Vote { last, pre_vote: vote.pre_vote, transfer: vote.transfer })
}
