//! Applies what is committed and answers reads, as far as memory has the rows for it: what only the
//! disk has is fetched first.

use crate::node::groups::batch::Outcome;
use crate::node::groups::fetching::{Catch, Errand, Need, Stored};
use crate::node::groups::group::{Effects, Group};
use crate::node::groups::listing;
use crate::node::groups::machine::{MachineError, Told as MachineTold};
use crate::node::groups::observer::Observed;
use crate::node::groups::overlay::{GroupRowError, GroupRows};
use crate::node::groups::waiting::{Answer, Asker, ReadWaiting, Sought};
use crate::protocol::group::pass::Pass;
use crate::protocol::message::{ForwardRefusal, Told};
use crate::storage::store::{Store, StoreError};
use crate::storage::wal::LogRecord;
use crate::types::{LogIndex, Row};

/// Commands whose rows are fetched together.
const FETCHED_AHEAD_MAX: usize = 256;

impl Group {
    /// Applies what is committed, in order, and adds its outcome to the batch.
    pub(super) fn apply(
        &mut self,
        store: &Store,
        effects: &mut Effects,
    ) -> Result<(), MachineError> {
        let (mut pass, mut pass_bytes) = (Pass::new(), 0);
        let mut result = Ok(());
        loop {
            if pass_bytes >= effects.record_bytes_max / 2 {
                self.log_outcome(std::mem::take(&mut pass), effects);
                pass_bytes = 0;
            }
            let Some(entry) = self.backlog.first() else { break };
            let (overlay, fetching) = (&self.overlay, &self.fetching);
            let rows = GroupRows { store, overlay, fetching, partition: self.id.partition() };
            match self.machine.apply(entry, &rows) {
                Ok(MachineTold { reply, rows }) => {
                    if let Some(observed) = &mut effects.observed {
                        observed.push(Observed { entry: entry.clone(), reply: reply.clone() });
                    }
                    if !rows.is_empty() {
                        effects.applied.push((entry.index, rows.clone()));
                    }
                    self.overlay.add(&rows);
                    pass_bytes += rows.iter().map(Row::cost_bytes).sum::<usize>();
                    pass.add(rows);
                    let answer = reply.map(Told::Proposed).ok_or(ForwardRefusal::Unknown);
                    let position = entry.position();
                    effects.answers.extend(self.waiting.applied(position, answer));
                    self.backlog.pop();
                }
                Err(MachineError::Row(GroupRowError::Behind)) => {
                    // What was found is fetched with what is missing, or the two would never meet.
                    self.fetching.forget_found();
                    self.fetch_rows(store, effects);
                    break;
                }
                Err(error) => {
                    self.damaged |= error.is_damage();
                    result = Err(error);
                    break;
                }
            }
        }
        self.fetching.forget_found();
        self.trim();
        self.log_outcome(pass, effects);
        result
    }

    /// Has the rows fetched that the next commands act on.
    fn fetch_rows(&mut self, store: &Store, effects: &mut Effects) {
        let rows = self.rows(store);
        let next = self.backlog.iter().take(FETCHED_AHEAD_MAX);
        let keys = next.flat_map(|entry| self.machine.reads(entry));
        // What is damaged comes to light when it is applied.
        let behind =
            keys.filter(|(keyspace, key)| matches!(rows.record_at_once(*keyspace, key), Ok(None)));
        let behind = behind.collect();
        if let Some(since) = self.fetching.begin_rows(self.overlay.published()) {
            let (group, replica) = (self.id, self.replica);
            effects.errands.push(Errand { group, replica, need: Need::Rows(since, behind) });
        }
    }

    fn log_outcome(&mut self, pass: Pass, effects: &mut Effects) {
        let applied = self.machine.applied();
        let (applied, revision) = (applied.position.index, applied.revision);
        if applied <= self.logged {
            return;
        }
        self.logged = applied;
        let outcome = pass.finish(self.machine.applied_row());
        if let Some((_applied_row, changed)) = outcome.split_last()
            && !changed.is_empty()
        {
            effects.changed.push((self.id, changed.to_vec()));
        }
        let partition = self.partition();
        let rows = outcome.into_iter().map(|row| (partition, row)).collect();
        effects.batch.records.push(LogRecord::Rows(rows));
        let (group, replica) = (self.id, self.replica);
        effects.batch.outcomes.push(Outcome { group, replica, applied, revision });
    }

