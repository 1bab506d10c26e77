//! Pages of partitions for clients that list a keyspace: serves those that this node is asked for,
//! by itself or by a peer, and gathers those of a quorum.
//!
//! A page is read off the message path, a few at a time; those that wait for their turn are bounded
//! too. Whether this node answers for the partition is judged before the rows are read and again
//! afterwards: what a change of the ring moved away meanwhile would be missing among them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use crate::net::transport::{SendError, Transport};
use crate::node::coordinator::Owner;
use crate::node::coordinator::pending::first_number;
use crate::node::env::{Env, run_blocking};
use crate::node::gate::{Gate, Turned};
use crate::node::request::RequestError;
use crate::node::tasks::Tasks;
use crate::protocol::message::{
    Class, List, ListPage, ListRange, ListReply, Message, Refusal, RequestId,
};
use crate::protocol::quorum::QuorumError;
use crate::protocol::quorum::listing::{ListEffect, ListQuorum, ListSetup, Merged};
use crate::types::{Epoch, KeyspaceId, Moment, NodeId, PartitionId};

/// Pages that are read at once.
const READ_AT_ONCE_MAX: usize = 4;

/// Pages that are read or wait for it; further ones are refused.
const SERVED_MAX: usize = 256;

/// Pages of whole keyspaces that clients may be waiting for at once.
const LISTINGS_MAX: usize = 64;

/// A place to be listed, and the ring by which its replicas are known.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) partition: PartitionId,
    pub(crate) epoch: Epoch,
    pub(crate) range: ListRange,
}

/// What comes back of a question; no outcome when the replica was lost.
type Heard = (NodeId, Option<Result<ListPage, Refusal>>);

/// Asks for pages, and answers.
pub(crate) struct Lists {
    env: Arc<dyn Env>,
    gate: Arc<Gate>,
    transport: Arc<dyn Transport>,
    tasks: Arc<Tasks>,
    reads: Semaphore,
    served: Arc<Semaphore>,
    listings: Semaphore,
    gathering: Mutex<BTreeMap<u64, mpsc::Sender<Heard>>>,
    next: AtomicU64,
}

/// Keeps a gathering known until it ends, however it does.
struct Gathering<'l> {
    lists: &'l Lists,
    number: u64,
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.lists.gathering.lock().remove(&self.number);
    }
}

impl Lists {
    /// Requests are numbered from a random number up, as
    /// [`Pending`](crate::node::coordinator::pending::Pending) does.
    pub(crate) fn new(
        env: Arc<dyn Env>,
        gate: Arc<Gate>,
        transport: Arc<dyn Transport>,
        tasks: Arc<Tasks>,
    ) -> Lists {
        let next = AtomicU64::new(first_number(env.random()));
        Lists {
            env,
            gate,
            transport,
            tasks,
            reads: Semaphore::new(READ_AT_ONCE_MAX),
            served: Arc::new(Semaphore::new(SERVED_MAX)),
            listings: Semaphore::new(LISTINGS_MAX),
            gathering: Mutex::default(),
            next,
        }
    }

    /// Lets a client's listing begin.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`] naming `listings_max`.
    pub(crate) fn admit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, RequestError> {
        let (limit, max) = ("listings_max", LISTINGS_MAX);
        self.listings.try_acquire().map_err(|_| RequestError::Overloaded { limit, max })
    }

    /// The pages of as many replicas as must answer, merged.
    ///
    /// # Errors
    /// [`QuorumError`].
    pub(crate) async fn gather(
        self: &Arc<Self>,
        setup: ListSetup,
        subject: Subject,
    ) -> Result<Merged, QuorumError> {
        let deadline = setup.deadline;
        // Each replica is asked once, answers once, and is lost once.
        let (sender, mut replies) = mpsc::channel(2 * setup.primaries.len().max(1));
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.gathering.lock().insert(number, sender);
        let _known = Gathering { lists: self, number };
        let mut core = ListQuorum::new(setup, self.env.now());
        loop {
            while let Some(effect) = core.poll() {
                match effect {
                    ListEffect::Answer(answer) => return answer,
                    ListEffect::Ask(node) => {
                        let heard = self.ask(node, number, &subject, deadline);
                        hear(&mut core, node, heard, self.env.now());
                    }
                }
            }
            tokio::select! { biased;
                heard = replies.recv() => if let Some((node, outcome)) = heard {
                    hear(&mut core, node, Some(outcome), self.env.now());
                },
                () = self.env.sleep_until(core.next_deadline()) => core.on_tick(self.env.now()),
            }
        }
    }

