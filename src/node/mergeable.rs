//! Counters and sets: changes to keys whose copies are joined, other than puts and deletes.

use std::iter::once;

use crate::node::keyspace_limits::cost_of;
use crate::node::request::{
    Incremented, Receipt, RequestError, RequestOptions, SetUpdate, SetUpdated,
};
use crate::node::service::Node;
use crate::node::strong::Target;
use crate::protocol::version::dvv::Siblings;
use crate::protocol::version::merging::Change;
use crate::protocol::version::{counter, set};
use crate::types::Key;

impl Node {
    /// Adds to a counter, which stands at 0 before the first addition; answers once the write
    /// quorum has it durably.
    ///
    /// # Errors
    /// Any [`RequestError`]; its outcome says what is known of the effect. One that is unknown may
    /// have been counted, and counts again when it is made again.
    pub async fn increment(
        &self,
        key: Key,
        by: i64,
        options: RequestOptions,
    ) -> Result<Incremented, RequestError> {
        let began = self.local.env.now();
        let outcome = self.change("an increment", key, Change::Add(by), &options).await;
        let outcome = outcome.map(|(row, receipt)| {
            // An addition that left the range was refused.
            let total = i64::try_from(counter::total(&row)).unwrap_or(i64::MAX);
            Incremented { total, receipt }
        });
        self.finish(&self.metrics().increment, began, outcome)
    }

    /// Puts elements into a set and takes others out; answers once the write quorum has it durably.
    ///
    /// # Errors
    /// Any [`RequestError`]; its outcome says what is known of the effect.
    pub async fn update_set(
        &self,
        key: Key,
        update: SetUpdate,
        options: RequestOptions,
    ) -> Result<SetUpdated, RequestError> {
        let began = self.local.env.now();
        let SetUpdate { add: added, remove: removed } = update;
        let change = Change::Elements { added, removed };
        let outcome = self.change("a change of a set", key, change, &options).await;
        let outcome = outcome.map(|(row, receipt)| {
            let size = set::count(&row) as u64;
            SetUpdated { size, receipt }
        });
        self.finish(&self.metrics().update_set, began, outcome)
    }

    async fn change(
        &self,
        what: &'static str,
        key: Key,
        change: Change,
        options: &RequestOptions,
    ) -> Result<(Siblings, Receipt), RequestError> {
        let attached = self.attached()?;
        let max = self.config.limits.value_bytes_max;
        self.check_size("key_bytes_max", self.config.limits.key_bytes_max, key.0.len())?;
        self.check_size("value_bytes_max", max, change.size_bytes())?;
        let find = || Target::leaderless(what, options, &attached.groups);
        let named = self.named(attached, options, find).await?;
        let (keyspace, options) = (named.found, &*named.options);
        self.admit(keyspace, once(&key), cost_of(&key, change.size_bytes()), options)?;
        attached.coordinator.change((keyspace, key), change, options).await
    }
}
