//! What machines are compared with, and what they are driven by.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::*;
use crate::protocol::group::command::{Action, Expect};
use crate::protocol::group::pass::Pass;
use crate::protocol::group::reply::{Current, StepResult};
use crate::protocol::group::sessions::WINDOW;
use crate::protocol::version::lww;
use crate::types::{ClientId, Record, Term};

/// A partition's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(pub(super) BTreeMap<(KeyspaceId, Key), Record>);

impl Rows for Table {
    type Error = Infallible;

    fn stored(&self, keyspace: KeyspaceId, key: &Key) -> Result<Option<Stored>, Infallible> {
        let record = self.0.get(&(keyspace, key.clone()));
        Ok(record.map(|record| Stored::from_record(record).unwrap()))
    }
}

impl Table {
    /// Takes rows as every replica takes them: the greater version stands.
    pub(super) fn merge(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            let place = (row.keyspace, row.key);
            let merged = lww::merge_options(self.0.remove(&place), Some(row.record));
            self.0.extend(merged.map(|record| (place, record)));
        }
    }

    pub(super) fn remove(&mut self, dropped: impl IntoIterator<Item = KeyspaceId>) {
        for dropped in dropped {
            self.0.retain(|(keyspace, _), _| *keyspace != dropped);
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        self.0.iter().map(|((keyspace, key), record)| Row {
            keyspace: *keyspace,
            key: key.clone(),
            record: record.clone(),
        })
    }

    /// The machine that a replica finds at its start.
    pub(super) fn machine(&self, limits: SessionLimits) -> Machine {
        let applied = self.0.get(&(KeyspaceId::GROUP, AppliedState::key()));
        let applied = applied.map_or_else(AppliedState::default, |record| {
            let row = Row { record: record.clone(), ..AppliedState::default().to_row() };
            AppliedState::from_row(&row).unwrap().unwrap()
        });
        let rows = self.rows().filter(|row| row.keyspace == KeyspaceId::SESSIONS);
        let sessions = rows.filter_map(|row| Session::from_row(&row).unwrap());
        Machine::new(applied, sessions, limits)
    }
}

/// A machine with its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) machine: Machine,
    pub(super) table: Table,
}

impl Replica {
    pub(super) fn new(limits: SessionLimits) -> Replica {
        let table = Table::default();
        Replica { machine: table.machine(limits), table }
    }

    /// Applies entries as one pass.
    pub(super) fn pass(&mut self, entries: &[Entry]) -> Vec<Option<Reply>> {
        let (mut pass, mut ahead) = (Pass::new(), self.table.clone());
        let (mut replies, mut dropped) = (Vec::new(), Vec::new());
        for entry in entries {
            let applied = self.machine.apply(entry, &ahead).unwrap();
            ahead.merge(applied.rows.clone());
            pass.add(applied.rows);
            dropped.extend(applied.dropped);
            replies.push(applied.reply);
        }
        self.table.merge(pass.finish(self.machine.applied_row()));
        self.table.remove(dropped);
        replies
    }

    /// Applies one more entry, alone.
    pub(super) fn one(&mut self, payload: Payload) -> Option<Reply> {
        let index = self.machine.applied().position.index.next();
        self.pass(&[Entry { term: Term(1), index, payload }]).remove(0)
    }

    pub(super) fn command(&mut self, command: &Command) -> Reply {
        self.one(Payload::Command(command.encode())).expect("a command has a reply")
    }
}

/// Values as users see them.
pub(super) type Values = BTreeMap<(KeyspaceId, Key), Value>;

/// One value as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    created: Revision,
    modified: Revision,
    bytes: Vec<u8>,
}

/// The values among rows.
pub(super) fn values(table: &Table) -> Values {
    let users = table.rows().filter(|row| row.keyspace < KeyspaceId::SESSIONS);
    let values = users.filter_map(|row| {
        let Stored { created, modified, value } = Stored::from_record(&row.record).unwrap();
        let bytes = value?.to_vec();
        Some(((row.keyspace, row.key), Value { created, modified, bytes }))
    });
    values.collect()
}

