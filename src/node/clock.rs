//! The node's hybrid logical clock, shared by its coordinator and its replica.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::node::env::Env;
use crate::protocol::version::hlc::{ClockOffset, Hlc};
use crate::types::Timestamp;

/// Stamps writes and learns from stamps of others.
pub(crate) struct Clock {
    env: Arc<dyn Env>,
    hlc: Mutex<Hlc>,
}

impl Clock {
    /// A clock that never stamps at or below `floor`.
    pub(crate) fn new(env: Arc<dyn Env>, floor: Timestamp, max_offset: Duration) -> Self {
        Clock { env, hlc: Mutex::new(Hlc::new(floor, max_offset)) }
    }

    /// A stamp above everything seen and above the client's context.
    pub(crate) fn stamp(&self, above: Option<Timestamp>) -> Result<Timestamp, ClockOffset> {
        let wall_ms = self.env.wall_ms();
        self.hlc.lock().stamp(wall_ms, above)
    }

    /// Takes notice of a remote stamp, or refuses one that lies too far ahead.
    pub(crate) fn observe(&self, remote: Timestamp) -> Result<(), ClockOffset> {
        let wall_ms = self.env.wall_ms();
        self.hlc.lock().observe(wall_ms, remote)
    }

    /// The highest stamp given or seen.
    pub(crate) fn last(&self) -> Timestamp {
        self.hlc.lock().last()
    }

    /// Milliseconds since 1970, as the machine believes.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.env.wall_ms()
    }
}
