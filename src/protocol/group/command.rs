//! What an entry of a strong partition's log says, and its bytes.
//!
//! A command holds whatever its outcome depends on besides the rows: the leader's clock, and the
//! leader's limit on values, since neither need be the same on every replica.

#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes};

use crate::protocol::group::codec::{DecodeError, Reader, put_bytes, put_list, put_option};
use crate::protocol::group::sessions::Session;
use crate::types::{ClientId, Key, KeyspaceId, Revision, Timestamp};

/// One entry's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The leader's hybrid clock when it proposed this: makes revisions comparable with the stamps
    /// of other rows.
    pub stamp: Timestamp,
    /// The leader's limit on a value, in bytes. It travels with the command because a setting of
    /// the replica that applies it would let replicas differ.
    pub value_bytes_max: u32,
    /// Which use of which session it is; `None` for a command that may be executed twice.
    pub session: Option<SessionStamp>,
    /// What to do.
    pub operation: Operation,
}

/// Tells a command from its own repetition (Ongaro 2014, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStamp {
    /// The session.
    pub client: ClientId,
    /// Which command of the session: 1 for the first that reaches this group.
    pub sequence: u64,
    /// The client needs no reply up to this sequence any more.
    pub acknowledged: u64,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// These steps in order, all or none. An empty batch is a way to open or to keep a session.
    Write(Vec<Step>),
    /// Ends sessions that were last used before this, the longest unused first and a bounded
    /// number at a time.
    ExpireSessions {
        /// On the clock of commands' stamps.
        idle_since: Timestamp,
    },
    /// The keyspace is gone: whatever this partition holds of it is to be removed.
    DropKeyspace {
        /// Which one.
        keyspace: KeyspaceId,
    },
}

/// One key's part in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The keyspace of the key.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Key,
    /// What to do with it.
    pub action: Action,
}

/// What to do with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give it this value.
    Put(Bytes),
    /// Take its value away.
    Delete,
    /// Add to the end of its value; an absent one counts as empty.
    Append(Bytes),
    /// Change it if it is as expected; else refuse the batch.
    CompareAndSet {
        /// What it must be.
        expect: Expect,
        /// Its new value; `None` deletes it.
        then: Option<Bytes>,
    },
    /// Refuse the batch unless it is as expected.
    Check(Expect),
}

/// What a key must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Without a value.
    Absent,
    /// With some value.
    Present,
    /// With a value that was last changed at this revision.
    Revision(Revision),
    /// With this value.
    Value(Bytes),
}

const WHAT: &str = "a command";
const VERSION: u8 = 1;

const OPERATION_WRITE: u8 = 1;
const OPERATION_EXPIRE_SESSIONS: u8 = 2;
const OPERATION_DROP_KEYSPACE: u8 = 3;

const ACTION_PUT: u8 = 1;
const ACTION_DELETE: u8 = 2;
const ACTION_APPEND: u8 = 3;
const ACTION_COMPARE_AND_SET: u8 = 4;
const ACTION_CHECK: u8 = 5;

const EXPECT_ABSENT: u8 = 1;
const EXPECT_PRESENT: u8 = 2;
const EXPECT_REVISION: u8 = 3;
const EXPECT_VALUE: u8 = 4;

impl Command {
    /// The keys whose rows it may act on; that of its session among them.
    pub fn reads(&self) -> impl Iterator<Item = (KeyspaceId, Key)> + '_ {
        let steps = match &self.operation {
            Operation::Write(steps) => steps.as_slice(),
            Operation::ExpireSessions { .. } | Operation::DropKeyspace { .. } => &[],
        };
        let steps = steps.iter().map(|step| (step.keyspace, step.key.clone()));
        let session = self.session.map(|it| (KeyspaceId::SESSIONS, Session::key(it.client)));
        steps.chain(session)
    }

    /// The bytes of an entry.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u64_le(self.stamp.0);
        out.put_u32_le(self.value_bytes_max);
        put_option(self.session.as_ref(), &mut out, put_session);
        put_operation(&self.operation, &mut out);
        out.into()
    }

    /// Reads the bytes of an entry.
    ///
    /// # Errors
    /// [`DecodeError`]; all but `UnknownVersion` are the same for every program that knows the
    /// version.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let mut reader = Reader::versioned(WHAT, VERSION, bytes)?;
        let command = Command {
            stamp: Timestamp(reader.u64()?),
            value_bytes_max: reader.u32()?,
            session: reader.option("a command's session", take_session)?,
            operation: take_operation(&mut reader)?,
        };
        reader.finish(command)
    }
}

