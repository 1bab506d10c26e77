//! Serves gRPC and HTTP on one port.
//!
//! The data service is the hot path: its requests go from hyper to the service by one comparison
//! of the path, past every router and layer. All else takes axum's router.
//!
//! Each connection is a task that this module owns. At shutdown no more are accepted, those that
//! stand finish what they have begun, and after `DRAIN_TIME_MAX` the rest are closed.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;

use crate::api::admin::AdminService;
use crate::api::batch;
use crate::api::health::HealthService;
use crate::api::http;
use crate::api::kv::KvService;
use crate::node::service::Node;
use crate::proto::v1;
use crate::proto::v1::admin_server::AdminServer;
use crate::proto::v1::kv_server::KvServer;

/// Connections that are served at once; further ones wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 10_000;
/// How long connections may take to finish at shutdown: longer than a request's default timeout,
/// shorter than the ten seconds after which container runtimes kill.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Requests at once on one HTTP/2 connection; hyper's default of 200 would hold up a busy client.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Bytes that a request may send before the server answers for more: a value of the default limit
/// goes without a pause.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for all requests of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Silence after which an HTTP/2 client is asked whether it lives.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to say so.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an HTTP/1 client may take to send a request's head, or be idle between two requests.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);

/// Serves a node's interfaces until the shutdown resolves and the connections have drained.
///
/// # Errors
/// When the descriptors for reflection, which are part of the program, cannot be read.
pub async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let dispatch = Dispatch::new(Arc::clone(&node))?;
    let protocol = protocol();
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! { biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => report_panic(ended),
            stream = accept(&listener), if connections.len() < CONNECTIONS_MAX => {
                let (protocol, dispatch) = (protocol.clone(), dispatch.clone());
                connections.spawn(converse(stream, protocol, dispatch, stopped.clone()));
            }
        }
    }
    drop(listener);
    // Nothing else ends their streams.
    node.end_watches();
    stop.send_replace(());
    drain(connections).await;
    Ok(())
}

/// The next connection; a failure to accept one ends nothing.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client's connection");
                tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}

async fn drain(mut connections: JoinSet<()>) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    };
    if tokio::time::timeout(DRAIN_TIME_MAX, all).await.is_err() {
        tracing::info!(open = connections.len(), "closing client connections that did not finish");
        connections.shutdown().await;
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a client's connection ended abruptly");
    }
}

type Protocol = auto::Builder<TokioExecutor>;

fn protocol() -> Protocol {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    protocol
}

/// Serves one connection until either side ends it.
async fn converse(
    stream: TcpStream,
    protocol: Protocol,
    dispatch: Dispatch,
    mut stopped: watch::Receiver<()>,
) {
    // Replies are small and complete: to wait for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let connection = protocol.serve_connection(TokioIo::new(stream), dispatch);
    tokio::pin!(connection);
    let ended = tokio::select! { biased;
        ended = connection.as_mut() => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke");
    }
}

/// Sends each request to the service that its path names.
#[derive(Clone)]
struct Dispatch {
    kv: KvServer<KvService>,
    others: Router,
}

impl Dispatch {
    fn new(node: Arc<Node>) -> io::Result<Self> {
        let bytes_max = batch::request_bytes_max(node.limits());
        let kv = KvServer::new(KvService::new(Arc::clone(&node)));
        let kv = kv.max_decoding_message_size(bytes_max);
        Ok(Dispatch { kv, others: others(node)? })
    }
}

type Answer = Result<Response<Body>, Infallible>;

impl hyper::service::Service<Request<Incoming>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if is_of(KvServer::<KvService>::NAME, request.uri().path()) {
            return self.kv.clone().call(request);
        }
        let answer = self.others.clone().call(request);
        Box::pin(async move { Ok(answer.await?.map(Body::new)) })
    }
}

/// Whether a path is `/{service}/{method}`.
fn is_of(service: &str, path: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

fn others(node: Arc<Node>) -> io::Result<Router> {
    let admin = AdminServer::new(AdminService::new(Arc::clone(&node)));
    let health = HealthServer::new(HealthService::new(Arc::clone(&node)));
    let v1 = reflection().build_v1().map_err(io::Error::other)?;
    let v1alpha = reflection().build_v1alpha().map_err(io::Error::other)?;
    Ok(http::router(node)
        .route_service(&route_of(&admin), admin)
        .route_service(&route_of(&health), health)
        .route_service(&route_of(&v1), v1)
        .route_service(&route_of(&v1alpha), v1alpha))
}

fn route_of<S: NamedService>(_service: &S) -> String {
    format!("/{}/{{*method}}", S::NAME)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_services_own_paths_are_its() {
        let name = KvServer::<KvService>::NAME;
        assert_eq!(name, "coterie.v1.Kv");
        assert!(is_of(name, "/coterie.v1.Kv/Get"));
        for path in ["/coterie.v1.Kv", "/coterie.v1.KvX/Get", "/coterie.v1.Admin/Status", "/", ""] {
            assert!(!is_of(name, path), "{path}");
        }
    }

    #[test]
    fn the_descriptors_are_readable() {
        assert!(reflection().build_v1().is_ok() && reflection().build_v1alpha().is_ok());
    }
}
