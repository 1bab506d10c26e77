//! Who is connected: attaches streams to peers, detaches them, and tells the inbox in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use parking_lot::{Mutex, RwLock};
use tonic::{Status, Streaming};

use crate::net::outbox::PushError;
use crate::net::peer::connection::{Connection, ReceiveError, frames, receive};
use crate::net::peer::handshake::{self, HandshakeError};
use crate::net::peer::refusals::RefusalLog;
use crate::net::peer::server::ExchangeStream;
use crate::net::peer::stats::{Counters, PeerStats};
use crate::net::peer::tasks::Tasks;
use crate::net::peer::{LocalPeer, describe};
use crate::net::transport::Inbox;
use crate::proto::cluster::{Frame, Hello};
use crate::protocol::message::{Class, Message};
use crate::types::NodeId;

/// The shared state of a transport.
pub(crate) struct Switchboard {
    pub(crate) local: LocalPeer,
    pub(crate) tasks: Tasks,
    pub(crate) refusals: RefusalLog,
    inbox: Arc<dyn Inbox>,
    /// The streams that stand. Never locked while the inbox is called: it may send.
    live: RwLock<BTreeMap<NodeId, Arc<Connection>>>,
    /// Held while the inbox is told of a connection's begin or end, so that these alternate.
    order: Mutex<()>,
    counters: Mutex<BTreeMap<NodeId, Arc<Counters>>>,
    forgotten: RwLock<BTreeSet<NodeId>>,
}

impl Switchboard {
    pub(crate) fn new(local: LocalPeer, inbox: Arc<dyn Inbox>) -> Self {
        Switchboard {
            local,
            tasks: Tasks::new(),
            refusals: RefusalLog::default(),
            inbox,
            live: RwLock::default(),
            order: Mutex::default(),
            counters: Mutex::default(),
            forgotten: RwLock::default(),
        }
    }

    pub(crate) fn push(&self, to: NodeId, class: Class, message: Message) -> Result<(), PushError> {
        match self.live.read().get(&to) {
            Some(connection) => connection.push(class, message),
            None => Err(PushError::Closed),
        }
    }

