//! Asks the system group for a change of the cluster's facts.

use std::sync::Arc;
use std::time::Duration;

use crate::node::env::Env;
use crate::node::groups::client::{AskError, GroupClient, not_begun};
use crate::node::request::RequestError;
use crate::protocol::message::{Ask, Told};
use crate::protocol::system::{SystemCommand, SystemRefusal, SystemReply, SystemRequest};
use crate::types::GroupId;

/// How long the system group is given to decide.
pub(crate) const DECISION_TIMEOUT: Duration = Duration::from_secs(10);

/// Proposes commands of the system group.
pub(crate) struct SystemClient {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) client: Arc<GroupClient>,
}

impl SystemClient {
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
