//! What the groups of a node write to the log at once.

use crate::node::groups::incoming::ChunkWritten;
use crate::storage::wal::LogRecord;
use crate::types::{GroupId, LogIndex, ReplicaId, Revision};

/// Records of many groups that become durable by one sync.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the order in which they must be replayed.
    pub(crate) records: Vec<LogRecord>,
    /// Groups whose hard state or entries are among them: they wait for it.
    pub(crate) writers: Vec<(GroupId, ReplicaId)>,
    /// What was applied, by group: durable and published once the batch is.
    pub(crate) outcomes: Vec<Outcome>,
    /// Chunks of snapshots whose rows are among them.
    pub(crate) chunks: Vec<ChunkWritten>,
}

/// How far a group was applied when its outcome was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The group.
    pub(crate) group: GroupId,
    /// The replica that applied it: the node may run another one by now.
    pub(crate) replica: ReplicaId,
    /// The last entry applied.
    pub(crate) applied: LogIndex,
    /// The revision of that entry: no row of the outcome is newer.
    pub(crate) revision: Revision,
}

impl Batch {
    /// True when nobody waits for the batch. A chunk of a snapshot may have no rows, and its sender
    /// waits all the same.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.chunks.is_empty()
    }

    /// Adds another batch behind this one.
    pub(crate) fn append(&mut self, mut other: Batch) {
        self.records.append(&mut other.records);
        self.writers.append(&mut other.writers);
        self.outcomes.append(&mut other.outcomes);
        self.chunks.append(&mut other.chunks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::SnapshotChunk;
    use crate::types::NodeId;

    #[test]
    fn a_chunk_without_rows_is_waited_for() {
        let ids = (GroupId(1), ReplicaId(1), ReplicaId(2));
        let chunk = SnapshotChunk::new(ids, (7, 1, LogIndex(0)), Vec::new(), None);
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        batch.chunks.push(ChunkWritten { from: NodeId(1), chunk });
        assert!(!batch.is_empty());
    }
}
