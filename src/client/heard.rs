//! What a failed attempt tells: the node's words, or how the way to it was lost.

use std::error::Error;
use std::time::Duration;

use prost::Message;
use tonic::{Code, ConnectError, Status};

use crate::client::error::{Current, Outcome};
use crate::proto::v1;

/// The trailer in which a node tells what is known of a failed request's effect.
pub(crate) const OUTCOME_TRAILER: &str = "coterie-outcome";
/// The trailer in which a node tells its error's stable word.
pub(crate) const CODE_TRAILER: &str = "coterie-code";
/// The trailer in which a node tells how long to wait before asking again.
pub(crate) const RETRY_AFTER_TRAILER: &str = "retry-after-ms";
/// The metadata of answers and errors that names the leader.
pub(crate) const LEADER_TRAILER: &str = "coterie-leader";

/// The word of a condition that does not hold.
pub(crate) const CONDITION_FAILED: &str = "condition_failed";
/// The word of a key without a value.
pub(crate) const NOT_FOUND: &str = "not_found";
/// The word of a keyspace that the node has not heard of.
pub(crate) const UNKNOWN_KEYSPACE: &str = "unknown_keyspace";

/// The word of what has too much to do.
pub(crate) const OVERLOADED: &str = "overloaded";

/// Who says that an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    /// A node, or something on the way that speaks gRPC.
    Node,
    /// This side: the answer did not come, or was lost.
    Loss,
    /// This side: no connection was made, so nothing was sent.
    NoConnection,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) witness: Witness,
    pub(crate) code: Code,
    /// The stable word; empty when none was given.
    pub(crate) word: String,
    /// What the node says of the attempt's effect.
    pub(crate) outcome: Option<Outcome>,
    /// The node that is said to lead the partition: where clients reach it.
    pub(crate) leader: Option<String>,
    pub(crate) message: String,
    /// The step whose condition failed, and what its key holds.
    pub(crate) condition: Option<(u32, Option<Current>)>,
    /// How long the node asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl Heard {
    pub(crate) fn of(status: &Status) -> Heard {
        let word = trailer(status, CODE_TRAILER).unwrap_or_default();
        let outcome = trailer(status, OUTCOME_TRAILER).and_then(|name| Outcome::named(&name));
        let witness = witness_of(status, outcome.is_some() || !word.is_empty());
        let condition = (word == CONDITION_FAILED).then(|| condition_of(status.details()));
        Heard {
            witness,
            code: status.code(),
            word,
            outcome,
            leader: trailer(status, LEADER_TRAILER).filter(|leader| !leader.is_empty()),
            message: root_cause(status),
            condition,
            retry_after: retry_after(status),
        }
    }

    /// Nothing came within the attempt's time.
    pub(crate) fn late() -> Heard {
        Heard {
            witness: Witness::Loss,
            ..Heard::of(&Status::deadline_exceeded("no answer in time"))
        }
    }

    /// The same when there was no connection that anything could be sent on.
    pub(crate) fn unconnected(&self) -> Heard {
        let message = "no connection in time".to_owned();
        Heard { witness: Witness::NoConnection, message, ..self.clone() }
    }

    /// Whether another node may be asked: nothing was attempted, and another may do better.
    pub(crate) fn is_safe_elsewhere(&self) -> bool {
        let may_differ = matches!(self.code, Code::Unavailable | Code::ResourceExhausted);
        may_differ && self.outcome == Some(Outcome::NotAttempted)
    }

    /// Whether the node's state machine answered: only then its session has surely begun.
    pub(crate) fn is_of_the_group(&self) -> bool {
        self.word == CONDITION_FAILED
    }
}

fn witness_of(status: &Status, has_words: bool) -> Witness {
    if has_words {
        return Witness::Node;
    }
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return Witness::NoConnection;
        }
        cause = error.source();
    }
    // A timeout that this side noticed is a cancellation.
    let by_transport = status.source().is_some() || status.code() == Code::Cancelled;
    if by_transport { Witness::Loss } else { Witness::Node }
}

fn trailer(status: &Status, name: &str) -> Option<String> {
    status.metadata().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn retry_after(status: &Status) -> Option<Duration> {
    let ms = trailer(status, RETRY_AFTER_TRAILER)?;
    ms.parse().ok().map(Duration::from_millis)
}

/// The innermost reason of an error: what people can act on.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<Status>() {
        None => cause.to_string(),
        Some(status) if status.message().is_empty() => status.code().description().to_owned(),
        Some(status) => status.message().to_owned(),
    }
}

fn condition_of(details: &[u8]) -> (u32, Option<Current>) {
    let failed = v1::ConditionFailed::decode(details).unwrap_or_default();
    // An empty value looks like one that was left out.
    let value = Some(failed.value).filter(|value| !value.is_empty());
    (failed.step, failed.found.then_some(Current { value, version: failed.version }))
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    #[test]
    fn a_nodes_words_are_read() {
        let mut trailers = MetadataMap::new();
        trailers.insert(OUTCOME_TRAILER, "not-attempted".parse().unwrap());
        trailers.insert(CODE_TRAILER, "no_leader".parse().unwrap());
        trailers.insert(LEADER_TRAILER, "10.0.0.1:7400".parse().unwrap());
        trailers.insert(RETRY_AFTER_TRAILER, "70".parse().unwrap());
        let heard = Heard::of(&Status::with_metadata(Code::Unavailable, "nobody", trailers));
        assert_eq!(heard.witness, Witness::Node);
        assert_eq!(
            (heard.word.as_str(), heard.outcome),
            ("no_leader", Some(Outcome::NotAttempted))
        );
        assert_eq!(heard.leader.as_deref(), Some("10.0.0.1:7400"));
        assert_eq!(heard.message, "nobody");
        assert_eq!(heard.retry_after, Some(Duration::from_millis(70)));
    }

    #[test]
    fn what_was_never_sent_is_told_from_what_was_lost() {
        let connect = ConnectError(Box::new(std::io::Error::other("refused")));
        let heard = Heard::of(&Status::from_error(Box::new(connect)));
        assert_eq!(heard.witness, Witness::NoConnection);
        let lost = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        let heard = Heard::of(&lost);
        assert_eq!((heard.witness, heard.message.as_str()), (Witness::Loss, "connection reset"));
        assert_eq!(Heard::of(&Status::cancelled("Timeout expired")).witness, Witness::Loss);
        assert_eq!(Heard::of(&Status::internal("")).witness, Witness::Node);
        assert_eq!(
            Heard::of(&Status::unimplemented("")).message,
            Code::Unimplemented.description()
        );
    }

    #[test]
    fn only_what_was_not_attempted_goes_elsewhere() {
        let safe = |code, outcome: Option<&'static str>| {
            let mut trailers = MetadataMap::new();
            outcome.map(|outcome| trailers.insert(OUTCOME_TRAILER, outcome.parse().unwrap()));
            Heard::of(&Status::with_metadata(code, "said", trailers)).is_safe_elsewhere()
        };
        assert!(safe(Code::Unavailable, Some("not-attempted")));
        assert!(safe(Code::ResourceExhausted, Some("not-attempted")));
        assert!(!safe(Code::InvalidArgument, Some("not-attempted")));
        assert!(!safe(Code::Unavailable, None));
        assert!(!safe(Code::DeadlineExceeded, Some("unknown")));
    }
}
