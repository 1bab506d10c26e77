//! What became of a command, and the bytes in which it is remembered and forwarded.

#[cfg(test)]
pub(super) mod tests;

use bytes::{BufMut, Bytes};

use crate::protocol::group::codec::{DecodeError, Reader, put_bytes, put_list, put_option};
use crate::protocol::group::sessions::SessionError;
use crate::types::{KeyspaceId, Revision};

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was executed.
    Written {
        /// The revision of whatever it changed.
        revision: Revision,
        /// One for each step. Empty although there were steps in a repeated reply that was too
        /// large to be remembered whole.
        results: Vec<StepResult>,
    },
    /// It changed nothing.
    Refused(WriteRefusal),
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepResult {
    /// Whether the key had a value before the step.
    pub existed: bool,
    /// When the value that the key has after the step was created; `None` when it has none.
    pub created: Option<Revision>,
    /// Bytes of that value; 0 without one.
    pub value_bytes: u64,
}

/// Why a command changed nothing. Every replica refuses alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefusal {
    /// A key was not as expected.
    #[error("the condition of step {step} does not hold")]
    ConditionFailed {
        /// The step, counted from 0.
        step: usize,
        /// What the key held when the step's turn came: an earlier step of the same batch may have
        /// made it so. `None` without a value.
        current: Option<Current>,
    },
    /// A value would be larger than values may be.
    #[error("step {step} would make a value of {bytes} bytes; {bytes_max} are the most")]
    ValueTooLarge {
        /// The step, counted from 0.
        step: usize,
        /// Bytes of the value.
        bytes: u64,
        /// The limit that the command named.
        bytes_max: u64,
    },
    /// A keyspace is gone.
    #[error("step {step} writes to keyspace {}, which was dropped", keyspace.0)]
    KeyspaceDropped {
        /// The step, counted from 0.
        step: usize,
        /// Its keyspace.
        keyspace: KeyspaceId,
    },
    /// The session does not allow it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The entry's bytes are no command.
    #[error("the entry holds no command: {detail}")]
    Malformed {
        /// Why not.
        detail: String,
    },
}

/// What a key holds, told with a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The value. `None` in a repeated reply that was too large to be remembered whole: there is a
    /// value, and a read gets it.
    pub value: Option<Bytes>,
    /// When it was created.
    pub created: Revision,
    /// When it was last changed.
    pub modified: Revision,
}

const VERSION: u8 = 1;

const KIND_WRITTEN: u8 = 1;
const KIND_CONDITION_FAILED: u8 = 2;
const KIND_VALUE_TOO_LARGE: u8 = 3;
const KIND_KEYSPACE_DROPPED: u8 = 4;
const KIND_SESSION_UNKNOWN: u8 = 5;
const KIND_SESSION_ACKNOWLEDGED: u8 = 6;
const KIND_SESSION_WINDOW_EXCEEDED: u8 = 7;
const KIND_MALFORMED: u8 = 8;

impl Reply {
    /// The reply without the parts whose size a client determines.
    #[must_use]
    pub fn shortened(self) -> Reply {
        match self {
            Reply::Written { revision, .. } => Reply::Written { revision, results: Vec::new() },
            Reply::Refused(WriteRefusal::ConditionFailed { step, current }) => {
                let current = current.map(|current| Current { value: None, ..current });
                Reply::Refused(WriteRefusal::ConditionFailed { step, current })
            }
            other => other,
        }
    }

    /// The reply's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match self {
            Reply::Written { revision, results } => {
                out.put_u8(KIND_WRITTEN);
                out.put_u64_le(revision.0);
                put_list(results.iter(), &mut out, put_result);
            }
            Reply::Refused(refusal) => put_refusal(refusal, &mut out),
        }
        out.into()
    }

    /// Reads a reply's bytes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Reply, DecodeError> {
        let mut reader = Reader::versioned("a reply", VERSION, bytes)?;
        let reply = match reader.u8()? {
            KIND_WRITTEN => Reply::Written {
                revision: Revision(reader.u64()?),
                results: reader.list(take_result)?,
            },
            kind => Reply::Refused(take_refusal(kind, &mut reader)?),
        };
        reader.finish(reply)
    }
}

fn put_result(result: &StepResult, out: &mut Vec<u8>) {
    out.put_u8(u8::from(result.existed));
    put_option(result.created.as_ref(), out, |created, out| out.put_u64_le(created.0));
    out.put_u64_le(result.value_bytes);
}

