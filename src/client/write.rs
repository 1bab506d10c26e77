//! Writes of one key without a comparison: put, delete and append.

use std::time::Duration;

use bytes::Bytes;

use crate::client::condition::Condition;
use crate::client::error::ClientError;
use crate::client::keyspace::{Errand, Keyspace, Kind, awaitable};
use crate::client::receipt::{Appended, Receipt};
use crate::proto::v1;
use crate::protocol::quorum::level::Level;

/// What writes have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) level: Option<Level>,
    pub(crate) w: u32,
    pub(crate) sloppy: Option<bool>,
    pub(crate) context: String,
    pub(crate) condition: Option<Condition>,
    pub(crate) idempotent: bool,
    pub(crate) timeout: Option<Duration>,
}

impl WriteOptions {
    pub(crate) fn errand(&self) -> Errand {
        Errand { kind: Kind::Write { idempotent: self.idempotent }, timeout: self.timeout }
    }
}

/// A level's number in the protocol.
pub(crate) fn level_number(level: Option<Level>) -> i32 {
    let level = match level {
        None => v1::Level::Unspecified,
        Some(Level::One) => v1::Level::One,
        Some(Level::Quorum) => v1::Level::Quorum,
        Some(Level::All) => v1::Level::All,
    };
    level.into()
}

/// What writes of quorum keyspaces may be told.
macro_rules! quorum_options {
    () => {
        /// Of a quorum keyspace: how many replicas must have it durably, by name.
        pub fn level(mut self, level: impl Into<Option<Level>>) -> Self {
            self.options.level = level.into();
            self
        }

        /// Of a quorum keyspace: the same by number (W); wins over the level.
        pub fn w(mut self, w: impl Into<Option<u32>>) -> Self {
            self.options.w = w.into().unwrap_or(0);
            self
        }

        /// Of a quorum keyspace: whether fallback replicas may count. Without it the node's
        /// setting decides.
        pub fn sloppy(mut self, sloppy: impl Into<Option<bool>>) -> Self {
            self.options.sloppy = sloppy.into();
            self
        }

        /// What this write has seen: a receipt's version, which its own will be above, or in a
        /// keyspace that joins copies a receipt's context, whose values it replaces.
        pub fn context(mut self, context: impl Into<String>) -> Self {
            self.options.context = context.into();
            self
        }

        /// How long the call may take, all attempts and rests included.
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.options.timeout = Some(timeout);
            self
        }
    };
}
pub(crate) use quorum_options;

/// Sends a write of one key: its own fields are said, those that all such requests have are filled
/// in from the builder's key, keyspace and options.
macro_rules! send_write {
    ($builder:ident => $request:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let errand = $builder.options.errand();
        let request = $crate::proto::v1::$request {
            key: $builder.key.clone(),
            level: $crate::client::write::level_number($builder.options.level),
            w: $builder.options.w,
            sloppy: $builder.options.sloppy,
            context: $builder.options.context,
            keyspace: $builder.keyspace.name().to_owned(),
            $($field: $value),*
        };
        $builder.keyspace.call(request, &$builder.key, errand).await
    }};
}
pub(crate) use send_write;

macro_rules! write_options {
    () => {
        quorum_options!();

        /// Of a strong keyspace: what the key must be, else nothing is changed.
        pub fn only_if(mut self, condition: Condition) -> Self {
            self.options.condition = Some(condition);
            self
        }

        /// Of a quorum keyspace: whether to write again when it is not known whether an attempt
        /// was applied. A repeated write is stamped anew, and so may overwrite what others wrote
        /// in between. Writes of strong keyspaces are applied once in any case.
        pub fn idempotent(mut self, idempotent: bool) -> Self {
            self.options.idempotent = idempotent;
            self
        }
    };
}

/// A write of a value; see [`Keyspace::put`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Put {
    keyspace: Keyspace,
    key: String,
    value: Bytes,
    ttl: Option<Duration>,
    options: WriteOptions,
}

impl Put {
    pub(crate) fn new(keyspace: Keyspace, key: String, value: Bytes) -> Put {
        Put { keyspace, key, value, ttl: None, options: WriteOptions::default() }
    }

    write_options!();

    /// Of a quorum keyspace: how long the value lives, from 1 ms to ten years; without it the value
    /// stays. The time is the node's that takes the write, and counts from there.
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// [`ClientError`]; its outcome says what is known of the effect.
    pub async fn send(self) -> Result<Receipt, ClientError> {
        let sent = send_write!(self => PutRequest {
            data: Some(v1::put_request::Data::ValueBytes(self.value)),
            session: None,
            condition: self.options.condition.map(Into::into),
            ttl_ms: self.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        });
        Ok(sent?.receipt.into())
    }
}

/// A deletion; see [`Keyspace::delete`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Delete {
    keyspace: Keyspace,
    key: String,
    options: WriteOptions,
}

impl Delete {
    pub(crate) fn new(keyspace: Keyspace, key: String) -> Delete {
        Delete { keyspace, key, options: WriteOptions::default() }
    }

    write_options!();

    /// Sends it.
    ///
    /// # Errors
    /// [`ClientError`]; its outcome says what is known of the effect.
    pub async fn send(self) -> Result<Receipt, ClientError> {
        let sent = send_write!(self => DeleteRequest {
            session: None,
            condition: self.options.condition.map(Into::into),
        });
        Ok(sent?.receipt.into())
    }
}

/// An addition to a value; see [`Keyspace::append`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Append {
    keyspace: Keyspace,
    key: String,
    value: Bytes,
    condition: Option<Condition>,
    timeout: Option<Duration>,
}

impl Append {
    pub(crate) fn new(keyspace: Keyspace, key: String, value: Bytes) -> Append {
        Append { keyspace, key, value, condition: None, timeout: None }
    }

    /// What the key must be, else nothing is changed.
    pub fn only_if(mut self, condition: Condition) -> Self {
        self.condition = Some(condition);
        self
    }

    /// How long the call may take, all attempts and rests included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// [`ClientError`]; its outcome says what is known of the effect.
    pub async fn send(self) -> Result<Appended, ClientError> {
        let errand = Errand { kind: Kind::Write { idempotent: false }, timeout: self.timeout };
        let request = v1::AppendRequest {
            key: self.key.clone(),
            data: Some(v1::append_request::Data::ValueBytes(self.value)),
            keyspace: self.keyspace.name().to_owned(),
            session: None,
            condition: self.condition.map(Into::into),
        };
        let answer = self.keyspace.call(request, &self.key, errand).await?;
        Ok(Appended { value_bytes: answer.value_bytes, receipt: answer.receipt.into() })
    }
}

awaitable! {
    Put => Receipt;
    Delete => Receipt;
    Append => Appended;
}
