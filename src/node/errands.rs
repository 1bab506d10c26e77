//! What peers were asked for, and who waits for their answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::net::transport::Transport;
use crate::node::coordinator::Owner;
use crate::node::coordinator::pending::first_number;
use crate::node::env::Env;
use crate::protocol::message::tree::TreeReply;
use crate::protocol::message::{Class, Found, Message, Refusal, RequestId};
use crate::types::{NodeId, Record};

/// What a peer answered.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To a question about its tree or rows.
    Tree(TreeReply),
    /// To a row that it was sent.
    Write(Result<(), Refusal>),
    /// To the request for a row.
    Read(Result<Found, Refusal>),
    /// To a write that it was to mint.
    Mint(Result<Record, Refusal>),
}

struct Waiting {
    from: NodeId,
    reply: oneshot::Sender<Reply>,
}

/// Requests by number.
type Requests = Arc<Mutex<BTreeMap<u64, Waiting>>>;

/// Something that a peer was asked for; who drops it does not want to know any more.
pub(crate) struct Errand {
    number: u64,
    reply: oneshot::Receiver<Reply>,
    waiting: Requests,
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.number);
    }
}

/// Everything that one owner of requests waits for.
pub(crate) struct Errands {
    owner: Owner,
    env: Arc<dyn Env>,
    transport: Arc<dyn Transport>,
    waiting: Requests,
    next: AtomicU64,
}

impl Errands {
    pub(crate) fn new(owner: Owner, env: Arc<dyn Env>, transport: Arc<dyn Transport>) -> Errands {
        let next = AtomicU64::new(first_number(env.random()));
        Errands { owner, env, transport, waiting: Requests::default(), next }
    }

    /// Asks a peer for something.
    ///
    /// # Errors
    /// [`Refusal::NotServing`] when the message cannot be sent.
    pub(crate) fn send(
        &self,
        peer: NodeId,
        class: Class,
        message: impl FnOnce(RequestId) -> Message,
    ) -> Result<Errand, Refusal> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = oneshot::channel();
        self.waiting.lock().insert(number, Waiting { from: peer, reply: sender });
        let errand = Errand { number, reply, waiting: Arc::clone(&self.waiting) };
        let message = message(self.owner.request(number));
        let sent = self.transport.send(peer, class, message);
        sent.map(|()| errand).map_err(|_| Refusal::NotServing)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`Refusal`] when there is none in time, or the peer's stream is gone.
    pub(crate) async fn reply(
        &self,
        mut errand: Errand,
        at_most: Duration,
    ) -> Result<Reply, Refusal> {
        tokio::select! { biased;
            reply = &mut errand.reply => reply.map_err(|_| Refusal::NotServing),
            () = self.env.sleep_until(self.env.now() + at_most) => Err(Refusal::Expired),
        }
    }

    /// Whether a request was one of these.
    pub(crate) fn asked(&self, request: RequestId) -> bool {
        Owner::of(request).is_some_and(|(owner, _)| owner == self.owner)
    }

    /// Takes an answer.
    pub(crate) fn on_reply(&self, from: NodeId, request: RequestId, reply: Reply) {
        let Some((owner, number)) = Owner::of(request) else { return };
        if owner != self.owner {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.get(&number).is_some_and(|waiting| waiting.from == from)
            && let Some(waiting) = waiting.remove(&number)
        {
            // Who gave up on it does not need it.
            let _gave_up = waiting.reply.send(reply);
        }
    }

    /// Stops waiting for a peer whose stream is gone.
    pub(crate) fn on_disconnected(&self, peer: NodeId) {
        self.waiting.lock().retain(|_, waiting| waiting.from != peer);
    }
}
