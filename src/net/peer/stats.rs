//! What is counted per peer.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::message::Class;
use crate::types::NodeId;

/// Counts of one peer since this node started; they outlive its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// The peer.
    pub peer: NodeId,
    /// Whether a stream to it stands.
    pub connected: bool,
    /// Streams to it that stood; all but the first are reconnects.
    pub connects: u64,
    /// Frames handed to the stream.
    pub frames_sent: u64,
    /// Messages in them.
    pub messages_sent: u64,
    /// Their bytes, as queues estimate them.
    pub bytes_sent: u64,
    /// Frames that arrived.
    pub frames_received: u64,
    /// Messages in them.
    pub messages_received: u64,
    /// Their bytes, as queues estimate them.
    pub bytes_received: u64,
    /// Messages that wait now, in order of [`Class::ALL`].
    pub queued: [usize; Class::ALL.len()],
}

/// The live counters behind [`PeerStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    connects: AtomicU64,
    sent: Traffic,
    received: Traffic,
}

#[derive(Debug, Default)]
struct Traffic {
    frames: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn count_connect(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_sent(&self, messages: usize, bytes: usize) {
        self.sent.count(messages, bytes);
    }

    pub(crate) fn count_received(&self, messages: usize, bytes: usize) {
        self.received.count(messages, bytes);
    }

    /// The counts of `peer`, without what only its connection knows.
    pub(crate) fn read(&self, peer: NodeId) -> PeerStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerStats {
            peer,
            connected: false,
            connects: load(&self.connects),
            frames_sent: load(&self.sent.frames),
            messages_sent: load(&self.sent.messages),
            bytes_sent: load(&self.sent.bytes),
            frames_received: load(&self.received.frames),
            messages_received: load(&self.received.messages),
            bytes_received: load(&self.received.bytes),
            queued: [0; Class::ALL.len()],
        }
    }
}

impl Traffic {
    fn count(&self, messages: usize, bytes: usize) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
