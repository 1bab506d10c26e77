//! The standard gRPC health service (`grpc.health.v1`), answered by the node itself.
//!
//! The server as a whole (the empty name), `coterie.v1.Kv` and `coterie.v1.Admin` are known. The
//! data service serves while the node does; the operators' one always, since it is how one learns
//! why the node does not serve. The library's own reporter would have to be told of every change;
//! asking the node leaves no moment at which the answer is old.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::api::admin::AdminService;
use crate::api::kv::KvService;
use crate::node::service::Node;
use crate::proto::v1::admin_server::AdminServer;
use crate::proto::v1::kv_server::KvServer;

/// How often a watched status is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Serves `grpc.health.v1.Health` for a node.
pub(crate) struct HealthService {
    node: Arc<Node>,
}

impl HealthService {
    /// Serves for this node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        HealthService { node }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match status_of(&service, self.node.serving().ready) {
            ServingStatus::ServiceUnknown => {
                Err(Status::not_found(format!("no service is named {service:?}")))
            }
            status => Ok(Response::new(response(status))),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let node = Arc::clone(&self.node);
        let service = request.into_inner().service;
        let look = move || status_of(&service, node.serving().ready);
        let changes = stream::unfold((None, look), |(last, look)| async move {
            let status = next_change(last, &look).await;
            Some((Ok(response(status)), (Some(status), look)))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

/// Resolves to the first status that differs from the last one told; at once if none was.
async fn next_change(
    last: Option<ServingStatus>,
    look: impl Fn() -> ServingStatus,
) -> ServingStatus {
    loop {
        let status = look();
        if Some(status) != last {
            return status;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn status_of(service: &str, ready: bool) -> ServingStatus {
    match service {
        "" | <KvServer<KvService> as NamedService>::NAME if ready => ServingStatus::Serving,
        "" | <KvServer<KvService> as NamedService>::NAME => ServingStatus::NotServing,
        <AdminServer<AdminService> as NamedService>::NAME => ServingStatus::Serving,
        _ => ServingStatus::ServiceUnknown,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_data_service_follows_the_node_and_the_operators_one_does_not() {
        use ServingStatus::{NotServing, ServiceUnknown, Serving};
        let cases = [
            ("", Serving, NotServing),
            ("coterie.v1.Kv", Serving, NotServing),
            ("coterie.v1.Admin", Serving, Serving),
            ("coterie.v1.Nope", ServiceUnknown, ServiceUnknown),
        ];
        for (service, ready, not_ready) in cases {
            assert_eq!(status_of(service, true), ready, "{service}");
            assert_eq!(status_of(service, false), not_ready, "{service}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_tells_the_first_status_and_then_only_changes() {
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            status_of("", looks.get() > 5)
        };
        assert_eq!(next_change(None, look).await, ServingStatus::NotServing);
        assert_eq!(
            next_change(Some(ServingStatus::NotServing), look).await,
            ServingStatus::Serving
        );
        assert_eq!(looks.get(), 6);
    }
}
