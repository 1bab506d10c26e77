//! Once all faults have stopped: waits for the groups to become whole, has every partition serve,
//! reads every key, and looks at what every replica holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use coterie::node::groups::report::GroupStatus;
use coterie::protocol::consistency::Consistency;
use coterie::protocol::group::command::Action;
use coterie::protocol::raft::Role;
use coterie::protocol::system::SystemState;
use coterie::protocol::system::keyspace::Keyspace;
use coterie::types::{GroupId, Key, NodeId, PartitionId, ReplicaId};

use super::history::{Asked, StrongHistory, Told};
use super::keys::Keys;
use super::watch::groups;
use super::{Copy, StrongEvidence, client};
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::run::has_panicked;

/// How often the groups are looked at.
const POLL: Duration = Duration::from_millis(500);

/// How long the groups may take to become whole once the nodes are.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// How long a whole partition may take for one command.
const SERVE: Duration = Duration::from_secs(5);

/// How often a partition that did not serve is asked again.
const TRIES_MAX: usize = 6;

/// The harness's own commands carry this client number.
const JUDGE: usize = 1000;

/// How long outcomes may take to reach the tables, once nothing is asked any more.
const QUIET: Duration = Duration::from_secs(5);

/// Waits for the groups to become whole; says what is not.
pub(crate) async fn settle(cluster: &Cluster) -> Vec<String> {
    wait_for_groups(cluster, SETTLE_MAX).await
}

pub(super) async fn wait_for_groups(cluster: &Cluster, at_most: Duration) -> Vec<String> {
    let deadline = cluster.agenda.now() + at_most;
    loop {
        let lacking = lacking(cluster).await;
        if lacking.is_empty() || cluster.agenda.now() >= deadline || has_panicked() {
            return lacking;
        }
        cluster.agenda.sleep(POLL).await;
    }
}

/// What every replica on every running node says.
pub(super) async fn statuses(cluster: &Cluster) -> BTreeMap<GroupId, Vec<(NodeId, GroupStatus)>> {
    let mut all: BTreeMap<GroupId, Vec<(NodeId, GroupStatus)>> = BTreeMap::new();
    for machine in 0..cluster.shape.machines {
        let Some(session) = cluster.session(machine) else { continue };
        let node = session.node.facts().node_id;
        for status in groups(session).await {
            all.entry(status.group).or_default().push((node, status));
        }
    }
    all
}

/// What keeps groups from being whole: each is to have one leader and the replicas that the system
/// group has placed, all of which have applied all that is committed.
async fn lacking(cluster: &Cluster) -> Vec<String> {
    cluster.see_off();
    let states: Vec<_> = cluster.nodes().iter().map(|node| node.system()).collect();
    let Some(Some(state)) = states.iter().max_by_key(|s| s.as_ref().map(|s| s.epoch())) else {
        return vec!["no node has heard of the system group".to_owned()];
    };
    let mut lacking = Vec::new();
    for node in cluster.nodes() {
        let serving = node.serving();
        if !serving.ready {
            lacking.push(format!("{} does not serve: {}", node.facts().name, serving.reason));
        }
    }
    // Reap floors rise all the time, and concern no group.
    let of_groups = |it: &SystemState| {
        let keyspaces: Vec<Keyspace> = it.keyspaces().cloned().collect();
        (it.members().clone(), keyspaces, it.groups().clone(), it.placing().clone())
    };
    let decided = Some(of_groups(state));
    if states.iter().any(|other| other.as_deref().map(of_groups) != decided) {
        lacking.push("nodes differ on what the system group has decided".to_owned());
    }
    if state.groups().is_empty() {
        lacking.push("no group is placed".to_owned());
    }
    let statuses = statuses(cluster).await;
    for (group, placement) in state.groups() {
        let seen = statuses.get(group).map(Vec::as_slice).unwrap_or_default();
        lacking.extend(lacks(*group, &placement.replicas, seen));
    }
    lacking
}

