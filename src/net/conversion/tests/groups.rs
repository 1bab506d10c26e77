//! Messages of groups: any of them for the round trip, and what is particular to them.

use super::*;
use crate::protocol::consistency::Consistency;
use crate::protocol::message::{
    Ask, Forward, ForwardRefusal, ForwardReply, GroupMessage, SnapshotChunk, SnapshotRefusal,
    SnapshotReply, Told,
};
use crate::protocol::raft::entry::{Entry, LogPosition, LogStart, Payload};
use crate::protocol::raft::membership::Membership;
use crate::protocol::raft::message::{
    Append, AppendOutcome, AppendReply, Heartbeat, Message as RaftMessage, Vote,
};
use crate::types::{LogIndex, Term};

mod malformed;

fn position() -> impl Strategy<Value = LogPosition> {
    any::<(u64, u64)>()
        .prop_map(|(index, term)| LogPosition { index: LogIndex(index), term: Term(term) })
}

/// Replicas of any of the three roles, all of them placed, and others besides.
fn membership() -> impl Strategy<Value = Membership> {
    let replica = (any::<u64>(), any::<u64>(), any::<[bool; 3]>());
    prop::collection::vec(replica, 0..6).prop_map(|replicas| {
        let mut membership = Membership::default();
        for (replica, node, [votes, voted, learns]) in replicas {
            let replica = ReplicaId(replica);
            membership.nodes.insert(replica, NodeId(node));
            let roles = [
                (votes, &mut membership.voters),
                (voted, &mut membership.outgoing),
                (learns, &mut membership.learners),
            ];
            roles.into_iter().filter(|(has, _)| *has).for_each(|(_, role)| {
                role.insert(replica);
            });
        }
        membership
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::Empty),
        bytes().prop_map(Payload::Command),
        membership().prop_map(Payload::Membership),
    ]
}

/// Entries in sequence, and any others: each has its form.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let place = prop_oneof![(1..9_u64, 1..3_u64).boxed(), (1..=u64::MAX, 1..=u64::MAX).boxed(),];
    prop::collection::vec((place, payload()), 0..5).prop_map(|entries| {
        let entry =
            |((index, term), payload)| Entry { index: LogIndex(index), term: Term(term), payload };
        entries.into_iter().map(entry).collect()
    })
}

fn append() -> impl Strategy<Value = Body> {
    (position(), entries(), any::<(u64, u64)>()).prop_map(|(previous, entries, (commit, round))| {
        Body::Append(Append { previous, entries, commit: LogIndex(commit), round })
    })
}

fn append_reply() -> impl Strategy<Value = Body> {
    let rejected = (any::<u64>(), position()).prop_map(|(previous, hint)| {
        AppendOutcome::Rejected { previous: LogIndex(previous), hint }
    });
    let matches = any::<u64>().prop_map(|index| AppendOutcome::Matches(LogIndex(index)));
    (any::<u64>(), prop_oneof![matches, rejected])
        .prop_map(|(round, outcome)| Body::AppendReply(AppendReply { round, outcome }))
}

fn heartbeat() -> impl Strategy<Value = Body> {
    any::<[u64; 5]>().prop_map(|[commit, round, fresh, confirmed_round, quorum_age_ticks]| {
        let (commit, fresh_commit) = (LogIndex(commit), LogIndex(fresh));
        let beat = Heartbeat { commit, round, fresh_commit, confirmed_round, quorum_age_ticks };
        Body::Heartbeat(beat)
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        append(),
        append_reply(),
        heartbeat(),
        any::<(u64, u64)>()
            .prop_map(|(round, last)| Body::HeartbeatReply { round, last: LogIndex(last) }),
        (position(), any::<(bool, bool)>()).prop_map(|(last, (pre_vote, transfer))| {
            Body::Vote(Vote { last, pre_vote, transfer })
        }),
        any::<(bool, bool)>().prop_map(|(pre_vote, granted)| Body::VoteReply { pre_vote, granted }),
        any::<bool>().prop_map(|ordered| Body::TimeoutNow { ordered }),
    ]
}

fn envelope(group: u16, [from, to, term]: [u64; 3], body: Body) -> Message {
    let (from, to, term) = (ReplicaId(from), ReplicaId(to), Term(term));
    Message::Group(GroupMessage {
        group: GroupId(group),
        message: RaftMessage { from, to, term, body },
    })
}

pub(super) fn group() -> impl Strategy<Value = Message> {
    (any::<u16>(), any::<[u64; 3]>(), body())
        .prop_map(|(group, numbers, body)| envelope(group, numbers, body))
}

fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![
        Just(Consistency::Linearizable),
        Just(Consistency::Lease),
        any::<u32>().prop_map(|micros| Consistency::Stale {
            max_staleness: Duration::from_micros(u64::from(micros)),
        }),
    ]
}

pub(super) fn forward() -> impl Strategy<Value = Message> {
    let read = (any::<u32>(), bytes(), consistency()).prop_map(|(keyspace, key, consistency)| {
        Ask::Read { keyspace: KeyspaceId(keyspace), key: Key(key), consistency }
    });
    let list = (any::<u32>(), listing::range(), consistency()).prop_map(
        |(keyspace, range, consistency)| Ask::List {
            keyspace: KeyspaceId(keyspace),
            range: Box::new(range),
            consistency,
        },
    );
    let ask = prop_oneof![bytes().prop_map(Ask::Propose), read, list, watch::ask()];
    (any::<(u64, u16, u32)>(), ask).prop_map(|((request, group, left), ask)| {
        Message::Forward(Forward {
            request: RequestId(request),
            group: GroupId(group),
            time_left: Duration::from_micros(u64::from(left)),
            ask,
        })
    })
}

