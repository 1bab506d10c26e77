//! Asks a group, wherever its leader is: here, or one hop away.
//!
//! A node that does not lead says who does, and is asked no more. What was certainly not begun is
//! asked again, elsewhere or a little later, until the deadline; what may have been begun only if
//! that does no harm: a read, or a command that its session tells from its own repetition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::net::transport::Transport;
use crate::node::coordinator::Owner;
use crate::node::coordinator::pending::Pending;
use crate::node::env::Env;
use crate::node::groups::begin::UNCOMMITTED_BYTES_MAX;
use crate::node::groups::gateway::Gateway;
use crate::node::groups::inbox::QUESTIONS_MAX;
use crate::node::groups::waiting::Answer;
use crate::node::request::RequestError;
use crate::node::topology::TopologyCell;
use crate::protocol::consistency::Consistency;
use crate::protocol::message::{
    Ask, Class, Forward, ForwardRefusal, ForwardReply, Message, RequestId, Told,
};
use crate::types::{GroupId, Moment, NodeId};

/// How long is waited before a group without a known leader is asked again.
const BACK_OFF: Duration = Duration::from_millis(30);

/// Why a group did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskError {
    /// Nothing was begun: nobody who could be asked leads the group, or what was asked was refused.
    NotBegun(ForwardRefusal),
    /// The time ran out, or whoever was asked was lost: it may have been done, or may yet be.
    Unknown,
}

/// What a group answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    /// The answer to the last attempt.
    pub(crate) told: Told,
    /// Whether an earlier attempt may have been begun, too: then a refusal of the last does not say
    /// that nothing was done.
    pub(crate) may_have_begun_before: bool,
}

/// Finds leaders and asks them.
pub(crate) struct GroupClient {
    pub(crate) own: NodeId,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) forwards: Pending<Forwarded>,
}

/// A request that another node was handed.
pub(crate) struct Forwarded {
    to: NodeId,
    answer: Option<oneshot::Sender<Answer>>,
}

/// One request and what is known of where to ask it.
struct Quest {
    group: GroupId,
    ask: Ask,
    deadline: Moment,
    /// Whether it may be asked again although it may have been begun.
    repeatable: bool,
    /// Nodes that have no replica of the group.
    strangers: BTreeSet<NodeId>,
    /// The node to ask next, if somebody named one.
    named: Option<NodeId>,
    /// Whether another replica than the leader may answer.
    anyone: bool,
    /// How many nodes were asked.
    asked: usize,
    last_refusal: ForwardRefusal,
}

impl GroupClient {
    /// Asks the group's leader.
    ///
    /// # Errors
    /// [`AskError`].
    pub(crate) async fn ask(
        &self,
        group: GroupId,
        ask: Ask,
        deadline: Moment,
        repeatable: bool,
    ) -> Result<Answered, AskError> {
        let repeatable = repeatable || matches!(ask, Ask::Read { .. } | Ask::List { .. });
        let anyone = is_for_anyone(&ask);
        let mut quest = Quest {
            group,
            ask,
            deadline,
            repeatable,
            strangers: BTreeSet::new(),
            named: if anyone { None } else { self.gateway.leader(group) },
            anyone,
            asked: 0,
            last_refusal: ForwardRefusal::NotLeader { leader: None },
        };
        let mut may_have_begun = false;
        let answered = |told, may_have_begun_before| Answered { told, may_have_begun_before };
        loop {
            let answer = match self.choose(&quest) {
                Some(node) => self.ask_node(node, &mut quest).await,
                None => Err(quest.last_refusal),
            };
            let in_doubt = answer == Err(ForwardRefusal::Unknown);
            match self.judge(&mut quest, answer) {
                Step::Done(Err(_)) if may_have_begun => return Err(AskError::Unknown),
                Step::Done(outcome) => return outcome.map(|told| answered(told, may_have_begun)),
                Step::AtOnce => {}
                Step::Later => self.env.sleep_until(self.env.now() + BACK_OFF).await,
            }
            may_have_begun |= in_doubt;
            if self.env.now() >= deadline {
                return Err(match may_have_begun {
                    true => AskError::Unknown,
                    false => AskError::NotBegun(quest.last_refusal),
                });
            }
        }
    }

    /// How many replicas a group is to have; `None` for one that was never placed.
    pub(crate) fn replicas_of(&self, group: GroupId) -> Option<u32> {
        let state = self.gateway.system()?;
        let replicas = state.groups().get(&group)?.replicas.len();
        u32::try_from(replicas).ok()
    }

    /// Takes the answer of the node that was asked.
    pub(crate) fn on_reply(&self, from: NodeId, reply: ForwardReply) {
        let Some((Owner::Forward, number)) = Owner::of(reply.request) else { return };
        if self.forwards.step(number, |forwarded| (forwarded.to == from, false)) == Some(true) {
            self.finish(number, reply.outcome);
        }
    }

    /// What was asked of a node that is gone may or may not have been done.
    pub(crate) fn on_disconnected(&self, peer: NodeId) {
        for number in self.forwards.numbers() {
            let lost = self.forwards.step(number, |forwarded| (forwarded.to == peer, false));
            if lost == Some(true) {
                self.finish(number, Err(ForwardRefusal::Unknown));
            }
        }
    }

