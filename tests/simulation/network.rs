//! A message network with bad weather.
//!
//! Every pair of machines has at most one connection, as in production. What breaks it is learnt
//! later and separately at each end; until then messages vanish, afterwards `send` refuses. While
//! it stands, messages may be delayed, and as the weather has it lost, repeated or reordered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coterie::net::transport::{Inbox, SendError, Transport};
use coterie::protocol::message::{Class, Message};
use coterie::types::{Moment, NodeId};
use parking_lot::Mutex;

use crate::agenda::Agenda;
use crate::dice::Dice;
use crate::planted::Planted;
use crate::trace::Trace;

mod connections;
#[cfg(test)]
mod tests;

use connections::Connection;

/// How the network behaves as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Messages lost, in a thousandth.
    pub(crate) loss_per_mille: u64,
    /// Messages that arrive twice, in a thousandth.
    pub(crate) repeat_per_mille: u64,
    /// Sends refused because a queue is full, in a thousandth.
    pub(crate) congestion_per_mille: u64,
    /// The longest delay of a message, in milliseconds.
    pub(crate) delay_ms_max: u64,
    /// Whether messages may overtake each other.
    pub(crate) reorders: bool,
}

impl Default for Weather {
    fn default() -> Self {
        Weather {
            loss_per_mille: 0,
            repeat_per_mille: 0,
            congestion_per_mille: 0,
            delay_ms_max: 3,
            reorders: false,
        }
    }
}

/// The network of a run. Machines are named by their index.
pub(crate) struct Network {
    agenda: Arc<Agenda>,
    trace: Arc<Trace>,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    planted: Option<Planted>,
    weather: Weather,
    stations: Vec<Station>,
    /// Directions in which nothing passes.
    blocked: BTreeSet<(usize, usize)>,
    /// Machines that nothing of Raft groups reaches: they hear no news of the ring.
    deaf: BTreeSet<usize>,
    /// By end: the connection of the first machine to the second, as the first knows it.
    ends: BTreeMap<(usize, usize), Connection>,
    /// Connections ever made.
    connections: u64,
    /// Connections being made, and ends that are about to learn of a break.
    pending: BTreeSet<(usize, usize)>,
    /// When the last message in a direction and class arrives; later ones don't overtake it.
    arrivals: BTreeMap<(usize, usize, Class), Moment>,
}

/// A machine's place in the network.
#[derive(Default)]
struct Station {
    life: u64,
    running: Option<Running>,
    node_id: Option<NodeId>,
    paused: bool,
    /// What a paused machine will find when it resumes.
    held: Vec<Event>,
}

struct Running {
    inbox: Arc<dyn Inbox>,
    peers: BTreeSet<NodeId>,
}

/// Something that one machine's network card does next.
enum Event {
    Arrive { from: NodeId, message: Message },
    Connected { peer: NodeId },
    Disconnected { peer: NodeId },
    Depart { to: usize, class: Class, message: Message },
}

impl Network {
    pub(crate) fn new(
        agenda: Arc<Agenda>,
        trace: Arc<Trace>,
        machines: usize,
        dice: Dice,
    ) -> Arc<Network> {
        let state = State {
            dice,
            planted: None,
            weather: Weather::default(),
            stations: (0..machines).map(|_| Station::default()).collect(),
            blocked: BTreeSet::new(),
            deaf: BTreeSet::new(),
            ends: BTreeMap::new(),
            connections: 0,
            pending: BTreeSet::new(),
            arrivals: BTreeMap::new(),
        };
        Arc::new(Network { agenda, trace, state: Mutex::new(state) })
    }

    /// Attaches a node that has just started.
    ///
    /// # Panics
    /// When the machine's node had another id in an earlier life.
    pub(crate) fn plug(
        self: &Arc<Self>,
        machine: usize,
        node_id: NodeId,
        inbox: Arc<dyn Inbox>,
    ) -> Arc<dyn Transport> {
        let mut state = self.state.lock();
        let station = &mut state.stations[machine];
        let before = station.node_id.replace(node_id);
        assert!(before.is_none_or(|id| id == node_id), "machine {machine} changed its node id");
        station.running = Some(Running { inbox, peers: BTreeSet::new() });
        let life = station.life;
        Arc::new(SimTransport { network: self.clone(), machine, life })
    }

    /// Takes a node that has ended off the network; what it sends from now on goes nowhere.
    pub(crate) fn unplug(self: &Arc<Self>, machine: usize) {
        let mut state = self.state.lock();
        let station = &mut state.stations[machine];
        station.life += 1;
        station.running = None;
        station.held.clear();
        state.ends.retain(|(end, _), _| *end != machine);
        drop(state);
        self.review();
    }

    /// Replaces the weather.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Changes the bug that is planted in the network.
    pub(crate) fn plant(&self, planted: Option<Planted>) {
        self.state.lock().planted = planted;
    }

    /// Stops everything in one direction, or lets it pass again.
    pub(crate) fn set_blocked(self: &Arc<Self>, from: usize, to: usize, blocked: bool) {
        let mut state = self.state.lock();
        if blocked {
            state.blocked.insert((from, to));
        } else {
            state.blocked.remove(&(from, to));
        }
        drop(state);
        self.review();
    }

    /// Keeps everything of Raft groups from a machine, or lets it pass again.
    pub(crate) fn set_deaf(&self, machine: usize, deaf: bool) {
        let mut state = self.state.lock();
        if deaf {
            state.deaf.insert(machine);
        } else {
            state.deaf.remove(&machine);
        }
    }