fn put_session(session: &SessionStamp, out: &mut Vec<u8>) {
    out.put_u64_le(session.client.0);
    out.put_u64_le(session.sequence);
    out.put_u64_le(session.acknowledged);
}

fn take_session(reader: &mut Reader<'_>) -> Result<SessionStamp, DecodeError> {
    Ok(SessionStamp {
        client: ClientId(reader.u64()?),
        sequence: reader.u64()?,
        acknowledged: reader.u64()?,
    })
}

fn put_operation(operation: &Operation, out: &mut Vec<u8>) {
    match operation {
        Operation::Write(steps) => {
            out.put_u8(OPERATION_WRITE);
            put_list(steps.iter(), out, put_step);
        }
        Operation::ExpireSessions { idle_since } => {
            out.put_u8(OPERATION_EXPIRE_SESSIONS);
            out.put_u64_le(idle_since.0);
        }
        Operation::DropKeyspace { keyspace } => {
            out.put_u8(OPERATION_DROP_KEYSPACE);
            out.put_u32_le(keyspace.0);
        }
    }
}

fn take_operation(reader: &mut Reader<'_>) -> Result<Operation, DecodeError> {
    match reader.u8()? {
        OPERATION_WRITE => reader.list(take_step).map(Operation::Write),
        OPERATION_EXPIRE_SESSIONS => {
            Ok(Operation::ExpireSessions { idle_since: Timestamp(reader.u64()?) })
        }
        OPERATION_DROP_KEYSPACE => {
            Ok(Operation::DropKeyspace { keyspace: KeyspaceId(reader.u32()?) })
        }
        kind => Err(DecodeError::UnknownKind { what: "a command's operation", kind }),
    }
}

fn put_step(step: &Step, out: &mut Vec<u8>) {
    out.put_u32_le(step.keyspace.0);
    put_bytes(step.key.as_bytes(), out);
    match &step.action {
        Action::Put(value) => {
            out.put_u8(ACTION_PUT);
            put_bytes(value, out);
        }
        Action::Delete => out.put_u8(ACTION_DELETE),
        Action::Append(suffix) => {
            out.put_u8(ACTION_APPEND);
            put_bytes(suffix, out);
        }
        Action::CompareAndSet { expect, then } => {
            out.put_u8(ACTION_COMPARE_AND_SET);
            put_expect(expect, out);
            put_option(then.as_ref(), out, |value, out| put_bytes(value, out));
        }
        Action::Check(expect) => {
            out.put_u8(ACTION_CHECK);
            put_expect(expect, out);
        }
    }
}

fn take_step(reader: &mut Reader<'_>) -> Result<Step, DecodeError> {
    let keyspace = KeyspaceId(reader.u32()?);
    let key = Key(reader.bytes()?);
    let action = match reader.u8()? {
        ACTION_PUT => Action::Put(reader.bytes()?),
        ACTION_DELETE => Action::Delete,
        ACTION_APPEND => Action::Append(reader.bytes()?),
        ACTION_COMPARE_AND_SET => Action::CompareAndSet {
            expect: take_expect(reader)?,
            then: reader.option("a step's new value", Reader::bytes)?,
        },
        ACTION_CHECK => Action::Check(take_expect(reader)?),
        kind => return Err(DecodeError::UnknownKind { what: "a step", kind }),
    };
    Ok(Step { keyspace, key, action })
}

fn put_expect(expect: &Expect, out: &mut Vec<u8>) {
    match expect {
        Expect::Absent => out.put_u8(EXPECT_ABSENT),
        Expect::Present => out.put_u8(EXPECT_PRESENT),
        Expect::Revision(revision) => {
            out.put_u8(EXPECT_REVISION);
            out.put_u64_le(revision.0);
        }
        Expect::Value(value) => {
            out.put_u8(EXPECT_VALUE);
            put_bytes(value, out);
        }
    }
}

fn take_expect(reader: &mut Reader<'_>) -> Result<Expect, DecodeError> {
    match reader.u8()? {
        EXPECT_ABSENT => Ok(Expect::Absent),
        EXPECT_PRESENT => Ok(Expect::Present),
        EXPECT_REVISION => Ok(Expect::Revision(Revision(reader.u64()?))),
        EXPECT_VALUE => reader.bytes().map(Expect::Value),
        kind => Err(DecodeError::UnknownKind { what: "a condition", kind }),
    }
}
