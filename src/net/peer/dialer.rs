//! Keeps the stream to one peer standing, from the side that dials.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::net::peer::back_off::BackOff;
use crate::net::peer::connection::{ReceiveError, receive};
use crate::net::peer::handshake::{self, HandshakeError};
use crate::net::peer::switchboard::{Attachment, Switchboard};
use crate::net::peer::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_LIMIT, HANDSHAKE_TIMEOUT, HTTP2_FRAME_BYTES,
    KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, LocalPeer, STREAM_WINDOW_BYTES, describe,
};
use crate::proto::cluster::Frame;
use crate::proto::cluster::peer_client::PeerClient;
use crate::types::NodeId;

/// How long a TCP connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait after a refusal: only an operator or a change of members mends it.
const REFUSED_RETRY: Duration = Duration::from_secs(5);

/// A stream that stood for this long was no flash in the pan: the next outage begins afresh.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The HTTP/2 settings of every connection to a peer.
pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("invariant: a socket address makes a valid authority")
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
}

/// One peer's dialer.
pub(crate) struct Dialer {
    board: Arc<Switchboard>,
    peer: NodeId,
    /// Where the peer is; ends when it is no longer listed, changes when there is news of it.
    address: watch::Receiver<SocketAddr>,
    back_off: BackOff,
}

impl Dialer {
    pub(crate) fn new(
        board: Arc<Switchboard>,
        peer: NodeId,
        address: watch::Receiver<SocketAddr>,
    ) -> Self {
        let back_off = BackOff::new(board.local.node_id.0 ^ peer.0.rotate_left(32));
        Dialer { board, peer, address, back_off }
    }

    /// Dials, serves the stream, waits and dials again, until the peer is no longer listed or the
    /// transport stops.
    pub(crate) async fn run(mut self) {
        let mut reachable = true;
        loop {
            let ended = tokio::select! {
                biased;
                () = unlisted(self.address.clone()) => return,
                ended = self.attempt() => ended,
            };
            let delay = match ended {
                Ended::Stopping => return,
                Ended::Stood { settled } => {
                    reachable = true;
                    self.delay_after_stream(settled)
                }
                Ended::Refused { reason } => {
                    self.board.refusals.record(self.peer, reason);
                    self.back_off.jittered(REFUSED_RETRY)
                }
                Ended::Unreachable { cause } => {
                    self.report_unreachable(&cause, std::mem::replace(&mut reachable, false));
                    self.back_off.next_delay()
                }
            };
            if !self.wait(delay).await {
                return;
            }
        }
    }

    fn delay_after_stream(&mut self, settled: bool) -> Duration {
        // News that came while the stream stood say nothing about what follows it.
        self.address.mark_unchanged();
        if settled {
            self.back_off.reset();
        }
        self.back_off.next_delay()
    }

    /// Once per outage at a level that is shown by default.
    fn report_unreachable(&self, cause: &str, first: bool) {
        let (peer, address) = (self.peer, *self.address.borrow());
        if first {
            tracing::info!(%peer, %address, %cause, "cannot reach peer; retrying");
        } else {
            tracing::debug!(%peer, %address, %cause, "cannot reach peer");
        }
    }

    /// False when the dialer is to end.
    async fn wait(&mut self, delay: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.board.tasks.stopping() => false,
            news = self.address.changed() => {
                self.back_off.reset();
                news.is_ok()
            }
            () = tokio::time::sleep(delay) => true,
        }
    }

    async fn attempt(&self) -> Ended {
        let opened = tokio::select! {
            biased;
            () = self.board.tasks.stopping() => return Ended::Stopping,
            opened = self.open() => opened,
        };
        match opened {
            Ok(stream) => stream.serve().await,
            Err(error) => error.into(),
        }
    }

    /// Connects and shakes hands.
    async fn open(&self) -> Result<OpenStream, DialError> {
        let address = *self.address.borrow();
        let endpoint = endpoint(address);
        let channel = endpoint.connect().await.map_err(|source| DialError::Connect { source })?;
        let attachment = self.board.open(self.peer);
        let shaking = self.shake_hands(channel, &attachment);
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await;
        let (client, incoming, peer) = shaken.map_err(|_| DialError::Silent)??;
        Ok(OpenStream { attachment, incoming, peer, _client: client })
    }

    async fn shake_hands(
        &self,
        channel: Channel,
        attachment: &Attachment,
    ) -> Result<(PeerClient<Channel>, Streaming<Frame>, LocalPeer), DialError> {
        let mut client = PeerClient::new(channel).max_decoding_message_size(FRAME_BYTES_LIMIT);
        let mut incoming = client.exchange(attachment.outgoing()).await?.into_inner();
        let first = incoming.message().await?;
        let hello = first.and_then(|frame| frame.hello).ok_or(DialError::Silent)?;
        let checked = handshake::check_acceptor(&self.board.local, self.peer, &hello);
        let peer = self.board.admit(checked)?;
        Ok((client, incoming, peer))
    }
}

/// Resolves when the peer is no longer listed.
async fn unlisted(mut address: watch::Receiver<SocketAddr>) {
    while address.changed().await.is_ok() {}
}

/// A stream whose handshake is done.
struct OpenStream {
    attachment: Attachment,
    incoming: Streaming<Frame>,
    peer: LocalPeer,
    /// Keeps the HTTP/2 connection.
    _client: PeerClient<Channel>,
}

impl OpenStream {
    async fn serve(self) -> Ended {
        if !self.attachment.attach(&self.peer) {
            return Ended::Stopping;
        }
        let mut receiving = pin!(receive(&self.attachment, self.incoming));
        let (received, settled) =
            match tokio::time::timeout(SETTLED_AFTER, receiving.as_mut()).await {
                Ok(received) => (received, false),
                Err(_) => (receiving.await, true),
            };
        match received {
            Ok(()) => Ended::Stood { settled },
            Err(ReceiveError::Broken { source }) => {
                tracing::debug!(peer = %self.peer.node_id, error = %source, "stream broke");
                Ended::Stood { settled }
            }
            Err(error @ ReceiveError::Malformed { .. }) => {
                Ended::Refused { reason: describe(&error) }
            }
        }
    }
}

/// How an attempt went.
enum Ended {
    /// A stream stood for a while.
    Stood { settled: bool },
    /// One of the two does not want the other.
    Refused { reason: String },
    /// The peer could not be reached, or is not ready.
    Unreachable { cause: String },
    /// The transport stops.
    Stopping,
}

impl From<DialError> for Ended {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Handshake { source } => Ended::Refused { reason: source.to_string() },
            DialError::Call { source } if source.code() == Code::FailedPrecondition => {
                Ended::Refused { reason: source.message().to_owned() }
            }
            other => Ended::Unreachable { cause: describe(&other) },
        }
    }
}

/// Why no stream came to stand.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot connect")]
    Connect { source: tonic::transport::Error },
    #[error("no Hello within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Silent,
    #[error("the call failed: {source}")]
    Call {
        #[from]
        source: Status,
    },
    #[error(transparent)]
    Handshake {
        #[from]
        source: HandshakeError,
    },
}
