//! The calls that only strong keyspaces have: each becomes a transaction.

use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::api::batch;
use crate::api::convert::{self, invalid, strong};
use crate::api::kv::KvService;
use crate::node::request::{RequestOptions, Transacted, Transaction};
use crate::proto::v1;
use crate::protocol::group::command::Action;
use crate::types::Key;

impl KvService {
    pub(super) async fn serve_append(
        &self,
        request: Request<v1::AppendRequest>,
    ) -> Result<Response<v1::AppendResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let asked = request.into_inner();
        let v1::AppendRequest { keyspace, session, condition, .. } = asked;
        let options = strong::write(within(timeout), keyspace, session, condition)?;
        let key = convert::key(asked.key.clone())?;
        let action = Action::Append(convert::value(asked.data)?);
        let Transacted { results, receipt } = self.do_steps(vec![(key, action)], options).await?;
        let reply = v1::AppendResponse {
            key: asked.key,
            // The step stands last, behind its condition.
            value_bytes: results.last().map_or(0, |result| result.value_bytes),
            receipt: Some(convert::receipt(&receipt)),
        };
        Ok(self.reply(receipt.leader, reply))
    }

    pub(super) async fn serve_compare_and_set(
        &self,
        request: Request<v1::CompareAndSetRequest>,
    ) -> Result<Response<v1::CompareAndSetResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let v1::CompareAndSetRequest { key, expect, data, keyspace, session } =
            request.into_inner();
        let options = strong::write(within(timeout), keyspace, session, None)?;
        let missing = || invalid("expect", "is absent; without a condition, use Put or Delete");
        let expect = strong::expect(expect.ok_or_else(missing)?)?;
        let action = Action::CompareAndSet { expect, then: data.map(Into::into) };
        let steps = vec![(convert::key(key.clone())?, action)];
        let receipt = self.do_steps(steps, options).await?.receipt;
        let told = Some(convert::receipt(&receipt));
        Ok(self.reply(receipt.leader, v1::CompareAndSetResponse { key, receipt: told }))
    }

    pub(super) async fn serve_transact(
        &self,
        request: Request<v1::TransactRequest>,
    ) -> Result<Response<v1::TransactResponse>, Status> {
        let timeout = self.timeout(&request)?;
        let v1::TransactRequest { keyspace, steps, session } = request.into_inner();
        batch::admit("steps", steps.len(), self.node.limits())?;
        let options = strong::write(within(timeout), keyspace, session, None)?;
        let steps = strong::transaction(steps)?.steps;
        let Transacted { results, receipt } = self.do_steps(steps, options).await?;
        let results = strong::results(&results);
        let told = Some(convert::receipt(&receipt));
        Ok(self.reply(receipt.leader, v1::TransactResponse { results, receipt: told }))
    }

    async fn do_steps(
        &self,
        steps: Vec<(Key, Action)>,
        options: RequestOptions,
    ) -> Result<Transacted, Status> {
        let first = steps.first().map(|(key, _)| key.clone());
        let done = self.node.transact(Transaction { steps }, options).await;
        done.map_err(|error| match &first {
            Some(key) => self.refuse(key, error),
            None => error.into(),
        })
    }
}

fn within(timeout: Option<Duration>) -> RequestOptions {
    RequestOptions { timeout, ..RequestOptions::default() }
}
