//! Which node to ask: who leads the key's partition, else any in turn.
//!
//! What is known comes from answers alone: a node's members, the leaders that receipts and errors
//! name, and which nodes did not answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::error::Outcome;
use crate::client::heard::{Heard, Witness};
use crate::client::retry::Patience;
use crate::protocol::ring::Partitioning;
use crate::types::PartitionId;

/// How long a node is asked last that did not answer, at first; doubled each time.
const REST: Duration = Duration::from_millis(500);
/// How often that is doubled.
const REST_DOUBLINGS_MAX: u32 = 6;
/// How old what is known of the members may be.
const MEMBERS_AGE_MAX: Duration = Duration::from_secs(30);
/// How old it must be before a node that did not answer is reason to ask again.
const MEMBERS_AGE_MIN: Duration = Duration::from_secs(2);
/// Nodes that are remembered: far more than a cluster has.
const NODES_MAX: usize = 1024;

/// A node that may be asked.
#[derive(Clone, Debug)]
struct Node {
    address: Arc<str>,
    /// Its id, once it is known.
    id: Option<Arc<str>>,
    /// Whether the client was given it, so that it stays.
    given: bool,
    /// Failures since it last answered.
    failures: u32,
    rests_until: Option<Instant>,
}

impl Node {
    fn new(address: Arc<str>, id: Option<Arc<str>>, given: bool) -> Node {
        Node { address, id, given, failures: 0, rests_until: None }
    }

    fn is_named(&self, name: &str) -> bool {
        *self.address == *name || self.id.as_deref() == Some(name)
    }
}

/// A member as a node tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) address: String,
}

/// What one node tells of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The node's own id.
    pub(crate) id: String,
    pub(crate) members: Vec<Member>,
    /// Q; 0 while the node has no ring.
    pub(crate) partitions: u32,
}

/// What is known of the nodes.
#[derive(Debug)]
pub(crate) struct Routing {
    /// At least one.
    nodes: Vec<Node>,
    /// Strict: no more nodes than were given, and in their order.
    patience: Patience,
    /// Counts choices, so that nodes take turns.
    turn: usize,
    /// Leaders by address or id; at most as many as there are partitions.
    leaders: BTreeMap<PartitionId, Arc<str>>,
    partitioning: Option<Partitioning>,
    learned: Option<Instant>,
    /// Whether an answer gave reason to ask for the members again.
    in_doubt: bool,
}

