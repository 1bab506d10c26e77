//! Lists the keys of one partition through its group.

use super::{Strong, foreign, not_begun};
use crate::node::groups::client::AskError;
use crate::node::request::{RequestError, RequestOptions};
use crate::protocol::message::{Ask, ListPage, ListRange, Told};
use crate::types::{GroupId, Moment, PartitionId};

impl Strong<'_> {
    /// A page of a partition, as fresh as was asked.
    ///
    /// # Errors
    /// Any [`RequestError`] of a read.
    pub(crate) async fn list(
        &self,
        partition: PartitionId,
        range: ListRange,
        options: &RequestOptions,
        deadline: Moment,
    ) -> Result<ListPage, RequestError> {
        self.check_read(options)?;
        let group = GroupId::of(partition);
        let consistency = options.consistency.unwrap_or_default();
        let range = Box::new(range);
        let ask = Ask::List { keyspace: self.keyspace.id, range, consistency };
        let began = self.client.env.now();
        let answered = self.client.ask(group, ask, deadline, true).await;
        let answered = answered.map_err(|error| match error {
            AskError::NotBegun(refusal) => not_begun(group, refusal),
            AskError::Unknown => {
                RequestError::OutcomeUnknown { group, waited_ms: self.waited_ms(began) }
            }
        })?;
        match answered.told {
            Told::Listed(page) => Ok(page),
            _ => Err(foreign(group)),
        }
    }
}
