//! What a client asks of a node and what it is told: options, receipts and errors.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::protocol::consistency::Consistency;
use crate::protocol::group::command::{Action, Expect, SessionStamp};
use crate::protocol::group::reply::{Current, StepResult};
use crate::protocol::group::sessions::SessionError;
use crate::protocol::message::Refusal;
pub use crate::protocol::quorum::Outcome;
use crate::protocol::quorum::level::Level;
use crate::protocol::version::dvv::{Context, SIBLINGS_BYTES_MAX, SIBLINGS_MAX};
use crate::protocol::version::set::{SET_BYTES_MAX, SET_ELEMENTS_MAX};
use crate::types::{Expiry, GroupId, Key, KeyspaceId, Merge, NodeId, Version};

/// How one request wants to be served; everything absent follows the keyspace's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOptions {
    /// The keyspace's name; the default keyspace when absent.
    pub keyspace: Option<Arc<str>>,
    /// How many replicas must answer, by name.
    pub level: Option<Level>,
    /// How many replicas must answer, by number (R of a read, W of a write); wins over the level.
    pub quorum: Option<u32>,
    /// How long the client waits; the node's default when absent.
    pub timeout: Option<Duration>,
    /// Whether fallback replicas may count towards a write quorum.
    pub sloppy: Option<bool>,
    /// A version of this key that the client has seen: a write is stamped above it, and a read of a
    /// quorum keyspace answers with that version or a newer one, or fails.
    pub context: Option<Version>,
    /// The same in a keyspace that keeps siblings, where it is the context of an earlier answer: a
    /// write replaces the values that its writer had seen.
    pub seen: Option<Arc<str>>,
    /// Whether a key with several siblings is refused, where only one value is wanted.
    pub one: bool,
    /// How long a value that is put into a quorum keyspace lives; it stays when absent.
    pub ttl: Option<Duration>,
    /// How fresh a read of a strong keyspace must be; linearizable when absent.
    pub consistency: Option<Consistency>,
    /// What the key must be for a write of a strong keyspace to happen.
    pub expect: Option<Expect>,
    /// Which use of which session a write of a strong keyspace is.
    pub session: Option<SessionStamp>,
}

impl RequestOptions {
    /// Refuses the context of a keyspace that keeps siblings, where versions are contexts.
    pub(crate) fn check_context_is_version(&self) -> Result<(), RequestError> {
        match self.seen {
            None => Ok(()),
            Some(_) => Err(RequestError::not_that_context(
                "was made for a keyspace that joins copies; this one does not: give a version",
            )),
        }
    }

    /// What the client has seen of a key, where the keyspace keeps siblings.
    pub(crate) fn seen_of(&self, of: (KeyspaceId, &Key)) -> Result<Option<Context>, RequestError> {
        if self.context.is_some() {
            return Err(RequestError::not_that_context(
                "is a version; this keyspace joins copies: give the context of an answer",
            ));
        }
        let seen = self.seen.as_ref().map(|text| Context::from_text(text, of)).transpose();
        seen.map_err(|error| RequestError::not_that_context(&error.to_string()))
    }
}

/// Writes of one strong keyspace that happen together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// What happens to which key, in order; all keys must lie in one partition (`{tag}`).
    pub steps: Vec<(Key, Action)>,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transacted {
    /// What each step did; empty in a repeated answer that was too large to be remembered whole.
    pub results: Vec<StepResult>,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// Which guarantee held for one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Version written or read; `None` when no replica that was asked has a record.
    pub version: Option<Version>,
    /// Replicas that the answer waited for: R or W.
    pub required: u32,
    /// Replicas in effect: N, or the number of members while there are fewer.
    pub replicas: u32,
    /// Nodes whose acknowledgement or answer counted.
    pub acknowledged: Vec<NodeId>,
    /// Primaries for which a hint was kept by the time of the answer.
    pub hinted: Vec<NodeId>,
    /// Fallbacks among `acknowledged`; not empty means that the quorum was sloppy.
    pub fallbacks: Vec<NodeId>,
    /// Stale replicas repaired before the answer.
    pub repaired: Vec<NodeId>,
    /// True while the cluster has fewer members than the replication factor.
    pub under_replicated: bool,
    /// When the value written or read ends by itself; in the past when it has.
    #[serde(rename = "expires_at_ms", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Expiry>,
    /// Of a write with a context: versions that replicas held and the writer had not seen. Those
    /// below `version` were replaced by the write; one above it replaced the write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<Version>,
    /// Of a keyspace that keeps siblings: how many the key has, as far as was heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub siblings: Option<u32>,
    /// Of a keyspace that joins copies: what a writer has seen who has seen this. A write of one of
    /// several siblings has none, for the next writer must read those first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Of a strong keyspace: what held, `linearizable`, `lease` or `stale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<&'static str>,
    /// Of a strong keyspace: the node that answered for the group; ask it first next time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeId>,
}

