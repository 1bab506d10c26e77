//! What operators ask of the ring: plans, changes, and how far these are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::node::env::run_blocking;
use crate::node::groups::system::DECISION_TIMEOUT;
use crate::node::members::MemberError;
use crate::node::request::RequestError;
use crate::node::service::{Attached, Node};
use crate::protocol::membership::view::State;
use crate::protocol::ring::Move;
use crate::protocol::system::orders::moves_due;
use crate::protocol::system::placing::{Step, partition_ids};
use crate::protocol::system::plan::{Plan, Risk, plan, shares};
use crate::protocol::system::state::{Standing, SystemState};
use crate::protocol::system::transfers::under_way;
use crate::protocol::system::{SystemCommand, SystemReply};
use crate::storage::store::Store;
use crate::types::{Epoch, GroupId, KeyspaceId, NodeId, PartitionId, Row};

/// Partitions of which the rows are counted to estimate how many bytes a plan moves.
const SAMPLED_PARTITIONS: usize = 16;

/// Bytes of rows that are read for that.
const SAMPLED_BYTES_MAX: u64 = 64 << 20;

/// Bytes of rows read at a time.
const SAMPLE_PAGE_BYTES: usize = 1 << 20;

/// A change of the ring as an operator asks for it; nodes by id or name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingChange {
    /// Members that take a place.
    pub join: Vec<String>,
    /// Members that give theirs up.
    pub leave: Vec<String>,
    /// Members that give theirs up to another.
    pub replace: Vec<(String, String)>,
    /// Members that are gone for good.
    pub remove: Vec<String>,
    /// Whether members are removed although writes may be lost, or while they are up.
    pub force: bool,
    /// The epoch that it was planned in; another one is refused.
    pub expected_epoch: Option<Epoch>,
}

/// A change of the ring before it is decided.
#[derive(Clone, Debug, Serialize)]
pub struct PlanView {
    /// The epoch in which it would be decided.
    pub epoch: Epoch,
    /// Partitions of which owners change.
    pub partitions: usize,
    /// Copies of partitions that are made.
    pub copies: usize,
    /// Bytes that they have, as far as this node can tell from its own rows.
    pub bytes_estimated: u64,
    /// Groups of strong keyspaces that get another replica.
    pub groups: usize,
    /// Partitions that each node gains and loses.
    pub shares: Vec<ShareView>,
    /// Who gains and loses which partition.
    pub moves: Vec<MoveView>,
    /// What may be lost, keyspace by keyspace.
    pub at_risk: Vec<String>,
}

/// What a node gains and loses by a plan.
#[derive(Clone, Debug, Serialize)]
pub struct ShareView {
    /// The node.
    pub node_id: NodeId,
    /// Its human name.
    pub name: String,
    /// Partitions that it gets.
    pub gains: usize,
    /// Partitions that it gives up.
    pub loses: usize,
}

/// A partition that moves.
#[derive(Clone, Debug, Serialize)]
pub struct MoveView {
    /// The partition.
    pub partition: PartitionId,
    /// Owners that come.
    pub to: Vec<NodeId>,
    /// Owners that go.
    pub from: Vec<NodeId>,
    /// `planned`, `copying` or `serving`.
    pub step: &'static str,
    /// New owners that do not have all rows yet.
    pub waiting: Vec<NodeId>,
}

/// How far the partitions are on their way.
#[derive(Clone, Debug, Serialize)]
pub struct TransfersView {
    /// The version of the ring.
    pub epoch: Epoch,
    /// Whether every partition is where it is to be.
    pub settled: bool,
    /// Q.
    pub partitions: u32,
    /// Partitions that have not set out.
    pub unmoved: usize,
    /// Moves under way.
    pub moves: Vec<MoveView>,
    /// Groups of strong keyspaces that are not where they are to be.
    pub groups: usize,
    /// Members that take or give up a place.
    pub members: Vec<StandingView>,
    /// Bytes that the answering node has taken over since its start.
    pub bytes_taken_over: u64,
}

