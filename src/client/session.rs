//! Numbers writes to strong keyspaces, so that a partition's group tells a repeated one from a new
//! one (Ongaro 2014, section 6.3).
//!
//! Each partition has a session of its own, with an id drawn at random. Its first write goes
//! alone: until the group has executed it, it does not know the session. After that, up to
//! [`WINDOW`] numbers above the acknowledged ones are in use at once. A write is acknowledged when
//! its caller has its answer, or has given it up: the group then never executes it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::client::surroundings::random;
use crate::proto::v1;
use crate::protocol::group::sessions::WINDOW;
use crate::types::{ClientId, PartitionId};

/// What goes with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) client: ClientId,
    pub(crate) sequence: u64,
    /// The client needs no answer up to this one any more.
    pub(crate) acknowledged: u64,
}

impl From<Stamp> for v1::Session {
    fn from(stamp: Stamp) -> Self {
        v1::Session {
            client: stamp.client.to_string(),
            sequence: stamp.sequence,
            acknowledged: stamp.acknowledged,
        }
    }
}

/// How a write ended, as far as its session is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The group executed it, so it knows the session.
    Executed,
    /// Whether it did is not known.
    Uncertain,
}

/// The numbers of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Numbers {
    client: ClientId,
    next: u64,
    /// Whether the group is known to know the session.
    is_open: bool,
    /// Numbers of writes that have not ended.
    in_flight: BTreeSet<u64>,
}

impl Numbers {
    fn new(client: ClientId) -> Numbers {
        Numbers { client, next: 1, is_open: false, in_flight: BTreeSet::new() }
    }

    fn acknowledged(&self) -> u64 {
        self.in_flight.first().unwrap_or(&self.next) - 1
    }

    fn has_room(&self) -> bool {
        let ahead = if self.is_open { WINDOW } else { 1 };
        self.next <= self.acknowledged() + ahead
    }

    fn take(&mut self) -> Option<Stamp> {
        if !self.has_room() {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        self.in_flight.insert(sequence);
        Some(Stamp { client: self.client, sequence, acknowledged: self.acknowledged() })
    }

    /// Ends a write; what belongs to a former session is nothing to this one.
    fn end(&mut self, stamp: Stamp, ending: Ending, new_client: ClientId) {
        if stamp.client != self.client {
            return;
        }
        self.in_flight.remove(&stamp.sequence);
        if ending == Ending::Executed {
            self.is_open = true;
        } else if !self.is_open {
            // The first write may be executed yet, and so may not be numbered anew.
            *self = Numbers::new(new_client);
        }
    }

    /// Takes up a new session, unless that was done since.
    fn renew(&mut self, old: ClientId, new: ClientId) {
        if self.client == old {
            *self = Numbers::new(new);
        }
    }
}

/// A partition's session, and who waits for room in it.
#[derive(Debug)]
struct Lane {
    numbers: Mutex<Numbers>,
    room: Notify,
}

impl Lane {
    fn new() -> Lane {
        Lane { numbers: Mutex::new(Numbers::new(draw())), room: Notify::new() }
    }

    fn change(&self, change: impl FnOnce(&mut Numbers)) {
        change(&mut self.numbers.lock());
        self.room.notify_one();
    }

    /// Waits until there is room.
    async fn take(&self) -> Stamp {
        loop {
            let room = self.room.notified();
            let (taken, more) = {
                let mut numbers = self.numbers.lock();
                (numbers.take(), numbers.has_room())
            };
            if more {
                // Passed on from one who waits to the next, while there is room.
                self.room.notify_one();
            }
            match taken {
                Some(stamp) => return stamp,
                None => room.await,
            }
        }
    }
}

/// The sessions of a client: at most one for each partition.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    lanes: Mutex<BTreeMap<PartitionId, Arc<Lane>>>,
}

impl Sessions {
    /// A number for a write to this partition, once there is room for it.
    pub(crate) async fn enter(&self, partition: PartitionId) -> Ticket {
        let lane =
            self.lanes.lock().entry(partition).or_insert_with(|| Arc::new(Lane::new())).clone();
        let stamp = lane.take().await;
        Ticket { lane, stamp, ending: Ending::Uncertain }
    }
}