fn forward_refusal() -> impl Strategy<Value = ForwardRefusal> {
    prop_oneof![
        any::<Option<u64>>()
            .prop_map(|leader| ForwardRefusal::NotLeader { leader: leader.map(NodeId) }),
        Just(ForwardRefusal::NotReplica),
        Just(ForwardRefusal::Overloaded),
        Just(ForwardRefusal::Expired),
        Just(ForwardRefusal::Unknown),
        Just(ForwardRefusal::Storage),
        Just(ForwardRefusal::NotServing),
    ]
}

pub(super) fn forward_reply() -> impl Strategy<Value = Message> {
    let read = (prop::option::of(record()), any::<u64>())
        .prop_map(|(record, applied)| Told::Read { record, applied: LogIndex(applied) });
    let outcome = prop_oneof![
        bytes().prop_map(|answer| Ok(Told::Proposed(answer))),
        read.prop_map(Ok),
        listing::page().prop_map(|page| Ok(Told::Listed(page))),
        watch::page().prop_map(|page| Ok(Told::Watched(page))),
        forward_refusal().prop_map(Err),
    ];
    (any::<u64>(), outcome).prop_map(|(request, outcome)| {
        Message::ForwardReply(ForwardReply { request: RequestId(request), outcome })
    })
}

fn row() -> impl Strategy<Value = Row> {
    (any::<u32>(), bytes(), record()).prop_map(|(keyspace, key, record)| Row {
        keyspace: KeyspaceId(keyspace),
        key: Key(key),
        record,
    })
}

fn start() -> impl Strategy<Value = Box<LogStart>> {
    (position(), membership(), any::<u64>()).prop_map(|(position, membership, index)| {
        Box::new(LogStart { position, membership, membership_index: LogIndex(index) })
    })
}

pub(super) fn snapshot() -> impl Strategy<Value = Message> {
    let numbers = any::<(u16, [u64; 4], u32, u32)>();
    (numbers, prop::option::of(start()), prop::collection::vec(row(), 0..4)).prop_map(
        |((group, [to, from, transfer, log_start], number, checksum), start, rows)| {
            Message::Snapshot(SnapshotChunk {
                group: GroupId(group),
                to: ReplicaId(to),
                from: ReplicaId(from),
                transfer,
                number,
                log_start: LogIndex(log_start),
                last: start.is_some(),
                start,
                rows,
                checksum,
            })
        },
    )
}

pub(super) fn snapshot_reply() -> impl Strategy<Value = Message> {
    let outcome = prop::sample::select(vec![
        Ok(()),
        Err(SnapshotRefusal::Checksum),
        Err(SnapshotRefusal::Unwanted),
        Err(SnapshotRefusal::Storage),
        Err(SnapshotRefusal::Overloaded),
    ]);
    (any::<(u16, [u64; 3], u32)>(), outcome).prop_map(
        |((group, [to, from, transfer], next), outcome)| {
            let (group, to, from) = (GroupId(group), ReplicaId(to), ReplicaId(from));
            Message::SnapshotReply(SnapshotReply { group, to, from, transfer, next, outcome })
        },
    )
}

/// Bytes that each message takes of a frame, beyond what the first few took.
fn bytes_each(message: impl Fn(u16) -> Message) -> usize {
    let length = |count| encode((0..count).map(&message)).encoded_len();
    (length(228) - length(128)) / 100
}

#[test]
fn heartbeats_take_some_ten_bytes() {
    let commit = LogIndex(100_000);
    let beat = Heartbeat {
        commit,
        round: 10_000,
        fresh_commit: commit,
        confirmed_round: 10_000,
        quorum_age_ticks: 1,
    };
    let reply = Body::HeartbeatReply { round: 10_000, last: commit };
    assert_eq!(bytes_each(|group| envelope(group, [1, 2, 7], Body::Heartbeat(beat))), 13);
    assert_eq!(bytes_each(|group| envelope(group, [2, 1, 7], reply.clone())), 10);
}

#[test]
fn an_entry_takes_little_more_than_its_command() {
    let entry = |index: u16| Entry {
        term: Term(1_000),
        index: LogIndex(1_000_001 + u64::from(index)),
        payload: Payload::Command(Bytes::from_static(&[7; 100])),
    };
    let previous = LogPosition { index: LogIndex(1_000_000), term: Term(1_000) };
    let length = |count: u16| {
        let entries = (0..count).map(entry).collect();
        let append = Append { previous, entries, commit: LogIndex(1), round: 1 };
        encode(std::iter::once(envelope(1, [1, 2, 1_000], Body::Append(append)))).encoded_len()
    };
    assert_eq!(length(201) - length(200), 104);
}

/// A command that is kept must not keep the frame that it came in.
#[test]
fn commands_are_copied_out_of_the_frame() {
    let command = Bytes::from(vec![7; 1000]);
    let payload = Payload::Command(command.clone());
    let entries = vec![Entry { term: Term(1), index: LogIndex(1), payload }];
    let previous = LogPosition::default();
    let append = Append { previous, entries, commit: LogIndex(0), round: 0 };
    let frame = encode(std::iter::once(envelope(1, [1, 2, 1], Body::Append(append))));
    let arrived = decode(frame).unwrap().remove(0);
    let Message::Group(GroupMessage { message: RaftMessage { body, .. }, .. }) = arrived else {
        panic!("an append became something else");
    };
    let Body::Append(append) = body else { panic!("an append became something else") };
    let Payload::Command(copy) = &append.entries[0].payload else { panic!("no command came") };
    assert_eq!(copy, &command);
    assert_ne!(copy.as_ptr(), command.as_ptr());
}
