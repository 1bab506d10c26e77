//! The steps of one batch: each sees what those before it did, and all happen or none.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::protocol::group::applied::AppliedState;
use crate::protocol::group::command::{Action, Expect, Step};
use crate::protocol::group::machine::Rows;
use crate::protocol::group::reply::{Current, StepResult, WriteRefusal};
use crate::protocol::group::stored::Stored;
use crate::types::{Key, KeyspaceId, Revision, Row};

/// Why a batch came to nothing.
pub(super) enum Stopped<E> {
    /// The rows could not be read: nothing is known.
    Unread(E),
    /// A step refuses; every replica finds the same.
    Refused(WriteRefusal),
}

impl<E> From<WriteRefusal> for Stopped<E> {
    fn from(refusal: WriteRefusal) -> Self {
        Stopped::Refused(refusal)
    }
}

/// What each step did, and the rows that follow from all of them.
pub(super) type Ran = (Vec<StepResult>, Vec<Row>);

/// A batch under way.
pub(super) struct Batch<'a, R> {
    rows: &'a R,
    applied: &'a AppliedState,
    revision: Revision,
    value_bytes_max: u64,
    /// What the steps made so far.
    changed: BTreeMap<(KeyspaceId, &'a Key), Stored>,
}

/// What a step makes of a key.
enum Change {
    Keep,
    Set(Bytes),
    Clear,
}

impl<'a, R: Rows> Batch<'a, R> {
    pub(super) fn new(
        rows: &'a R,
        applied: &'a AppliedState,
        revision: Revision,
        value_bytes_max: u32,
    ) -> Self {
        let value_bytes_max = u64::from(value_bytes_max);
        Batch { rows, applied, revision, value_bytes_max, changed: BTreeMap::new() }
    }

    /// Takes the steps in order.
    pub(super) fn run(mut self, steps: &'a [Step]) -> Result<Ran, Stopped<R::Error>> {
        let mut results = Vec::with_capacity(steps.len());
        for (number, step) in steps.iter().enumerate() {
            results.push(self.take(number, step)?);
        }
        let changed = self.changed.into_iter();
        let rows = changed.map(|((keyspace, key), stored)| Row {
            keyspace,
            key: key.clone(),
            record: stored.to_record(),
        });
        Ok((results, rows.collect()))
    }

    fn take(&mut self, number: usize, step: &'a Step) -> Result<StepResult, Stopped<R::Error>> {
        self.check_keyspace(number, step.keyspace)?;
        let before = self.live(step.keyspace, &step.key).map_err(Stopped::Unread)?;
        let change = change(number, &step.action, before.as_ref())?;
        if let Change::Set(value) = &change {
            self.check_size(number, value)?;
        }
        let existed = before.is_some();
        let after = self.changed(before, change);
        if let Some(stored) = after.changed {
            self.changed.insert((step.keyspace, &step.key), stored);
        }
        Ok(StepResult { existed, created: after.created, value_bytes: after.value_bytes })
    }

    fn check_keyspace(&self, step: usize, keyspace: KeyspaceId) -> Result<(), WriteRefusal> {
        if self.applied.dropped.contains(&keyspace) {
            return Err(WriteRefusal::KeyspaceDropped { step, keyspace });
        }
        Ok(())
    }

    fn check_size(&self, step: usize, value: &Bytes) -> Result<(), WriteRefusal> {
        let (bytes, bytes_max) = (value.len() as u64, self.value_bytes_max);
        if bytes > bytes_max {
            return Err(WriteRefusal::ValueTooLarge { step, bytes, bytes_max });
        }
        Ok(())
    }

    /// What the key holds now, if that is a value.
    fn live(&self, keyspace: KeyspaceId, key: &Key) -> Result<Option<Live>, R::Error> {
        let stored = match self.changed.get(&(keyspace, key)) {
            Some(stored) => Some(stored.clone()),
            None => self.rows.stored(keyspace, key)?,
        };
        Ok(stored.and_then(Live::of))
    }

    fn changed(&self, before: Option<Live>, change: Change) -> After {
        let stored = |created, value| Stored { created, modified: self.revision, value };
        let held = before.as_ref().map(|live| (live.created, live.value.len() as u64));
        match (change, held) {
            (Change::Keep, Some((created, value_bytes))) => {
                After { created: Some(created), value_bytes, changed: None }
            }
            (Change::Keep | Change::Clear, None) => After::default(),
            (Change::Clear, Some(_)) => {
                After { changed: Some(stored(self.revision, None)), ..After::default() }
            }
            (Change::Set(value), held) => {
                let created = held.map_or(self.revision, |(created, _)| created);
                let value_bytes = value.len() as u64;
                let changed = Some(stored(created, Some(value)));
                After { created: Some(created), value_bytes, changed }
            }
        }
    }
}

/// A value and the revisions that made it so.
struct Live {
    created: Revision,
    modified: Revision,
    value: Bytes,
}

impl Live {
    fn of(stored: Stored) -> Option<Live> {
        let Stored { created, modified, value } = stored;
        value.map(|value| Live { created, modified, value })
    }

    fn told(&self) -> Current {
        let Live { created, modified, ref value } = *self;
        Current { value: Some(value.clone()), created, modified }
    }
}

/// A key after a step.
#[derive(Default)]
struct After {
    created: Option<Revision>,
    value_bytes: u64,
    /// What is to be stored; `None` when the step changed nothing.
    changed: Option<Stored>,
}

fn change(step: usize, action: &Action, before: Option<&Live>) -> Result<Change, WriteRefusal> {
    let check = |expect| match holds(expect, before) {
        true => Ok(()),
        false => {
            let current = before.map(Live::told);
            Err(WriteRefusal::ConditionFailed { step, current })
        }
    };
    Ok(match action {
        Action::Put(value) => Change::Set(value.clone()),
        Action::Delete => Change::Clear,
        Action::Append(suffix) => {
            let held = before.map_or(&[][..], |live| &live.value);
            Change::Set([held, suffix].concat().into())
        }
        Action::CompareAndSet { expect, then } => {
            check(expect)?;
            then.clone().map_or(Change::Clear, Change::Set)
        }
        Action::Check(expect) => {
            check(expect)?;
            Change::Keep
        }
    })
}

fn holds(expect: &Expect, live: Option<&Live>) -> bool {
    match (expect, live) {
        (Expect::Absent, live) => live.is_none(),
        (_, None) => false,
        (Expect::Present, Some(_)) => true,
        (Expect::Revision(revision), Some(live)) => live.modified == *revision,
        (Expect::Value(value), Some(live)) => live.value == value,
    }
}