/// A write's place in its session, given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    lane: Arc<Lane>,
    stamp: Stamp,
    ending: Ending,
}

impl Ticket {
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The group has executed the write.
    pub(crate) fn executed(mut self) {
        self.ending = Ending::Executed;
    }

    /// The session is of no use any more; later writes get another.
    pub(crate) fn end_session(self) {
        self.lane.change(|numbers| numbers.renew(self.stamp.client, draw()));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let (stamp, ending) = (self.stamp, self.ending);
        self.lane.change(|numbers| numbers.end(stamp, ending, draw()));
    }
}

/// An id that no other session has.
fn draw() -> ClientId {
    ClientId(random())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const A: ClientId = ClientId(1);
    const B: ClientId = ClientId(2);

    fn numbers(stamp: Option<Stamp>) -> Option<(u64, u64, u64)> {
        stamp.map(|stamp| (stamp.client.0, stamp.sequence, stamp.acknowledged))
    }

    fn open(client: ClientId) -> Numbers {
        let mut open = Numbers::new(client);
        let first = open.take().expect("room for the first");
        open.end(first, Ending::Executed, B);
        open
    }

    #[test]
    fn the_first_write_goes_alone_and_opens_the_session() {
        let mut session = Numbers::new(A);
        let first = session.take();
        assert_eq!(numbers(first), Some((1, 1, 0)));
        assert_eq!(session.take(), None);
        session.end(first.unwrap(), Ending::Executed, B);
        assert_eq!(numbers(session.take()), Some((1, 2, 1)));
        assert_eq!(numbers(session.take()), Some((1, 3, 1)));
    }

    #[test]
    fn a_first_write_that_is_not_known_to_be_executed_is_never_numbered_again() {
        let mut session = Numbers::new(A);
        let first = session.take().unwrap();
        session.end(first, Ending::Uncertain, B);
        assert_eq!(numbers(session.take()), Some((2, 1, 0)));
    }

    #[test]
    fn no_number_is_further_above_the_acknowledged_ones_than_the_window() {
        let mut session = open(A);
        let taken: Vec<Stamp> = std::iter::from_fn(|| session.take()).collect();
        assert_eq!(taken.len() as u64, WINDOW);
        session.end(taken[1], Ending::Executed, B);
        assert_eq!(session.take(), None, "the oldest has not ended");
        session.end(taken[0], Ending::Uncertain, B);
        assert_eq!(numbers(session.take()), Some((1, WINDOW + 2, 3)));
        assert_eq!(numbers(session.take()), Some((1, WINDOW + 3, 3)));
        assert_eq!(session.take(), None);
    }

    #[test]
    fn a_session_is_renewed_once_and_ignores_what_belongs_to_the_former() {
        let mut session = open(A);
        let old = session.take().unwrap();
        session.renew(A, B);
        session.renew(A, ClientId(3));
        session.end(old, Ending::Executed, ClientId(4));
        assert_eq!(session, Numbers::new(B));
    }

    #[test]
    fn who_waits_is_let_in_when_a_write_ends() {
        let sessions = Sessions::default();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(sessions.enter(PartitionId(7))).poll(&mut cx) else {
            panic!("the first write waits for nobody")
        };
        let mut waiting =
            [Box::pin(sessions.enter(PartitionId(7))), Box::pin(sessions.enter(PartitionId(7)))];
        assert!(waiting.iter_mut().all(|waiting| waiting.as_mut().poll(&mut cx).is_pending()));
        first.executed();
        let tickets: Vec<Ticket> = waiting
            .iter_mut()
            .filter_map(|waiting| match waiting.as_mut().poll(&mut cx) {
                Poll::Ready(ticket) => Some(ticket),
                Poll::Pending => None,
            })
            .collect();
        let sequences: Vec<u64> = tickets.iter().map(|ticket| ticket.stamp().sequence).collect();
        assert_eq!(sequences, [2, 3]);
    }
}
