//! Transports on real sockets of the loopback interface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::net::peer::introduce::Introduction;
use crate::net::peer::server::{Introducer, PeerServer, serve};
use crate::protocol::message::{RequestId, WriteReply};

mod exchange;
mod lifecycle;

/// Generous: only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Connected(u64),
    Disconnected(u64),
    Messages(u64, Vec<Message>),
}

/// Keeps what it is told, in order. While the gate is locked, messages block.
struct Recorder {
    events: watch::Sender<Vec<Event>>,
    gate: Mutex<()>,
}

impl Recorder {
    fn new() -> Arc<Self> {
        Arc::new(Recorder { events: watch::Sender::default(), gate: Mutex::default() })
    }

    fn note(&self, event: Event) {
        self.events.send_modify(|events| events.push(event));
    }
}

impl Inbox for Recorder {
    fn on_messages(&self, from: NodeId, messages: Vec<Message>) {
        // A worker that stood still here could leave the runtime with none that minds its clock.
        let wait = || tokio::task::block_in_place(|| self.gate.lock());
        let _open = self.gate.try_lock().unwrap_or_else(wait);
        self.note(Event::Messages(from.0, messages));
    }

    fn on_connected(&self, peer: NodeId) {
        self.note(Event::Connected(peer.0));
    }

    fn on_disconnected(&self, peer: NodeId) {
        self.note(Event::Disconnected(peer.0));
    }
}

struct NotJoined;

impl Introducer for NotJoined {
    fn introduce(&self) -> Option<Introduction> {
        None
    }
}

/// One node: a transport and the server that accepts for it.
struct TestNode {
    id: u64,
    address: SocketAddr,
    inbox: Arc<Recorder>,
    transport: Arc<PeerTransport>,
    shutdown: watch::Sender<bool>,
    server: JoinHandle<()>,
}

fn local_peer(id: u64) -> LocalPeer {
    LocalPeer {
        cluster_id: ClusterId(0xc1),
        node_id: NodeId(id),
        incarnation: Incarnation(id),
        name: format!("node-{id}"),
        partitions: 256,
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Serves until the sender says so.
fn spawn_server(
    listener: TcpListener,
    server: Arc<PeerServer>,
) -> (watch::Sender<bool>, JoinHandle<()>) {
    let shutdown = watch::Sender::new(false);
    let mut told = shutdown.subscribe();
    let signal = async move {
        let _ = told.wait_for(|stop| *stop).await;
    };
    let served = async move { serve(listener, server, signal).await.unwrap() };
    (shutdown, tokio::spawn(served))
}

impl TestNode {
    async fn start(id: u64) -> TestNode {
        TestNode::start_as(local_peer(id), listen().await)
    }

    fn start_as(local: LocalPeer, listener: TcpListener) -> TestNode {
        let (id, address) = (local.node_id.0, listener.local_addr().unwrap());
        let inbox = Recorder::new();
        let transport = PeerTransport::new(local, inbox.clone());
        let accepting = PeerServer::new(Arc::new(NotJoined));
        accepting.attach(Arc::clone(&transport));
        let (shutdown, server) = spawn_server(listener, accepting);
        TestNode { id, address, inbox, transport, shutdown, server }
    }

    fn send(&self, to: u64, request: u64) -> Result<(), SendError> {
        self.transport.send(NodeId(to), Class::Client, reply(request))
    }

    /// Waits until the events satisfy the condition; returns what it finds in them.
    async fn until<T>(&self, what: &str, find: impl Fn(&[Event]) -> Option<T>) -> T {
        let mut events = self.inbox.events.subscribe();
        let found = events.wait_for(|events| find(events).is_some());
        if tokio::time::timeout(DEADLINE, found).await.is_err() {
            panic!("node {}: {what}; events: {:?}", self.id, self.inbox.events.borrow());
        }
        let events = self.inbox.events.borrow();
        find(&events).unwrap()
    }

    async fn until_event(&self, event: Event, times: usize) {
        let count = |events: &[Event]| events.iter().filter(|it| **it == event).count();
        let enough = |events: &[Event]| (count(events) >= times).then_some(());
        self.until(&format!("waits for {times} × {event:?}"), enough).await;
    }

    /// The requests of the replies that came from a peer, once there are so many.
    async fn received(&self, from: u64, count: usize) -> Vec<u64> {
        let enough = |events: &[Event]| {
            let requests = requests_from(from, events);
            (requests.len() >= count).then_some(requests)
        };
        self.until(&format!("waits for {count} messages of {from}"), enough).await
    }

    async fn stop(self) -> Arc<Recorder> {
        self.shutdown.send_replace(true);
        self.transport.stop().await;
        self.server.await.unwrap();
        self.inbox
    }
}

fn reply(request: u64) -> Message {
    Message::WriteReply(WriteReply { request: RequestId(request), outcome: Ok(None) })
}

fn requests_from(from: u64, events: &[Event]) -> Vec<u64> {
    let messages = events.iter().filter_map(|event| match event {
        Event::Messages(peer, messages) if *peer == from => Some(messages),
        _ => None,
    });
    messages.flatten().filter_map(request_of).collect()
}

fn request_of(message: &Message) -> Option<u64> {
    match message {
        Message::WriteReply(reply) => Some(reply.request.0),
        Message::Write(write) => Some(write.request.0),
        _ => None,
    }
}

/// Lists all nodes as peers of each, and waits until every pair is connected.
async fn connect(nodes: &[&TestNode]) {
    let peers: Vec<(NodeId, SocketAddr)> =
        nodes.iter().map(|node| (NodeId(node.id), node.address)).collect();
    for node in nodes {
        node.transport.set_peers(&peers);
    }
    for node in nodes {
        for peer in nodes.iter().filter(|peer| peer.id != node.id) {
            node.until_event(Event::Connected(peer.id), 1).await;
        }
    }
}

/// Connections begin and end in turns, and nothing comes from a peer outside of them.
fn assert_alternating(inbox: &Recorder, peer: u64) {
    let mut connected = false;
    for event in inbox.events.borrow().iter() {
        match event {
            Event::Connected(id) if *id == peer => {
                assert!(!std::mem::replace(&mut connected, true), "connected twice");
            }
            Event::Disconnected(id) if *id == peer => {
                assert!(std::mem::replace(&mut connected, false), "disconnected twice");
            }
            _ => {}
        }
    }
}
