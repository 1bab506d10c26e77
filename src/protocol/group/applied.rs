//! How far a group was applied, as a row among the rows that it speaks of.
//!
//! The row is written with the rows of each pass of applying, in one record of the log. So a
//! replica that restarts finds the state after some entry, and knows after which one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes};

use crate::protocol::group::codec::{DecodeError, Reader, put_list};
use crate::protocol::group::stored::{RowError, Stored};
use crate::protocol::raft::entry::LogPosition;
use crate::protocol::raft::membership::Membership;
use crate::types::{Key, KeyspaceId, LogIndex, NodeId, ReplicaId, Revision, Row, Term};

/// How many dropped keyspaces a group remembers; beyond, it forgets those with the lowest numbers.
/// They are remembered for the sake of leaders that have not heard of a drop yet.
pub const KEYSPACES_DROPPED_MAX: usize = 256;

/// What a machine knows besides rows and sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedState {
    /// The last entry that was applied.
    pub position: LogPosition,
    /// Its revision.
    pub revision: Revision,
    /// The membership that was last applied.
    pub membership: Membership,
    /// The index of the entry that said so; 0 for the membership that the group was created with.
    pub membership_index: LogIndex,
    /// Keyspaces that are gone: whatever rows they still have here count for nothing.
    pub dropped: BTreeSet<KeyspaceId>,
}

const WHAT: &str = "a group's applied state";
const VERSION: u8 = 1;
const KEY: &[u8] = b"applied";

impl AppliedState {
    /// The state of a group that was just created.
    pub fn founding(membership: Membership) -> AppliedState {
        AppliedState { membership, ..AppliedState::default() }
    }

    /// Where the row lies.
    pub fn key() -> Key {
        Key(Bytes::from_static(KEY))
    }

    /// The row that keeps the state.
    pub fn to_row(&self) -> Row {
        let mut value = vec![VERSION];
        value.put_u64_le(self.position.index.0);
        value.put_u64_le(self.position.term.0);
        put_membership(&self.membership, &mut value);
        value.put_u64_le(self.membership_index.0);
        put_list(self.dropped.iter(), &mut value, |keyspace, out| out.put_u32_le(keyspace.0));
        let (created, modified) = (self.revision, self.revision);
        let stored = Stored { created, modified, value: Some(value.into()) };
        Row { keyspace: KeyspaceId::GROUP, key: AppliedState::key(), record: stored.to_record() }
    }

    /// Reads the row; `None` for a tombstone, which a group leaves that was taken away.
    ///
    /// # Errors
    /// [`RowError`] for a row that no machine made.
    pub fn from_row(row: &Row) -> Result<Option<AppliedState>, RowError> {
        if row.keyspace != KeyspaceId::GROUP || row.key != AppliedState::key() {
            let (keyspace, key) = (row.keyspace, row.key.clone());
            return Err(RowError::Misplaced { what: WHAT, keyspace, key });
        }
        let stored = Stored::from_record(&row.record)
            .map_err(|source| RowError::Record { what: WHAT, source })?;
        let Some(value) = &stored.value else { return Ok(None) };
        let state = take_state(value, stored.modified);
        state.map(Some).map_err(|source| RowError::Value { what: WHAT, source })
    }

    /// Notes that a keyspace is gone.
    pub(super) fn drop_keyspace(&mut self, keyspace: KeyspaceId) {
        self.dropped.insert(keyspace);
        while self.dropped.len() > KEYSPACES_DROPPED_MAX {
            self.dropped.pop_first();
        }
    }
}

fn take_state(value: &[u8], revision: Revision) -> Result<AppliedState, DecodeError> {
    let mut reader = Reader::versioned(WHAT, VERSION, value)?;
    let (index, term) = (LogIndex(reader.u64()?), Term(reader.u64()?));
    let state = AppliedState {
        position: LogPosition { index, term },
        revision,
        membership: take_membership(&mut reader)?,
        membership_index: LogIndex(reader.u64()?),
        dropped: reader.list(|reader| reader.u32().map(KeyspaceId))?.into_iter().collect(),
    };
    reader.finish(state)
}

