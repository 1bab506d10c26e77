//! What a keyspace may ask of each node: operations and bytes in a second.
//!
//! The system group decides the numbers, and every node keeps them for what it coordinates
//! itself, without asking the others: a cluster of five takes five times as much, if its clients
//! spread their load.

use serde::{Deserialize, Serialize};

/// The limits of a keyspace, for each node; what is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceLimits {
    /// Reads and writes of one key each, in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations_per_second: Option<u64>,
    /// Bytes of keys and values that are read and written, in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

impl KeyspaceLimits {
    /// Whether anything is limited.
    pub fn is_none(&self) -> bool {
        *self == KeyspaceLimits::default()
    }
}

/// Limits as far as a request names them; 0 lifts a limit, what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsAsked {
    /// See [`KeyspaceLimits::operations_per_second`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations_per_second: Option<u64>,
    /// See [`KeyspaceLimits::bytes_per_second`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

impl LimitsAsked {
    /// Whether nothing is named.
    pub fn is_nothing(&self) -> bool {
        *self == LimitsAsked::default()
    }

    /// The limits of a keyspace that has `present`.
    pub fn over(self, present: KeyspaceLimits) -> KeyspaceLimits {
        let over = |asked: Option<u64>, present| match asked {
            None => present,
            Some(0) => None,
            Some(limit) => Some(limit),
        };
        KeyspaceLimits {
            operations_per_second: over(self.operations_per_second, present.operations_per_second),
            bytes_per_second: over(self.bytes_per_second, present.bytes_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_changes_nothing_lifts_and_what_is_absent_stays() {
        let present =
            KeyspaceLimits { operations_per_second: Some(10), bytes_per_second: Some(20) };
        let over = |operations_per_second, bytes_per_second| {
            let limits = LimitsAsked { operations_per_second, bytes_per_second }.over(present);
            (limits.operations_per_second, limits.bytes_per_second)
        };
        assert_eq!(over(None, None), (Some(10), Some(20)));
        assert_eq!(over(Some(5), None), (Some(5), Some(20)));
        assert_eq!(over(Some(0), Some(7)), (None, Some(7)));
        assert_eq!(over(Some(0), Some(0)), (None, None));
    }

    #[test]
    fn limits_of_before_there_were_any_are_read() {
        assert!(serde_json::from_str::<KeyspaceLimits>("{}").is_ok_and(|limits| limits.is_none()));
        assert_eq!(serde_json::to_string(&KeyspaceLimits::default()).unwrap(), "{}");
    }
}
