//! What nothing announces, looked at every half second: snapshots to push, memberships that do not
//! follow their placement yet, leaders that sit where they should not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::node::coordinator::Owner;
use crate::node::groups::driver::Driver;
use crate::node::groups::group::Group;
use crate::node::groups::handed_over::in_turn;
use crate::node::groups::machine::GroupMachine;
use crate::node::groups::open;
use crate::protocol::group::command::{Command, Operation};
use crate::protocol::message::{Ask, Class, Forward, Message, SnapshotRefusal, SnapshotReply};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::raft::Raft;
use crate::protocol::raft::membership::{Membership, Target};
use crate::protocol::system::orders::{Move, moves_due};
use crate::protocol::system::placement::Placement;
use crate::protocol::system::voters::choose_voters;
use crate::protocol::system::{SystemCommand, SystemRequest, SystemState};
use crate::storage::wal::{GroupRecord, LogRecord};
use crate::types::{GroupId, LogIndex, NodeId, ReplicaId, Revision, Timestamp};

/// A learner that lacks no more than this many entries may become a voter.
const CATCH_UP_ENTRIES_MAX: u64 = 64;

/// Leaders that a node hands on in one round: each costs its group a moment without one.
const TRANSFERS_MAX: usize = 4;

/// Groups that are ordered to move in one round, and commands of upkeep proposed in one.
const MOVES_MAX: usize = 16;

/// How long the system group may take to take an order.
const ORDER_TIME: Duration = Duration::from_secs(2);

/// How long a session may be unused: an hour.
const SESSION_IDLE: Timestamp = Timestamp::from_wall_ms(3600 * 1000);

/// How long a node that is preferred must have been up before it is handed leaders, in rounds.
const SETTLED_ROUNDS: u32 = 6;

impl Driver {
    /// One round.
    pub(super) fn keep_house(&mut self) {
        self.push_snapshots();
        self.replace_damaged();
        self.want_snapshots();
        self.follow_placements();
        self.hand_on_what_cannot_serve();
        self.balance_leaders();
        self.order_moves();
        self.tell_followed();
        self.drop_strangers();
        self.propose_upkeep();
        self.drop_keyspaces();
        self.take_census();
    }

