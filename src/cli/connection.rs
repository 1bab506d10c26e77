//! The way to a cluster: the first of the given nodes that can be reached and takes the request.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::cli::failure::{Effect, Exit, Failure, is_safe_elsewhere, root_cause};

/// How long a connection may take before the next node is tried.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long to wait for an answer when the node's own timeout is to decide; longer than the
/// longest that nodes allow by default.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(70);
/// Bytes of an answer: above the largest value that a node can be configured for.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 << 20;

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
                    let failure = Failure::of_request(&status, effect, node);
                    if !is_safe_elsewhere(&status) {
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
    let message = format!(
        "cannot reach {}; start a node with `coterie serve` or name others with --node",
        nodes.join(", ")
    );
    Failure::new(Exit::Unavailable, message)
}

/// How to connect to a node given as `host:port`.
///
/// # Errors
/// When it is not that.
pub(crate) fn endpoint(node: &str) -> Result<Endpoint, Failure> {
    let bare = node.trim().trim_start_matches("http://").trim_end_matches('/');
    let port = bare.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let endpoint = port.and_then(|_| Endpoint::from_shared(format!("http://{bare}")).ok());
    let endpoint = endpoint.ok_or_else(|| {
        Failure::usage(format!("{node:?} is no node; give host:port, as in 127.0.0.1:7400"))
    })?;
    Ok(endpoint.connect_timeout(CONNECT_TIME_MAX).timeout(ANSWER_TIME_MAX).tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_host_and_port() {
        for node in ["127.0.0.1:7400", "n1:1", "[::1]:7400", "http://127.0.0.1:7400/"] {
            assert!(endpoint(node).is_ok(), "{node}");
        }
        for node in ["", "7400", "127.0.0.1", "a:b", "127.0.0.1:99999", "a b:1"] {
            let failure = endpoint(node).err().map(|failure| failure.exit);
            assert_eq!(failure, Some(Exit::Usage), "{node}");
        }
    }

    #[tokio::test]
    async fn when_none_can_be_reached_each_is_named() {
        // Ports that were just free: nobody listens on them.
        let free = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("bound").to_string()
        };
        let nodes = [free(), free()];
        let cluster = Cluster::new(&nodes, None).expect("nodes");
        let failure = cluster.ask(Effect::Writes, async |_| Ok(())).await.expect_err("none");
        assert_eq!(failure.exit, Exit::Unavailable);
        for node in &nodes {
            assert!(failure.to_string().contains(node), "{failure}");
        }
    }
}