    /// Answers the reads that what is applied suffices for.
    pub(super) fn answer_reads(
        &mut self,
        store: &Store,
        effects: &mut Effects,
    ) -> Result<(), MachineError> {
        let applied = self.machine.applied().position.index;
        let mut result = Ok(());
        for read in self.waiting.ripe(applied) {
            match found(&self.rows(store), &read, applied) {
                Ok(told) => effects.answers.push((read.asker, Ok(told))),
                Err(GroupRowError::Behind) => {
                    let since = self.fetching.begin(self.overlay.published());
                    let (group, replica) = (self.id, self.replica);
                    effects.errands.push(Errand { group, replica, need: Need::Read(since, read) });
                }
                Err(error) => {
                    self.damaged |= error.is_damage();
                    result = Err(error.into());
                    effects.answers.push((read.asker, Err(ForwardRefusal::Storage)));
                }
            }
        }
        result
    }

    /// Takes what was fetched; answers the client that it was for, if it was for one.
    pub(crate) fn on_fetched(&mut self, catch: Catch) -> Option<(Asker, Answer)> {
        let answer = match catch {
            Catch::Rows(since, found) => {
                if let Err(error) = &found {
                    // The commands that need them are tried again whenever something happens.
                    tracing::error!(group = %self.id, %error, "rows cannot be fetched");
                }
                let is_usable = !self.installing && !self.sealed;
                self.fetching.end_rows(since, found.ok().filter(|_| is_usable));
                None
            }
            Catch::Read(since, read, stored) => {
                if self.fetching.end(since) && !self.installing {
                    Some(self.answer_fetched(read, stored))
                } else {
                    // It may be of no single moment, and is read once more.
                    self.waiting.ripens(LogIndex(0), read);
                    None
                }
            }
            Catch::Page(..) => None,
        };
        self.trim();
        answer
    }

    /// Lets go of rows that the store has, and that nothing needs which was read of it before.
    pub(super) fn trim(&mut self) {
        self.overlay.trim(self.fetching.needed_above());
    }

    fn answer_fetched(
        &mut self,
        read: ReadWaiting,
        stored: Result<Stored, StoreError>,
    ) -> (Asker, Answer) {
        let ReadWaiting { keyspace, asker, .. } = read;
        let applied = self.machine.applied().position.index;
        let told = stored.map_err(GroupRowError::from).and_then(|stored| {
            Ok(match stored {
                Stored::Row(key, stored) => {
                    let record = self.overlay.get(keyspace, &key).cloned().or(stored);
                    Told::Read { record, applied }
                }
                Stored::Listing(range, page) => {
                    Told::Listed(self.overlay.list(keyspace, &range, page)?)
                }
            })
        });
        let answer = told.map_err(|error| {
            self.damaged |= error.is_damage();
            tracing::error!(group = %self.id, %error, "what a client asks for cannot be read");
            ForwardRefusal::Storage
        });
        (asker, answer)
    }
}

/// What is there of what is sought, as far as it can be told at once.
fn found(
    rows: &GroupRows<'_>,
    read: &ReadWaiting,
    applied: LogIndex,
) -> Result<Told, GroupRowError> {
    match &read.sought {
        Sought::Key(key) => {
            let record = rows.record_at_once(read.keyspace, key)?;
            let record = record.ok_or(GroupRowError::Behind)?;
            Ok(Told::Read { record, applied })
        }
        Sought::Range(_) if rows.store.is_unsettled() => Err(GroupRowError::Behind),
        Sought::Range(range) => {
            let page = listing::stored(rows.store, (read.keyspace, rows.partition), range)?;
            Ok(Told::Listed(rows.overlay.list(read.keyspace, range, page)?))
        }
    }
}

#[cfg(test)]
mod tests;