fn take_result(reader: &mut Reader<'_>) -> Result<StepResult, DecodeError> {
    Ok(StepResult {
        existed: reader.flag("whether a value existed")?,
        created: reader.option("a value's creation", |reader| reader.u64().map(Revision))?,
        value_bytes: reader.u64()?,
    })
}

fn put_refusal(refusal: &WriteRefusal, out: &mut Vec<u8>) {
    match refusal {
        WriteRefusal::ConditionFailed { step, current } => {
            out.put_u8(KIND_CONDITION_FAILED);
            out.put_u64_le(*step as u64);
            put_option(current.as_ref(), out, put_current);
        }
        WriteRefusal::ValueTooLarge { step, bytes, bytes_max } => {
            out.put_u8(KIND_VALUE_TOO_LARGE);
            out.put_u64_le(*step as u64);
            out.put_u64_le(*bytes);
            out.put_u64_le(*bytes_max);
        }
        WriteRefusal::KeyspaceDropped { step, keyspace } => {
            out.put_u8(KIND_KEYSPACE_DROPPED);
            out.put_u64_le(*step as u64);
            out.put_u32_le(keyspace.0);
        }
        WriteRefusal::Session(error) => put_session_error(*error, out),
        WriteRefusal::Malformed { detail } => {
            out.put_u8(KIND_MALFORMED);
            put_bytes(detail.as_bytes(), out);
        }
    }
}

fn take_refusal(kind: u8, reader: &mut Reader<'_>) -> Result<WriteRefusal, DecodeError> {
    Ok(match kind {
        KIND_CONDITION_FAILED => WriteRefusal::ConditionFailed {
            step: take_step(reader)?,
            current: reader.option("a key's present value", take_current)?,
        },
        KIND_VALUE_TOO_LARGE => WriteRefusal::ValueTooLarge {
            step: take_step(reader)?,
            bytes: reader.u64()?,
            bytes_max: reader.u64()?,
        },
        KIND_KEYSPACE_DROPPED => WriteRefusal::KeyspaceDropped {
            step: take_step(reader)?,
            keyspace: KeyspaceId(reader.u32()?),
        },
        KIND_MALFORMED => {
            let detail = String::from_utf8(reader.bytes()?.into());
            let reason = "a refusal's text is not UTF-8";
            let detail = detail.map_err(|_| DecodeError::Malformed { reason })?;
            WriteRefusal::Malformed { detail }
        }
        kind => WriteRefusal::Session(take_session_error(kind, reader)?),
    })
}

fn put_session_error(error: SessionError, out: &mut Vec<u8>) {
    let (kind, sequence, acknowledged) = match error {
        SessionError::Unknown { sequence } => (KIND_SESSION_UNKNOWN, sequence, None),
        SessionError::Acknowledged { sequence, acknowledged } => {
            (KIND_SESSION_ACKNOWLEDGED, sequence, Some(acknowledged))
        }
        SessionError::WindowExceeded { sequence, acknowledged } => {
            (KIND_SESSION_WINDOW_EXCEEDED, sequence, Some(acknowledged))
        }
    };
    out.put_u8(kind);
    out.put_u64_le(sequence);
    if let Some(acknowledged) = acknowledged {
        out.put_u64_le(acknowledged);
    }
}

fn take_session_error(kind: u8, reader: &mut Reader<'_>) -> Result<SessionError, DecodeError> {
    Ok(match kind {
        KIND_SESSION_UNKNOWN => SessionError::Unknown { sequence: reader.u64()? },
        KIND_SESSION_ACKNOWLEDGED => {
            SessionError::Acknowledged { sequence: reader.u64()?, acknowledged: reader.u64()? }
        }
        KIND_SESSION_WINDOW_EXCEEDED => {
            SessionError::WindowExceeded { sequence: reader.u64()?, acknowledged: reader.u64()? }
        }
        kind => return Err(DecodeError::UnknownKind { what: "a reply", kind }),
    })
}

fn put_current(current: &Current, out: &mut Vec<u8>) {
    out.put_u64_le(current.created.0);
    out.put_u64_le(current.modified.0);
    put_option(current.value.as_ref(), out, |value, out| put_bytes(value, out));
}

fn take_current(reader: &mut Reader<'_>) -> Result<Current, DecodeError> {
    Ok(Current {
        created: Revision(reader.u64()?),
        modified: Revision(reader.u64()?),
        value: reader.option("whether a value is told", Reader::bytes)?,
    })
}

fn take_step(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    usize::try_from(reader.u64()?)
        .map_err(|_| DecodeError::Malformed { reason: "a step's number is beyond counting" })
}
