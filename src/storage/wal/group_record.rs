//! What the log says of Raft groups, and the bytes of it.
//!
//! Every record names the replica that it is of: numbers of replicas are never reused, so whatever
//! an earlier replica of the group left behind is told from what concerns the present one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut};

use crate::protocol::raft::entry::{Entry, HardState, LogPosition, LogStart, Payload};
use crate::protocol::raft::membership::Membership;
use crate::storage::wal::record::{LENGTH_BYTES, RecordError, put_bytes, take_bytes};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, Term};

/// One change of what a replica of a group must remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// The entries replace everything from the index of the first one on.
    Entries {
        /// The group.
        group: GroupId,
        /// Its replica here.
        replica: ReplicaId,
        /// The entries, without a gap.
        entries: Vec<Entry>,
    },
    /// The hard state is now this.
    HardState {
        /// The group.
        group: GroupId,
        /// Its replica here.
        replica: ReplicaId,
        /// The hard state.
        hard_state: HardState,
    },
    /// The log begins here from now on: entries up to there go, and all of them if the position is
    /// not that of one of them.
    Start {
        /// The group.
        group: GroupId,
        /// Its replica here.
        replica: ReplicaId,
        /// Where the log begins.
        start: LogStart,
    },
    /// The replica is gone, and what it remembered with it.
    Removed {
        /// The group.
        group: GroupId,
        /// Its replica here.
        replica: ReplicaId,
    },
    /// The log is this as it stands, with the entries that [`GroupRecord::Carried`] tells next.
    /// Without entries it is the first record of a new replica. For a log that is known it says
    /// nothing new, and lets go of older records.
    Standing {
        /// The group.
        group: GroupId,
        /// Its replica here.
        replica: ReplicaId,
        /// The hard state.
        hard_state: HardState,
        /// Where the log begins.
        start: LogStart,
        /// The last entry; that of the start if there is none.
        last: LogIndex,
    },
    /// The next entries of the log that stands so.
    Carried {
        /// The group.
        group: GroupId,
        /// Its replica here.
        replica: ReplicaId,
        /// The entries, without a gap.
        entries: Vec<Entry>,
    },
}

/// The kinds of records that are a group's; never reused.
const KIND_ENTRIES: u8 = 16;
const KIND_HARD_STATE: u8 = 17;
const KIND_START: u8 = 18;
const KIND_REMOVED: u8 = 19;
const KIND_STANDING: u8 = 20;
const KIND_CARRIED: u8 = 21;

/// What an entry says.
const TAG_EMPTY: u8 = 0;
const TAG_COMMAND: u8 = 1;
const TAG_MEMBERSHIP: u8 = 2;

/// Whether a vote follows.
const TAG_NO_VOTE: u8 = 0;
const TAG_VOTE: u8 = 1;

const WORD_BYTES: usize = 8;
/// Kind, group, replica.
const HEAD_BYTES: usize = 1 + 2 + WORD_BYTES;
/// Term, index, tag.
const ENTRY_FIXED_BYTES: usize = 2 * WORD_BYTES + 1;

impl GroupRecord {
    /// The first record of a replica that has no entries yet.
    pub fn founding(
        group: GroupId,
        replica: ReplicaId,
        hard_state: HardState,
        start: LogStart,
    ) -> GroupRecord {
        let last = start.position.index;
        GroupRecord::Standing { group, replica, hard_state, start, last }
    }

