//! Puts a node together from its parts, and attaches it to its cluster.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::{ClusterSettings, Config};
use crate::net::transport::{Discovery, Inbox, NodeFacts, Transport};
use crate::node::anti_entropy::{Answering, AntiEntropy, Scrubs};
use crate::node::coordinator::deadlines::Deadlines;
use crate::node::coordinator::latency::ReplicaLatencies;
use crate::node::coordinator::pending::Pending;
use crate::node::coordinator::{Coordinator, Owner};
use crate::node::dispatcher::{Dispatcher, Recipients};
use crate::node::early::Early;
use crate::node::errands::Errands;
use crate::node::gate::Gate;
use crate::node::groups::begin::{Founder, GroupHandles, begin};
use crate::node::hinted_handoff::HintedHandoff;
use crate::node::launch::StartError;
use crate::node::lists::Lists;
use crate::node::local::{Local, Parts};
use crate::node::members::{MemberSeams, Members};
use crate::node::pages::Pages;
use crate::node::reaping::{Fence, Reaper, Sharing};
use crate::node::rebalance::{Farewell, Rebalance};
use crate::node::refill::{Refill, RefillState};
use crate::node::scans::Scans;
use crate::node::service::{Attached, Node};
use crate::node::tasks::Tasks;
use crate::node::topology::TopologyCell;
use crate::node::transfers::{TransferState, Transfers};
use crate::node::vacated::Vacated;
use crate::node::watch::Watches;
use crate::protocol::membership::MemberSet;
use crate::types::{Epoch, Incarnation};

/// How a node comes to its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It founds the cluster: there is nobody to refill from.
    Founding,
    /// It joins for the first time: it owns nothing before partitions have moved to it.
    Joining,
    /// It belonged to the cluster before.
    Resuming,
}

/// What has partitions move.
#[derive(Clone)]
pub(crate) struct Moves {
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) rebalance: Arc<Rebalance>,
    pub(crate) vacated: Arc<Vacated>,
}

impl Moves {
    /// The ring has changed.
    pub(crate) fn wake(&self) {
        self.transfers.wake();
        self.rebalance.wake();
        self.rebalance.handoff.wake();
        self.vacated.wake();
    }
}

/// What closes a node's network.
pub type Close = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a node is attached to.
pub struct Attachment {
    /// Carries messages to peers.
    pub transport: Arc<dyn Transport>,
    /// Reports who is there.
    pub discovery: Arc<dyn Discovery>,
    /// The cluster's settings.
    pub settings: ClusterSettings,
    /// Members that a seed told of, to be merged with those kept.
    pub introduced: MemberSet,
    /// How the node comes to the cluster.
    pub entry: Entry,
    /// Closes the network; run once when the node stops.
    pub close: Close,
}

impl Node {
    /// Opens a node's storage and recovers it. Blocks on the disk.
    ///
    /// # Errors
    /// [`StartError`] when the log, the hints or the identity cannot be used.
    pub fn assemble(config: Config, parts: Parts) -> Result<Arc<Node>, StartError> {
        let local = Local::open(&config, parts)?;
        Ok(Arc::new(Node {
            config,
            local,
            tasks: Arc::new(Tasks::new()),
            dispatcher: Arc::new(Dispatcher::default()),
            attached: OnceLock::new(),
            waits_for: Mutex::new("it has not joined a cluster yet".to_owned()),
        }))
    }

