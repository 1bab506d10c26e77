//! Transactions: several steps on keys of one partition, all or none.

use std::time::Duration;

use bytes::Bytes;

use crate::client::condition::Condition;
use crate::client::error::ClientError;
use crate::client::keyspace::{Errand, Keyspace, Kind, awaitable};
use crate::client::receipt::{StepResult, Transacted};
use crate::proto::v1;
use crate::proto::v1::step::Action;

/// Steps that happen together or not at all, in their order; see [`Keyspace::transact`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Transaction {
    keyspace: Keyspace,
    steps: Vec<v1::Step>,
    timeout: Option<Duration>,
}

impl Transaction {
    pub(crate) fn new(keyspace: Keyspace) -> Transaction {
        Transaction { keyspace, steps: Vec::new(), timeout: None }
    }

    /// Writes a value.
    pub fn put(self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.step(key, Action::Put(value.into()))
    }

    /// Adds to the end of a value.
    pub fn append(self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.step(key, Action::Append(value.into()))
    }

    /// Deletes a key.
    pub fn delete(self, key: impl Into<String>) -> Self {
        self.step(key, Action::Delete(true))
    }

    /// Refuses the whole transaction unless the key is so when this step's turn comes.
    pub fn check(self, key: impl Into<String>, condition: Condition) -> Self {
        self.step(key, Action::Check(condition.into()))
    }

    /// How long the call may take, all attempts and rests included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn step(mut self, key: impl Into<String>, action: Action) -> Self {
        self.steps.push(v1::Step { key: key.into(), action: Some(action) });
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// [`ClientError::ConditionFailed`] with the step and what its key holds, when a check fails;
    /// any other [`ClientError`], whose outcome says what is known of the effect.
    pub async fn send(self) -> Result<Transacted, ClientError> {
        let Some(key) = self.steps.first().map(|step| step.key.clone()) else {
            return Err(ClientError::invalid("steps", "a transaction has at least one step"));
        };
        let errand = Errand { kind: Kind::Write { idempotent: false }, timeout: self.timeout };
        let keyspace = self.keyspace.name().to_owned();
        let request = v1::TransactRequest { keyspace, steps: self.steps, session: None };
        let answer = self.keyspace.call(request, &key, errand).await?;
        let result = |step: v1::StepResult| StepResult {
            existed: step.existed,
            value_bytes: step.value_bytes,
        };
        let results = answer.results.into_iter().map(result).collect();
        Ok(Transacted { results, receipt: answer.receipt.into() })
    }
}

awaitable! {
    Transaction => Transacted;
}
