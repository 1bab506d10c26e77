//! Who is reachable, as this node sees it: what gossip hears of the members becomes a status.
//!
//! The view guides effort only: whom to ask first, whom to hint for, what to report. It never
//! decides who owns data; the member set does.
//!
//! Invariants: this node is always up in its own view; a forgotten node has no status any more,
//! whatever gossip still hears of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::membership::MemberSet;
use crate::types::{Incarnation, Moment, NodeId};

/// A node's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Heard and alive.
    Up,
    /// Was up, and is not heard any more or heard to be dead.
    Down {
        /// When that was noticed.
        since: Moment,
    },
    /// Known from others or an earlier run, not heard alive since this node started.
    Unseen,
}

impl State {
    /// The status in one word, as interfaces show it.
    pub fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Down { .. } => "down",
            State::Unseen => "unseen",
        }
    }
}

/// What gossip says of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The node.
    pub node: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
    /// Whether the failure detector believes that it lives.
    pub alive: bool,
}

/// A change of a node's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was down, unseen or unknown.
    CameUp(NodeId),
    /// It was up.
    WentDown(NodeId),
    /// It was and is up, but with a new data directory: what it held may be gone.
    Restarted(NodeId),
}

/// The status of every node but the forgotten.
#[derive(Clone, Debug)]
pub struct ClusterView {
    own: NodeId,
    peers: BTreeMap<NodeId, Peer>,
    forgotten: BTreeSet<NodeId>,
}

impl ClusterView {
    /// The view of a node that knows nobody but itself.
    pub fn new(own: NodeId, _now: Moment) -> Self {
        ClusterView { own, peers: BTreeMap::new(), forgotten: BTreeSet::new() }
    }

    /// Takes up new members as unseen and drops those forgotten. A node that gossip has shown
    /// before it became a member keeps its status.
    pub fn on_members(&mut self, members: &MemberSet, now: Moment) {
        self.forgotten = members.forgotten().clone();
        self.peers.retain(|node, _| !members.is_forgotten(*node));
        for (node, _) in members.iter().filter(|(node, _)| *node != self.own) {
            self.peers.entry(node).or_insert(Peer::Unseen { known_since: now });
        }
    }

    /// Takes the complete present picture of gossip: a node that was up and is missing from it is
    /// down. The changes are sorted by node.
    ///
    /// Of several entries for one node the first that is alive counts.
    pub fn on_heard(&mut self, heard: &[Heard], now: Moment) -> Vec<Change> {
        let mut alive = BTreeMap::new();
        for one in heard.iter().filter(|one| one.alive && self.is_tracked(one.node)) {
            alive.entry(one.node).or_insert(one.incarnation);
        }
        let known = self.peers.keys().copied();
        let nodes: BTreeSet<NodeId> = known.chain(alive.keys().copied()).collect();
        (nodes.into_iter())
            .filter_map(|node| match alive.get(&node) {
                Some(incarnation) => self.on_alive(node, *incarnation),
                None => self.on_silent(node, now),
            })
            .collect()
    }

    /// A node's status; unseen for one that is not known at all.
    pub fn state(&self, node: NodeId) -> State {
        if node == self.own {
            return State::Up;
        }
        match self.peers.get(&node) {
            Some(Peer::Up { .. }) => State::Up,
            Some(Peer::Down { since }) => State::Down { since: *since },
            Some(Peer::Unseen { .. }) | None => State::Unseen,
        }
    }

    /// Whether the node is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.state(node) == State::Up
    }

    /// Since when the node cannot be reached: since it went down, or since it was first known
    /// here when it is unseen. `None` when it is up or not known.
    pub fn down_since(&self, node: NodeId) -> Option<Moment> {
        match self.peers.get(&node)? {
            Peer::Up { .. } => None,
            Peer::Down { since: moment } | Peer::Unseen { known_since: moment } => Some(*moment),
        }
    }

    /// How many nodes are up, this one included.
    pub fn up_count(&self) -> usize {
        let peers_up = self.peers.values().filter(|peer| matches!(peer, Peer::Up { .. })).count();
        peers_up + 1
    }

    fn is_tracked(&self, node: NodeId) -> bool {
        node != self.own && !self.forgotten.contains(&node)
    }

    fn on_alive(&mut self, node: NodeId, incarnation: Incarnation) -> Option<Change> {
        match self.peers.insert(node, Peer::Up { incarnation }) {
            Some(Peer::Up { incarnation: before }) if before == incarnation => None,
            Some(Peer::Up { .. }) => Some(Change::Restarted(node)),
            _ => Some(Change::CameUp(node)),
        }
    }

    fn on_silent(&mut self, node: NodeId, now: Moment) -> Option<Change> {
        let peer = self.peers.get_mut(&node).filter(|peer| matches!(peer, Peer::Up { .. }))?;
        *peer = Peer::Down { since: now };
        Some(Change::WentDown(node))
    }
}

