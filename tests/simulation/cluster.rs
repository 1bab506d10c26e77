//! The nodes of a run: how one is started, crashed and asked.
//!
//! The only file that knows what a node is made of.

mod leaving;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use coterie::config::{ClusterSettings, Config, GroupOptions, JoinMode, Replication};
use coterie::node::assembly::{Attachment, Entry};
use coterie::node::launch::StartError;
use coterie::node::local::Parts;
use coterie::node::service::Node;
use coterie::protocol::membership::MemberSet;
use coterie::storage::memory::{MemoryDisk, MemoryEngine};
use coterie::types::{ClusterId, Key, NodeId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::agenda::Agenda;
use crate::dice::Dice;
use crate::disk::{SimDisk, Survival};
use crate::gossip::Gossip;
use crate::keyspaces;
use crate::machine::{Machine, SimEnv};
use crate::network::Network;
use crate::planted::Planted;
use crate::steps::{Eye, Steps};
use crate::trace::Trace;
use leaving::Leaving;

/// How often replicas are compared, if they are.
const COMPARED_EVERY: Duration = Duration::from_secs(3);

/// How often all rows are looked at.
const SCRUBBED_EVERY: Duration = Duration::from_secs(60);

/// How old deletes get, where they are reaped: longer than any request of the past takes.
pub(crate) const REAPED_AFTER: Duration = Duration::from_secs(8);

/// The size and the defaults of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// All machines, those included whose nodes join later.
    pub(crate) machines: usize,
    /// Machines whose nodes join while clients are at work.
    pub(crate) late: usize,
    pub(crate) replication: Replication,
    /// Q: small, so that rings are made quickly.
    pub(crate) partitions: u32,
    pub(crate) groups: GroupOptions,
    pub(crate) wal_segment_bytes: u64,
    pub(crate) mending: Mending,
}

/// What mends replicas that missed a write, besides reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mending {
    /// Hints alone.
    Hints,
    /// Hints, and anti-entropy.
    Everything,
    /// Anti-entropy alone: no hint is kept, and nothing is scrubbed.
    AntiEntropy,
    /// The same, and deletes are reaped: trees are then made anew all the time.
    AntiEntropyReaping,
    /// Hints and anti-entropy, and deletes are reaped while hints are kept for ever: what the floor
    /// alone stands against. Of stories only.
    Reaping,
    /// The same, but that nothing is compared.
    ReapingUncompared,
}

impl Mending {
    /// One of them; most bugs would not be seen for long if everything were mended at once.
    pub(crate) fn draw(dice: &Dice) -> Mending {
        let all = [Mending::Hints, Mending::Hints, Mending::Everything, Mending::AntiEntropy];
        match dice.fork("mending").pick(&all) {
            Mending::AntiEntropy if dice.fork("reaping").chance(500) => Mending::AntiEntropyReaping,
            drawn => drawn,
        }
    }

    /// Whether replicas become equal although nobody reads.
    pub(crate) fn is_complete(self) -> bool {
        !matches!(self, Mending::Hints | Mending::ReapingUncompared)
    }

    /// Whether deletes go for good.
    pub(crate) fn reaps(self) -> bool {
        !matches!(self, Mending::Hints | Mending::Everything | Mending::AntiEntropy)
    }
}

/// What a machine had on its disks.
#[derive(Default)]
pub(crate) struct Backup {
    disk: SimDisk,
    engine_disk: MemoryDisk,
}

/// A running cluster on its simulated machines.
pub(crate) struct Cluster {
    pub(crate) agenda: Arc<Agenda>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) network: Arc<Network>,
    pub(crate) shape: Shape,
    /// Sees whatever groups do.
    pub(crate) steps: Arc<Steps>,
    gossip: Arc<Gossip>,
    hosts: Vec<Host>,
    failed_starts: Mutex<Vec<String>>,
    /// Changes of the ring that are asked for and not decided.
    changes: Arc<()>,
    /// N of the default keyspace, once it was changed.
    altered: Mutex<Option<Replication>>,
}

/// A machine with what it keeps.
struct Host {
    machine: Arc<Machine>,
    disk: Arc<SimDisk>,
    engine_disk: Arc<MemoryDisk>,
    dice: Mutex<Dice>,
    /// That of its node, once it was started.
    node_id: Mutex<Option<NodeId>>,
    /// Whether the node waits until it is told to take a place.
    waits: Mutex<bool>,
    /// True once the node has entered the cluster: from then on it resumes.
    entered: Mutex<bool>,
    /// How far the node is on its way out.
    leaving: Mutex<Leaving>,
    life: Mutex<Option<Life>>,
}

