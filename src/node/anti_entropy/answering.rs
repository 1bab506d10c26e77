//! Answers questions about this node's trees and rows: its own, and those of peers, a few at a
//! time.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::net::transport::Transport;
use crate::node::anti_entropy::Scrubs;
use crate::node::env::{Env, run_blocking};
use crate::node::gate::Gate;
use crate::node::pages::Place;
use crate::node::reaping::Fence;
use crate::node::replica::Replica;
use crate::node::tasks::Tasks;
use crate::node::topology::Access;
use crate::protocol::message::tree::{Answer, Question, TreeAsk, TreeReply};
use crate::protocol::message::{Class, Message, Refusal};
use crate::types::{NodeId, Timestamp};

/// Questions that are answered at once; further ones are refused, and asked again.
const ANSWERS_AT_ONCE_MAX: usize = 32;

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
    /// this node has better things to do.
    pub(crate) fn serve(&self, from: NodeId, ask: TreeAsk) {
        let TreeAsk { request, keyspace, partition, epoch, question } = ask;
        let transport = Arc::clone(&self.transport);
        let topology = self.gate.topology.load();
        let owned = topology.admits(self.gate.own, Access::Read, (keyspace, partition), epoch);
        let replica = Arc::clone(&self.gate.replica);
        let floor = topology.reap_floor(partition);
        let has_time = replica.admission.admits(Class::AntiEntropy);
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok().filter(|_| has_time);
        let refusal = match (crate::node::gate::judge(owned), &slot) {
            (Err(turned), _) => Some(turned.refusal()),
            // One of the two has not heard yet of what was reaped.
            (Ok(()), _) if epoch < floor.epoch => Some(Refusal::StaleRing),
            (Ok(()), _) if epoch > topology.epoch => Some(Refusal::NotServing),
            (Ok(()), None) => Some(Refusal::Overloaded),
            (Ok(()), Some(_)) => None,
        };
        if let Some(refusal) = refusal {
            let (outcome, complete, fence) = (Err(refusal), false, Timestamp::default());
            return send(&*transport, from, TreeReply { request, outcome, complete, fence });
        }
        let (env, scrubs) = (Arc::clone(&self.env), Arc::clone(&self.scrubs));
        let promising = Arc::clone(&self.gate.fence);
        self.tasks.spawn(async move {
            let complete = replica.is_complete();
            let place = (keyspace, partition);
            let (outcome, fence) = match fence(&promising, &replica, &question).await {
                Ok(fence) => (answer(&*env, replica, &scrubs, place, question).await, fence),
                Err(refusal) => (Err(refusal), Timestamp::default()),
            };
            send(&*transport, from, TreeReply { request, outcome, complete, fence });
            drop(slot);
        });
    }
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
