//! Connections to nodes, and whether there was one: what was never sent was not attempted.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take before another node is tried.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);

/// One connection for each node; at most as many as routing has known.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_address: Mutex<BTreeMap<Arc<str>, Connection>>,
}

impl Connections {
    /// The connection to a node, made when it is first used and again when it was lost.
    pub(crate) fn to(&self, address: &Arc<str>) -> Connection {
        let mut by_address = self.by_address.lock();
        by_address.entry(address.clone()).or_insert_with(|| Connection::new(address)).clone()
    }
}

/// A connection to one node.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    was_made: Arc<AtomicBool>,
}

impl Connection {
    fn new(address: &str) -> Connection {
        let was_made = Arc::new(AtomicBool::new(false));
        let connector = Connector { was_made: was_made.clone() };
        let channel = endpoint(address)
            .connect_timeout(CONNECT_TIME_MAX)
            .connect_with_connector_lazy(connector);
        Connection { channel, was_made }
    }

    /// Whether anything can have been sent.
    pub(crate) fn was_made(&self) -> bool {
        self.was_made.load(Ordering::Acquire)
    }
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("invariant: addresses are checked when the client is made or are socket addresses")
}

/// Connects, and notes that it did.
#[derive(Clone, Debug)]
struct Connector {
    was_made: Arc<AtomicBool>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let was_made = self.was_made.clone();
        Box::pin(async move {
            let to = to.authority().map(ToString::to_string).unwrap_or_default();
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            was_made.store(true, Ordering::Release);
            Ok(TokioIo::new(stream))
        })
    }
}
