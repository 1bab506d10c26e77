//! What a node's groups begin with: from its log and table after a restart, or from nothing.

use std::collections::BTreeSet;

use crate::node::groups::group::Beginning;
use crate::node::groups::incoming::{MARK, mark};
use crate::node::groups::machine::{GroupMachine, SystemMachine};
use crate::protocol::group::applied::AppliedState;
use crate::protocol::group::sessions::Session;
use crate::protocol::raft::entry::{Entry, HardState, LogPosition, LogStart, Payload, Restored};
use crate::protocol::raft::membership::Membership;
use crate::protocol::raft::planted::{Planted, planted};
use crate::protocol::system::SystemState;
use crate::storage::group_log::{GroupLogs, StoredLog};
use crate::storage::store::{Store, StoreError};
use crate::storage::wal::{GroupRecord, LogRecord};
use crate::types::{
    GroupId, Key, KeyspaceId, LogIndex, PartitionId, ReplicaId, Revision, Row, Term, Timestamp,
};

/// Bytes of sessions read at once.
const PAGE_BYTES: usize = 256 * 1024;

/// Why a group cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A session is damaged: what it has executed is not known.
    #[error("the stored record of session {key:?} is corrupt")]
    Damaged {
        /// The session's key.
        key: Key,
    },
    /// The table holds for the group what no program wrote.
    #[error("the rows of group {group} cannot be read: {detail}")]
    Rows {
        /// The group.
        group: GroupId,
        /// What is wrong.
        detail: String,
    },
}

impl OpenError {
    /// Whether sessions are damaged, and the store goes on.
    fn is_damage(&self) -> bool {
        match self {
            OpenError::Damaged { .. } => true,
            OpenError::Store(error) => error.is_damage(),
            OpenError::Rows { .. } => false,
        }
    }
}

/// The groups that the log knows, as they were, and the records that remove those whose replica
/// here is given up.
///
/// Those whose rows are lost are not opened: for each there is a record that removes it.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn open(
    logs: &GroupLogs,
    store: &Store,
) -> Result<(Vec<Beginning>, Vec<LogRecord>), OpenError> {
    let (mut opened, mut removed) = (Vec::new(), Vec::new());
    for group in logs.groups() {
        let Some(log) = logs.restored(group) else { continue };
        let replica = log.replica;
        match open_group(group, log, store)? {
            Some(beginning) => opened.push(beginning),
            None => removed.push(LogRecord::Group(GroupRecord::Removed { group, replica })),
        }
    }
    Ok((opened, removed))
}

/// Rows that mark tables of no single moment, with where they lie.
type Marks = Vec<(PartitionId, Row)>;

/// What gives up every replica whose rows are lost: the records, and the marks among them, which
/// keep replicas that take their places from doing anything before a snapshot is in place.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn give_up(
    logs: &GroupLogs,
    store: &Store,
    partitions: u32,
    stamp: Timestamp,
) -> Result<(Vec<LogRecord>, Marks), OpenError> {
    let mut groups: BTreeSet<GroupId> = logs.groups().collect();
    // Q is at most 32,768, so that every partition's number fits 16 bits.
    let all = (0..partitions).map(|number| GroupId(number as u16)).chain([GroupId::SYSTEM]);
    for group in all {
        if applied(group, store)?.is_some() {
            groups.insert(group);
        }
    }
    let removed = logs.groups().filter_map(|group| {
        let replica = logs.restored(group)?.replica;
        Some(LogRecord::Group(GroupRecord::Removed { group, replica }))
    });
    let marks: Marks = groups.iter().map(|group| (group.partition(), mark(stamp, true))).collect();
    let mut records: Vec<LogRecord> = removed.collect();
    if !marks.is_empty() {
        records.push(LogRecord::Rows(marks.clone()));
    }
    Ok((records, marks))
}

