//! The way of one call: choose a node, ask it, and judge what came of it, until there is an answer
//! or the call's time is up.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::{Code, Request, Response};

use crate::client::calls::Call;
use crate::client::catalogue::Catalogue;
use crate::client::connections::Connections;
use crate::client::deadline::{Allowance, Deadline};
use crate::client::error::{ClientError, Outcome};
use crate::client::heard::{Heard, LEADER_TRAILER, Witness};
use crate::client::retry::{Effect, Next, Patience, Quest, back_off};
use crate::client::routing::{Member, Routing, View};
use crate::client::session::{Sessions, Ticket};
use crate::client::surroundings::{now, random};
use crate::proto::v1;
use crate::types::{Key, PartitionId};

/// How long a call may take unless it is said.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for fresher members when it could do without.
const LEARN_TIME_MAX: Duration = Duration::from_millis(500);

/// Where a call goes, and how it may be repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) effect: Effect,
    /// The partition whose leader is to be asked first.
    pub(crate) partition: Option<PartitionId>,
    /// Whether the keyspace is known to be there, so that all nodes will hear of it.
    pub(crate) keyspace_exists: bool,
}

impl Route {
    /// To any node.
    pub(crate) fn anywhere(effect: Effect) -> Route {
        Route { effect, partition: None, keyspace_exists: false }
    }
}

/// What the handles of one client share.
#[derive(Debug)]
pub(crate) struct Core {
    /// A call's time, unless it has its own.
    timeout: Option<Duration>,
    patience: Patience,
    pub(crate) catalogue: Catalogue,
    pub(crate) routing: Mutex<Routing>,
    connections: Connections,
    sessions: Sessions,
    /// Held by the one who asks for the members.
    learning: tokio::sync::Mutex<()>,
}

/// An answer, and who gave it.
struct Answered<T> {
    answer: T,
    address: Arc<str>,
}

impl Core {
    pub(crate) fn new(nodes: Vec<String>, timeout: Option<Duration>, patience: Patience) -> Core {
        Core {
            timeout,
            patience,
            catalogue: Catalogue::default(),
            routing: Mutex::new(Routing::new(nodes, patience)),
            connections: Connections::default(),
            sessions: Sessions::default(),
            learning: tokio::sync::Mutex::default(),
        }
    }

    /// When a call that begins now has to be done.
    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Deadline {
        match (timeout.or(self.timeout), self.patience) {
            (Some(timeout), _) => Deadline::after(timeout),
            (None, Patience::Lasting) => Deadline::after(TIMEOUT),
            (None, Patience::Strict) => Deadline::of_nodes(),
        }
    }

    /// Makes a call.
    ///
    /// # Errors
    /// What came of the last attempt, with the outcome of all.
    pub(crate) async fn call<C: Call>(
        &self,
        call: C,
        route: Route,
        deadline: Deadline,
    ) -> Result<C::Answer, ClientError> {
        if self.patience == Patience::Lasting {
            self.learn(deadline).await?;
        }
        Ok(self.travel(call, route, deadline).await?.answer)
    }

    async fn travel<C: Call>(
        &self,
        call: C,
        route: Route,
        deadline: Deadline,
    ) -> Result<Answered<C::Answer>, ClientError> {
        let mut quest = Quest::new(route.effect, self.patience);
        quest.keyspace_exists = route.keyspace_exists;
        let mut ticket = self.enter(&route, deadline).await?;
        loop {
            let (address, nodes) = {
                let mut routing = self.routing.lock();
                (routing.choose(route.partition, quest.asked(), now()), routing.nodes())
            };
            let allowance = quest.attempt_time(deadline.left(), nodes);
            let heard = match self.attempt(call.clone(), &ticket, &address, allowance).await {
                Ok(response) => {
                    let answer = self.arrived::<C>(response, &address, &route, ticket);
                    return Ok(Answered { answer, address });
                }
                Err(heard) => heard,
            };
            let nodes = self.note_failure(&address, &route, &heard);
            let next = quest.judge(&address, &heard, nodes, random());
            ticket = settle(ticket, quest.ends_session(&heard), &heard);
            let (Next::Again { after } | Next::Renew { after }) = next else {
                return Err(quest.error(heard));
            };
            if !rest(after, deadline).await {
                return Err(quest.error(heard));
            }
            if matches!(next, Next::Renew { .. }) {
                let Ok(entered) = self.enter(&route, deadline).await else {
                    return Err(quest.error(heard));
                };
                ticket = entered;
            }
        }
    }

    /// The number of a write that has a session.
    async fn enter(
        &self,
        route: &Route,
        deadline: Deadline,
    ) -> Result<Option<Ticket>, ClientError> {
        let (Effect::Session, Some(partition)) = (route.effect, route.partition) else {
            return Ok(None);
        };
        let entered = self.sessions.enter(partition);
        match tokio::time::timeout_at(deadline.at().into(), entered).await {
            Ok(ticket) => Ok(Some(ticket)),
            Err(_late) => Err(ClientError::NoAnswer {
                code: "window_full",
                message: format!("earlier writes to partition {} are not answered", partition.0),
                outcome: Outcome::NotAttempted,
                attempts: 0,
            }),
        }
    }

