//! Watching the keys of a strong keyspace: what changes, in the order of each partition's log.
//!
//! A watch has a position in the log of every partition that what it watches may lie in: the last
//! entry that it has seen. It asks a replica of each partition for what came behind, and that is
//! all the state that there is: a client that was cut off, a replica that died and a partition that
//! moved are the same question, asked of somebody else.
//!
//! * [`history`]: what a node keeps of the entries that its replicas have applied.
//! * [`source`]: which replica to ask, and when what is asked for is lost.
//! * [`token`]: the positions, as text that a client holds.
//!
//! Invariant: of one partition, a watch sees every applied entry that changes what it watches, each
//! once, whole and in the order of the log; or it hears that this cannot be. Between partitions
//! there is no order.

pub mod history;
pub mod source;
pub mod token;

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::group::stored::Stored;
use crate::protocol::ring::Partitioning;
use crate::types::{Key, KeyspaceId, LogIndex, PartitionId, Revision, Row};

/// How long a replica waits for something to tell before it answers that nothing came.
pub const WATCH_WAIT: Duration = Duration::from_secs(10);

/// What is watched of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One key.
    Key(Key),
    /// All keys that begin with this; empty for all.
    Prefix(Bytes),
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Of which keyspace.
    pub keyspace: KeyspaceId,
    /// Which keys.
    pub selection: Selection,
}

/// One key's change: it was given a value, or lost the one that it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The key.
    pub key: Key,
    /// Its value now; `None` when it was deleted.
    pub value: Option<Bytes>,
}

/// What one entry of a partition's log changed of what is watched: it happened at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEntry {
    /// The entry.
    pub index: LogIndex,
    /// The revision that everything bears which it changed.
    pub revision: Revision,
    /// The changes, in the order of the keyspaces and keys; at least one.
    pub events: Vec<WatchEvent>,
}

/// What a replica tells a watch of what came behind its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchPage {
    /// What changed, in order.
    Changed {
        /// The entries that concern the watch; none when nothing came in time.
        entries: Vec<WatchEntry>,
        /// Up to here nothing else concerns it: its next position, not below the one before.
        through: LogIndex,
    },
    /// The replica does not have all that came behind the position.
    Gone {
        /// The first position that it can go on from.
        oldest: LogIndex,
    },
}

/// What a watch asks a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchAsk {
    /// What is watched.
    pub watched: Watched,
    /// The last entry that the watch has seen.
    pub after: LogIndex,
    /// The page ends once it has this many bytes, and has an entry at least.
    pub bytes_max: u32,
    /// How long to wait when there is nothing yet.
    pub wait: Duration,
}

impl Selection {
    /// Whether the key is watched.
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Selection::Key(watched) => watched == key,
            Selection::Prefix(prefix) => key.as_bytes().starts_with(prefix),
        }
    }

    /// The partitions that watched keys may lie in, by number.
    pub fn partitions(&self, partitioning: Partitioning) -> Vec<PartitionId> {
        let one = match self {
            Selection::Key(key) => Some(partitioning.of_tagged(key)),
            Selection::Prefix(prefix) => partitioning.of_prefix(prefix),
        };
        match one {
            Some(partition) => vec![partition],
            // Q is at most 32,768, so that every partition's number fits 16 bits.
            None => {
                (0..partitioning.partitions()).map(|number| PartitionId(number as u16)).collect()
            }
        }
    }

    /// The bytes of the key or of the prefix.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Selection::Key(key) => &key.0,
            Selection::Prefix(prefix) => prefix,
        }
    }
}

impl WatchEvent {
    /// What a row that the state machine wrote tells; `None` for one of the machine's own.
    fn of(row: &Row) -> Option<(KeyspaceId, Revision, WatchEvent)> {
        if row.keyspace >= KeyspaceId::SESSIONS {
            return None;
        }
        let stored = Stored::from_record(&row.record)
            .expect("invariant: rows of users' keyspaces are as the state machine makes them");
        let event = WatchEvent { key: row.key.clone(), value: stored.value };
        Some((row.keyspace, stored.modified, event))
    }

    /// What it is taken to cost in memory and on the wire, in bytes.
    pub fn cost_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 64;
        self.key.0.len() + self.value.as_ref().map_or(0, Bytes::len) + OVERHEAD_BYTES
    }
}

impl WatchEntry {
    /// The same of all its events.
    pub fn cost_bytes(&self) -> usize {
        self.events.iter().map(WatchEvent::cost_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_a_prefix_with_a_whole_tag_lie_in_one_partition() {
        let partitioning = Partitioning::new(16).expect("a power of two");
        let of = |selection: Selection| selection.partitions(partitioning);
        let prefix = |text: &'static str| Selection::Prefix(Bytes::from_static(text.as_bytes()));
        let home = vec![partitioning.of_tagged(&Key::from("cart:{42}:items"))];
        assert_eq!(of(Selection::Key(Key::from("cart:{42}:items"))), home);
        assert_eq!(of(prefix("cart:{42}:")), home);
        assert_eq!(of(prefix("{42}")), home);
        for text in ["", "cart:", "cart:{", "cart:{42", "{}", "{}{42}"] {
            assert_eq!(of(prefix(text)).len(), 16, "{text:?}");
        }
    }

    #[test]
    fn a_prefix_is_of_bytes_and_a_key_is_itself() {
        let prefix = Selection::Prefix(Bytes::from_static(b"user:"));
        for (key, expected) in [("user:", true), ("user:1", true), ("user", false), ("u", false)] {
            assert_eq!(prefix.contains(&Key::from(key)), expected, "{key}");
        }
        assert!(Selection::Prefix(Bytes::new()).contains(&Key::from("any")));
        let key = Selection::Key(Key::from("user:"));
        assert!(key.contains(&Key::from("user:")) && !key.contains(&Key::from("user:1")));
    }
}
