//! A snapshot on its way to a replica that is too far behind for the log.
//!
//! The partition is read page by page while commands go on being applied. What they change is
//! noted, and sent again once the pages are through; the last chunk is cut in one turn of the
//! driver, so that all chunks together are the state at exactly the entry that it names. Rows merge
//! by revision at the receiver, and tombstones are rows, so the order of chunks does not matter.

use std::collections::BTreeSet;

use crate::node::groups::fetching::PageWanted;
use crate::node::groups::group::Group;
use crate::node::groups::overlay::GroupRowError;
use crate::protocol::message::{ScanPage, SnapshotChunk};
use crate::protocol::raft::entry::LogStart;
use crate::storage::store::Store;
use crate::types::{Key, KeyspaceId, LogIndex, NodeId, ReplicaId, Row};

/// With no more changed rows than this, the last chunk is cut.
const LAST_ROWS_MAX: usize = 512;

/// Ticks after which a chunk that was not acknowledged is sent again.
pub(crate) const RESEND_TICKS: u64 = 40;

/// One attempt to bring one replica up to date.
pub(crate) struct Outgoing {
    pub(crate) to: ReplicaId,
    pub(crate) node: NodeId,
    pub(crate) transfer: u64,
    keyspaces: Vec<KeyspaceId>,
    /// Bytes of rows after which a chunk is cut.
    chunk_bytes: usize,
    /// Index into `keyspaces`; past the end once all pages were read.
    at: usize,
    after: Option<Key>,
    /// The next page: it is being fetched, or has been.
    page: Page,
    /// Rows that changed since the first page was read.
    changed: BTreeSet<(KeyspaceId, Key)>,
    /// The chunk that is not acknowledged yet.
    sent: Option<SnapshotChunk>,
    sent_at: u64,
    next_number: u32,
    /// Set once the last chunk was cut.
    last: Option<LogIndex>,
}

/// The page that is cut next.
#[derive(Debug, Default)]
enum Page {
    /// It is to be read.
    #[default]
    Unread,
    /// It is being fetched.
    Awaited,
    /// It is here.
    Here(ScanPage),
}

/// What is to be done for a snapshot.
pub(crate) enum Due {
    /// To send a chunk.
    Chunk(SnapshotChunk),
    /// To fetch rows.
    Page(PageWanted),
    /// To wait.
    Nothing,
}

impl Outgoing {
    /// Begins with what is applied and not in the store yet.
    pub(crate) fn new(
        (to, node): (ReplicaId, NodeId),
        transfer: u64,
        (keyspaces, chunk_bytes): (Vec<KeyspaceId>, usize),
        changed: BTreeSet<(KeyspaceId, Key)>,
    ) -> Outgoing {
        let (at, after, sent, sent_at, next_number) = (0, None, None, 0, 0);
        Outgoing {
            to,
            node,
            transfer,
            keyspaces,
            chunk_bytes,
            at,
            after,
            page: Page::Unread,
            changed,
            sent,
            sent_at,
            next_number,
            last: None,
        }
    }

    /// Rows changed.
    pub(crate) fn note(&mut self, rows: &[Row]) {
        self.changed.extend(rows.iter().map(|row| (row.keyspace, row.key.clone())));
    }

    /// What is due now: the next chunk once the one before is acknowledged, or that one again; or
    /// rows for the next one, where reading them may wait for the disk.
    ///
    /// # Errors
    /// [`GroupRowError`] when the rows cannot be read.
    pub(crate) fn due(
        &mut self,
        group: &Group,
        store: &Store,
        now: u64,
    ) -> Result<Due, GroupRowError> {
        if let Some(sent) = &self.sent {
            if now < self.sent_at + RESEND_TICKS {
                return Ok(Due::Nothing);
            }
            self.sent_at = now;
            return Ok(Due::Chunk(sent.clone()));
        }
        if self.last.is_some() || matches!(self.page, Page::Awaited) {
            return Ok(Due::Nothing);
        }
        if let Some(wanted) = self.page_wanted(store) {
            self.page = Page::Awaited;
            return Ok(Due::Page(wanted));
        }
        let chunk = self.cut(group, store)?;
        self.last = chunk.start.as_ref().map(|start| start.position.index);
        self.next_number += 1;
        self.sent = Some(chunk.clone());
        self.sent_at = now;
        Ok(Due::Chunk(chunk))
    }

