//! What one commit is made of, and what it came to.

use std::collections::BTreeMap;

use crate::node::committer::joining::{Joined, Joining, Mint};
use crate::node::committer::meeting::Meeting;
use crate::node::committer::{Committed, ReplyTo, Submission};
use crate::protocol::message::Refusal;
use crate::storage::wal::LogRecord;
use crate::types::{PartitionId, Version};

/// What one commit makes durable, and who waits for it.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<LogRecord>,
    /// The partitions of the records that are single rows, in order.
    pub(super) partitions: Vec<PartitionId>,
    pub(super) replies: Vec<ReplyTo>,
    /// Rows that may meet what their writers had not seen.
    pub(super) meeting: Vec<Meeting>,
    /// Rows that are joined with what is here.
    pub(super) joining: Vec<Joining>,
}

/// What a commit came to, by reply.
#[derive(Default)]
pub(super) struct Outcomes {
    pub(super) met: BTreeMap<usize, Version>,
    pub(super) joined: BTreeMap<usize, Joined>,
}

impl Outcomes {
    /// What became of a reply's request.
    pub(super) fn of(&mut self, reply: usize) -> Result<Committed, Refusal> {
        let record = self.joined.remove(&reply).transpose()?;
        Ok(Committed { met: self.met.get(&reply).copied(), record })
    }
}

impl Batch {
    /// Adds a row, or a write that is to be minted into one.
    pub(super) fn add_row(&mut self, submission: Submission, mint: Option<Mint>) {
        let Submission { row, partition, reply_to, .. } = submission;
        let (record, reply) = (self.records.len(), self.replies.len());
        if row.keyspace.merge().joins() {
            self.joining.push(Joining { record, reply, mint });
        } else if let Some(seen) = reply_to.seen() {
            self.meeting.push(Meeting { record, reply, partition, seen });
        }
        self.records.push(LogRecord::Row(row));
        self.partitions.push(partition);
        self.replies.push(reply_to);
    }
}