    /// Sends a replica the question; what is known of its answer at once.
    fn ask(
        self: &Arc<Self>,
        node: NodeId,
        number: u64,
        subject: &Subject,
        deadline: Moment,
    ) -> Option<Option<Result<ListPage, Refusal>>> {
        let Subject { keyspace, partition, epoch, range } = subject.clone();
        let request = Owner::List.request(number);
        let time_left = deadline.since(self.env.now());
        let list = List { request, keyspace, partition, range, epoch, time_left };
        if node == self.gate.own {
            self.serve(node, list);
            return None;
        }
        match self.transport.send(node, Class::Client, Message::List(list)) {
            Ok(()) => None,
            Err(SendError::NotConnected { .. }) => Some(None),
            Err(SendError::QueueFull { .. }) => Some(Some(Err(Refusal::Overloaded))),
        }
    }

    /// Reads a page and answers, or refuses when too many wait for theirs.
    pub(crate) fn serve(self: &Arc<Self>, from: NodeId, list: List) {
        let Ok(place) = Arc::clone(&self.served).try_acquire_owned() else {
            return self.answer(from, list.request, Err(Refusal::Overloaded));
        };
        let lists = Arc::clone(self);
        self.tasks.spawn(async move {
            let request = list.request;
            let outcome = lists.page(list).await;
            drop(place);
            lists.answer(from, request, outcome);
        });
    }

    async fn page(&self, list: List) -> Result<ListPage, Refusal> {
        let deadline = self.env.now() + list.time_left;
        let turn = self.reads.acquire().await.map_err(|_| Refusal::NotServing)?;
        if self.env.now() >= deadline {
            return Err(Refusal::Expired);
        }
        self.gate.admits_list(&list).map_err(Turned::refusal)?;
        let (replica, asked) = (Arc::clone(&self.gate.replica), list.clone());
        let page = run_blocking(&*self.env, move || replica.list(&asked)).await?;
        drop(turn);
        self.gate.admits_list(&list).map_err(Turned::refusal)?;
        Ok(page)
    }

    fn answer(&self, to: NodeId, request: RequestId, outcome: Result<ListPage, Refusal>) {
        let reply = ListReply { request, outcome };
        if to == self.gate.own {
            return self.on_reply(to, reply);
        }
        // A reply that cannot be sent is a lost message: another replica is asked.
        if let Err(error) = self.transport.send(to, Class::Client, Message::ListReply(reply)) {
            tracing::debug!(%error, "a listed page was not sent");
        }
    }

    /// Takes a replica's answer.
    pub(crate) fn on_reply(&self, from: NodeId, reply: ListReply) {
        let Some((Owner::List, number)) = Owner::of(reply.request) else { return };
        if let Some(gathering) = self.gathering.lock().get(&number) {
            // There is room for every answer that is due.
            let _repeated = gathering.try_send((from, Some(reply.outcome)));
        }
    }

    /// What a peer was asked whose stream is gone is not answered any more.
    pub(crate) fn on_disconnected(&self, peer: NodeId) {
        for gathering in self.gathering.lock().values() {
            let _not_asked = gathering.try_send((peer, None));
        }
    }
}

fn hear(
    core: &mut ListQuorum,
    node: NodeId,
    heard: Option<Option<Result<ListPage, Refusal>>>,
    now: Moment,
) {
    match heard {
        Some(Some(Ok(page))) => core.on_page(node, page, now),
        Some(Some(Err(refusal))) => core.on_refusal(node, refusal, now),
        Some(None) => core.on_lost(node, now),
        None => {}
    }
}