    /// Cuts entries into parts whose records have at most `record_bytes_max` bytes each, unless a
    /// single entry takes more.
    pub fn cut(
        entries: impl IntoIterator<Item = Entry>,
        record_bytes_max: usize,
    ) -> Vec<Vec<Entry>> {
        let mut parts: Vec<Vec<Entry>> = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            bytes += entry_bytes(&entry);
            match parts.last_mut() {
                Some(part) if bytes <= record_bytes_max => part.push(entry),
                _ => {
                    bytes = HEAD_BYTES + LENGTH_BYTES + entry_bytes(&entry);
                    parts.push(vec![entry]);
                }
            }
        }
        parts
    }

    /// The group that it is of.
    pub fn group(&self) -> GroupId {
        self.head().1
    }

    /// The replica that it is of.
    pub fn replica(&self) -> ReplicaId {
        self.head().2
    }

    fn head(&self) -> (u8, GroupId, ReplicaId) {
        match *self {
            GroupRecord::Entries { group, replica, .. } => (KIND_ENTRIES, group, replica),
            GroupRecord::HardState { group, replica, .. } => (KIND_HARD_STATE, group, replica),
            GroupRecord::Start { group, replica, .. } => (KIND_START, group, replica),
            GroupRecord::Removed { group, replica } => (KIND_REMOVED, group, replica),
            GroupRecord::Standing { group, replica, .. } => (KIND_STANDING, group, replica),
            GroupRecord::Carried { group, replica, .. } => (KIND_CARRIED, group, replica),
        }
    }

    /// Bytes that the record takes in a frame.
    pub(crate) fn encoded_bytes(&self) -> usize {
        let body = match self {
            GroupRecord::Entries { entries, .. } | GroupRecord::Carried { entries, .. } => {
                LENGTH_BYTES + entries.iter().map(entry_bytes).sum::<usize>()
            }
            GroupRecord::HardState { hard_state, .. } => hard_state_bytes(hard_state),
            GroupRecord::Start { start, .. } => start_bytes(start),
            GroupRecord::Removed { .. } => 0,
            GroupRecord::Standing { hard_state, start, .. } => {
                hard_state_bytes(hard_state) + start_bytes(start) + WORD_BYTES
            }
        };
        HEAD_BYTES + body
    }

    /// Appends the record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, group, replica) = self.head();
        out.put_u8(kind);
        out.put_u16_le(group.0);
        out.put_u64_le(replica.0);
        match self {
            GroupRecord::Entries { entries, .. } | GroupRecord::Carried { entries, .. } => {
                put_count(entries.len(), out);
                entries.iter().for_each(|entry| encode_entry(entry, out));
            }
            GroupRecord::HardState { hard_state, .. } => encode_hard_state(hard_state, out),
            GroupRecord::Start { start, .. } => encode_start(start, out),
            GroupRecord::Removed { .. } => {}
            GroupRecord::Standing { hard_state, start, last, .. } => {
                encode_hard_state(hard_state, out);
                encode_start(start, out);
                out.put_u64_le(last.0);
            }
        }
    }

    /// Takes what follows the byte of kind off the front of `bytes`.
    pub(super) fn decode(kind: u8, bytes: &mut &[u8]) -> Result<GroupRecord, RecordError> {
        if !(KIND_ENTRIES..=KIND_CARRIED).contains(&kind) {
            return Err(RecordError::UnknownKind { kind });
        }
        let group = GroupId(bytes.try_get_u16_le()?);
        let replica = ReplicaId(bytes.try_get_u64_le()?);
        Ok(match kind {
            KIND_ENTRIES => {
                GroupRecord::Entries { group, replica, entries: decode_entries(bytes)? }
            }
            KIND_HARD_STATE => {
                GroupRecord::HardState { group, replica, hard_state: decode_hard_state(bytes)? }
            }
            KIND_START => GroupRecord::Start { group, replica, start: decode_start(bytes)? },
            KIND_REMOVED => GroupRecord::Removed { group, replica },
            KIND_STANDING => GroupRecord::Standing {
                group,
                replica,
                hard_state: decode_hard_state(bytes)?,
                start: decode_start(bytes)?,
                last: LogIndex(bytes.try_get_u64_le()?),
            },
            _ => GroupRecord::Carried { group, replica, entries: decode_entries(bytes)? },
        })
    }
}

/// Bytes that an entry takes in a record.
fn entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        Payload::Empty => 0,
        Payload::Command(command) => LENGTH_BYTES + command.len(),
        Payload::Membership(membership) => membership_bytes(membership),
    };
    ENTRY_FIXED_BYTES + payload
}

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.put_u64_le(entry.term.0);
    out.put_u64_le(entry.index.0);
    match &entry.payload {
        Payload::Empty => out.put_u8(TAG_EMPTY),
        Payload::Command(command) => {
            out.put_u8(TAG_COMMAND);
            put_bytes(command, out);
        }
        Payload::Membership(membership) => {
            out.put_u8(TAG_MEMBERSHIP);
            encode_membership(membership, out);
        }
    }
}

fn decode_entries(bytes: &mut &[u8]) -> Result<Vec<Entry>, RecordError> {
    (0..bytes.try_get_u32_le()?).map(|_| decode_entry(bytes)).collect()
}