/// A read's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The value; `None` when the key has none, was deleted or has expired. Of several siblings the
    /// one that was written last; of a counter its number in decimal digits; of a set its elements
    /// as an array in JSON.
    pub value: Option<Bytes>,
    /// All values of the key, by the time of their writing, where there are several: in a keyspace
    /// that keeps siblings.
    pub siblings: Vec<Bytes>,
    /// The elements of a set, in the order of their bytes; empty in any other keyspace.
    pub elements: Vec<String>,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// What an addition to a counter did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incremented {
    /// What the counter stood at then, as far as the owner knew that took the addition: those that
    /// others took at the same time may be missing.
    pub total: i64,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// What is done to the elements of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetUpdate {
    /// Elements that are in the set afterwards.
    pub add: BTreeSet<Bytes>,
    /// Elements that are taken out, as far as they were seen: without a context, by a read quorum
    /// just before. One that is among both is in the set afterwards.
    pub remove: BTreeSet<Bytes>,
}

/// What a change of a set did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUpdated {
    /// How many elements the set had then, as far as the owner knew that took the change.
    pub size: u64,
    /// Which guarantee held.
    pub receipt: Receipt,
}

/// Why a request was not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request itself cannot be served, now or later.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it, naming what was sent and what would be right.
        problem: String,
    },
    /// A limit is exceeded.
    #[error("{limit} is {max} bytes; got {got}")]
    TooLarge {
        /// The limit's name, such as `value_bytes_max`.
        limit: &'static str,
        /// Its value.
        max: usize,
        /// What was sent.
        got: usize,
    },
    /// Too few replicas can be reached; nothing was sent.
    #[error("quorum unavailable: {required} replicas are required, {reachable} can be reached")]
    QuorumUnavailable {
        /// R or W.
        required: u32,
        /// Replicas that are connected and up, counted as the request allows.
        reachable: u32,
    },
    /// The node has more requests in flight than it admits; nothing was sent.
    #[error("overloaded: {limit} is {max}")]
    Overloaded {
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        max: usize,
    },
    /// The keyspace has used up what this node may do for it in a second; nothing was sent.
    #[error(
        "keyspace {keyspace:?} is limited: {limit} is {max} on each node; got {sent} more; try \
         again in {} ms",
        retry_after.as_millis()
    )]
    RateLimited {
        /// The keyspace.
        keyspace: String,
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        max: u64,
        /// What was sent, in the limit's unit.
        sent: u64,
        /// When there is something left again.
        retry_after: Duration,
    },
    /// A partition's leader, or the node that has it, has as much under way as it admits; nothing
    /// was begun.
    #[error(
        "overloaded: partition {group} has {uncommitted_bytes_max} bytes that are not committed \
         yet, or its leader's node has {questions_max} requests waiting, which are the limits"
    )]
    GroupOverloaded {
        /// The partition's group.
        group: GroupId,
        /// The limit of one group, in bytes.
        uncommitted_bytes_max: usize,
        /// The limit of one node, in requests.
        questions_max: usize,
    },
    /// The node has not joined its cluster yet, or is stopping; nothing was sent.
    #[error("not serving: {reason}")]
    NotServing {
        /// What it waits for.
        reason: String,
    },
    /// The time ran out.
    #[error("timed out after {waited_ms} ms with {received} of {required} replicas")]
    Timeout {
        /// R or W.
        required: u32,
        /// Replicas that had answered.
        received: u32,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// [`Outcome::Unknown`] for a write; for a read nothing was changed either way.
        outcome: Outcome,
    },
    /// No such keyspace, as far as this node has heard.
    #[error("there is no keyspace {name:?}")]
    UnknownKeyspace {
        /// What was asked for.
        name: String,
    },
    /// The keyspace's mode does not offer it.
    #[error("{what} is not available in keyspace {keyspace:?}, whose mode is {mode}")]
    NotAvailable {
        /// What was asked for.
        what: &'static str,
        /// The keyspace.
        keyspace: String,
        /// Its mode.
        mode: &'static str,
    },
    /// A key is not as the request expects; nothing was changed.
    #[error("the condition on step {step} does not hold: {}", current_text(current.as_ref()))]
    ConditionFailed {
        /// The step of the transaction, from 0.
        step: usize,
        /// What the key holds.
        current: Option<Current>,
    },
    /// What the cluster has decided before stands against it; nothing was changed.
    #[error("{reason}")]
    Rejected {
        /// What, and what would be right.
        reason: String,
    },
    /// The session does not allow it; nothing was done by this attempt.
    #[error("session: {0}")]
    Session(SessionError),
    /// No node that leads the partition's group could be asked in time; nothing was begun.
    #[error("partition {group} has no leader that could be asked in time: {reason}")]
    NoLeader {
        /// The group.
        group: GroupId,
        /// What was last heard.
        reason: String,
    },
    /// The time ran out, or the leader was lost, after the request had been handed on.
    #[error("the answer of partition {group} did not come within {waited_ms} ms")]
    OutcomeUnknown {
        /// The group.
        group: GroupId,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The key would have more siblings than a row may hold; nothing was written.
    #[error(
        "the key has too many siblings: siblings_max is {SIBLINGS_MAX}, siblings_bytes_max is \
         {SIBLINGS_BYTES_MAX} or an eighth of a log segment, if that is less; read it, merge its \
         values, and write the result with the context of that read"
    )]
    TooManySiblings,
    /// The set would have more elements than a row may hold; nothing was changed.
    #[error(
        "the set would be too large: set_elements_max is {SET_ELEMENTS_MAX}, set_bytes_max is \
         {SET_BYTES_MAX}, or an eighth of a log segment for all that is stored of it, if that is \
         less (an element that several nodes added at the same time is stored several times, until \
         it is added again); use several keys"
    )]
    SetTooLarge,
    /// The counter would leave its range; nothing was added.
    #[error("the counter would leave its range, which is that of 64-bit numbers with a sign")]
    OutOfRange,
    /// The key has several siblings, and the request takes one value.
    #[error("the key has {siblings} siblings, and one value was asked for; ask for all of them")]
    SeveralSiblings {
        /// How many.
        siblings: usize,
    },
    /// No replica that answered a read holds the version that its context names, or a newer one.
    #[error(
        "no replica has what the context names: version {wanted}; of {answered} that answered, the \
         newest holds {}; the context belongs to this key, and others may have it a little later",
        newest.map_or_else(|| "nothing".to_owned(), |version| version.to_string())
    )]
    ContextNotReached {
        /// The version that the context names.
        wanted: Version,
        /// The newest that was found.
        newest: Option<Version>,
        /// Replicas that answered.
        answered: u32,
    },
    /// So many replicas refused that the quorum cannot be met.
    #[error(
        "quorum failed: {required} replicas are required, {received} agreed, refused: {}",
        list(refusals)
    )]
    QuorumFailed {
        /// R or W.
        required: u32,
        /// Replicas that had agreed.
        received: u32,
        /// Who refused, and why.
        refusals: Vec<(NodeId, Refusal)>,
        /// [`Outcome::Failed`] when every asked replica refused, else [`Outcome::Unknown`].
        outcome: Outcome,
    },
}

