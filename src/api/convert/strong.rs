//! What requests of strong keyspaces say beyond those of leaderless ones: sessions, conditions,
//! consistency and the steps of transactions.
//!
//! Nothing here knows a keyspace's mode: the node refuses what the mode does not offer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::convert::invalid;
use crate::node::request::{RequestError, RequestOptions, Transaction};
use crate::proto::v1;
use crate::proto::v1::condition::Expect as Expected;
use crate::proto::v1::step::Action as Sent;
use crate::protocol::consistency::Consistency;
use crate::protocol::group::command::{Action, Expect, SessionStamp};
use crate::protocol::group::reply::{Current, StepResult};
use crate::types::{ClientId, Key, Revision, Version};

/// Bytes of a value that are told in the details of an error. Clients take little in trailers
/// (8 KiB is what gRPC recommends them to), where details are written in base64.
const TOLD_VALUE_BYTES_MAX: usize = 4096;

/// No value was ever changed at this revision: the first entry of a group has a higher one.
const NEVER: Revision = Revision(0);

/// The name of a keyspace; empty for the default one.
pub(crate) fn keyspace(name: String) -> Option<Arc<str>> {
    (!name.is_empty()).then(|| Arc::from(name))
}

/// The options of a write, with its keyspace, its session and its condition.
///
/// # Errors
/// [`RequestError::Invalid`] naming the field.
pub(crate) fn write(
    options: RequestOptions,
    keyspace: String,
    session: Option<v1::Session>,
    condition: Option<v1::Condition>,
) -> Result<RequestOptions, RequestError> {
    Ok(RequestOptions {
        keyspace: self::keyspace(keyspace),
        session: session.map(|sent| stamp(&sent)).transpose()?,
        expect: condition.map(expect).transpose()?,
        ..options
    })
}

/// The options of a read, with its keyspace and its consistency.
///
/// # Errors
/// [`RequestError::Invalid`] for a consistency that does not exist, or whose staleness is missing.
pub(crate) fn read(
    options: RequestOptions,
    keyspace: String,
    consistency: i32,
    max_staleness_ms: u64,
) -> Result<RequestOptions, RequestError> {
    let promise = v1::Consistency::try_from(consistency).map_err(|_| {
        let right = "CONSISTENCY_LINEARIZABLE (1), CONSISTENCY_LEASE (2) or CONSISTENCY_STALE (3)";
        invalid("consistency", format!("{consistency} is not a consistency; use {right}"))
    })?;
    let staleness = (max_staleness_ms > 0).then(|| Duration::from_millis(max_staleness_ms));
    let consistency = self::consistency(promise, staleness)?;
    Ok(RequestOptions { keyspace: self::keyspace(keyspace), consistency, ..options })
}

/// What a reader wants to be promised; `None` when it does not say.
///
/// # Errors
/// [`RequestError::Invalid`] when a stale read does not say how stale, or another one does.
pub(crate) fn consistency(
    promise: v1::Consistency,
    max_staleness: Option<Duration>,
) -> Result<Option<Consistency>, RequestError> {
    let consistency = match (promise, max_staleness) {
        (v1::Consistency::Stale, Some(max_staleness)) => Consistency::Stale { max_staleness },
        (v1::Consistency::Stale, None) => {
            let problem = "is absent; a stale read says how old what it reads may be, as in 500 ms";
            return Err(invalid("max_staleness", problem));
        }
        (_, Some(_)) => return Err(invalid("max_staleness", "goes with the consistency stale")),
        (v1::Consistency::Unspecified, None) => return Ok(None),
        (v1::Consistency::Linearizable, None) => Consistency::Linearizable,
        (v1::Consistency::Lease, None) => Consistency::Lease,
    };
    Ok(Some(consistency))
}

