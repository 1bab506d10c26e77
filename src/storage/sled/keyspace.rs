//! One keyspace's two trees: its rows, and the chunks of values too large for a row.
//!
//! A large value is written chunks first, then the manifest that names them, then the old chunks
//! go. sled recovers a prefix of its log, so a crash between leaves the old value or the new one,
//! and at most one value's chunks that no manifest names; these go when the key is next given or
//! loses a large value, or with its partition. A reader that loses the race against an overwrite
//! finds a chunk missing and starts again from the row.

use std::sync::atomic::{AtomicU64, Ordering};

use ::sled::{IVec, Tree};
use bytes::{Bytes, BytesMut};

use super::failure::During;
use super::layout::{self, CHUNK_BYTES, Manifest, Stored};
use crate::storage::engine::{EngineError, Page};
use crate::types::{Key, PartitionId};

/// The trees of a keyspace.
#[derive(Clone)]
pub(super) struct Keyspace {
    /// Row key to tagged value or manifest.
    pub(super) rows: Tree,
    /// Chunk key to a piece of a value.
    pub(super) chunks: Tree,
}

/// What writing reuses from row to row.
pub(super) struct Scratch<'a> {
    key: Vec<u8>,
    value: Vec<u8>,
    next_generation: &'a AtomicU64,
}

impl<'a> Scratch<'a> {
    /// Empty buffers, and the engine's counter of large values.
    pub(super) fn new(next_generation: &'a AtomicU64) -> Self {
        Scratch { key: Vec::new(), value: Vec::new(), next_generation }
    }
}

impl Keyspace {
    /// Stores a value, or removes the row.
    pub(super) fn write(
        &self,
        partition: PartitionId,
        key: &Key,
        value: Option<&Bytes>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), EngineError> {
        layout::write_row_key(&mut scratch.key, partition, key);
        match value {
            None => self.remove(&scratch.key),
            Some(value) if value.len() > CHUNK_BYTES => {
                let generation = scratch.next_generation.fetch_add(1, Ordering::Relaxed);
                self.write_chunked(&scratch.key, value, generation)
            }
            Some(value) => {
                layout::write_inline(&mut scratch.value, value);
                let old = self.rows.insert(&scratch.key, scratch.value.as_slice());
                self.forget_chunks_of(&scratch.key, old.during("stored a row")?)
            }
        }
    }

    /// Removes a row by its key in the tree.
    pub(super) fn remove(&self, row_key: &[u8]) -> Result<(), EngineError> {
        let old = self.rows.remove(row_key).during("removed a row")?;
        self.forget_chunks_of(row_key, old)
    }

    /// The value of a row by its key in the tree.
    pub(super) fn get(&self, row_key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let mut missing = None;
        while let Some(stored) = self.rows.get(row_key).during("read a row")? {
            let manifest = match read(stored, row_key)? {
                Stored::Inline(value) => return Ok(Some(value)),
                Stored::Chunked(manifest) => manifest,
            };
            if let Some(value) = self.assemble(row_key, manifest)? {
                return Ok(Some(value));
            }
            // The same manifest twice: its chunks were not replaced, they are gone.
            if missing.replace(manifest.generation) == Some(manifest.generation) {
                let detail = format!("row {row_key:02x?} lacks chunks of {manifest:?}");
                return Err(EngineError::Damaged { detail });
            }
        }
        Ok(None)
    }

    /// Rows of a partition above `after`; ends early once their values reach a limit.
    pub(super) fn scan(
        &self,
        partition: PartitionId,
        after: Option<&Key>,
        rows_max: usize,
    ) -> Result<Page, EngineError> {
        let mut page = Page::default();
        let mut bytes = 0;
        for row in self.rows.range(layout::range(partition, after)) {
            if page.rows.len() >= rows_max.max(1) || bytes >= PAGE_BYTES_MAX {
                return Ok(page);
            }
            let (row_key, stored) = row.during("scanned a partition")?;
            let value = match read(stored, &row_key)? {
                Stored::Inline(value) => Some(value),
                Stored::Chunked(_) => self.get(&row_key)?,
            };
            if let Some(value) = value {
                bytes += value.len();
                page.rows.push((layout::user_key(&row_key), value));
            }
        }
        page.done = true;
        Ok(page)
    }

