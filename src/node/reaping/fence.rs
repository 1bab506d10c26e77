//! The stamp at and below which this node takes nothing new, promised durably.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::node::clock::Clock;
use crate::node::env::{Env, run_blocking};
use crate::node::identity_keeper::IdentityKeeper;
use crate::node::local::Local;
use crate::node::replica::Replica;
use crate::protocol::message::Refusal;
use crate::protocol::reaping::fence;
use crate::types::Timestamp;

/// Promises, and holds to it: see [`crate::protocol::reaping`].
pub(crate) struct Fence {
    env: Arc<dyn Env>,
    clock: Arc<Clock>,
    identity: Arc<IdentityKeeper>,
    reap_after: Duration,
    /// What is heeded.
    promised: AtomicU64,
    /// What may be told of: it outlives a crash, and what was taken in before it is visible.
    holds: AtomicU64,
    /// Whether anything may be promised yet.
    open: AtomicBool,
}

impl Fence {
    pub(crate) fn new(local: &Local, reap_after: Duration) -> Fence {
        Fence {
            env: Arc::clone(&local.env),
            clock: Arc::clone(&local.clock),
            promised: AtomicU64::new(local.identity.reap_fence().0),
            identity: Arc::clone(&local.identity),
            reap_after,
            holds: AtomicU64::new(0),
            open: AtomicBool::new(false),
        }
    }

    /// How long after their stamps tombstones are reaped; zero for never.
    pub(crate) fn reap_after(&self) -> Duration {
        self.reap_after
    }

    /// What was promised so far.
    pub(crate) fn promised(&self) -> Timestamp {
        Timestamp(self.promised.load(Ordering::Acquire))
    }

    /// Whether this node promises anything yet.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// From now on it does.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Promises as much as the clock allows, and lets what was taken in before become visible.
    ///
    /// # Errors
    /// [`Refusal`] when the promise cannot be kept, or what was taken in cannot, and while nothing
    /// may be promised yet.
    pub(crate) async fn raise(&self, replica: &Replica) -> Result<Timestamp, Refusal> {
        if !self.is_open() {
            return Err(Refusal::NotServing);
        }
        let wall_ms = self.clock.last().wall_ms().max(self.env.wall_ms());
        let wanted = fence(wall_ms, self.reap_after);
        if self.holds.load(Ordering::Acquire) < wanted.0 {
            self.promise(wanted).await?;
            replica.settle().await?;
            self.holds.fetch_max(wanted.0, Ordering::AcqRel);
        }
        Ok(wanted)
    }

    /// Heeds what was promised elsewhere.
    pub(crate) fn heed(&self, at: Timestamp) {
        self.promised.fetch_max(at.0, Ordering::AcqRel);
    }

    /// Promises up to a stamp, as others have for this node: with rows that were taken over from
    /// those who share them.
    ///
    /// # Errors
    /// [`Refusal::Storage`] when it cannot be kept.
    pub(crate) async fn promise(&self, at: Timestamp) -> Result<(), Refusal> {
        self.heed(at);
        let identity = Arc::clone(&self.identity);
        let kept = run_blocking(&*self.env, move || identity.keep_reap_fence(at)).await;
        kept.map_err(|error| {
            tracing::warn!(%error, "the reap fence could not be kept");
            Refusal::Storage
        })
    }
}