impl Host {
    /// Whether the machine is switched off for good.
    fn is_off(&self) -> bool {
        matches!(*self.leaving.lock(), Leaving::Gone | Leaving::Burnt)
    }
}

struct Life {
    node: Arc<Node>,
    ended: Arc<End>,
}

/// The end of a node's life. Not a watch channel, which wakes those who wait in a random order.
#[derive(Default)]
struct End {
    has_come: AtomicBool,
    told: Notify,
}

/// A node that lives has answered well before this, whatever timeout was asked for; a pause of
/// its machine included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node as a client is connected to it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) node: Arc<Node>,
    ended: Arc<End>,
}

impl Session {
    /// Resolves when the node has crashed.
    pub(crate) async fn ended(&mut self) {
        loop {
            let told = self.ended.told.notified();
            if self.ended.has_come.load(SeqCst) {
                return;
            }
            told.await;
        }
    }
}

/// The address of a machine; the same for life.
pub(crate) fn peer_address(machine: usize) -> SocketAddr {
    let last = u8::try_from(machine + 1).expect("clusters are small");
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), 7401)
}

fn config(shape: &Shape, machine: usize) -> Config {
    let peer = peer_address(machine);
    let mut config = Config {
        name: format!("n{machine}"),
        listen: SocketAddr::new(peer.ip(), 7400),
        peer_listen: peer,
        vnodes: 8,
        partitions: shape.partitions,
        replication: Some(shape.replication),
        groups: shape.groups,
        ..Config::default()
    };
    // Small, so that a short run rotates segments and feeds tables.
    config.storage.wal_segment_bytes = shape.wal_segment_bytes;
    config.storage.memtable_bytes_max = 8 * 1024;
    config.storage.memtable_age_max = Duration::from_secs(5);
    config.anti_entropy.interval = match shape.mending {
        Mending::Hints | Mending::ReapingUncompared => Duration::ZERO,
        Mending::Everything
        | Mending::AntiEntropy
        | Mending::AntiEntropyReaping
        | Mending::Reaping => COMPARED_EVERY,
    };
    config.anti_entropy.reap_after =
        if shape.mending.reaps() { REAPED_AFTER } else { Duration::ZERO };
    config.anti_entropy.scrub_interval = SCRUBBED_EVERY;
    if matches!(shape.mending, Mending::AntiEntropy | Mending::AntiEntropyReaping) {
        // A scrub would find what writes did not tell the trees.
        config.anti_entropy.scrub_interval = Duration::ZERO;
        config.hints.bytes_per_target_max = 0;
    }
    config
}

impl Cluster {
    /// Machines without nodes, and the network between them.
    pub(crate) fn new(trace: Arc<Trace>, shape: Shape, dice: &Dice) -> Arc<Cluster> {
        let (agenda, machines) = (Agenda::start(), shape.machines);
        let weather = dice.fork("network");
        let network = Network::new(agenda.clone(), trace.clone(), machines, weather);
        let rumours = dice.fork("gossip");
        let gossip =
            Gossip::start(agenda.clone(), trace.clone(), network.clone(), machines, rumours);
        let host = |machine: usize| Host {
            machine: Machine::new(agenda.clone()),
            disk: SimDisk::new(),
            engine_disk: MemoryDisk::new(),
            dice: Mutex::new(dice.fork(&format!("machine {machine}"))),
            waits: Mutex::default(),
            entered: Mutex::default(),
            leaving: Mutex::default(),
            node_id: Mutex::default(),
            life: Mutex::default(),
        };
        let hosts: Vec<Host> = (0..machines).map(host).collect();
        let (steps, failed_starts) = (Steps::new(agenda.clone()), Mutex::default());
        let changes = Arc::default();
        Arc::new(Cluster {
            agenda,
            trace,
            network,
            shape,
            steps,
            gossip,
            hosts,
            failed_starts,
            changes,
            altered: Mutex::default(),
        })
    }