fn list(refusals: &[(NodeId, Refusal)]) -> String {
    if refusals.is_empty() {
        return "none; the others could not be reached or were lost".to_owned();
    }
    let each: Vec<String> =
        refusals.iter().map(|(node, refusal)| format!("{node} ({refusal})")).collect();
    each.join(", ")
}

fn current_text(current: Option<&Current>) -> String {
    match current {
        None => "the key has no value".to_owned(),
        Some(current) => format!("the key was last changed at {}", current.modified),
    }
}

/// When a node or a group that has too much under way should be asked again: a few times what a
/// request takes, so that some of it is done by then.
const OVERLOAD_PASSES_AFTER: Duration = Duration::from_millis(50);

/// When a full disk should be asked again: room comes with a checkpoint, or by hand.
const FULL_DISK_PASSES_AFTER: Duration = Duration::from_secs(5);

impl RequestError {
    /// Refuses a context of another kind than the keyspace has.
    pub(crate) fn not_that_context(problem: &str) -> RequestError {
        RequestError::Invalid { field: "context", problem: problem.to_owned() }
    }

    /// Refuses to change a key in a way that its keyspace does not know.
    pub(crate) fn not_that_change(merge: Merge) -> RequestError {
        let right = match merge {
            Merge::Lww | Merge::Siblings => "put and delete",
            Merge::Counter => "increment and delete",
            Merge::Set => "adding and removing elements, and delete",
        };
        let problem = format!("merges its keys as {}; they are changed by {right}", merge.name());
        RequestError::Invalid { field: "keyspace", problem }
    }

