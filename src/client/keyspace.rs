//! A keyspace of the cluster, and how calls on it are made.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::Streaming;

use crate::client::calls::Call;
use crate::client::compare_and_set::CompareAndSet;
use crate::client::error::{ClientError, Outcome};
use crate::client::heard::UNKNOWN_KEYSPACE;
use crate::client::journey::{Core, Route};
use crate::client::listing::List;
use crate::client::mergeable::{Increment, UpdateSet};
use crate::client::read::Get;
use crate::client::retry::Effect;
use crate::client::transaction::Transaction;
use crate::client::watch::Watch;
use crate::client::write::{Append, Delete, Put};
use crate::proto::v1;
use crate::protocol::system::keyspace::Mode;

/// A keyspace of the cluster. Cheap to clone, and good for any number of tasks at once.
///
/// Each call is a builder: set what it needs, then `.await` it, or call `send()`.
#[derive(Clone, Debug)]
pub struct Keyspace {
    core: Arc<Core>,
    name: Arc<str>,
}

/// What a call wants to do with its key, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand {
    pub(crate) kind: Kind,
    pub(crate) timeout: Option<Duration>,
}

/// What a call does, before it is known to which mode of keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads what the leader knows.
    Read,
    /// Reads what any replica knows.
    ReadAnywhere,
    /// Writes; of a quorum keyspace, more than once only if that does no harm.
    Write {
        /// Whether the caller says so.
        idempotent: bool,
    },
}

impl Keyspace {
    pub(crate) fn new(core: Arc<Core>, name: String) -> Keyspace {
        Keyspace { core, name: name.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes a value.
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Put {
        Put::new(self.clone(), key.into(), value.into())
    }

    /// Reads a value.
    pub fn get(&self, key: impl Into<String>) -> Get {
        Get::new(self.clone(), key.into())
    }

    /// Lists the keys that have a value: one page, or with [`List::pages`] all of them.
    pub fn list(&self) -> List {
        List::new(self.clone())
    }

    /// Watches keys of a strong keyspace: all, or those that are said. Awaited, it is a
    /// [`Watching`](crate::client::Watching), which tells what changes from then on.
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone())
    }

    /// Deletes a key. Deleting one that has no value succeeds.
    pub fn delete(&self, key: impl Into<String>) -> Delete {
        Delete::new(self.clone(), key.into())
    }

    /// Adds to a counter, in a keyspace that merges its keys as `counter`.
    pub fn increment(&self, key: impl Into<String>, by: i64) -> Increment {
        Increment::new(self.clone(), key.into(), by)
    }

    /// Changes a set, in a keyspace that merges its keys as `set`: say what to
    /// [insert](UpdateSet::insert) and what to [remove](UpdateSet::remove).
    pub fn update_set(&self, key: impl Into<String>) -> UpdateSet {
        UpdateSet::new(self.clone(), key.into())
    }

    /// Adds to the end of a value of a strong keyspace; no value counts as an empty one.
    pub fn append(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Append {
        Append::new(self.clone(), key.into(), value.into())
    }

    /// Changes a key of a strong keyspace if it is as expected.
    pub fn compare_and_set(&self, key: impl Into<String>) -> CompareAndSet {
        CompareAndSet::new(self.clone(), key.into())
    }

    /// Several steps on keys of this strong keyspace, all or none. The keys must lie in one
    /// partition: give them one tag, as in `cart:{42}:items` and `cart:{42}:total`.
    pub fn transact(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// Has any node begin a watch.
    pub(crate) async fn begin_watch(
        &self,
        request: v1::WatchRequest,
        timeout: Option<Duration>,
    ) -> Result<Streaming<v1::WatchResponse>, ClientError> {
        let deadline = self.core.deadline(timeout);
        let sight = self.core.keyspace(&self.name, deadline).await?;
        let route = Route { keyspace_exists: sight.is_new, ..Route::anywhere(Effect::Read) };
        self.core.call(request, route, deadline).await
    }

    /// Asks any node for a page.
    pub(crate) async fn list_page(
        &self,
        request: v1::ListRequest,
        timeout: Option<Duration>,
    ) -> Result<v1::ListResponse, ClientError> {
        let deadline = self.core.deadline(timeout);
        let sight = self.core.keyspace(&self.name, deadline).await?;
        let route = Route { keyspace_exists: sight.is_new, ..Route::anywhere(Effect::Read) };
        self.core.call(request, route, deadline).await
    }

    /// Makes a call about a key.
    pub(crate) async fn call<C: Call>(
        &self,
        call: C,
        key: &str,
        errand: Errand,
    ) -> Result<C::Answer, ClientError> {
        if key.is_empty() {
            return Err(ClientError::invalid("key", "is empty; give it at least one byte"));
        }
        let deadline = self.core.deadline(errand.timeout);
        let sight = self.core.keyspace(&self.name, deadline).await?;
        let partition = match (sight.mode, errand.kind) {
            (Mode::Quorum, _) | (_, Kind::ReadAnywhere) => None,
            (Mode::Strong, _) => Some(self.core.partition_of(key, deadline).await?),
        };
        let effect = effect_of(sight.mode, errand.kind);
        let route = Route { effect, partition, keyspace_exists: sight.is_new };
        let answer = self.core.call(call, route, deadline).await;
        if answer.as_ref().is_err_and(says_that_keyspace_changed) {
            self.core.catalogue.forget(&self.name);
        }
        answer
    }
}

fn effect_of(mode: Mode, kind: Kind) -> Effect {
    match (mode, kind) {
        (_, Kind::Read | Kind::ReadAnywhere) => Effect::Read,
        (Mode::Strong, Kind::Write { .. }) => Effect::Session,
        (Mode::Quorum, Kind::Write { idempotent: true }) => Effect::Idempotent,
        (Mode::Quorum, Kind::Write { idempotent: false }) => Effect::Once,
    }
}

/// Whether the keyspace may have another mode than was thought, or be gone.
fn says_that_keyspace_changed(error: &ClientError) -> bool {
    let words = [UNKNOWN_KEYSPACE, "not_available"];
    error.outcome() != Outcome::Unknown && words.contains(&error.code())
}

/// Lets a builder be awaited as it is.
macro_rules! awaitable {
    ($($builder:ident => $answer:ty;)*) => {$(
        impl std::future::IntoFuture for $builder {
            type Output = Result<$answer, $crate::client::error::ClientError>;
            type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    )*};
}
pub(crate) use awaitable;