    /// Starts a machine's node on what its disk holds; does nothing while it runs.
    pub(crate) fn start(&self, machine: usize) {
        if self.session(machine).is_some() || self.hosts[machine].is_off() {
            return;
        }
        let mut config = config(&self.shape, machine);
        if *self.hosts[machine].waits.lock() {
            config.join = JoinMode::Manual;
        }
        let assembled = Node::assemble(config, self.parts(machine));
        if let Err(why) = assembled.and_then(|node| self.attach(machine, node)) {
            self.note(format_args!("{machine} does not start: {why}"));
            self.failed_starts.lock().push(format!("n{machine}: {why}"));
        }
    }

    /// Has a machine's node, which is to join later, wait until it is told to take a place.
    pub(crate) fn let_wait(&self, machine: usize) {
        *self.hosts[machine].waits.lock() = true;
    }

    fn parts(&self, machine: usize) -> Parts {
        let host = &self.hosts[machine];
        let seed = host.dice.lock().next();
        let eye = Eye { steps: self.steps.clone(), life: host.machine.life() };
        Parts {
            env: SimEnv::watched(host.machine.clone(), Dice::new(seed), Arc::new(eye)),
            files: host.disk.mount(),
            engine: Arc::new(MemoryEngine::open(host.engine_disk.clone())),
            engine_lost: None,
        }
    }

    fn attach(&self, machine: usize, node: Arc<Node>) -> Result<(), StartError> {
        let (host, node_id) = (&self.hosts[machine], node.facts().node_id);
        *host.node_id.lock() = Some(node_id);
        let entered = std::mem::replace(&mut *host.entered.lock(), true);
        let entry = match machine {
            _ if entered => Entry::Resuming,
            0 => Entry::Founding,
            _ => Entry::Joining,
        };
        self.note(format_args!("{machine} starts as {node_id}, {entry:?}"));
        node.attach(Attachment {
            transport: self.network.plug(machine, node_id, node.inbox()),
            discovery: self.gossip.plug(machine),
            settings: self.settings(),
            introduced: self.introduction(entry),
            entry,
            close: Box::pin(async {}),
        })?;
        *host.life.lock() = Some(Life { node, ended: Arc::default() });
        Ok(())
    }

    /// What a seed tells: whom it knows.
    fn introduction(&self, entry: Entry) -> MemberSet {
        let seed = self.nodes().into_iter().next().filter(|_| entry == Entry::Joining);
        seed.map(|node| node.members()).unwrap_or_default()
    }

    fn settings(&self) -> ClusterSettings {
        let replication = self.shape.replication;
        ClusterSettings { cluster_id: ClusterId(1), partitions: self.shape.partitions, replication }
    }

    /// A copy of what a machine has on its disks; its node must not run.
    pub(crate) fn back_up(&self, machine: usize) -> Backup {
        let (host, backup) = (&self.hosts[machine], Backup::default());
        backup.disk.copy_from(&host.disk);
        backup.engine_disk.copy_from(&host.engine_disk);
        backup
    }

    /// Puts a machine's disks back to what they were; its node must not run.
    pub(crate) fn put_back(&self, machine: usize, backup: &Backup) {
        let host = &self.hosts[machine];
        host.disk.copy_from(&backup.disk);
        host.engine_disk.copy_from(&backup.engine_disk);
    }

    /// Ends a machine's node without a word, and settles what its disk remembers.
    pub(crate) fn crash(&self, machine: usize, survival: Survival) {
        let host = &self.hosts[machine];
        let Some(life) = host.life.lock().take() else { return };
        self.note(format_args!("{machine} crashes, {survival:?} survives"));
        host.machine.end_life();
        self.network.unplug(machine);
        self.gossip.unplug(machine);
        life.ended.has_come.store(true, SeqCst);
        life.ended.told.notify_waiters();
        life.node.abort();
        host.disk.crash(survival, &mut host.dice.lock());
    }

    /// Ends every node: the run is over.
    pub(crate) fn end(&self) {
        (0..self.shape.machines).for_each(|machine| self.crash(machine, Survival::Everything));
    }

    /// A connection to a machine's node, if it runs.
    pub(crate) fn session(&self, machine: usize) -> Option<Session> {
        let life = self.hosts[machine].life.lock();
        life.as_ref().map(|life| Session { node: life.node.clone(), ended: life.ended.clone() })
    }

    /// Plants a bug in the network or the disks.
    pub(crate) fn plant(&self, planted: Option<Planted>) {
        self.network.plant(planted);
        let lies = planted == Some(Planted::ForgetfulDisk);
        self.hosts.iter().for_each(|host| host.disk.set_faults(|faults| faults.syncs_lie = lies));
    }

