//! Tests of the core: rule by rule on single replicas, and a small group under random faults.

mod appends;
mod changes;
mod durability;
mod elections;
mod group;
mod leaders;
mod random;
mod reads;
mod snapshots;
mod transfers;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::protocol::raft::entry::{Entry, HardState, LogPosition, LogStart, Payload, Restored};
use crate::protocol::raft::membership::{Membership, Target};
use crate::protocol::raft::message::{Append, AppendOutcome, AppendReply, Body, Message};
use crate::protocol::raft::message::{Heartbeat, Vote};
use crate::protocol::raft::{Options, Raft};
use crate::types::{LogIndex, NodeId, ReplicaId, Term};

/// Ticks of an election timeout in these tests.
const ELECTION: u64 = 10;
const TIMEOUT_NOW: Body = Body::TimeoutNow { ordered: false };

fn options() -> Options {
    Options {
        election_ticks: ELECTION,
        heartbeat_ticks: 2,
        append_bytes_max: 200,
        appends_in_flight_max: 4,
        uncommitted_bytes_max: 10_000,
        lease_reads: false,
    }
}

fn id(number: u64) -> ReplicaId {
    ReplicaId(number)
}

fn nodes(replicas: &[u64]) -> BTreeMap<ReplicaId, NodeId> {
    replicas.iter().map(|&number| (id(number), NodeId(number))).collect()
}

fn target(voters: &[u64], learners: &[u64]) -> Target {
    Target { voters: nodes(voters), learners: nodes(learners) }
}

fn membership(voters: &[u64], learners: &[u64]) -> Membership {
    let mut membership = Membership::founding(nodes(voters));
    membership.learners = learners.iter().map(|&number| id(number)).collect();
    membership.nodes.extend(nodes(learners));
    membership
}

fn at(index: u64, term: u64) -> LogPosition {
    LogPosition { index: LogIndex(index), term: Term(term) }
}

/// An entry whose command tells it from every other.
fn entry(index: u64, term: u64) -> Entry {
    let payload = Payload::Command(Bytes::from(format!("{index}@{term}")));
    Entry { term: Term(term), index: LogIndex(index), payload }
}

/// Entries from index 1 on, with these terms.
fn entries(terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(1..).map(|(&term, index)| entry(index, term)).collect()
}

fn founding(membership: Membership) -> LogStart {
    LogStart { position: LogPosition::default(), membership, membership_index: LogIndex(0) }
}

/// A durable state: these terms in the log, in the latest of them and without a vote.
fn restored(membership: Membership, terms: &[u64]) -> Restored {
    let term = Term(terms.last().copied().unwrap_or(0));
    Restored {
        hard_state: HardState { term, voted_for: None, commit: LogIndex(0) },
        start: founding(membership),
        entries: entries(terms),
        applied: LogIndex(0),
    }
}

/// Replica 1 of three voters, with these terms in its log.
fn replica(terms: &[u64]) -> Raft {
    Raft::new(id(1), options(), restored(membership(&[1, 2, 3], &[]), terms), 7, 0)
}

/// Does all that is to do, with writes that succeed at once; returns the messages.
fn settle(raft: &mut Raft) -> Vec<Message> {
    let mut messages = Vec::new();
    while raft.has_ready() {
        let ready = raft.ready();
        messages.extend(ready.messages);
        if ready.write.is_some() {
            raft.advance();
        }
    }
    messages
}

/// Passes a message to replica 1, and returns what it then sends.
fn tell(raft: &mut Raft, from: u64, term: u64, body: Body) -> Vec<Message> {
    raft.step(Message { from: id(from), to: raft.own(), term: Term(term), body });
    settle(raft)
}

fn bodies(messages: &[Message]) -> Vec<&Body> {
    messages.iter().map(|message| &message.body).collect()
}

/// Makes replica 1 the leader, by the vote of replica 2.
fn lead(raft: &mut Raft) -> u64 {
    raft.tick(raft.deadline());
    settle(raft);
    let term = raft.term().0 + 1;
    tell(raft, 2, term, Body::VoteReply { pre_vote: true, granted: true });
    tell(raft, 2, term, Body::VoteReply { pre_vote: false, granted: true });
    assert!(raft.is_leader(), "{:?}", raft.status());
    term
}

fn append(previous: LogPosition, entries: Vec<Entry>, commit: u64) -> Body {
    Body::Append(Append { previous, entries, commit: LogIndex(commit), round: 1 })
}

fn matches(index: u64) -> Body {
    replied(AppendOutcome::Matches(LogIndex(index)))
}

fn rejected(previous: u64, hint: LogPosition) -> Body {
    replied(AppendOutcome::Rejected { previous: LogIndex(previous), hint })
}

fn replied(outcome: AppendOutcome) -> Body {
    Body::AppendReply(AppendReply { round: 1, outcome })
}

fn heartbeat(round: u64, commit: u64) -> Body {
    Body::Heartbeat(Heartbeat {
        commit: LogIndex(commit),
        round,
        fresh_commit: LogIndex(commit),
        confirmed_round: 0,
        quorum_age_ticks: 0,
    })
}

fn vote(last: LogPosition) -> Body {
    Body::Vote(Vote { last, pre_vote: false, transfer: false })
}

fn pre_vote(last: LogPosition) -> Body {
    Body::Vote(Vote { last, pre_vote: true, transfer: false })
}

fn granted(messages: &[Message]) -> Option<bool> {
    messages.iter().find_map(|message| match message.body {
        Body::VoteReply { granted, .. } => Some(granted),
        _ => None,
    })
}
