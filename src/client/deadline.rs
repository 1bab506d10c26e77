//! How long a call may take.

use std::time::{Duration, Instant};

use crate::client::surroundings::now;

/// How long to wait for nodes whose own limit is to hold; longer than the longest that they allow
/// by default.
pub(crate) const NODE_TIME_MAX: Duration = Duration::from_secs(70);

/// How long an attempt may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) time: Duration,
    /// Whether nodes are told; else their own limit holds.
    pub(crate) is_told: bool,
}

/// When a call has to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    is_told: bool,
}

impl Deadline {
    /// So long from now, which nodes are told.
    pub(crate) fn after(time: Duration) -> Deadline {
        Deadline { at: now() + time, is_told: true }
    }

    /// Whenever the asked node says.
    pub(crate) fn of_nodes() -> Deadline {
        Deadline { at: now() + NODE_TIME_MAX, is_told: false }
    }

    /// The same, or so long from now if that is earlier.
    pub(crate) fn or_after(self, time: Duration) -> Deadline {
        Deadline { at: self.at.min(now() + time), ..self }
    }

    /// When that is.
    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// How long it is until then.
    pub(crate) fn left(self) -> Allowance {
        Allowance { time: self.at.saturating_duration_since(now()), is_told: self.is_told }
    }
}