fn decode_entry(bytes: &mut &[u8]) -> Result<Entry, RecordError> {
    let term = Term(bytes.try_get_u64_le()?);
    let index = LogIndex(bytes.try_get_u64_le()?);
    let payload = match bytes.try_get_u8()? {
        TAG_EMPTY => Payload::Empty,
        TAG_COMMAND => Payload::Command(take_bytes(bytes)?),
        TAG_MEMBERSHIP => Payload::Membership(decode_membership(bytes)?),
        _ => return Err(RecordError::Malformed { reason: "no payload of an entry" }),
    };
    Ok(Entry { term, index, payload })
}

fn hard_state_bytes(hard_state: &HardState) -> usize {
    let vote = hard_state.voted_for.map_or(0, |_| WORD_BYTES);
    2 * WORD_BYTES + 1 + vote
}

fn encode_hard_state(hard_state: &HardState, out: &mut Vec<u8>) {
    out.put_u64_le(hard_state.term.0);
    out.put_u64_le(hard_state.commit.0);
    match hard_state.voted_for {
        None => out.put_u8(TAG_NO_VOTE),
        Some(replica) => {
            out.put_u8(TAG_VOTE);
            out.put_u64_le(replica.0);
        }
    }
}

fn decode_hard_state(bytes: &mut &[u8]) -> Result<HardState, RecordError> {
    let term = Term(bytes.try_get_u64_le()?);
    let commit = LogIndex(bytes.try_get_u64_le()?);
    let voted_for = match bytes.try_get_u8()? {
        TAG_NO_VOTE => None,
        TAG_VOTE => Some(ReplicaId(bytes.try_get_u64_le()?)),
        _ => return Err(RecordError::Malformed { reason: "neither a vote nor none" }),
    };
    Ok(HardState { term, voted_for, commit })
}

fn start_bytes(start: &LogStart) -> usize {
    3 * WORD_BYTES + membership_bytes(&start.membership)
}

fn encode_start(start: &LogStart, out: &mut Vec<u8>) {
    out.put_u64_le(start.position.index.0);
    out.put_u64_le(start.position.term.0);
    out.put_u64_le(start.membership_index.0);
    encode_membership(&start.membership, out);
}

fn decode_start(bytes: &mut &[u8]) -> Result<LogStart, RecordError> {
    let index = LogIndex(bytes.try_get_u64_le()?);
    let term = Term(bytes.try_get_u64_le()?);
    let membership_index = LogIndex(bytes.try_get_u64_le()?);
    let membership = decode_membership(bytes)?;
    Ok(LogStart { position: LogPosition { index, term }, membership, membership_index })
}

fn membership_bytes(membership: &Membership) -> usize {
    let sets = [&membership.voters, &membership.outgoing, &membership.learners];
    let replicas: usize = sets.iter().map(|set| LENGTH_BYTES + WORD_BYTES * set.len()).sum();
    replicas + LENGTH_BYTES + 2 * WORD_BYTES * membership.nodes.len()
}

fn encode_membership(membership: &Membership, out: &mut Vec<u8>) {
    for set in [&membership.voters, &membership.outgoing, &membership.learners] {
        put_count(set.len(), out);
        set.iter().for_each(|replica| out.put_u64_le(replica.0));
    }
    put_count(membership.nodes.len(), out);
    for (replica, node) in &membership.nodes {
        out.put_u64_le(replica.0);
        out.put_u64_le(node.0);
    }
}

fn decode_membership(bytes: &mut &[u8]) -> Result<Membership, RecordError> {
    let voters = decode_replicas(bytes)?;
    let outgoing = decode_replicas(bytes)?;
    let learners = decode_replicas(bytes)?;
    let mut nodes = BTreeMap::new();
    for _ in 0..bytes.try_get_u32_le()? {
        let replica = ReplicaId(bytes.try_get_u64_le()?);
        nodes.insert(replica, NodeId(bytes.try_get_u64_le()?));
    }
    Ok(Membership { voters, outgoing, learners, nodes })
}

