//! Reads of one key.

use std::time::Duration;

use bytes::Bytes;

use crate::client::error::ClientError;
use crate::client::heard::NOT_FOUND;
use crate::client::keyspace::{Errand, Keyspace, Kind, awaitable};
use crate::client::receipt::{Receipt, Value};
use crate::client::write::level_number;
use crate::proto::v1;
use crate::protocol::consistency::Consistency;
use crate::protocol::quorum::level::Level;

/// A read; see [`Keyspace::get`].
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Get {
    keyspace: Keyspace,
    key: String,
    level: Option<Level>,
    r: u32,
    context: String,
    one: bool,
    consistency: Option<Consistency>,
    timeout: Option<Duration>,
}

impl Get {
    pub(crate) fn new(keyspace: Keyspace, key: String) -> Get {
        let (level, context, consistency) = (None, String::new(), None);
        Get { keyspace, key, level, r: 0, context, one: false, consistency, timeout: None }
    }

    /// Of a quorum keyspace: how many replicas must answer, by name.
    pub fn level(mut self, level: impl Into<Option<Level>>) -> Self {
        self.level = level.into();
        self
    }

    /// Of a quorum keyspace: the same by number (R); wins over the level.
    pub fn r(mut self, r: impl Into<Option<u32>>) -> Self {
        self.r = r.into().unwrap_or(0);
        self
    }

    /// A version of this key that was seen before, as in [`Value::version`] or
    /// [`Receipt::version`]: the answer is that one or a newer one, at any level, or the read fails
    /// with the word `context_not_reached`. A read that is given the version of the client's last
    /// write reads what was written; one that is given that of its last read never goes back. In a
    /// keyspace that joins copies it is [`Receipt::context`].
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = context.into();
        self
    }

    /// Of a keyspace that keeps siblings: to fail where there are several, with the word
    /// `several_siblings`.
    pub fn one(mut self, one: bool) -> Self {
        self.one = one;
        self
    }

    /// Of a strong keyspace: how fresh the value must be; linearizable unless it is said. A stale
    /// read is sent to the nodes in turn, any other to the partition's leader.
    pub fn consistency(mut self, consistency: impl Into<Option<Consistency>>) -> Self {
        self.consistency = consistency.into();
        self
    }

    /// How long the call may take, all attempts and rests included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it. `None` for a key that has no value.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send(self) -> Result<Option<Value>, ClientError> {
        let (kind, consistency, max_staleness_ms) = wire_consistency(self.consistency);
        let request = v1::GetRequest {
            key: self.key.clone(),
            level: level_number(self.level),
            r: self.r,
            keyspace: self.keyspace.name().to_owned(),
            consistency: consistency.into(),
            max_staleness_ms,
            context: self.context,
            one: self.one,
        };
        let errand = Errand { kind, timeout: self.timeout };
        match self.keyspace.call(request, &self.key, errand).await {
            Ok(answer) => Ok(Some(value(answer))),
            Err(ClientError::Refused { code, .. }) if code == NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(crate) fn wire_consistency(consistency: Option<Consistency>) -> (Kind, v1::Consistency, u64) {
    match consistency {
        None => (Kind::Read, v1::Consistency::Unspecified, 0),
        Some(Consistency::Linearizable) => (Kind::Read, v1::Consistency::Linearizable, 0),
        Some(Consistency::Lease) => (Kind::Read, v1::Consistency::Lease, 0),
        Some(Consistency::Stale { max_staleness }) => {
            let ms = u64::try_from(max_staleness.as_millis()).unwrap_or(u64::MAX).max(1);
            (Kind::ReadAnywhere, v1::Consistency::Stale, ms)
        }
    }
}

fn value(answer: v1::GetResponse) -> Value {
    let bytes = match answer.data {
        Some(v1::get_response::Data::Value(text)) => text.into(),
        Some(v1::get_response::Data::ValueBytes(bytes)) => bytes,
        None => Bytes::new(),
    };
    let receipt = Receipt::from(answer.receipt);
    let mut siblings: Vec<Bytes> = answer.siblings.into_iter().map(sibling).collect();
    if siblings.is_empty() {
        siblings.push(bytes.clone());
    }
    let elements = answer.elements;
    Value { bytes, siblings, elements, version: receipt.version.clone(), receipt }
}

fn sibling(sibling: v1::Sibling) -> Bytes {
    match sibling.data {
        Some(v1::sibling::Data::Value(text)) => text.into(),
        Some(v1::sibling::Data::ValueBytes(bytes)) => bytes,
        None => Bytes::new(),
    }
}

awaitable! {
    Get => Option<Value>;
}
