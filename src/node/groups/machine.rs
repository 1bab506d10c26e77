//! The state machine of a group, whichever kind it is.

use std::sync::Arc;

use bytes::Bytes;

use crate::node::groups::overlay::{GroupRowError, GroupRows};
use crate::protocol::group::applied::AppliedState;
use crate::protocol::group::command::Command;
use crate::protocol::group::machine::{ApplyError, Machine};
use crate::protocol::group::sessions::{Session, SessionLimits};
use crate::protocol::raft::entry::{Entry, LogStart, Payload};
use crate::protocol::system::command::{CommandError, SystemRequest};
use crate::protocol::system::state::{StateError, SystemState};
use crate::types::{Key, KeyspaceId, Record, Revision, Row, Version};

/// The key of the system state's row.
const STATE_KEY: &str = "state";

/// What a group's entries act on.
pub(crate) enum GroupMachine {
    /// The keys of a partition's strong keyspaces.
    Strong(Box<Machine>),
    /// The cluster's facts.
    System(Box<SystemMachine>),
}

/// What one entry came to.
pub(crate) struct Told {
    /// What its proposer hears; none for an entry that nobody proposed.
    pub(crate) reply: Option<Bytes>,
    /// The rows that follow from it.
    pub(crate) rows: Vec<Row>,
}

/// Why an entry could not be applied. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    /// A row that it needs cannot be read.
    #[error(transparent)]
    Row(#[from] GroupRowError),
    /// A command of a newer program.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// An entry of a newer program.
    #[error("{detail}")]
    Entry {
        /// What is wrong with it.
        detail: String,
    },
}

impl MachineError {
    /// Whether rows are damaged, and the store goes on.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, MachineError::Row(error) if error.is_damage())
    }
}

impl GroupMachine {
    /// The machine of a strong partition, as its rows have it.
    pub(crate) fn strong(applied: AppliedState, sessions: Vec<Session>) -> GroupMachine {
        let limits = SessionLimits::default();
        GroupMachine::Strong(Box::new(Machine::new(applied, sessions.into_iter(), limits)))
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// [`MachineError`]; the entry may be tried again.
    pub(crate) fn apply(
        &mut self,
        entry: &Entry,
        rows: &GroupRows<'_>,
    ) -> Result<Told, MachineError> {
        match self {
            GroupMachine::System(machine) => machine.apply(entry),
            GroupMachine::Strong(machine) => {
                let applied = machine.apply(entry, rows).map_err(|error| match error {
                    ApplyError::Rows { source, .. } => MachineError::Row(source),
                    other => MachineError::Entry { detail: other.to_string() },
                })?;
                let reply = applied.reply.map(|reply| reply.encode());
                Ok(Told { reply, rows: applied.rows })
            }
        }
    }

    /// The keys whose rows an entry may act on.
    pub(crate) fn reads(&self, entry: &Entry) -> Vec<(KeyspaceId, Key)> {
        match (self, &entry.payload) {
            (GroupMachine::Strong(_), Payload::Command(command)) => {
                let command = Command::decode(command);
                command.map(|command| command.reads().collect()).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// How far it has come.
    pub(crate) fn applied(&self) -> &AppliedState {
        match self {
            GroupMachine::Strong(machine) => machine.applied(),
            GroupMachine::System(machine) => &machine.applied,
        }
    }

    /// The rows that a snapshot ends with: what the machine keeps of itself.
    pub(crate) fn own_rows(&self) -> Vec<Row> {
        match self {
            GroupMachine::Strong(machine) => vec![machine.applied_row()],
            GroupMachine::System(machine) => machine.own_rows(),
        }
    }

    /// The row that says so.
    pub(crate) fn applied_row(&self) -> Row {
        self.applied().to_row()
    }
}

/// The system group's machine: it keeps its whole state in one row.
pub(crate) struct SystemMachine {
    state: Option<Arc<SystemState>>,
    applied: AppliedState,
}

impl SystemMachine {
    /// A machine in a state that was kept; `None` for a replica that waits for a snapshot.
    pub(crate) fn new(state: Option<SystemState>, applied: AppliedState) -> SystemMachine {
        SystemMachine { state: state.map(Arc::new), applied }
    }

    /// A machine as its group is founded: the state counts as what the first entry came to, so that
    /// every other replica begins with a snapshot.
    pub(crate) fn founding(state: SystemState, start: &LogStart) -> SystemMachine {
        let applied = AppliedState {
            position: start.position,
            revision: Revision(start.position.index.0),
            membership: start.membership.clone(),
            membership_index: start.membership_index,
            ..AppliedState::default()
        };
        SystemMachine::new(Some(state), applied)
    }

    /// The state, once there is one.
    pub(crate) fn state(&self) -> Option<&Arc<SystemState>> {
        self.state.as_ref()
    }

    /// The rows of the present state, and of how far it has come.
    pub(crate) fn own_rows(&self) -> Vec<Row> {
        self.state_row().into_iter().chain([self.applied.to_row()]).collect()
    }

    fn state_row(&self) -> Option<Row> {
        let state = self.state.as_ref()?;
        let version = Version::from(self.applied.revision);
        let record = Record::new(version, Some(state.encode().into()));
        Some(Row { keyspace: KeyspaceId::GROUP, key: Key::from(STATE_KEY), record })
    }

    /// The key of that row.
    pub(crate) fn state_key() -> Key {
        Key::from(STATE_KEY)
    }

    /// Reads the state's row back.
    ///
    /// # Errors
    /// [`StateError`] when another program wrote it.
    pub(crate) fn read_state(record: Option<&Record>) -> Result<Option<SystemState>, StateError> {
        let value = record.and_then(|record| record.value.as_ref());
        value.map(|value| SystemState::decode(value)).transpose()
    }

    fn apply(&mut self, entry: &Entry) -> Result<Told, MachineError> {
        let mut told = Told { reply: None, rows: Vec::new() };
        let mut next = None;
        if let Payload::Command(command) = &entry.payload {
            let request = SystemRequest::decode(command)?;
            let state = self.state.as_ref().ok_or_else(|| MachineError::Entry {
                detail: "an entry of the system group came before the founding state".to_owned(),
            })?;
            let mut changed = SystemState::clone(state);
            let outcome = changed.apply(entry.index, &request);
            let text = serde_json::to_vec(&outcome);
            told.reply =
                Some(text.expect("invariant: an outcome has only text for map keys").into());
            next = (changed != **state).then(|| Arc::new(changed));
        }
        self.applied.position = entry.position();
        self.applied.revision = Revision(entry.index.0);
        if let Payload::Membership(membership) = &entry.payload {
            self.applied.membership = membership.clone();
            self.applied.membership_index = entry.index;
        }
        if let Some(next) = next {
            self.state = Some(next);
            told.rows.extend(self.state_row());
        }
        Ok(told)
    }
}
