//! The calls that counters and sets have of their own.

use tonic::{Request, Response, Status};

use crate::api::convert::strong as convert_strong;
use crate::api::convert::{self, elements};
use crate::api::kv::KvService;
use crate::node::request::{Incremented, RequestOptions, SetUpdate, SetUpdated};
use crate::proto::v1;

impl KvService {
    pub(super) async fn serve_increment(
        &self,
        request: Request<v1::IncrementRequest>,
    ) -> Result<Response<v1::IncrementResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let v1::IncrementRequest { key, by, level, w, sloppy, context, keyspace } =
            request.into_inner();
        let options = convert::write_options(level, w, sloppy, &context, timeout)?;
        let options = RequestOptions { keyspace: convert_strong::keyspace(keyspace), ..options };
        let counter = convert::key(key.clone())?;
        let done = self.node.increment(counter, convert::added(by), options).await?;
        let Incremented { total, receipt } = done;
        let receipt = Some(convert::receipt(&receipt));
        Ok(Response::new(v1::IncrementResponse { key, total, receipt }))
    }

    pub(super) async fn serve_update_set(
        &self,
        request: Request<v1::UpdateSetRequest>,
    ) -> Result<Response<v1::UpdateSetResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let v1::UpdateSetRequest { key, add, remove, level, w, sloppy, context, keyspace } =
            request.into_inner();
        let options = convert::write_options(level, w, sloppy, &context, timeout)?;
        let options = RequestOptions { keyspace: convert_strong::keyspace(keyspace), ..options };
        let update: SetUpdate = elements(add, remove, self.node.limits())?;
        let done = self.node.update_set(convert::key(key.clone())?, update, options).await?;
        let SetUpdated { size, receipt } = done;
        let receipt = Some(convert::receipt(&receipt));
        Ok(Response::new(v1::UpdateSetResponse { key, size, receipt }))
    }
}
