//! Quorums: how many replicas must answer, and the two machines that wait for them.
//!
//! [`write::WriteQuorum`] and [`read::ReadQuorum`] each decide one request (DeCandia et al.,
//! "Dynamo", 2007, sections 4.5 and 4.6). They are fed what happened and polled for what to do
//! next; the coordinator's driver sends, stores hints and answers the client. This node's own
//! replica is one [`Primary`] among the others.

pub mod level;
pub mod listing;
pub mod read;
pub mod requirement;
#[cfg(test)]
mod script;
pub mod write;

use std::fmt;

use serde::Serialize;

use crate::protocol::message::Refusal;
use crate::types::{NodeId, Version};

/// One of the first N nodes of a partition's preference list, as the coordinator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Primary {
    /// The node.
    pub node: NodeId,
    /// Whether it is up and connected, as far as is known. Only reachable nodes are asked.
    pub reachable: bool,
}

/// What is known of a request's effect once it has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing was sent to any replica: safe to retry.
    NotAttempted,
    /// Every replica that was asked refused: no effect.
    Failed,
    /// It may have been applied, or may yet be.
    Unknown,
}

impl Outcome {
    /// The outcome's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::NotAttempted => "not-attempted",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }

    /// The outcome of this name, if there is one.
    pub fn named(name: &str) -> Option<Outcome> {
        let all = [Outcome::NotAttempted, Outcome::Failed, Outcome::Unknown];
        all.into_iter().find(|outcome| outcome.name() == name)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a quorum was not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// Too few replicas can be reached; nothing was sent and nothing hinted.
    #[error("{required} replicas are required, {reachable} can be reached")]
    Unavailable {
        /// R or W.
        required: u32,
        /// Replicas that could have counted.
        reachable: u32,
    },
    /// The deadline passed.
    #[error("the deadline passed with {received} of {required} replicas")]
    Timeout {
        /// R or W.
        required: u32,
        /// Replicas that had counted by then.
        received: u32,
        /// What is known of the effect.
        outcome: Outcome,
    },
    /// So many replicas refused or were lost that the quorum could no longer be reached.
    #[error("{required} replicas are required, {received} agreed, {} refused", refusals.len())]
    Failed {
        /// R or W.
        required: u32,
        /// Replicas that had counted by then.
        received: u32,
        /// Who refused, and why, in order of arrival. Unsent and lost requests are not listed.
        refusals: Vec<(NodeId, Refusal)>,
        /// What is known of the effect.
        outcome: Outcome,
    },
    /// No replica that answered a read holds the version that it asked for, or a newer one.
    #[error("none of {answered} replicas holds version {wanted} or a newer one")]
    Behind {
        /// What was asked for.
        wanted: Version,
        /// The newest version that was found.
        newest: Option<Version>,
        /// Replicas that answered.
        answered: u32,
    },
}

impl QuorumError {
    /// Whether a replica refused because it follows a newer ring: what was asked may be asked
    /// again by that.
    pub fn is_by_stale_ring(&self) -> bool {
        let QuorumError::Failed { refusals, .. } = self else { return false };
        refusals.iter().any(|(_, refusal)| *refusal == Refusal::StaleRing)
    }

    /// The error of a request that was tried before, in a way that may have had an effect.
    pub fn doubted(self, may_exist: bool) -> QuorumError {
        match self {
            QuorumError::Failed { required, received, refusals, .. } if may_exist => {
                QuorumError::Failed { required, received, refusals, outcome: Outcome::Unknown }
            }
            QuorumError::Timeout { required, received, .. } if may_exist => {
                QuorumError::Timeout { required, received, outcome: Outcome::Unknown }
            }
            QuorumError::Unavailable { required, .. } if may_exist => QuorumError::Failed {
                required,
                received: 0,
                refusals: Vec::new(),
                outcome: Outcome::Unknown,
            },
            certain => certain,
        }
    }

    /// What is known of the request's effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            QuorumError::Unavailable { .. } => Outcome::NotAttempted,
            QuorumError::Behind { .. } => Outcome::Failed,
            QuorumError::Timeout { outcome, .. } | QuorumError::Failed { outcome, .. } => *outcome,
        }
    }
}