    /// Takes note of what the system group has decided, and hosts what it wants hosted here. It is
    /// shown once it is durable: what this node has promised by a ring, it must know after a crash.
    pub(super) fn note_system(&mut self) {
        let Some(group) = self.host.group(GroupId::SYSTEM) else { return };
        let GroupMachine::System(machine) = &group.machine else { return };
        let Some(state) = machine.state() else { return };
        let before = self.newest_system();
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, state)) {
            return;
        }
        let state = Arc::clone(state);
        // Its keyspaces are made before anyone is told of them.
        self.follow_state(&state);
        self.decided = Some(state);
    }

    /// What the system group has decided, as far as this node has applied it: what the driver
    /// itself goes by, as it hosts replicas by it.
    pub(super) fn newest_system(&self) -> Option<Arc<SystemState>> {
        self.decided.clone().or_else(|| self.gateway.system())
    }

    /// Shows what the system group had decided when the batch that is durable now was taken.
    pub(super) fn publish_system(&mut self) {
        let Some(state) = self.in_batch.take() else { return };
        self.gateway.publish_system(&state);
        if self.decided.as_ref().is_some_and(|decided| Arc::ptr_eq(decided, &state)) {
            self.decided = None;
        }
    }

    /// Hosts the replicas that the state gives this node, and no others.
    pub(crate) fn follow_state(&mut self, state: &SystemState) {
        self.make_keyspaces(state);
        let (own, life) = (self.seams.own, self.seams.incarnation);
        for (group, placement) in state.groups() {
            let wanted = state.own_replica(*group, own, life);
            let hosted = self.host.replica(*group);
            match (wanted, hosted) {
                (Some(wanted), Some(hosted)) if wanted == hosted => {}
                (Some(wanted), _) => {
                    let founders = &placement.founders;
                    let founds = founders.contains_key(&wanted);
                    let founders = if founds { founders.clone() } else { BTreeMap::new() };
                    self.begin(*group, wanted, Membership::founding(founders));
                }
                // A replica that was replaced goes on until its group has let it go: it may be
                // needed for the very majority that decides so.
                (None, _) => {}
            }
        }
    }

    /// Begins a replica that has no memory yet, in the place of any other of its group here. It
    /// takes over what the other had applied: the table holds that already, and what is committed
    /// is the same for every replica.
    pub(super) fn begin(&mut self, group: GroupId, replica: ReplicaId, membership: Membership) {
        let Some((before, answers)) = self.host.drop_group(group) else {
            return self.begin_anew(group, replica, membership);
        };
        self.answer(answers);
        self.incoming.remove(&group);
        let removed = GroupRecord::Removed { group, replica: before.replica };
        let (beginning, overlay) = before.succeeded_by(replica);
        self.host.write(vec![LogRecord::Group(removed), open::start_record(&beginning)]);
        self.host.host(beginning);
        if let Some(group) = self.host.group_mut(group) {
            group.set_overlay(overlay);
        }
    }

    fn begin_anew(&mut self, group: GroupId, replica: ReplicaId, membership: Membership) {
        match open::new_group(group, replica, membership, &self.seams.store) {
            Ok(beginning) => {
                self.host.write(vec![open::start_record(&beginning)]);
                self.host.host(beginning);
            }
            Err(error) => tracing::error!(%group, %error, "a replica cannot begin"),
        }
    }

    /// Replicas whose table is of no single moment ask their leader for a snapshot, and for another
    /// once the sender of one has fallen silent.
    fn want_snapshots(&mut self) {
        let now = self.host.now();
        let host = &self.host;
        let is_sealed = |group: &GroupId| host.group(*group).is_some_and(Group::is_sealed);
        self.incoming.retain(|group, incoming| is_sealed(group) || !incoming.is_abandoned(now));
        let idle = |group: &&Group| group.is_installing() && !self.incoming.contains_key(&group.id);
        for group in self.host.groups().filter(idle) {
            let Some(leader) = group.raft.leader() else { continue };
            let Some(node) = group.node_of(leader) else { continue };
            let reply = SnapshotReply {
                group: group.id,
                to: leader,
                from: group.replica,
                transfer: 0,
                next: 0,
                outcome: Err(SnapshotRefusal::Wanted),
            };
            // It is asked for again in the next round.
            let _lost =
                self.seams.transport.send(node, Class::Transfer, Message::SnapshotReply(reply));
        }
    }

    /// Leaders change their groups' memberships towards what the system group has decided.
    fn follow_placements(&mut self) {
        let Some(state) = self.newest_system() else { return };
        let up = self.seams.topology.load().up.clone();
        let led: Vec<GroupId> = self
            .host
            .groups()
            .filter(|group| group.raft.is_leader())
            .map(|group| group.id)
            .collect();
        for id in led {
            let Some(group) = self.host.group(id) else { continue };
            let membership = group.raft.log().membership();
            if membership.is_joint() {
                continue;
            }
            let target = match id {
                GroupId::SYSTEM => choose_voters(&state, &may_vote(group, &state, &up), membership),
                id => match state.groups().get(&id) {
                    Some(placement) => placement_target(group, placement),
                    None => continue,
                },
            };
            self.change_membership(id, &target);
        }
    }

    fn change_membership(&mut self, id: GroupId, target: &Target) {
        let Some(group) = self.host.group(id) else { return };
        let (membership, expected) =
            (group.raft.log().membership(), group.raft.log().membership_index());
        if is_reached(membership, target) {
            return;
        }
        let Some(group) = self.host.group_mut(id) else { return };
        match group.raft.propose_membership(target, expected) {
            Ok(Some(position)) => {
                let index = position.index.0;
                tracing::info!(group = %id, ?target, index, "membership changes");
            }
            Ok(None) => {}
            // It is proposed again in a later round, if it is still wanted then.
            Err(error) => tracing::debug!(group = %id, %error, "membership does not change yet"),
        }
    }

    /// Leaders have their groups placed where the ring wants them. Only a group that consists of
    /// what was ordered last is moved on: a node that is given another replica drops the one that
    /// it has, which must not vote any more by then.
    fn order_moves(&mut self) {
        let Some(state) = self.newest_system() else { return };
        let leads_any = self.host.groups().any(|group| leads_as_placed(group, &state));
        if !leads_any || self.ring_epoch_settled == Some(state.epoch()) {
            return;
        }
        let due = moves_due(&state, usize::MAX);
        if due.is_empty() {
            self.ring_epoch_settled = Some(state.epoch());
        }
        let is_ours = |due: &&Move| {
            self.host.group(due.group).is_some_and(|group| leads_as_placed(group, &state))
        };
        let ours: Vec<Move> = due.iter().filter(is_ours).take(MOVES_MAX).cloned().collect();
        for Move { group, expected_generation, nodes } in ours {
            let command = SystemCommand::PlaceGroup { group, expected_generation, nodes };
            let request = SystemRequest { request_id: self.seams.env.random(), command };
            self.ask_system(request.encode().into());
        }
    }

    /// Leaders tell the system group of groups that consist of what was ordered.
    fn tell_followed(&mut self) {
        let Some(state) = self.newest_system() else { return };
        let new = state.groups().iter().filter(|(_, placement)| !placement.is_followed());
        let groups: BTreeMap<GroupId, u64> = new
            .filter(|(id, _)| self.host.group(**id).is_some_and(|it| leads_as_placed(it, &state)))
            .map(|(id, placement)| (*id, placement.generation))
            .collect();
        if !groups.is_empty() {
            let command = SystemCommand::Followed { groups };
            let request = SystemRequest { request_id: self.seams.env.random(), command };
            self.ask_system(request.encode().into());
        }
    }

    /// Proposes a command of the system group, here or where its leader is; nobody waits for it.
    fn ask_system(&mut self, command: Bytes) {
        let group = GroupId::SYSTEM;
        match self.gateway.leader(group) {
            Some(leader) if leader != self.seams.own => {
                let (request, time_left) = (Owner::Forward.request(0), ORDER_TIME);
                let ask = Ask::Propose(command);
                let forward = Message::Forward(Forward { request, group, time_left, ask });
                // It is ordered again in a later round, if it is still wanted then.
                if let Err(error) = self.seams.transport.send(leader, Class::Client, forward) {
                    tracing::debug!(%error, "an order was not sent");
                }
            }
            _ => self.propose_quietly(group, command),
        }
    }

    /// Gives up replicas that their group has let go of.
    fn drop_strangers(&mut self) {
        let Some(state) = self.newest_system() else { return };
        let (own, life) = (self.seams.own, self.seams.incarnation);
        let is_stranger = |group: &&Group| {
            let log = group.raft.log();
            let wanted = state.own_replica(group.id, own, life) == Some(group.replica);
            let decided = log.membership_index() <= group.raft.commit();
            let known = !log.membership().voters.is_empty();
            let let_go = known && decided && !log.membership().contains(group.replica);
            // One that was cut off before it heard so learns it from the system group.
            let placement = state.groups().get(&group.id);
            let is_over = placement
                .is_some_and(|it| it.is_followed() && !it.replicas.contains_key(&group.replica));
            !wanted && (let_go || is_over)
        };
        let strangers: Vec<(GroupId, ReplicaId)> =
            self.host.groups().filter(is_stranger).map(|group| (group.id, group.replica)).collect();
        for (group, replica) in strangers {
            tracing::info!(%group, %replica, "the group has let this replica go");
            if let Some((_, answers)) = self.host.drop_group(group) {
                self.answer(answers);
            }
            self.incoming.remove(&group);
            self.host.write(vec![LogRecord::Group(GroupRecord::Removed { group, replica })]);
        }
    }

    /// Leaders end sessions that nobody has used for long, and tell their groups of keyspaces that
    /// are gone.
    fn propose_upkeep(&mut self) {
        let Some(state) = self.newest_system() else { return };
        let now = Timestamp::from_wall_ms(self.seams.clock.wall_ms());
        let idle_since = Timestamp(now.0.saturating_sub(SESSION_IDLE.0));
        let due: Vec<(GroupId, Operation)> = self
            .host
            .groups()
            .filter(|group| group.raft.is_leader())
            .filter_map(|group| Some((group.id, upkeep(group, &state, idle_since)?)))
            .take(MOVES_MAX)
            .collect();
        for (group, operation) in due {
            let command = Command { stamp: now, value_bytes_max: 0, session: None, operation };
            self.propose_quietly(group, command.encode());
        }
    }

    fn propose_quietly(&mut self, id: GroupId, command: Bytes) {
        let Some(group) = self.host.group_mut(id) else { return };
        // It is proposed again in a later round, if it is still wanted then.
        if let Err(error) = group.raft.propose(command) {
            tracing::debug!(group = %id, %error, "an order is not proposed yet");
        }
    }

    /// Whether a node has been up for a while.
    fn is_settled(&self, node: NodeId) -> bool {
        self.settled.get(&node).is_some_and(|rounds| *rounds >= SETTLED_ROUNDS)
    }

    /// Hands leaders to the first node of each preference list that has been up for a while.
    fn balance_leaders(&mut self) {
        let Some(state) = self.newest_system() else { return };
        let up = self.seams.topology.load().up.clone();
        self.settled.retain(|node, _| up.contains(node));
        for node in &up {
            let rounds = self.settled.entry(*node).or_insert(0);
            *rounds = rounds.saturating_add(1);
        }
        let mut moves: BTreeMap<GroupId, NodeId> = BTreeMap::new();
        let movable = |group: &&Group| {
            group.raft.is_leader() && !self.handed_over.holds(group.id, self.host.now())
        };
        for group in self.host.groups().filter(movable) {
            if moves.len() == TRANSFERS_MAX {
                break;
            }
            let Some(placement) = state.groups().get(&group.id) else { continue };
            let preferred = self.preferred_leader(group, placement);
            if let Some(node) = preferred.filter(|node| *node != self.seams.own) {
                moves.insert(group.id, node);
            }
        }
        for (group, node) in moves {
            if let Err(error) = self.transfer(group, node, Raft::transfer_leader) {
                tracing::debug!(%group, %node, %error, "a leader is not handed on");
            }
        }
    }

    /// A replica whose table is of no single moment can lead, but serves nothing: whoever has most
    /// of the log takes its place, and sends it a snapshot.
    fn hand_on_what_cannot_serve(&mut self) {
        let stuck = |group: &&Group| group.raft.is_leader() && group.is_installing();
        let stuck: Vec<GroupId> = self.host.groups().filter(stuck).map(|group| group.id).collect();
        for group in stuck {
            self.hand_on(group);
        }
    }

    /// Hands the lead of a group to one of those that have about all of its log and do not wait
    /// for a snapshot from here; which of them is left to chance, as it may lack rows, too.
    pub(super) fn hand_on(&mut self, id: GroupId) {
        let up = self.seams.topology.load().up.clone();
        let Some(group) = self.host.group(id) else { return };
        let membership = group.raft.log().membership();
        let may_lead = |replica: &ReplicaId| {
            *replica != group.replica
                && is_close(group, Some(*replica))
                && !self.outgoing.contains_key(&(id, *replica))
        };
        let voters = membership.voters.iter().filter(|replica| may_lead(replica));
        let heirs = voters.filter_map(|replica| membership.node(*replica));
        let heirs: Vec<NodeId> = heirs.filter(|node| up.contains(node)).collect();
        let Some(drawn) = self.seams.env.random().checked_rem(heirs.len() as u64) else { return };
        let node = heirs[drawn as usize];
        tracing::info!(group = %id, %node, "hands the lead on: rows are missing here");
        if let Err(error) = self.transfer(id, node, Raft::transfer_leader) {
            tracing::debug!(group = %id, %node, %error, "a leader is not handed on");
        }
    }

    /// The node that should lead.
    fn preferred_leader(&self, group: &Group, placement: &Placement) -> Option<NodeId> {
        let own = self.seams.own;
        in_turn(group.id, placement).find(|node| {
            let settled = self.is_settled(*node);
            let replica = placement.replica_on(*node);
            let votes = replica.is_some_and(|r| group.raft.log().membership().voters.contains(&r));
            let lacks_rows = replica.is_some_and(|r| self.outgoing.contains_key(&(group.id, r)));
            let may_lead = settled && !lacks_rows && is_close(group, replica);
            votes && (*node == own || may_lead)
        })
    }
}