#[derive(Clone, Copy, Debug)]
enum Peer {
    Up { incarnation: Incarnation },
    Down { since: Moment },
    Unseen { known_since: Moment },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::membership::tests::member;

    const OWN: NodeId = NodeId(1);
    const PEER: NodeId = NodeId(2);

    fn heard(node: NodeId, life: u64, alive: bool) -> Heard {
        Heard { node, incarnation: Incarnation(life), alive }
    }

    fn set_of(nodes: &[NodeId]) -> MemberSet {
        let mut set = MemberSet::new();
        for node in nodes {
            set.describe(*node, member(1));
        }
        set
    }

    fn view_of(nodes: &[NodeId]) -> ClusterView {
        let mut view = ClusterView::new(OWN, Moment(0));
        view.on_members(&set_of(nodes), Moment(10));
        view
    }

    #[test]
    fn this_node_is_up_whatever_gossip_says() {
        let mut view = view_of(&[OWN]);
        assert_eq!(view.on_heard(&[heard(OWN, 1, false)], Moment(20)), []);
        assert_eq!((view.state(OWN), view.up_count()), (State::Up, 1));
        assert_eq!(view.down_since(OWN), None);
    }

    #[test]
    fn a_known_member_is_unseen_until_heard_alive() {
        let mut view = view_of(&[OWN, PEER]);
        assert_eq!(view.on_heard(&[heard(PEER, 1, false)], Moment(20)), []);
        assert_eq!((view.state(PEER), view.down_since(PEER)), (State::Unseen, Some(Moment(10))));
        view.on_members(&set_of(&[OWN, PEER]), Moment(25));
        assert_eq!(view.down_since(PEER), Some(Moment(10)));
        assert_eq!(view.on_heard(&[heard(PEER, 1, true)], Moment(30)), [Change::CameUp(PEER)]);
        assert_eq!((view.is_up(PEER), view.down_since(PEER), view.up_count()), (true, None, 2));
    }

    #[test]
    fn silence_and_death_both_bring_a_node_down_once() {
        for picture in [vec![], vec![heard(PEER, 1, false)]] {
            let mut view = view_of(&[OWN, PEER]);
            view.on_heard(&[heard(PEER, 1, true)], Moment(20));
            assert_eq!(view.on_heard(&picture, Moment(30)), [Change::WentDown(PEER)]);
            assert_eq!(view.on_heard(&picture, Moment(40)), []);
            assert_eq!(view.state(PEER), State::Down { since: Moment(30) });
            assert_eq!(view.down_since(PEER), Some(Moment(30)));
        }
    }

    #[test]
    fn a_new_incarnation_is_a_restart_only_while_up() {
        let mut view = view_of(&[OWN, PEER]);
        view.on_heard(&[heard(PEER, 1, true)], Moment(20));
        assert_eq!(view.on_heard(&[heard(PEER, 1, true)], Moment(25)), []);
        assert_eq!(view.on_heard(&[heard(PEER, 2, true)], Moment(30)), [Change::Restarted(PEER)]);
        view.on_heard(&[], Moment(40));
        assert_eq!(view.on_heard(&[heard(PEER, 3, true)], Moment(50)), [Change::CameUp(PEER)]);
    }

    #[test]
    fn the_living_of_two_generations_counts() {
        let mut view = view_of(&[OWN, PEER]);
        let picture = [heard(PEER, 1, false), heard(PEER, 2, true), heard(PEER, 3, true)];
        assert_eq!(view.on_heard(&picture, Moment(20)), [Change::CameUp(PEER)]);
        assert_eq!(view.on_heard(&picture, Moment(30)), []);
    }

    #[test]
    fn a_node_may_be_heard_before_it_is_a_member() {
        let mut view = view_of(&[OWN]);
        assert_eq!((view.state(PEER), view.down_since(PEER)), (State::Unseen, None));
        assert_eq!(view.on_heard(&[heard(PEER, 1, true)], Moment(20)), [Change::CameUp(PEER)]);
        view.on_members(&set_of(&[OWN, PEER]), Moment(30));
        assert!(view.is_up(PEER));
    }

    #[test]
    fn a_forgotten_node_stays_away_though_gossip_still_hears_it() {
        let mut view = view_of(&[OWN, PEER]);
        view.on_heard(&[heard(PEER, 1, true)], Moment(20));
        let mut members = set_of(&[OWN, PEER]);
        members.forget(PEER);
        view.on_members(&members, Moment(30));
        assert_eq!(view.on_heard(&[heard(PEER, 1, true)], Moment(40)), []);
        assert_eq!((view.is_up(PEER), view.up_count(), view.down_since(PEER)), (false, 1, None));
    }

    #[test]
    fn states_have_the_names_that_interfaces_show() {
        let states = [State::Up, State::Down { since: Moment(1) }, State::Unseen];
        assert_eq!(states.map(State::name), ["up", "down", "unseen"]);
    }
}
