//! Who waits for what of one group: proposals for their entry, reads for their index.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::protocol::message::{ForwardRefusal, ListRange, RequestId, Told};
use crate::protocol::raft::entry::LogPosition;
use crate::types::{Key, KeyspaceId, LogIndex, NodeId, Term};

/// What became of what was asked.
pub(crate) type Answer = Result<Told, ForwardRefusal>;

/// Who asked.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A task of this node.
    Own(oneshot::Sender<Answer>),
    /// A peer, on behalf of its client.
    Peer(NodeId, RequestId),
}

impl Asker {
    /// Whether it is known that nobody waits for the answer any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Asker::Own(waiter) if waiter.is_closed())
    }
}

/// A read that waits.
#[derive(Debug)]
pub(crate) struct ReadWaiting {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) sought: Sought,
    pub(crate) asker: Asker,
}

/// What is read.
#[derive(Debug)]
pub(crate) enum Sought {
    Key(Key),
    Range(Box<ListRange>),
}

/// Reads that may wait for one group; beyond that they are refused.
const READS_MAX: usize = 8192;

/// Everyone who waits for one group.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    proposals: BTreeMap<LogPosition, Asker>,
    /// Reads whose index is not known yet, by token.
    reads: BTreeMap<u64, ReadWaiting>,
    /// Reads that wait until an index is applied; the number keeps those of one index apart.
    ripening: BTreeMap<(LogIndex, u64), ReadWaiting>,
    next_token: u64,
}

impl Waiting {
    /// A proposal was given this position.
    pub(crate) fn proposed(&mut self, position: LogPosition, asker: Asker) {
        self.proposals.insert(position, asker);
    }

    /// A number for a read.
    pub(crate) fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Whether one more read may wait, beside those that are being fetched.
    pub(crate) fn has_room_for_read(&self, fetched: usize) -> bool {
        self.reads.len() + self.ripening.len() + fetched < READS_MAX
    }

    /// A read waits for its index.
    pub(crate) fn reading(&mut self, token: u64, read: ReadWaiting) {
        self.reads.insert(token, read);
    }

    /// A read's index is known.
    pub(crate) fn read_index_known(&mut self, token: u64, index: LogIndex) {
        if let Some(read) = self.reads.remove(&token) {
            self.ripening.insert((index, token), read);
        }
    }

    /// A read may be answered once `index` is applied.
    pub(crate) fn ripens(&mut self, index: LogIndex, read: ReadWaiting) {
        let token = self.token();
        self.ripening.insert((index, token), read);
    }

    /// Reads that this replica will not learn an index for.
    pub(crate) fn reads_lost(
        &mut self,
        tokens: &[u64],
        refusal: ForwardRefusal,
    ) -> Vec<(Asker, Answer)> {
        let lost = tokens.iter().filter_map(|token| self.reads.remove(token));
        lost.map(|read| (read.asker, Err(refusal))).collect()
    }

    /// Takes the reads that what is applied suffices for.
    pub(crate) fn ripe(&mut self, applied: LogIndex) -> Vec<ReadWaiting> {
        let later = self.ripening.split_off(&(applied.next(), 0));
        std::mem::replace(&mut self.ripening, later).into_values().collect()
    }

    /// An entry was applied: its proposer is answered, and those whose entries it, or an earlier
    /// one of its term, took the place of: they will never be applied. Entries apply in order and
    /// terms never fall, so whatever was proposed at or below this index, or in an earlier term
    /// above it, is lost.
    pub(crate) fn applied(
        &mut self,
        position: LogPosition,
        answer: Answer,
    ) -> Vec<(Asker, Answer)> {
        let mut told = Vec::new();
        if let Some(asker) = self.proposals.remove(&position) {
            told.push((asker, answer));
        }
        let lost: Vec<LogPosition> = self
            .proposals
            .keys()
            .filter(|other| other.index <= position.index || other.term < position.term)
            .copied()
            .collect();
        for place in lost {
            let asker = self.proposals.remove(&place);
            // Another entry was committed in its place, or before it under a later term.
            told.extend(asker.map(|asker| (asker, Err(ForwardRefusal::Lost))));
        }
        told
    }

    /// A snapshot has brought entries up to this index without saying which they were: whether
    /// those proposed there are among them is not known.
    pub(crate) fn passed_over(&mut self, through: LogIndex) -> Vec<(Asker, Answer)> {
        let (index, term) = (through.next(), Term::default());
        let later = self.proposals.split_off(&LogPosition { index, term });
        let passed = std::mem::replace(&mut self.proposals, later).into_values();
        passed.map(|asker| (asker, Err(ForwardRefusal::Unknown))).collect()
    }

    /// Everyone, to be told that the group is gone from here.
    pub(crate) fn take_all(&mut self, refusal: &ForwardRefusal) -> Vec<(Asker, Answer)> {
        let proposals = std::mem::take(&mut self.proposals).into_values();
        let reads = std::mem::take(&mut self.reads).into_values().map(|read| read.asker);
        let ripening = std::mem::take(&mut self.ripening).into_values().map(|read| read.asker);
        let reads = reads.chain(ripening).map(|asker| (asker, Err(*refusal)));
        // A proposal that was given a position may yet be committed by others.
        proposals.map(|asker| (asker, Err(ForwardRefusal::Unknown))).chain(reads).collect()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.proposals.len() + self.reads.len() + self.ripening.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(asker: Asker) -> ReadWaiting {
        ReadWaiting { keyspace: KeyspaceId(1), sought: Sought::Key(Key::from("k")), asker }
    }

    #[test]
    fn there_is_room_for_reads_up_to_a_bound_and_again_once_some_are_taken() {
        let mut waiting = Waiting::default();
        for number in 0..READS_MAX as u64 - 1 {
            assert!(waiting.has_room_for_read(1), "{number}");
            let read = read(Asker::Peer(NodeId(1), RequestId(number)));
            match number % 2 {
                0 => waiting.ripens(LogIndex(number), read),
                _ => waiting.reading(number, read),
            }
        }
        assert!(!waiting.has_room_for_read(1));
        assert_eq!(waiting.ripe(LogIndex(0)).len(), 1);
        assert!(waiting.has_room_for_read(1));
    }
}
