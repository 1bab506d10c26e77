//! The half that peers dial: accepts streams, and introduces nodes that want to join.
//!
//! It serves before this node knows its own cluster, since others may ask it to introduce them:
//! the transport is put in once there is one, and until then streams are turned away as not ready.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::net::peer::handshake::PROTOCOL_VERSION;
use crate::net::peer::introduce::{self, Introduction};
use crate::net::peer::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_LIMIT, HANDSHAKE_TIMEOUT, HTTP2_FRAME_BYTES,
    KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, PeerTransport, STREAM_WINDOW_BYTES,
};
use crate::proto::cluster::peer_server::{Peer, PeerServer as PeerService};
use crate::proto::cluster::{Frame, IntroduceReply, IntroduceRequest};

/// How long [`serve`] waits for connections to close once it was told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Tells nodes that want to join what they need to know.
pub trait Introducer: Send + Sync {
    /// `None` while this node has not joined a cluster itself.
    fn introduce(&self) -> Option<Introduction>;
}

/// The accepting half of a [`PeerTransport`].
pub struct PeerServer {
    introducer: Arc<dyn Introducer>,
    transport: OnceLock<Arc<PeerTransport>>,
}

/// Why the server ended early.
#[derive(Debug, thiserror::Error)]
#[error("the peer server failed")]
pub struct ServeError {
    #[from]
    source: tonic::transport::Error,
}

impl PeerServer {
    /// A server that introduces, but accepts no stream yet.
    pub fn new(introducer: Arc<dyn Introducer>) -> Arc<Self> {
        Arc::new(PeerServer { introducer, transport: OnceLock::new() })
    }

    /// Accepts streams for this transport from now on. Only the first call has an effect: a node
    /// joins one cluster in its life.
    pub fn attach(&self, transport: Arc<PeerTransport>) {
        // A second transport would split the peers between two inboxes.
        let _ = self.transport.set(transport);
    }
}

/// Serves peers on a listener until told to stop; then resolves once all connections are closed,
/// or 2 s later. Streams close when their transport is stopped: do that first, or
/// at the same time.
///
/// # Errors
/// [`ServeError`] when accepting fails for good.
pub async fn serve(
    listener: TcpListener,
    server: Arc<PeerServer>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let stopping = watch::Sender::new(false);
    let mut stopped = stopping.subscribe();
    let signal = async move {
        shutdown.await;
        stopping.send_replace(true);
    };
    let overdue = async move {
        if stopped.wait_for(|stopping| *stopping).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    let service = PeerService::new(Service(server)).max_decoding_message_size(FRAME_BYTES_LIMIT);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = builder().add_service(service).serve_with_incoming_shutdown(incoming, signal);
    tokio::select! {
        biased;
        served = served => Ok(served?),
        () = overdue => Ok(()),
    }
}

fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
}

/// What goes out on a stream that was accepted.
pub(crate) type ExchangeStream = BoxStream<'static, Result<Frame, Status>>;

/// The service apart from the server, so that no protobuf type shows in the latter.
struct Service(Arc<PeerServer>);

#[tonic::async_trait]
impl Peer for Service {
    type ExchangeStream = ExchangeStream;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<ExchangeStream>, Status> {
        let Some(transport) = self.0.transport.get() else {
            return Err(Status::unavailable("this node has not joined its cluster yet"));
        };
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let hello = first
            .and_then(|frame| frame.hello)
            .ok_or_else(|| Status::invalid_argument("the first frame must be a Hello"))?;
        transport.board.accept(&hello, incoming).map(Response::new)
    }

    async fn introduce(
        &self,
        _request: Request<IntroduceRequest>,
    ) -> Result<Response<IntroduceReply>, Status> {
        let introduction = self.0.introducer.introduce();
        Ok(Response::new(IntroduceReply {
            protocol_version: PROTOCOL_VERSION,
            introduction: introduction.as_ref().map(introduce::encode),
        }))
    }
}