    fn finish(&self, number: u64, answer: Answer) {
        let waiter = self.forwards.step(number, |forwarded| (forwarded.answer.take(), true));
        if let Some(waiter) = waiter.flatten() {
            // Whoever asked may have stopped waiting.
            let _gone = waiter.send(answer);
        }
    }

    /// The node to ask: who is said to lead, else this node, else any other in turn.
    fn choose(&self, quest: &Quest) -> Option<NodeId> {
        let usable = |node: &NodeId| !quest.strangers.contains(node) && self.can_be_asked(*node);
        if let Some(named) = quest.named.filter(usable) {
            return Some(named);
        }
        let candidates = self.candidates(quest.group);
        let start = quest.asked % candidates.len().max(1);
        let in_turn = candidates.iter().cycle().skip(start).take(candidates.len());
        in_turn.copied().find(usable)
    }

    /// Whether a node is this one, or connected to it.
    pub(crate) fn can_be_asked(&self, node: NodeId) -> bool {
        node == self.own || self.transport.is_connected(node)
    }

    /// Nodes that may have a replica of the group, this one first.
    pub(crate) fn candidates(&self, group: GroupId) -> Vec<NodeId> {
        let state = self.gateway.system();
        let placement = state.as_ref().and_then(|state| state.groups().get(&group));
        let mut nodes: Vec<NodeId> = match placement {
            Some(placement) => placement.nodes().into_iter().collect(),
            None => self.topology.load().members.iter().copied().collect(),
        };
        nodes.sort_by_key(|node| (*node != self.own, *node));
        nodes
    }

    async fn ask_node(&self, node: NodeId, quest: &mut Quest) -> Answer {
        quest.asked += 1;
        quest.named = Some(node);
        self.ask_replica(node, quest.group, quest.ask.clone(), quest.deadline).await
    }

    /// Asks this very node, and nobody else.
    ///
    /// # Errors
    /// The node's own refusal, or [`ForwardRefusal::Unknown`] when none came.
    pub(crate) async fn ask_replica(
        &self,
        node: NodeId,
        group: GroupId,
        ask: Ask,
        deadline: Moment,
    ) -> Answer {
        if node == self.own {
            return self.in_time(deadline, self.gateway.ask(group, ask)).await;
        }
        let (sender, receiver) = oneshot::channel();
        let forwarded = Forwarded { to: node, answer: Some(sender) };
        let number = self.forwards.insert(forwarded);
        let request: RequestId = Owner::Forward.request(number);
        let time_left = deadline.since(self.env.now());
        let forward = Message::Forward(Forward { request, group, time_left, ask });
        if self.transport.send(node, Class::Client, forward).is_err() {
            self.finish(number, Err(ForwardRefusal::NotServing));
        }
        let answer = async { receiver.await.unwrap_or(Err(ForwardRefusal::Unknown)) };
        let answer = self.in_time(deadline, answer).await;
        // Nobody waits for it any more, whether or not it was answered.
        self.forwards.step(number, |_| ((), true));
        answer
    }

    async fn in_time(&self, deadline: Moment, answer: impl Future<Output = Answer>) -> Answer {
        tokio::select! { biased;
            answer = answer => answer,
            () = self.env.sleep_until(deadline) => Err(ForwardRefusal::Unknown),
        }
    }

    fn judge(&self, quest: &mut Quest, answer: Answer) -> Step {
        let refusal = match answer {
            Ok(told) => {
                if !quest.anyone {
                    self.gateway.note_leader(quest.group, quest.named);
                }
                return Step::Done(Ok(told));
            }
            Err(refusal) => refusal,
        };
        let asked = quest.named.take();
        match refusal {
            ForwardRefusal::Unknown if !quest.repeatable => {
                return Step::Done(Err(AskError::Unknown));
            }
            ForwardRefusal::Overloaded => {
                return Step::Done(Err(AskError::NotBegun(refusal)));
            }
            ForwardRefusal::NotLeader { leader: Some(leader) } if Some(leader) != asked => {
                quest.named = Some(leader);
                quest.last_refusal = refusal;
                // Two nodes that each take the other for the leader must not keep us running.
                return if quest.asked.is_multiple_of(4) { Step::Later } else { Step::AtOnce };
            }
            ForwardRefusal::NotReplica => {
                quest.strangers.extend(asked.filter(|node| *node != self.own));
            }
            _ => {}
        }
        quest.last_refusal = refusal;
        Step::Later
    }
}

/// What a client is told of a request that certainly was not begun.
pub(crate) fn not_begun(group: GroupId, refusal: ForwardRefusal) -> RequestError {
    match refusal {
        ForwardRefusal::Overloaded => RequestError::GroupOverloaded {
            group,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            questions_max: QUESTIONS_MAX,
        },
        refusal => RequestError::NoLeader { group, reason: refusal.to_string() },
    }
}

/// Whether a replica that does not lead may serve what is asked.
fn is_for_anyone(ask: &Ask) -> bool {
    let (Ask::Read { consistency, .. } | Ask::List { consistency, .. }) = ask else {
        return false;
    };
    matches!(consistency, Consistency::Stale { .. })
}

/// What comes after an answer.
enum Step {
    Done(Result<Told, AskError>),
    AtOnce,
    Later,
}
