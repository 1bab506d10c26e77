//! The task behind gossip: publishes this node's facts and turns changes into sightings.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{Chitchat, ChitchatHandle, ChitchatId, NodeState};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

use crate::net::gossip::sightings::{Claim, Doubts, Presence};
use crate::net::gossip::{FACTS_KEY, GOSSIP_INTERVAL, LEAVING_KEY};
use crate::net::transport::{NodeFacts, Sighting};

/// How often the names among the seeds are resolved and greeted while this node sees nobody.
const GREET_INTERVAL_ALONE: Duration = Duration::from_secs(1);

/// The same while it sees others: enough to find the far side of a healed partition.
const GREET_INTERVAL: Duration = Duration::from_secs(60);

/// How long the resolution of one name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often nodes that fell silent are looked at again.
const DOUBT_INTERVAL: Duration = Duration::from_millis(200);

/// Owns the gossip server.
pub(crate) struct Driver {
    handle: ChitchatHandle,
    names: Vec<String>,
    facts: watch::Receiver<NodeFacts>,
    sightings: watch::Sender<Arc<Vec<Sighting>>>,
    doubts: Doubts,
    /// Generations that were complained about; each once.
    reported: BTreeSet<ChitchatId>,
}

impl Driver {
    pub(crate) fn new(
        handle: ChitchatHandle,
        names: Vec<String>,
        facts: watch::Receiver<NodeFacts>,
        sightings: watch::Sender<Arc<Vec<Sighting>>>,
    ) -> Self {
        Driver {
            handle,
            names,
            facts,
            sightings,
            doubts: Doubts::default(),
            reported: BTreeSet::new(),
        }
    }

    /// Runs until told to stop, then tells the others and ends the gossip server.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let failed = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => None,
            error = self.follow() => Some(error),
        };
        match failed {
            None => self.leave().await,
            Some(error) => tracing::error!(%error, "gossip failed; members are no longer observed"),
        }
        if let Err(error) = self.handle.shutdown().await {
            tracing::debug!(%error, "the gossip server had ended");
        }
    }

    /// Follows all changes; returns when the gossip server ends, with the cause.
    async fn follow(&mut self) -> String {
        let names = std::mem::take(&mut self.names);
        let mut live = self.handle.chitchat().lock().await.live_nodes_watcher();
        let mut terminated = std::pin::pin!(self.handle.termination_watcher());
        let mut greeting = ticks(GREET_INTERVAL_ALONE);
        let mut doubting = ticks(DOUBT_INTERVAL);
        loop {
            tokio::select! {
                biased;
                ended = &mut terminated => {
                    return ended.map_or_else(|error| error.to_string(), |()| "it ended".to_owned());
                }
                Ok(()) = self.facts.changed() => self.publish().await,
                Ok(()) = live.changed() => self.refresh().await,
                _ = doubting.tick(), if !self.doubts.is_empty() => {
                    self.doubts.step();
                    self.refresh().await;
                }
                _ = greeting.tick(), if !names.is_empty() => {
                    self.greet(&names).await;
                    greeting.reset_after(self.greet_interval());
                }
            }
        }
    }

    /// Puts this node's facts where others see them.
    async fn publish(&mut self) {
        let facts = serde_json::to_string(&*self.facts.borrow_and_update());
        match facts {
            Ok(facts) => {
                let set = |chitchat: &mut Chitchat| {
                    chitchat.self_node_state().set(FACTS_KEY, &facts);
                };
                self.handle.with_chitchat(set).await;
            }
            Err(error) => tracing::error!(%error, "this node's facts cannot be written as JSON"),
        }
        self.refresh().await;
    }

    /// Derives the sightings anew; wakes receivers only if they differ.
    async fn refresh(&mut self) {
        let chitchat = self.handle.chitchat();
        let claims = self.claims(&*chitchat.lock().await);
        let sightings = self.doubts.judge(claims, &self.sightings.borrow());
        self.sightings.send_if_modified(|current| {
            let changed = **current != sightings;
            if changed {
                *current = Arc::new(sightings);
            }
            changed
        });
    }

    fn claims(&mut self, chitchat: &Chitchat) -> Vec<Claim> {
        let own = chitchat.self_chitchat_id();
        let live: BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
        let mut claims = Vec::new();
        for (id, state) in chitchat.node_states() {
            if id.node_id == own.node_id && id.generation_id > own.generation_id {
                self.complain(id, "another process gossips under this node's id");
            }
            let presence = match (state.get(LEAVING_KEY), live.contains(id)) {
                (Some(_), _) => Presence::Leaving,
                (None, true) => Presence::Alive,
                (None, false) => Presence::Silent,
            };
            match parse(id, state) {
                Ok(None) => {}
                Ok(Some(facts)) => {
                    claims.push(Claim { generation: id.generation_id, facts, presence });
                }
                Err(problem) => self.complain(id, &problem),
            }
        }
        claims
    }

    fn complain(&mut self, id: &ChitchatId, problem: &str) {
        if self.reported.insert(id.clone()) {
            let (node, generation) = (&*id.node_id, id.generation_id);
            tracing::warn!(node, generation, problem, "gossip of a node is not usable");
        }
    }

    fn is_alone(&self) -> bool {
        self.sightings.borrow().iter().filter(|sighting| sighting.alive).count() <= 1
    }

    fn greet_interval(&self) -> Duration {
        if self.is_alone() { GREET_INTERVAL_ALONE } else { GREET_INTERVAL }
    }

    /// Gossips with whatever the names among the seeds resolve to now.
    async fn greet(&self, names: &[String]) {
        for name in names {
            match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(name)).await {
                Ok(Ok(addresses)) => addresses.for_each(|address| self.gossip_with(address)),
                Ok(Err(error)) => tracing::debug!(%name, %error, "cannot resolve a seed"),
                Err(_) => tracing::debug!(%name, "resolving a seed takes too long"),
            }
        }
    }

    fn gossip_with(&self, address: SocketAddr) {
        if let Err(error) = self.handle.gossip(address) {
            tracing::debug!(%error, "the gossip server has ended");
        }
    }

    /// Says good-bye, so that the others need not wait for the failure detector.
    async fn leave(&mut self) {
        let own = self.handle.chitchat_id().gossip_advertise_addr;
        let mark = |chitchat: &mut Chitchat| {
            chitchat.self_node_state().set(LEAVING_KEY, "1");
            let others = chitchat.live_nodes().map(|id| id.gossip_advertise_addr);
            others.filter(|address| *address != own).collect::<BTreeSet<SocketAddr>>()
        };
        let others = self.handle.with_chitchat(mark).await;
        if others.is_empty() {
            return;
        }
        others.into_iter().for_each(|address| self.gossip_with(address));
        // The exchange takes three datagrams; gossip itself repeats it once within this time.
        tokio::time::sleep(GOSSIP_INTERVAL).await;
    }
}

/// The first tick comes at once; a pause leaves no ticks to catch up with.
fn ticks(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// A node's facts; `None` while gossip has its heartbeat only.
fn parse(id: &ChitchatId, state: &NodeState) -> Result<Option<NodeFacts>, String> {
    let Some(json) = state.get(FACTS_KEY) else { return Ok(None) };
    let facts: NodeFacts = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if facts.node_id.to_string() != *id.node_id {
        return Err(format!("its facts name node {}", facts.node_id));
    }
    Ok(Some(facts))
}