/// A member's standing.
#[derive(Clone, Debug, Serialize)]
pub struct StandingView {
    /// The node.
    pub node_id: NodeId,
    /// Its human name.
    pub name: String,
    /// `waiting`, `active` or `leaving`.
    pub standing: &'static str,
    /// What one that leaves still has that others need.
    pub holds: String,
}

impl Node {
    /// What a change would move.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] for nodes that there are not; [`RequestError::Rejected`] when the
    /// change would be refused; [`RequestError::NotServing`] before the node has joined.
    pub async fn plan_ring(&self, change: &RingChange) -> Result<PlanView, RequestError> {
        let attached = self.attached()?;
        let state = system_state(attached)?;
        let commands = commands(attached, change)?;
        let planned = planned(attached, &state, &commands)?;
        let store = std::sync::Arc::clone(&self.local.store);
        let sampled = sampled_partitions(attached, self.identity().node_id());
        let job = move || partition_bytes(&store, &sampled);
        let bytes = run_blocking(&*self.local.env, job).await;
        Ok(plan_view(attached, &state, planned, bytes))
    }

    /// Has a change of the ring decided; the epoch of the ring with it.
    ///
    /// # Errors
    /// As [`Node::plan_ring`]; [`RequestError::Rejected`] also when members that are up, or that
    /// hold what nobody else may have, would be removed without force.
    pub async fn change_ring(&self, change: &RingChange) -> Result<Epoch, RequestError> {
        let attached = self.attached()?;
        let state = system_state(attached)?;
        let commands = commands(attached, change)?;
        let planned = planned(attached, &state, &commands)?;
        if !change.force {
            check_removals(attached, &commands, &planned)?;
        }
        let mut epoch = state.epoch();
        for command in commands {
            epoch = match attached.groups.system.propose(command).await? {
                SystemReply::Reshaped { epoch } | SystemReply::Removed { epoch } => epoch,
                _ => epoch,
            };
        }
        self.hear_of(attached, epoch).await;
        Ok(epoch)
    }

    /// Waits for a while until this node has heard of a decision: whoever asks it then how far that
    /// is sees it.
    async fn hear_of(&self, attached: &Attached, epoch: Epoch) {
        let mut states = attached.groups.gateway.follow_system();
        let heard = async {
            loop {
                states.borrow_and_update();
                let state = attached.groups.gateway.system();
                if state.is_none_or(|state| state.epoch() >= epoch)
                    || states.changed().await.is_err()
                {
                    return;
                }
            }
        };
        tokio::select! { biased;
            () = heard => {}
            () = self.local.env.sleep_until(self.local.env.now() + DECISION_TIMEOUT) => {}
        }
    }

    /// A node that has just joined is ready once its place on the ring is filled, so that it is not
    /// sent more work than it can share. It is asked only until that is so for the first time.
    pub(crate) fn waits_for_partitions(&self, attached: &Attached) -> Option<String> {
        let Some(state) = attached.groups.gateway.system() else {
            return Some("the system group has not told it where partitions lie".to_owned());
        };
        let own = self.identity().node_id();
        let known = state.members().get(&own);
        if known.is_none() && attached.joins.load(Ordering::Relaxed) {
            return Some("it asks to become a member".to_owned());
        }
        let takes_place = known.is_some_and(|own| own.standing == Standing::Active);
        let waits = takes_place && !state.placing().is_settled();
        if waits && attached.joins.load(Ordering::Relaxed) {
            let left = state.placing().unsettled(state.partitions());
            return Some(format!("{left} partitions are on their way to where they are to lie"));
        }
        attached.joins.store(false, Ordering::Relaxed);
        None
    }

