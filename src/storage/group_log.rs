//! What the write-ahead log holds of each Raft group: the mirror of its [`GroupRecord`]s.
//!
//! Entries, votes and starts of groups live in the log alone; no engine takes them over. So the
//! log's oldest segments may only go once what they hold of groups stands in newer ones as well.
//! The mirror knows from which record on each group's log can be read back whole, and makes the
//! records that say it anew ([`GroupLogs::overdue`]).
//!
//! Once older segments are gone, the log begins in the middle of some groups' histories. What it
//! says of a group before the group *stands* ([`GroupRecord::Standing`]) is of no use then, and
//! not needed: the segments were only dropped because the group stands later on. While the log is
//! recovered, such records are passed over, and [`GroupLogs::recovered`] is an error if one of
//! their groups does not stand by then. From where a group stands, every record must fit.
//!
//! Invariant: dropping the log through an LSN for which nothing is overdue leaves a log that gives
//! back the same. A crash between the two is harmless, since what is carried over changes nothing
//! in a log that is known.
//!
//! Caveat: a group all of whose records are missing is not known to be missing; that the log as a
//! whole begins and ends where it should is for the log's own recovery to say.

mod commit;
mod held;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;

pub use self::commit::{CommitError, commit, drop_through};
use self::held::Held;
use crate::protocol::raft::entry::{Entry, HardState, LogPosition, LogStart};
use crate::storage::wal::GroupRecord;
use crate::types::{GroupId, LogIndex, Lsn, ReplicaId, Term};

/// Records of entries that are carried over have at most this many bytes, unless a single entry
/// has more.
pub const CARRIED_RECORD_BYTES_MAX: usize = 256 << 10;

/// Once this many bytes are to be carried over, other groups wait for the next turn: commits of
/// others wait meanwhile.
const OVERDUE_BYTES_ENOUGH: usize = 1 << 20;