    /// Refuses a life for what cannot end by itself.
    pub(crate) fn no_ttl(what: &str) -> RequestError {
        let problem = format!("belongs to a put; {what} does not expire");
        RequestError::Invalid { field: "ttl", problem }
    }

    /// The same of a write that had not begun to change anything.
    #[must_use]
    pub(crate) fn without_effect(mut self) -> RequestError {
        if let RequestError::Timeout { outcome, .. } | RequestError::QuorumFailed { outcome, .. } =
            &mut self
        {
            *outcome = Outcome::Failed;
        }
        self
    }

    /// What is known of the request's effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            RequestError::Timeout { outcome, .. } | RequestError::QuorumFailed { outcome, .. } => {
                *outcome
            }
            RequestError::OutcomeUnknown { .. } => Outcome::Unknown,
            RequestError::ConditionFailed { .. }
            | RequestError::ContextNotReached { .. }
            | RequestError::TooManySiblings
            | RequestError::SetTooLarge
            | RequestError::OutOfRange
            | RequestError::SeveralSiblings { .. }
            | RequestError::Session(_) => Outcome::Failed,
            _ => Outcome::NotAttempted,
        }
    }

    /// How long whoever asks again should wait, if that may help where nothing else changes.
    pub fn retry_after(&self) -> Option<Duration> {
        if let RequestError::RateLimited { retry_after, .. } = self {
            return Some(*retry_after);
        }
        match self.code() {
            "overloaded" => Some(OVERLOAD_PASSES_AFTER),
            "disk_full" => Some(FULL_DISK_PASSES_AFTER),
            _ => None,
        }
    }

    /// A stable word for programs; the same in gRPC, HTTP and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            RequestError::Invalid { .. } => "invalid_argument",
            RequestError::TooLarge { .. } => "too_large",
            RequestError::QuorumUnavailable { .. } => "quorum_unavailable",
            RequestError::Overloaded { .. } | RequestError::GroupOverloaded { .. } => "overloaded",
            RequestError::RateLimited { .. } => "rate_limited",
            RequestError::NotServing { .. } => "not_serving",
            RequestError::Timeout { .. } | RequestError::OutcomeUnknown { .. } => "timeout",
            RequestError::UnknownKeyspace { .. } => "unknown_keyspace",
            RequestError::NotAvailable { .. } => "not_available",
            RequestError::ConditionFailed { .. } => "condition_failed",
            RequestError::Session(SessionError::Unknown { .. }) => "session_unknown",
            RequestError::Session(SessionError::Acknowledged { .. }) => "session_acknowledged",
            RequestError::Session(SessionError::WindowExceeded { .. }) => "session_window_exceeded",
            RequestError::Rejected { .. } => "rejected",
            RequestError::NoLeader { .. } => "no_leader",
            RequestError::ContextNotReached { .. } => "context_not_reached",
            RequestError::TooManySiblings => "too_many_siblings",
            RequestError::SetTooLarge => "set_too_large",
            RequestError::OutOfRange => "out_of_range",
            RequestError::SeveralSiblings { .. } => "several_siblings",
            RequestError::QuorumFailed { refusals, .. } => match shared(refusals) {
                Some(Refusal::DiskFull) => "disk_full",
                Some(Refusal::Overloaded) => "overloaded",
                _ => "quorum_failed",
            },
        }
    }
}

/// What all refused for, if it is one reason.
fn shared(refusals: &[(NodeId, Refusal)]) -> Option<Refusal> {
    let (_, first) = refusals.first()?;
    refusals.iter().all(|(_, refusal)| refusal == first).then_some(*first)
}