    /// How far the partitions are on their way, as far as this node has heard.
    ///
    /// # Errors
    /// [`RequestError::NotServing`] before the node has joined.
    pub fn transfers(&self) -> Result<TransfersView, RequestError> {
        let attached = self.attached()?;
        let state = system_state(attached)?;
        let moves = under_way(&state).into_iter().map(|(change, moving)| {
            let (step, waiting) = match &moving.step {
                Step::Copying { waiting } => ("copying", waiting.iter().copied().collect()),
                Step::Serving { .. } => ("serving", Vec::new()),
            };
            let Move { partition, gained: to, lost: from } = change;
            MoveView { partition, to, from, step, waiting }
        });
        let members = state.members().iter();
        Ok(TransfersView {
            epoch: state.epoch(),
            settled: state.placing().is_settled(),
            partitions: state.partitions(),
            unmoved: state.placing().unmoved(state.partitions()).count(),
            moves: moves.collect(),
            groups: groups_on_their_way(&state),
            members: members
                .filter(|(_, known)| known.standing != Standing::Active)
                .map(|(node, known)| StandingView {
                    node_id: *node,
                    name: known.member.name.clone(),
                    standing: known.standing.name(),
                    holds: held(attached, &state, *node),
                })
                .collect(),
            bytes_taken_over: self.metrics().transfer_bytes.get(),
        })
    }
}

/// What a member still has that keeps it from going, as far as this node knows.
fn held(attached: &Attached, state: &SystemState, node: NodeId) -> String {
    let standing = state.members().get(&node).map(|known| known.standing);
    match state.needs(node) {
        Some(needed) => needed,
        None if standing != Some(Standing::Leaving) => String::new(),
        None => farewell(attached, state.epoch()),
    }
}

/// Why a member that nothing lies on has not gone yet.
fn farewell(attached: &Attached, epoch: Epoch) -> String {
    let set = attached.members.set();
    let name = |node| set.get(node).map_or_else(|| node.to_string(), |it| it.name.clone());
    let reports = attached.members.reports();
    let unheard = reports.into_iter().filter(|(_, it)| it.up && it.epoch < epoch);
    let unheard: Vec<String> = unheard.map(|(node, _)| name(node)).collect();
    match unheard.is_empty() {
        true => "hints to deliver, a vote of the system group, or requests under way".to_owned(),
        false => format!("{} may not have heard that nothing lies on it", unheard.join(", ")),
    }
}

/// Groups that are to be placed elsewhere, or have not followed where they were placed.
fn groups_on_their_way(state: &SystemState) -> usize {
    let due: BTreeSet<GroupId> =
        moves_due(state, usize::MAX).into_iter().map(|due| due.group).collect();
    let groups = state.groups().iter();
    groups.filter(|(id, placement)| !placement.is_followed() || due.contains(*id)).count()
}

fn system_state(attached: &Attached) -> Result<std::sync::Arc<SystemState>, RequestError> {
    let reason = || "the system group has not told it where partitions lie".to_owned();
    attached.groups.gateway.system().ok_or_else(|| RequestError::NotServing { reason: reason() })
}

/// What the system group is asked for: places first, removals then, so that what a dead node held
/// goes where it is to go at once.
fn commands(attached: &Attached, change: &RingChange) -> Result<Vec<SystemCommand>, RequestError> {
    let find = |field: &'static str, node: &String| {
        let found = attached.members.find(node);
        found.map_err(|error| RequestError::Invalid { field, problem: error.to_string() })
    };
    let all = |field, nodes: &[String]| -> Result<BTreeSet<NodeId>, RequestError> {
        nodes.iter().map(|node| find(field, node)).collect()
    };
    let replace: Result<BTreeMap<NodeId, NodeId>, RequestError> = (change.replace.iter())
        .map(|(old, new)| Ok((find("replace", old)?, find("replace", new)?)))
        .collect();
    let (join, leave) = (all("join", &change.join)?, all("leave", &change.leave)?);
    let (replace, expected_epoch) = (replace?, change.expected_epoch);
    let mut commands = Vec::new();
    if !(join.is_empty() && leave.is_empty() && replace.is_empty()) {
        commands.push(SystemCommand::Reshape { join, leave, replace, expected_epoch });
    }
    for node in all("remove", &change.remove)? {
        commands.push(SystemCommand::Remove { node, expected_epoch: None });
    }
    Ok(commands)
}

fn planned(
    attached: &Attached,
    state: &SystemState,
    commands: &[SystemCommand],
) -> Result<Plan, RequestError> {
    let up = attached.topology.load().up.clone();
    let rejected = |refusal: crate::protocol::system::SystemRefusal| RequestError::Rejected {
        reason: refusal.to_string(),
    };
    plan(state, commands, &up).map_err(rejected)
}

