//! The gRPC data service: each call is translated, served by the node, and translated back.

mod listing;
mod mergeable;
mod strong;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Request, Response, Status};

use crate::api::batch::{self, ReplyBudget};
use crate::api::convert::strong as convert_strong;
use crate::api::{convert, error, leader};
use crate::node::request::{Outcome, ReadAnswer, Receipt, RequestError, RequestOptions};
use crate::node::service::Node;
use crate::proto::v1;
use crate::proto::v1::kv_server::Kv;
use crate::types::{Key, NodeId};

/// Serves `coterie.v1.Kv` from a node.
pub(crate) struct KvService {
    node: Arc<Node>,
}

impl KvService {
    /// Serves from this node.
    pub(crate) fn new(node: Arc<Node>) -> Self {
        KvService { node }
    }

    fn timeout<T>(&self, request: &Request<T>) -> Result<Option<Duration>, RequestError> {
        convert::timeout(request.metadata(), self.node.limits())
    }

    fn batch_time(&self, options: &RequestOptions) -> Duration {
        options.timeout.unwrap_or(self.node.limits().request_timeout)
    }

    /// A reply that names the leader of what was asked, if it has one.
    fn reply<T>(&self, leader: Option<NodeId>, reply: T) -> Response<T> {
        let mut response = Response::new(reply);
        name_leader(response.metadata_mut(), leader::address(&self.node, leader));
        response
    }

    /// The status of an error, which names the leader that the request should have gone to.
    fn refuse(&self, key: &Key, error: RequestError) -> Status {
        let address = leader::after(&self.node, key, &error);
        let mut status = Status::from(error);
        name_leader(status.metadata_mut(), address);
        status
    }

    fn key_not_found(&self, key: &str, receipt: &Receipt) -> Status {
        let mut status = error::key_not_found(key, receipt);
        name_leader(status.metadata_mut(), leader::address(&self.node, receipt.leader));
        status
    }

    async fn get_one(&self, key: String, options: &RequestOptions) -> Read {
        self.node.get(convert::key(key)?, options.clone()).await
    }

    async fn get_item(
        &self,
        key: String,
        options: &RequestOptions,
        budget: &ReplyBudget,
    ) -> v1::BatchGetResult {
        let outcome = match budget.check() {
            Ok(()) => self.get_one(key.clone(), options).await,
            Err(full) => Err(full),
        };
        budget.admit(batch::get_result(key, outcome.map_err(|error| error::batch_error(&error))))
    }

    async fn put_item(
        &self,
        item: v1::BatchPutItem,
        options: &RequestOptions,
    ) -> v1::BatchPutResult {
        let key = item.key.clone();
        let outcome = async {
            let (key, value) = (convert::key(item.key)?, convert::value(item.data)?);
            let options = convert::with_ttl(options.clone(), item.ttl_ms);
            self.node.put(key, value, options).await
        };
        batch::put_result(key, outcome.await.map_err(|error| error::batch_error(&error)))
    }
}

fn name_leader(metadata: &mut MetadataMap, address: Option<SocketAddr>) {
    let value = address.and_then(|at| AsciiMetadataValue::try_from(at.to_string()).ok());
    if let Some(value) = value {
        metadata.insert(leader::LEADER, value);
    }
}

type Read = Result<ReadAnswer, RequestError>;