/// Whether this node leads the group, and the group consists of what was ordered last, for good.
fn leads_as_placed(group: &Group, state: &SystemState) -> bool {
    let Some(placement) = state.groups().get(&group.id) else { return false };
    let log = group.raft.log();
    let membership = log.membership();
    group.raft.is_leader()
        && !membership.is_joint()
        && membership.learners.is_empty()
        && membership.voters.iter().eq(placement.replicas.keys())
        && log.membership_index() <= group.raft.commit()
}

/// What a group's leader has to propose of itself, one thing at a time.
fn upkeep(group: &Group, state: &SystemState, idle_since: Timestamp) -> Option<Operation> {
    let GroupMachine::Strong(machine) = &group.machine else { return None };
    let held = &machine.applied().dropped;
    if let Some(keyspace) = state.dropped_strong().find(|keyspace| !held.contains(keyspace)) {
        return Some(Operation::DropKeyspace { keyspace });
    }
    let oldest = machine.oldest_session_use()?;
    (oldest < Revision(idle_since.0)).then_some(Operation::ExpireSessions { idle_since })
}

/// Whether a replica has nearly all that the leader has.
fn is_close(group: &Group, replica: Option<ReplicaId>) -> bool {
    let matched = replica.and_then(|replica| group.matched(replica)).unwrap_or(LogIndex(0));
    matched.0 + CATCH_UP_ENTRIES_MAX >= group.raft.log().last_index().0 && matched > LogIndex(0)
}

