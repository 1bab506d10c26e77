//! Why a call of the client did not do what it was asked to.

use bytes::Bytes;

pub use crate::protocol::quorum::Outcome;

/// Why a call failed. [`ClientError::outcome`] says what is known of its effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The call cannot be made like this; nothing was sent.
    #[error("{field}: {problem}")]
    Invalid {
        /// What is at fault.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A key was not as the write expected; nothing was changed.
    #[error("{message}")]
    ConditionFailed {
        /// The step of the transaction, from 0; 0 of a single write.
        step: u32,
        /// What the key holds; `None` when it has no value.
        current: Option<Current>,
        /// What the node said.
        message: String,
    },
    /// A node answered that it did not, or does not know whether it did.
    #[error("{message}")]
    Refused {
        /// The code of the answer.
        status: tonic::Code,
        /// A stable word such as `quorum_unavailable`; empty when the node gave none.
        code: String,
        /// What the node said.
        message: String,
        /// What is known of the call's effect, all attempts considered.
        outcome: Outcome,
        /// How many times a node was asked.
        attempts: u32,
    },
    /// What a watch asks for is gone: what changed behind its token is kept nowhere any more. It
    /// has to list the keys, and to begin without a token.
    #[error("{message}")]
    WatchLost {
        /// The partition of which it is gone.
        partition: u32,
        /// The last entry of the partition's log that the watch has told of.
        position: u64,
        /// The first that it could go on from.
        oldest: u64,
        /// The same in words.
        message: String,
    },
    /// No answer came in time, or no node could be reached.
    #[error("{message}")]
    NoAnswer {
        /// `unreachable` (no connection was made), `no_answer` (a connection was lost, or nothing
        /// came in time) or `window_full` (the call waited for earlier writes of its session).
        code: &'static str,
        /// Which nodes, and why.
        message: String,
        /// What is known of the call's effect, all attempts considered.
        outcome: Outcome,
        /// How many times a node was asked.
        attempts: u32,
    },
}

/// What a key held when a condition on it did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The value. `None` when the node left it out, for its size or because the answer was
    /// repeated, and also when it is empty: a read gets it.
    pub value: Option<Bytes>,
    /// When it was last changed; to be given back in a condition or as a context.
    pub version: String,
}

impl ClientError {
    /// What is known of the call's effect. A read that failed never has an unknown one.
    pub fn outcome(&self) -> Outcome {
        match self {
            ClientError::Invalid { .. } => Outcome::NotAttempted,
            ClientError::ConditionFailed { .. } | ClientError::WatchLost { .. } => Outcome::Failed,
            ClientError::Refused { outcome, .. } | ClientError::NoAnswer { outcome, .. } => {
                *outcome
            }
        }
    }

    /// A stable word for programs, the same as in HTTP error bodies where a node gave it.
    pub fn code(&self) -> &str {
        match self {
            ClientError::Invalid { .. } => "invalid_argument",
            ClientError::ConditionFailed { .. } => "condition_failed",
            ClientError::WatchLost { .. } => "watch_lost",
            ClientError::Refused { code, .. } => code,
            ClientError::NoAnswer { code, .. } => code,
        }
    }

    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> ClientError {
        ClientError::Invalid { field, problem: problem.into() }
    }
}
