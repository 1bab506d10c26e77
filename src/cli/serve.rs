//! `coterie serve`: one node, from its configuration to a clean end.

mod args;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use args::ServeArgs;

use crate::api::server;
use crate::cli::failure::{Exit, Failure};
use crate::cli::signal::StopSignals;
use crate::cli::{logging, output};
use crate::config::Config;
use crate::node::launch::launch;
use crate::node::service::Node;

/// How long a stopping node may take; the data is safe without it, so it need not be waited for.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);
/// How long blocked threads may hold up the end of the process.
const THREADS_TIME_MAX: Duration = Duration::from_secs(1);
/// How often a node that is starting is asked whether it serves.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs a node until it is asked to stop.
///
/// # Errors
/// When the configuration cannot be used or the node does not start.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let loaded = args.load()?;
    logging::start(&loaded.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = loaded.worker_threads {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(serve(loaded.config));
    runtime.shutdown_timeout(THREADS_TIME_MAX);
    ended
}

async fn serve(config: Config) -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    let listener = listen(&config).await?;
    let addresses = addresses(&config);
    let name = config.name.clone();
    let node = tokio::select! { biased;
        // Recovery can be abandoned at any moment, as at a power cut.
        _ = signals.recv() => return Ok(()),
        node = launch(config) => node.map_err(|error| Failure::failed(error.to_string()))?,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let until = async { stopped.await.unwrap_or(()) };
    let mut server = tokio::spawn(server::serve(listener, Arc::clone(&node), until));
    output::line(&format!("{name} listens to {addresses}"))?;
    tokio::select! { biased;
        signal = signals.recv() => tracing::info!(signal, "stopping"),
        ended = &mut server => return Err(unexpected_end(ended)),
        failure = announce(&name, &node) => return Err(failure),
    }
    stop.send(()).unwrap_or(());
    stop_within_bounds(&mut signals, &node, server).await
}

async fn listen(config: &Config) -> Result<TcpListener, Failure> {
    let address = config.listen;
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "; stop what listens there, or give another --listen",
            io::ErrorKind::AddrNotAvailable => "; --listen needs an address of this machine",
            io::ErrorKind::PermissionDenied => "; give --listen a port above 1023",
            _ => "",
        };
        Failure::failed(format!("cannot listen to clients on {address}: {error}{advice}"))
    })
}

fn addresses(config: &Config) -> String {
    let advertised = |advertise: Option<std::net::SocketAddr>| match advertise {
        Some(address) => format!(", known as {address}"),
        None => String::new(),
    };
    format!(
        "clients on {} (gRPC and HTTP{}), to peers on {} (TCP and UDP{})",
        config.listen,
        advertised(config.advertise),
        config.peer_listen,
        advertised(config.peer_advertise)
    )
}

/// Says once that the node serves; resolves only if that cannot be said.
async fn announce(name: &str, node: &Node) -> Failure {
    while !node.serving().ready {
        tokio::time::sleep(READY_POLL_INTERVAL).await;
    }
    match output::line(&format!("{name} serves")) {
        Ok(()) => pending().await,
        Err(failure) => failure,
    }
}

fn unexpected_end(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Failure {
    let cause = match ended {
        Ok(Ok(())) => String::from("its listener ended"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Failure::failed(format!("the node no longer serves clients: {cause}"))
}

/// Answers what has begun, makes everything durable, and ends; a second signal ends at once.
async fn stop_within_bounds(
    signals: &mut StopSignals,
    node: &Node,
    server: JoinHandle<io::Result<()>>,
) -> Result<(), Failure> {
    let stop = async {
        let served = server.await;
        node.stop().await;
        served
    };
    tokio::select! { biased;
        signal = signals.recv() => {
            tracing::warn!(signal, "ending at once");
            Err(Failure::new(Exit::Failed, "ended by a second signal while stopping"))
        }
        stopped = tokio::time::timeout(STOP_TIME_MAX, stop) => match stopped {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(ended) => Err(unexpected_end(ended)),
            Err(_) => Err(Failure::failed(format!("did not stop within {STOP_TIME_MAX:?}"))),
        }
    }
}
