//! Which commands were executed already, so that a repeated one is answered and not executed again
//! (Ongaro 2014, section 6.3).
//!
//! A session numbers its commands to one group from 1. The replies of those that the client has
//! not acknowledged are remembered; at most [`WINDOW`] numbers above the acknowledged ones may be
//! in use. So for each number of a session it is known whether it was executed:
//!
//! * up to the acknowledged one: it was, or the client gave it up; it never will be again;
//! * above, with a remembered reply: it was, and the reply is repeated;
//! * above, without one: it was not.
//!
//! Invariant: a remembered reply above the acknowledged number is let go of only with its whole
//! session. What is bounded is each reply's size: a large one is remembered without the parts
//! whose size a client determines, and says so when it is repeated.
//!
//! The table is part of the group's state: it changes only by entries of the log, alike on every
//! replica. A session that ended leaves a tombstone, by which its first command is told from the
//! first command of a new session. The client draws a new id for each session, executes its first
//! command alone, and gives a session up that was answered with [`SessionError::Unknown`].

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes};

use crate::protocol::group::codec::{DecodeError, Reader, put_bytes, put_list};
use crate::protocol::group::command::SessionStamp;
use crate::protocol::group::reply::Reply;
use crate::protocol::group::stored::{RowError, Stored};
use crate::types::{ClientId, Key, KeyspaceId, Revision, Row, Timestamp};

/// How many sequence numbers above the acknowledged one a session may use.
pub const WINDOW: u64 = 64;

/// How many sessions one entry ends at most, so that no entry's outcome is without bounds.
pub const EXPIRED_PER_ENTRY_MAX: usize = 1000;

/// Bounds of the table. They decide what is executed, so every replica must have the same: nodes
/// use the default, which changes only with the version of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions of a group; beyond, those that were longest unused end.
    pub sessions_max: usize,
    /// Bytes of all remembered replies of a group; beyond, those sessions end as well.
    pub replies_bytes_max: usize,
    /// Bytes of a reply up to which it is remembered whole.
    pub reply_bytes_max: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits {
            sessions_max: 100_000,
            replies_bytes_max: 64 << 20,
            reply_bytes_max: 4 << 10,
        }
    }
}

/// Why a command of a session was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The group does not have the session: it ended, or never began with sequence 1.
    #[error("the session is not known; its command {sequence} was not executed this time")]
    Unknown {
        /// The command's number.
        sequence: u64,
    },
    /// The client has said that it needs no reply to this command any more.
    #[error("command {sequence} is acknowledged, as all up to {acknowledged} are")]
    Acknowledged {
        /// The command's number.
        sequence: u64,
        /// The last number that is acknowledged.
        acknowledged: u64,
    },
    /// Too many commands are unacknowledged.
    #[error("command {sequence} is more than {WINDOW} above {acknowledged}, the acknowledged one")]
    WindowExceeded {
        /// The command's number.
        sequence: u64,
        /// The last number that is acknowledged.
        acknowledged: u64,
    },
}

/// What is known of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    client: ClientId,
    opened: Revision,
    used: Revision,
    acknowledged: u64,
    /// Replies by sequence, as bytes.
    replies: BTreeMap<u64, Bytes>,
}

const WHAT: &str = "a session";
const VERSION: u8 = 1;

impl Session {
    /// Whose session it is.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// Where the session's row lies.
    pub fn key(client: ClientId) -> Key {
        Key(Bytes::copy_from_slice(&client.0.to_be_bytes()))
    }

    /// The row that keeps the session.
    pub fn to_row(&self) -> Row {
        let mut value = vec![VERSION];
        value.put_u64_le(self.acknowledged);
        put_list(self.replies.iter(), &mut value, |(sequence, reply), out| {
            out.put_u64_le(*sequence);
            put_bytes(reply, out);
        });
        row(self.client, self.opened, self.used, Some(value.into()))
    }

    /// Reads a row of [`KeyspaceId::SESSIONS`]; `None` for a session that ended.
    ///
    /// # Errors
    /// [`RowError`] for a row that no machine made.
    pub fn from_row(row: &Row) -> Result<Option<Session>, RowError> {
        let client = client_of(row).ok_or_else(|| RowError::Misplaced {
            what: WHAT,
            keyspace: row.keyspace,
            key: row.key.clone(),
        })?;
        let stored = Stored::from_record(&row.record)
            .map_err(|source| RowError::Record { what: WHAT, source })?;
        let Some(value) = &stored.value else { return Ok(None) };
        let (acknowledged, replies) =
            take_replies(value).map_err(|source| RowError::Value { what: WHAT, source })?;
        let (opened, used) = (stored.created, stored.modified);
        Ok(Some(Session { client, opened, used, acknowledged, replies }))
    }

    fn replies_bytes(&self) -> usize {
        self.replies.values().map(Bytes::len).sum()
    }

    fn admit(&self, stamp: SessionStamp) -> Result<Admission, SessionError> {
        let (sequence, acknowledged) = (stamp.sequence, self.acknowledged.max(stamp.acknowledged));
        if let Some(reply) = self.replies.get(&sequence) {
            let reply = Reply::decode(reply);
            return Ok(Admission::Repeat(
                reply.expect("invariant: replies were read or made here"),
            ));
        }
        check_window(sequence, acknowledged)?;
        Ok(Admission::Execute)
    }
}

/// What is to be done with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Execute it.
    Execute,
    /// Execute it as the first of a new session, unless a session of this id ended before.
    Open,
    /// It was executed: this is the reply.
    Repeat(Reply),
}

