//! What this node measures of replicas, for [`crate::protocol::latency`]: reads and writes apart,
//! since a write waits for a disk.

use std::time::Duration;

use parking_lot::Mutex;

use crate::protocol::latency::Latencies;
use crate::types::{Moment, NodeId};

/// Estimates of all replicas, by reads and by writes.
#[derive(Default)]
pub(crate) struct ReplicaLatencies {
    pub(crate) reads: Mutex<Latencies>,
    pub(crate) writes: Mutex<Latencies>,
}

/// How a replica answers this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// How long a read takes on average, if any was measured lately.
    pub(crate) read: Option<Duration>,
    /// The same of a write.
    pub(crate) write: Option<Duration>,
    /// Whether either takes much longer than another replica's.
    pub(crate) slow: bool,
}

impl ReplicaLatencies {
    /// How a replica answers.
    pub(crate) fn pace(&self, node: NodeId, now: Moment) -> Pace {
        let (reads, writes) = (self.reads.lock(), self.writes.lock());
        Pace {
            read: reads.mean(node, now),
            write: writes.mean(node, now),
            slow: reads.is_slow(node, now) || writes.is_slow(node, now),
        }
    }
}
