//! Where time and randomness enter: one trait, with the machine behind it or a simulation.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use crate::node::groups::observer::GroupObserver;
use crate::types::Moment;

/// A job for a thread that may block.
pub type Job = Box<dyn FnOnce() + Send>;

/// The clock, the random numbers and the blocking threads of one node.
pub trait Env: Send + Sync {
    /// The present moment of the monotonic clock.
    fn now(&self) -> Moment;

    /// Milliseconds since 1970, as the machine believes; may jump either way.
    fn wall_ms(&self) -> u64;

    /// A random number.
    fn random(&self) -> u64;

    /// Resolves once the moment has come.
    fn sleep_until(&self, moment: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Runs a job that may block on the disk; resolves once it has run.
    fn run_blocking(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Who looks on while the groups work: nobody, unless this is a simulation.
    fn group_observer(&self) -> Option<Arc<dyn GroupObserver>> {
        None
    }
}

/// Runs a job that may block on the disk and returns what it returned.
pub(crate) async fn run_blocking<T: Send + 'static>(
    env: &dyn Env,
    job: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = oneshot::channel();
    env.run_blocking(Box::new(move || {
        // The receiver is gone only if the waiting task was, and then nobody misses the result.
        let _nobody_waits = sender.send(job());
    }))
    .await;
    receiver.await.expect("invariant: run_blocking resolves after the job has run")
}

/// The machine itself.
#[derive(Debug)]
pub struct Machine {
    started: Instant,
}

impl Machine {
    /// Starts the monotonic clock.
    #[allow(clippy::disallowed_methods, reason = "the one place where the clock enters")]
    pub fn new() -> Self {
        Machine { started: Instant::now() }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new()
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place where clock and randomness enter")]
impl Env for Machine {
    fn now(&self) -> Moment {
        Moment::default() + self.started.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        // A clock before 1970 reads as 0; the hybrid clock then runs on what it has seen.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    fn sleep_until(&self, moment: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(moment.since(self.now())))
    }

    fn run_blocking(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if let Err(error) = tokio::task::spawn_blocking(job).await {
                // Only a panic ends a blocking job early; it goes on where it is awaited.
                std::panic::resume_unwind(error.into_panic());
            }
        })
    }
}
