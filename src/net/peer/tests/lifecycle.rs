//! Connections: handshakes, refusals, replacement, reconnecting, introductions, stopping.

use tonic::Streaming;

use super::*;
use crate::config::{ClusterSettings, Replication};
use crate::net::peer::dialer::endpoint;
use crate::net::peer::handshake::hello;
use crate::net::peer::introduce::{IntroduceError, introduce};
use crate::proto::cluster::Frame;
use crate::proto::cluster::peer_client::PeerClient;
use crate::protocol::membership::MemberSet;

#[tokio::test]
async fn a_restarted_peer_is_connected_again_and_callbacks_alternate() {
    for restarted in [1, 2] {
        let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
        connect(&[&low, &high]).await;
        let (stays, leaves) = if restarted == 1 { (high, low) } else { (low, high) };
        let address = leaves.address;
        leaves.stop().await;
        stays.until_event(Event::Disconnected(restarted), 1).await;
        assert!(!stays.transport.is_connected(NodeId(restarted)));
        let lost = SendError::NotConnected { to: NodeId(restarted) };
        assert_eq!(stays.send(restarted, 1), Err(lost));

        let listener = TcpListener::bind(address).await.unwrap();
        let again = TestNode::start_as(local_peer(restarted), listener);
        again.transport.set_peers(&[(NodeId(stays.id), stays.address)]);
        stays.until_event(Event::Connected(restarted), 2).await;
        stays.send(restarted, 2).unwrap();
        assert_eq!(again.received(stays.id, 1).await, [2]);
        assert_eq!(stats_of(&stays, restarted).connects, 2);
        again.stop().await;
        assert_alternating(stays.stop().await.as_ref(), restarted);
    }
}

fn stats_of(node: &TestNode, peer: u64) -> PeerStats {
    let stats = node.transport.stats();
    stats.into_iter().find(|stats| stats.peer == NodeId(peer)).unwrap()
}

