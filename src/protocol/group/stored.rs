//! What a strong keyspace holds for a key, as a record like any other.
//!
//! A record's version is the revision of its last change, with incarnation 0; its value is eight
//! bytes of the revision that created it, little-endian, and then the user's bytes. A key that was
//! deleted has a tombstone, as in a `quorum` keyspace.

use bytes::{Buf, BufMut, Bytes};

use crate::protocol::group::codec::DecodeError;
use crate::types::{Expiry, Key, KeyspaceId, Record, Revision, Version};

/// A value, or what is left of one, with the revisions that made it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The first write since the key was absent; of a tombstone, the delete itself.
    pub created: Revision,
    /// The last change.
    pub modified: Revision,
    /// The value; `None` when it was deleted.
    pub value: Option<Bytes>,
}

/// Why a record is none of a strong keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// A record that a leaderless write made.
    #[error("the record's version {version} is no revision: its incarnation is not 0")]
    NotARevision {
        /// The record's version.
        version: Version,
    },
    /// Nothing expires in a strong keyspace.
    #[error("the record ends at {} ms, and nothing does in a strong keyspace", expires_at.0)]
    Expires {
        /// The end that it claims.
        expires_at: Expiry,
    },
    /// No room for the revision that created it.
    #[error("the record's value has {bytes} bytes; the revision that created it takes 8")]
    TooShort {
        /// Bytes that the value has.
        bytes: usize,
    },
    /// The future cannot have created it.
    #[error("the record was created at {created}, which is after its change at {modified}")]
    CreatedAfterModified {
        /// The creation that it claims.
        created: Revision,
        /// Its change.
        modified: Revision,
    },
}

/// Why a row does not tell what a machine keeps of itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A row of something else.
    #[error("key {key:?} of keyspace {} is no row of {what}", keyspace.0)]
    Misplaced {
        /// What was to be read.
        what: &'static str,
        /// The row's keyspace.
        keyspace: KeyspaceId,
        /// The row's key.
        key: Key,
    },
    /// Not even a row of a machine.
    #[error("the row of {what} is damaged: {source}")]
    Record {
        /// What was to be read.
        what: &'static str,
        /// What is wrong.
        source: StoredError,
    },
    /// Its bytes say something else.
    #[error("the row of {what} cannot be read: {source}")]
    Value {
        /// What was to be read.
        what: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
}

const CREATED_BYTES: usize = 8;

impl Stored {
    /// The record that replicas keep.
    pub fn to_record(&self) -> Record {
        let value = self.value.as_ref().map(|value| {
            let mut bytes = Vec::with_capacity(CREATED_BYTES + value.len());
            bytes.put_u64_le(self.created.0);
            bytes.put_slice(value);
            Bytes::from(bytes)
        });
        Record::new(self.modified.into(), value)
    }

    /// Reads a record; its value is shared, not copied.
    ///
    /// # Errors
    /// [`StoredError`] for a record that no machine made.
    pub fn from_record(record: &Record) -> Result<Stored, StoredError> {
        let modified = Revision::of(record.version)
            .ok_or(StoredError::NotARevision { version: record.version })?;
        if let Some(expires_at) = record.expires_at {
            return Err(StoredError::Expires { expires_at });
        }
        let Some(whole) = &record.value else {
            return Ok(Stored { created: modified, modified, value: None });
        };
        let mut value = whole.clone();
        let created = value.try_get_u64_le().map(Revision);
        let created = created.map_err(|_| StoredError::TooShort { bytes: whole.len() })?;
        if created > modified {
            return Err(StoredError::CreatedAfterModified { created, modified });
        }
        Ok(Stored { created, modified, value: Some(value) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Incarnation, Timestamp};

    proptest! {
        #[test]
        fn what_is_stored_survives_its_record(
            created in any::<u64>(),
            later in any::<u64>(),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
        ) {
            let modified = Revision(created.saturating_add(later));
            let created = if value.is_some() { Revision(created) } else { modified };
            let stored = Stored { created, modified, value: value.map(Bytes::from) };
            prop_assert_eq!(Stored::from_record(&stored.to_record()), Ok(stored));
        }
    }

    #[test]
    fn a_record_of_another_kind_is_refused_with_its_reason() {
        let version = Version { timestamp: Timestamp(5), incarnation: Incarnation(0) };
        let with_value = |bytes: Vec<u8>| Record::new(version, Some(bytes.into()));
        let foreign = Record::new(Version { incarnation: Incarnation(3), ..version }, None);
        let cases = [
            (foreign.clone(), StoredError::NotARevision { version: foreign.version }),
            (
                with_value(vec![0; 8]).expiring(Some(Expiry(9))),
                StoredError::Expires { expires_at: Expiry(9) },
            ),
            (with_value(vec![1, 2, 3]), StoredError::TooShort { bytes: 3 }),
            (
                with_value(vec![6, 0, 0, 0, 0, 0, 0, 0]),
                StoredError::CreatedAfterModified { created: Revision(6), modified: Revision(5) },
            ),
        ];
        for (record, error) in cases {
            assert_eq!(Stored::from_record(&record), Err(error));
        }
    }
}
