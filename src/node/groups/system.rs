//! Asks the system group for a change of the cluster's facts, and what they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};

use crate::node::env::Env;
use crate::node::groups::client::{AskError, GroupClient, not_begun};
use crate::node::groups::machine::SystemMachine;
use crate::node::request::RequestError;
use crate::protocol::consistency::Consistency;
use crate::protocol::message::{Ask, Told};
use crate::protocol::system::{
    SystemCommand, SystemRefusal, SystemReply, SystemRequest, SystemState,
};
use crate::types::{GroupId, KeyspaceId};

/// How long the system group is given to decide.
pub(crate) const DECISION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it is waited for to say what it has decided. Without a majority it never does.
pub(crate) const QUESTION_TIME: Duration = Duration::from_secs(1);

/// Requests that may wait for that.
const WAITING_MAX: usize = 1024;

/// Proposes commands of the system group, and asks what it has decided.
pub(crate) struct SystemClient {
    env: Arc<dyn Env>,
    client: Arc<GroupClient>,
    waiting: Semaphore,
    /// How many questions have begun.
    begun: AtomicU64,
    last: Mutex<Question>,
}

/// A question of what the group has decided. One is asked at a time, and whoever comes meanwhile
/// shares the next.
#[derive(Default)]
struct Question {
    /// How many had begun with it.
    number: u64,
    answer: Option<Arc<SystemState>>,
}

impl SystemClient {
    /// Whose requests go by this client of groups.
    pub(crate) fn new(env: Arc<dyn Env>, client: Arc<GroupClient>) -> SystemClient {
        let (waiting, begun) = (Semaphore::new(WAITING_MAX), AtomicU64::new(0));
        SystemClient { env, client, waiting, begun, last: Mutex::default() }
    }

    /// What the group had decided at some moment since the call, whatever this node has heard;
    /// `None` where nobody says so in time, or too many want to know.
    pub(crate) async fn decided(&self) -> Option<Arc<SystemState>> {
        let _place = self.waiting.try_acquire().ok()?;
        let begun = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        // One that began since the call is as good as one's own.
        if last.number <= begun {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let answer = self.ask_decided().await.map(Arc::new);
            *last = Question { number, answer };
        }
        last.answer.clone()
    }

    async fn ask_decided(&self) -> Option<SystemState> {
        let (keyspace, key) = (KeyspaceId::GROUP, SystemMachine::state_key());
        let ask = Ask::Read { keyspace, key, consistency: Consistency::Linearizable };
        let deadline = self.env.now() + QUESTION_TIME;
        let answered = self.client.ask(GroupId::SYSTEM, ask, deadline, true).await;
        let Told::Read { record, .. } = answered.ok()?.told else { return None };
        SystemMachine::read_state(record.as_ref()).ok()?
    }

    /// Has a command decided. A repetition is recognised by the number that it bears.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] when the command is refused, else what kept it from being decided.
    pub(crate) async fn propose(
        &self,
        command: SystemCommand,
    ) -> Result<SystemReply, RequestError> {
        self.propose_within(command, DECISION_TIMEOUT).await
    }

    /// Has a command decided, in that time.
    ///
    /// # Errors
    /// As [`SystemClient::propose`].
    pub(crate) async fn propose_within(
        &self,
        command: SystemCommand,
        time: Duration,
    ) -> Result<SystemReply, RequestError> {
        let request = SystemRequest { request_id: self.env.random(), command };
        let began = self.env.now();
        let ask = Ask::Propose(request.encode().into());
        let answered = self.client.ask(GroupId::SYSTEM, ask, began + time, true).await;
        let told = answered.map(|answered| answered.told);
        let waited = self.env.now().since(began).as_millis();
        let waited_ms = u64::try_from(waited).unwrap_or(u64::MAX);
        let group = GroupId::SYSTEM;
        match told {
            Ok(Told::Proposed(reply)) => read_reply(&reply, waited_ms),
            Ok(Told::Read { .. } | Told::Listed(_) | Told::Watched(_)) => {
                Err(RequestError::OutcomeUnknown { group, waited_ms })
            }
            Err(AskError::NotBegun(refusal)) => Err(not_begun(group, refusal)),
            Err(AskError::Unknown) => Err(RequestError::OutcomeUnknown { group, waited_ms }),
        }
    }
}

fn read_reply(reply: &[u8], waited_ms: u64) -> Result<SystemReply, RequestError> {
    let outcome: Result<Result<SystemReply, SystemRefusal>, _> = serde_json::from_slice(reply);
    match outcome {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(refusal @ SystemRefusal::Unusable { .. })) => {
            Err(RequestError::Invalid { field: "request", problem: refusal.to_string() })
        }
        Ok(Err(SystemRefusal::UnknownKeyspace { name })) => {
            Err(RequestError::UnknownKeyspace { name })
        }
        Ok(Err(refusal)) => Err(RequestError::Rejected { reason: refusal.to_string() }),
        // A newer program decided it in its own words.
        Err(_) => Err(RequestError::OutcomeUnknown { group: GroupId::SYSTEM, waited_ms }),
    }
}
