//! What becomes of a command: one method for each, and the way to them.

mod groups;
mod keyspaces;
pub(super) mod members;
mod reaping;
mod reshape;

use crate::protocol::system::command::{SystemCommand, SystemReply, SystemRequest};
use crate::protocol::system::refusal::SystemRefusal;
use crate::protocol::system::state::SystemState;
use crate::types::LogIndex;

impl SystemState {
    /// Applies the request of one committed entry of the system group's log.
    ///
    /// Entries are applied in order, each once. Whoever keeps the state keeps the index of the
    /// last entry with it, atomically.
    ///
    /// # Errors
    /// [`SystemRefusal`]; the state is then as it was before.
    pub fn apply(
        &mut self,
        index: LogIndex,
        request: &SystemRequest,
    ) -> Result<SystemReply, SystemRefusal> {
        let id = request.request_id;
        match &request.command {
            SystemCommand::Describe { node, member, joins } => {
                self.describe(index, *node, member, *joins)
            }
            SystemCommand::Reshape { join, leave, replace, expected_epoch } => {
                self.reshape(join, leave, replace, *expected_epoch)
            }
            SystemCommand::Advance { prepare, settle, expected_epoch } => {
                self.advance(prepare, settle, *expected_epoch)
            }
            SystemCommand::Synced { node, incarnation, partitions } => {
                self.synced(*node, *incarnation, partitions)
            }
            SystemCommand::Shared { node, incarnation, partitions } => {
                self.shared(*node, *incarnation, partitions)
            }
            SystemCommand::Retire { node } => self.retire(index, *node),
            SystemCommand::Remove { node, expected_epoch } => {
                self.remove(index, *node, *expected_epoch)
            }
            SystemCommand::CreateKeyspace { name, mode, merge, replication, limits } => {
                let asked = (replication.unwrap_or_default(), *limits);
                self.create_keyspace((index, id), name, (*mode, *merge), asked)
            }
            SystemCommand::AlterKeyspace { name, replication, limits } => {
                self.alter_keyspace(id, name, (*replication, *limits))
            }
            SystemCommand::DropKeyspace { name } => self.drop_keyspace(index, id, name),
            SystemCommand::Followed { groups } => Ok(self.followed(groups)),
            SystemCommand::PlaceGroup { group, expected_generation, nodes } => {
                self.place_group(index, *group, *expected_generation, nodes)
            }
        }
    }
}

#[cfg(test)]
mod tests;
