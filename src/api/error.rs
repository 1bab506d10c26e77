//! The one place that decides how a [`RequestError`] looks from outside: gRPC code and HTTP status.
//!
//! * `UNAVAILABLE` and 503 mean that nothing was attempted, so any client may try elsewhere.
//! * 504 means that the effect is unknown or the time ran out. In gRPC a timeout is
//!   `DEADLINE_EXCEEDED`; a quorum that failed with an unknown effect is `UNKNOWN`, which no
//!   client library retries by itself.
//! * A read whose context no replica reaches is `ABORTED` and 500: later, or with other replicas
//!   reachable, it may be answered.
//! * A quorum that failed with no effect is `ABORTED` and 500 as well, or with full disks
//!   `RESOURCE_EXHAUSTED` and 507, or with replicas that have too much to do 429.
//! * Whatever is `RESOURCE_EXHAUSTED` tells how long to wait before asking again: in the trailers
//!   [`RETRY_AFTER_TRAILER`] and [`PUSHBACK_TRAILER`], and in the header `Retry-After`.
//! * A value or key above its limit is 413 and `OUT_OF_RANGE`, like a message above its own.
//! * `FAILED_PRECONDITION` means that the request is sound and what it met stands against it: a key
//!   that is not as expected (412), a session that has moved on or a fact decided before (409), a
//!   keyspace whose mode does not offer it (400).
//! * A keyspace that does not exist is `NOT_FOUND` and 404, like a key without a value; their
//!   words tell them apart.
//!
//! The exact word of [`RequestError::code`] and the outcome travel in the trailers [`CODE_TRAILER`]
//! and [`OUTCOME_TRAILER`], and in the bodies of HTTP errors. What a key held when a condition on
//! it failed stands in the details of the gRPC status and in the body of the HTTP error.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use prost::Message;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};

use crate::api::convert::strong;
use crate::node::request::{Outcome, Receipt, RequestError};
use crate::proto::v1;

/// The trailer that carries what is known of a failed request's effect.
pub(crate) const OUTCOME_TRAILER: &str = "coterie-outcome";
/// The trailer that carries the error's stable word.
pub(crate) const CODE_TRAILER: &str = "coterie-code";
/// The trailer that tells, in milliseconds, how long to wait before asking again.
pub(crate) const RETRY_AFTER_TRAILER: &str = "retry-after-ms";
/// The same for gRPC libraries that repeat calls by themselves (gRPC proposal A6).
pub(crate) const PUSHBACK_TRAILER: &str = "grpc-retry-pushback-ms";
/// The trailer that carries the version of a key that has no value: a deletion, or a value that has
/// expired.
pub(crate) const CONTEXT_TRAILER: &str = "coterie-context";
/// The stable word of a key without a value.
pub(crate) const NOT_FOUND: &str = "not_found";

