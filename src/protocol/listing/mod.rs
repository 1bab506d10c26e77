//! Listing the keys of a keyspace, page by page.
//!
//! Keys lie in partitions by their hash, so a listing goes through the partitions by number, and
//! within each in the order of the keys' bytes. A page ends anywhere: with a partition's last key,
//! amid it, or amid keys that nobody wants. Where it ended is its [`Position`], which a client gets
//! as a [`cursor::Cursor`] and gives back for the next page.
//!
//! Invariant: a key is listed by at most one page, and every key that has a value from before the
//! first page until after the last is listed. What changes meanwhile may be listed or not: pages
//! are of different moments.

pub mod cursor;
pub mod walk;

use crate::types::{Key, PartitionId};

/// The most rows that a page may be asked to have.
pub const LIST_ROWS_MAX: u32 = 1000;

/// The rows of a page when nobody says how many.
pub const LIST_ROWS: u32 = 100;

/// A page ends once its rows reach this many bytes, so it has at most one row more.
pub const LIST_PAGE_BYTES_MAX: usize = 1 << 20;

/// Where a listing has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition that comes next.
    pub partition: PartitionId,
    /// The last key of it that was passed; `None` at its beginning.
    pub after: Option<Key>,
}

impl Position {
    /// Where a listing begins.
    pub fn first() -> Position {
        Position { partition: PartitionId(0), after: None }
    }
}
