//! From what a request asks and what the keyspace says to the number of replicas to wait for.

use crate::protocol::quorum::level::{Level, majority};

/// What one request and its keyspace say about the quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// A number in the request; wins over the level.
    pub explicit: Option<u32>,
    /// A level in the request; wins over the keyspace's default.
    pub level: Option<Level>,
    /// R or W of the keyspace.
    pub default: u32,
    /// N of the keyspace.
    pub factor: u32,
}

/// A number of replicas that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be between 1 and {replicas}, the replicas in effect; got {got}")]
pub struct OutOfRange {
    /// What was asked.
    pub got: u32,
    /// Replicas in effect.
    pub replicas: u32,
}

impl Asked {
    /// The number of replicas to wait for, of `replicas` in effect. While there are fewer than N,
    /// the keyspace's default is replaced by their majority.
    ///
    /// # Errors
    /// [`OutOfRange`] when the request names a number that the replicas in effect cannot give.
    pub fn required(&self, replicas: u32) -> Result<u32, OutOfRange> {
        match (self.explicit, self.level) {
            (Some(got), _) if got == 0 || got > replicas => Err(OutOfRange { got, replicas }),
            (Some(got), _) => Ok(got),
            (None, Some(level)) => Ok(level.required(replicas)),
            (None, None) => Ok(default_in_effect(self.default, self.factor, replicas)),
        }
    }
}

/// The keyspace's default quorum, of `replicas` in effect.
pub fn default_in_effect(default: u32, factor: u32, replicas: u32) -> u32 {
    if replicas < factor { majority(replicas) } else { default }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(explicit: Option<u32>, level: Option<Level>) -> Asked {
        Asked { explicit, level, default: 2, factor: 3 }
    }

    #[test]
    fn a_number_wins_over_a_level_and_a_level_over_the_default() {
        assert_eq!(asked(Some(1), Some(Level::All)).required(3), Ok(1));
        assert_eq!(asked(None, Some(Level::All)).required(3), Ok(3));
        assert_eq!(asked(None, None).required(3), Ok(2));
    }

    #[test]
    fn fewer_members_than_replicas_make_the_default_their_majority() {
        assert_eq!(asked(None, None).required(1), Ok(1));
        assert_eq!(asked(None, None).required(2), Ok(2));
        let any = Asked { explicit: None, level: None, default: 1, factor: 5 };
        assert_eq!(any.required(4), Ok(3));
        assert_eq!(any.required(5), Ok(1));
    }

    #[test]
    fn a_number_that_cannot_be_had_is_refused() {
        assert_eq!(asked(Some(0), None).required(3), Err(OutOfRange { got: 0, replicas: 3 }));
        assert_eq!(asked(Some(3), None).required(2), Err(OutOfRange { got: 3, replicas: 2 }));
    }
}
