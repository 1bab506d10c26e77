//! The groups of a node that starts: those of its log, or the system group of a new cluster.

use std::sync::Arc;

use crate::config::{ClusterSettings, GroupOptions};
use crate::net::transport::Transport;
use crate::node::aside::Aside;
use crate::node::coordinator::pending::Pending;
use crate::node::groups::client::GroupClient;
use crate::node::groups::driver::{Driver, Seams, TICK};
use crate::node::groups::gateway::Gateway;
use crate::node::groups::host::Host;
use crate::node::groups::machine::GroupMachine;
use crate::node::groups::observer::Observing;
use crate::node::groups::open;
use crate::node::groups::system::SystemClient;
use crate::node::launch::StartError;
use crate::node::local::Local;
use crate::node::tasks::Tasks;
use crate::node::topology::TopologyCell;
use crate::protocol::membership::Member;
use crate::protocol::raft::Options;
use crate::protocol::raft::membership::Membership;
use crate::protocol::system::SystemState;
use crate::storage::group_log::CARRIED_RECORD_BYTES_MAX;
use crate::types::{GroupId, NodeId};

/// Ticks between heartbeats: 250 ms, so that a pair of nodes exchanges some 16 frames a second
/// however many groups they share.
const HEARTBEAT_TICKS: u64 = 5;

/// A follower stands for election after 1 to 2 seconds of silence.
const ELECTION_TICKS: u64 = 20;

/// What the entries of one append may cost.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// Appends under way to one replica.
const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// What a group's entries may cost that are not committed yet.
pub(crate) const UNCOMMITTED_BYTES_MAX: usize = 16 << 20;

/// How the rest of the node reaches its groups.
pub(crate) struct GroupHandles {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) client: Arc<GroupClient>,
    pub(crate) system: Arc<SystemClient>,
}

/// What a founder begins with.
pub(crate) struct Founder {
    pub(crate) settings: ClusterSettings,
    pub(crate) member: Member,
}

/// Opens the groups of the log. A founder that has no system group yet founds it.
///
/// # Errors
/// [`StartError`] when rows of a group cannot be read, or the settings break a rule.
pub(crate) fn begin(
    local: &Local,
    own: NodeId,
    transport: &Arc<dyn Transport>,
    topology: &Arc<TopologyCell>,
    tasks: &Arc<Tasks>,
    limits: GroupOptions,
    founder: Option<Founder>,
) -> Result<(Driver, GroupHandles), StartError> {
    let env = Arc::clone(&local.env);
    let now = env.now().0 / u64::try_from(TICK.as_micros()).unwrap_or(1);
    let record_bytes_max = limits
        .record_bytes_max
        .min(CARRIED_RECORD_BYTES_MAX)
        .min(local.wal.lock().record_bytes_max());
    let mut host =
        Host::new(options(limits.lease_reads), limits, record_bytes_max, env.random(), now);
    if let Some(observer) = env.group_observer() {
        host.observe(Observing { observer, node: own, logs: Arc::clone(&local.group_logs) });
    }
    let (opened, removed) = open::open(&local.group_logs.lock(), &local.store)
        .map_err(|error| StartError::new("cannot open the Raft groups", &error))?;
    host.write(removed);
    for beginning in opened {
        host.host(beginning);
    }
    if let Some(founder) = founder.filter(|_| host.group(GroupId::SYSTEM).is_none()) {
        found(&mut host, own, founder)?;
    }
    let gateway = Arc::new(Gateway::new(system_state(&host)));
    let client = Arc::new(GroupClient {
        own,
        env: Arc::clone(&env),
        gateway: Arc::clone(&gateway),
        transport: Arc::clone(transport),
        topology: Arc::clone(topology),
        forwards: Pending::new(env.random()),
    });
    let system = Arc::new(SystemClient::new(Arc::clone(&env), Arc::clone(&client)));
    let seams = Seams {
        own,
        incarnation: local.identity.incarnation(),
        topology: Arc::clone(topology),
        env,
        clock: Arc::clone(&local.clock),
        store: Arc::clone(&local.store),
        committer: Arc::clone(&local.committer),
        transport: Arc::clone(transport),
        health: Arc::clone(&local.health),
        meters: Arc::clone(&local.meters),
        metrics: Arc::clone(&local.metrics),
        aside: Aside::new(&local.env, tasks, &local.metrics),
    };
    let mut driver = Driver::new(seams, Arc::clone(&gateway), host);
    if let Some(state) = gateway.system() {
        driver.follow_state(&state);
    }
    Ok((driver, GroupHandles { gateway, client, system }))
}

fn options(lease_reads: bool) -> Options {
    Options {
        election_ticks: ELECTION_TICKS,
        heartbeat_ticks: HEARTBEAT_TICKS,
        append_bytes_max: APPEND_BYTES_MAX,
        appends_in_flight_max: APPENDS_IN_FLIGHT_MAX,
        uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
        lease_reads,
    }
}

fn found(host: &mut Host, own: NodeId, founder: Founder) -> Result<(), StartError> {
    let Founder { settings, member } = founder;
    let state = SystemState::found(&settings, own, member)
        .map_err(|error| StartError::new("the cluster cannot be founded", &error))?;
    let founding = state.founding_target().expect("invariant: the founder is the only member");
    let replica = *founding.voters.keys().next().expect("invariant: a founder votes");
    let membership = Membership::founding(founding.voters);
    let (beginning, records) = open::found_system(state, replica, membership);
    host.write(records);
    host.host(beginning);
    Ok(())
}

fn system_state(host: &Host) -> Option<Arc<SystemState>> {
    match &host.group(GroupId::SYSTEM)?.machine {
        GroupMachine::System(machine) => machine.state().cloned(),
        GroupMachine::Strong(_) => None,
    }
}
