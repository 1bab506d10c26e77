//! One life of the stream to one peer: what goes out, what comes in, and its end.

use std::future::{poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use crate::net::conversion::{self, ConversionError};
use crate::net::outbox::cost::cost_bytes;
use crate::net::outbox::{Drained, Outbox, PushError};
use crate::net::peer::stats::Counters;
use crate::net::peer::switchboard::Attachment;
use crate::proto::cluster::{Frame, Hello};
use crate::protocol::message::{Class, Message};
use crate::types::NodeId;

/// A stream to a peer, standing or about to.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: NodeId,
    pub(crate) counters: Arc<Counters>,
    outbox: Outbox,
    over: watch::Sender<bool>,
}

impl Connection {
    pub(crate) fn new(peer: NodeId, counters: Arc<Counters>) -> Arc<Self> {
        let over = watch::Sender::new(false);
        Arc::new(Connection { peer, counters, outbox: Outbox::default(), over })
    }

    pub(crate) fn push(&self, class: Class, message: Message) -> Result<(), PushError> {
        self.outbox.push(class, message)
    }

    /// Ends once what is queued has been sent.
    pub(crate) fn finish(&self) {
        self.outbox.finish();
    }

    /// Ends now: what is queued is lost, and the task that receives returns.
    pub(crate) fn end(&self) {
        self.outbox.abort();
        self.over.send_replace(true);
    }

    pub(crate) fn queued(&self) -> [usize; Class::ALL.len()] {
        self.outbox.depths()
    }

    fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    async fn over(&self) {
        // An error cannot be: the sender is ours.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// Why a stream that stood no longer does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The connection broke, or the peer ended the stream with an error.
    #[error("the stream broke: {source}")]
    Broken { source: Status },
    /// The peer sent what this node cannot understand.
    #[error("a frame cannot be understood")]
    Malformed {
        #[from]
        source: ConversionError,
    },
}

/// Hands over what arrives until either side ends the stream.
pub(crate) async fn receive(
    attachment: &Attachment,
    mut incoming: Streaming<Frame>,
) -> Result<(), ReceiveError> {
    let connection = attachment.connection();
    let mut over = pin!(connection.over());
    loop {
        let next = tokio::select! {
            biased;
            next = incoming.message() => next,
            () = &mut over => return Ok(()),
        };
        let frame = match next {
            Ok(Some(frame)) if !connection.is_over() => frame,
            Ok(_) => return Ok(()),
            Err(source) => return Err(ReceiveError::Broken { source }),
        };
        let messages = conversion::decode(frame)?;
        let bytes = messages.iter().map(cost_bytes).sum();
        connection.counters.count_received(messages.len(), bytes);
        attachment.deliver(messages);
        // A busy peer must not keep the others' tasks from running.
        tokio::task::coop::consume_budget().await;
    }
}

/// The outgoing half: the Hello, then frames of whatever is queued. Dropping it ends the
/// connection, so that a broken one is noticed by whichever half sees it first.
pub(crate) fn frames(hello: Hello, connection: Arc<Connection>) -> impl Stream<Item = Frame> {
    let outgoing = Outgoing { connection, batch: Vec::new() };
    let first = Frame { hello: Some(hello), ..Frame::default() };
    stream::once(ready(first)).chain(stream::unfold(outgoing, |outgoing| outgoing.next_frame()))
}

struct Outgoing {
    connection: Arc<Connection>,
    batch: Vec<Message>,
}

impl Outgoing {
    /// `None` once the connection has ended and nothing is queued.
    async fn next_frame(mut self) -> Option<(Frame, Self)> {
        loop {
            let outbox = &self.connection.outbox;
            match outbox.drain(&mut self.batch) {
                Drained::Ended => return None,
                Drained::Batch { bytes } => {
                    self.connection.counters.count_sent(self.batch.len(), bytes);
                    return Some((conversion::encode(self.batch.drain(..)), self));
                }
                Drained::Nothing => poll_fn(|context| outbox.poll_ready(context)).await,
            }
            // Others that were woken by the same event may queue messages yet, and a frame of many
            // costs little more than a frame of one. tokio defers this task until its thread has
            // run what was ready; a bare self-wake would rouse another thread, and was measured to
            // triple the cost of a lone message.
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.connection.end();
    }
}
