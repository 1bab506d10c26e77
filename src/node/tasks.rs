//! The owner of a node's tasks: it starts them, tells them to stop, and waits until they have.

use std::future::Future;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Owns every task that it spawned.
pub(crate) struct Tasks {
    running: Mutex<JoinSet<()>>,
    stop: watch::Sender<bool>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Tasks { running: Mutex::new(JoinSet::new()), stop: watch::Sender::new(false) }
    }

    /// Starts a task; tasks that have ended are let go of.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock();
        while running.try_join_next().is_some() {}
        running.spawn(task);
    }

    /// What a task watches to learn that it must end.
    pub(crate) fn stop_signal(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    /// Tells all tasks to end and waits until they have.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        let mut running = std::mem::take(&mut *self.running.lock());
        while running.join_next().await.is_some() {}
    }

    /// Ends all tasks where they stand, as a crash would.
    pub(crate) fn abort(&self) {
        self.stop.send_replace(true);
        self.running.lock().abort_all();
    }
}

/// A task's view of its owner's wish to stop.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Resolves once the owner wants the task to end, or is gone.
    pub(crate) async fn requested(&mut self) {
        // An error means that the owner was dropped, which asks for the same.
        let _gone = self.0.wait_for(|stop| *stop).await;
    }

    /// True once the owner wants the task to end.
    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}