fn put_membership(membership: &Membership, out: &mut Vec<u8>) {
    for set in [&membership.voters, &membership.outgoing, &membership.learners] {
        put_list(set.iter(), out, |replica, out| out.put_u64_le(replica.0));
    }
    put_list(membership.nodes.iter(), out, |(replica, node), out| {
        out.put_u64_le(replica.0);
        out.put_u64_le(node.0);
    });
}

fn take_membership(reader: &mut Reader<'_>) -> Result<Membership, DecodeError> {
    Ok(Membership {
        voters: take_replicas(reader)?,
        outgoing: take_replicas(reader)?,
        learners: take_replicas(reader)?,
        nodes: take_nodes(reader)?,
    })
}

fn take_replicas(reader: &mut Reader<'_>) -> Result<BTreeSet<ReplicaId>, DecodeError> {
    let replicas = reader.list(|reader| reader.u64().map(ReplicaId))?;
    Ok(replicas.into_iter().collect())
}

fn take_nodes(reader: &mut Reader<'_>) -> Result<BTreeMap<ReplicaId, NodeId>, DecodeError> {
    let nodes = reader.list(|reader| Ok((ReplicaId(reader.u64()?), NodeId(reader.u64()?))))?;
    Ok(nodes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Incarnation, Timestamp, Version};

    fn any_state() -> impl Strategy<Value = AppliedState> {
        let replicas = || {
            btree_set(any::<u64>(), 0..4)
                .prop_map(|set| set.into_iter().map(ReplicaId).collect::<BTreeSet<_>>())
        };
        let nodes =
            btree_map(any::<u64>().prop_map(ReplicaId), any::<u64>().prop_map(NodeId), 0..4);
        let membership = (replicas(), replicas(), replicas(), nodes).prop_map(
            |(voters, outgoing, learners, nodes)| Membership { voters, outgoing, learners, nodes },
        );
        let dropped = btree_set(any::<u32>().prop_map(KeyspaceId), 0..4);
        (any::<[u64; 4]>(), membership, dropped).prop_map(
            |([index, term, revision, membership_index], membership, dropped)| AppliedState {
                position: LogPosition { index: LogIndex(index), term: Term(term) },
                revision: Revision(revision),
                membership,
                membership_index: LogIndex(membership_index),
                dropped,
            },
        )
    }

    proptest! {
        #[test]
        fn the_state_survives_its_row(state in any_state()) {
            prop_assert_eq!(AppliedState::from_row(&state.to_row()), Ok(Some(state)));
        }

        #[test]
        fn a_row_cut_short_is_found(state in any_state(), cut in any::<prop::sample::Index>()) {
            let mut row = state.to_row();
            let value = row.record.value.take().unwrap();
            // The first eight bytes are those of every stored value.
            row.record.value = Some(value.slice(..8 + cut.index(value.len() - 8)));
            let source = DecodeError::EndsEarly;
            let expected = Err(RowError::Value { what: WHAT, source });
            prop_assert_eq!(AppliedState::from_row(&row), expected);
        }

        #[test]
        fn no_value_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let version = Version { timestamp: Timestamp(u64::MAX), incarnation: Incarnation(0) };
            let mut row = AppliedState::default().to_row();
            row.record = crate::types::Record::new(version, Some(bytes.into()));
            let _ = AppliedState::from_row(&row);
        }
    }

    #[test]
    fn a_row_of_something_else_is_refused_by_name() {
        let row = Row { key: Key::from("other"), ..AppliedState::default().to_row() };
        let error = AppliedState::from_row(&row).unwrap_err().to_string();
        assert!(error.contains("\"other\"") && error.contains(WHAT), "{error}");
        let row = Row { keyspace: KeyspaceId::DEFAULT, ..AppliedState::default().to_row() };
        assert!(matches!(AppliedState::from_row(&row), Err(RowError::Misplaced { .. })));
    }

    #[test]
    fn the_drops_that_are_remembered_are_bounded() {
        let mut state = AppliedState::default();
        let count = u32::try_from(KEYSPACES_DROPPED_MAX).unwrap();
        (0..count + 2).for_each(|number| state.drop_keyspace(KeyspaceId(number)));
        assert_eq!(state.dropped.len(), KEYSPACES_DROPPED_MAX);
        assert_eq!(state.dropped.first(), Some(&KeyspaceId(2)));
    }
}
