//! Where the clock and randomness enter the client.

use std::time::Instant;

#[allow(clippy::disallowed_methods, reason = "a client lives outside of a node's environment")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a client lives outside of a node's environment")]
pub(crate) fn random() -> u64 {
    rand::random()
}