/// The gRPC code and the HTTP status of an error.
pub(crate) fn statuses(error: &RequestError) -> (Code, StatusCode) {
    match error {
        RequestError::Invalid { .. } => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        RequestError::TooLarge { .. } => (Code::OutOfRange, StatusCode::PAYLOAD_TOO_LARGE),
        RequestError::QuorumUnavailable { .. } | RequestError::NotServing { .. } => {
            (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
        }
        RequestError::NoLeader { .. } => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        RequestError::UnknownKeyspace { .. } => (Code::NotFound, StatusCode::NOT_FOUND),
        RequestError::NotAvailable { .. } => (Code::FailedPrecondition, StatusCode::BAD_REQUEST),
        RequestError::Rejected { .. }
        | RequestError::Session(_)
        | RequestError::TooManySiblings
        | RequestError::SetTooLarge
        | RequestError::OutOfRange
        | RequestError::SeveralSiblings { .. } => (Code::FailedPrecondition, StatusCode::CONFLICT),
        RequestError::ConditionFailed { .. } => {
            (Code::FailedPrecondition, StatusCode::PRECONDITION_FAILED)
        }
        RequestError::OutcomeUnknown { .. } => {
            (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT)
        }
        RequestError::Overloaded { .. }
        | RequestError::GroupOverloaded { .. }
        | RequestError::RateLimited { .. } => {
            (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS)
        }
        RequestError::Timeout { .. } => (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
        RequestError::QuorumFailed { outcome: Outcome::Unknown, .. } => {
            (Code::Unknown, StatusCode::GATEWAY_TIMEOUT)
        }
        RequestError::QuorumFailed { .. } if error.code() == "disk_full" => {
            (Code::ResourceExhausted, StatusCode::INSUFFICIENT_STORAGE)
        }
        RequestError::QuorumFailed { .. } if error.code() == "overloaded" => {
            (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS)
        }
        RequestError::QuorumFailed { .. } | RequestError::ContextNotReached { .. } => {
            (Code::Aborted, StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let (code, _) = statuses(&error);
        let mut trailers = MetadataMap::new();
        trailers.insert(CODE_TRAILER, AsciiMetadataValue::from_static(error.code()));
        trailers.insert(OUTCOME_TRAILER, AsciiMetadataValue::from_static(error.outcome().name()));
        if let Some(wait) = error.retry_after() {
            let ms = AsciiMetadataValue::from(milliseconds(wait));
            trailers.insert(RETRY_AFTER_TRAILER, ms.clone());
            trailers.insert(PUSHBACK_TRAILER, ms);
        }
        Status::with_details_and_metadata(code, error.to_string(), details(&error), trailers)
    }
}

/// A wait as the interfaces tell it: never none.
pub(crate) fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// What programs want to know beyond an error's word: a `ConditionFailed`, encoded.
fn details(error: &RequestError) -> Bytes {
    match error {
        RequestError::ConditionFailed { step, current } => {
            strong::condition_failed(*step, current.as_ref()).encode_to_vec().into()
        }
        _ => Bytes::new(),
    }
}

/// The gRPC answer to a read of a key that has no value, with the version that was read, if any.
pub(crate) fn key_not_found(key: &str, receipt: &Receipt) -> Status {
    let mut trailers = MetadataMap::new();
    trailers.insert(CODE_TRAILER, AsciiMetadataValue::from_static(NOT_FOUND));
    let context = context_of(receipt).and_then(|it| AsciiMetadataValue::try_from(it).ok());
    if let Some(context) = context {
        trailers.insert(CONTEXT_TRAILER, context);
    }
    Status::with_metadata(Code::NotFound, no_value_text(key), trailers)
}

/// What a client may give back that has seen this: of a key whose copies are joined its context,
/// else the version.
pub(crate) fn context_of(receipt: &Receipt) -> Option<String> {
    let version = || receipt.version.filter(|_| receipt.siblings.is_none());
    receipt.context.clone().or_else(|| version().map(|version| version.to_string()))
}

/// What both interfaces say of a key that has no value.
pub(crate) fn no_value_text(key: &str) -> String {
    format!("key {key:?} has no value")
}

/// The error of one item of a batch.
pub(crate) fn batch_error(error: &RequestError) -> v1::Error {
    v1::Error {
        code: error.code().to_owned(),
        message: error.to_string(),
        outcome: error.outcome().name().to_owned(),
        retry_after_ms: error.retry_after().map(milliseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::group::reply::Current;
    use crate::protocol::group::sessions::SessionError;
    use crate::protocol::message::Refusal;
    use crate::types::{GroupId, NodeId, Revision};

    fn timeout(outcome: Outcome) -> RequestError {
        RequestError::Timeout { required: 2, received: 1, waited_ms: 2000, outcome }
    }

    fn quorum_failed(refusals: &[Refusal], outcome: Outcome) -> RequestError {
        let refusals = refusals.iter().map(|refusal| (NodeId(7), *refusal)).collect();
        RequestError::QuorumFailed { required: 2, received: 0, refusals, outcome }
    }

    fn refused_before_sending() -> Vec<(RequestError, Code, u16, &'static str)> {
        let reason = String::from("joining");
        let problem = String::from("is empty");
        let too_large = RequestError::TooLarge { limit: "value_bytes_max", max: 1, got: 2 };
        let unavailable = RequestError::QuorumUnavailable { required: 3, reachable: 2 };
        let overloaded = RequestError::Overloaded { limit: "requests_in_flight_max", max: 1 };
        let limited = RequestError::RateLimited {
            keyspace: String::from("orders"),
            limit: "limit_operations_per_second",
            max: 10,
            sent: 1,
            retry_after: Duration::from_micros(99_001),
        };
        let invalid = RequestError::Invalid { field: "key", problem };
        vec![
            (invalid, Code::InvalidArgument, 400, "invalid_argument"),
            (too_large, Code::OutOfRange, 413, "too_large"),
            (unavailable, Code::Unavailable, 503, "quorum_unavailable"),
            (limited, Code::ResourceExhausted, 429, "rate_limited"),
            (overloaded, Code::ResourceExhausted, 429, "overloaded"),
            (RequestError::NotServing { reason }, Code::Unavailable, 503, "not_serving"),
        ]
    }

    /// What the keyspace, its facts or its leader stand against, before anything was begun.
    fn refused_by_strong_keyspaces() -> Vec<(RequestError, Code, u16, &'static str)> {
        let name = String::from("lists");
        let (what, keyspace, mode) = ("an append", String::from("default"), "quorum");
        let reason = String::from("name is taken");
        let no_leader = RequestError::NoLeader { group: GroupId(1), reason: reason.clone() };
        let not_available = RequestError::NotAvailable { what, keyspace, mode };
        vec![
            (RequestError::UnknownKeyspace { name }, Code::NotFound, 404, "unknown_keyspace"),
            (not_available, Code::FailedPrecondition, 400, "not_available"),
            (RequestError::Rejected { reason }, Code::FailedPrecondition, 409, "rejected"),
            (no_leader, Code::Unavailable, 503, "no_leader"),
        ]
    }

    fn condition_failed() -> RequestError {
        let (created, modified) = (Revision(3), Revision(7));
        let current = Current { value: Some(Bytes::from_static(b"v")), created, modified };
        RequestError::ConditionFailed { step: 1, current: Some(current) }
    }

    /// What a group refused, or may have done.
    fn ended_by_groups() -> Vec<(RequestError, Code, u16, &'static str)> {
        let unknown = SessionError::Unknown { sequence: 2 };
        let acknowledged = SessionError::Acknowledged { sequence: 1, acknowledged: 1 };
        let exceeded = SessionError::WindowExceeded { sequence: 99, acknowledged: 1 };
        let session =
            |error, word| (RequestError::Session(error), Code::FailedPrecondition, 409, word);
        let outcome_unknown = RequestError::OutcomeUnknown { group: GroupId(1), waited_ms: 5 };
        vec![
            (condition_failed(), Code::FailedPrecondition, 412, "condition_failed"),
            session(unknown, "session_unknown"),
            session(acknowledged, "session_acknowledged"),
            session(exceeded, "session_window_exceeded"),
            (outcome_unknown, Code::DeadlineExceeded, 504, "timeout"),
        ]
    }

    fn all() -> impl Iterator<Item = (RequestError, Code, u16, &'static str)> {
        let before = refused_before_sending().into_iter().chain(refused_by_strong_keyspaces());
        before.chain(failed_after_sending()).chain(ended_by_groups())
    }

    fn context_not_reached() -> RequestError {
        let wanted = Revision(7).into();
        RequestError::ContextNotReached { wanted, newest: None, answered: 2 }
    }

    fn failed_after_sending() -> Vec<(RequestError, Code, u16, &'static str)> {
        use Outcome::{Failed, Unknown};
        let full = [Refusal::DiskFull, Refusal::DiskFull];
        let mixed = [Refusal::DiskFull, Refusal::Overloaded];
        let busy = [Refusal::Overloaded, Refusal::Overloaded];
        vec![
            (quorum_failed(&busy, Failed), Code::ResourceExhausted, 429, "overloaded"),
            (quorum_failed(&busy, Unknown), Code::Unknown, 504, "overloaded"),
            (quorum_failed(&[], Failed), Code::Aborted, 500, "quorum_failed"),
            (timeout(Unknown), Code::DeadlineExceeded, 504, "timeout"),
            (timeout(Failed), Code::DeadlineExceeded, 504, "timeout"),
            (quorum_failed(&full, Failed), Code::ResourceExhausted, 507, "disk_full"),
            (quorum_failed(&mixed, Failed), Code::Aborted, 500, "quorum_failed"),
            (quorum_failed(&mixed, Unknown), Code::Unknown, 504, "quorum_failed"),
            (quorum_failed(&full, Unknown), Code::Unknown, 504, "disk_full"),
            (context_not_reached(), Code::Aborted, 500, "context_not_reached"),
        ]
    }

    #[test]
    fn every_error_has_its_statuses_and_its_trailers() {
        for (error, code, http, word) in all() {
            assert_eq!(statuses(&error).1.as_u16(), http, "{error:?}");
            let (message, outcome) = (error.to_string(), error.outcome().name());
            let status = Status::from(error);
            assert_eq!(status.code(), code, "{message}");
            assert_eq!(status.message(), message);
            let trailer = |name| status.metadata().get(name).and_then(|v| v.to_str().ok());
            assert_eq!(trailer(CODE_TRAILER), Some(word), "{message}");
            assert_eq!(trailer(OUTCOME_TRAILER), Some(outcome), "{message}");
        }
    }

    #[test]
    fn whoever_has_too_much_to_do_tells_when_to_come_again() {
        for (error, code, ..) in all() {
            let told = batch_error(&error).retry_after_ms;
            let status = Status::from(error);
            let trailer = |name| {
                let value = status.metadata().get(name)?;
                value.to_str().ok()?.parse::<u64>().ok()
            };
            assert_eq!(trailer(RETRY_AFTER_TRAILER), told, "{status:?}");
            assert_eq!(trailer(PUSHBACK_TRAILER), told, "{status:?}");
            assert!(told.is_some() || code != Code::ResourceExhausted, "{status:?}");
        }
    }

    #[test]
    fn a_wait_is_rounded_up_and_never_none() {
        let cases = [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (50_000, 50)];
        for (us, ms) in cases {
            assert_eq!(milliseconds(Duration::from_micros(us)), ms, "{us}");
        }
    }

    #[test]
    fn unavailable_is_said_only_when_nothing_was_attempted() {
        for (error, code, http, _) in all() {
            if code == Code::Unavailable || http == 503 {
                assert_eq!(error.outcome(), Outcome::NotAttempted, "{error:?}");
            }
            if error.outcome() == Outcome::Unknown {
                assert_eq!(http, 504, "{error:?}");
            }
        }
    }

    #[test]
    fn what_was_begun_is_never_said_not_to_be() {
        let outcomes = |errors: Vec<(RequestError, Code, u16, &str)>| -> Vec<Outcome> {
            errors.iter().map(|(error, ..)| error.outcome()).collect()
        };
        use Outcome::{Failed, NotAttempted, Unknown};
        assert_eq!(outcomes(refused_by_strong_keyspaces()), [NotAttempted; 4]);
        assert_eq!(outcomes(ended_by_groups()), [Failed, Failed, Failed, Failed, Unknown]);
    }

    #[test]
    fn a_failed_condition_tells_what_the_key_held() {
        let status = Status::from(condition_failed());
        let told = v1::ConditionFailed::decode(status.details()).expect("a ConditionFailed");
        let version = "0000000000000007-0000000000000000".to_owned();
        let value = Bytes::from_static(b"v");
        assert_eq!(told, v1::ConditionFailed { step: 1, found: true, value, version });
        assert!(Status::from(timeout(Outcome::Unknown)).details().is_empty());
    }

    #[test]
    fn a_missing_key_is_named() {
        let status = key_not_found("a/b", &Receipt::default());
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "key \"a/b\" has no value");
        assert!(status.metadata().get(CONTEXT_TRAILER).is_none());
        let receipt = Receipt { version: Some(Revision(7).into()), ..Receipt::default() };
        let deleted = key_not_found("a/b", &receipt);
        let context = deleted.metadata().get(CONTEXT_TRAILER).expect("a context");
        assert_eq!(context, "0000000000000007-0000000000000000");
        let siblings = (Some(0), Some("seen".to_owned()));
        let receipt = Receipt { siblings: siblings.0, context: siblings.1, ..receipt };
        let deleted = key_not_found("a/b", &receipt);
        assert_eq!(deleted.metadata().get(CONTEXT_TRAILER).expect("a context"), "seen");
    }
}
