//! Changes of counters and of sets.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::error::ClientError;
use crate::client::keyspace::{Keyspace, awaitable};
use crate::client::receipt::{Incremented, SetUpdated};
use crate::client::write::{WriteOptions, quorum_options, send_write};
use crate::protocol::quorum::level::Level;

/// An addition to a counter; see [`Keyspace::increment`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Increment {
    keyspace: Keyspace,
    key: String,
    by: i64,
    options: WriteOptions,
}

impl Increment {
    pub(crate) fn new(keyspace: Keyspace, key: String, by: i64) -> Increment {
        Increment { keyspace, key, by, options: WriteOptions::default() }
    }

    quorum_options!();

    /// Sends it. It is sent again only while it has certainly not been counted.
    ///
    /// # Errors
    /// [`ClientError`]; one whose outcome is unknown may have been counted.
    pub async fn send(self) -> Result<Incremented, ClientError> {
        let answer = send_write!(self => IncrementRequest { by: Some(self.by) })?;
        Ok(Incremented { total: answer.total, receipt: answer.receipt.into() })
    }
}

/// A change of a set; see [`Keyspace::update_set`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct UpdateSet {
    keyspace: Keyspace,
    key: String,
    add: BTreeSet<String>,
    remove: BTreeSet<String>,
    options: WriteOptions,
}

impl UpdateSet {
    pub(crate) fn new(keyspace: Keyspace, key: String) -> UpdateSet {
        let (add, remove) = (BTreeSet::new(), BTreeSet::new());
        UpdateSet { keyspace, key, add, remove, options: WriteOptions::default() }
    }

    quorum_options!();

    /// Has elements in the set afterwards.
    pub fn insert(mut self, elements: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.add.extend(elements.into_iter().map(Into::into));
        self
    }

    /// Takes elements out, as far as they had been seen: when the [context](Self::context) was
    /// read, or without one by a read quorum just before. An addition that was not seen stands.
    pub fn remove(mut self, elements: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.remove.extend(elements.into_iter().map(Into::into));
        self
    }

    /// Whether to make the change again when it is not known whether an attempt was applied: what
    /// others took out of the set, or put into it, in between would be undone.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.options.idempotent = idempotent;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// [`ClientError`]; its outcome says what is known of the effect.
    pub async fn send(self) -> Result<SetUpdated, ClientError> {
        let answer = send_write!(self => UpdateSetRequest {
            add: self.add.into_iter().collect(),
            remove: self.remove.into_iter().collect(),
        })?;
        Ok(SetUpdated { size: answer.size, receipt: answer.receipt.into() })
    }
}

awaitable! {
    Increment => Incremented;
    UpdateSet => SetUpdated;
}
