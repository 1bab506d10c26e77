//! A group's state on its way to a replica that is too far behind for the log.
//!
//! The sender cuts the rows into numbered chunks; the receiver asks for the one that it wants next,
//! so that a transfer resumes where it broke off. Rows are checked on arrival, since a row that
//! is wrong in one replica's state stays wrong.

use crate::protocol::raft::entry::LogStart;
use crate::types::{GroupId, LogIndex, ReplicaId, Row};

/// Some rows of a group's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The group.
    pub group: GroupId,
    /// The replica that lacks them.
    pub to: ReplicaId,
    /// The replica that sends them.
    pub from: ReplicaId,
    /// Names this attempt: chunks of two attempts do not mix.
    pub transfer: u64,
    /// Its place among the chunks, from 0.
    pub number: u32,
    /// Where the sender's log began when the chunk was cut: whoever has committed as much needs no
    /// snapshot, but the log.
    pub log_start: LogIndex,
    /// What the rows of all chunks add up to; must be there in the last one.
    pub start: Option<Box<LogStart>>,
    /// The rows.
    pub rows: Vec<Row>,
    /// The checksum of all that the chunk says, with the rows as the sender read them.
    pub checksum: u32,
    /// Whether none follows.
    pub last: bool,
}

impl SnapshotChunk {
    /// The chunk of that number of a transfer; the last one, if it says what all add up to.
    pub fn new(
        (group, from, to): (GroupId, ReplicaId, ReplicaId),
        (transfer, number, log_start): (u64, u32, LogIndex),
        rows: Vec<Row>,
        start: Option<LogStart>,
    ) -> SnapshotChunk {
        let (last, start) = (start.is_some(), start.map(Box::new));
        let mut chunk = SnapshotChunk {
            group,
            to,
            from,
            transfer,
            number,
            log_start,
            start,
            rows,
            checksum: 0,
            last,
        };
        chunk.checksum = chunk.sum();
        chunk
    }

    /// The chunk's place and meaning alone.
    #[must_use]
    pub fn without_rows(&self) -> SnapshotChunk {
        let (start, rows) = (self.start.clone(), Vec::new());
        SnapshotChunk { start, rows, ..*self }
    }

    /// Whether the chunk is the one that was sent.
    pub fn is_intact(&self) -> bool {
        self.sum() == self.checksum
    }

    /// CRC32C over every field, in order, but for the sum itself.
    fn sum(&self) -> u32 {
        let ids = [u64::from(self.group.0), self.to.0, self.from.0, self.transfer];
        let place = [u64::from(self.number), self.log_start.0, u64::from(self.last)];
        let head = ids.into_iter().chain(place).fold(0, add_number);
        checksum_of_rows(
            self.start.as_deref().map_or(head, |start| add_start(head, start)),
            &self.rows,
        )
    }
}

/// What became of a [`SnapshotChunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotReply {
    /// The chunk's group.
    pub group: GroupId,
    /// The replica that sends the snapshot.
    pub to: ReplicaId,
    /// The replica that takes it.
    pub from: ReplicaId,
    /// The chunk's transfer.
    pub transfer: u64,
    /// The number of the chunk that is wanted next: all before it are held.
    pub next: u32,
    /// Whether the chunk was taken.
    pub outcome: Result<(), SnapshotRefusal>,
}

/// Why a chunk was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotRefusal {
    /// Its rows are not those that were sent.
    #[error("the rows of the chunk fail their checksum")]
    Checksum,
    /// No such transfer is wanted: another one runs, or the replica has caught up, or is gone.
    #[error("it does not want this snapshot")]
    Unwanted,
    /// The rows could not be stored.
    #[error("its storage failed")]
    Storage,
    /// Too much is queued.
    #[error("its queue is full")]
    Overloaded,
    /// No chunk at all: the replica asks for a snapshot, as it lost one half-way.
    #[error("it waits for a snapshot")]
    Wanted,
}

fn add_start(crc: u32, start: &LogStart) -> u32 {
    let LogStart { position, membership, membership_index } = start;
    let crc =
        [position.index.0, position.term.0, membership_index.0].into_iter().fold(crc, add_number);
    let sets = [&membership.voters, &membership.outgoing, &membership.learners];
    let crc = sets.into_iter().fold(crc, |crc, set| {
        let crc = add_number(crc, set.len() as u64);
        set.iter().map(|replica| replica.0).fold(crc, add_number)
    });
    membership
        .nodes
        .iter()
        .fold(crc, |crc, (replica, node)| add_number(add_number(crc, replica.0), node.0))
}

fn add_number(crc: u32, number: u64) -> u32 {
    crc32c::crc32c_append(crc, &number.to_be_bytes())
}

