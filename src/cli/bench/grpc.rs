//! A cluster as a target: the generated client over few connections.
//!
//! Caller i uses node i modulo the nodes. When the connection to it breaks, the caller moves on to
//! the next node and stays there, as a client with a list of nodes would; the operation that met
//! the break counts as failed unless a retry elsewhere is asked for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::cli::bench::keys::Random;
use crate::cli::bench::{Action, Caller, Done, Failed, Step, Target};
use crate::cli::connection::endpoint;
use crate::client::level_number;
use crate::client::{Heard, Witness, root_cause};
use crate::proto::v1;
use crate::proto::v1::kv_client::KvClient;
use crate::protocol::quorum::level::Level;

/// Flow-control windows, so that values of the default limit go without a pause.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for a whole connection.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Random bytes from which values are cut at different places.
const VALUE_VARIETY_BYTES: usize = 4096;

/// What the operations ask for.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// Connections to each node.
    pub connections: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Replicas that must answer, by name.
    pub level: Option<Level>,
    /// R by number; 0 for none.
    pub r: u32,
    /// W by number; 0 for none.
    pub w: u32,
    /// How long an operation may take; the node's own limit when absent.
    pub timeout: Option<Duration>,
    /// Whether what was not attempted, or lost its connection, is tried once on another node.
    pub retry_elsewhere: bool,
    /// The keyspace's name; empty for the default one.
    pub keyspace: String,
}

/// A cluster to put load on.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    /// By node, then by connection.
    clients: Vec<Vec<KvClient<Channel>>>,
    options: CallOptions,
    values: Bytes,
}

impl Cluster {
    /// Connects to the nodes (`host:port`). One that cannot be reached is connected to later; its
    /// callers begin with errors.
    ///
    /// # Errors
    /// When no node can be reached, or one is no `host:port`: in one line.
    pub async fn connect(nodes: &[String], options: CallOptions) -> Result<Self, String> {
        let mut clients = Vec::new();
        let mut unreached = Vec::new();
        for node in nodes {
            match channels(node, options.connections.max(1)).await? {
                (channels, None) => clients.push(channels),
                (channels, Some(error)) => {
                    clients.push(channels);
                    unreached.push(format!("{node} ({error})"));
                }
            }
        }
        if unreached.len() == nodes.len() {
            return Err(format!("cannot reach {}", unreached.join(", ")));
        }
        let values = random_bytes(options.value_bytes + VALUE_VARIETY_BYTES);
        Ok(Cluster { shared: Arc::new(Shared { clients, options, values }) })
    }
}

/// Clients of one node, and why it could not be reached now, if so.
async fn channels(
    node: &str,
    count: usize,
) -> Result<(Vec<KvClient<Channel>>, Option<String>), String> {
    let endpoint = endpoint(node).map_err(|failure| failure.to_string())?;
    let endpoint = endpoint
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let mut clients = Vec::new();
    let mut error = None;
    for _ in 0..count {
        let channel = match endpoint.connect().await {
            Ok(channel) => channel,
            Err(cause) => {
                error = Some(root_cause(&cause));
                endpoint.connect_lazy()
            }
        };
        clients.push(KvClient::new(channel).max_decoding_message_size(usize::MAX));
    }
    Ok((clients, error))
}

/// Bytes that are neither compressible nor text.
fn random_bytes(count: usize) -> Bytes {
    const SEED: u64 = 0x00c0_7e71_e000_0001;
    let mut random = Random::new(SEED);
    (0..count).map(|_| random.next() as u8).collect()
}

impl Target for Cluster {
    type Caller = ClusterCaller;

    fn caller(&self, index: usize) -> ClusterCaller {
        let nodes = self.shared.clients.len();
        let random = Random::new(index as u64);
        let shared = Arc::clone(&self.shared);
        let mut caller =
            ClusterCaller { client: shared.clients[0][0].clone(), shared, index, node: 0, random };
        caller.use_node(index % nodes);
        caller
    }
}

/// One user of a cluster.
pub struct ClusterCaller {
    shared: Arc<Shared>,
    client: KvClient<Channel>,
    index: usize,
    node: usize,
    random: Random,
}

