//! A snapshot that this node takes in for one of its replicas.
//!
//! Rows are merged into the table chunk by chunk, so until the last one is in place the replica's
//! table is of no single moment: the replica applies nothing and answers no read, and a mark among
//! its rows says so across a crash. It keeps its log and goes on voting with it. It lacks an entry
//! that is committed and so cannot be elected (leader completeness, Ongaro 2014, section 3.6.3),
//! unless a later leader has brought its log up to date meanwhile: then it may be the only one who
//! can lead, and hands the lead on as soon as another has what it has.

use crate::node::groups::outgoing::RESEND_TICKS;
use crate::protocol::message::{SnapshotChunk, SnapshotRefusal};
use crate::types::{
    Incarnation, Key, KeyspaceId, NodeId, PartitionId, Record, ReplicaId, Row, Timestamp, Version,
};

/// The row that marks a table of no single moment.
pub(crate) const MARK: &str = "installing";

/// Ticks without a chunk after which a transfer counts as given up: some tries of its sender.
const SILENCE_TICKS: u64 = 4 * RESEND_TICKS;

/// One snapshot being taken in.
#[derive(Debug)]
pub(crate) struct Incoming {
    transfer: u64,
    from: ReplicaId,
    next: u32,
    /// A chunk is on its way to the log.
    writing: bool,
    /// When a chunk of it came last.
    heard_at: u64,
}

/// What to do with a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Write its rows, then ask for the next.
    Take,
    /// It is held already, or not due yet: say which is wanted.
    Want(u32),
    /// It is being written: say nothing until it is.
    Wait,
    /// Tell the sender why not.
    Refuse(SnapshotRefusal),
}

impl Incoming {
    /// Begins a transfer with its first chunk; `None` for another chunk.
    pub(crate) fn begin(chunk: &SnapshotChunk, now: u64) -> Option<Incoming> {
        let (transfer, from, heard_at) = (chunk.transfer, chunk.from, now);
        let begun = Incoming { transfer, from, next: 0, writing: false, heard_at };
        (chunk.number == 0).then_some(begun)
    }

    /// Whether the chunk belongs to this transfer.
    pub(crate) fn is_of(&self, chunk: &SnapshotChunk) -> bool {
        (self.transfer, self.from) == (chunk.transfer, chunk.from)
    }

    /// Whether its sender has been silent for so long that it must have given the transfer up.
    pub(crate) fn is_abandoned(&self, now: u64) -> bool {
        !self.writing && now >= self.heard_at + SILENCE_TICKS
    }

    /// Judges a chunk of this transfer.
    pub(crate) fn judge(&mut self, chunk: &SnapshotChunk, now: u64) -> Verdict {
        self.heard_at = now;
        if !chunk.is_intact() {
            return Verdict::Refuse(SnapshotRefusal::Checksum);
        }
        if chunk.number != self.next {
            return Verdict::Want(self.next);
        }
        if std::mem::replace(&mut self.writing, true) {
            return Verdict::Wait;
        }
        Verdict::Take
    }

    /// The chunk that was taken is durable; returns the number of the next.
    pub(crate) fn on_written(&mut self) -> u32 {
        self.writing = false;
        self.next += 1;
        self.next
    }
}

/// The rows to write for a chunk, in records of at most so many bytes, unless a row alone has more:
/// its own, before them the mark in the first and behind them the end of the mark in the last.
pub(crate) fn rows_of(
    chunk: &SnapshotChunk,
    partition: PartitionId,
    (begin, end): (Timestamp, Timestamp),
    record_bytes_max: usize,
) -> Vec<Vec<(PartitionId, Row)>> {
    let begins = (chunk.number == 0).then(|| mark(begin, true));
    let ends = chunk.last.then(|| mark(end, false));
    let (mut records, mut bytes) = (vec![Vec::new()], 0);
    for row in begins.into_iter().chain(chunk.rows.iter().cloned()).chain(ends) {
        bytes += row.cost_bytes();
        if bytes > record_bytes_max / 2 {
            bytes = row.cost_bytes();
            records.push(Vec::new());
        }
        records.last_mut().expect("invariant: it begins with one").push((partition, row));
    }
    records.retain(|rows| !rows.is_empty());
    records
}