fn open_group(
    group: GroupId,
    log: StoredLog,
    store: &Store,
) -> Result<Option<Beginning>, OpenError> {
    let StoredLog { replica, mut hard_state, start, entries } = log;
    if planted(Planted::ForgetVoteOnRestart) {
        hard_state = HardState { commit: hard_state.commit, ..HardState::default() };
    }
    let applied = applied(group, store)?.unwrap_or_else(|| nothing_applied(&start));
    if applied.position.index < start.position.index {
        // The rows are lost with the engine: what this replica voted for it no longer knows whole.
        tracing::warn!(%group, %replica, "the rows of a group are lost; its replica is given up");
        return Ok(None);
    }
    let last = entries.last().map_or(start.position.index, |entry| entry.index);
    // Somebody else must have the rows that are damaged here.
    let has_others = has_others(replica, [&start.membership, &applied.membership], &entries);
    let mut restored = Restored { hard_state, start, entries, applied: applied.position.index };
    if applied.position.index > last {
        restored.start = start_of(&applied);
        restored.entries.clear();
    }
    let (machine, is_sound) = match load_machine(group, applied.clone(), store) {
        Err(error) if group != GroupId::SYSTEM && error.is_damage() && has_others => {
            (without_sessions(group, applied, &error), false)
        }
        loaded => (loaded?, true),
    };
    let installing = is_marked(group, store)? || !is_sound;
    Ok(Some(Beginning { id: group, replica, restored, machine, installing }))
}

/// Whether a group has other voters, by what its log began with, what was applied, or what follows.
fn has_others(replica: ReplicaId, known: [&Membership; 2], entries: &[Entry]) -> bool {
    let changed = entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some(membership),
        _ => None,
    });
    let mut voters = known.into_iter().chain(changed).flat_map(|it| it.voters.iter());
    voters.any(|voter| *voter != replica)
}

/// The machine of a replica that waits for a snapshot, as sessions of its own are damaged.
fn without_sessions(group: GroupId, applied: AppliedState, error: &OpenError) -> GroupMachine {
    tracing::error!(%group, %error, "a replica waits for a snapshot");
    GroupMachine::strong(applied, Vec::new())
}

/// The machine of a group as its rows have it.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn load_machine(
    group: GroupId,
    applied: AppliedState,
    store: &Store,
) -> Result<GroupMachine, OpenError> {
    if group == GroupId::SYSTEM {
        let record =
            store.read_rising(KeyspaceId::GROUP, group.partition(), &SystemMachine::state_key())?;
        let state = SystemMachine::read_state(record.as_ref())
            .map_err(|error| OpenError::Rows { group, detail: error.to_string() })?;
        return Ok(GroupMachine::System(Box::new(SystemMachine::new(state, applied))));
    }
    Ok(GroupMachine::strong(applied, sessions(group, store)?))
}

/// How far a group's rows have come; `None` for a group that has none.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn applied(group: GroupId, store: &Store) -> Result<Option<AppliedState>, OpenError> {
    let key = AppliedState::key();
    let Some(record) = store.read_rising(KeyspaceId::GROUP, group.partition(), &key)? else {
        return Ok(None);
    };
    let row = Row { keyspace: KeyspaceId::GROUP, key, record };
    let applied = AppliedState::from_row(&row);
    applied.map_err(|error| OpenError::Rows { group, detail: error.to_string() })
}

/// A replica without a log. It begins with what an earlier replica of the group left here in rows,
/// which is the state at one of the group's entries, or with nothing but its founders.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn new_group(
    group: GroupId,
    replica: ReplicaId,
    founders: Membership,
    store: &Store,
) -> Result<Beginning, OpenError> {
    let installing = is_marked(group, store)?;
    let held = if installing { None } else { applied(group, store)? };
    let applied = held.unwrap_or_else(|| AppliedState::founding(founders));
    let restored = Restored {
        hard_state: HardState::default(),
        start: start_of(&applied),
        entries: Vec::new(),
        applied: applied.position.index,
    };
    let (machine, is_sound) = match load_machine(group, applied.clone(), store) {
        Err(error) if group != GroupId::SYSTEM && error.is_damage() => {
            (without_sessions(group, applied, &error), false)
        }
        loaded => (loaded?, true),
    };
    let installing = installing || !is_sound;
    Ok(Beginning { id: group, replica, restored, machine, installing })
}