/// What keeps one group from being whole.
pub(super) fn lacks(
    group: GroupId,
    placed: &BTreeMap<ReplicaId, NodeId>,
    seen: &[(NodeId, GroupStatus)],
) -> Option<String> {
    let leaders: Vec<_> = seen.iter().filter(|(_, s)| s.role == Role::Leader).collect();
    let [(_, leader)] = leaders.as_slice() else {
        return Some(format!("group {group} has {} leaders: {seen:?}", leaders.len()));
    };
    let voters: BTreeSet<ReplicaId> =
        leader.replicas.iter().filter(|(_, _, votes)| *votes).map(|(id, ..)| *id).collect();
    if voters != placed.keys().copied().collect() || leader.replicas.len() != voters.len() {
        return Some(format!("group {group} is placed as {placed:?}: {leader:?}"));
    }
    for (replica, node) in placed {
        let status = seen.iter().find(|(on, status)| on == node && status.replica == *replica);
        let Some((_, status)) = status else {
            return Some(format!("replica {replica} of group {group} does not run on {node}"));
        };
        if status.installing || status.applied != leader.commit {
            return Some(format!("group {group}: {status:?} is behind {leader:?}"));
        }
    }
    None
}

/// Has every partition serve, reads every key, and takes down what every replica holds.
pub(crate) async fn look(
    cluster: &Cluster,
    history: &StrongHistory,
    keys: Keys,
    dice: &mut Dice,
    evidence: &mut StrongEvidence,
) {
    // Where groups are not whole that is said already, and each try would take its time.
    let tries_max = if evidence.unsettled.is_empty() { TRIES_MAX } else { 1 };
    let partitions = one_key_each(cluster).into_iter();
    for (partition, key) in partitions.filter(|_| tries_max > 1) {
        let value = Bytes::from_static(b"served");
        let asked = Asked::Write(vec![(key, Action::Put(value))]);
        if let Err(told) = insist(cluster, history, asked, dice, tries_max).await {
            evidence.unserved.push(format!("partition {} takes no write: {told}", partition.0));
        }
    }
    for key in keys.places().iter().flat_map(|place| place.keys()) {
        let asked = Asked::Read(key.clone(), Consistency::Linearizable);
        if let Err(told) = insist(cluster, history, asked, dice, tries_max).await {
            evidence.unserved.push(format!("{key} cannot be read: {told}"));
        }
    }
    cluster.agenda.sleep(QUIET).await;
    // A leader may just have been handed back to its place: its followers hear within a heartbeat.
    evidence.unsettled.extend(wait_for_groups(cluster, QUIET).await);
    evidence.copies = copies(cluster, &mut evidence.unsettled).await;
    evidence.commands = history.commands();
}

/// Asks one node after another until one serves.
async fn insist(
    cluster: &Cluster,
    history: &StrongHistory,
    asked: Asked,
    dice: &mut Dice,
    tries_max: usize,
) -> Result<(), String> {
    let mut last = "no node runs".to_owned();
    for _ in 0..tries_max {
        let running = cluster.running();
        if running.is_empty() {
            break;
        }
        let machine = running[dice.index(running.len())];
        let command = history.begin(JUDGE, None, asked.clone());
        match client::ask(cluster, history, command, machine, SERVE).await {
            Some(Told::Written(..) | Told::Read(_)) => return Ok(()),
            told => last = format!("{told:?}"),
        }
        cluster.agenda.sleep(Duration::from_millis(500)).await;
    }
    Err(last)
}

/// A key of each partition, which no client uses.
fn one_key_each(cluster: &Cluster) -> BTreeMap<PartitionId, Key> {
    const KEYS_MAX: usize = 10_000;
    let mut keys = BTreeMap::new();
    let Some(node) = cluster.nodes().first().cloned() else { return keys };
    for number in 0..KEYS_MAX {
        let key = Key::from(format!("served-{number}"));
        keys.entry(node.owners(&key).partition).or_insert(key);
        if keys.len() as u64 == u64::from(cluster.shape.partitions) {
            break;
        }
    }
    keys
}

async fn copies(cluster: &Cluster, failures: &mut Vec<String>) -> Vec<Copy> {
    let mut copies = Vec::new();
    for machine in 0..cluster.shape.machines {
        let Some(session) = cluster.session(machine) else { continue };
        let node = session.node.facts().node_id;
        let placed = session.node.system();
        for status in groups(session.clone()).await {
            let (group, replica, applied) = (status.group, status.replica, status.applied);
            let placement = placed.as_ref().and_then(|state| state.groups().get(&group));
            if placement.is_none_or(|placement| !placement.replicas.contains_key(&replica)) {
                continue;
            }
            match session.node.peek_group(group) {
                Ok(rows) => copies.push(Copy { group, replica, node, applied, rows }),
                Err(error) => failures.push(format!("n{machine} holds of {group}: {error}")),
            }
        }
    }
    copies
}