fn check_removals(
    attached: &Attached,
    commands: &[SystemCommand],
    planned: &Plan,
) -> Result<(), RequestError> {
    let removed = commands.iter().filter_map(|command| match command {
        SystemCommand::Remove { node, .. } => Some(*node),
        _ => None,
    });
    let mut any = false;
    for node in removed {
        any = true;
        if attached.members.state(node) == State::Up {
            return Err(RequestError::Invalid {
                field: "remove",
                problem: MemberError::Up { node }.to_string(),
            });
        }
    }
    if any && !planned.at_risk.is_empty() {
        let risks: Vec<String> = planned.at_risk.iter().map(risk_text).collect();
        let reason = format!("acknowledged writes may be lost: {}; force it", risks.join("; "));
        return Err(RequestError::Rejected { reason });
    }
    Ok(())
}

fn risk_text(risk: &Risk) -> String {
    let Risk { keyspace, thinned, lost } = risk;
    format!(
        "keyspace {keyspace}: {lost} partitions have no owner left, {thinned} have fewer than a \
         write quorum can do without"
    )
}

fn plan_view(
    attached: &Attached,
    state: &SystemState,
    planned: Plan,
    partition_bytes: u64,
) -> PlanView {
    let set = attached.members.set();
    let name = |node: NodeId| set.get(node).map(|member| member.name.clone()).unwrap_or_default();
    let share = |(node, (gains, loses)): (NodeId, (usize, usize))| ShareView {
        node_id: node,
        name: name(node),
        gains,
        loses,
    };
    let copies: usize = planned.moves.iter().map(|it| it.gained.len()).sum();
    PlanView {
        epoch: state.epoch(),
        partitions: planned.moves.len(),
        copies,
        bytes_estimated: partition_bytes.saturating_mul(copies as u64),
        groups: planned.groups,
        shares: shares(&planned.moves).into_iter().map(share).collect(),
        at_risk: planned.at_risk.iter().map(risk_text).collect(),
        moves: (planned.moves.into_iter())
            .map(|it| MoveView {
                partition: it.partition,
                to: it.gained,
                from: it.lost,
                step: "planned",
                waiting: Vec::new(),
            })
            .collect(),
    }
}

/// Some partitions that lie on this node, of each leaderless keyspace.
fn sampled_partitions(attached: &Attached, own: NodeId) -> Vec<(PartitionId, Vec<KeyspaceId>)> {
    let topology = attached.topology.load();
    let all = partition_ids(topology.ring.partitions());
    let owned = all.filter_map(|partition| {
        let placements = topology.placements();
        let here = placements
            .filter(|(_, it)| it.read_ring(partition).primaries(partition).contains(&own));
        let keyspaces: Vec<KeyspaceId> = here.map(|(keyspace, _)| keyspace).collect();
        (!keyspaces.is_empty()).then_some((partition, keyspaces))
    });
    owned.take(SAMPLED_PARTITIONS).collect()
}

/// Bytes of the rows of a partition, on average.
fn partition_bytes(store: &Store, sampled: &[(PartitionId, Vec<KeyspaceId>)]) -> u64 {
    let (mut bytes, mut whole) = (0, 0);
    for (partition, keyspaces) in sampled {
        if bytes >= SAMPLED_BYTES_MAX {
            break;
        }
        bytes += keyspaces.iter().map(|it| place_bytes(store, *it, *partition)).sum::<u64>();
        whole += 1;
    }
    bytes.checked_div(whole).unwrap_or(0)
}

fn place_bytes(store: &Store, keyspace: KeyspaceId, partition: PartitionId) -> u64 {
    let (mut bytes, mut after) = (0, None);
    // Rows that cannot be read are not counted: it is an estimate.
    while let Ok(page) = store.scan(keyspace, partition, after.as_ref(), SAMPLE_PAGE_BYTES) {
        after = page.rows.last().map(|(key, _)| key.clone());
        let cost = |(key, record)| Row { keyspace, key, record }.cost_bytes() as u64;
        bytes += page.rows.into_iter().map(cost).sum::<u64>();
        if page.done || bytes >= SAMPLED_BYTES_MAX {
            break;
        }
    }
    bytes
}