/// The system group of a new cluster, and what must be durable before it begins.
pub(crate) fn found_system(
    state: SystemState,
    replica: ReplicaId,
    membership: Membership,
) -> (Beginning, Vec<LogRecord>) {
    let (group, first) = (GroupId::SYSTEM, LogIndex(1));
    let position = LogPosition { index: first, term: Term(1) };
    let start = LogStart { position, membership, membership_index: first };
    let machine = SystemMachine::founding(state, &start);
    let hard_state = HardState { term: Term(1), voted_for: Some(replica), commit: first };
    let partition = group.partition();
    let rows = machine.own_rows().into_iter().map(|row| (partition, row)).collect();
    let records = vec![
        LogRecord::Group(GroupRecord::founding(group, replica, hard_state, start.clone())),
        LogRecord::Rows(rows),
    ];
    let restored = Restored { hard_state, start, entries: Vec::new(), applied: first };
    let machine = GroupMachine::System(Box::new(machine));
    (Beginning { id: group, replica, restored, machine, installing: false }, records)
}

/// The record with which the log of a new replica begins.
pub(crate) fn start_record(beginning: &Beginning) -> LogRecord {
    let Restored { hard_state, start, .. } = &beginning.restored;
    let (group, replica) = (beginning.id, beginning.replica);
    LogRecord::Group(GroupRecord::founding(group, replica, *hard_state, start.clone()))
}

/// The log's beginning that fits what was applied.
pub(crate) fn start_of(applied: &AppliedState) -> LogStart {
    LogStart {
        position: applied.position,
        membership: applied.membership.clone(),
        membership_index: applied.membership_index,
    }
}

fn nothing_applied(start: &LogStart) -> AppliedState {
    AppliedState::founding(start.membership.clone())
}

fn is_marked(group: GroupId, store: &Store) -> Result<bool, OpenError> {
    let mark = store.read_rising(KeyspaceId::GROUP, group.partition(), &Key::from(MARK))?;
    Ok(mark.is_some_and(|record| record.value.is_some()))
}

/// Whether any row of a partition is newer than a revision.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn has_rows_above(
    revision: Revision,
    (keyspace, partition): (KeyspaceId, PartitionId),
    store: &Store,
) -> Result<bool, OpenError> {
    let mut after = None;
    loop {
        let page = store.scan(keyspace, partition, after.as_ref(), PAGE_BYTES)?;
        if page.rows.iter().any(|(_, record)| record.version > revision.into()) {
            return Ok(true);
        }
        after = page.rows.last().map(|(key, _)| key.clone());
        if page.done || after.is_none() {
            return Ok(false);
        }
    }
}

fn sessions(group: GroupId, store: &Store) -> Result<Vec<Session>, OpenError> {
    let partition: PartitionId = group.partition();
    let (mut sessions, mut after) = (Vec::new(), None);
    loop {
        let page = store.scan(KeyspaceId::SESSIONS, partition, after.as_ref(), PAGE_BYTES)?;
        if let Some(key) = page.missed() {
            return Err(OpenError::Damaged { key: key.clone() });
        }
        after = page.rows.last().map(|(key, _)| key.clone());
        for (key, record) in page.rows.into_iter().filter(|(_, record)| record.value.is_some()) {
            let row = Row { keyspace: KeyspaceId::SESSIONS, key, record };
            let session = Session::from_row(&row);
            sessions.extend(session.map_err(|e| OpenError::Rows { group, detail: e.to_string() })?);
        }
        if page.done || after.is_none() {
            return Ok(sessions);
        }
    }
}
