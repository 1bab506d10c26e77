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

/// Rows by key, as the store had them.
pub(crate) type Found = BTreeMap<(KeyspaceId, Key), FoundRow>;

/// What the store had of a key.
#[derive(Debug)]
pub(crate) enum FoundRow {
    /// Its record, if it has one.
    Record(Option<Record>),
    /// Bytes that are no record.
    Damaged,
}

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
    /// Whether the replica is no nearer to what it needed it for.
    pub(crate) fn is_in_vain(&self) -> bool {
        matches!(self, Catch::Rows(_, Err(_)))
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
                // One that is damaged is for the command that needs it to meet.
                let row = |(keyspace, key): (KeyspaceId, Key)| {
                    let found = match store.read_rising(keyspace, partition, &key) {
                        Err(error) if error.is_damage() => FoundRow::Damaged,
                        read => FoundRow::Record(read?),
                    };
                    Ok(((keyspace, key), found))
                };
                Catch::Rows(since, keys.into_iter().map(row).collect())
            }
            Need::Read(since, read) => {
                let keyspace = read.keyspace;
                let stored = match &read.sought {
                    Sought::Key(key) => {
                        let record = store.read_rising(keyspace, partition, key);
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
///
/// Invariant: of what is under way, and of what has been found, the overlay keeps whatever is newer
/// than the store was then.
#[derive(Debug, Default)]
pub(crate) struct Fetching {
    installed: u64,
    /// How many have not come yet, those of rows that are gone among them.
    awaited: usize,
    /// How many the overlay keeps rows for, by when they were begun.
    needed: BTreeMap<Since, usize>,
    /// Whether rows for the next commands are under way.
    rows: bool,
    found: Option<(Since, Found)>,
}

impl Fetching {
    /// Notes that a client's read is begun.
    pub(super) fn begin(&mut self, published: Revision) -> Since {
        let since = Since { installed: self.installed, published };
        self.awaited += 1;
        *self.needed.entry(since).or_default() += 1;
        since
    }

    /// The same for rows of the next commands; `None` while such are under way already.
    pub(super) fn begin_rows(&mut self, published: Revision) -> Option<Since> {
        (!std::mem::replace(&mut self.rows, true)).then(|| self.begin(published))
    }

    /// Notes that something has come; whether it is of the rows that the replica still has.
    pub(super) fn end(&mut self, since: Since) -> bool {
        self.awaited -= 1;
        self.release(since);
        since.installed == self.installed
    }

    /// Rows for the next commands have come: they are good until they are
    /// [forgotten](Fetching::forget_found). `None` where they could not be had, or are of no use.
    pub(super) fn end_rows(&mut self, since: Since, found: Option<Found>) {
        self.awaited -= 1;
        let is_present = since.installed == self.installed;
        if is_present {
            self.rows = false;
        }
        match found.filter(|_| is_present) {
            Some(found) => self.found = Some((since, found)),
            None => self.release(since),
        }
    }

    /// Nothing that is under way is of the rows that follow.
    pub(super) fn note_installed(&mut self) {
        let (installed, awaited) = (self.installed + 1, self.awaited);
        *self = Fetching { installed, awaited, ..Fetching::default() };
    }

    /// What was found of a key.
    pub(super) fn found(&self, keyspace: KeyspaceId, key: &Key) -> Option<&FoundRow> {
        self.found.as_ref()?.1.get(&(keyspace, key.clone()))
    }

    /// Lets go of it.
    pub(super) fn forget_found(&mut self) {
        if let Some((since, _)) = self.found.take() {
            self.release(since);
        }
    }

    fn release(&mut self, since: Since) {
        if let Some(count) = self.needed.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.needed.remove(&since);
            }
        }
    }

    /// Rows of the overlay above this revision are needed.
    pub(super) fn needed_above(&self) -> Option<Revision> {
        self.needed.keys().next().map(|since| since.published)
    }

    /// How many have not come yet.
    pub(super) fn len(&self) -> usize {
        self.awaited
    }
}
