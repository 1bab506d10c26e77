//! The tasks of one transport: spawned only while it runs, all joined when it stops.

use std::future::Future;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Owner of the tasks.
pub(crate) struct Tasks {
    runtime: Handle,
    /// `None` once the transport stops.
    running: Mutex<Option<JoinSet<()>>>,
    stopping: watch::Sender<bool>,
}

impl Tasks {
    /// Takes the current runtime.
    pub(crate) fn new() -> Self {
        Tasks {
            runtime: Handle::current(),
            running: Mutex::new(Some(JoinSet::new())),
            stopping: watch::Sender::new(false),
        }
    }

    /// Runs a task, unless the transport is stopping: then the task is dropped and this is false.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut running = self.running.lock();
        let Some(tasks) = running.as_mut() else {
            // Dropped outside the lock: its guards may call back.
            drop(running);
            return false;
        };
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
        tasks.spawn_on(task, &self.runtime);
        true
    }

    /// Resolves when the transport stops.
    pub(crate) async fn stopping(&self) {
        // An error cannot be: the sender is ours.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Whether the transport is stopping or has stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Tells every task and hands them over to be joined; empty the second time.
    pub(crate) fn begin_stop(&self) -> JoinSet<()> {
        self.stopping.send_replace(true);
        self.running.lock().take().unwrap_or_default()
    }
}

/// Waits for all tasks. May be cancelled and called again.
pub(crate) async fn join(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the peer transport ended abnormally");
    }
}
