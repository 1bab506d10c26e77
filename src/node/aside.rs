//! Where reads wait for the disk, off the threads that serve.
//!
//! From when the engine is fed until that is durable, a read of it may find a page that it has let
//! go of before it was written, and then the reader waits for the flush of a whole segment
//! ([`Engine::may_wait`](crate::storage::engine::Engine::may_wait)). Whoever would stand in the way
//! of others meanwhile reads here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::node::env::{Env, run_blocking};
use crate::node::tasks::Tasks;
use crate::telemetry::Metrics;

/// Reads that wait for the disk at the same time. Commits of the log need threads beside them.
const READS_MAX: usize = 64;

/// How many times as many may wait for their turn; further ones are refused.
const QUEUED_PER_PLACE: usize = 64;

/// A few threads of the machine's, and the queue before them.
pub(crate) struct Aside {
    env: Arc<dyn Env>,
    tasks: Arc<Tasks>,
    metrics: Arc<Metrics>,
    places: Semaphore,
    queue: Arc<Semaphore>,
}

/// A place in the queue.
pub(crate) struct Turn {
    aside: Arc<Aside>,
    queued: Option<OwnedSemaphorePermit>,
}

impl Aside {
    pub(crate) fn new(
        env: &Arc<dyn Env>,
        tasks: &Arc<Tasks>,
        metrics: &Arc<Metrics>,
    ) -> Arc<Aside> {
        Arc::new(Aside {
            env: Arc::clone(env),
            tasks: Arc::clone(tasks),
            metrics: Arc::clone(metrics),
            places: Semaphore::new(READS_MAX),
            queue: Arc::new(Semaphore::new(READS_MAX * QUEUED_PER_PLACE)),
        })
    }

    /// A place in the queue, unless too many have one.
    pub(crate) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let queued = Arc::clone(&self.queue).try_acquire_owned().ok()?;
        Some(Turn { aside: Arc::clone(self), queued: Some(queued) })
    }

    /// The same for what cannot be given up, of which there is little.
    pub(crate) fn turn_in_any_case(self: &Arc<Self>) -> Turn {
        Turn { aside: Arc::clone(self), queued: None }
    }

    /// Reads at once, on another thread.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        run_blocking(&*self.env, read).await
    }
}

impl Turn {
    /// Does the work, with the reads in it, when its turn has come.
    pub(crate) fn take(self, work: impl Future<Output = ()> + Send + 'static) {
        let Turn { aside, queued } = self;
        aside.metrics.reads_aside.inc();
        let tasks = Arc::clone(&aside.tasks);
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _place = aside.places.acquire().await;
            work.await;
            drop(queued);
        });
    }
}
