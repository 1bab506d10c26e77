//! The ceiling: a bare tonic server with the same messages, which does nothing for its answers.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use bytes::Bytes;
use coterie::proto::v1;
use coterie::proto::v1::kv_server::{Kv, KvServer};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use crate::AnyError;
use crate::process::{CpuTime, Owned, free_address, until};

/// The server, in a process of its own so that its CPU time can be told apart.
pub(crate) struct EchoServer {
    pub(crate) address: SocketAddr,
    process: Owned,
}

impl EchoServer {
    pub(crate) fn cpu_time(&self) -> Result<CpuTime, AnyError> {
        CpuTime::of(self.process.0.id())
    }
}

/// Starts this program once more, as the server.
pub(crate) async fn start(value_size: usize) -> Result<EchoServer, AnyError> {
    let address = free_address()?;
    let child = Command::new(std::env::current_exe()?)
        .arg(format!("--echo-server={address}"))
        .arg(format!("--value-size={value_size}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let server = EchoServer { address, process: Owned(child) };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    until("the bare server does not start", async || endpoint.connect().await.is_ok()).await?;
    Ok(server)
}

/// Is the server, until killed.
pub(crate) async fn serve(address: SocketAddr, value_size: usize) -> Result<(), AnyError> {
    let echo = Echo { value: Bytes::from(vec![0xff; value_size]) };
    Server::builder().tcp_nodelay(true).add_service(KvServer::new(echo)).serve(address).await?;
    Ok(())
}

struct Echo {
    value: Bytes,
}

#[tonic::async_trait]
impl Kv for Echo {
    type ScanStream = futures_util::stream::Empty<Result<v1::ListResponse, Status>>;
    type WatchStream = futures_util::stream::Empty<Result<v1::WatchResponse, Status>>;

    async fn list(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn scan(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn watch(
        &self,
        _: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let data = Some(v1::get_response::Data::ValueBytes(self.value.clone()));
        let key = request.into_inner().key;
        Ok(Response::new(v1::GetResponse { key, data, ..v1::GetResponse::default() }))
    }

    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let key = request.into_inner().key;
        Ok(Response::new(v1::PutResponse { key, receipt: None }))
    }

    async fn delete(
        &self,
        _request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        Err(not_here())
    }

    async fn batch_get(
        &self,
        _request: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        Err(not_here())
    }

    async fn batch_put(
        &self,
        _request: Request<v1::BatchPutRequest>,
    ) -> Result<Response<v1::BatchPutResponse>, Status> {
        Err(not_here())
    }

    async fn append(
        &self,
        _request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        Err(not_here())
    }

    async fn compare_and_set(
        &self,
        _request: Request<v1::CompareAndSetRequest>,
    ) -> Result<Response<v1::CompareAndSetResponse>, Status> {
        Err(not_here())
    }

    async fn increment(
        &self,
        _request: Request<v1::IncrementRequest>,
    ) -> Result<Response<v1::IncrementResponse>, Status> {
        Err(not_here())
    }

    async fn update_set(
        &self,
        _request: Request<v1::UpdateSetRequest>,
    ) -> Result<Response<v1::UpdateSetResponse>, Status> {
        Err(not_here())
    }

    async fn transact(
        &self,
        _request: Request<v1::TransactRequest>,
    ) -> Result<Response<v1::TransactResponse>, Status> {
        Err(not_here())
    }
}

fn not_here() -> Status {
    Status::unimplemented("the bare server answers Get and Put only")
}
