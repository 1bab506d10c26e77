//! Sees to it that the system group knows this node as it is: when it joins, after a restart with
//! other addresses, and when it has lost what its replicas promised.

use std::sync::Arc;
use std::time::Duration;

use crate::node::assembly::Moves;
use crate::node::env::Env;
use crate::node::groups::gateway::Gateway;
use crate::node::groups::system::SystemClient;
use crate::node::members::Members;
use crate::node::request::RequestError;
use crate::node::tasks::Stop;
use crate::protocol::membership::Member;
use crate::protocol::system::{SystemCommand, SystemReply, SystemState};
use crate::types::NodeId;

/// How long is waited before the system group is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Describes this node to the system group.
pub(crate) struct Joining {
    pub(crate) own: NodeId,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) system: Arc<SystemClient>,
    pub(crate) members: Arc<Members>,
    /// Whether the node takes its place on the ring by itself.
    pub(crate) joins: bool,
    pub(crate) moves: Moves,
}

impl Joining {
    /// Describes the node whenever what is known of it is not what it is, until asked to stop.
    pub(crate) async fn run(self, mut stop: Stop) {
        let mut decided = self.gateway.follow_system();
        while !stop.is_requested() {
            let state = decided.borrow_and_update().clone();
            if let Some(state) = &state {
                self.members.on_state(state);
                self.moves.wake();
            }
            let own = self.members.own_member();
            let known = state.as_ref().is_some_and(|state| is_known(state, self.own, &own));
            let describe = async {
                match known {
                    true => std::future::pending().await,
                    false => self.describe(own).await,
                }
            };
            tokio::select! { biased;
                () = stop.requested() => {}
                changed = decided.changed() => if changed.is_err() { return },
                () = describe => {}
            }
        }
    }

    async fn describe(&self, member: Member) {
        let joins = self.joins;
        let command = SystemCommand::Describe { node: self.own, member, joins };
        match self.system.propose(command).await {
            Ok(SystemReply::Described { system_replica, .. }) => {
                self.gateway.host_system(system_replica);
            }
            Ok(other) => tracing::error!(?other, "the system group answers something else"),
            Err(RequestError::Rejected { reason }) => {
                tracing::warn!(%reason, "the cluster does not take this node as it is");
            }
            Err(error) => tracing::debug!(%error, "the system group does not know this node yet"),
        }
        self.env.sleep_until(self.env.now() + RETRY).await;
    }
}

/// Whether the system group knows the node as it describes itself.
fn is_known(state: &SystemState, own: NodeId, member: &Member) -> bool {
    let known = state.members().get(&own).map(|known| &known.member);
    known.is_some_and(|known| {
        known.incarnation == member.incarnation && known.revision >= member.revision
    })
}