/// Which use of which session a write is.
///
/// # Errors
/// [`RequestError::Invalid`] when the client is no id or the sequence is 0.
pub(crate) fn stamp(sent: &v1::Session) -> Result<SessionStamp, RequestError> {
    let client = client_id(&sent.client).ok_or_else(|| {
        let right = "it is 16 hexadecimal digits, drawn at random for each session";
        invalid("session", format!("{:?} is not a client; {right}", sent.client))
    })?;
    let v1::Session { sequence, acknowledged, .. } = *sent;
    if sequence == 0 {
        return Err(invalid("session", "sequence is 0; the first write of a session has 1"));
    }
    Ok(SessionStamp { client, sequence, acknowledged })
}

fn client_id(text: &str) -> Option<ClientId> {
    let whole = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    whole.then(|| text.parse().ok()).flatten()
}

/// What a key must be.
///
/// # Errors
/// [`RequestError::Invalid`] when the condition says nothing, or its version is none.
pub(crate) fn expect(condition: v1::Condition) -> Result<Expect, RequestError> {
    match condition.expect {
        Some(Expected::Absent(true)) => Ok(Expect::Absent),
        Some(Expected::Present(true)) => Ok(Expect::Present),
        Some(Expected::Version(text)) => {
            let right = |error| format!("{error}; send a receipt's version");
            let version = text.parse().map_err(|error| invalid("condition", right(error)))?;
            Ok(changed_at(version))
        }
        Some(Expected::Value(text)) => Ok(Expect::Value(Bytes::from(text))),
        Some(Expected::ValueBytes(bytes)) => Ok(Expect::Value(bytes)),
        Some(Expected::Absent(false) | Expected::Present(false)) => {
            Err(invalid("condition", "false expects nothing; set absent or present to true"))
        }
        None => {
            let right = "set absent, present, version, value or value_bytes";
            Err(invalid("condition", format!("expects nothing; {right}")))
        }
    }
}

/// Expects a key to have been last changed at a version. A version of a leaderless keyspace is
/// none that a strong keyspace has, so with it the condition does not hold.
pub(crate) fn changed_at(version: Version) -> Expect {
    Expect::Revision(Revision::of(version).unwrap_or(NEVER))
}

/// Expects what no key is.
pub(crate) fn never() -> Expect {
    Expect::Revision(NEVER)
}

/// The steps of a transaction.
///
/// # Errors
/// [`RequestError::Invalid`] when there is none, a key is empty, or a step does nothing.
pub(crate) fn transaction(steps: Vec<v1::Step>) -> Result<Transaction, RequestError> {
    if steps.is_empty() {
        return Err(invalid("steps", "is empty; a transaction has at least one step"));
    }
    let steps: Result<Vec<(Key, Action)>, RequestError> = steps.into_iter().map(step).collect();
    Ok(Transaction { steps: steps? })
}

fn step(step: v1::Step) -> Result<(Key, Action), RequestError> {
    let key = crate::api::convert::key(step.key)?;
    let action = match step.action {
        Some(Sent::Put(value)) => Action::Put(value),
        Some(Sent::Append(suffix)) => Action::Append(suffix),
        Some(Sent::Delete(true)) => Action::Delete,
        Some(Sent::Check(condition)) => Action::Check(expect(condition)?),
        Some(Sent::Delete(false)) => {
            return Err(invalid("steps", format!("delete of {key} is false; leave the step out")));
        }
        None => {
            let right = "set put, append, delete or check";
            return Err(invalid("steps", format!("the step of {key} does nothing; {right}")));
        }
    };
    Ok((key, action))
}

/// What the steps did, on the wire.
pub(crate) fn results(results: &[StepResult]) -> Vec<v1::StepResult> {
    let result = |&StepResult { existed, value_bytes, .. }: &StepResult| v1::StepResult {
        existed,
        value_bytes,
    };
    results.iter().map(result).collect()
}

/// What a key held when a condition did not hold, on the wire.
pub(crate) fn condition_failed(step: usize, current: Option<&Current>) -> v1::ConditionFailed {
    let value = current.and_then(|current| current.value.clone());
    v1::ConditionFailed {
        step: u32::try_from(step).unwrap_or(u32::MAX),
        found: current.is_some(),
        value: value.filter(|value| value.len() <= TOLD_VALUE_BYTES_MAX).unwrap_or_default(),
        version: current.map(|current| current.modified.to_string()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
