//! What a replica needs of the disk while the disk may keep its reader waiting.
//!
//! All groups of a node have one task, and a read of the engine may take as long as a segment takes
//! to flush ([`crate::node::aside`]). So what the tables in memory do not answer then is fetched by
//! another thread: the rows that commands act on, what clients read and list, and the pages of
//! snapshots. The task goes on meanwhile; only a group whose next command lacks a row waits.
//!
//! What a group applies while something is fetched stays in its overlay until that has come. So the
//! two together are the rows as they are then, however late the store was read.

use std::collections::BTreeMap;

use crate::node::groups::listing;
use crate::node::groups::waiting::{Asker, ReadWaiting, Sought};
use crate::protocol::message::{ListPage, ListRange, ScanPage};
use crate::storage::store::{Store, StoreError};
use crate::types::{GroupId, Key, KeyspaceId, Record, ReplicaId, Revision};

/// Rows by key; `None` for keys that have none.
pub(crate) type Found = BTreeMap<(KeyspaceId, Key), Option<Record>>;

/// Something to be fetched for a replica of a group.
pub(crate) struct Errand {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) need: Need,
}

/// What is to be fetched.
pub(crate) enum Need {
    /// Rows that the next commands act on.
    Rows(Since, Vec<(KeyspaceId, Key)>),
    /// What a client asks for.
    Read(Since, ReadWaiting),
    /// Rows of a snapshot.
    Page(PageWanted),
}

/// The state of a replica when something was begun to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Since {
    /// How many snapshots it had taken in.
    pub(crate) installed: u64,
    /// The store had all rows up to this one.
    pub(crate) published: Revision,
}

/// A page of a snapshot under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageWanted {
    pub(crate) to: ReplicaId,
    pub(crate) transfer: u64,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) after: Option<Key>,
    pub(crate) bytes_max: usize,
}

/// What came of an errand.
pub(crate) struct Fetched {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    pub(crate) catch: Catch,
}

/// What was fetched, and what for.
pub(crate) enum Catch {
    Rows(Since, Result<Found, StoreError>),
    Read(Since, ReadWaiting, Result<Stored, StoreError>),
    Page(PageWanted, Result<ScanPage, StoreError>),
}

impl Catch {
    /// Whether the store failed.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Catch::Rows(_, rows) => rows.is_err(),
            Catch::Read(_, _, stored) => stored.is_err(),
            Catch::Page(_, page) => page.is_err(),
        }
    }

    /// The client that waits for it, if it is for one.
    pub(crate) fn into_asker(self) -> Option<Asker> {
        match self {
            Catch::Read(_, read, _) => Some(read.asker),
            Catch::Rows(..) | Catch::Page(..) => None,
        }
    }
}

/// What the store has of what a client asks for.
pub(crate) enum Stored {
    Row(Key, Option<Record>),
    Listing(Box<ListRange>, ListPage),
}

impl Errand {
    /// Fetches it. Waits for the disk.
    pub(crate) fn run(self, store: &Store) -> Fetched {
        let Errand { group, replica, need } = self;
        let partition = group.partition();
        let catch = match need {
            Need::Rows(since, keys) => {
                let row = |(keyspace, key): (KeyspaceId, Key)| {
                    let record = store.read(keyspace, partition, &key)?;
                    Ok(((keyspace, key), record))
                };
                Catch::Rows(since, keys.into_iter().map(row).collect())
            }
            Need::Read(since, read) => {
                let keyspace = read.keyspace;
                let stored = match &read.sought {
                    Sought::Key(key) => {
                        let record = store.read(keyspace, partition, key);
                        record.map(|record| Stored::Row(key.clone(), record))
                    }
                    Sought::Range(range) => {
                        let page = listing::stored(store, (keyspace, partition), range);
                        page.map(|page| Stored::Listing(range.clone(), page))
                    }
                };
                Catch::Read(since, read, stored)
            }
            Need::Page(page) => {
                let PageWanted { keyspace, after, bytes_max, .. } = &page;
                let rows = store.scan(*keyspace, partition, after.as_ref(), *bytes_max);
                Catch::Page(page, rows)
            }
        };
        Fetched { group, replica, catch }
    }
}

/// What is being fetched for a replica's commands and clients.
#[derive(Debug, Default)]
pub(crate) struct Fetching {
    installed: u64,
    /// How many are under way of each beginning.
    under_way: BTreeMap<Since, usize>,
    /// Whether rows for the next commands are.
    rows: bool,
    found: Found,
}

impl Fetching {
    /// Notes that a client's read is begun.
    pub(super) fn begin(&mut self, published: Revision) -> Since {
        let since = Since { installed: self.installed, published };
        *self.under_way.entry(since).or_default() += 1;
        since
    }

    /// The same for rows of the next commands; `None` while such are under way already.
    pub(super) fn begin_rows(&mut self, published: Revision) -> Option<Since> {
        (!std::mem::replace(&mut self.rows, true)).then(|| self.begin(published))
    }

    /// Notes that something has come; whether it is of the rows that the replica still has.
    pub(super) fn end(&mut self, since: Since) -> bool {
        if let Some(count) = self.under_way.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&since);
            }
        }
        since.installed == self.installed
    }

    /// Rows for the next commands have come.
    pub(super) fn end_rows(&mut self, since: Since, found: Found) {
        if self.end(since) {
            (self.rows, self.found) = (false, found);
        }
    }

    /// Nothing that is under way is of the rows that follow.
    pub(super) fn note_installed(&mut self) {
        *self = Fetching { installed: self.installed + 1, ..Fetching::default() };
    }

    /// Rows that were fetched, good until the store gets newer ones.
    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    /// Lets go of them.
    pub(super) fn forget_found(&mut self) {
        self.found.clear();
    }

    /// Rows of the overlay above this revision are needed by what is under way.
    pub(super) fn needed_above(&self) -> Option<Revision> {
        self.under_way.keys().next().map(|since| since.published)
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.under_way.values().sum()
    }
}