/// The row that says whether the table is of no single moment.
pub(crate) fn mark(stamp: Timestamp, installing: bool) -> Row {
    let version = Version { timestamp: stamp, incarnation: Incarnation(0) };
    let value = installing.then(|| bytes::Bytes::from_static(b"1"));
    Row { keyspace: KeyspaceId::GROUP, key: Key::from(MARK), record: Record::new(version, value) }
}

/// A chunk whose rows are on their way to the log.
#[derive(Debug)]
pub(crate) struct ChunkWritten {
    /// The node that sent it.
    pub(crate) from: NodeId,
    /// The chunk, without its rows.
    pub(crate) chunk: SnapshotChunk,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::raft::entry::{LogPosition, LogStart};
    use crate::protocol::raft::membership::Membership;
    use crate::types::{GroupId, LogIndex};

    fn chunk(transfer: u64, number: u32, last: bool) -> SnapshotChunk {
        let ids = (GroupId(1), ReplicaId(1), ReplicaId(2));
        let membership = Membership::founding([(ReplicaId(1), NodeId(1))].into());
        let (position, membership_index) = (LogPosition::default(), LogIndex(0));
        let start = LogStart { position, membership, membership_index };
        let place = (transfer, number, LogIndex(0));
        SnapshotChunk::new(ids, place, Vec::new(), last.then_some(start))
    }

    #[test]
    fn chunks_are_taken_in_order_and_once() {
        let mut incoming = Incoming::begin(&chunk(7, 0, false), 0).unwrap();
        assert!(Incoming::begin(&chunk(7, 1, false), 0).is_none());
        assert_eq!(incoming.judge(&chunk(7, 1, false), 0), Verdict::Want(0));
        assert_eq!(incoming.judge(&chunk(7, 0, false), 0), Verdict::Take);
        assert_eq!(incoming.judge(&chunk(7, 0, false), 0), Verdict::Wait);
        assert_eq!(incoming.on_written(), 1);
        assert_eq!(incoming.judge(&chunk(7, 0, false), 0), Verdict::Want(1));
        assert_eq!(incoming.judge(&chunk(7, 1, true), 0), Verdict::Take);
    }

    #[test]
    fn a_transfer_whose_sender_is_silent_is_abandoned_unless_a_chunk_is_being_written() {
        let mut incoming = Incoming::begin(&chunk(7, 0, false), 10).unwrap();
        assert!(!incoming.is_abandoned(10 + SILENCE_TICKS - 1));
        assert!(incoming.is_abandoned(10 + SILENCE_TICKS));
        assert_eq!(incoming.judge(&chunk(7, 0, false), 20), Verdict::Take);
        assert!(!incoming.is_abandoned(20 + SILENCE_TICKS));
        incoming.on_written();
        assert!(incoming.is_abandoned(20 + SILENCE_TICKS));
    }

    #[test]
    fn a_damaged_chunk_is_refused() {
        let mut incoming = Incoming::begin(&chunk(7, 0, false), 0).unwrap();
        let mut damaged = chunk(7, 0, false);
        damaged.checksum ^= 1;
        let refusal = Verdict::Refuse(SnapshotRefusal::Checksum);
        assert_eq!(incoming.judge(&damaged, 0), refusal);
    }

    #[test]
    fn the_mark_lasts_from_the_first_chunk_to_the_last() {
        let marks = |chunk: &SnapshotChunk| -> Vec<bool> {
            let records = rows_of(chunk, PartitionId(1), (Timestamp(5), Timestamp(6)), 1 << 20);
            records.iter().flatten().map(|(_, row)| row.record.value.is_some()).collect()
        };
        assert_eq!(marks(&chunk(1, 0, false)), vec![true]);
        assert_eq!(marks(&chunk(1, 1, false)), Vec::<bool>::new());
        assert_eq!(marks(&chunk(1, 2, true)), vec![false]);
        assert_eq!(marks(&chunk(1, 0, true)), vec![true, false]);
    }
}