    /// The page that is to be fetched, if there is one, and it is not at hand.
    fn page_wanted(&self, store: &Store) -> Option<PageWanted> {
        let keyspace = *self.keyspaces.get(self.at)?;
        let is_behind = matches!(self.page, Page::Unread) && store.is_unsettled();
        is_behind.then(|| PageWanted {
            to: self.to,
            transfer: self.transfer,
            keyspace,
            after: self.after.clone(),
            bytes_max: self.chunk_bytes,
        })
    }

    /// A page has come. What changed since it was asked for is sent again.
    pub(crate) fn on_page(&mut self, page: ScanPage) {
        if matches!(self.page, Page::Awaited) {
            self.page = Page::Here(page);
        }
    }

    /// The receiver wants this chunk next: what was sent before it has arrived.
    pub(crate) fn on_wanted(&mut self, next: u32) {
        if self.sent.as_ref().is_some_and(|sent| sent.number < next) {
            self.sent = None;
        }
    }

    /// The entry that the snapshot adds up to, once its last chunk is acknowledged.
    pub(crate) fn is_done(&self) -> Option<LogIndex> {
        self.last.filter(|_| self.sent.is_none())
    }

    fn cut(&mut self, group: &Group, store: &Store) -> Result<SnapshotChunk, GroupRowError> {
        if let Some(&keyspace) = self.keyspaces.get(self.at) {
            let rows = self.page(group, store, keyspace)?;
            return Ok(self.make(group, rows, None));
        }
        let is_last = self.changed.len() <= LAST_ROWS_MAX;
        let mut rows = self.changed_rows(group, store)?;
        if !is_last || !self.changed.is_empty() {
            return Ok(self.make(group, rows, None));
        }
        let applied = group.machine.applied();
        let start = LogStart {
            position: applied.position,
            membership: applied.membership.clone(),
            membership_index: applied.membership_index,
        };
        rows.extend(group.machine.own_rows());
        Ok(self.make(group, rows, Some(start)))
    }

    fn page(
        &mut self,
        group: &Group,
        store: &Store,
        keyspace: KeyspaceId,
    ) -> Result<Vec<Row>, GroupRowError> {
        let page = match std::mem::take(&mut self.page) {
            Page::Here(page) => page,
            _ => store.scan(keyspace, group.partition(), self.after.as_ref(), self.chunk_bytes)?,
        };
        if let Some(key) = page.missed().cloned() {
            return Err(GroupRowError::Damaged { keyspace, key });
        }
        if page.done {
            self.at += 1;
            self.after = None;
        } else {
            self.after = page.rows.last().map(|(key, _)| key.clone());
        }
        let row = |(key, record)| Row { keyspace, key, record };
        Ok(page.rows.into_iter().map(row).collect())
    }

    /// Takes as many changed rows as a chunk holds.
    fn changed_rows(&mut self, group: &Group, store: &Store) -> Result<Vec<Row>, GroupRowError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < self.chunk_bytes
            && let Some((keyspace, key)) = self.changed.pop_first()
        {
            if let Some(record) = group.rows(store).record(keyspace, &key)? {
                let row = Row { keyspace, key, record };
                bytes += row.cost_bytes();
                rows.push(row);
            }
        }
        Ok(rows)
    }

    fn make(&self, group: &Group, rows: Vec<Row>, start: Option<LogStart>) -> SnapshotChunk {
        SnapshotChunk::new(
            (group.id, group.replica, self.to),
            (self.transfer, self.next_number, group.raft.log().start().index),
            rows,
            start,
        )
    }
}
