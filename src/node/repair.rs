//! Repairs that operators ask for.

pub use crate::node::anti_entropy::RepairProgress;
use crate::node::anti_entropy::RepairWish;
use crate::node::request::RequestError;
use crate::node::service::Node;
use crate::protocol::system::SystemState;
use crate::protocol::system::keyspace::Mode;
use crate::types::{KeyspaceId, PartitionId};

/// What an operator wants repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairAsked {
    /// A keyspace by name; all leaderless ones without.
    pub keyspace: Option<String>,
    /// A partition by number; all of them without.
    pub partition: Option<u32>,
}

impl Node {
    /// Begins to compare what this node owns with the other owners, before anything else that
    /// anti-entropy has to do.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] for a keyspace or partition that there is not, or that is not to
    /// be repaired; [`RequestError::NotServing`] while the node has no cluster.
    pub fn repair(&self, asked: &RepairAsked) -> Result<RepairProgress, RequestError> {
        let attached = self.attached()?;
        let state = self.system().ok_or_else(|| RequestError::NotServing {
            reason: "what the system group has decided is not known here yet".to_owned(),
        })?;
        let keyspace = asked.keyspace.as_deref().map(|name| keyspace(&state, name)).transpose()?;
        let partition = asked.partition.map(|number| partition(&state, number)).transpose()?;
        Ok(attached.anti_entropy.begin_run(&RepairWish { keyspace, partition }))
    }

    /// How far a repair is.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] when there is none of that number any more.
    pub fn repair_progress(&self, run: u64) -> Result<RepairProgress, RequestError> {
        let progress = self.attached()?.anti_entropy.progress(run);
        progress.ok_or_else(|| RequestError::Invalid {
            field: "run",
            problem: format!(
                "there is no repair {run} here; it is over for long, or the node was \
                              restarted"
            ),
        })
    }
}

fn keyspace(state: &SystemState, name: &str) -> Result<KeyspaceId, RequestError> {
    let invalid = |problem: String| RequestError::Invalid { field: "keyspace", problem };
    match state.keyspace_named(name) {
        None => Err(invalid(format!("there is no keyspace named {name:?}"))),
        Some(keyspace) if keyspace.mode == Mode::Strong => Err(invalid(format!(
            "{name:?} is strong: its replicas follow one log, and there is nothing to repair"
        ))),
        Some(keyspace) => Ok(keyspace.id),
    }
}

fn partition(state: &SystemState, number: u32) -> Result<PartitionId, RequestError> {
    let partitions = state.partitions();
    let known = u16::try_from(number).ok().filter(|_| number < partitions);
    known.map(PartitionId).ok_or_else(|| RequestError::Invalid {
        field: "partition",
        problem: format!("there is no partition {number}; give 0 to {}", partitions - 1),
    })
}
