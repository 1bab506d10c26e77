//! How rows lie in sled: names of trees, keys, and the byte before every stored value.
//!
//! A row's key is `partition (u16, big-endian) ‖ user key`, so that a partition is one range. A
//! stored value begins with a tag: 0, and the value follows; or 1, and a [`Manifest`] follows that
//! says which rows of the chunk tree hold the value. A chunk's key is `partition ‖ length of the
//! user key (u32) ‖ user key ‖ generation (u64) ‖ index (u32)`, all big-endian: with the length
//! ahead, one key's chunks are a range that no other key's fall into.

use std::ops::Bound;

use ::sled::IVec;
use bytes::Bytes;

use crate::types::{Key, KeyspaceId, PartitionId};

/// The tree of what concerns the engine as a whole.
pub(super) const META_TREE: &str = "meta";
/// Key in the meta tree: the layout's format, u16.
pub(super) const FORMAT_KEY: &str = "format";
/// Key in the meta tree: the highest applied LSN, u64.
pub(super) const APPLIED_KEY: &str = "applied";
/// Key in the meta tree: how often the engine was opened, u64.
pub(super) const LIVES_KEY: &str = "lives";
/// The layout that this file describes.
pub(super) const FORMAT: u16 = 1;

/// Values above this many bytes are stored in chunks of as many. A leaf of sled holds up to 16
/// rows, and one above a quarter of a segment (4 MiB) goes to a file that sled never syncs.
pub(super) const CHUNK_BYTES: usize = 128 * 1024;

/// A row's value as it lies in the tree of rows.
pub(super) enum Stored {
    /// The value itself.
    Inline(Bytes),
    /// Where the value is.
    Chunked(Manifest),
}

/// Says which chunks make up a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Tells this value's chunks from those of every other value that the key ever had.
    pub(super) generation: u64,
    /// Bytes of the value.
    pub(super) len: u64,
}

/// The name of the tree of a keyspace's rows.
pub(super) fn rows_tree(keyspace: KeyspaceId) -> String {
    format!("{ROWS_PREFIX}{:08x}", keyspace.0)
}

/// The name of the tree of a keyspace's chunks.
pub(super) fn chunks_tree(keyspace: KeyspaceId) -> String {
    format!("{CHUNKS_PREFIX}{:08x}", keyspace.0)
}

/// The keyspace whose rows a tree holds.
pub(super) fn keyspace_of_rows(tree: &[u8]) -> Option<KeyspaceId> {
    keyspace_of(tree, ROWS_PREFIX)
}

/// The keyspace whose chunks a tree holds.
pub(super) fn keyspace_of_chunks(tree: &[u8]) -> Option<KeyspaceId> {
    keyspace_of(tree, CHUNKS_PREFIX)
}

/// Writes the key of a row into `buffer`, which is reused between rows.
pub(super) fn write_row_key(buffer: &mut Vec<u8>, partition: PartitionId, key: &Key) {
    buffer.clear();
    buffer.extend_from_slice(&partition.0.to_be_bytes());
    buffer.extend_from_slice(key.as_bytes());
}

/// The key of a row.
pub(super) fn row_key(partition: PartitionId, key: &Key) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(PARTITION_BYTES + key.as_bytes().len());
    write_row_key(&mut buffer, partition, key);
    buffer
}

/// The user's key in the key of a row.
pub(super) fn user_key(row_key: &IVec) -> Key {
    Key(Bytes::copy_from_slice(row_key.get(PARTITION_BYTES..).unwrap_or_default()))
}

/// The range of a partition's rows above `after`; with `None`, also that of its chunks.
pub(super) fn range(
    partition: PartitionId,
    after: Option<&Key>,
) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let from = match after {
        Some(key) => Bound::Excluded(row_key(partition, key)),
        None => Bound::Included(partition.0.to_be_bytes().to_vec()),
    };
    let next = partition.0.checked_add(1);
    let to = next.map_or(Bound::Unbounded, |next| Bound::Excluded(next.to_be_bytes().to_vec()));
    (from, to)
}

/// What all chunk keys of a row begin with, given the row's key.
pub(super) fn chunk_prefix(row_key: &[u8]) -> Vec<u8> {
    let (partition, key) = row_key.split_at(PARTITION_BYTES);
    let key_len = u32::try_from(key.len()).unwrap_or(u32::MAX);
    [partition, &key_len.to_be_bytes(), key].concat()
}