impl Caller for ClusterCaller {
    async fn call(&mut self, step: Step) -> Result<Done, Failed> {
        let status = match self.attempt(step).await {
            Ok(done) => return Ok(done),
            Err(status) => status,
        };
        let heard = Heard::of(&status);
        let lost = heard.witness != Witness::Node;
        if lost {
            self.use_node((self.node + 1) % self.shared.clients.len());
        }
        let retry = self.shared.options.retry_elsewhere && (lost || heard.is_safe_elsewhere());
        if !retry {
            return Err(failed(&heard));
        }
        if !lost {
            // The node lives and may serve the next operation; only this one goes elsewhere.
            return self.once_elsewhere(step).await;
        }
        retried(self.attempt(step).await)
    }
}

fn retried(answer: Result<Done, Status>) -> Result<Done, Failed> {
    match answer {
        Ok(done) => Ok(Done { retried: true, ..done }),
        Err(status) => Err(failed(&Heard::of(&status))),
    }
}

impl ClusterCaller {
    fn use_node(&mut self, node: usize) {
        let clients = &self.shared.clients[node];
        // Callers of the same node take its connections in turn.
        let turn = self.index / self.shared.clients.len();
        self.client = clients[turn % clients.len()].clone();
        self.node = node;
    }

    async fn once_elsewhere(&mut self, step: Step) -> Result<Done, Failed> {
        let own = self.node;
        self.use_node((own + 1) % self.shared.clients.len());
        let answer = self.attempt(step).await;
        self.use_node(own);
        retried(answer)
    }

    async fn attempt(&mut self, step: Step) -> Result<Done, Status> {
        match step.action {
            Action::Put => self.put(step.key).await,
            Action::Get => self.get(step.key).await,
        }
    }

    async fn put(&mut self, key: u64) -> Result<Done, Status> {
        let options = &self.shared.options;
        let from = self.random.below(VALUE_VARIETY_BYTES as u64) as usize;
        let value = self.shared.values.slice(from..from + options.value_bytes);
        let message = v1::PutRequest {
            key: key_text(key),
            data: Some(v1::put_request::Data::ValueBytes(value)),
            level: level_number(options.level),
            w: options.w,
            keyspace: options.keyspace.clone(),
            ..v1::PutRequest::default()
        };
        let value_bytes = options.value_bytes as u64;
        self.client.put(request(message, options.timeout)).await?;
        Ok(Done { value_bytes, ..Done::default() })
    }

    async fn get(&mut self, key: u64) -> Result<Done, Status> {
        let options = &self.shared.options;
        let message = v1::GetRequest {
            key: key_text(key),
            level: level_number(options.level),
            r: options.r,
            keyspace: options.keyspace.clone(),
            ..v1::GetRequest::default()
        };
        match self.client.get(request(message, options.timeout)).await {
            Ok(answer) => {
                let value_bytes = data_bytes(answer.get_ref().data.as_ref());
                Ok(Done { value_bytes, ..Done::default() })
            }
            Err(status) if status.code() == Code::NotFound => {
                Ok(Done { missing: true, ..Done::default() })
            }
            Err(status) => Err(status),
        }
    }
}

/// The key of a number: 16 bytes.
fn key_text(key: u64) -> String {
    format!("key-{key:012}")
}

fn request<T>(message: T, timeout: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}

fn data_bytes(data: Option<&v1::get_response::Data>) -> u64 {
    let bytes = match data {
        Some(v1::get_response::Data::Value(text)) => text.len(),
        Some(v1::get_response::Data::ValueBytes(bytes)) => bytes.len(),
        None => 0,
    };
    bytes as u64
}

/// The kind of a failure: the gRPC code, and the outcome that the node told.
fn failed(heard: &Heard) -> Failed {
    let known = match (heard.outcome, heard.witness) {
        (Some(outcome), _) => outcome.name(),
        (None, Witness::Node) => "no outcome told",
        (None, Witness::Loss | Witness::NoConnection) => "no answer",
    };
    Failed { kind: format!("{:?}, {known}", heard.code), message: heard.message.clone() }
}

#[cfg(test)]
mod tests;
