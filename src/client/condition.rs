//! What a key must be for a write to happen.

use bytes::Bytes;

use crate::proto::v1;
use crate::proto::v1::condition::Expect;

/// What a key of a strong keyspace must be for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has no value.
    Absent,
    /// It has some value.
    Present,
    /// It was last changed at this version, which a receipt told.
    Version(String),
    /// It has this value.
    Value(Bytes),
}

impl From<Condition> for v1::Condition {
    fn from(condition: Condition) -> Self {
        let expect = match condition {
            Condition::Absent => Expect::Absent(true),
            Condition::Present => Expect::Present(true),
            Condition::Version(version) => Expect::Version(version),
            Condition::Value(value) => Expect::ValueBytes(value),
        };
        v1::Condition { expect: Some(expect) }
    }
}
