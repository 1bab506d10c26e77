//! Which hints are kept, and for how long.

use std::time::Duration;

/// Bounds on the hints kept for one absent node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintPolicy {
    window: Duration,
    bytes_per_target_max: u64,
}

/// Why a hint is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The target has been away for too long; it must be mended otherwise when it returns.
    #[error("the target has been down for {down_for:?}; hints are kept for {window:?}")]
    Window {
        /// How long the target has been down.
        down_for: Duration,
        /// For how long writes are kept.
        window: Duration,
    },
    /// Too much is kept for the target already.
    #[error(
        "{queued_bytes} bytes are kept for the target; {hint_bytes} more exceed the \
         {bytes_per_target_max} of hint_bytes_per_target_max"
    )]
    Cap {
        /// Bytes kept so far.
        queued_bytes: u64,
        /// Bytes of the hint.
        hint_bytes: u64,
        /// The limit.
        bytes_per_target_max: u64,
    },
    /// The target is no member of the cluster. For the driver to say: policy knows no members.
    #[error("the target is not a member of the cluster")]
    UnknownTarget,
    /// This node's disk is full, or its storage failed. For the driver to say, too.
    #[error("this node takes no writes")]
    NotWritable,
}

impl HintPolicy {
    /// Keeps hints for nodes down for at most `window`, each for at most as long, and at most
    /// `bytes_per_target_max` bytes per node.
    pub fn new(window: Duration, bytes_per_target_max: u64) -> Self {
        HintPolicy { window, bytes_per_target_max }
    }

    /// Whether to keep a hint of `hint_bytes` for a target for which `queued_bytes` are kept and
    /// which has been down for `down_for`: `None` if it is up or was just lost.
    ///
    /// # Errors
    /// [`NotAdmitted::Window`] and [`NotAdmitted::Cap`].
    pub fn admit(
        &self,
        down_for: Option<Duration>,
        queued_bytes: u64,
        hint_bytes: u64,
    ) -> Result<(), NotAdmitted> {
        let (window, bytes_per_target_max) = (self.window, self.bytes_per_target_max);
        if let Some(down_for) = down_for.filter(|down_for| *down_for > window) {
            return Err(NotAdmitted::Window { down_for, window });
        }
        if queued_bytes.saturating_add(hint_bytes) > bytes_per_target_max {
            return Err(NotAdmitted::Cap { queued_bytes, hint_bytes, bytes_per_target_max });
        }
        Ok(())
    }

    /// For how long a hint is still worth delivering; `None` once it has expired. A wall clock
    /// that has gone back behind the hint's creation makes it new again, never old.
    pub fn time_left(&self, created_wall_ms: u64, wall_ms: u64) -> Option<Duration> {
        let age = Duration::from_millis(wall_ms.saturating_sub(created_wall_ms));
        self.window.checked_sub(age)
    }

    /// Whether a hint has outlived the window.
    pub fn is_expired(&self, created_wall_ms: u64, wall_ms: u64) -> bool {
        self.time_left(created_wall_ms, wall_ms).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);
    const POLICY: HintPolicy = HintPolicy { window: WINDOW, bytes_per_target_max: 1_000 };

    #[test]
    fn a_hint_is_admitted_within_window_and_cap() {
        for (down_for, queued_bytes, hint_bytes) in
            [(None, 0, 1_000), (Some(Duration::ZERO), 900, 100), (Some(WINDOW), 0, 1)]
        {
            assert_eq!(POLICY.admit(down_for, queued_bytes, hint_bytes), Ok(()));
        }
    }

    #[test]
    fn a_node_away_for_longer_than_the_window_gets_none() {
        let down_for = WINDOW + Duration::from_millis(1);
        let refused = POLICY.admit(Some(down_for), 0, 1);
        assert_eq!(refused, Err(NotAdmitted::Window { down_for, window: WINDOW }));
    }

    #[test]
    fn the_cap_counts_the_hint_itself_and_cannot_overflow() {
        for (queued_bytes, hint_bytes) in [(1_000, 1), (0, 1_001), (u64::MAX, 2)] {
            let bytes_per_target_max = 1_000;
            let cap = NotAdmitted::Cap { queued_bytes, hint_bytes, bytes_per_target_max };
            assert_eq!(POLICY.admit(None, queued_bytes, hint_bytes), Err(cap));
        }
    }

    #[test]
    fn a_hint_expires_after_the_window() {
        assert!(!POLICY.is_expired(5_000, 15_000));
        assert!(POLICY.is_expired(5_000, 15_001));
        assert_eq!(POLICY.time_left(5_000, 9_000), Some(Duration::from_secs(6)));
    }

    #[test]
    fn a_clock_that_goes_back_expires_nothing() {
        assert!(!POLICY.is_expired(u64::MAX, 0));
        assert_eq!(POLICY.time_left(5_000, 0), Some(WINDOW));
    }
}
