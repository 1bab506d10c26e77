//! The way to a cluster: the first of the given nodes that can be reached and takes the request.
//! What is done with keys goes the library's way, by its strict client.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::cli::failure::{Effect, Exit, Failure, UNREACHABLE_ADVICE};
use crate::client::{Builder, Client, Heard, NODE_TIME_MAX, checked, root_cause};

/// How long a connection may take before the next node is tried.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// The nodes to ask, and how long to wait for them.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    nodes: Vec<(String, Endpoint)>,
    timeout: Option<Duration>,
}

impl Cluster {
    /// # Errors
    /// When a node is no `host:port`.
    pub(crate) fn new(nodes: &[String], timeout: Option<Duration>) -> Result<Self, Failure> {
        let with_endpoint = |node: &String| Ok((node.clone(), endpoint(node)?));
        let nodes: Result<Vec<_>, Failure> = nodes.iter().map(with_endpoint).collect();
        let nodes = nodes?;
        if nodes.is_empty() {
            return Err(Failure::usage("no node is given; name one with --node HOST:PORT"));
        }
        Ok(Cluster { nodes, timeout })
    }

    /// A client that asks these nodes.
    ///
    /// # Errors
    /// As [`Cluster::new`].
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let nodes = self.nodes.iter().map(|(node, _)| node);
        let client = Client::builder().nodes(nodes).strict();
        let client = self.timeout.into_iter().fold(client, Builder::timeout).connect();
        client.map_err(|error| Failure::of_client(error, Effect::Reads))
    }

    /// How long to wait for an answer, if the user has said so.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// A request that tells the node how long its client waits.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }

    /// Asks the nodes in turn, until one answers or the effect of an attempt is not known to be
    /// none.
    ///
    /// # Errors
    /// The answer's failure, or that no node could be reached.
    pub(crate) async fn ask<T>(
        &self,
        effect: Effect,
        call: impl AsyncFn(Channel) -> Result<T, Status>,
    ) -> Result<T, Failure> {
        let mut refusal = None;
        let mut unreached = Vec::new();
        for (node, endpoint) in &self.nodes {
            let channel = match endpoint.connect().await {
                Ok(channel) => channel,
                Err(error) => {
                    unreached.push(format!("{node} ({})", root_cause(&error)));
                    continue;
                }
            };
            match call(channel).await {
                Ok(answer) => return Ok(answer),
                Err(status) => {
                    let heard = Heard::of(&status);
                    let failure = Failure::of_request(&heard, effect, node);
                    if !heard.is_safe_elsewhere() {
                        return Err(failure);
                    }
                    refusal = Some(failure);
                }
            }
        }
        Err(refusal.unwrap_or_else(|| unreachable(&unreached)))
    }
}

fn unreachable(nodes: &[String]) -> Failure {
    let message = format!("cannot reach {}{UNREACHABLE_ADVICE}", nodes.join(", "));
    Failure::new(Exit::Unavailable, message)
}

/// How to connect to a node given as `host:port`.
///
/// # Errors
/// When it is not that.
pub(crate) fn endpoint(node: &str) -> Result<Endpoint, Failure> {
    let node = checked(node).map_err(|error| Failure::of_client(error, Effect::Reads))?;
    let endpoint = Endpoint::from_shared(format!("http://{node}"));
    let endpoint = endpoint.expect("invariant: the checked host and port make an address");
    Ok(endpoint.connect_timeout(CONNECT_TIME_MAX).timeout(NODE_TIME_MAX).tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_host_and_port() {
        assert!(endpoint("n1:1").is_ok());
        assert_eq!(endpoint("7400").err().map(|failure| failure.exit), Some(Exit::Usage));
    }

    #[tokio::test]
    async fn when_none_can_be_reached_each_is_named() {
        // Held so that nobody else listens there either.
        let ports = [(); 2].map(|()| {
            let port = tokio::net::TcpSocket::new_v4().expect("a socket");
            port.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
            port
        });
        let nodes = ports.each_ref().map(|port| port.local_addr().expect("bound").to_string());
        let cluster = Cluster::new(&nodes, None).expect("nodes");
        let failure = cluster.ask(Effect::Writes, async |_| Ok(())).await.expect_err("none");
        assert_eq!(failure.exit, Exit::Unavailable);
        for node in &nodes {
            assert!(failure.to_string().contains(node), "{failure}");
        }
    }
}