/// Why a record cannot follow those before it. The mirror is then as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupLogError {
    /// Nothing says how the replica's log began.
    #[error("the log does not hold the beginning of replica {replica} of group {group}")]
    NoBeginning {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The group stands, but not all of its entries follow.
    #[error("the log does not hold all entries of replica {replica} of group {group}")]
    Incomplete {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The group has another replica here, which was not removed.
    #[error("group {group} has replica {held} here; a record of replica {got} cannot follow")]
    OtherReplica {
        /// The group.
        group: GroupId,
        /// The replica that is known.
        held: ReplicaId,
        /// The replica of the record.
        got: ReplicaId,
    },
    /// Entries are missing.
    #[error("group {group} has entries up to {last}; one at {got} cannot follow")]
    Gap {
        /// The group.
        group: GroupId,
        /// The last index before.
        last: LogIndex,
        /// The index that came.
        got: LogIndex,
    },
    /// The record is of what was compacted before.
    #[error("the log of group {group} begins behind {start}; {got} lies before that")]
    Compacted {
        /// The group.
        group: GroupId,
        /// The index of the last entry that was compacted.
        start: LogIndex,
        /// The index that came.
        got: LogIndex,
    },
    /// The record repeats something, and says it differently.
    #[error("a record of replica {replica} of group {group} contradicts those before it")]
    Contradiction {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
}

/// What a replica of a group remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLog {
    /// The replica.
    pub replica: ReplicaId,
    /// Its hard state.
    pub hard_state: HardState,
    /// Where its log begins.
    pub start: LogStart,
    /// The entries behind that, without a gap.
    pub entries: Vec<Entry>,
}

/// What the log holds of each group.
#[derive(Debug)]
pub struct GroupLogs {
    groups: BTreeMap<GroupId, Known>,
    /// True until the log has been read to its end: its beginning may lie within histories.
    recovering: bool,
}

/// What is known of a group.
#[derive(Debug)]
enum Known {
    /// Only that there is this replica: the records before may be gone.
    Replica(ReplicaId),
    /// How its log stands.
    Log(Box<Held>),
}

impl GroupLogs {
    /// Knows nothing yet; the records of the log are to be told next, oldest first.
    pub fn recovering() -> Self {
        GroupLogs { groups: BTreeMap::new(), recovering: true }
    }

    /// Ends the recovery: from now on every record must fit.
    ///
    /// # Errors
    /// [`GroupLogError::NoBeginning`] and [`GroupLogError::Incomplete`], when there are records of
    /// a group and it cannot be told from them how it stands.
    pub fn recovered(&mut self) -> Result<(), GroupLogError> {
        for (&group, known) in &self.groups {
            match known {
                &Known::Replica(replica) => {
                    return Err(GroupLogError::NoBeginning { group, replica });
                }
                Known::Log(held) if !held.is_whole() => return Err(held.incomplete()),
                Known::Log(_) => {}
            }
        }
        self.recovering = false;
        Ok(())
    }

    /// Takes note of a record that the log holds durably at `lsn`. Records are told once each, in
    /// the log's order.
    ///
    /// # Errors
    /// [`GroupLogError`], when the record does not fit those before it; it is then ignored, and
    /// the log must not be relied on.
    pub fn on_record(&mut self, lsn: Lsn, record: &GroupRecord) -> Result<(), GroupLogError> {
        let (group, replica) = (record.group(), record.replica());
        let mut slot = match self.groups.entry(group) {
            Slot::Vacant(_) => return self.on_unknown(lsn, record),
            Slot::Occupied(slot) => slot,
        };
        let held = slot.get().replica();
        if held != replica {
            return Err(GroupLogError::OtherReplica { group, held, got: replica });
        }
        match (slot.get_mut(), record) {
            (_, GroupRecord::Removed { .. }) => {
                slot.remove();
                Ok(())
            }
            (Known::Log(held), record) if held.takes(record) => held.on_record(lsn, record),
            (Known::Log(held), _) if !self.recovering => Err(held.incomplete()),
            // What was carried over was cut short by a crash, which dropped nothing: either the
            // group stands later on, or this recovery ends with an error.
            _ => {
                slot.remove();
                self.on_unknown(lsn, record)
            }
        }
    }

    /// How the log of a group stands, if it has a replica here.
    pub fn restored(&self, group: GroupId) -> Option<StoredLog> {
        self.held(group).map(Held::stored)
    }

    /// The hard state of a group's replica here.
    pub fn hard_state(&self, group: GroupId) -> Option<(ReplicaId, HardState)> {
        self.held(group).map(|held| (held.replica(), held.hard_state()))
    }

    /// Where the log of a group begins and ends here.
    pub fn ends(&self, group: GroupId) -> Option<(LogPosition, LogPosition)> {
        self.held(group).map(Held::ends)
    }

    /// The term of a group's entry here; that of the log's start is known.
    pub fn term_at(&self, group: GroupId, index: LogIndex) -> Option<Term> {
        self.held(group)?.term_at(index)
    }

    /// The groups that have a replica here.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied()
    }

    /// What must be appended before the log may be dropped through that LSN. Some groups at a
    /// time, each whole and in one commit; to be asked and appended until there is nothing more,
    /// with no other record of a group in between. No record has more than `record_bytes_max`
    /// bytes unless a single entry has.
    pub fn overdue(&self, through: Lsn, record_bytes_max: usize) -> Vec<GroupRecord> {
        let mut records: Vec<GroupRecord> = Vec::new();
        let mut bytes = 0;
        for held in self.logs().filter(|held| held.since() <= through) {
            if bytes >= OVERDUE_BYTES_ENOUGH {
                break;
            }
            let first = records.len();
            held.carry_over(record_bytes_max, &mut records);
            bytes += records[first..].iter().map(GroupRecord::encoded_bytes).sum::<usize>();
        }
        records
    }

    /// Entries of all groups.
    pub fn entries(&self) -> usize {
        self.logs().map(Held::entries).sum()
    }

    /// What the entries of all groups cost, as [`Entry::cost_bytes`] counts.
    pub fn bytes(&self) -> usize {
        self.logs().map(Held::bytes).sum()
    }

    /// A record of a group of which nothing is known.
    fn on_unknown(&mut self, lsn: Lsn, record: &GroupRecord) -> Result<(), GroupLogError> {
        let (group, replica) = (record.group(), record.replica());
        let known = match record {
            GroupRecord::Standing { hard_state, start, last, .. } => {
                let held = Held::new((group, replica), lsn, (*hard_state, start), *last)?;
                Known::Log(Box::new(held))
            }
            _ if !self.recovering => return Err(GroupLogError::NoBeginning { group, replica }),
            GroupRecord::Removed { .. } => return Ok(()),
            _ => Known::Replica(replica),
        };
        self.groups.insert(group, known);
        Ok(())
    }

    fn held(&self, group: GroupId) -> Option<&Held> {
        match self.groups.get(&group)? {
            Known::Log(held) => Some(held),
            Known::Replica(_) => None,
        }
    }

    fn logs(&self) -> impl Iterator<Item = &Held> {
        self.groups.values().filter_map(|known| match known {
            Known::Log(held) => Some(&**held),
            Known::Replica(_) => None,
        })
    }
}

impl Known {
    fn replica(&self) -> ReplicaId {
        match self {
            Known::Replica(replica) => *replica,
            Known::Log(held) => held.replica(),
        }
    }
}

#[cfg(test)]
mod tests;
