//! The gRPC service for operators: what the node reports, its keyspaces and its Raft groups.

mod groups;
mod keyspaces;
mod repair;
mod report;
mod ring;

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::api::convert;
use crate::node::request::RequestError;
use crate::node::service::Node;
use crate::proto::v1;
use crate::proto::v1::admin_server::Admin;

/// Serves `coterie.v1.Admin` from a node.
pub(crate) struct AdminService {
    node: Arc<Node>,
}

impl AdminService {
    /// Serves from this node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        AdminService { node }
    }

    fn timeout<T>(&self, request: &Request<T>) -> Result<Option<Duration>, RequestError> {
        convert::timeout(request.metadata(), self.node.limits())
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.node.status().into()))
    }

    async fn ring(
        &self,
        _request: Request<v1::RingRequest>,
    ) -> Result<Response<v1::RingResponse>, Status> {
        Ok(Response::new(self.node.ring().into()))
    }

    async fn owners(
        &self,
        request: Request<v1::OwnersRequest>,
    ) -> Result<Response<v1::OwnersResponse>, Status> {
        let key = convert::key(request.into_inner().key)?;
        Ok(Response::new(self.node.owners(&key).into()))
    }

    async fn plan_ring(
        &self,
        request: Request<v1::RingChange>,
    ) -> Result<Response<v1::RingPlan>, Status> {
        let planned = self.node.plan_ring(&ring::change(request.into_inner())).await?;
        Ok(Response::new(planned.into()))
    }

    async fn change_ring(
        &self,
        request: Request<v1::RingChange>,
    ) -> Result<Response<v1::ChangeRingResponse>, Status> {
        let epoch = self.node.change_ring(&ring::asked(request.into_inner())?).await?;
        Ok(Response::new(v1::ChangeRingResponse { epoch: epoch.0 }))
    }

    async fn transfers(
        &self,
        _request: Request<v1::TransfersRequest>,
    ) -> Result<Response<v1::TransfersResponse>, Status> {
        Ok(Response::new(self.node.transfers()?.into()))
    }

    async fn repair(
        &self,
        request: Request<v1::RepairRequest>,
    ) -> Result<Response<v1::RepairResponse>, Status> {
        Ok(Response::new(repair::serve(&self.node, request.into_inner())?))
    }

    async fn list_keyspaces(
        &self,
        _request: Request<v1::ListKeyspacesRequest>,
    ) -> Result<Response<v1::ListKeyspacesResponse>, Status> {
        Ok(Response::new(keyspaces::list(&self.node)?))
    }

    async fn create_keyspace(
        &self,
        request: Request<v1::CreateKeyspaceRequest>,
    ) -> Result<Response<v1::KeyspaceResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let keyspace = keyspaces::create(&self.node, request.into_inner(), timeout).await?;
        Ok(Response::new(v1::KeyspaceResponse { keyspace: Some(keyspace) }))
    }

    async fn alter_keyspace(
        &self,
        request: Request<v1::AlterKeyspaceRequest>,
    ) -> Result<Response<v1::KeyspaceResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let keyspace = keyspaces::alter(&self.node, request.into_inner(), timeout).await?;
        Ok(Response::new(v1::KeyspaceResponse { keyspace: Some(keyspace) }))
    }

    async fn drop_keyspace(
        &self,
        request: Request<v1::DropKeyspaceRequest>,
    ) -> Result<Response<v1::DropKeyspaceResponse>, Status> {
        let timeout = self.timeout(&request)?;
        keyspaces::drop(&self.node, request.into_inner().name, timeout).await?;
        Ok(Response::new(v1::DropKeyspaceResponse {}))
    }

    async fn groups(
        &self,
        request: Request<v1::GroupsRequest>,
    ) -> Result<Response<v1::GroupsResponse>, Status> {
        Ok(Response::new(groups::list(&self.node, request.get_ref().group).await?))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        groups::transfer(&self.node, request.into_inner()).await?;
        Ok(Response::new(v1::TransferLeaderResponse {}))
    }
}
