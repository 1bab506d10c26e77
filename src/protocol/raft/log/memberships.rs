//! The memberships that a log has put in force, each with the index of its entry.

use crate::protocol::raft::entry::{Entry, Payload};
use crate::protocol::raft::membership::Membership;
use crate::types::LogIndex;

/// The membership where the log begins and those behind it, in order.
#[derive(Clone, Debug)]
pub(super) struct Memberships {
    first: (LogIndex, Membership),
    later: Vec<(LogIndex, Membership)>,
}

impl Memberships {
    pub(super) fn new(membership: Membership, index: LogIndex) -> Memberships {
        Memberships { first: (index, membership), later: Vec::new() }
    }

    /// Takes the membership out of an entry that is appended, if there is one.
    pub(super) fn note(&mut self, entry: &Entry) {
        if let Payload::Membership(membership) = &entry.payload {
            self.later.push((entry.index, membership.clone()));
        }
    }

    /// What is in force at the end of the log.
    pub(super) fn latest(&self) -> (LogIndex, &Membership) {
        let (index, membership) = self.later.last().unwrap_or(&self.first);
        (*index, membership)
    }

    /// What was in force once the entries up to `at` were appended; the first one if that lies
    /// before the log.
    pub(super) fn at(&self, at: LogIndex) -> (LogIndex, &Membership) {
        let among = self.later.iter().rev().find(|(index, _)| *index <= at);
        let (index, membership) = among.unwrap_or(&self.first);
        (*index, membership)
    }

    /// Falls back to what was in force at `last`, as the entries behind it are gone.
    pub(super) fn truncate_after(&mut self, last: LogIndex) {
        self.later.retain(|(index, _)| *index <= last);
    }

    /// Forgets what is no longer in force at `through`.
    pub(super) fn compact(&mut self, through: LogIndex) {
        let count = self.later.partition_point(|(index, _)| *index <= through);
        if let Some(first) = self.later.drain(..count).next_back() {
            self.first = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    #[test]
    fn compaction_keeps_the_one_in_force_and_those_behind_it() {
        let mut memberships = Memberships::new(Membership::default(), LogIndex(0));
        for index in [2, 4, 6] {
            let payload = Payload::Membership(Membership::default());
            memberships.note(&Entry { term: Term(1), index: LogIndex(index), payload });
        }
        memberships.compact(LogIndex(4));
        assert_eq!((memberships.first.0, memberships.later.len()), (LogIndex(4), 1));
        assert_eq!(memberships.at(LogIndex(5)).0, LogIndex(4));
    }
}
