//! Messages: arrival, batches, order of classes, bounds.

use bytes::Bytes;

use super::*;
use crate::protocol::message::Write;
use crate::types::{Epoch, Key, KeyspaceId, Record, Row, Timestamp, Version};

fn write(request: u64, value_bytes: usize) -> Message {
    let version = Version { timestamp: Timestamp(1), incarnation: Incarnation(1) };
    let record = Record::new(version, Some(Bytes::from(vec![7; value_bytes])));
    let row = Row { keyspace: KeyspaceId::DEFAULT, key: Key::from("key"), record };
    let time_left = Duration::from_secs(1);
    Message::Write(Write {
        request: RequestId(request),
        row,
        epoch: Epoch(0),
        hint_for: None,
        seen: None,
        class: Class::Client,
        time_left,
    })
}

#[tokio::test]
async fn three_nodes_exchange_messages_both_ways() {
    let nodes = [TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await];
    connect(&nodes.each_ref()).await;
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.id != from.id) {
            from.send(to.id, from.id * 10 + to.id).unwrap();
        }
    }
    for to in &nodes {
        for from in nodes.iter().filter(|from| from.id != to.id) {
            assert_eq!(to.received(from.id, 1).await, [from.id * 10 + to.id]);
        }
        assert_eq!(to.send(to.id, 0), Err(SendError::NotConnected { to: NodeId(to.id) }));
        assert_eq!(to.send(9, 0), Err(SendError::NotConnected { to: NodeId(9) }));
    }
    for node in nodes {
        node.stop().await;
    }
}

fn stats(node: &TestNode) -> PeerStats {
    let stats = node.transport.stats();
    assert_eq!(stats.len(), 1);
    stats.into_iter().next().unwrap()
}

#[tokio::test]
async fn many_messages_travel_in_few_frames_and_in_order() {
    let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
    connect(&[&low, &high]).await;
    for request in 0..1000 {
        low.send(2, request).unwrap();
        high.send(1, request).unwrap();
    }
    let expected: Vec<u64> = (0..1000).collect();
    assert_eq!(high.received(1, 1000).await, expected);
    assert_eq!(low.received(2, 1000).await, expected);
    for (sent, received) in [(stats(&low), stats(&high)), (stats(&high), stats(&low))] {
        assert!(sent.frames_sent <= 3, "{sent:?}");
        assert_eq!((sent.messages_sent, received.messages_received), (1000, 1000));
        assert_eq!(sent.bytes_sent, received.bytes_received);
        assert_eq!((sent.connects, sent.connected, sent.queued), (1, true, [0; 5]));
    }
    low.stop().await;
    high.stop().await;
}

#[tokio::test]
async fn a_full_queue_is_an_error_and_does_not_touch_other_classes() {
    let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
    connect(&[&low, &high]).await;
    // On this runtime of one thread nothing is drained between these calls.
    let repair = |request| low.transport.send(NodeId(2), Class::Repair, reply(request));
    let accepted = (0..).take_while(|request| repair(*request).is_ok()).count();
    let full = SendError::QueueFull { to: NodeId(2), class: Class::Repair };
    assert_eq!(repair(0), Err(full));
    assert_eq!(low.send(2, 777_777), Ok(()));
    let received = high.received(1, accepted + 1).await;
    assert_eq!(received[0], 777_777, "the client's message goes first");
    assert_eq!(received.len(), accepted + 1);
    low.stop().await;
    high.stop().await;
}

/// Sends 1 MiB writes until the queue stays full; returns how many were accepted.
async fn send_until_stuck(node: &TestNode, to: u64) -> u64 {
    const FAR_ABOVE_ALL_BUFFERS: u64 = 128;
    let (mut accepted, mut refused_in_turn) = (0, 0);
    while refused_in_turn < 25 {
        assert!(accepted < FAR_ABOVE_ALL_BUFFERS, "nothing holds the sender back");
        match node.transport.send(NodeId(to), Class::Repair, write(accepted, 1 << 20)) {
            Ok(()) => (accepted, refused_in_turn) = (accepted + 1, 0),
            Err(_) => {
                refused_in_turn += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_blocked_consumer_holds_the_sender_back_and_clients_go_first_afterwards() {
    let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
    connect(&[&low, &high]).await;
    let gate = Arc::clone(&high.inbox);
    let (close, open) = (tokio::sync::oneshot::channel(), tokio::sync::oneshot::channel());
    let blocking = tokio::task::spawn_blocking(move || {
        let _closed = gate.gate.lock();
        close.0.send(()).unwrap();
        open.1.blocking_recv().unwrap();
    });
    close.1.await.unwrap();
    let accepted = send_until_stuck(&low, 2).await;
    low.send(2, 777_777).unwrap();
    open.0.send(()).unwrap();
    blocking.await.unwrap();

    let received = high.received(1, accepted as usize + 1).await;
    let position = received.iter().position(|request| *request == 777_777).unwrap();
    assert!(position + 4 < received.len(), "overtook what was queued: {received:?}");
    low.stop().await;
    high.stop().await;
}

#[tokio::test]
async fn a_large_value_passes_whole() {
    let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
    connect(&[&low, &high]).await;
    let large = write(5, 8 << 20);
    high.transport.send(NodeId(1), Class::Client, large.clone()).unwrap();
    low.until_event(Event::Messages(2, vec![large]), 1).await;
    low.stop().await;
    high.stop().await;
}

#[tokio::test]
async fn stopping_sends_what_is_queued() {
    for stopping_first in [1, 2] {
        let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
        connect(&[&low, &high]).await;
        let (from, to) = if stopping_first == 1 { (low, high) } else { (high, low) };
        for request in 0..5000 {
            from.send(to.id, request).unwrap();
        }
        let stopping = from.id;
        from.stop().await;
        assert_eq!(to.received(stopping, 5000).await.len(), 5000);
        to.stop().await;
    }
}
