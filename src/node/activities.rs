//! What a node does by itself from when it is attached to its cluster: one task for each activity.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::config::JoinMode;
use crate::node::committer::Completions;
use crate::node::dismissal::Dismissal;
use crate::node::env::Env;
use crate::node::groups::driver::Driver;
use crate::node::joining::Joining;
use crate::node::service::{Attached, Node};
use crate::node::tasks::Stop;

/// How often a node refreshes the load that it gossips.
const LOAD_INTERVAL: Duration = Duration::from_secs(10);

impl Node {
    /// Starts every activity; its tasks own them from here on.
    pub(super) fn start(self: &Arc<Self>, driver: Driver) {
        let attached = self.attached.get().expect("invariant: set by the caller");
        let tasks = &self.tasks;
        let stop = || tasks.stop_signal();
        let completions: Arc<dyn Completions> = Arc::clone(&self.dispatcher) as _;
        let hinting = Arc::clone(&completions);
        let committer = Arc::clone(&self.local.committer);
        let committing = stop();
        tasks.spawn(async move { committer.run(completions, committing).await });
        tasks.spawn(Arc::clone(&self.local.feeder).run(stop()));
        tasks.spawn(Arc::clone(&self.local.feeder).prepare_segments(stop()));
        tasks.spawn(Arc::clone(&attached.coordinator).run_deadlines(stop()));
        tasks.spawn(driver.run(stop()));
        tasks.spawn(Arc::clone(&self.local.replica.admission.pacing).run(stop()));
        tasks.spawn(Arc::clone(&self.dispatcher).run(stop()));
        tasks.spawn(self.joining(attached).run(stop()));
        tasks.spawn(Arc::clone(&attached.members).run(stop()));
        tasks.spawn(self.dismissal(attached).run(stop()));
        tasks.spawn(Arc::clone(&attached.handoff).run(hinting, stop()));
        tasks.spawn(Arc::clone(&attached.anti_entropy).run(stop()));
        tasks.spawn(Arc::clone(&attached.reaper).run(stop()));
        tasks.spawn(Arc::clone(&attached.moves.transfers).run(stop()));
        tasks.spawn(Arc::clone(&attached.moves.rebalance).run(stop()));
        tasks.spawn(Arc::clone(&attached.moves.vacated).run(stop()));
        let node = Arc::downgrade(self);
        let completed = move || {
            if let Some(node) = node.upgrade() {
                node.on_refilled();
            }
        };
        tasks.spawn(Arc::clone(&attached.refill).run(stop(), completed));
        tasks.spawn(gossip_load(Arc::downgrade(self), Arc::clone(&self.local.env), stop()));
    }

    fn joining(&self, attached: &Attached) -> Joining {
        Joining {
            own: self.identity().node_id(),
            env: Arc::clone(&self.local.env),
            gateway: Arc::clone(&attached.groups.gateway),
            system: Arc::clone(&attached.groups.system),
            members: Arc::clone(&attached.members),
            joins: self.config.join == JoinMode::Auto,
            moves: attached.moves.clone(),
        }
    }

    fn dismissal(&self, attached: &Attached) -> Dismissal {
        Dismissal {
            env: Arc::clone(&self.local.env),
            transport: Arc::clone(&attached.transport),
            members: Arc::clone(&attached.members),
        }
    }

    fn on_refilled(&self) {
        if let Some(attached) = self.attached.get() {
            attached.reaper.promise_for_all();
        }
        if let Err(error) = self.identity().keep_complete() {
            tracing::error!(%error, "cannot keep that the node has refilled; it will do so again");
        }
        self.local.health.set_rebuilding(false);
        if let Some(attached) = self.attached.get() {
            attached.members.describe(|facts| facts.complete = true);
        }
        tracing::info!("the node has refilled; its answers count");
    }
}

/// Keeps the load that gossip shows up to date, until asked to stop.
async fn gossip_load(node: Weak<Node>, env: Arc<dyn Env>, mut stop: Stop) {
    let mut served_before = 0;
    while let Some(node) = node.upgrade() {
        let served = node.metrics().requests_served();
        let load = (served - served_before) / LOAD_INTERVAL.as_secs();
        served_before = served;
        if let Some(attached) = node.attached.get() {
            attached.members.describe(|facts| facts.load_per_second = load);
        }
        drop(node);
        tokio::select! { biased;
            () = stop.requested() => return,
            () = env.sleep_until(env.now() + LOAD_INTERVAL) => {}
        }
    }
}
