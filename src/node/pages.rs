//! Asks peers for pages of partitions, and takes over what they list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::net::transport::Transport;
use crate::node::committer::{Committer, ReplyTo, Submission};
use crate::node::coordinator::Owner;
use crate::node::coordinator::pending::first_number;
use crate::node::env::Env;
use crate::protocol::message::{
    Class, Compare, Message, Refusal, RequestId, Scan, ScanPage, ScanReply,
};
use crate::types::{Epoch, Key, KeyspaceId, Moment, NodeId, PartitionId, Row};

/// Bytes of one page.
const PAGE_BYTES: u32 = 256 << 10;

/// How long one page is waited for before it is asked for again.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a source that has too much to do is asked again and again for the same page, rather
/// than for the whole partition later.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before that.
const PAUSE: Duration = Duration::from_millis(100);

/// A byte that is read and compared counts for so much less than one that is listed.
pub(crate) const LISTED_PER_READ: u64 = 4;

/// One partition of one keyspace.
pub(crate) type Place = (KeyspaceId, PartitionId);

/// What a page is to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// It begins after this key.
    pub(crate) after: Option<Key>,
    /// Its source must have heard of this version of the ring.
    pub(crate) epoch: Epoch,
    /// What is here of it already.
    pub(crate) compare: Option<Compare>,
}

struct Waiting {
    from: NodeId,
    page: oneshot::Sender<ScanReply>,
}

/// Pages of peers.
pub(crate) struct Pages {
    env: Arc<dyn Env>,
    transport: Arc<dyn Transport>,
    committer: Arc<Committer>,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    next: AtomicU64,
}

impl Pages {
    /// Requests are numbered from a random number up, as
    /// [`Pending`](crate::node::coordinator::pending::Pending) does.
    pub(crate) fn new(
        env: Arc<dyn Env>,
        transport: Arc<dyn Transport>,
        committer: Arc<Committer>,
    ) -> Pages {
        let next = AtomicU64::new(first_number(env.random()));
        Pages { env, transport, committer, waiting: Mutex::default(), next }
    }

    /// Asks a source for a page; again for a while, if it has too much to do.
    ///
    /// # Errors
    /// [`Refusal`] when the source cannot be asked, keeps silent, or says so.
    pub(crate) async fn ask(
        &self,
        place: Place,
        source: NodeId,
        wish: Wish,
    ) -> Result<ScanReply, Refusal> {
        let until = self.env.now() + PATIENCE;
        loop {
            let reply = self.ask_once(place, source, wish.clone()).await?;
            if reply.outcome != Err(Refusal::Overloaded) || self.env.now() >= until {
                return Ok(reply);
            }
            self.env.sleep_until(self.env.now() + PAUSE).await;
        }
    }

    async fn ask_once(
        &self,
        (keyspace, partition): Place,
        source: NodeId,
        wish: Wish,
    ) -> Result<ScanReply, Refusal> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(number, Waiting { from: source, page: sender });
        let request = Owner::Scan.request(number);
        let scan = scan(request, (keyspace, partition), wish);
        let outcome = match self.transport.send(source, Class::Transfer, Message::Scan(scan)) {
            Err(_) => Err(Refusal::NotServing),
            Ok(()) => tokio::select! { biased;
                reply = receiver => reply.map_err(|_| Refusal::NotServing),
                () = self.env.sleep_until(self.env.now() + PAGE_TIMEOUT) => Err(Refusal::Expired),
            },
        };
        self.waiting.lock().remove(&number);
        outcome
    }

    /// Makes the rows of a page durable here.
    ///
    /// # Errors
    /// [`Refusal`] when they could not be.
    pub(crate) async fn keep(
        &self,
        (keyspace, partition): Place,
        page: ScanPage,
    ) -> Result<(), Refusal> {
        let Some(last) = page.rows.len().checked_sub(1) else { return Ok(()) };
        let mut waiting = Vec::new();
        let submissions = page.rows.into_iter().enumerate().map(|(index, (key, record))| {
            // They become durable together, but of those that are joined each may be refused.
            let is_awaited = index == last || keyspace.merge().joins();
            let reply_to = is_awaited.then(|| {
                let (sender, durable) = oneshot::channel();
                waiting.push(durable);
                ReplyTo::Waiter(sender)
            });
            Submission {
                row: Row { keyspace, key, record },
                partition,
                expires: Moment(u64::MAX),
                reply_to: reply_to.unwrap_or(ReplyTo::Nobody),
            }
        });
        self.committer.submit_together(submissions)?;
        for durable in waiting {
            durable.await.unwrap_or(Err(Refusal::NotServing))?;
        }
        Ok(())
    }

    /// Takes a page, or why there is none.
    pub(crate) fn on_page(&self, from: NodeId, reply: ScanReply) {
        let Some((Owner::Scan, number)) = Owner::of(reply.request) else { return };
        let mut waiting = self.waiting.lock();
        if waiting.get(&number).is_some_and(|waiting| waiting.from == from)
            && let Some(waiting) = waiting.remove(&number)
        {
            // Who gave up on the page asks for it again.
            let _gave_up = waiting.page.send(reply);
        }
    }

    /// Stops waiting for a peer whose stream is gone.
    pub(crate) fn on_disconnected(&self, peer: NodeId) {
        self.waiting.lock().retain(|_, waiting| waiting.from != peer);
    }
}

fn scan(request: RequestId, (keyspace, partition): Place, wish: Wish) -> Scan {
    let Wish { after, epoch, compare } = wish;
    Scan { request, keyspace, partition, after, page_bytes_max: PAGE_BYTES, epoch, compare }
}