/// Waits for a refusal of the peer to stand, in a condition that nothing announces.
async fn refusal(node: &TestNode, peer: u64) -> String {
    let standing = async {
        loop {
            let refusals = node.transport.refusals();
            if let Some((_, reason)) = refusals.into_iter().find(|(id, _)| id.0 == peer) {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, standing).await.expect("no refusal came to stand")
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_and_both_ends_name_both_clusters() {
    let stranger = LocalPeer { cluster_id: ClusterId(0xc2), ..local_peer(1) };
    let stranger = TestNode::start_as(stranger, listen().await);
    let node = TestNode::start(2).await;
    stranger.transport.set_peers(&[(NodeId(2), node.address)]);
    for reason in [refusal(&stranger, 2).await, refusal(&node, 1).await] {
        assert!(reason.contains("00000000000000c1"), "{reason}");
        assert!(reason.contains("00000000000000c2"), "{reason}");
    }
    for end in [stranger, node] {
        assert_eq!(*end.stop().await.events.borrow(), []);
    }
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_peer() {
    let (low, other) = (TestNode::start(1).await, TestNode::start(3).await);
    low.transport.set_peers(&[(NodeId(2), other.address)]);
    assert!(refusal(&low, 2).await.contains("expected at this address"));
    low.transport.set_peers(&[(NodeId(3), other.address)]);
    low.until_event(Event::Connected(3), 1).await;
    assert!(!low.transport.is_connected(NodeId(2)));
    low.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn forgotten_nodes_are_cut_off_and_stay_off() {
    let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
    connect(&[&low, &high]).await;
    high.transport.set_forgotten(&[NodeId(1)]);
    high.until_event(Event::Disconnected(1), 1).await;
    assert!(refusal(&low, 2).await.contains("forgotten"));
    high.transport.set_forgotten(&[]);
    // News of the peer end the wait after a refusal.
    low.transport.set_peers(&[(NodeId(2), high.address)]);
    low.until_event(Event::Connected(2), 2).await;
    assert_eq!(low.transport.refusals(), []);
    low.stop().await;
    high.stop().await;
}

#[tokio::test]
async fn a_peer_no_longer_listed_is_let_go_by_either_side() {
    for releasing in [1, 2] {
        let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
        connect(&[&low, &high]).await;
        let (releases, released) = if releasing == 1 { (&low, &high) } else { (&high, &low) };
        releases.transport.set_peers(&[]);
        releases.until_event(Event::Disconnected(released.id), 1).await;
        released.until_event(Event::Disconnected(releases.id), 1).await;
        assert_alternating(low.stop().await.as_ref(), 2);
        assert_alternating(high.stop().await.as_ref(), 1);
    }
}

/// Dials by hand, as node 1; the stream stands once its Hello has come.
async fn dial(to: &TestNode) -> (tokio::sync::mpsc::Sender<Frame>, Streaming<Frame>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let first = hello(&local_peer(1), NodeId(to.id));
    sender.send(Frame { hello: Some(first), ..Frame::default() }).await.unwrap();
    let mut client = PeerClient::new(endpoint(to.address).connect().await.unwrap());
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut incoming = client.exchange(outgoing).await.unwrap().into_inner();
    assert!(incoming.message().await.unwrap().unwrap().hello.is_some());
    (sender, incoming)
}

#[tokio::test]
async fn a_new_stream_of_a_peer_replaces_the_old_one() {
    let node = TestNode::start(2).await;
    let (_first_sender, mut first) = dial(&node).await;
    node.until_event(Event::Connected(1), 1).await;
    let (_second_sender, mut second) = dial(&node).await;
    node.until_event(Event::Connected(1), 2).await;
    assert!(first.message().await.unwrap().is_none(), "the old stream ends");
    node.send(1, 5).unwrap();
    assert_eq!(second.message().await.unwrap().unwrap().acknowledged, [5]);
    let events = node.stop().await;
    assert_alternating(&events, 1);
    let replaced = [Event::Connected(1), Event::Disconnected(1), Event::Connected(1)];
    assert_eq!(events.events.borrow()[..3], replaced);
}

#[tokio::test]
async fn a_malformed_frame_ends_the_stream_and_says_why() {
    let node = TestNode::start(2).await;
    let (sender, mut incoming) = dial(&node).await;
    let greeted = hello(&local_peer(1), NodeId(2));
    sender.send(Frame { hello: Some(greeted), ..Frame::default() }).await.unwrap();
    assert!(incoming.message().await.unwrap().is_none());
    assert!(refusal(&node, 1).await.contains("a Hello after the handshake"));
    node.stop().await;
}

struct Founder(Introduction);

impl Introducer for Founder {
    fn introduce(&self) -> Option<Introduction> {
        Some(self.0.clone())
    }
}

fn introduction() -> Introduction {
    let replication = Replication { factor: 5, read_quorum: 2, write_quorum: 4 };
    let cluster = ClusterSettings { cluster_id: ClusterId(0xc1), partitions: 64, replication };
    Introduction { cluster, members: MemberSet::default() }
}

#[tokio::test]
async fn a_seed_introduces_before_it_accepts_streams() {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let accepting = PeerServer::new(Arc::new(Founder(introduction())));
    let (shutdown, server) = spawn_server(listener, Arc::clone(&accepting));
    let seed = format!("localhost:{}", address.port());
    assert_eq!(introduce(&seed, DEADLINE).await.unwrap(), introduction());

    let low = TestNode::start(1).await;
    low.transport.set_peers(&[(NodeId(2), address)]);
    let high = PeerTransport::new(local_peer(2), Recorder::new());
    accepting.attach(Arc::clone(&high));
    low.until_event(Event::Connected(2), 1).await;
    assert_eq!(low.transport.refusals(), [], "not being ready is no refusal");
    low.stop().await;
    high.stop().await;
    shutdown.send_replace(true);
    server.await.unwrap();
}

#[tokio::test]
async fn why_a_seed_does_not_introduce_is_told_apart() {
    let node = TestNode::start(1).await;
    let not_joined = introduce(&node.address.to_string(), DEADLINE).await;
    assert!(matches!(not_joined, Err(IntroduceError::NotJoined { .. })), "{not_joined:?}");
    let gone = node.address;
    node.stop().await;
    let unreachable = introduce(&gone.to_string(), DEADLINE).await.unwrap_err();
    assert!(matches!(unreachable, IntroduceError::Unreachable { .. }), "{unreachable:?}");
    assert!(unreachable.to_string().contains(&gone.to_string()), "{unreachable}");
    // A listener that never answers.
    let silent = listen().await;
    let address = silent.local_addr().unwrap().to_string();
    let silent = introduce(&address, Duration::from_millis(100)).await;
    assert!(matches!(silent, Err(IntroduceError::Unreachable { .. })), "{silent:?}");
}

#[tokio::test]
async fn stopping_joins_every_task_and_ends_every_connection() {
    let (low, high) = (TestNode::start(1).await, TestNode::start(2).await);
    connect(&[&low, &high]).await;
    // One more peer that cannot be reached, so that a dialer waits.
    low.transport.set_peers(&[(NodeId(2), high.address), (NodeId(3), closed_address().await)]);
    low.transport.stop().await;
    assert!(!low.transport.is_connected(NodeId(2)));
    let told = low.inbox.events.borrow().clone();
    assert_eq!(told.last(), Some(&Event::Disconnected(2)));
    low.transport.set_peers(&[(NodeId(2), high.address)]);
    low.transport.stop().await;

    let TestNode { inbox, transport, shutdown, server, .. } = low;
    shutdown.send_replace(true);
    server.await.unwrap();
    drop(transport);
    assert_eq!(Arc::strong_count(&inbox), 1, "no task holds the inbox any longer");
    high.stop().await;
}

async fn closed_address() -> SocketAddr {
    listen().await.local_addr().unwrap()
}
