//! etcd's key-value service as a target: the few messages that a load needs, by their published
//! field numbers (etcd v3 API, `rpc.proto` and `kv.proto`); what is not named here is skipped.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use coterie::cli::bench::{Action, Caller, Done, Failed, Step, Target};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::AnyError;

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    /// Answered from the member's own state, which may be stale.
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// What the operations ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EtcdOptions {
    /// Connections to each member.
    pub(crate) connections: usize,
    pub(crate) value_bytes: usize,
    /// Whether reads may be stale.
    pub(crate) serializable: bool,
}

/// Members to put load on.
pub(crate) struct Etcd {
    /// By connection, then by member.
    channels: Arc<[Channel]>,
    options: EtcdOptions,
}

impl Etcd {
    pub(crate) async fn connect(
        members: Vec<SocketAddr>,
        options: EtcdOptions,
    ) -> Result<Self, AnyError> {
        let mut channels = Vec::new();
        for _ in 0..options.connections.max(1) {
            for member in &members {
                channels.push(channel(*member).await?);
            }
        }
        Ok(Etcd { channels: channels.into(), options })
    }
}

async fn channel(member: SocketAddr) -> Result<Channel, AnyError> {
    let endpoint = Endpoint::from_shared(format!("http://{member}"))?;
    Ok(endpoint.tcp_nodelay(true).connect().await?)
}

/// Whether a member answers a linearizable read, for which it needs a leader.
pub(crate) async fn answers(member: SocketAddr) -> bool {
    let Ok(channel) = channel(member).await else { return false };
    let request = RangeRequest { key: Bytes::from_static(b"ready"), serializable: false };
    range(&mut Grpc::new(channel), request).await.is_ok()
}

impl Target for Etcd {
    type Caller = EtcdCaller;

    fn caller(&self, index: usize) -> EtcdCaller {
        let channel = self.channels[index % self.channels.len()].clone();
        let value: Bytes = (0..self.options.value_bytes).map(|at| (index + 7 * at) as u8).collect();
        EtcdCaller { client: Grpc::new(channel), value, serializable: self.options.serializable }
    }
}

/// One user of etcd, who stays with one member.
pub(crate) struct EtcdCaller {
    client: Grpc<Channel>,
    value: Bytes,
    serializable: bool,
}

impl Caller for EtcdCaller {
    async fn call(&mut self, step: Step) -> Result<Done, Failed> {
        let key = Bytes::from(format!("key-{:012}", step.key));
        let done = match step.action {
            Action::Put => self.put(key).await,
            Action::Get => self.get(key).await,
        };
        done.map_err(|status| Failed {
            kind: format!("{:?}", status.code()),
            message: status.message().to_owned(),
        })
    }
}

impl EtcdCaller {
    async fn put(&mut self, key: Bytes) -> Result<Done, Status> {
        let request = PutRequest { key, value: self.value.clone() };
        let value_bytes = request.value.len() as u64;
        ready(&mut self.client).await?;
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        self.client.unary(Request::new(request), path, codec).await?;
        Ok(Done { value_bytes, ..Done::default() })
    }

    async fn get(&mut self, key: Bytes) -> Result<Done, Status> {
        let request = RangeRequest { key, serializable: self.serializable };
        let answer = range(&mut self.client, request).await?;
        let found = answer.kvs.first();
        let value_bytes = found.map_or(0, |found| found.value.len() as u64);
        Ok(Done { value_bytes, missing: found.is_none(), ..Done::default() })
    }
}

async fn range(client: &mut Grpc<Channel>, request: RangeRequest) -> Result<RangeResponse, Status> {
    ready(client).await?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    Ok(client.unary(Request::new(request), path, codec).await?.into_inner())
}

async fn ready(client: &mut Grpc<Channel>) -> Result<(), Status> {
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))
}
