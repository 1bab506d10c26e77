//! Has the store make the keyspaces that the system group has created, and drop those that it has
//! dropped.

use crate::node::groups::driver::Driver;
use crate::node::groups::group::Group;
use crate::node::groups::machine::GroupMachine;
use crate::protocol::system::SystemState;
use crate::storage::wal::LogRecord;
use crate::types::KeyspaceId;

impl Driver {
    /// Makes the keyspaces of a state, and their limits, before anybody here is told of them.
    pub(super) fn make_keyspaces(&self, state: &SystemState) {
        self.seams.meters.follow(state);
        for keyspace in state.keyspaces() {
            if let Err(error) = self.seams.store.create_keyspace(keyspace.id) {
                self.seams.health.fail(format!("a keyspace cannot be made: {error}"));
            }
        }
    }

    /// Has the log say, and with it the store know, that keyspaces are gone which the system group
    /// has dropped. Seen again after a restart that brought rows of one back, it is said again.
    pub(super) fn drop_keyspaces(&mut self) {
        let Some(state) = self.newest_system() else { return };
        let held = self.seams.store.keyspaces();
        self.dropping.retain(|keyspace| held.contains(keyspace));
        let due: Vec<KeyspaceId> = held
            .into_iter()
            .filter(|keyspace| state.is_dropped(*keyspace) && !self.dropping.contains(keyspace))
            .filter(|keyspace| self.is_let_go(*keyspace, &state))
            .collect();
        self.dropping.extend(&due);
        self.host.write(due.into_iter().map(LogRecord::DropKeyspace).collect());
    }

    /// Whether no group here needs the rows of a dropped keyspace any more. A group that has not
    /// come to the entry that says so must find the rows that its other replicas find.
    fn is_let_go(&self, keyspace: KeyspaceId, state: &SystemState) -> bool {
        let has_let_go = |group: &Group| match &group.machine {
            GroupMachine::Strong(machine) => machine.applied().dropped.contains(&keyspace),
            GroupMachine::System(_) => true,
        };
        let is_strong = state.dropped_strong().any(|dropped| dropped == keyspace);
        let is_placed = |group: &&Group| state.groups().contains_key(&group.id);
        !is_strong || self.host.groups().filter(is_placed).all(has_let_go)
    }
}
