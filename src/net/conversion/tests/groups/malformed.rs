//! Frames that claim to hold messages of groups and hold nonsense.

use super::*;

fn entry_error(change: impl FnOnce(&mut wire::Entry)) -> String {
    let payload = Some(wire::entry::Payload::Empty(wire::Nothing {}));
    let mut entry = wire::Entry { term_ahead: 1, index_ahead: 0, payload };
    change(&mut entry);
    let previous = Some(wire::LogPosition::default());
    let append = wire::Append { previous, entries: vec![entry], ..Default::default() };
    body_error(Some(wire::group_message::Body::Append(append)))
}

fn body_error(body: Option<wire::group_message::Body>) -> String {
    let message = wire::GroupMessage { body, ..Default::default() };
    error_of(wire::Frame { group_messages: vec![message], ..Default::default() })
}

#[test]
fn an_entry_has_a_place_and_says_something() {
    assert_eq!(entry_error(|entry| entry.payload = None), "Entry.payload is missing");
    assert_eq!(entry_error(|entry| entry.index_ahead = u64::MAX), "Entry.index is 0");
    assert_eq!(entry_error(|entry| entry.term_ahead = 0), "Entry.term is 0");
}

#[test]
fn a_message_of_a_group_is_whole() {
    use wire::group_message::Body;
    assert_eq!(body_error(None), "GroupMessage.body is missing");
    let append = Body::Append(wire::Append::default());
    assert_eq!(body_error(Some(append)), "Append.previous is missing");
    let vote = Body::Vote(wire::Vote::default());
    assert_eq!(body_error(Some(vote)), "Vote.last is missing");
    let unsaid = Body::AppendReply(wire::AppendReply::default());
    assert_eq!(body_error(Some(unsaid)), "AppendReply.outcome is missing");
    let outcome = Some(wire::append_reply::Outcome::Rejected(wire::Rejection::default()));
    let rejected = Body::AppendReply(wire::AppendReply { round: 1, outcome });
    assert_eq!(body_error(Some(rejected)), "Rejection.hint is missing");
    let beyond = wire::GroupMessage {
        group: 65_536,
        body: Some(Body::TimeoutNow(wire::TimeoutNow::default())),
        ..Default::default()
    };
    let frame = wire::Frame { group_messages: vec![beyond], ..Default::default() };
    assert_eq!(error_of(frame), "GroupMessage.group has the unknown value 65536");
}

fn membership_error(change: impl FnOnce(&mut wire::Membership)) -> String {
    let mut membership = wire::Membership {
        voters: vec![1, 2],
        learners: vec![3],
        replicas: vec![1, 2, 3],
        nodes: vec![11, 12, 13],
        ..Default::default()
    };
    change(&mut membership);
    entry_error(|entry| {
        entry.payload = Some(wire::entry::Payload::Membership(membership));
    })
}

#[test]
fn a_membership_places_each_replica_once() {
    assert_eq!(
        membership_error(|it| it.nodes.truncate(2)),
        "Membership.nodes has 2 values, Membership.replicas has 3"
    );
    assert_eq!(membership_error(|it| it.replicas[1] = 1), "Membership.replicas names 1 twice");
    assert_eq!(membership_error(|it| it.voters[1] = 1), "Membership.voters names 1 twice");
    for role in ["voters", "outgoing", "learners"] {
        let text = membership_error(|it| match role {
            "voters" => it.voters.push(4),
            "outgoing" => it.outgoing.push(4),
            _ => it.learners.push(4),
        });
        assert_eq!(text, format!("Membership.replicas lacks 4 of Membership.{role}"));
    }
}

#[test]
fn heartbeats_have_columns_of_one_length() {
    let beats = wire::GroupHeartbeats { group: vec![1, 2], ..Default::default() };
    let frame = wire::Frame { group_heartbeats: Some(beats), ..Default::default() };
    assert_eq!(error_of(frame), "GroupHeartbeats.from has 0 values, GroupHeartbeats.group has 2");
    let replies = wire::GroupHeartbeatReplies { last: vec![1], ..Default::default() };
    let frame = wire::Frame { group_heartbeat_replies: Some(replies), ..Default::default() };
    assert_eq!(
        error_of(frame),
        "GroupHeartbeatReplies.last has 1 values, GroupHeartbeatReplies.group has 0"
    );
}

#[test]
fn a_forward_says_what_it_wants() {
    let ask = |ask| wire::Frame {
        forwards: vec![wire::Forward { ask, ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(error_of(ask(None)), "Forward.ask is missing");
    let read = |consistency| {
        let read = wire::GroupRead { consistency, ..Default::default() };
        error_of(ask(Some(wire::forward::Ask::Read(read))))
    };
    assert_eq!(read(0), "GroupRead.consistency is missing");
    assert_eq!(read(9), "GroupRead.consistency has the unknown value 9");
}

#[test]
fn a_reply_to_a_forward_says_how_it_ended() {
    use wire::forward_reply::Outcome;
    let error = |outcome| {
        let reply = wire::ForwardReply { request: 1, outcome };
        error_of(wire::Frame { forward_replies: vec![reply], ..Default::default() })
    };
    assert_eq!(error(None), "ForwardReply.outcome is missing");
    let refused = |refusal| Outcome::Refused(wire::ForwardRefused { refusal, leader: None });
    assert_eq!(error(Some(refused(0))), "ForwardRefused.refusal is missing");
    assert_eq!(error(Some(refused(9))), "ForwardRefused.refusal has the unknown value 9");
    let record = Some(wire::Record::default());
    let read = Outcome::Read(wire::GroupReadReply { record, applied: 1 });
    assert_eq!(error(Some(read)), "Record.version is missing");
}

#[test]
fn a_snapshot_ends_with_what_it_adds_up_to() {
    let error = |chunk| error_of(wire::Frame { snapshots: vec![chunk], ..Default::default() });
    let last = wire::SnapshotChunk { last: true, ..Default::default() };
    assert_eq!(error(last), "SnapshotChunk.start is missing");
    let rows = vec![wire::SnapshotRow::default()];
    let unversioned = wire::SnapshotChunk { rows, ..Default::default() };
    assert_eq!(error(unversioned), "SnapshotRow.version is missing");
    let start = Some(wire::LogStart::default());
    let nobody = wire::SnapshotChunk { start, ..Default::default() };
    assert_eq!(error(nobody), "LogStart.membership is missing");
    let reply = wire::SnapshotReply { refusal: 6, ..Default::default() };
    let frame = wire::Frame { snapshot_replies: vec![reply], ..Default::default() };
    assert_eq!(error_of(frame), "SnapshotReply.refusal has the unknown value 6");
}
