//! Messages and replicas in a few words, for traces and scripts.

use std::fmt::Write;

use coterie::protocol::raft::Raft;
use coterie::protocol::raft::entry::{Entry, LogPosition, Payload};
use coterie::protocol::raft::membership::Membership;
use coterie::protocol::raft::message::{AppendOutcome, Body, Message};
use coterie::types::ReplicaId;

/// `1->2 t3 append 4@2 [5@3 a] commit 4 round 1`.
pub(crate) fn message(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    format!("{from}->{to} t{term} {}", says(body))
}

fn says(body: &Body) -> String {
    match body {
        Body::Append(append) => format!(
            "append {} [{}] commit {} round {}",
            position(append.previous),
            entries(&append.entries),
            append.commit,
            append.round
        ),
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matches(index) => format!("matches {index} round {}", reply.round),
            AppendOutcome::Rejected { previous, hint } => {
                format!("rejects {previous} hint {} round {}", position(hint), reply.round)
            }
        },
        Body::Heartbeat(beat) => format!(
            "heartbeat round {} commit {} of {}",
            beat.round, beat.commit, beat.fresh_commit
        ),
        Body::HeartbeatReply { round, last } => format!("heard round {round} last {last}"),
        Body::Vote(vote) => format!(
            "{}vote? last {}{}",
            if vote.pre_vote { "pre-" } else { "" },
            position(vote.last),
            if vote.transfer { " transfer" } else { "" }
        ),
        Body::VoteReply { pre_vote, granted } => format!(
            "{}vote {}",
            if *pre_vote { "pre-" } else { "" },
            if *granted { "granted" } else { "refused" }
        ),
        Body::TimeoutNow { .. } => "timeout-now".to_owned(),
    }
}

/// `4@2`: index and term.
pub(crate) fn position(at: LogPosition) -> String {
    format!("{}@{}", at.index, at.term)
}

/// `4@2 a, 5@2 empty`.
pub(crate) fn entries(entries: &[Entry]) -> String {
    let each: Vec<String> = entries.iter().map(entry).collect();
    each.join(", ")
}

/// `4@2 a`.
pub(crate) fn entry(entry: &Entry) -> String {
    let payload = match &entry.payload {
        Payload::Empty => "empty".to_owned(),
        Payload::Command(command) => String::from_utf8_lossy(command).into_owned(),
        Payload::Membership(members) => membership(members),
    };
    format!("{} {payload}", position(entry.position()))
}

/// `{1 2 3 | out 1 4 | learn 5}`.
pub(crate) fn membership(membership: &Membership) -> String {
    let list = |ids: &std::collections::BTreeSet<ReplicaId>| {
        ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let mut text = format!("{{{}", list(&membership.voters));
    for (name, ids) in [("out", &membership.outgoing), ("learn", &membership.learners)] {
        if !ids.is_empty() {
            write!(text, " | {name} {}", list(ids)).expect("text takes anything");
        }
    }
    text + "}"
}

/// `leader t2, leader 1, log 0@0..5@2, commit 5`.
pub(crate) fn state(core: &Raft) -> String {
    let log = core.log();
    let leader = core.leader().map_or("nobody".to_owned(), |leader| leader.to_string());
    format!(
        "{:?} t{} follows {leader}, log {}..{}, commit {}",
        core.role(),
        core.term(),
        position(log.start()),
        position(log.last()),
        core.commit()
    )
    .to_lowercase()
}
