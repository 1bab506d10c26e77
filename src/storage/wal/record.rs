//! What the log says: records and their bytes.
//!
//! Records are outcomes, never conditions ("this row is now so"), so replaying rows twice changes
//! nothing; those of groups are to be replayed in their order. A record is one byte of kind and
//! then what the kind prescribes, integers little-endian. Checksums are the business of the frame
//! around the records.

use bytes::{Buf, BufMut, Bytes, TryGetError};

use crate::storage::wal::group_record::GroupRecord;
use crate::types::{
    Expiry, Incarnation, Key, KeyspaceId, Lsn, PartitionId, Record, Row, Timestamp, Version,
};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRecord {
    /// A replica holds this record for this key, unless it holds a newer one.
    Row(Row),
    /// The keyspace is gone with all its rows; its id is never used again.
    DropKeyspace(KeyspaceId),
    /// What the log said of rows of a partition up to here is void: the partition has moved away.
    DropPartition(KeyspaceId, PartitionId),
    /// What applied commands came to: rows that are taken over together or not at all.
    Rows(Vec<(PartitionId, Row)>),
    /// A replica of a Raft group remembers something.
    Group(GroupRecord),
}

/// Kinds are never reused. 16 to 31 are those of [`GroupRecord`].
const KIND_ROW: u8 = 1;
const KIND_DROP_KEYSPACE: u8 = 2;
const KIND_ROWS: u8 = 3;
/// The same as the kinds above, of rows among which some expire. They read alike; but a program
/// that knows no expiry must stop at such a record by its kind.
const KIND_ROW_EXPIRING: u8 = 4;
const KIND_ROWS_EXPIRING: u8 = 5;
const KIND_DROP_PARTITION: u8 = 6;

/// Bits that tell what follows a key: a value (else it is a tombstone), and before it an expiry.
const TAG_VALUE: u8 = 1;
const TAG_EXPIRY: u8 = 2;

/// Bytes of a row besides key and value: keyspace, stamp, incarnation, key length, tag.
const ROW_FIXED_BYTES: usize = 4 + 8 + 8 + 4 + 1;
/// Bytes of an expiry, of rows that have one.
const EXPIRY_BYTES: usize = 8;
/// Bytes of a length before what it counts.
pub(super) const LENGTH_BYTES: usize = 4;
/// Bytes of a partition before its row.
const PARTITION_BYTES: usize = 2;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Written by a newer program.
    #[error("unknown kind of record {kind}")]
    UnknownKind { kind: u8 },
    /// Never written by any.
    #[error("malformed record: {reason}")]
    Malformed { reason: &'static str },
}

impl From<TryGetError> for RecordError {
    fn from(_: TryGetError) -> Self {
        RecordError::Malformed { reason: "it ends early" }
    }
}

impl LogRecord {
    /// True when a start needs the record although the engine has applied the log up to `applied`.
    /// The engine holds rows; what groups remember is in the log alone.
    pub fn is_needed_above(&self, applied: Lsn, lsn: Lsn) -> bool {
        lsn > applied || matches!(self, LogRecord::Group(_))
    }

    /// Bytes that the record takes in a frame.
    pub(super) fn encoded_bytes(&self) -> usize {
        match self {
            LogRecord::Row(row) => 1 + row_bytes(row),
            LogRecord::DropKeyspace(_) => 1 + 4,
            LogRecord::DropPartition(..) => 1 + 4 + PARTITION_BYTES,
            LogRecord::Rows(rows) => {
                let bytes = |(_, row): &(PartitionId, Row)| PARTITION_BYTES + row_bytes(row);
                1 + LENGTH_BYTES + rows.iter().map(bytes).sum::<usize>()
            }
            LogRecord::Group(record) => record.encoded_bytes(),
        }
    }

