//! A load generator: callers in a closed loop, or operations at a fixed rate in an open one.
//!
//! In an open loop an operation's latency counts from the moment at which it was due, not from
//! when a caller was free to send it: so a stall shows in the figures of everything that it held
//! up, and is not hidden by the load generator waiting politely (coordinated omission; Tene, "How
//! NOT to Measure Latency", 2015). What could not be sent for too long is counted as dropped.
//!
//! The engine knows nothing of what it loads: a [`Target`] does the operations. `benches/ceiling`
//! drives it with others than a cluster.

pub(crate) mod args;
mod driver;
pub mod grpc;
mod keys;
mod progress;
pub mod report;

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

pub use crate::cli::bench::driver::run;

/// What load to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Share of reads: 0 only writes, 1 only reads.
    pub read_ratio: f64,
    /// Number of keys.
    pub keys: u64,
    /// How keys are chosen.
    pub distribution: Distribution,
    /// When operations start.
    pub pace: Pace,
    /// Operations under way at most: the callers of a closed loop.
    pub callers: usize,
    /// When it ends.
    pub stop: Stop,
    /// Load of the same kind before that is not measured.
    pub warmup: Duration,
    /// Whether every key is written first.
    pub preload: bool,
    /// The same seed chooses the same keys.
    pub seed: u64,
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// A few often, most seldom, spread over the key space as in YCSB.
    Zipfian {
        /// The skew, above 0 and below 1; YCSB uses 0.99.
        theta: f64,
    },
}

/// When operations start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A caller starts its next operation when the last one has ended.
    Closed,
    /// Operations start at this rate whether or not others have ended.
    Open {
        /// Operations per second.
        per_second: f64,
    },
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// After this time.
    After(Duration),
    /// After this many operations.
    Operations(u64),
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes a key.
    Put,
    /// Reads a key.
    Get,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// The key's number, below the plan's number of keys.
    pub key: u64,
}

/// What a successful operation has to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Bytes of the value written or read.
    pub value_bytes: u64,
    /// A read that found nothing.
    pub missing: bool,
    /// It took a second attempt on another node.
    pub retried: bool,
}

/// Why an operation did not succeed: a kind of few values, by which failures are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The kind, such as `UNAVAILABLE, not-attempted`.
    pub kind: String,
    /// What was said of this one.
    pub message: String,
}

/// Something to put load on.
pub trait Target: Send + Sync {
    /// One of its users.
    type Caller: Caller;

    /// A user, by number.
    fn caller(&self, index: usize) -> Self::Caller;
}

/// One user of a target: does one operation at a time.
pub trait Caller: Send + 'static {
    /// Does an operation.
    fn call(&mut self, step: Step) -> impl Future<Output = Result<Done, Failed>> + Send;
}

/// What can be seen of a running load, and how it is ended early.
pub struct Monitor {
    stage: Mutex<Stage>,
    stop: watch::Sender<bool>,
    counts: driver::Counts,
}

/// A part of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) stop: Stop,
}

impl Default for Monitor {
    fn default() -> Self {
        Monitor {
            stage: Mutex::new(Stage { name: "starting", stop: Stop::Operations(0) }),
            stop: watch::Sender::new(false),
            counts: driver::Counts::default(),
        }
    }
}

impl Monitor {
    /// Ends the load soon; the report then covers what was done.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether it was ended early.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }
}