/// The key of a chunk, given what [`chunk_prefix`] made.
pub(super) fn chunk_key(prefix: &[u8], generation: u64, index: u32) -> Vec<u8> {
    [prefix, &generation.to_be_bytes(), &index.to_be_bytes()].concat()
}

/// The generation in a chunk's key.
pub(super) fn generation_of(prefix: &[u8], chunk_key: &[u8]) -> Option<u64> {
    read_u64(chunk_key.get(prefix.len()..)?)
}

/// Writes a value with its tag into `buffer`, which is reused between rows.
pub(super) fn write_inline(buffer: &mut Vec<u8>, value: &[u8]) {
    buffer.clear();
    buffer.push(TAG_INLINE);
    buffer.extend_from_slice(value);
}

/// What a row holds; `None` when no known tag begins it.
pub(super) fn read_stored(stored: IVec) -> Option<Stored> {
    match *stored.first()? {
        TAG_INLINE => Some(Stored::Inline(Bytes::from_owner(stored).slice(1..))),
        TAG_CHUNKED => Manifest::read(&stored).map(Stored::Chunked),
        _ => None,
    }
}

impl Manifest {
    /// The bytes to store in place of the value.
    pub(super) fn stored(self) -> Vec<u8> {
        let (generation, len) = (self.generation.to_be_bytes(), self.len.to_be_bytes());
        [&[TAG_CHUNKED][..], &generation, &len].concat()
    }

    /// The manifest in a row's stored value, if it holds one.
    pub(super) fn read(stored: &[u8]) -> Option<Self> {
        let (&tag, rest) = stored.split_first()?;
        let generation = read_u64(rest)?;
        let len = read_u64(rest.get(8..)?)?;
        (tag == TAG_CHUNKED && rest.len() == 16).then_some(Manifest { generation, len })
    }
}

/// The number that `bytes` begin with.
pub(super) fn read_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|word| u64::from_be_bytes(*word))
}

const ROWS_PREFIX: &str = "rows.";
const CHUNKS_PREFIX: &str = "chunks.";
const PARTITION_BYTES: usize = 2;
const TAG_INLINE: u8 = 0;
const TAG_CHUNKED: u8 = 1;

fn keyspace_of(tree: &[u8], prefix: &str) -> Option<KeyspaceId> {
    let digits = std::str::from_utf8(tree).ok()?.strip_prefix(prefix)?;
    u32::from_str_radix(digits, 16).ok().map(KeyspaceId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_names_name_their_keyspace() {
        for id in [0, 17, u32::MAX] {
            let keyspace = KeyspaceId(id);
            assert_eq!(keyspace_of_rows(rows_tree(keyspace).as_bytes()), Some(keyspace));
            assert_eq!(keyspace_of_chunks(chunks_tree(keyspace).as_bytes()), Some(keyspace));
            assert_eq!(keyspace_of_rows(chunks_tree(keyspace).as_bytes()), None);
        }
        assert_eq!(keyspace_of_rows(META_TREE.as_bytes()), None);
    }

    #[test]
    fn no_keys_chunks_lie_in_anothers_range() {
        let long = Key(Bytes::from([&b"a"[..], &[0; 12]].concat()));
        let [short, long] =
            [Key::from("a"), long].map(|key| chunk_prefix(&row_key(PartitionId(1), &key)));
        assert!(!chunk_key(&long, 0, 0).starts_with(&short));
        assert_eq!(generation_of(&short, &chunk_key(&short, 7, 1)), Some(7));
    }

    #[test]
    fn a_manifest_survives_its_bytes_and_nothing_else_reads_as_one() {
        let manifest = Manifest { generation: 1 << 40, len: 1 << 20 };
        assert_eq!(Manifest::read(&manifest.stored()), Some(manifest));
        let mut inline = Vec::new();
        write_inline(&mut inline, &manifest.stored()[1..]);
        assert_eq!(Manifest::read(&inline), None);
        assert_eq!(Manifest::read(&manifest.stored()[..16]), None);
    }

    #[test]
    fn the_last_partition_has_no_upper_bound() {
        let (_, to) = range(PartitionId(u16::MAX), None);
        assert_eq!(to, Bound::Unbounded);
    }
}
