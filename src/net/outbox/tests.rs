use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use bytes::Bytes;

use super::*;
use crate::protocol::message::{RequestId, Write, WriteReply};
use crate::types::{Epoch, Incarnation, Key, KeyspaceId, Record, Row, Timestamp, Version};

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn reply(request: u64) -> Message {
    Message::WriteReply(WriteReply { request: RequestId(request), outcome: Ok(None) })
}

fn write(value_bytes: usize) -> Message {
    let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(1) };
    let record = Record::new(version, Some(Bytes::from(vec![0; value_bytes])));
    let row = Row { keyspace: KeyspaceId::DEFAULT, key: Key::from("k"), record };
    let time_left = std::time::Duration::from_secs(1);
    Message::Write(Write {
        request: RequestId(0),
        row,
        epoch: Epoch(0),
        hint_for: None,
        seen: None,
        class: Class::Client,
        time_left,
    })
}

/// One frame's messages; `None` when the stream would sleep or has ended.
fn drain(outbox: &Outbox) -> Option<Vec<Message>> {
    let mut batch = Vec::new();
    match outbox.drain(&mut batch) {
        Drained::Batch { .. } => Some(batch),
        Drained::Ended | Drained::Nothing => None,
    }
}

#[test]
fn classes_leave_in_order_and_each_in_its_own() {
    let outbox = Outbox::default();
    for (index, class) in Class::ALL.into_iter().rev().enumerate() {
        outbox.push(class, reply(index as u64 * 10)).unwrap();
        outbox.push(class, reply(index as u64 * 10 + 1)).unwrap();
    }
    let expected: Vec<Message> = [40, 41, 30, 31, 20, 21, 10, 11, 0, 1].map(reply).to_vec();
    assert_eq!(drain(&outbox), Some(expected));
    assert_eq!(drain(&outbox), None);
}

#[test]
fn a_client_message_overtakes_what_is_left_of_a_long_queue() {
    let outbox = Outbox::default();
    for request in 0..2000 {
        outbox.push(Class::Repair, reply(request)).unwrap();
    }
    assert_eq!(drain(&outbox).unwrap().len(), FRAME_MESSAGES_MAX);
    outbox.push(Class::Client, reply(9999)).unwrap();
    assert_eq!(drain(&outbox).unwrap()[..2], [reply(9999), reply(1024)]);
}

#[test]
fn a_frame_holds_no_more_bytes_than_its_limit_but_any_single_message() {
    let outbox = Outbox::default();
    for value_bytes in [100 * 1024, 100 * 1024, 100 * 1024, 2 * MIB] {
        outbox.push(Class::Client, write(value_bytes)).unwrap();
    }
    let frames: Vec<usize> = std::iter::from_fn(|| drain(&outbox)).map(|it| it.len()).collect();
    assert_eq!(frames, [2, 1, 1]);
}

#[test]
fn a_full_queue_refuses_and_leaves_other_classes_alone() {
    let outbox = Outbox::default();
    let messages_max = LIMITS[Class::Repair as usize].messages_max;
    for request in 0..messages_max {
        outbox.push(Class::Repair, reply(request as u64)).unwrap();
    }
    assert_eq!(outbox.push(Class::Repair, reply(0)), Err(PushError::Full));
    assert_eq!(outbox.push(Class::Client, reply(0)), Ok(()));
    assert_eq!(outbox.depths(), [1, messages_max, 0, 0, 0]);
}

#[test]
fn bytes_are_bounded_too_and_given_back() {
    let outbox = Outbox::default();
    let large = LIMITS[Class::Hint as usize].bytes_max;
    assert_eq!(outbox.push(Class::Hint, write(large)), Ok(()), "alone, any message is admitted");
    assert_eq!(outbox.push(Class::Hint, write(1)), Err(PushError::Full));
    assert_eq!(drain(&outbox).map(|it| it.len()), Some(1));
    assert_eq!(outbox.push(Class::Hint, write(1)), Ok(()));
}

#[test]
fn a_sleeping_stream_is_woken_once_for_a_burst() {
    let outbox = Outbox::default();
    let waker = Arc::new(CountingWaker::default());
    let task = Waker::from(Arc::clone(&waker));
    assert_eq!(outbox.poll_ready(&mut Context::from_waker(&task)), Poll::Pending);
    for request in 0..10 {
        outbox.push(Class::Client, reply(request)).unwrap();
    }
    assert_eq!(waker.0.load(Ordering::Relaxed), 1);
    assert_eq!(outbox.poll_ready(&mut Context::from_waker(&task)), Poll::Ready(()));
    assert_eq!(drain(&outbox).map(|it| it.len()), Some(10));
}

#[test]
fn finishing_sends_the_rest_and_aborting_drops_it() {
    let (finished, aborted) = (Outbox::default(), Outbox::default());
    for outbox in [&finished, &aborted] {
        outbox.push(Class::Client, reply(1)).unwrap();
    }
    finished.finish();
    aborted.abort();
    assert_eq!(drain(&finished), Some(vec![reply(1)]));
    for outbox in [&finished, &aborted] {
        assert_eq!(outbox.drain(&mut Vec::new()), Drained::Ended);
        let ended = outbox.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert_eq!(ended, Poll::Ready(()));
        assert_eq!(outbox.push(Class::Client, reply(2)), Err(PushError::Closed));
    }
}

#[test]
fn what_groups_carry_counts() {
    use crate::protocol::message::GroupMessage;
    use crate::protocol::raft::entry::{Entry, LogPosition, Payload};
    use crate::protocol::raft::message::{Append, Body, Message as RaftMessage};
    use crate::types::{GroupId, LogIndex, ReplicaId, Term};

    let payload = Payload::Command(Bytes::from(vec![0; 1000]));
    let entry = Entry { term: Term(1), index: LogIndex(1), payload };
    let cost = |entries: usize| {
        let entries = vec![entry.clone(); entries];
        let previous = LogPosition::default();
        let body = Body::Append(Append { previous, entries, commit: LogIndex(0), round: 0 });
        let (from, to, term) = (ReplicaId(1), ReplicaId(2), Term(1));
        let message = RaftMessage { from, to, term, body };
        cost_bytes(&Message::Group(GroupMessage { group: GroupId(1), message }))
    };
    assert_eq!(cost(3) - cost(0), 3 * entry.cost_bytes());
}
