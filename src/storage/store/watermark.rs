//! The highest stamp that any row of the engine may bear, kept in the engine itself.
//!
//! It is one row in a keyspace of its own, written ahead of the rows that it bounds. Engines keep
//! a prefix of what they were fed, so whenever a row survives a crash, so does a watermark at or
//! above its stamp.

use std::slice;

use crate::storage::engine::{Change, Engine, EngineError};
use crate::storage::record_codec;
use crate::types::{Incarnation, Key, KeyspaceId, Lsn, PartitionId, Record, Timestamp, Version};

/// The keyspace of the store's own rows; keyspaces of users are numbered from 0 up.
pub(super) const RESERVED: KeyspaceId = KeyspaceId(u32::MAX);

/// The watermark of an engine: no row that it holds bears a higher stamp.
///
/// # Errors
/// Those of the engine.
pub(super) fn load(engine: &dyn Engine) -> Result<Timestamp, EngineError> {
    engine.create_keyspace(RESERVED)?;
    let key = Key::from(KEY);
    let decoded = match engine.get(RESERVED, PARTITION, &key)? {
        Some(bytes) => record_codec::decode(&key, &bytes).ok(),
        None if engine.applied_lsn() == Lsn(0) => return Ok(Timestamp(0)),
        None => None,
    };
    // Without one, nothing may be taken for newer than what the engine holds: every write is
    // compared from now on, which is slow and right.
    Ok(decoded.map_or_else(
        || {
            tracing::warn!("engine's watermark is lost; every write will be compared with it");
            Timestamp(u64::MAX)
        },
        |record| record.version.timestamp,
    ))
}

/// Notes that rows with stamps up to `watermark` are about to be fed.
///
/// # Errors
/// Those of the engine.
pub(super) fn store(engine: &dyn Engine, watermark: Timestamp) -> Result<(), EngineError> {
    let version = Version { timestamp: watermark, incarnation: Incarnation(0) };
    let key = Key::from(KEY);
    let value = Some(record_codec::encode(&key, &Record::new(version, None)));
    let change = Change { keyspace: RESERVED, partition: PARTITION, key, value };
    engine.apply(slice::from_ref(&change), engine.applied_lsn())
}

const KEY: &str = "watermark";
const PARTITION: PartitionId = PartitionId(0);
