//! An oracle in the place of gossip: it sees who can talk to whom and tells each node late.
//!
//! Like a real failure detector it is eventually right and, for seconds at a time, wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coterie::net::transport::{Discovery, NodeFacts, Sighting};
use coterie::types::{Moment, NodeId};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::agenda::Agenda;
use crate::dice::Dice;
use crate::network::Network;
use crate::trace::Trace;

/// How often the oracle looks.
const ROUND: Duration = Duration::from_millis(100);

/// How long news of a live node travels, in milliseconds.
const NEWS_MS: (u64, u64) = (100, 1500);

/// How long a node is silent before it counts as dead, in milliseconds.
const SILENCE_MS: (u64, u64) = (1000, 5000);

/// The gossip of a run.
pub(crate) struct Gossip {
    agenda: Arc<Agenda>,
    trace: Arc<Trace>,
    network: Arc<Network>,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    places: Vec<Place>,
    /// By observer and subject: when the observer learns what has changed.
    due: BTreeMap<(usize, usize), Moment>,
}

/// One machine's place in the gossip.
#[derive(Default)]
struct Place {
    life: u64,
    running: Option<View>,
}

/// What one life of a node says and sees.
struct View {
    own: Option<NodeFacts>,
    seen: BTreeMap<NodeId, Sighting>,
    told: watch::Sender<Arc<Vec<Sighting>>>,
}

impl Gossip {
    pub(crate) fn start(
        agenda: Arc<Agenda>,
        trace: Arc<Trace>,
        network: Arc<Network>,
        machines: usize,
        dice: Dice,
    ) -> Arc<Gossip> {
        let places = (0..machines).map(|_| Place::default()).collect();
        let state = Mutex::new(State { dice, places, due: BTreeMap::new() });
        let gossip = Arc::new(Gossip { agenda, trace, network, state });
        gossip.plan_round();
        gossip
    }

    /// Attaches a node that has just started.
    pub(crate) fn plug(self: &Arc<Self>, machine: usize) -> Arc<dyn Discovery> {
        let (told, sightings) = watch::channel(Arc::default());
        let mut state = self.state.lock();
        let place = &mut state.places[machine];
        place.running = Some(View { own: None, seen: BTreeMap::new(), told });
        let life = place.life;
        Arc::new(SimDiscovery { gossip: Arc::downgrade(self), machine, life, sightings })
    }

    /// Silences a node that has ended.
    pub(crate) fn unplug(&self, machine: usize) {
        let mut state = self.state.lock();
        let place = &mut state.places[machine];
        place.life += 1;
        place.running = None;
    }

    fn plan_round(self: &Arc<Self>) {
        let gossip = self.clone();
        self.agenda.after(ROUND, move || {
            gossip.round();
            gossip.plan_round();
        });
    }

    fn round(&self) {
        let now = self.agenda.now();
        let mut state = self.state.lock();
        let machines = state.places.len();
        for observer in 0..machines {
            for subject in (0..machines).filter(|subject| *subject != observer) {
                let audible = self.network.can_talk(observer, subject);
                if let Some(news) = state.news(observer, subject, audible, now) {
                    let (name, alive) = (&news.facts.name, news.alive);
                    self.trace.note(now, format_args!("{observer} sees {name} alive={alive}"));
                    state.tell(observer, news);
                }
            }
        }
    }

    fn publish(&self, machine: usize, life: u64, facts: NodeFacts) {
        let mut state = self.state.lock();
        let place = &mut state.places[machine];
        if place.life != life {
            return;
        }
        if let Some(view) = &mut place.running {
            view.own = Some(facts.clone());
        }
        state.tell(machine, Sighting { facts, alive: true });
    }
}

impl State {
    /// What the observer now learns of the subject, if it is time.
    fn news(
        &mut self,
        observer: usize,
        subject: usize,
        audible: bool,
        now: Moment,
    ) -> Option<Sighting> {
        let pair = (observer, subject);
        let Some(truth) = self.truth(observer, subject, audible) else {
            self.due.remove(&pair);
            return None;
        };
        let (low, high) = if truth.alive { NEWS_MS } else { SILENCE_MS };
        let drawn = now + Duration::from_millis(self.dice.between(low, high));
        let due = *self.due.entry(pair).or_insert(drawn);
        if now < due {
            return None;
        }
        self.due.remove(&pair);
        Some(truth)
    }

    /// What the observer ought to know of the subject and does not; `None` when it is up to date.
    fn truth(&self, observer: usize, subject: usize, audible: bool) -> Option<Sighting> {
        let own = self.places[subject].running.as_ref().and_then(|view| view.own.as_ref());
        let view = self.places[observer].running.as_ref()?;
        let truth = match own {
            Some(facts) if audible => Sighting { facts: facts.clone(), alive: true },
            // A dead or distant node: only what was known of it before.
            _ => {
                let known = view.known_of(subject)?;
                Sighting { facts: known.facts.clone(), alive: false }
            }
        };
        (view.seen.get(&truth.facts.node_id) != Some(&truth)).then_some(truth)
    }

    fn tell(&mut self, observer: usize, news: Sighting) {
        if let Some(view) = &mut self.places[observer].running {
            view.seen.insert(news.facts.node_id, news);
            view.told.send_replace(Arc::new(view.seen.values().cloned().collect()));
        }
    }
}

impl View {
    /// Machines are told apart by their addresses, which they keep for life.
    fn known_of(&self, machine: usize) -> Option<&Sighting> {
        let address = crate::cluster::peer_address(machine);
        self.seen.values().find(|sighting| sighting.facts.peer_address == address)
    }
}

/// One node's end of the gossip.
struct SimDiscovery {
    gossip: Weak<Gossip>,
    machine: usize,
    life: u64,
    sightings: watch::Receiver<Arc<Vec<Sighting>>>,
}

impl Discovery for SimDiscovery {
    fn sightings(&self) -> watch::Receiver<Arc<Vec<Sighting>>> {
        self.sightings.clone()
    }

    fn publish(&self, facts: NodeFacts) {
        if let Some(gossip) = self.gossip.upgrade() {
            gossip.publish(self.machine, self.life, facts);
        }
    }
}
