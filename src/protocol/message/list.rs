//! What a coordinator asks a replica for while it lists a keyspace for a client.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::message::{Refusal, RequestId};
use crate::types::{Epoch, Key, KeyspaceId, PartitionId, Record};

/// Which keys of a partition are wanted, and how many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRange {
    /// Only keys that begin with this; empty for all.
    pub prefix: Bytes,
    /// Only keys above this one.
    pub after: Option<Key>,
    /// The page ends with this many rows, deleted ones included.
    pub rows_max: u32,
    /// The page ends once its rows reach this many bytes.
    pub bytes_max: u32,
    /// Whether values are left out: every value that there is comes empty.
    pub keys_only: bool,
}

impl ListRange {
    /// Whether a key is among those that are wanted.
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&self.prefix) && self.after.as_ref().is_none_or(|after| key > after)
    }

    /// The record as it is listed.
    pub fn shown(&self, record: Record) -> Record {
        match record.value {
            Some(_) if self.keys_only => Record { value: Some(Bytes::new()), ..record },
            _ => record,
        }
    }
}

/// A replica is asked for a page of the rows that a client wants listed.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// Echoed in the reply.
    pub request: RequestId,
    /// The keyspace to list.
    pub keyspace: KeyspaceId,
    /// The partition to list.
    pub partition: PartitionId,
    /// Which of its keys.
    pub range: ListRange,
    /// The version of the ring by which the receiver was chosen.
    pub epoch: Epoch,
    /// How long the sender still waits. Counted from receipt.
    pub time_left: Duration,
}

/// The outcome of a [`List`]. A replica that may lack rows refuses.
#[derive(Clone, Debug, PartialEq)]
pub struct ListReply {
    /// The list's request id.
    pub request: RequestId,
    /// The page.
    pub outcome: Result<ListPage, Refusal>,
}

/// Rows of one partition in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The rows; those of a leaderless keyspace with the deleted ones.
    pub rows: Vec<(Key, Record)>,
    /// The key up to which these are all the rows that there are; `None` when it is the end of the
    /// range.
    pub reached: Option<Key>,
}