    pub(crate) fn is_connected(&self, to: NodeId) -> bool {
        self.live.read().contains_key(&to)
    }

    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        // Whoever is being attached at this moment is either seen here or sees the stop itself.
        let _order = self.order.lock();
        self.live.read().values().map(Arc::clone).collect()
    }

    pub(crate) fn end_all(&self) {
        for connection in self.connections() {
            connection.end();
        }
    }

    /// Ends the connection to a peer that is no longer listed, and forgets its counts.
    pub(crate) fn drop_peer(&self, peer: NodeId) {
        let connection = self.live.read().get(&peer).map(Arc::clone);
        if let Some(connection) = connection {
            connection.end();
        }
        self.counters.lock().remove(&peer);
        self.refusals.clear(peer);
    }

    pub(crate) fn set_forgotten(&self, nodes: &[NodeId]) {
        *self.forgotten.write() = nodes.iter().copied().collect();
        for connection in self.live.read().values() {
            if nodes.contains(&connection.peer) {
                connection.end();
            }
        }
    }

    /// A connection to `peer` that is not attached yet.
    pub(crate) fn open(self: &Arc<Self>, peer: NodeId) -> Attachment {
        let counters = Arc::clone(self.counters.lock().entry(peer).or_default());
        Attachment { board: Arc::clone(self), connection: Connection::new(peer, counters) }
    }

    /// Checks a node that dialled this one and, if it is welcome, serves its stream.
    pub(crate) fn accept(
        self: &Arc<Self>,
        hello: &Hello,
        incoming: Streaming<Frame>,
    ) -> Result<ExchangeStream, Status> {
        let peer = self.admit(handshake::check_dialer(&self.local, hello)).map_err(|error| {
            self.refusals.record(NodeId(hello.node_id), error.to_string());
            Status::failed_precondition(error.to_string())
        })?;
        let attachment = self.open(peer.node_id);
        let outgoing = attachment.outgoing();
        if !attachment.attach(&peer) || !self.tasks.spawn(serve(attachment, incoming)) {
            return Err(Status::unavailable("this node is stopping"));
        }
        Ok(outgoing.map(Ok).boxed())
    }

    /// Adds what only the member set knows to the verdict of a handshake.
    pub(crate) fn admit(
        &self,
        checked: Result<LocalPeer, HandshakeError>,
    ) -> Result<LocalPeer, HandshakeError> {
        let peer = checked?;
        if self.forgotten.read().contains(&peer.node_id) {
            return Err(HandshakeError::Forgotten { node: peer.node_id });
        }
        Ok(peer)
    }

    pub(crate) fn stats(&self) -> Vec<PeerStats> {
        let live = self.live.read();
        let counters = self.counters.lock();
        let stats = counters.iter().map(|(&peer, counters)| {
            let connection = live.get(&peer);
            let queued = connection.map_or_else(Default::default, |connection| connection.queued());
            PeerStats { connected: connection.is_some(), queued, ..counters.read(peer) }
        });
        stats.collect()
    }

    /// False when the transport is stopping.
    fn attach(&self, connection: &Arc<Connection>) -> bool {
        let _order = self.order.lock();
        if self.tasks.is_stopping() {
            return false;
        }
        let replaced = self.live.write().remove(&connection.peer);
        if let Some(replaced) = replaced {
            replaced.end();
            self.inbox.on_disconnected(connection.peer);
        }
        connection.counters.count_connect();
        self.live.write().insert(connection.peer, Arc::clone(connection));
        self.inbox.on_connected(connection.peer);
        true
    }

    fn detach(&self, connection: &Arc<Connection>) {
        connection.end();
        let _order = self.order.lock();
        let stood = {
            let mut live = self.live.write();
            let current = live.get(&connection.peer);
            let stood = current.is_some_and(|current| Arc::ptr_eq(current, connection));
            if stood {
                live.remove(&connection.peer);
            }
            stood
        };
        if stood {
            tracing::info!(peer = %connection.peer, "disconnected from peer");
            self.inbox.on_disconnected(connection.peer);
        }
    }
}

/// Holds a connection open; dropping it detaches and ends the connection.
pub(crate) struct Attachment {
    board: Arc<Switchboard>,
    connection: Arc<Connection>,
}

impl Attachment {
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The frames that this node sends, its Hello first.
    pub(crate) fn outgoing(&self) -> impl Stream<Item = Frame> + Send + use<> {
        let hello = handshake::hello(&self.board.local, self.connection.peer);
        frames(hello, Arc::clone(&self.connection))
    }

    /// Lets the peer be sent to, replacing an earlier connection. False when the transport stops.
    pub(crate) fn attach(&self, peer: &LocalPeer) -> bool {
        let attached = self.board.attach(&self.connection);
        if attached {
            let (id, incarnation) = (peer.node_id, peer.incarnation);
            tracing::info!(peer = %id, name = %peer.name, %incarnation, "connected to peer");
            self.board.refusals.clear(id);
        }
        attached
    }

    pub(crate) fn deliver(&self, messages: Vec<Message>) {
        self.board.inbox.on_messages(self.connection.peer, messages);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.board.detach(&self.connection);
    }
}

/// Receives on a stream that the peer opened, until it ends.
async fn serve(attachment: Attachment, incoming: Streaming<Frame>) {
    let peer = attachment.connection.peer;
    match receive(&attachment, incoming).await {
        Ok(()) => {}
        Err(error @ ReceiveError::Broken { .. }) => {
            tracing::debug!(%peer, error = describe(&error), "stream from a peer broke");
        }
        Err(error @ ReceiveError::Malformed { .. }) => {
            attachment.board.refusals.record(peer, describe(&error));
        }
    }
}
