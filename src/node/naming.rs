//! Finds the keyspaces that requests name.
//!
//! A node hears of keyspaces as it applies what the system group has decided, which others may have
//! done a moment before it. So a name that is unknown here is asked for: whoever was told that a
//! keyspace was made can use it on every node.

use std::time::Duration;

use crate::node::request::RequestOptions;
use crate::node::service::{Attached, Node};
use crate::protocol::system::keyspace::{DEFAULT_NAME, Mode};
use crate::types::Moment;

/// How long the system group is waited for. Without a majority it never answers.
const ANSWER_TIME: Duration = Duration::from_secs(1);

impl Node {
    /// Waits until this node has heard of the keyspace that a request names, if the system group
    /// knows it.
    pub(crate) async fn hear_of_keyspace(&self, attached: &Attached, options: &RequestOptions) {
        let Some(name) = options.keyspace.as_deref().filter(|name| *name != DEFAULT_NAME) else {
            return;
        };
        if attached.has_heard_of(name) {
            return;
        }
        let limits = &self.config.limits;
        let time = options.timeout.unwrap_or(limits.request_timeout).min(ANSWER_TIME);
        let deadline = self.local.env.now() + time;
        tokio::select! { biased;
            () = attached.ask_for_keyspace(name, deadline) => {}
            () = self.local.env.sleep_until(deadline) => {}
        }
    }
}

impl Attached {
    /// Whether requests for a keyspace find here what they need.
    fn has_heard_of(&self, name: &str) -> bool {
        let state = self.groups.gateway.system();
        let known = state.as_ref().and_then(|state| state.keyspace_named(name));
        known.is_some_and(|known| match known.mode {
            Mode::Strong => true,
            Mode::Quorum => self.topology.load().placement(known.id).is_some(),
        })
    }

    async fn ask_for_keyspace(&self, name: &str, deadline: Moment) {
        let mut states = self.groups.gateway.follow_system();
        let mut topologies = self.topology.follow();
        let decided = self.groups.system.decided(deadline).await;
        if decided.is_none_or(|state| state.keyspace_named(name).is_none()) {
            return;
        }
        while !self.has_heard_of(name) {
            let changed = tokio::select! { biased;
                changed = topologies.changed() => changed,
                changed = states.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}
