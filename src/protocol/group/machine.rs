//! Applies the entries of a group's log, one after another, to rows that someone else keeps.
//!
//! Every replica begins with the same state and applies the same entries, so every replica has the
//! same state after the same entry (state-machine safety, Ongaro 2014, section 3.2). What an entry
//! does depends on nothing but the entry and the state before it: no setting of a node, no clock.
//!
//! # Outcome rows
//!
//! Applying an entry yields rows: those of the keys that it changed and that of its session, all
//! under the entry's revision. A revision is above that of every entry before, so for each key the
//! rows of the log are ordered as the entries are, and merging by version (the later row stands)
//! gives the state after the last of them, in whatever order and however often rows are merged.
//! So writing outcomes again after a crash changes nothing, and no condition is asked again for an
//! entry whose outcome is known.
//!
//! The opposite does not hold: an entry must never be applied to a state that has outcomes of
//! itself or of later entries, as its conditions would be asked of the future. The driver sees to
//! this: [`Machine::new`] gets an applied row that is no older than any other row, and
//! [`Machine::apply`] refuses every entry but the next one.
//!
//! # Snapshots
//!
//! For the same reason a snapshot of a partition may be gathered while entries are applied: rows
//! read one by one after entry A, and then, once entry B was applied, every row that bears a
//! revision above that of A, with the applied row of B. Merged by version they are the state after
//! B. None of them may come from behind B.
//!
//! # Duties of the driver
//! 1. Apply committed entries in order, with rows that show the outcome of every entry before.
//!    Outcomes that are not stored yet lie over those that are.
//! 2. Write the rows of a pass and [`Machine::applied_row`] as one record of the node's log, before
//!    any later pass; [`Pass`](crate::protocol::group::pass::Pass) gathers them. Rows of
//!    [`Applied::dropped`] may then be removed at leisure.
//! 3. After an error, apply the same entry again: the machine has not changed.

#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use crate::protocol::group::applied::AppliedState;
use crate::protocol::group::batch::{Batch, Stopped};
use crate::protocol::group::codec::DecodeError;
use crate::protocol::group::command::{Command, Operation, SessionStamp, Step};
use crate::protocol::group::reply::{Reply, WriteRefusal};
use crate::protocol::group::sessions::{Admission, Session, SessionError, SessionLimits, Sessions};
use crate::protocol::group::stored::Stored;
use crate::protocol::raft::entry::{Entry, Payload};
use crate::protocol::raft::planted::{Planted, planted};
use crate::types::{Key, KeyspaceId, LogIndex, Revision, Row, Timestamp};

/// The rows of the partition as all entries before have left them.
pub trait Rows {
    /// Why rows could not be read.
    type Error;

    /// What is stored for a key, tombstones included; sessions are asked for as well, in
    /// [`KeyspaceId::SESSIONS`]. `None` when nothing ever was.
    ///
    /// # Errors
    /// Those of the storage.
    fn stored(&self, keyspace: KeyspaceId, key: &Key) -> Result<Option<Stored>, Self::Error>;
}

/// What came of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What the client hears; `None` for entries that no client waits for.
    pub reply: Option<Reply>,
    /// Rows that changed, each key once, all under the entry's revision.
    pub rows: Vec<Row>,
    /// A keyspace that is gone: its rows in this partition count for nothing any more.
    pub dropped: Option<KeyspaceId>,
}

/// Why an entry was not applied. The machine has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError<E> {
    /// Rows could not be read; the entry can be applied again.
    #[error("entry {index} needs rows that could not be read: {source}")]
    Rows {
        /// The entry.
        index: LogIndex,
        /// Why not.
        source: E,
    },
    /// Not the entry after the last one that was applied.
    #[error("entry {index} is not the next to apply, which is {expected}")]
    NotNext {
        /// The entry.
        index: LogIndex,
        /// The next one.
        expected: LogIndex,
    },
    /// A newer program wrote the entry. Others of the group know what it says, so this one must
    /// not pass it over: it can go on only with a newer program.
    #[error("entry {index} is newer than this program: {source}")]
    TooNew {
        /// The entry.
        index: LogIndex,
        /// Its version.
        source: DecodeError,
    },
}

/// One replica's state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    applied: AppliedState,
    sessions: Sessions,
}

/// What a command comes to, before anything changes.
struct Decision {
    reply: Reply,
    rows: Vec<Row>,
    /// Under what to remember the reply.
    remember: Option<SessionStamp>,
    /// Whether the operation's other effects take place.
    executed: bool,
}

impl Decision {
    fn refuse(refusal: WriteRefusal) -> Decision {
        Decision::answer(Reply::Refused(refusal))
    }

    fn answer(reply: Reply) -> Decision {
        Decision { reply, rows: Vec::new(), remember: None, executed: false }
    }
}

impl Machine {
    /// A machine as it was when the applied row and the sessions' rows were written.
    pub fn new(
        applied: AppliedState,
        sessions: impl Iterator<Item = Session>,
        limits: SessionLimits,
    ) -> Machine {
        Machine { applied, sessions: Sessions::new(sessions, limits) }
    }

    /// How far it has come.
    pub fn applied(&self) -> &AppliedState {
        &self.applied
    }

    /// The row that says how far it has come: to be written with the rows of each pass.
    pub fn applied_row(&self) -> Row {
        self.applied.to_row()
    }

    /// How many sessions there are.
    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// When the session was last used that was not used for longest: whether it is time for
    /// [`Operation::ExpireSessions`].
    pub fn oldest_session_use(&self) -> Option<Revision> {
        self.sessions.oldest_use()
    }