    /// Stops a machine's network card, or lets it handle what has gathered.
    pub(crate) fn set_paused(self: &Arc<Self>, machine: usize, paused: bool) {
        let mut state = self.state.lock();
        let station = &mut state.stations[machine];
        station.paused = paused;
        let gathered = if paused { Vec::new() } else { std::mem::take(&mut station.held) };
        drop(state);
        gathered.into_iter().for_each(|event| self.perform(machine, event));
        self.review();
    }

    /// True when two running machines can talk both ways right now.
    pub(crate) fn can_talk(&self, a: usize, b: usize) -> bool {
        self.state.lock().can_talk(a, b)
    }

    fn note(&self, line: std::fmt::Arguments<'_>) {
        self.trace.note(self.agenda.now(), line);
    }

    /// Hands an event to a machine, or keeps it while the machine is paused.
    fn perform(self: &Arc<Self>, machine: usize, event: Event) {
        let mut state = self.state.lock();
        let station = &mut state.stations[machine];
        if station.paused {
            station.held.push(event);
            return;
        }
        let Some(inbox) = station.running.as_ref().map(|running| running.inbox.clone()) else {
            return;
        };
        drop(state);
        match event {
            Event::Arrive { from, message } => inbox.on_messages(from, vec![message]),
            Event::Connected { peer } => inbox.on_connected(peer),
            Event::Disconnected { peer } => inbox.on_disconnected(peer),
            Event::Depart { to, class, message } => self.depart(machine, to, class, message),
        }
    }

    fn send(
        self: &Arc<Self>,
        (machine, life): (usize, u64),
        to: NodeId,
        class: Class,
        message: Message,
    ) -> Result<(), SendError> {
        let mut state = self.state.lock();
        let target = state.connected(machine, life, to).ok_or(SendError::NotConnected { to })?;
        let congestion = state.weather.congestion_per_mille;
        if state.dice.chance(congestion) {
            return Err(SendError::QueueFull { to, class });
        }
        drop(state);
        self.perform(machine, Event::Depart { to: target, class, message });
        Ok(())
    }

    fn depart(self: &Arc<Self>, from: usize, to: usize, class: Class, message: Message) {
        let now = self.agenda.now();
        self.trace.count(now, format_args!("{from} -> {to} {class:?} {message:?}"), |counts| {
            counts.messages += 1;
        });
        let mut state = self.state.lock();
        let planted = state.planted;
        let (message, reply) = match planted {
            Some(bug) => bug.meddle(class, message, &mut state.dice),
            None => (Some(message), None),
        };
        let forth = message.map_or_else(Vec::new, |m| state.schedule(from, to, class, m, now));
        let back = reply.map_or_else(Vec::new, |m| state.schedule(to, from, class, m, now));
        drop(state);
        forth.into_iter().for_each(|flight| self.launch(flight));
        back.into_iter().for_each(|flight| self.launch(flight));
    }

    fn launch(self: &Arc<Self>, flight: Flight) {
        let network = self.clone();
        self.agenda.at(flight.arrives, move || network.land(flight));
    }

    fn land(self: &Arc<Self>, flight: Flight) {
        let state = self.state.lock();
        let passes = !state.blocked.contains(&(flight.from, flight.to))
            && state.stations[flight.to].life == flight.life;
        let from = state.stations[flight.from].node_id;
        drop(state);
        match from {
            Some(from) if passes => {
                self.perform(flight.to, Event::Arrive { from, message: flight.message });
            }
            _ => self.note(format_args!("{} -x {} vanished", flight.from, flight.to)),
        }
    }
}

/// A message under way.
struct Flight {
    from: usize,
    to: usize,
    /// The receiver's life at departure: a connection does not outlive its process.
    life: u64,
    arrives: Moment,
    message: Message,
}

impl State {
    /// Decides when, and how often, a message arrives.
    fn schedule(
        &mut self,
        from: usize,
        to: usize,
        class: Class,
        message: Message,
        now: Moment,
    ) -> Vec<Flight> {
        let weather = self.weather;
        let of_groups = matches!(message, Message::Group(_) | Message::Snapshot(_));
        if of_groups && self.deaf.contains(&to) {
            return Vec::new();
        }
        if self.blocked.contains(&(from, to)) || self.dice.chance(weather.loss_per_mille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.dice.chance(weather.repeat_per_mille));
        let life = self.stations[to].life;
        (0..copies)
            .map(|_| {
                let arrives = self.arrival(from, to, class, now);
                Flight { from, to, life, arrives, message: message.clone() }
            })
            .collect()
    }

    fn arrival(&mut self, from: usize, to: usize, class: Class, now: Moment) -> Moment {
        let delay_ms = self.dice.between(1, self.weather.delay_ms_max.max(1));
        let drawn = now + Duration::from_millis(delay_ms);
        if self.weather.reorders {
            return drawn;
        }
        let last = self.arrivals.entry((from, to, class)).or_default();
        *last = drawn.max(*last);
        *last
    }
}

/// One node's end of the network.
struct SimTransport {
    network: Arc<Network>,
    machine: usize,
    life: u64,
}

impl Transport for SimTransport {
    fn send(&self, to: NodeId, class: Class, message: Message) -> Result<(), SendError> {
        self.network.send((self.machine, self.life), to, class, message)
    }

    fn is_connected(&self, to: NodeId) -> bool {
        self.network.state.lock().connected(self.machine, self.life, to).is_some()
    }

    fn set_peers(&self, peers: &[(NodeId, SocketAddr)]) {
        let peers = peers.iter().map(|(peer, _)| *peer).collect();
        self.network.set_peers(self.machine, self.life, peers);
    }
}
