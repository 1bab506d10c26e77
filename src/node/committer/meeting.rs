//! What rows of a commit meet that their writers had not seen.
//!
//! Only rows whose writers gave a context are looked up, before any row of the commit is visible:
//! commits follow one another, so each row meets exactly what the rows
//! before it left. A row that cannot be read counts as none.

use std::collections::BTreeMap;

use crate::protocol::version::unseen::unseen;
use crate::storage::store::Store;
use crate::storage::wal::LogRecord;
use crate::types::{Key, KeyspaceId, PartitionId, Version};

/// A row of a commit whose writer told what it had seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meeting {
    /// Which record it is.
    pub(super) record: usize,
    /// Which of the replies tells.
    pub(super) reply: usize,
    pub(super) partition: PartitionId,
    pub(super) seen: Version,
}

/// The versions that these rows met and their writers had not seen, by reply.
pub(super) fn versions_met(
    store: &Store,
    records: &[LogRecord],
    meeting: &[Meeting],
) -> BTreeMap<usize, Version> {
    let mut met = BTreeMap::new();
    let mut before: BTreeMap<(KeyspaceId, &Key), Version> = BTreeMap::new();
    let mut waiting = meeting.iter().peekable();
    for (at, record) in records.iter().enumerate() {
        if waiting.peek().is_none() {
            break;
        }
        let LogRecord::Row(row) = record else { continue };
        let (key, version) = ((row.keyspace, &row.key), row.record.version);
        if let Some(meeting) = waiting.next_if(|meeting| meeting.record == at) {
            let stored = store.read(row.keyspace, meeting.partition, &row.key).ok().flatten();
            let held = stored.map(|record| record.version).max(before.get(&key).copied());
            met.extend(unseen(version, meeting.seen, held).map(|it| (meeting.reply, it)));
        }
        let known = before.entry(key).or_insert(version);
        *known = version.max(*known);
    }
    met
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::storage::memory::{MemoryDisk, MemoryEngine};
    use crate::types::{Incarnation, Lsn, Moment, Record, Row, Timestamp};

    const PARTITION: PartitionId = PartitionId(0);

    fn version(stamp: u64) -> Version {
        Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) }
    }

    fn row(key: &str, stamp: u64) -> Row {
        let record = Record::new(version(stamp), Some(Bytes::from_static(b"v")));
        Row { keyspace: KeyspaceId::DEFAULT, key: Key::from(key), record }
    }

    fn store(rows: Vec<Row>) -> Store {
        let engine = MemoryEngine::open(MemoryDisk::new());
        let store = Store::new(Arc::new(engine)).expect("a store");
        store.create_keyspace(KeyspaceId::DEFAULT).expect("a keyspace");
        store.publish(Lsn(1), rows.into_iter().map(|row| (PARTITION, row)), Moment(0));
        store
    }

    /// Rows of a commit: key, stamp, and what the writer had seen, if it told.
    fn met(store: &Store, commit: &[(&str, u64, Option<u64>)]) -> Vec<(usize, Version)> {
        let records: Vec<LogRecord> =
            commit.iter().map(|(key, stamp, _)| LogRecord::Row(row(key, *stamp))).collect();
        let told = commit.iter().enumerate().filter_map(|(at, (_, _, seen))| {
            let (reply, partition) = (at + 10, PARTITION);
            Some(Meeting { record: at, reply, partition, seen: version((*seen)?) })
        });
        let told: Vec<Meeting> = told.collect();
        versions_met(store, &records, &told).into_iter().collect()
    }

    #[test]
    fn a_row_meets_what_the_store_holds() {
        let store = store(vec![row("a", 5)]);
        assert_eq!(met(&store, &[("a", 9, Some(5))]), []);
        assert_eq!(met(&store, &[("a", 9, Some(4))]), [(10, version(5))]);
        assert_eq!(met(&store, &[("a", 3, Some(2))]), [(10, version(5))]);
        assert_eq!(met(&store, &[("b", 9, Some(4))]), []);
        assert_eq!(met(&store, &[("a", 5, Some(4))]), [], "its own repetition");
        assert_eq!(met(&store, &[("a", 9, None)]), [], "its writer told nothing");
    }

    #[test]
    fn a_row_meets_the_rows_before_it_in_its_commit_and_none_behind_it() {
        let store = store(vec![row("a", 5)]);
        let both = [("a", 8, Some(5)), ("b", 1, None), ("a", 9, Some(5))];
        assert_eq!(met(&store, &both), [(12, version(8))]);
        let silent = [("a", 8, None), ("a", 7, Some(5))];
        assert_eq!(met(&store, &silent), [(11, version(8))]);
    }
}