    /// Appends the record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            LogRecord::Row(row) => {
                out.put_u8(if expires(row) { KIND_ROW_EXPIRING } else { KIND_ROW });
                encode_row(row, out);
            }
            LogRecord::DropKeyspace(keyspace) => {
                out.put_u8(KIND_DROP_KEYSPACE);
                out.put_u32_le(keyspace.0);
            }
            LogRecord::DropPartition(keyspace, partition) => {
                out.put_u8(KIND_DROP_PARTITION);
                out.put_u32_le(keyspace.0);
                out.put_u16_le(partition.0);
            }
            LogRecord::Rows(rows) => {
                let any_expires = rows.iter().any(|(_, row)| expires(row));
                out.put_u8(if any_expires { KIND_ROWS_EXPIRING } else { KIND_ROWS });
                encode_rows(rows, out);
            }
            LogRecord::Group(record) => record.encode(out),
        }
    }

    /// Takes one record off the front of `bytes`.
    pub(super) fn decode(bytes: &mut &[u8]) -> Result<LogRecord, RecordError> {
        match bytes.try_get_u8()? {
            KIND_ROW | KIND_ROW_EXPIRING => decode_row(bytes).map(LogRecord::Row),
            KIND_DROP_KEYSPACE => Ok(LogRecord::DropKeyspace(KeyspaceId(bytes.try_get_u32_le()?))),
            KIND_DROP_PARTITION => {
                let keyspace = KeyspaceId(bytes.try_get_u32_le()?);
                Ok(LogRecord::DropPartition(keyspace, PartitionId(bytes.try_get_u16_le()?)))
            }
            KIND_ROWS | KIND_ROWS_EXPIRING => decode_rows(bytes).map(LogRecord::Rows),
            kind => GroupRecord::decode(kind, bytes).map(LogRecord::Group),
        }
    }
}

fn expires(row: &Row) -> bool {
    row.record.expires_at.is_some()
}

fn encode_rows(rows: &[(PartitionId, Row)], out: &mut Vec<u8>) {
    out.put_u32_le(u32::try_from(rows.len()).expect("invariant: rows fit into a segment"));
    for (partition, row) in rows {
        out.put_u16_le(partition.0);
        encode_row(row, out);
    }
}

fn decode_rows(bytes: &mut &[u8]) -> Result<Vec<(PartitionId, Row)>, RecordError> {
    let count = bytes.try_get_u32_le()?;
    (0..count).map(|_| Ok((PartitionId(bytes.try_get_u16_le()?), decode_row(bytes)?))).collect()
}

/// Bytes that [`encode_row`] appends.
pub(crate) fn row_bytes(row: &Row) -> usize {
    let value = row.record.value.as_ref().map_or(0, |value| LENGTH_BYTES + value.len());
    let expiry = row.record.expires_at.map_or(0, |_| EXPIRY_BYTES);
    ROW_FIXED_BYTES + row.key.0.len() + expiry + value
}

/// Appends a row; the hint log keeps its rows in the same form.
pub(crate) fn encode_row(row: &Row, out: &mut Vec<u8>) {
    out.put_u32_le(row.keyspace.0);
    out.put_u64_le(row.record.version.timestamp.0);
    out.put_u64_le(row.record.version.incarnation.0);
    put_bytes(row.key.as_bytes(), out);
    let Record { value, expires_at, .. } = &row.record;
    let value_tag = value.as_ref().map_or(0, |_| TAG_VALUE);
    let expiry_tag = expires_at.map_or(0, |_| TAG_EXPIRY);
    out.put_u8(value_tag | expiry_tag);
    if let Some(Expiry(end)) = expires_at {
        out.put_u64_le(*end);
    }
    if let Some(value) = value {
        put_bytes(value, out);
    }
}

/// Takes a row off the front of `bytes`.
pub(crate) fn decode_row(bytes: &mut &[u8]) -> Result<Row, RecordError> {
    let keyspace = KeyspaceId(bytes.try_get_u32_le()?);
    let version = Version {
        timestamp: Timestamp(bytes.try_get_u64_le()?),
        incarnation: Incarnation(bytes.try_get_u64_le()?),
    };
    let key = Key(take_bytes(bytes)?);
    let tag = bytes.try_get_u8()?;
    if tag & !(TAG_VALUE | TAG_EXPIRY) != 0 {
        return Err(RecordError::Malformed { reason: "neither value nor tombstone" });
    }
    let expires_at = match tag & TAG_EXPIRY {
        0 => None,
        _ => Some(Expiry(bytes.try_get_u64_le()?)),
    };
    let value = match tag & TAG_VALUE {
        0 => None,
        _ => Some(take_bytes(bytes)?),
    };
    Ok(Row { keyspace, key, record: Record { version, value, expires_at } })
}