    /// The ids of the nodes that were ever started, by machine.
    pub(crate) fn node_ids(&self) -> BTreeMap<usize, NodeId> {
        let hosts = self.hosts.iter().enumerate();
        hosts.filter_map(|(machine, host)| Some((machine, (*host.node_id.lock())?))).collect()
    }

    /// All running nodes.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let sessions = (0..self.shape.machines).filter_map(|machine| self.session(machine));
        sessions.map(|session| session.node).collect()
    }

    /// The machines on which a node runs.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.shape.machines).filter(|machine| self.session(*machine).is_some()).collect()
    }

    /// True when every node that has entered the cluster runs, serves, is connected to every other
    /// and agrees with it on the members.
    pub(crate) fn is_settled(&self) -> bool {
        self.see_off();
        let stays = |host: &&Host| !host.is_off();
        let entered = self.hosts.iter().filter(|host| *host.entered.lock()).filter(stays);
        let (nodes, machines) = (self.nodes(), entered.count());
        nodes.len() == machines
            && Arc::strong_count(&self.changes) == 1
            && nodes.iter().all(|node| {
                let status = node.status();
                let whole = status.members.iter().all(|member| {
                    member.agrees && (member.is_self || (member.connected && member.state == "up"))
                });
                let settled = status.ring.unsettled == 0;
                status.serving.ready && settled && status.members.len() == machines && whole
            })
    }

    /// The hints that nodes keep for others, in words.
    pub(crate) fn hints(&self) -> Vec<String> {
        let mut kept = Vec::new();
        for status in self.nodes().iter().map(|node| node.status()) {
            let targets = status.members.iter().filter(|member| member.hint_bytes > 0);
            kept.extend(targets.map(|target| {
                let (keeper, bytes) = (&status.name, target.hint_bytes);
                format!("{keeper} keeps {bytes} bytes for {}, {}", target.name, target.state)
            }));
        }
        kept
    }

    /// Replicas in effect of a key: N of its keyspace, or all nodes while there are fewer.
    pub(crate) fn in_effect(&self, key: &Key) -> u32 {
        let second = keyspaces::of_key(key).and_then(|name| keyspaces::factor_of(&name));
        let default = || self.altered().unwrap_or(self.shape.replication).factor;
        second
            .unwrap_or_else(default)
            .min(u32::try_from(self.shape.machines).expect("clusters are small"))
    }

    /// N, R and W of the default keyspace, once they were changed.
    pub(crate) fn altered(&self) -> Option<Replication> {
        *self.altered.lock()
    }

    /// Notes that they were.
    pub(crate) fn note_altered(&self, replication: Replication) {
        *self.altered.lock() = Some(replication);
    }

    /// The machines of a key's primaries, as the first running node has them.
    pub(crate) fn primaries(&self, key: &Key) -> Vec<usize> {
        let Some(node) = self.nodes().first().cloned() else { return Vec::new() };
        let owners = node.owners(key).owners;
        let node_ids = self.node_ids();
        // The preference list is the same for every N: its first N are the primaries.
        let primaries = &owners[..owners.len().min(self.in_effect(key) as usize)];
        let is_primary = |node_id: &NodeId| primaries.iter().any(|owner| owner.node_id == *node_id);
        node_ids.into_iter().filter(|(_, id)| is_primary(id)).map(|(machine, _)| machine).collect()
    }

    /// What every machine offers to the faults.
    pub(crate) fn machine(&self, machine: usize) -> &Machine {
        &self.hosts[machine].machine
    }

    /// A machine's disk.
    pub(crate) fn disk(&self, machine: usize) -> &SimDisk {
        &self.hosts[machine].disk
    }

    /// What a machine's engine has made durable.
    pub(crate) fn engine_disk(&self, machine: usize) -> &MemoryDisk {
        &self.hosts[machine].engine_disk
    }

    /// Stops or resumes a machine as a whole.
    pub(crate) fn set_paused(&self, machine: usize, paused: bool) {
        self.hosts[machine].machine.set_paused(paused);
        self.network.set_paused(machine, paused);
    }

    /// Nodes that did not start, and why.
    pub(crate) fn failed_starts(&self) -> Vec<String> {
        self.failed_starts.lock().clone()
    }

    pub(crate) fn note(&self, line: std::fmt::Arguments<'_>) {
        self.trace.note(self.agenda.now(), line);
    }
}