impl Routing {
    /// With the nodes that the client was given, at least one.
    pub(crate) fn new(given: impl IntoIterator<Item = String>, patience: Patience) -> Routing {
        let nodes = given.into_iter().map(|address| Node::new(address.into(), None, true));
        Routing {
            nodes: nodes.collect(),
            patience,
            turn: 0,
            leaders: BTreeMap::new(),
            partitioning: None,
            learned: None,
            in_doubt: false,
        }
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn partitioning(&self) -> Option<Partitioning> {
        self.partitioning
    }

    /// Whether it is time to ask for the members.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let Some(learned) = self.learned.filter(|_| self.partitioning.is_some()) else {
            return true;
        };
        let age = now.saturating_duration_since(learned);
        age > if self.in_doubt { MEMBERS_AGE_MIN } else { MEMBERS_AGE_MAX }
    }

    /// Somebody asks for the members now; nobody else needs to.
    pub(crate) fn put_off(&mut self, now: Instant) {
        self.learned = Some(now);
        self.in_doubt = false;
    }

    /// The node to ask for a key of this partition, or for anything.
    ///
    /// `asked` says how often this call has asked whom: the leader is asked in any case, of the
    /// others those that do not rest and were asked least.
    pub(crate) fn choose(
        &mut self,
        partition: Option<PartitionId>,
        asked: &BTreeMap<Arc<str>, u32>,
        now: Instant,
    ) -> Arc<str> {
        let rests = |node: &Node| node.rests_until.is_some_and(|until| until > now);
        let leader = partition.and_then(|partition| self.leader(partition));
        if let Some(leader) = leader.filter(|leader| !rests(leader)) {
            return leader.address.clone();
        }
        if self.patience == Patience::Lasting {
            self.turn = self.turn.wrapping_add(1);
        }
        let (turn, count) = (self.turn, self.nodes.len());
        let distance = |at: usize| (at + count - turn % count) % count;
        let times = |node: &Node| asked.get(&node.address).copied().unwrap_or(0);
        let best = self.nodes.iter().enumerate();
        let best = best.min_by_key(|(at, node)| (rests(node), times(node), distance(*at)));
        best.expect("invariant: a client is given at least one node").1.address.clone()
    }

    fn leader(&self, partition: PartitionId) -> Option<&Node> {
        let name = self.leaders.get(&partition)?;
        self.nodes.iter().find(|node| node.is_named(name))
    }

    /// Takes what a node tells of the cluster.
    pub(crate) fn learn(&mut self, from: &str, view: &View, now: Instant) {
        self.put_off(now);
        match Partitioning::new(view.partitions) {
            Ok(partitioning) => self.partitioning = Some(partitioning),
            // It has not joined its cluster yet; another may have.
            Err(_none) => self.let_rest(from, now),
        }
        if let Some(node) = self.nodes.iter_mut().find(|node| *node.address == *from) {
            node.id = Some(view.id.as_str().into());
        }
        let ids: Vec<&str> = view.members.iter().map(|member| member.id.as_str()).collect();
        let stays = |node: &Node| {
            node.given
                || *node.address == *from
                || node.id.as_deref().is_some_and(|id| ids.contains(&id))
        };
        self.nodes.retain(stays);
        view.members.iter().for_each(|member| self.learn_member(member));
    }

    fn learn_member(&mut self, member: &Member) {
        let id: Arc<str> = member.id.as_str().into();
        let known = |node: &&mut Node| node.is_named(&member.address) || node.is_named(&member.id);
        match self.nodes.iter_mut().find(known) {
            Some(node) => {
                node.id = Some(id);
                if !node.given && is_usable(&member.address) {
                    node.address = member.address.as_str().into();
                }
            }
            None => self.add(&member.address, Some(id)),
        }
    }

    fn add(&mut self, address: &str, id: Option<Arc<str>>) {
        let may_grow = self.patience == Patience::Lasting && self.nodes.len() < NODES_MAX;
        if is_usable(address) && may_grow {
            self.nodes.push(Node::new(address.into(), id, false));
        }
    }

    /// Takes an answer: the node is well, and may have named the leader, by address or id.
    pub(crate) fn answered(
        &mut self,
        address: &str,
        partition: Option<PartitionId>,
        leader: Option<&str>,
    ) {
        if let Some(node) = self.nodes.iter_mut().find(|node| *node.address == *address) {
            (node.failures, node.rests_until) = (0, None);
        }
        if let (Some(partition), Some(leader)) = (partition, leader) {
            self.note_leader(partition, leader);
        }
    }

    /// Takes a failed attempt.
    pub(crate) fn failed(
        &mut self,
        address: &str,
        partition: Option<PartitionId>,
        heard: &Heard,
        now: Instant,
    ) {
        if heard.witness == Witness::Node && heard.word != "not_serving" {
            self.answered(address, None, None);
        } else {
            self.let_rest(address, now);
        }
        let Some(partition) = partition else { return };
        let was_leader = self.leader(partition).is_some_and(|node| *node.address == *address);
        if was_leader && heard.outcome != Some(Outcome::Failed) {
            self.leaders.remove(&partition);
        }
        if let Some(leader) = &heard.leader {
            self.note_leader(partition, leader);
        }
    }

    fn let_rest(&mut self, address: &str, now: Instant) {
        self.in_doubt = true;
        if let Some(node) = self.nodes.iter_mut().find(|node| *node.address == *address) {
            node.rests_until = Some(now + REST * (1 << node.failures.min(REST_DOUBLINGS_MAX)));
            node.failures = node.failures.saturating_add(1);
        }
    }

    fn note_leader(&mut self, partition: PartitionId, leader: &str) {
        if !self.nodes.iter().any(|node| node.is_named(leader)) {
            self.in_doubt = true;
            self.add(leader, None);
        }
        if self.leaders.get(&partition).is_none_or(|known| **known != *leader) {
            self.leaders.insert(partition, leader.into());
        }
    }
}

/// Whether clients can connect to an address that a member is said to have.
fn is_usable(address: &str) -> bool {
    let parsed: Result<SocketAddr, _> = address.parse();
    parsed.is_ok_and(|address| !address.ip().is_unspecified() && address.port() != 0)
}

#[cfg(test)]
mod tests;
