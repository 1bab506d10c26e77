//! Which connections stand, and when each end learns that one is gone or made anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coterie::types::NodeId;

use super::{Event, Network, State};

/// How long a node takes to connect to a peer, in milliseconds.
const CONNECT_MS: (u64, u64) = (10, 300);

/// How long the end of a peer's process stays unnoticed: its machine closes the connections.
const RESET_MS: (u64, u64) = (1, 40);

/// How long silence stays unnoticed: keep-alives have to go unanswered.
const SILENCE_MS: (u64, u64) = (500, 4000);

/// A connection, as both of its ends name it. It is whole while both ends know the same one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Connection(u64);

impl State {
    pub(super) fn can_talk(&self, a: usize, b: usize) -> bool {
        let up = |machine: usize| {
            let station = &self.stations[machine];
            station.running.is_some() && !station.paused
        };
        up(a) && up(b) && !self.blocked.contains(&(a, b)) && !self.blocked.contains(&(b, a))
    }

    /// The machine that a life of a machine is connected to by a node's id.
    pub(super) fn connected(&self, machine: usize, life: u64, to: NodeId) -> Option<usize> {
        let target = self.stations.iter().position(|station| station.node_id == Some(to))?;
        let current = self.stations[machine].life == life;
        (current && self.ends.contains_key(&(machine, target))).then_some(target)
    }

    /// Whether one of two machines wants a connection to the other.
    fn wanted(&self, a: usize, b: usize) -> bool {
        let wants = |from: usize, to: usize| {
            let running = self.stations[from].running.as_ref();
            let peer = self.stations[to].node_id;
            running.zip(peer).is_some_and(|(running, peer)| running.peers.contains(&peer))
        };
        wants(a, b) || wants(b, a)
    }

    fn should_stand(&self, a: usize, b: usize) -> bool {
        self.can_talk(a, b) && self.wanted(a, b)
    }

    /// True when the other end has closed the connection, or ended with its process.
    fn is_half(&self, (a, b): (usize, usize)) -> bool {
        self.ends.get(&(a, b)) != self.ends.get(&(b, a))
    }

    fn is_broken(&self, end: (usize, usize)) -> bool {
        let stands = self.ends.contains_key(&end);
        stands && (self.is_half(end) || !self.should_stand(end.0, end.1))
    }

    fn break_unnoticed_ms(&mut self, end: (usize, usize)) -> u64 {
        let hears = !self.blocked.contains(&(end.1, end.0));
        let (low, high) = if self.is_half(end) && hears { RESET_MS } else { SILENCE_MS };
        self.dice.between(low, high)
    }

    /// What has to be looked at later: ends to be told of a break, pairs to be connected.
    fn due(&mut self) -> Vec<((usize, usize), Duration)> {
        let machines = self.stations.len();
        let pairs: Vec<(usize, usize)> =
            (0..machines).flat_map(|a| (0..machines).map(move |b| (a, b))).collect();
        let mut due = Vec::new();
        for pair in pairs.into_iter().filter(|(a, b)| a != b) {
            if self.pending.contains(&pair) {
                continue;
            }
            if self.is_broken(pair) {
                due.push((pair, Duration::from_millis(self.break_unnoticed_ms(pair))));
            } else if pair.0 < pair.1 && self.may_connect(pair) {
                let (low, high) = CONNECT_MS;
                due.push((pair, Duration::from_millis(self.dice.between(low, high))));
            }
        }
        self.pending.extend(due.iter().map(|(pair, _)| *pair));
        due
    }

    fn may_connect(&self, (a, b): (usize, usize)) -> bool {
        let free = !self.ends.contains_key(&(a, b)) && !self.ends.contains_key(&(b, a));
        free && self.should_stand(a, b)
    }

    fn connect(&mut self, (a, b): (usize, usize)) {
        self.connections += 1;
        self.ends.insert((a, b), Connection(self.connections));
        self.ends.insert((b, a), Connection(self.connections));
    }
}

impl Network {
    pub(super) fn set_peers(self: &Arc<Self>, machine: usize, life: u64, peers: BTreeSet<NodeId>) {
        let mut state = self.state.lock();
        let station = &mut state.stations[machine];
        if station.life != life {
            return;
        }
        if let Some(running) = &mut station.running {
            running.peers = peers;
        }
        drop(state);
        self.review();
    }

    /// Looks at every pair after something has changed.
    pub(super) fn review(self: &Arc<Self>) {
        let due = self.state.lock().due();
        for (pair, delay) in due {
            let network = self.clone();
            self.agenda.after(delay, move || network.settle(pair));
        }
    }

    /// Tells an end that its connection broke, or makes one, if that is still how things are.
    fn settle(self: &Arc<Self>, (a, b): (usize, usize)) {
        let mut state = self.state.lock();
        state.pending.remove(&(a, b));
        let names = (state.stations[a].node_id, state.stations[b].node_id);
        let (Some(name_a), Some(name_b)) = names else { return };
        let mut events = Vec::new();
        if state.is_broken((a, b)) {
            state.ends.remove(&(a, b));
            events.push((a, Event::Disconnected { peer: name_b }));
        } else if a < b && state.may_connect((a, b)) {
            state.connect((a, b));
            events.push((a, Event::Connected { peer: name_b }));
            events.push((b, Event::Connected { peer: name_a }));
        }
        drop(state);
        for (machine, event) in events {
            let told = matches!(event, Event::Connected { .. });
            self.note(format_args!("{a} - {b} connected={told} known to {machine}"));
            self.perform(machine, event);
        }
        self.review();
    }
}