/// Of the nodes that are up, those of which the system group may have a voter: whoever votes
/// already, and learners that have caught up. Of another it is not even known that it runs a
/// replica, and voters that never answer would leave the group without a majority for ever.
fn may_vote(group: &Group, state: &SystemState, up: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let may = |node: &&NodeId| {
        let replica = state.members().get(node).map(|known| known.system_replica);
        let votes = |replica| group.raft.log().membership().voters.contains(&replica);
        replica.is_none_or(votes) || is_close(group, replica) || planted(Planted::VotersUnheard)
    };
    up.iter().filter(may).copied().collect()
}

/// The next step towards a placement: replicas that are new join as learners, become voters once
/// they have caught up, and only then those that are not wanted any more go.
fn placement_target(group: &Group, placement: &Placement) -> Target {
    let membership = group.raft.log().membership();
    let is_ready = |replica: &ReplicaId| {
        membership.voters.contains(replica)
            || (membership.learners.contains(replica) && is_close(group, Some(*replica)))
    };
    let (voters, learners): (BTreeMap<_, _>, BTreeMap<_, _>) =
        placement.replicas.iter().map(|(r, n)| (*r, *n)).partition(|(r, _)| is_ready(r));
    let mut voters = voters;
    if !learners.is_empty() {
        // Until everyone wanted can vote, those who did before keep doing so.
        let before = membership.voters.iter().filter_map(|r| Some((*r, membership.node(*r)?)));
        voters.extend(before);
    }
    Target { voters, learners }
}

fn is_reached(membership: &Membership, target: &Target) -> bool {
    let voters: BTreeSet<ReplicaId> = target.voters.keys().copied().collect();
    let learners: BTreeSet<ReplicaId> = target.learners.keys().copied().collect();
    membership.voters == voters && membership.learners == learners
}