    /// Applies the next entry.
    ///
    /// # Errors
    /// [`ApplyError`]; the machine is as it was.
    pub fn apply<R: Rows>(
        &mut self,
        entry: &Entry,
        rows: &R,
    ) -> Result<Applied, ApplyError<R::Error>> {
        let (index, expected) = (entry.index, self.applied.position.index.next());
        if index != expected {
            return Err(ApplyError::NotNext { index, expected });
        }
        let (applied, revision) = match &entry.payload {
            Payload::Empty => (Applied::default(), self.next_revision(Timestamp(0))),
            Payload::Membership(membership) => {
                self.applied.membership = membership.clone();
                self.applied.membership_index = index;
                (Applied::default(), self.next_revision(Timestamp(0)))
            }
            Payload::Command(bytes) => match Command::decode(bytes) {
                Ok(command) => {
                    let revision = self.next_revision(command.stamp);
                    let decision = self.decide(&command, revision, rows);
                    let decision = decision.map_err(|source| ApplyError::Rows { index, source })?;
                    (self.carry_out(&command.operation, decision, revision), revision)
                }
                Err(source @ DecodeError::UnknownVersion { .. }) => {
                    return Err(ApplyError::TooNew { index, source });
                }
                Err(error) => (malformed(&error), self.next_revision(Timestamp(0))),
            },
        };
        self.applied.position = entry.position();
        self.applied.revision = revision;
        Ok(applied)
    }

    /// Entries without a stamp have a revision of their own as well: the applied row needs one.
    fn next_revision(&self, stamp: Timestamp) -> Revision {
        self.applied.revision.next(stamp)
    }

    fn decide<R: Rows>(
        &self,
        command: &Command,
        revision: Revision,
        rows: &R,
    ) -> Result<Decision, R::Error> {
        if let Some(keyspace) = internal_keyspace(&command.operation) {
            let detail = format!("keyspace {} is not one of a user", keyspace.0);
            return Ok(Decision::refuse(WriteRefusal::Malformed { detail }));
        }
        if let Some(answer) = self.answer_of_session(command.session, rows)? {
            return Ok(Decision::answer(answer));
        }
        let (reply, rows) = match &command.operation {
            Operation::Write(steps) => {
                let batch = Batch::new(rows, &self.applied, revision, command.value_bytes_max);
                write(batch, steps, revision)?
            }
            Operation::ExpireSessions { .. } | Operation::DropKeyspace { .. } => {
                (Reply::Written { revision, results: Vec::new() }, Vec::new())
            }
        };
        Ok(Decision { reply, rows, remember: command.session, executed: true })
    }

    /// The answer to a command that its session keeps from being executed.
    fn answer_of_session<R: Rows>(
        &self,
        session: Option<SessionStamp>,
        rows: &R,
    ) -> Result<Option<Reply>, R::Error> {
        let unchecked = planted(Planted::DedupeOnlyBeforePropose);
        let Some(stamp) = session.filter(|_| !unchecked) else { return Ok(None) };
        match self.sessions.admit(stamp) {
            Ok(Admission::Execute) => Ok(None),
            Ok(Admission::Repeat(reply)) => Ok(Some(reply)),
            Ok(Admission::Open) => {
                // Only a session that ended has left a row: its first command is not to be
                // executed a second time.
                let ended = rows.stored(KeyspaceId::SESSIONS, &Session::key(stamp.client))?;
                let sequence = stamp.sequence;
                Ok(ended.map(|_| Reply::Refused(SessionError::Unknown { sequence }.into())))
            }
            Err(error) => Ok(Some(Reply::Refused(error.into()))),
        }
    }

    fn carry_out(
        &mut self,
        operation: &Operation,
        decision: Decision,
        revision: Revision,
    ) -> Applied {
        let Decision { reply, mut rows, remember, executed } = decision;
        if let Some(stamp) = remember {
            rows.extend(self.sessions.remember(stamp, &reply, revision));
        }
        let mut dropped = None;
        match *operation {
            Operation::ExpireSessions { idle_since } if executed => {
                rows.extend(self.sessions.expire(idle_since, revision));
            }
            Operation::DropKeyspace { keyspace } if executed => {
                self.applied.drop_keyspace(keyspace);
                dropped = Some(keyspace);
            }
            _ => {}
        }
        Applied { reply: Some(reply), rows, dropped }
    }
}

/// A refusal is an outcome too: it has no rows, and its session remembers it.
fn write<R: Rows>(
    batch: Batch<'_, R>,
    steps: &[Step],
    revision: Revision,
) -> Result<(Reply, Vec<Row>), R::Error> {
    match batch.run(steps) {
        Ok((results, rows)) => Ok((Reply::Written { revision, results }, rows)),
        Err(Stopped::Refused(refusal)) => Ok((Reply::Refused(refusal), Vec::new())),
        Err(Stopped::Unread(error)) => Err(error),
    }
}

/// Every program that knows an entry's version finds the same fault with it.
fn malformed(error: &DecodeError) -> Applied {
    let refusal = WriteRefusal::Malformed { detail: error.to_string() };
    Applied { reply: Some(Reply::Refused(refusal)), ..Applied::default() }
}

/// A keyspace of the machine's own that a command reaches for.
fn internal_keyspace(operation: &Operation) -> Option<KeyspaceId> {
    let internal = |keyspace: KeyspaceId| keyspace >= KeyspaceId::SESSIONS;
    match operation {
        Operation::Write(steps) => {
            steps.iter().map(|step| step.keyspace).find(|keyspace| internal(*keyspace))
        }
        Operation::DropKeyspace { keyspace } => Some(*keyspace).filter(|id| internal(*id)),
        Operation::ExpireSessions { .. } => None,
    }
}