    /// Where the transport delivers what arrives.
    pub fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::clone(&self.dispatcher) as Arc<dyn Inbox>
    }

    /// What the node first says of itself.
    pub fn facts(&self) -> NodeFacts {
        let (config, identity) = (&self.config, self.identity());
        NodeFacts {
            node_id: identity.node_id(),
            incarnation: identity.incarnation(),
            revision: identity.generation(),
            name: config.name.clone(),
            peer_address: config.peer_advertise.unwrap_or(config.peer_listen),
            client_address: config.advertise.unwrap_or(config.listen),
            zone: config.zone.clone(),
            vnodes: scaled_vnodes(config.vnodes, config.capacity),
            members_digest: 0,
            epoch: Epoch(0),
            requests_since: Epoch(0),
            load_per_second: 0,
            complete: !self.local.health.is_rebuilding(),
        }
    }

    /// Attaches the node to its cluster and starts its activities. Must be called on a runtime.
    ///
    /// # Errors
    /// [`StartError`] when the settings make no ring or cannot be kept.
    pub fn attach(self: &Arc<Self>, attachment: Attachment) -> Result<(), StartError> {
        let Attachment { transport, discovery, settings, introduced, entry, close } = attachment;
        self.keep_entry(&settings, entry)?;
        let mut set = self.identity().members();
        set.merge(&introduced);
        let seams = MemberSeams {
            env: Arc::clone(&self.local.env),
            transport: Arc::clone(&transport),
            discovery,
            identity: Arc::clone(&self.local.identity),
            health: Arc::clone(&self.local.health),
        };
        let (members, topology) = Members::new(&settings, set, self.facts(), seams)
            .map_err(|error| StartError::new("the cluster's settings make no ring", &error))?;
        let founder = self.founder(&settings, entry);
        let own = self.identity().node_id();
        let (driver, groups) = begin(
            &self.local,
            own,
            &transport,
            &topology,
            &self.tasks,
            self.config.groups,
            founder,
        )?;
        if let Some(state) = groups.gateway.system() {
            members.on_state(&state);
        }
        let attached = self.connect(transport, Arc::new(members), topology, groups, (entry, close));
        let first = self.attached.set(attached).is_ok();
        assert!(first, "invariant: a node is attached to its cluster once");
        self.start(driver);
        Ok(())
    }

    fn keep_entry(&self, settings: &ClusterSettings, entry: Entry) -> Result<(), StartError> {
        self.identity()
            .keep_cluster(settings.clone(), entry)
            .map_err(|error| StartError::new("cannot keep the node's cluster", &error))
    }

    fn connect(
        &self,
        transport: Arc<dyn Transport>,
        members: Arc<Members>,
        topology: Arc<TopologyCell>,
        groups: GroupHandles,
        (entry, close): (Entry, Close),
    ) -> Attached {
        let local = &self.local;
        let gate = self.gate(&topology);
        let (carrier, all) = (Arc::clone(&transport), Arc::clone(&members));
        let handoff = HintedHandoff::new(local, self.config.hints, carrier, all, Arc::clone(&gate));
        let handoff = Arc::new(handoff);
        let incarnation = minting(self.identity().incarnation(), self.identity().generation());
        let coordinator = self.coordinator(incarnation, &transport, &gate, &handoff);
        let pages = self.pages(&transport);
        let refill = self.refill(&transport, &topology, &pages);
        let (anti_entropy, answering, reaper) = self.anti_entropy(&transport, &gate, &groups);
        let moves = self.moves(&transport, &gate, &members, &groups, (&pages, &handoff));
        let scans = self.scans(&transport, &topology);
        let lists = Arc::new(self.lists(&gate, &transport));
        self.dispatcher.connect(Recipients {
            transport: Arc::clone(&transport),
            topology: Arc::clone(&topology),
            answering,
            errands: Arc::clone(anti_entropy.errands()),
            gate,
            replica: Arc::clone(&local.replica),
            early: Early::new(Arc::clone(&local.env)),
            coordinator: Arc::clone(&coordinator),
            handoff: Arc::clone(&handoff),
            members: Arc::clone(&members),
            scans,
            pages,
            lists: Arc::clone(&lists),
            refill: Arc::clone(&refill),
            transfers: Arc::clone(&moves.transfers),
            groups: Arc::clone(&groups.gateway),
            group_client: Arc::clone(&groups.client),
        });
        let since = local.env.now();
        let close = Mutex::new(Some(close));
        Attached {
            since,
            transport,
            topology,
            members,
            coordinator,
            lists,
            watches: Watches::new(self.config.limits.watches_max),
            handoff,
            refill,
            anti_entropy: Arc::new(anti_entropy),
            reaper: Arc::new(reaper),
            moves,
            joins: AtomicBool::new(entry == Entry::Joining),
            groups,
            close,
        }
    }

    fn gate(&self, topology: &Arc<TopologyCell>) -> Arc<Gate> {
        let (own, local) = (self.identity().node_id(), &self.local);
        let fence = Fence::new(local, self.config.anti_entropy.reap_after);
        Arc::new(Gate::new(own, topology, local, fence, &self.tasks))
    }

    fn pages(&self, transport: &Arc<dyn Transport>) -> Arc<Pages> {
        let Local { env, committer, .. } = &self.local;
        Arc::new(Pages::new(Arc::clone(env), Arc::clone(transport), Arc::clone(committer)))
    }

    fn scans(&self, transport: &Arc<dyn Transport>, topology: &Arc<TopologyCell>) -> Arc<Scans> {
        Arc::new(Scans::new(
            Arc::clone(&self.local.env),
            Arc::clone(&self.local.replica),
            Arc::clone(topology),
            Arc::clone(transport),
            Arc::clone(&self.tasks),
            self.local.rate(self.config.transfers.bytes_per_second),
        ))
    }

    /// What the node founds its cluster with: on its first start, and again if it was stopped
    /// before anything of it was durable and anyone had joined.
    fn founder(&self, settings: &ClusterSettings, entry: Entry) -> Option<Founder> {
        let alone = self.identity().members().iter().all(|(n, _)| n == self.identity().node_id());
        let founds = entry == Entry::Founding || (self.identity().is_founder() && alone);
        let member = crate::node::members::member(&self.facts());
        founds.then(|| Founder { settings: settings.clone(), member })
    }

    fn coordinator(
        &self,
        incarnation: Incarnation,
        transport: &Arc<dyn Transport>,
        gate: &Arc<Gate>,
        handoff: &Arc<HintedHandoff>,
    ) -> Arc<Coordinator> {
        let local = &self.local;
        Arc::new_cyclic(|me| Coordinator {
            me: Weak::clone(me),
            own: self.identity().node_id(),
            incarnation,
            env: Arc::clone(&local.env),
            clock: Arc::clone(&local.clock),
            limits: self.config.limits.clone(),
            sloppy: self.config.sloppy,
            topology: Arc::clone(&gate.topology),
            transport: Arc::clone(transport),
            gate: Arc::clone(gate),
            handoff: Arc::clone(handoff),
            metrics: Arc::clone(&local.metrics),
            latencies: ReplicaLatencies::default(),
            deadlines: Deadlines::new(),
            writes: Pending::new(local.env.random()),
            reads: Pending::new(local.env.random()),
            mints: Errands::new(Owner::Mint, Arc::clone(&local.env), Arc::clone(transport)),
            lingering: Mutex::default(),
        })
    }

    fn lists(&self, gate: &Arc<Gate>, transport: &Arc<dyn Transport>) -> Lists {
        let (env, transport) = (Arc::clone(&self.local.env), Arc::clone(transport));
        Lists::new(env, Arc::clone(gate), transport, Arc::clone(&self.tasks))
    }

    fn refill(
        &self,
        transport: &Arc<dyn Transport>,
        topology: &Arc<TopologyCell>,
        pages: &Arc<Pages>,
    ) -> Arc<Refill> {
        let (own, local) = (self.identity().node_id(), &self.local);
        Arc::new(Refill {
            own,
            env: Arc::clone(&local.env),
            transport: Arc::clone(transport),
            topology: Arc::clone(topology),
            pages: Arc::clone(pages),
            admission: Arc::clone(&local.replica.admission),
            rate: local.rate(self.config.transfers.bytes_per_second),
            health: Arc::clone(&local.health),
            metrics: Arc::clone(&local.metrics),
            state: RefillState::default(),
        })
    }

    /// Who compares replicas, who answers others that do, and who reaps what all share.
    fn anti_entropy(
        &self,
        transport: &Arc<dyn Transport>,
        gate: &Arc<Gate>,
        groups: &GroupHandles,
    ) -> (AntiEntropy, Answering, Reaper) {
        let (local, options) = (&self.local, self.config.anti_entropy);
        let (transport, gate) = (Arc::clone(transport), Arc::clone(gate));
        let scrubs = Arc::new(Scrubs::new(Arc::clone(&local.env), options.scrub_interval));
        let answering = Answering::new(
            Arc::clone(&local.env),
            Arc::clone(&gate),
            Arc::clone(&transport),
            Arc::clone(&self.tasks),
            Arc::clone(&scrubs),
        );
        let sharing = Arc::new(Sharing::default());
        let reaper = Reaper::new(local, &gate, groups, Arc::clone(&sharing));
        let shown = (scrubs, sharing);
        (AntiEntropy::new(local, options, transport, gate, shown), answering, reaper)
    }

    fn moves(
        &self,
        transport: &Arc<dyn Transport>,
        gate: &Arc<Gate>,
        members: &Arc<Members>,
        groups: &GroupHandles,
        (pages, handoff): (&Arc<Pages>, &Arc<HintedHandoff>),
    ) -> Moves {
        let (local, own, topology) = (&self.local, self.identity().node_id(), &gate.topology);
        let transfers = Transfers {
            own,
            incarnation: self.identity().incarnation(),
            env: Arc::clone(&local.env),
            transport: Arc::clone(transport),
            topology: Arc::clone(topology),
            members: Arc::clone(members),
            gateway: Arc::clone(&groups.gateway),
            system: Arc::clone(&groups.system),
            replica: Arc::clone(&local.replica),
            pages: Arc::clone(pages),
            metrics: Arc::clone(&local.metrics),
            fence: Arc::clone(&gate.fence),
            rate: self.local.rate(self.config.transfers.bytes_per_second),
            state: TransferState::default(),
        };
        let rebalance = Rebalance {
            own,
            env: Arc::clone(&local.env),
            gateway: Arc::clone(&groups.gateway),
            system: Arc::clone(&groups.system),
            members: Arc::clone(members),
            handoff: Arc::clone(handoff),
            woken: Notify::new(),
            farewell: Farewell::new(&self.config.limits),
        };
        let vacated = Vacated {
            own,
            env: Arc::clone(&local.env),
            topology: Arc::clone(topology),
            store: Arc::clone(&local.store),
            committer: Arc::clone(&local.committer),
            metrics: Arc::clone(&local.metrics),
            woken: Notify::new(),
        };
        let (transfers, rebalance) = (Arc::new(transfers), Arc::new(rebalance));
        Moves { transfers, rebalance, vacated: Arc::new(vacated) }
    }
}

