//! The keys of a keyspace, page by page.

use std::time::Duration;

use bytes::Bytes;

use crate::client::error::ClientError;
use crate::client::keyspace::{Keyspace, awaitable};
use crate::client::read::wire_consistency;
use crate::client::write::level_number;
use crate::proto::v1;
use crate::protocol::consistency::Consistency;
use crate::protocol::quorum::level::Level;

/// A listing; see [`Keyspace::list`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct List {
    keyspace: Keyspace,
    request: v1::ListRequest,
    timeout: Option<Duration>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys that have a value: by partition, and within one in the order of their bytes. There may
    /// be fewer than were asked for, or none, although more follow.
    pub rows: Vec<Row>,
    /// What the next page is asked for with; `None` when all is listed.
    pub cursor: Option<String>,
}

/// A key that has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: String,
    /// Its value; `None` when only keys were asked for.
    pub value: Option<Bytes>,
    /// The version of the value.
    pub version: String,
    /// When the value ends by itself, in Unix milliseconds.
    pub expires_at_ms: Option<u64>,
    /// How many values the key has; several only in a keyspace that keeps siblings, and then the
    /// one here is that which was written last.
    pub siblings: u32,
}

impl List {
    pub(crate) fn new(keyspace: Keyspace) -> List {
        let name = keyspace.name().to_owned();
        let request = v1::ListRequest { keyspace: name, ..v1::ListRequest::default() };
        List { keyspace, request, timeout: None }
    }

    /// Only keys that begin with this.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.request.prefix = prefix.into();
        self
    }

    /// Rows of a page, from 1 to 1000; 100 unless it is said.
    pub fn limit(mut self, limit: u32) -> Self {
        self.request.limit = limit;
        self
    }

    /// Where the page before ended.
    pub fn cursor(mut self, cursor: impl Into<Option<String>>) -> Self {
        self.request.cursor = cursor.into().unwrap_or_default();
        self
    }

    /// Leaves values out.
    pub fn keys_only(mut self, keys_only: bool) -> Self {
        self.request.keys_only = keys_only;
        self
    }

    /// Of a quorum keyspace: how many replicas must answer, by name.
    pub fn level(mut self, level: impl Into<Option<Level>>) -> Self {
        self.request.level = level_number(level.into());
        self
    }

    /// Of a quorum keyspace: the same by number (R); wins over the level.
    pub fn r(mut self, r: impl Into<Option<u32>>) -> Self {
        self.request.r = r.into().unwrap_or(0);
        self
    }

    /// Of a strong keyspace: how fresh what is listed must be; linearizable unless it is said.
    pub fn consistency(mut self, consistency: impl Into<Option<Consistency>>) -> Self {
        let (_, consistency, max_staleness_ms) = wire_consistency(consistency.into());
        self.request.consistency = consistency.into();
        self.request.max_staleness_ms = max_staleness_ms;
        self
    }

    /// How long one page may take, all attempts and rests included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Asks for one page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(self) -> Result<Page, ClientError> {
        let answer = self.keyspace.list_page(self.request, self.timeout).await?;
        let cursor = Some(answer.cursor).filter(|cursor| !cursor.is_empty());
        Ok(Page { rows: answer.rows.into_iter().map(row).collect(), cursor })
    }

    /// Goes through all pages from here on. A page that fails may be asked for again: the node that
    /// had it need not be the one that has the next.
    pub fn pages(self) -> Pages {
        Pages { next: Some(self) }
    }
}

/// The pages of a listing, one after the other.
#[derive(Clone, Debug)]
pub struct Pages {
    next: Option<List>,
}

impl Pages {
    /// The next page; `None` when all is listed.
    ///
    /// # Errors
    /// [`ClientError`]; calling again asks for the same page.
    pub async fn next(&mut self) -> Result<Option<Page>, ClientError> {
        let Some(list) = self.next.clone() else { return Ok(None) };
        let page = list.clone().send().await?;
        self.next = page.cursor.clone().map(|cursor| list.cursor(cursor));
        Ok(Some(page))
    }
}

fn row(row: v1::ListedRow) -> Row {
    let value = row.data.map(|data| match data {
        v1::listed_row::Data::Value(text) => Bytes::from(text),
        v1::listed_row::Data::ValueBytes(bytes) => bytes,
    });
    let v1::ListedRow { key, version, expires_at_ms, siblings, .. } = row;
    Row { key, value, version, expires_at_ms, siblings: siblings.unwrap_or(1) }
}

awaitable! {
    List => Page;
}