#[derive(Clone, Debug, Default)]
struct ModelSession {
    used: Revision,
    acknowledged: u64,
    replies: BTreeMap<u64, Reply>,
}

/// What the machine is to do, written down once more without regard to cost.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) values: Values,
    revision: Revision,
    limits: SessionLimits,
    sessions: BTreeMap<ClientId, ModelSession>,
    ended: BTreeSet<ClientId>,
    dropped: BTreeSet<KeyspaceId>,
}

impl Model {
    pub(super) fn new(limits: SessionLimits) -> Model {
        Model {
            values: Values::new(),
            revision: Revision(0),
            limits,
            sessions: BTreeMap::new(),
            ended: BTreeSet::new(),
            dropped: BTreeSet::new(),
        }
    }

    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.sessions.keys().copied().collect()
    }

    pub(super) fn entry(&mut self, payload: &Payload) -> Option<Reply> {
        let command = match payload {
            Payload::Command(bytes) => Command::decode(bytes),
            _ => {
                self.revision.0 += 1;
                return None;
            }
        };
        Some(match command {
            Ok(command) => self.command(&command),
            Err(error) => {
                self.revision.0 += 1;
                Reply::Refused(WriteRefusal::Malformed { detail: error.to_string() })
            }
        })
    }

    fn command(&mut self, command: &Command) -> Reply {
        self.revision = Revision((self.revision.0 + 1).max(command.stamp.0));
        let revision = self.revision;
        if let Some(keyspace) = internal_keyspace(&command.operation) {
            let detail = format!("keyspace {} is not one of a user", keyspace.0);
            return Reply::Refused(WriteRefusal::Malformed { detail });
        }
        if let Some(reply) = command.session.and_then(|stamp| self.known(stamp)) {
            return reply;
        }
        let reply = match &command.operation {
            Operation::Write(steps) => match self.write(steps, command.value_bytes_max) {
                Ok(results) => Reply::Written { revision, results },
                Err(refusal) => Reply::Refused(refusal),
            },
            _ => Reply::Written { revision, results: Vec::new() },
        };
        if let Some(stamp) = command.session {
            self.remember(stamp, reply.clone());
        }
        match command.operation {
            Operation::ExpireSessions { idle_since } => {
                let bound = idle_since.0.min(revision.0);
                self.end(|session| session.used.0 < bound);
            }
            Operation::DropKeyspace { keyspace } => {
                self.dropped.insert(keyspace);
                self.values.retain(|(held, _), _| *held != keyspace);
            }
            Operation::Write(_) => {}
        }
        reply
    }

    fn known(&self, stamp: SessionStamp) -> Option<Reply> {
        let sequence = stamp.sequence;
        let refuse = |error| Some(Reply::Refused(WriteRefusal::Session(error)));
        let empty = ModelSession::default();
        let session = self.sessions.get(&stamp.client);
        if session.is_none() && sequence > 1 {
            return refuse(SessionError::Unknown { sequence });
        }
        if let Some(reply) = session.and_then(|session| session.replies.get(&sequence)) {
            return Some(reply.clone());
        }
        let acknowledged = session.unwrap_or(&empty).acknowledged.max(stamp.acknowledged);
        if sequence <= acknowledged {
            return refuse(SessionError::Acknowledged { sequence, acknowledged });
        }
        if sequence > acknowledged + WINDOW {
            return refuse(SessionError::WindowExceeded { sequence, acknowledged });
        }
        if session.is_none() && self.ended.contains(&stamp.client) {
            return refuse(SessionError::Unknown { sequence });
        }
        None
    }

    fn remember(&mut self, stamp: SessionStamp, reply: Reply) {
        let long = reply.encode().len() > self.limits.reply_bytes_max;
        let reply = if long { reply.shortened() } else { reply };
        let session = self.sessions.entry(stamp.client).or_default();
        session.used = self.revision;
        session.acknowledged = session.acknowledged.max(stamp.acknowledged);
        session.replies.insert(stamp.sequence, reply);
        let acknowledged = session.acknowledged;
        session.replies.retain(|sequence, _| *sequence > acknowledged);
        while self.sessions.len() > 1
            && (self.sessions.len() > self.limits.sessions_max
                || self.replies_bytes() > self.limits.replies_bytes_max)
        {
            let oldest = self.sessions.values().map(|session| session.used).min();
            self.end(|session| Some(session.used) == oldest);
        }
    }

    fn replies_bytes(&self) -> usize {
        let replies = self.sessions.values().flat_map(|session| session.replies.values());
        replies.map(|reply| reply.encode().len()).sum()
    }

    fn end(&mut self, ends: impl Fn(&ModelSession) -> bool) {
        let ending = self.sessions.iter().filter(|(_, session)| ends(session));
        self.ended.extend(ending.map(|(client, _)| *client));
        self.sessions.retain(|_, session| !ends(session));
    }

    fn write(&mut self, steps: &[Step], bytes_max: u32) -> Result<Vec<StepResult>, WriteRefusal> {
        let before = self.values.clone();
        let results = steps.iter().enumerate().map(|(number, step)| {
            if self.dropped.contains(&step.keyspace) {
                let keyspace = step.keyspace;
                return Err(WriteRefusal::KeyspaceDropped { step: number, keyspace });
            }
            self.step(number, step, u64::from(bytes_max))
        });
        let results = results.collect();
        if Result::is_err(&results) {
            self.values = before;
        }
        results
    }

    fn step(
        &mut self,
        number: usize,
        step: &Step,
        bytes_max: u64,
    ) -> Result<StepResult, WriteRefusal> {
        let place = (step.keyspace, step.key.clone());
        let held = self.values.get(&place).cloned();
        let bytes = held.as_ref().map(|value| value.bytes.clone());
        let expect = match &step.action {
            Action::CompareAndSet { expect, .. } | Action::Check(expect) => Some(expect),
            _ => None,
        };
        if expect.is_some_and(|expect| !as_expected(expect, held.as_ref())) {
            let current = held.map(|value| Current {
                value: Some(value.bytes.into()),
                created: value.created,
                modified: value.modified,
            });
            return Err(WriteRefusal::ConditionFailed { step: number, current });
        }
        let after = match &step.action {
            Action::Put(value) => Some(value.to_vec()),
            Action::Delete => None,
            Action::Append(suffix) => {
                let mut bytes = bytes.unwrap_or_default();
                bytes.extend_from_slice(suffix);
                Some(bytes)
            }
            Action::CompareAndSet { then, .. } => then.as_ref().map(|value| value.to_vec()),
            Action::Check(_) => bytes,
        };
        if let Some(after) = &after {
            let bytes = after.len() as u64;
            if bytes > bytes_max && !matches!(step.action, Action::Check(_)) {
                return Err(WriteRefusal::ValueTooLarge { step: number, bytes, bytes_max });
            }
        }
        if !matches!(step.action, Action::Check(_)) {
            self.values.remove(&place);
            let created = held.as_ref().map_or(self.revision, |value| value.created);
            let value = after.map(|bytes| Value { created, modified: self.revision, bytes });
            self.values.extend(value.map(|value| (place.clone(), value)));
        }
        let after = self.values.get(&place);
        Ok(StepResult {
            existed: held.is_some(),
            created: after.map(|value| value.created),
            value_bytes: after.map_or(0, |value| value.bytes.len() as u64),
        })
    }
}

fn as_expected(expect: &Expect, value: Option<&Value>) -> bool {
    match expect {
        Expect::Absent => value.is_none(),
        Expect::Present => value.is_some(),
        Expect::Revision(revision) => value.is_some_and(|value| value.modified == *revision),
        Expect::Value(bytes) => value.is_some_and(|value| value.bytes == *bytes),
    }
}
