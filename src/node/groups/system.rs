//! Asks the system group for a change of the cluster's facts, and what they are.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::node::env::Env;
use crate::node::groups::client::{AskError, GroupClient, not_begun};
use crate::node::groups::machine::SystemMachine;
use crate::node::request::RequestError;
use crate::protocol::consistency::Consistency;
use crate::protocol::message::{Ask, Told};
use crate::protocol::system::{
    SystemCommand, SystemRefusal, SystemReply, SystemRequest, SystemState,
};
use crate::types::{GroupId, KeyspaceId, Moment};

/// How long the system group is given to decide.
pub(crate) const DECISION_TIMEOUT: Duration = Duration::from_secs(10);

/// Questions that a node asks at once: each costs the leader a round of messages.
const QUESTIONS_AT_ONCE_MAX: usize = 8;

/// Proposes commands of the system group, and asks what it has decided.
pub(crate) struct SystemClient {
    env: Arc<dyn Env>,
    client: Arc<GroupClient>,
    questions: Semaphore,
}

impl SystemClient {
    /// Whose requests go by this client of groups.
    pub(crate) fn new(env: Arc<dyn Env>, client: Arc<GroupClient>) -> SystemClient {
        SystemClient { env, client, questions: Semaphore::new(QUESTIONS_AT_ONCE_MAX) }
    }

    /// What the group had decided at some moment since the call, whatever this node has heard;
    /// `None` where nobody says so in time.
    pub(crate) async fn decided(&self, deadline: Moment) -> Option<SystemState> {
        // Who finds no room waits for it; the semaphore is never closed.
        let _question = self.questions.acquire().await.ok()?;
        let (keyspace, key) = (KeyspaceId::GROUP, SystemMachine::state_key());
        let ask = Ask::Read { keyspace, key, consistency: Consistency::Linearizable };
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