/// Continues a CRC32C over every field of the rows, in order. Lengths are among them, so that bytes
/// cannot move from one field to the next unnoticed.
fn checksum_of_rows(crc: u32, rows: &[Row]) -> u32 {
    rows.iter().fold(crc, |crc, row| {
        let version = row.record.version;
        let crc = crc32c::crc32c_append(crc, &row.keyspace.0.to_be_bytes());
        let crc = crc32c::crc32c_append(crc, &version.timestamp.0.to_be_bytes());
        let crc = crc32c::crc32c_append(crc, &version.incarnation.0.to_be_bytes());
        let crc = add_bytes(crc, row.key.as_bytes());
        let crc = match row.record.expires_at {
            None => crc,
            Some(expires_at) => add_number(crc32c::crc32c_append(crc, &[2]), expires_at.0),
        };
        match &row.record.value {
            None => crc32c::crc32c_append(crc, &[0]),
            Some(value) => add_bytes(crc32c::crc32c_append(crc, &[1]), value),
        }
    })
}

fn add_bytes(crc: u32, bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc, &(bytes.len() as u64).to_be_bytes());
    crc32c::crc32c_append(crc, bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::raft::entry::LogPosition;
    use crate::protocol::raft::membership::Membership;
    use crate::types::{
        Expiry, Incarnation, Key, KeyspaceId, NodeId, Record, Term, Timestamp, Version,
    };

    fn row(key: &str, value: Option<&'static str>) -> Row {
        let version = Version { timestamp: Timestamp(5), incarnation: Incarnation(6) };
        let value = value.map(|text| Bytes::from_static(text.as_bytes()));
        Row { keyspace: KeyspaceId(1), key: Key::from(key), record: Record::new(version, value) }
    }

    #[test]
    fn every_field_and_the_order_of_the_rows_count() {
        let mut elsewhere = row("a", Some("1"));
        elsewhere.keyspace = KeyspaceId(2);
        let mut later = row("a", Some("1"));
        later.record.version.timestamp = Timestamp(6);
        let mut reborn = row("a", Some("1"));
        reborn.record.version.incarnation = Incarnation(7);
        let mut ending = row("a", Some("1"));
        ending.record.expires_at = Some(Expiry(8));
        let lists = [
            vec![],
            vec![ending],
            vec![row("a", Some("1"))],
            vec![elsewhere],
            vec![later],
            vec![reborn],
            vec![row("a", Some("2"))],
            vec![row("a1", Some(""))],
            vec![row("", Some("a1"))],
            vec![row("a", Some(""))],
            vec![row("a", None)],
            vec![row("a", Some("1")), row("b", None)],
            vec![row("b", None), row("a", Some("1"))],
        ];
        let sums: std::collections::BTreeSet<u32> =
            lists.iter().map(|rows| checksum_of_rows(0, rows)).collect();
        assert_eq!(sums.len(), lists.len());
    }

    #[test]
    fn a_changed_row_is_noticed() {
        let rows = vec![row("a", Some("1")), row("b", Some("2"))];
        let ids = (GroupId(1), ReplicaId(2), ReplicaId(1));
        let mut chunk = SnapshotChunk::new(ids, (9, 0, LogIndex(4)), rows, None);
        assert!(chunk.is_intact());
        chunk.rows[1].record.value = Some(Bytes::from_static(b"3"));
        assert!(!chunk.is_intact());
    }

    /// A wrong start would put the log in a wrong place: rows are not all that counts.
    #[test]
    fn whatever_a_chunk_says_counts() {
        let start = || LogStart {
            position: LogPosition { term: Term(3), index: LogIndex(7) },
            membership: Membership::founding([(ReplicaId(1), NodeId(1))].into()),
            membership_index: LogIndex(2),
        };
        let ids = (GroupId(1), ReplicaId(2), ReplicaId(1));
        let chunk = SnapshotChunk::new(ids, (9, 4, LogIndex(5)), Vec::new(), Some(start()));
        assert!(chunk.is_intact());
        let changed = |change: fn(&mut SnapshotChunk)| {
            let mut changed = chunk.clone();
            change(&mut changed);
            assert!(!changed.is_intact(), "{changed:?}");
        };
        changed(|chunk| chunk.number += 1);
        changed(|chunk| chunk.transfer += 1);
        changed(|chunk| chunk.log_start = LogIndex(6));
        changed(|chunk| chunk.last = false);
        changed(|chunk| chunk.start = None);
        changed(|chunk| chunk.start.as_mut().unwrap().position.index = LogIndex(8));
        changed(|chunk| chunk.start.as_mut().unwrap().membership_index = LogIndex(3));
        changed(|chunk| {
            chunk.start.as_mut().unwrap().membership.learners.insert(ReplicaId(4));
        });
    }
}
