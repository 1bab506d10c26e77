//! Requests of peers for keyspaces that this node has not heard of yet. A node that answered the
//! creation of one knows it up to a heartbeat sooner than the others: so such requests wait for the
//! news a little, and whoever has just made a keyspace can write to it at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::node::env::Env;
use crate::protocol::message::{Message, Mint, Read, Write};
use crate::types::{Moment, NodeId};

/// Requests that may wait; further ones are refused.
const EARLY_MAX: usize = 1024;

/// A request, by whom it was sent, and when nobody waits for it any more.
struct Waiting {
    from: NodeId,
    message: Message,
    expires: Moment,
}

/// Requests that came early.
pub(crate) struct Early {
    env: Arc<dyn Env>,
    waiting: Mutex<VecDeque<Waiting>>,
}

impl Early {
    pub(crate) fn new(env: Arc<dyn Env>) -> Early {
        Early { env, waiting: Mutex::default() }
    }

    /// Lets a request wait; gives it back when too many do.
    pub(crate) fn keep(&self, from: NodeId, message: Message) -> Result<(), Box<Message>> {
        let time_left = time_left(&message);
        let mut waiting = self.waiting.lock();
        if waiting.len() == EARLY_MAX {
            return Err(Box::new(message));
        }
        waiting.push_back(Waiting { from, message, expires: self.env.now() + time_left });
        Ok(())
    }

    /// Takes all that somebody still waits for, in the order in which they came. Those of which the
    /// time is up have run into their askers' deadlines.
    pub(crate) fn take(&self) -> Vec<(NodeId, Message)> {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let now = self.env.now();
        let in_time = waiting.into_iter().filter(|request| request.expires > now);
        let with_rest = |Waiting { from, mut message, expires }| {
            set_time_left(&mut message, expires.since(now));
            (from, message)
        };
        in_time.map(with_rest).collect()
    }
}

fn time_left(message: &Message) -> Duration {
    match message {
        Message::Write(Write { time_left, .. })
        | Message::Mint(Mint { time_left, .. })
        | Message::Read(Read { time_left, .. }) => *time_left,
        _ => Duration::ZERO,
    }
}

fn set_time_left(message: &mut Message, left: Duration) {
    if let Message::Write(Write { time_left, .. })
    | Message::Mint(Mint { time_left, .. })
    | Message::Read(Read { time_left, .. }) = message
    {
        *time_left = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::env::Machine;
    use crate::protocol::message::{RequestId, Want};
    use crate::types::{Key, KeyspaceId};

    fn read(number: u64, time_left: Duration) -> Message {
        Message::Read(Read {
            request: RequestId(number),
            keyspace: KeyspaceId(7),
            key: Key::from("k"),
            epoch: crate::types::Epoch(0),
            want: Want::Value,
            time_left,
        })
    }

    #[test]
    fn what_is_still_waited_for_comes_out_in_order() {
        let early = Early::new(Arc::new(Machine::new()));
        let long = Duration::from_secs(1000);
        for (number, time_left) in [(1, long), (2, Duration::ZERO), (3, long)] {
            early.keep(NodeId(number), read(number, time_left)).expect("there is room");
        }
        let taken = early.take();
        let from: Vec<NodeId> = taken.iter().map(|(from, _)| *from).collect();
        assert_eq!(from, [NodeId(1), NodeId(3)]);
        assert!(taken.iter().all(|(_, message)| time_left(message) <= long));
        assert!(early.take().is_empty());
    }

    #[test]
    fn a_request_too_many_is_given_back() {
        let early = Early::new(Arc::new(Machine::new()));
        let request = || read(1, Duration::from_secs(1));
        for _ in 0..EARLY_MAX {
            early.keep(NodeId(1), request()).expect("there is room");
        }
        assert_eq!(early.keep(NodeId(1), request()), Err(Box::new(request())));
    }
}
