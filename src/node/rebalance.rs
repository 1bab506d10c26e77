//! Has partitions take their steps, and this node go when it is to leave.
//!
//! Every node runs this; the leader of the system group orders the steps, so that there is one who
//! does. Should two hold themselves for it, each order bears the epoch that it was thought of in,
//! and the later one is refused.
//!
//! A node that leaves, and that nothing lies on any more, may still be asked by requests which
//! began before: by an older ring, or by what was known of leaders then. It goes once all members
//! that are up have told, by gossip, that they have heard of the ring in which it is not needed,
//! and that no request is under way with them which began before that. A client may give its
//! request `request_timeout_max`, a minute, and hardly any does: to wait for so long each time
//! would make every leave slow, and to wait as long as requests usually take broke the few that
//! take longer.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::Limits;
use crate::node::env::Env;
use crate::node::groups::gateway::Gateway;
use crate::node::groups::system::SystemClient;
use crate::node::hinted_handoff::HintedHandoff;
use crate::node::members::Members;
use crate::node::tasks::Stop;
use crate::protocol::planted::{Planted, planted};
use crate::protocol::system::state::Standing;
use crate::protocol::system::transfers::due;
use crate::protocol::system::{SystemCommand, SystemState};
use crate::types::{Epoch, GroupId, Moment, NodeId};

/// How often it is looked whether a step is due while partitions move.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long the system group may take to take an order.
const ORDER_TIME: Duration = Duration::from_secs(2);

/// How long a node that nothing lies on waits for members to hear of that which seem to be alive.
const NEWS_MAX: Duration = Duration::from_secs(60);

/// Orders the steps of moves.
pub(crate) struct Rebalance {
    pub(crate) own: NodeId,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) system: Arc<SystemClient>,
    pub(crate) members: Arc<Members>,
    pub(crate) handoff: Arc<HintedHandoff>,
    pub(crate) woken: Notify,
    pub(crate) farewell: Farewell,
}

/// How far a node is that is not needed any more.
pub(crate) struct Farewell {
    /// How long is waited in any case: members that seem to be down may only not be heard, and
    /// requests that began a moment ago may still take the node for the leader of a group.
    request_time: Duration,
    /// How long any request may take, and so how long members are waited for whose requests do not
    /// end, or that do not tell.
    request_time_max: Duration,
    progress: Mutex<Progress>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The first epoch in which nothing lay on the node, and when it was seen.
    unneeded: Option<(Epoch, Moment)>,
    /// When all members had heard of that.
    heard_at: Option<Moment>,
}

impl Farewell {
    /// Of a node that is needed.
    pub(crate) fn new(limits: &Limits) -> Farewell {
        let (request_time, request_time_max) = (limits.request_timeout, limits.request_timeout_max);
        Farewell { request_time, request_time_max, progress: Mutex::default() }
    }
}

impl Rebalance {
    /// Orders what is due until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        while !stop.is_requested() {
            let state = self.gateway.system();
            let busy = state.as_ref().is_some_and(|state| self.is_busy(state));
            if let Some(state) = state.filter(|_| busy) {
                tokio::select! { biased;
                    () = stop.requested() => return,
                    () = self.look(&state) => {}
                }
            }
            let next_look = self.env.now() + INTERVAL;
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.woken.notified() => {}
                () = self.env.sleep_until(next_look), if busy => {}
            }
        }
    }

    /// Looks at once whether there is something to do.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    fn is_busy(&self, state: &SystemState) -> bool {
        !state.placing().is_settled() || anybody_leaves(state)
    }

    fn leaves(&self, state: &SystemState) -> bool {
        let own = state.members().get(&self.own);
        own.is_some_and(|own| own.standing == Standing::Leaving)
    }

    async fn look(&self, state: &SystemState) {
        if anybody_leaves(state) {
            self.members.tell_of_requests();
        }
        if self.gateway.leader(GroupId::SYSTEM) == Some(self.own)
            && let Some(command) = due(state, &self.members.reports())
        {
            match self.system.propose_within(command, ORDER_TIME).await {
                Ok(_) => {}
                // It is ordered again after the next look, if it is still due then.
                Err(error) => tracing::debug!(%error, "a step of the moves was not taken"),
            }
        }
        let is_unneeded = self.leaves(state) && state.needs(self.own).is_none();
        if self.is_asked_nothing(state, is_unneeded) && self.has_nothing_left() {
            self.retire().await;
        }
    }

    /// Whether no member asks anything of this node any more: all have heard of a ring in which
    /// nothing lies on it, and what they began before has ended.
    fn is_asked_nothing(&self, state: &SystemState, is_unneeded: bool) -> bool {
        let mut progress = self.farewell.progress.lock();
        if !is_unneeded {
            *progress = Progress::default();
            return false;
        }
        let now = self.env.now();
        let (since, seen_at) = *progress.unneeded.get_or_insert((state.epoch(), now));
        let have_heard = || self.members.reports().values().all(|it| !it.up || it.epoch >= since);
        if progress.heard_at.is_none() && (now >= seen_at + NEWS_MAX || have_heard()) {
            progress.heard_at = Some(now);
        }
        let is_over = |heard_at: Moment| {
            let waited = now.since(heard_at);
            let asked = || self.members.have_requests_before(since);
            waited >= self.farewell.request_time_max
                || (waited >= self.farewell.request_time
                    && (planted(Planted::LeavesLongRequests) || !asked()))
        };
        progress.heard_at.is_some_and(is_over) || planted(Planted::LeavesVoting)
    }

    /// Whether nobody needs anything any more that is here alone.
    fn has_nothing_left(&self) -> bool {
        self.handoff.is_empty() || planted(Planted::LeavesWithHints)
    }

    /// Leaves, unless the system group may need this node's vote: it takes that from it first, and
    /// those who stay could not decide anything if several went with theirs.
    async fn retire(&self) {
        let groups = self.gateway.report().await;
        let votes = groups.iter().any(|it| it.group == GroupId::SYSTEM && it.may_vote());
        if votes && !planted(Planted::LeavesVoting) {
            return;
        }
        let command = SystemCommand::Retire { node: self.own };
        match self.system.propose_within(command, ORDER_TIME).await {
            Ok(_) => self.members.has_left(),
            Err(error) => tracing::debug!(%error, "this node cannot leave yet"),
        }
    }
}

fn anybody_leaves(state: &SystemState) -> bool {
    state.members().values().any(|known| known.standing == Standing::Leaving)
}