/// The sessions of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sessions {
    limits: SessionLimits,
    sessions: BTreeMap<ClientId, Session>,
    /// The longest unused first.
    by_use: BTreeSet<(Revision, ClientId)>,
    /// Bytes of all remembered replies.
    replies_bytes: usize,
}

impl Sessions {
    pub(super) fn new(sessions: impl Iterator<Item = Session>, limits: SessionLimits) -> Self {
        let mut table = Sessions {
            limits,
            sessions: BTreeMap::new(),
            by_use: BTreeSet::new(),
            replies_bytes: 0,
        };
        sessions.for_each(|session| table.insert(session));
        table
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// When the session was used that was not used for longest.
    pub(super) fn oldest_use(&self) -> Option<Revision> {
        self.by_use.first().map(|(used, _)| *used)
    }

    /// Whether a command is to be executed. Changes nothing.
    pub(super) fn admit(&self, stamp: SessionStamp) -> Result<Admission, SessionError> {
        match self.sessions.get(&stamp.client) {
            Some(session) => session.admit(stamp),
            None if stamp.sequence > 1 => Err(SessionError::Unknown { sequence: stamp.sequence }),
            None => check_window(stamp.sequence, stamp.acknowledged).map(|()| Admission::Open),
        }
    }

    /// Remembers the reply to a command that was admitted and executed. Returns the session's row
    /// and those of sessions that had to end for it.
    pub(super) fn remember(
        &mut self,
        stamp: SessionStamp,
        reply: &Reply,
        revision: Revision,
    ) -> Vec<Row> {
        let mut session = self.remove(stamp.client).unwrap_or_else(|| Session {
            client: stamp.client,
            opened: revision,
            used: revision,
            acknowledged: 0,
            replies: BTreeMap::new(),
        });
        session.used = revision;
        session.acknowledged = session.acknowledged.max(stamp.acknowledged);
        session.replies.retain(|sequence, _| *sequence > session.acknowledged);
        session.replies.insert(stamp.sequence, self.bytes_to_remember(reply));
        let mut rows = vec![session.to_row()];
        self.insert(session);
        while self.is_over_limits() {
            rows.extend(self.end_oldest(revision));
        }
        rows
    }

    /// Ends sessions that were last used before `idle_since`, at most [`EXPIRED_PER_ENTRY_MAX`],
    /// and never one that this very entry used. Returns their tombstones.
    pub(super) fn expire(&mut self, idle_since: Timestamp, revision: Revision) -> Vec<Row> {
        let bound = Revision(idle_since.0).min(revision);
        let oldest = self.by_use.iter().take(EXPIRED_PER_ENTRY_MAX);
        let idle = oldest.take_while(|(used, _)| *used < bound).count();
        (0..idle).filter_map(|_| self.end_oldest(revision)).collect()
    }

    /// A session alone stays, whatever it takes: it is the one in use.
    fn is_over_limits(&self) -> bool {
        let over = self.sessions.len() > self.limits.sessions_max
            || self.replies_bytes > self.limits.replies_bytes_max;
        over && self.sessions.len() > 1
    }

    fn bytes_to_remember(&self, reply: &Reply) -> Bytes {
        let whole = reply.encode();
        if whole.len() <= self.limits.reply_bytes_max {
            return whole;
        }
        reply.clone().shortened().encode()
    }

    fn end_oldest(&mut self, revision: Revision) -> Option<Row> {
        let (_, client) = *self.by_use.first()?;
        self.remove(client)?;
        Some(row(client, revision, revision, None))
    }

    fn insert(&mut self, session: Session) {
        self.by_use.insert((session.used, session.client));
        self.replies_bytes += session.replies_bytes();
        self.sessions.insert(session.client, session);
    }

    fn remove(&mut self, client: ClientId) -> Option<Session> {
        let session = self.sessions.remove(&client)?;
        self.by_use.remove(&(session.used, client));
        self.replies_bytes -= session.replies_bytes();
        Some(session)
    }
}

fn check_window(sequence: u64, acknowledged: u64) -> Result<(), SessionError> {
    match sequence.checked_sub(acknowledged) {
        None | Some(0) => Err(SessionError::Acknowledged { sequence, acknowledged }),
        Some(ahead) if ahead > WINDOW => {
            Err(SessionError::WindowExceeded { sequence, acknowledged })
        }
        Some(_) => Ok(()),
    }
}

fn row(client: ClientId, opened: Revision, used: Revision, value: Option<Bytes>) -> Row {
    let stored = Stored { created: opened, modified: used, value };
    Row { keyspace: KeyspaceId::SESSIONS, key: Session::key(client), record: stored.to_record() }
}

fn client_of(row: &Row) -> Option<ClientId> {
    let key: [u8; 8] = row.key.as_bytes().try_into().ok()?;
    (row.keyspace == KeyspaceId::SESSIONS).then_some(ClientId(u64::from_be_bytes(key)))
}

fn take_replies(value: &[u8]) -> Result<(u64, BTreeMap<u64, Bytes>), DecodeError> {
    let mut reader = Reader::versioned(WHAT, VERSION, value)?;
    let acknowledged = reader.u64()?;
    let list = reader.list(|reader| Ok((reader.u64()?, reader.bytes()?)))?;
    let list = reader.finish(list)?;
    for (sequence, reply) in &list {
        check_window(*sequence, acknowledged).map_err(|_| OUTSIDE)?;
        Reply::decode(reply)?;
    }
    if !list.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(DecodeError::Malformed { reason: "its replies are not in order" });
    }
    Ok((acknowledged, list.into_iter().collect()))
}

const OUTSIDE: DecodeError =
    DecodeError::Malformed { reason: "a reply lies outside of the session's window" };
