//! What waits to be sent on one stream: five bounded queues, drained in order of class.
//!
//! Many threads push, one stream drains. A push takes one short lock and wakes the stream only
//! when it sleeps. An outbox belongs to one connection: it opens with it and its contents go with
//! it, so nothing queued for one life of a peer is ever sent to the next.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::net::outbox::cost::cost_bytes;
use crate::protocol::message::{Class, Message};

pub(crate) mod cost;
#[cfg(test)]
mod tests;

/// Messages of one frame. A frame is what a receiver handles in one go: at some 1 µs per message,
/// this bounds how long others wait for that.
pub(crate) const FRAME_MESSAGES_MAX: usize = 1024;

/// Estimated bytes of one frame, unless a single message is larger.
pub(crate) const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Bounds of one class's queue. A message larger than `bytes_max` is admitted when it is alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

const MIB: usize = 1024 * 1024;

/// The bounds of each class, in order of [`Class::ALL`]. Clients' work may fill what a slow peer
/// takes in a second; background work is produced on demand and needs only to cover a round trip.
pub(crate) const LIMITS: [QueueLimits; Class::ALL.len()] = [
    QueueLimits { messages_max: 16 * 1024, bytes_max: 32 * MIB },
    QueueLimits { messages_max: 4 * 1024, bytes_max: 8 * MIB },
    QueueLimits { messages_max: 4 * 1024, bytes_max: 8 * MIB },
    QueueLimits { messages_max: 1024, bytes_max: 16 * MIB },
    QueueLimits { messages_max: 1024, bytes_max: 8 * MIB },
];

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// The queue of its class is at its limit.
    Full,
    /// The connection is over.
    Closed,
}

/// What one drain brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Some messages, with their estimated bytes.
    Batch { bytes: usize },
    /// Nothing is queued now.
    Nothing,
    /// The outbox is closed and empty.
    Ended,
}

/// The queues of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
}

impl Outbox {
    /// Queues a message and wakes the stream if it sleeps.
    pub(crate) fn push(&self, class: Class, message: Message) -> Result<(), PushError> {
        let bytes = cost_bytes(&message);
        let sleeper = {
            let mut state = self.state.lock();
            if state.phase != Phase::Open {
                return Err(PushError::Closed);
            }
            state.queues[class as usize]
                .push(Waiting { message, bytes }, LIMITS[class as usize])?;
            state.waker.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Ok(())
    }

    /// Moves the next frame's messages to `batch`, which must be empty.
    pub(crate) fn drain(&self, batch: &mut Vec<Message>) -> Drained {
        let mut state = self.state.lock();
        let bytes = state.fill(batch);
        if !batch.is_empty() {
            return Drained::Batch { bytes };
        }
        if state.phase == Phase::Closing { Drained::Ended } else { Drained::Nothing }
    }

    /// Ready when a drain would bring something or the end; else remembers whom to wake.
    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        let empty = state.queues.iter().all(|queue| queue.waiting.is_empty());
        if !empty || state.phase == Phase::Closing {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes no more messages; what is queued is still sent.
    pub(crate) fn finish(&self) {
        self.close(|_| ());
    }

    /// Takes no more messages and drops what is queued.
    pub(crate) fn abort(&self) {
        self.close(|state| state.queues = Default::default());
    }

    /// Messages waiting, by class.
    pub(crate) fn depths(&self) -> [usize; Class::ALL.len()] {
        let state = self.state.lock();
        std::array::from_fn(|class| state.queues[class].waiting.len())
    }

    fn close(&self, and: impl FnOnce(&mut State)) {
        let sleeper = {
            let mut state = self.state.lock();
            state.phase = Phase::Closing;
            and(&mut state);
            state.waker.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

#[derive(Debug, Default)]
struct State {
    queues: [Queue; Class::ALL.len()],
    waker: Option<Waker>,
    phase: Phase,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Closing,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    bytes: usize,
}

impl State {
    /// Fills one frame in order of class; returns its estimated bytes.
    fn fill(&mut self, batch: &mut Vec<Message>) -> usize {
        let mut bytes = 0;
        for queue in &mut self.queues {
            while let Some(front) = queue.waiting.front() {
                let fits =
                    batch.len() < FRAME_MESSAGES_MAX && bytes + front.bytes <= FRAME_BYTES_MAX;
                if !fits && !batch.is_empty() {
                    return bytes;
                }
                bytes += front.bytes;
                batch.extend(queue.pop());
            }
        }
        bytes
    }
}

impl Queue {
    fn push(&mut self, waiting: Waiting, limits: QueueLimits) -> Result<(), PushError> {
        let fits = self.waiting.len() < limits.messages_max
            && self.bytes + waiting.bytes <= limits.bytes_max;
        if !fits && !self.waiting.is_empty() {
            return Err(PushError::Full);
        }
        self.bytes += waiting.bytes;
        self.waiting.push_back(waiting);
        Ok(())
    }

    fn pop(&mut self) -> Option<Message> {
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.bytes;
        Some(waiting.message)
    }
}