/// The incarnation that this run of the node mints versions under. A coordinator that is no replica
/// of a key leaves no trace of its stamps here: started anew with a clock set back, it could give
/// one stamp twice, and only the run tells the two apart.
fn minting(incarnation: Incarnation, generation: u64) -> Incarnation {
    // Fibonacci hashing (Knuth, "The Art of Computer Programming", vol. 3, section 6.4) spreads
    // successive generations over all bits.
    Incarnation(incarnation.0 ^ generation.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A node's virtual nodes: its capacity times those of a node of capacity 1, at least one.
fn scaled_vnodes(vnodes: u32, capacity: f64) -> u32 {
    let scaled = (f64::from(vnodes) * capacity).round();
    (scaled as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::{Incarnation, minting, scaled_vnodes};

    #[test]
    fn each_run_mints_under_an_incarnation_of_its_own() {
        let life = Incarnation(7);
        assert_ne!(minting(life, 1), minting(life, 2));
        assert_ne!(minting(life, 1), minting(Incarnation(8), 1));
    }

    #[test]
    fn capacity_scales_vnodes_and_leaves_at_least_one() {
        assert_eq!(scaled_vnodes(128, 1.0), 128);
        assert_eq!(scaled_vnodes(128, 2.5), 320);
        assert_eq!(scaled_vnodes(128, 0.001), 1);
    }
}
