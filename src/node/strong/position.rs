//! How far a partition has come: where a watch of it begins.

use super::{Strong, foreign};
use crate::node::request::{RequestError, RequestOptions};
use crate::protocol::consistency::Consistency;
use crate::protocol::message::{Ask, Told};
use crate::types::{GroupId, Key, LogIndex, PartitionId};

impl Strong<'_> {
    /// An entry of the partition's log behind which all lies that is acknowledged after this call
    /// began.
    ///
    /// # Errors
    /// Any [`RequestError`] of a read.
    pub(crate) async fn position(
        &self,
        partition: PartitionId,
        options: &RequestOptions,
    ) -> Result<LogIndex, RequestError> {
        self.check_read(options)?;
        let group = GroupId::of(partition);
        // A linearizable read says at which entry it was served; no key is empty, so that it reads
        // nothing else.
        let (keyspace, key) = (self.keyspace.id, Key::default());
        let ask = Ask::Read { keyspace, key, consistency: Consistency::Linearizable };
        match self.ask(group, ask, options, true).await?.told {
            Told::Read { applied, .. } => Ok(applied),
            _ => Err(foreign(group)),
        }
    }
}
