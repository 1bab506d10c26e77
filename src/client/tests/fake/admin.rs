//! What the nodes tell of the cluster and its keyspaces.

use tonic::{Request, Response, Status};

use super::Node;
use crate::proto::v1;
use crate::proto::v1::admin_server::Admin;

fn keyspaces() -> Vec<v1::Keyspace> {
    let named = |name: &str, mode: &str| v1::Keyspace {
        name: name.to_owned(),
        mode: mode.to_owned(),
        ..Default::default()
    };
    vec![named("strong", "strong"), named("default", "quorum")]
}

#[tonic::async_trait]
impl Admin for Node {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let addresses = self.store.lock().addresses.clone();
        let member = |(number, address)| v1::Member {
            node_id: format!("{number:016x}"),
            client_address: address,
            ..Default::default()
        };
        Ok(Response::new(v1::StatusResponse {
            node_id: format!("{:016x}", self.number),
            members: addresses.into_iter().enumerate().map(member).collect(),
            ring: Some(v1::RingSummary { partitions: 256, ..Default::default() }),
            ..Default::default()
        }))
    }

    async fn list_keyspaces(
        &self,
        _: Request<v1::ListKeyspacesRequest>,
    ) -> Result<Response<v1::ListKeyspacesResponse>, Status> {
        Ok(Response::new(v1::ListKeyspacesResponse { keyspaces: keyspaces() }))
    }

    async fn create_keyspace(
        &self,
        request: Request<v1::CreateKeyspaceRequest>,
    ) -> Result<Response<v1::KeyspaceResponse>, Status> {
        let v1::CreateKeyspaceRequest { name, mode, .. } = request.into_inner();
        let keyspace = Some(v1::Keyspace { name, mode, ..Default::default() });
        Ok(Response::new(v1::KeyspaceResponse { keyspace }))
    }

    async fn ring(
        &self,
        _: Request<v1::RingRequest>,
    ) -> Result<Response<v1::RingResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn owners(
        &self,
        _: Request<v1::OwnersRequest>,
    ) -> Result<Response<v1::OwnersResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn plan_ring(
        &self,
        _: Request<v1::RingChange>,
    ) -> Result<Response<v1::RingPlan>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn change_ring(
        &self,
        _: Request<v1::RingChange>,
    ) -> Result<Response<v1::ChangeRingResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn transfers(
        &self,
        _: Request<v1::TransfersRequest>,
    ) -> Result<Response<v1::TransfersResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn alter_keyspace(
        &self,
        _: Request<v1::AlterKeyspaceRequest>,
    ) -> Result<Response<v1::KeyspaceResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn drop_keyspace(
        &self,
        _: Request<v1::DropKeyspaceRequest>,
    ) -> Result<Response<v1::DropKeyspaceResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn groups(
        &self,
        _: Request<v1::GroupsRequest>,
    ) -> Result<Response<v1::GroupsResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn repair(
        &self,
        _: Request<v1::RepairRequest>,
    ) -> Result<Response<v1::RepairResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}
