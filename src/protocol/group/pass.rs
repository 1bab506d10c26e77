//! The outcome of several entries at once: one record of the log instead of one for each.
//!
//! Of a key that several entries of a pass changed only the last row is written: that of a session,
//! which every command of its client writes anew, would else be most of the record.

use std::collections::BTreeMap;

use crate::types::{Key, KeyspaceId, Record, Row};

/// What the entries of a pass have changed so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    records: BTreeMap<(KeyspaceId, Key), Record>,
}

impl Pass {
    /// A pass without entries.
    pub fn new() -> Pass {
        Pass::default()
    }

    /// Whether no entry has changed a row.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Takes the rows of the next entry.
    pub fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        let records = rows.into_iter().map(|row| ((row.keyspace, row.key), row.record));
        self.records.extend(records);
    }

    /// The rows to write as one record: what changed, each key once, and last the machine's applied
    /// row as it is now.
    pub fn finish(self, applied_row: Row) -> Vec<Row> {
        let records = self.records.into_iter();
        let rows = records.map(|((keyspace, key), record)| Row { keyspace, key, record });
        rows.chain([applied_row]).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::group::applied::AppliedState;
    use crate::types::{Revision, Version};

    fn row(keyspace: u32, key: &str, revision: u64) -> Row {
        let value = Some(Bytes::from(revision.to_string()));
        let record = Record::new(Version::from(Revision(revision)), value);
        Row { keyspace: KeyspaceId(keyspace), key: Key::from(key), record }
    }

    #[test]
    fn each_key_is_written_once_as_the_last_entry_left_it() {
        let mut pass = Pass::new();
        pass.add([row(1, "a", 4), row(1, "b", 4)]);
        pass.add([]);
        pass.add([row(2, "a", 6), row(1, "a", 6)]);
        assert!(!pass.is_empty());
        let applied = AppliedState { revision: Revision(7), ..AppliedState::default() }.to_row();
        let expected = [row(1, "a", 6), row(1, "b", 4), row(2, "a", 6), applied.clone()];
        assert_eq!(pass.finish(applied), expected);
    }

    #[test]
    fn entries_without_rows_leave_the_applied_row_alone() {
        let mut pass = Pass::new();
        pass.add([]);
        assert!(pass.is_empty());
        let applied = AppliedState::default().to_row();
        assert_eq!(pass.finish(applied.clone()), [applied]);
    }
}
