//! Compare-and-set, in three steps that cannot be left out: which key, as what it is expected, and
//! what becomes of it.

use std::time::Duration;

use bytes::Bytes;

use crate::client::condition::Condition;
use crate::client::error::ClientError;
use crate::client::keyspace::{Errand, Keyspace, Kind, awaitable};
use crate::client::receipt::Receipt;
use crate::proto::v1;

/// A key to compare; see [`Keyspace::compare_and_set`]. Next, say what is expected.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct CompareAndSet {
    keyspace: Keyspace,
    key: String,
}

impl CompareAndSet {
    pub(crate) fn new(keyspace: Keyspace, key: String) -> CompareAndSet {
        CompareAndSet { keyspace, key }
    }

    /// The key has no value.
    pub fn expect_absent(self) -> Expecting {
        self.expect(Condition::Absent)
    }

    /// The key has some value.
    pub fn expect_present(self) -> Expecting {
        self.expect(Condition::Present)
    }

    /// The key was last changed at this version.
    pub fn expect_version(self, version: impl Into<String>) -> Expecting {
        self.expect(Condition::Version(version.into()))
    }

    /// The key has this value.
    pub fn expect_value(self, value: impl Into<Bytes>) -> Expecting {
        self.expect(Condition::Value(value.into()))
    }

    /// The key is so.
    pub fn expect(self, condition: Condition) -> Expecting {
        Expecting { keyspace: self.keyspace, key: self.key, condition }
    }
}

/// A comparison. Next, say what becomes of the key.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Expecting {
    keyspace: Keyspace,
    key: String,
    condition: Condition,
}

impl Expecting {
    /// It gets this value.
    pub fn put(self, value: impl Into<Bytes>) -> ConditionalWrite {
        ConditionalWrite { expecting: self, value: Some(value.into()), timeout: None }
    }

    /// It is deleted.
    pub fn delete(self) -> ConditionalWrite {
        ConditionalWrite { expecting: self, value: None, timeout: None }
    }
}

/// A compare-and-set that can be sent.
#[derive(Clone, Debug)]
#[must_use = "nothing is sent until it is awaited"]
pub struct ConditionalWrite {
    expecting: Expecting,
    /// `None` to delete.
    value: Option<Bytes>,
    timeout: Option<Duration>,
}

impl ConditionalWrite {
    /// How long the call may take, all attempts and rests included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// [`ClientError::ConditionFailed`] with what the key holds, when it is not as expected; any
    /// other [`ClientError`], whose outcome says what is known of the effect.
    pub async fn send(self) -> Result<Receipt, ClientError> {
        let Expecting { keyspace, key, condition } = self.expecting;
        let errand = Errand { kind: Kind::Write { idempotent: false }, timeout: self.timeout };
        let request = v1::CompareAndSetRequest {
            key: key.clone(),
            expect: Some(condition.into()),
            data: self.value.map(v1::compare_and_set_request::Data::ValueBytes),
            keyspace: keyspace.name().to_owned(),
            session: None,
        };
        Ok(keyspace.call(request, &key, errand).await?.receipt.into())
    }
}

awaitable! {
    ConditionalWrite => Receipt;
}