    /// Removes up to `rows_max` rows of a partition, then as many chunks that no row names.
    pub(super) fn delete_partition(
        &self,
        partition: PartitionId,
        rows_max: usize,
    ) -> Result<bool, EngineError> {
        for row in self.rows.range(layout::range(partition, None)).keys().take(rows_max) {
            self.remove(&row.during("scanned a partition")?)?;
        }
        if !self.is_partition_empty(&self.rows, partition)? {
            return Ok(false);
        }
        for chunk in self.chunks.range(layout::range(partition, None)).keys().take(rows_max) {
            self.chunks.remove(chunk.during("scanned chunks")?).during("removed a chunk")?;
        }
        self.is_partition_empty(&self.chunks, partition)
    }

    fn is_partition_empty(&self, tree: &Tree, part: PartitionId) -> Result<bool, EngineError> {
        let first = tree.range(layout::range(part, None)).next().transpose();
        Ok(first.during("scanned a partition")?.is_none())
    }

    fn write_chunked(
        &self,
        row_key: &[u8],
        value: &[u8],
        generation: u64,
    ) -> Result<(), EngineError> {
        let prefix = layout::chunk_prefix(row_key);
        for (index, chunk) in (0..).zip(value.chunks(CHUNK_BYTES)) {
            let key = layout::chunk_key(&prefix, generation, index);
            self.chunks.insert(key, chunk).during("stored a chunk")?;
        }
        let manifest = Manifest { generation, len: value.len() as u64 };
        self.rows.insert(row_key, manifest.stored()).during("stored a manifest")?;
        self.remove_chunks(row_key, Some(generation))
    }

    /// What a row held before it was replaced may have named chunks.
    fn forget_chunks_of(&self, row_key: &[u8], old: Option<IVec>) -> Result<(), EngineError> {
        match old.as_deref().and_then(Manifest::read) {
            Some(_) => self.remove_chunks(row_key, None),
            None => Ok(()),
        }
    }

    /// Removes all chunks of a key but those of one generation.
    fn remove_chunks(&self, row_key: &[u8], kept: Option<u64>) -> Result<(), EngineError> {
        let prefix = layout::chunk_prefix(row_key);
        for chunk in self.chunks.scan_prefix(&prefix).keys() {
            let chunk = chunk.during("scanned chunks")?;
            if kept.is_none() || layout::generation_of(&prefix, &chunk) != kept {
                self.chunks.remove(chunk).during("removed a chunk")?;
            }
        }
        Ok(())
    }

    /// A chunked value; `None` when a chunk is missing.
    fn assemble(&self, row_key: &[u8], manifest: Manifest) -> Result<Option<Bytes>, EngineError> {
        let prefix = layout::chunk_prefix(row_key);
        let mut value = BytesMut::new();
        let mut index = 0;
        while (value.len() as u64) < manifest.len {
            let key = layout::chunk_key(&prefix, manifest.generation, index);
            match self.chunks.get(key).during("read a chunk")? {
                Some(chunk) if !chunk.is_empty() => value.extend_from_slice(&chunk),
                _ => return Ok(None),
            }
            index += 1;
        }
        Ok((value.len() as u64 == manifest.len).then(|| value.freeze()))
    }
}

/// A page ends once its values reach this many bytes, however many rows were asked for: 256 rows
/// of the largest values would be 256 MiB.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

fn read(stored: IVec, row_key: &[u8]) -> Result<Stored, EngineError> {
    layout::read_stored(stored).ok_or_else(|| EngineError::Damaged {
        detail: format!("row {row_key:02x?} begins with no known tag"),
    })
}