fn decode_replicas(bytes: &mut &[u8]) -> Result<BTreeSet<ReplicaId>, RecordError> {
    (0..bytes.try_get_u32_le()?).map(|_| Ok(ReplicaId(bytes.try_get_u64_le()?))).collect()
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    out.put_u32_le(u32::try_from(count).expect("invariant: a record fits into a segment"));
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn any_replicas() -> impl Strategy<Value = BTreeSet<ReplicaId>> {
        btree_set(any::<u64>().prop_map(ReplicaId), 0..5)
    }

    fn any_membership() -> impl Strategy<Value = Membership> {
        let nodes =
            btree_map(any::<u64>().prop_map(ReplicaId), any::<u64>().prop_map(NodeId), 0..5);
        (any_replicas(), any_replicas(), any_replicas(), nodes).prop_map(
            |(voters, outgoing, learners, nodes)| Membership { voters, outgoing, learners, nodes },
        )
    }

    fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
        let payload = prop_oneof![
            Just(Payload::Empty),
            vec(any::<u8>(), 0..200).prop_map(|bytes| Payload::Command(Bytes::from(bytes))),
            any_membership().prop_map(Payload::Membership),
        ];
        let entry = (any::<u64>(), any::<u64>(), payload).prop_map(|(term, index, payload)| {
            Entry { term: Term(term), index: LogIndex(index), payload }
        });
        vec(entry, 0..5)
    }

    fn any_hard_state() -> impl Strategy<Value = HardState> {
        (any::<u64>(), any::<Option<u64>>(), any::<u64>()).prop_map(|(term, vote, commit)| {
            HardState { term: Term(term), voted_for: vote.map(ReplicaId), commit: LogIndex(commit) }
        })
    }

    fn any_start() -> impl Strategy<Value = LogStart> {
        (any::<[u64; 3]>(), any_membership()).prop_map(|([index, term, at], membership)| LogStart {
            position: LogPosition { index: LogIndex(index), term: Term(term) },
            membership,
            membership_index: LogIndex(at),
        })
    }

    /// A record of a group, of any kind.
    pub(in super::super) fn any_group_record() -> impl Strategy<Value = GroupRecord> {
        let parts = (any_entries(), any_hard_state(), any_start(), any::<u64>());
        (0..6, any::<u16>(), any::<u64>(), parts).prop_map(|(kind, group, replica, parts)| {
            let (group, replica) = (GroupId(group), ReplicaId(replica));
            let (entries, hard_state, start, last) = parts;
            match kind {
                0 => GroupRecord::Entries { group, replica, entries },
                1 => GroupRecord::HardState { group, replica, hard_state },
                2 => GroupRecord::Start { group, replica, start },
                3 => GroupRecord::Removed { group, replica },
                4 => {
                    let last = LogIndex(last);
                    GroupRecord::Standing { group, replica, hard_state, start, last }
                }
                _ => GroupRecord::Carried { group, replica, entries },
            }
        })
    }

    proptest! {
        #[test]
        fn an_entry_takes_the_bytes_that_are_counted(entries in any_entries()) {
            for entry in entries {
                let mut bytes = Vec::new();
                encode_entry(&entry, &mut bytes);
                prop_assert_eq!(bytes.len(), entry_bytes(&entry));
            }
        }

        #[test]
        fn entries_are_cut_no_finer_than_they_must_be(
            entries in any_entries(),
            record_bytes_max in 1..400usize,
        ) {
            let (group, replica) = (GroupId(1), ReplicaId(1));
            let bytes = |entries: &[Entry]| {
                GroupRecord::Carried { group, replica, entries: entries.to_vec() }.encoded_bytes()
            };
            let parts = GroupRecord::cut(entries.clone(), record_bytes_max);
            prop_assert_eq!(parts.concat(), entries);
            for part in &parts {
                prop_assert!(part.len() == 1 || bytes(part) <= record_bytes_max);
            }
            for pair in parts.windows(2) {
                prop_assert!(bytes(&[&pair[0][..], &pair[1][..1]].concat()) > record_bytes_max);
            }
        }

        #[test]
        fn no_bytes_of_a_group_panic(kind in 16u8..22, bytes in vec(any::<u8>(), 0..64)) {
            let _ = GroupRecord::decode(kind, &mut &bytes[..]);
        }
    }

    #[test]
    fn counts_beyond_the_bytes_are_malformed_and_take_no_memory() {
        for kind in [KIND_ENTRIES, KIND_START, KIND_CARRIED] {
            let bytes = [0xff; 200];
            let decoded = GroupRecord::decode(kind, &mut &bytes[..]);
            assert!(matches!(decoded, Err(RecordError::Malformed { .. })), "kind {kind}");
        }
    }
}
