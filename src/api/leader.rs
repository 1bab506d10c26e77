//! Tells clients which node leads the partition of a strong keyspace that they asked for, so that
//! they need not be forwarded next time.

use std::net::SocketAddr;

use crate::node::request::RequestError;
use crate::node::service::Node;
use crate::types::{Key, NodeId};

/// The name under which gRPC's metadata and HTTP's headers carry the leader's client address.
pub(crate) const LEADER: &str = "coterie-leader";

/// Where clients reach the node that leads, if it is a member.
pub(crate) fn address(node: &Node, leader: Option<NodeId>) -> Option<SocketAddr> {
    // Most requests are of leaderless keyspaces.
    let leader = leader?;
    Some(node.system()?.members().get(&leader)?.member.client_address)
}

/// The same after an error, which bears no receipt.
pub(crate) fn after(node: &Node, key: &Key, error: &RequestError) -> Option<SocketAddr> {
    if is_of_group(error) { address(node, node.leader_of(key)) } else { None }
}

/// Whether only requests of strong keyspaces end so.
fn is_of_group(error: &RequestError) -> bool {
    matches!(
        error,
        RequestError::ConditionFailed { .. }
            | RequestError::Session(_)
            | RequestError::NoLeader { .. }
            | RequestError::OutcomeUnknown { .. }
    )
}