#[tonic::async_trait]
impl Kv for KvService {
    async fn put(
        &self,
        request: Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let asked = request.into_inner();
        let options =
            convert::write_options(asked.level, asked.w, asked.sloppy, &asked.context, timeout)?;
        let options =
            convert_strong::write(options, asked.keyspace, asked.session, asked.condition)?;
        let options = convert::with_ttl(options, asked.ttl_ms);
        let value = convert::value(asked.data)?;
        let key = convert::key(asked.key.clone())?;
        let written = self.node.put(key.clone(), value, options).await;
        let receipt = written.map_err(|error| self.refuse(&key, error))?;
        let reply = v1::PutResponse { key: asked.key, receipt: Some(convert::receipt(&receipt)) };
        Ok(self.reply(receipt.leader, reply))
    }

    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let asked = request.into_inner();
        let options = convert::read_options(asked.level, asked.r, &asked.context, timeout)?;
        let v1::GetRequest { keyspace, consistency, max_staleness_ms, .. } = asked;
        let options = convert_strong::read(options, keyspace, consistency, max_staleness_ms)?;
        let options = RequestOptions { one: asked.one, ..options };
        let key = convert::key(asked.key.clone())?;
        let read = self.node.get(key.clone(), options).await;
        let read = read.map_err(|error| self.refuse(&key, error))?;
        let ReadAnswer { value, siblings, elements, receipt } = read;
        let missing = || self.key_not_found(&asked.key, &receipt);
        let value = value.ok_or_else(missing)?;
        let data = Some(convert::get_data(value));
        let told = Some(convert::receipt(&receipt));
        let siblings = siblings.into_iter().map(convert::sibling).collect();
        let reply = v1::GetResponse { key: asked.key, data, receipt: told, siblings, elements };
        Ok(self.reply(receipt.leader, reply))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let asked = request.into_inner();
        let options =
            convert::write_options(asked.level, asked.w, asked.sloppy, &asked.context, timeout)?;
        let options =
            convert_strong::write(options, asked.keyspace, asked.session, asked.condition)?;
        let key = convert::key(asked.key.clone())?;
        let deleted = self.node.delete(key.clone(), options).await;
        let receipt = deleted.map_err(|error| self.refuse(&key, error))?;
        let told = Some(convert::receipt(&receipt));
        Ok(self.reply(receipt.leader, v1::DeleteResponse { key: asked.key, receipt: told }))
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let v1::BatchGetRequest { keys, level, r, keyspace } = request.into_inner();
        batch::admit("keys", keys.len(), self.node.limits())?;
        let options = convert::read_options(level, r, "", timeout)?;
        let options = RequestOptions { keyspace: convert_strong::keyspace(keyspace), ..options };
        let budget = ReplyBudget::new(self.node.limits());
        let start = |key| self.get_item(key, &options, &budget);
        let slots = batch::run(keys.clone(), self.batch_time(&options), start).await;
        let finish = |(key, slot): (String, batch::Slot<_>)| {
            // A read changes nothing, so one that was cut off has failed for certain.
            slot.finished(Outcome::Failed).unwrap_or_else(|late| batch::get_result(key, Err(late)))
        };
        let results = keys.into_iter().zip(slots).map(finish).collect();
        Ok(Response::new(v1::BatchGetResponse { results }))
    }

    async fn batch_put(
        &self,
        request: Request<v1::BatchPutRequest>,
    ) -> Result<Response<v1::BatchPutResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let v1::BatchPutRequest { items, level, w, sloppy, keyspace } = request.into_inner();
        batch::admit("items", items.len(), self.node.limits())?;
        let options = convert::write_options(level, w, sloppy, "", timeout)?;
        let options = RequestOptions { keyspace: convert_strong::keyspace(keyspace), ..options };
        let keys: Vec<String> = items.iter().map(|item| item.key.clone()).collect();
        let start = |item| self.put_item(item, &options);
        let slots = batch::run(items, self.batch_time(&options), start).await;
        let finish = |(key, slot): (String, batch::Slot<_>)| {
            slot.finished(Outcome::Unknown).unwrap_or_else(|late| batch::put_result(key, Err(late)))
        };
        let results = keys.into_iter().zip(slots).map(finish).collect();
        Ok(Response::new(v1::BatchPutResponse { results }))
    }

    type ScanStream = listing::Pages;

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        self.serve_list(request).await
    }

    async fn scan(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<listing::Pages>, Status> {
        self.serve_scan(request)
    }

    type WatchStream = watch::Messages;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<watch::Messages>, Status> {
        self.serve_watch(request).await
    }

    async fn increment(
        &self,
        request: Request<v1::IncrementRequest>,
    ) -> Result<Response<v1::IncrementResponse>, Status> {
        self.serve_increment(request).await
    }

    async fn update_set(
        &self,
        request: Request<v1::UpdateSetRequest>,
    ) -> Result<Response<v1::UpdateSetResponse>, Status> {
        self.serve_update_set(request).await
    }

    async fn append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        self.serve_append(request).await
    }

    async fn compare_and_set(
        &self,
        request: Request<v1::CompareAndSetRequest>,
    ) -> Result<Response<v1::CompareAndSetResponse>, Status> {
        self.serve_compare_and_set(request).await
    }

    async fn transact(
        &self,
        request: Request<v1::TransactRequest>,
    ) -> Result<Response<v1::TransactResponse>, Status> {
        self.serve_transact(request).await
    }
}