/// Appends bytes behind their length.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("invariant: a record fits into a segment");
    out.put_u32_le(length);
    out.put_slice(bytes);
}

/// Takes bytes and their length off the front of `bytes`.
pub(super) fn take_bytes(bytes: &mut &[u8]) -> Result<Bytes, RecordError> {
    let length = bytes.try_get_u32_le()? as usize;
    let (taken, rest) =
        bytes.split_at_checked(length).ok_or(RecordError::Malformed { reason: "it ends early" })?;
    *bytes = rest;
    // A copy: a slice would keep the whole segment in memory for as long as they live.
    Ok(Bytes::copy_from_slice(taken))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::wal::group_record::tests::any_group_record;

    fn any_row() -> impl Strategy<Value = Row> {
        let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
        let key = proptest::collection::vec(any::<u8>(), 0..100);
        let end = proptest::option::of(any::<u64>().prop_map(Expiry));
        (any::<u32>(), any::<u64>(), any::<u64>(), key, value, end).prop_map(
            |(keyspace, stamp, life, key, value, end)| {
                let version =
                    Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) };
                let record = Record::new(version, value.map(Bytes::from)).expiring(end);
                Row { keyspace: KeyspaceId(keyspace), key: Key(key.into()), record }
            },
        )
    }

    fn any_record() -> impl Strategy<Value = LogRecord> {
        let placed = (any::<u16>().prop_map(PartitionId), any_row());
        prop_oneof![
            4 => any_row().prop_map(LogRecord::Row),
            2 => proptest::collection::vec(placed, 0..4).prop_map(LogRecord::Rows),
            4 => any_group_record().prop_map(LogRecord::Group),
            1 => any::<u32>().prop_map(|id| LogRecord::DropKeyspace(KeyspaceId(id))),
        ]
    }

    proptest! {
        #[test]
        fn a_record_survives_its_bytes(record in any_record(), rest in any::<[u8; 3]>()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), record.encoded_bytes());
            bytes.extend_from_slice(&rest);
            let mut left = &bytes[..];
            prop_assert_eq!(LogRecord::decode(&mut left), Ok(record));
            prop_assert_eq!(left, &rest[..]);
        }

        #[test]
        fn a_record_cut_short_is_malformed(
            record in any_record(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let cut = cut.index(bytes.len());
            let malformed = matches!(
                LogRecord::decode(&mut &bytes[..cut]),
                Err(RecordError::Malformed { .. })
            );
            prop_assert!(malformed);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = LogRecord::decode(&mut &bytes[..]);
        }
    }

    fn sample(expires_at: Option<Expiry>) -> Row {
        let version = Version { timestamp: Timestamp(2), incarnation: Incarnation(3) };
        let record = Record::new(version, Some(Bytes::from_static(b"v"))).expiring(expires_at);
        Row { keyspace: KeyspaceId(1), key: Key::from("k"), record }
    }

    #[test]
    fn rows_that_stay_are_written_as_before_there_were_expiries() {
        let mut bytes = Vec::new();
        LogRecord::Row(sample(None)).encode(&mut bytes);
        let before = [
            &[KIND_ROW, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 0, 0, 0, b'k', 1, 1, 0, 0, 0, b'v'],
        ];
        assert_eq!(bytes, before.concat());
    }

    #[test]
    fn a_program_that_knows_no_expiry_stops_at_the_kind() {
        let (stays, ends) = (sample(None), sample(Some(Expiry(9))));
        let kind = |record: LogRecord| {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            bytes[0]
        };
        let rows = |row: Row| {
            LogRecord::Rows(vec![(PartitionId(1), stays.clone()), (PartitionId(2), row)])
        };
        assert_eq!(kind(LogRecord::Row(ends.clone())), KIND_ROW_EXPIRING);
        assert_eq!(kind(rows(ends)), KIND_ROWS_EXPIRING);
        assert_eq!(kind(rows(stays.clone())), KIND_ROWS);
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let decoded = LogRecord::decode(&mut &[32, 0, 0][..]);
        assert_eq!(decoded, Err(RecordError::UnknownKind { kind: 32 }));
    }
}
