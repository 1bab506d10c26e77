//! Answers questions about this node's trees and rows: its own, and those of peers, a few at a
//! time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::net::transport::Transport;
use crate::node::anti_entropy::Scrubs;
use crate::node::env::{Env, run_blocking};
use crate::node::gate::Gate;
use crate::node::pages::Place;
use crate::node::reaping::Fence;
use crate::node::replica::Replica;
use crate::node::tasks::Tasks;
use crate::node::topology::{Access, Topology};
use crate::protocol::message::tree::{Answer, Question, TreeAsk, TreeReply};
use crate::protocol::message::{Class, Message, Refusal, RequestId};
use crate::types::{Epoch, NodeId, Timestamp};

/// Questions that are answered at once; further ones are refused, and asked again.
const ANSWERS_AT_ONCE_MAX: usize = 32;

/// How long news of the ring is waited for that a peer has heard.
const NEWS_TIME: Duration = Duration::from_secs(1);

/// Answers peers.
pub(crate) struct Answering {
    env: Arc<dyn Env>,
    gate: Arc<Gate>,
    transport: Arc<dyn Transport>,
    tasks: Arc<Tasks>,
    scrubs: Arc<Scrubs>,
    slots: Arc<Semaphore>,
}

impl Answering {
    pub(crate) fn new(
        env: Arc<dyn Env>,
        gate: Arc<Gate>,
        transport: Arc<dyn Transport>,
        tasks: Arc<Tasks>,
        scrubs: Arc<Scrubs>,
    ) -> Answering {
        let slots = Arc::new(Semaphore::new(ANSWERS_AT_ONCE_MAX));
        Answering { env, gate, transport, tasks, scrubs, slots }
    }

    /// Answers a peer, or refuses: when it takes this node for an owner that it is not, and when
    /// this node has better things to do. If the peer has heard of a change of the ring that this
    /// node has not, the news is waited for: whoever asks for a repair as soon as a change is
    /// decided would be told that nothing could be compared.
    pub(crate) fn serve(&self, from: NodeId, ask: TreeAsk) {
        let (transport, gate) = (Arc::clone(&self.transport), Arc::clone(&self.gate));
        let (env, scrubs) = (Arc::clone(&self.env), Arc::clone(&self.scrubs));
        let has_time = gate.replica.admission.admits(Class::AntiEntropy);
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok().filter(|_| has_time);
        let Some(slot) = slot else {
            return send(&*transport, from, refused(ask.request, Refusal::Overloaded));
        };
        self.tasks.spawn(async move {
            let reply = reply_to(ask, &gate, &*env, &scrubs).await;
            send(&*transport, from, reply);
            drop(slot);
        });
    }
}

async fn reply_to(ask: TreeAsk, gate: &Gate, env: &dyn Env, scrubs: &Scrubs) -> TreeReply {
    let TreeAsk { request, keyspace, partition, epoch, question } = ask;
    let has_heard = |topology: &Topology| topology.epoch >= epoch;
    if !has_heard(&gate.topology.load()) {
        tokio::select! { biased;
            () = gate.topology.until(has_heard) => {}
            () = env.sleep_until(env.now() + NEWS_TIME) => {}
        }
    }
    let place = (keyspace, partition);
    if let Some(refusal) = refusal(gate, place, epoch) {
        return refused(request, refusal);
    }
    let replica = Arc::clone(&gate.replica);
    let complete = replica.is_complete();
    let (outcome, fence) = match fence(&gate.fence, &replica, &question).await {
        Ok(fence) => (answer(env, replica, scrubs, place, question).await, fence),
        Err(refusal) => (Err(refusal), Timestamp::default()),
    };
    TreeReply { request, outcome, complete, fence }
}

/// Why a question that was asked under an epoch is not answered.
fn refusal(gate: &Gate, place: Place, epoch: Epoch) -> Option<Refusal> {
    let topology = gate.topology.load();
    let owned = topology.admits(gate.own, Access::Read, place, epoch);
    match crate::node::gate::judge(owned) {
        Err(turned) => Some(turned.refusal()),
        // One of the two has not heard yet of what was reaped.
        Ok(()) if epoch < topology.reap_floor(place.1).epoch => Some(Refusal::StaleRing),
        Ok(()) if epoch > topology.epoch => Some(Refusal::NotServing),
        Ok(()) => None,
    }
}

fn refused(request: RequestId, refusal: Refusal) -> TreeReply {
    TreeReply { request, outcome: Err(refusal), complete: false, fence: Timestamp::default() }
}

/// Up to where this node takes nothing new, before its tree is looked at.
pub(super) async fn fence(
    fence: &Fence,
    replica: &Replica,
    question: &Question,
) -> Result<Timestamp, Refusal> {
    match question {
        Question::Root => fence.raise(replica).await,
        _ => Ok(Timestamp::default()),
    }
}

/// What this node has to say.
pub(super) async fn answer(
    env: &dyn Env,
    replica: Arc<Replica>,
    scrubs: &Scrubs,
    place: Place,
    question: Question,
) -> Result<Answer, Refusal> {
    let pass = scrubs.pass(place, &question);
    run_blocking(env, move || replica.answer(place, &question, pass)).await
}

fn send(transport: &dyn Transport, to: NodeId, reply: TreeReply) {
    // An answer that cannot be sent is asked for again, by and by.
    if let Err(error) = transport.send(to, Class::AntiEntropy, Message::TreeReply(reply)) {
        tracing::debug!(%error, "an answer about a tree was not sent");
    }
}
