//! Heartbeats of groups and their replies, as columns: some 10 bytes each.

use crate::net::conversion::{ConversionError, decode_group, encode_group, even};
use crate::proto::cluster as wire;
use crate::protocol::message::{GroupMessage, Message};
use crate::protocol::raft::message::{Body, Heartbeat, Message as RaftMessage};
use crate::types::{GroupId, LogIndex, ReplicaId, Term};

/// What every message of a group bears.
#[derive(Clone, Copy)]
pub(super) struct Envelope {
    pub(super) group: GroupId,
    pub(super) from: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) term: Term,
}

impl Envelope {
    pub(super) fn enclose(self, body: Body) -> Message {
        let Envelope { group, from, to, term } = self;
        Message::Group(GroupMessage { group, message: RaftMessage { from, to, term, body } })
    }
}

pub(super) fn encode(envelope: Envelope, beat: Heartbeat, to: &mut wire::GroupHeartbeats) {
    let Heartbeat { commit, round, fresh_commit, confirmed_round, quorum_age_ticks } = beat;
    to.group.push(encode_group(envelope.group));
    to.from.push(envelope.from.0);
    to.to.push(envelope.to.0);
    to.term.push(envelope.term.0);
    to.commit.push(commit.0);
    to.round.push(round);
    to.commit_ahead.push(fresh_commit.0.wrapping_sub(commit.0));
    to.rounds_since_confirmed.push(round.wrapping_sub(confirmed_round));
    to.quorum_age_ticks.push(quorum_age_ticks);
}

pub(super) fn decode(
    beats: wire::GroupHeartbeats,
    to: &mut Vec<Message>,
) -> Result<(), ConversionError> {
    even(
        ("GroupHeartbeats.group", beats.group.len()),
        [
            ("GroupHeartbeats.from", beats.from.len()),
            ("GroupHeartbeats.to", beats.to.len()),
            ("GroupHeartbeats.term", beats.term.len()),
            ("GroupHeartbeats.commit", beats.commit.len()),
            ("GroupHeartbeats.round", beats.round.len()),
            ("GroupHeartbeats.commit_ahead", beats.commit_ahead.len()),
            ("GroupHeartbeats.rounds_since_confirmed", beats.rounds_since_confirmed.len()),
            ("GroupHeartbeats.quorum_age_ticks", beats.quorum_age_ticks.len()),
        ],
    )?;
    for (at, &group) in beats.group.iter().enumerate() {
        let envelope = Envelope {
            group: decode_group(group, "GroupHeartbeats.group")?,
            from: ReplicaId(beats.from[at]),
            to: ReplicaId(beats.to[at]),
            term: Term(beats.term[at]),
        };
        to.push(envelope.enclose(Body::Heartbeat(Heartbeat {
            commit: LogIndex(beats.commit[at]),
            round: beats.round[at],
            fresh_commit: LogIndex(beats.commit[at].wrapping_add(beats.commit_ahead[at])),
            confirmed_round: beats.round[at].wrapping_sub(beats.rounds_since_confirmed[at]),
            quorum_age_ticks: beats.quorum_age_ticks[at],
        })));
    }
    Ok(())
}

pub(super) fn encode_reply(
    envelope: Envelope,
    (round, last): (u64, LogIndex),
    to: &mut wire::GroupHeartbeatReplies,
) {
    to.group.push(encode_group(envelope.group));
    to.from.push(envelope.from.0);
    to.to.push(envelope.to.0);
    to.term.push(envelope.term.0);
    to.round.push(round);
    to.last.push(last.0);
}

pub(super) fn decode_replies(
    replies: wire::GroupHeartbeatReplies,
    to: &mut Vec<Message>,
) -> Result<(), ConversionError> {
    even(
        ("GroupHeartbeatReplies.group", replies.group.len()),
        [
            ("GroupHeartbeatReplies.from", replies.from.len()),
            ("GroupHeartbeatReplies.to", replies.to.len()),
            ("GroupHeartbeatReplies.term", replies.term.len()),
            ("GroupHeartbeatReplies.round", replies.round.len()),
            ("GroupHeartbeatReplies.last", replies.last.len()),
        ],
    )?;
    for (at, &group) in replies.group.iter().enumerate() {
        let envelope = Envelope {
            group: decode_group(group, "GroupHeartbeatReplies.group")?,
            from: ReplicaId(replies.from[at]),
            to: ReplicaId(replies.to[at]),
            term: Term(replies.term[at]),
        };
        let (round, last) = (replies.round[at], LogIndex(replies.last[at]));
        to.push(envelope.enclose(Body::HeartbeatReply { round, last }));
    }
    Ok(())
}