    async fn attempt<C: Call>(
        &self,
        mut call: C,
        ticket: &Option<Ticket>,
        address: &Arc<str>,
        allowance: Allowance,
    ) -> Result<Response<C::Answer>, Heard> {
        if let Some(ticket) = ticket {
            call.number(ticket.stamp().into());
        }
        let mut request = Request::new(call);
        if allowance.is_told {
            request.set_timeout(allowance.time);
        }
        let connection = self.connections.to(address);
        let answer = C::send(connection.channel.clone(), request);
        let heard = match tokio::time::timeout(allowance.time, answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => Heard::of(&status),
            Err(_late) => Heard::late(),
        };
        if heard.witness == Witness::Loss && !connection.was_made() {
            return Err(heard.unconnected());
        }
        Err(heard)
    }

    fn arrived<C: Call>(
        &self,
        response: Response<C::Answer>,
        address: &str,
        route: &Route,
        ticket: Option<Ticket>,
    ) -> C::Answer {
        if let Some(ticket) = ticket {
            ticket.executed();
        }
        let (metadata, answer, _) = response.into_parts();
        let by_address = metadata.get(LEADER_TRAILER).and_then(|leader| leader.to_str().ok());
        let by_id = C::receipt(&answer).map(|receipt| receipt.leader.as_str());
        let leader = by_address.or(by_id).filter(|leader| !leader.is_empty());
        self.routing.lock().answered(address, route.partition, leader);
        answer
    }

    /// How many nodes are known, after this was learnt of one.
    fn note_failure(&self, address: &str, route: &Route, heard: &Heard) -> usize {
        let mut routing = self.routing.lock();
        routing.failed(address, route.partition, heard, now());
        routing.nodes()
    }

    /// Asks for the members and the ring, if it is time to.
    ///
    /// # Errors
    /// Only when nothing is known yet and no node answers.
    pub(crate) async fn learn(&self, deadline: Deadline) -> Result<(), ClientError> {
        if !self.routing.lock().is_due(now()) {
            return Ok(());
        }
        let knows_nothing = self.routing.lock().partitioning().is_none();
        if !knows_nothing {
            let Ok(_one) = self.learning.try_lock() else { return Ok(()) };
            let soon = deadline.or_after(LEARN_TIME_MAX);
            // What is known goes on to be used; the next call in doubt asks again.
            let _stale = self.ask_for_members(soon).await;
            self.routing.lock().put_off(now());
            return Ok(());
        }
        let turn = tokio::time::timeout_at(deadline.at().into(), self.learning.lock()).await;
        let _one = turn.map_err(|_late| ClientError::NoAnswer {
            code: "no_answer",
            message: "no node has told of the cluster's members in time".to_owned(),
            outcome: Outcome::NotAttempted,
            attempts: 0,
        })?;
        if self.routing.lock().is_due(now()) {
            self.ask_for_members(deadline).await?;
        }
        Ok(())
    }

    /// Where a key of a strong keyspace lies.
    ///
    /// # Errors
    /// When no node that answers has a ring, or none answers.
    pub(crate) async fn partition_of(
        &self,
        key: &str,
        deadline: Deadline,
    ) -> Result<PartitionId, ClientError> {
        let mut attempts = 0;
        loop {
            self.learn(deadline).await?;
            if let Some(partitioning) = self.routing.lock().partitioning() {
                return Ok(partitioning.of_tagged(&Key::from(key)));
            }
            attempts += 1;
            let is_last = self.patience == Patience::Strict
                && attempts as usize >= self.routing.lock().nodes();
            if is_last || !rest(back_off(attempts, random()), deadline).await {
                return Err(ClientError::Refused {
                    status: Code::Unavailable,
                    code: "not_serving".to_owned(),
                    message: "no node that answers has joined its cluster yet".to_owned(),
                    outcome: Outcome::NotAttempted,
                    attempts,
                });
            }
        }
    }

    async fn ask_for_members(&self, deadline: Deadline) -> Result<(), ClientError> {
        let route = Route::anywhere(Effect::Read);
        let told = self.travel(v1::StatusRequest {}, route, deadline).await;
        let Answered { answer, address } = told.map_err(before_the_call)?;
        self.routing.lock().learn(&address, &view(answer), now());
        Ok(())
    }
}

/// What to do with a write's number after a failed attempt.
fn settle(ticket: Option<Ticket>, ends_session: bool, heard: &Heard) -> Option<Ticket> {
    let ticket = ticket?;
    if ends_session {
        ticket.end_session();
        return None;
    }
    if heard.is_of_the_group() {
        ticket.executed();
        return None;
    }
    Some(ticket)
}

/// Rests, unless the call's time would be up before another attempt.
async fn rest(after: Duration, deadline: Deadline) -> bool {
    let next = now() + after;
    if next >= deadline.at() {
        return false;
    }
    if !after.is_zero() {
        tokio::time::sleep_until(next.into()).await;
    }
    true
}

/// Of what failed before a call: none of the call itself was attempted.
pub(crate) fn before_the_call(error: ClientError) -> ClientError {
    match error {
        ClientError::NoAnswer { code, message, attempts, .. } => {
            ClientError::NoAnswer { code, message, attempts, outcome: Outcome::NotAttempted }
        }
        ClientError::Refused { status, code, message, attempts, .. } => {
            let outcome = Outcome::NotAttempted;
            ClientError::Refused { status, code, message, attempts, outcome }
        }
        other => other,
    }
}

fn view(status: v1::StatusResponse) -> View {
    let member = |member: v1::Member| Member { id: member.node_id, address: member.client_address };
    View {
        id: status.node_id,
        members: status.members.into_iter().map(member).collect(),
        partitions: status.ring.map_or(0, |ring| ring.partitions),
    }
}
