//! One write: sends it to every primary, counts acknowledgements, keeps hints for the absent.
//!
//! Each primary has a *place* in the quorum. A place counts once: by its primary's own
//! acknowledgement or, in a sloppy quorum, by that of the fallback that holds its hint (DeCandia
//! et al., "Dynamo", 2007, section 4.6). The client is answered when `required` places count.
//! The machine then lives on until every node that it asked has replied, or the deadline.
//!
//! Hints never change the outcome: they wait until the write may exist, that is, until some node
//! has acknowledged it, was lost with it in flight, or is still silent at the deadline. So a
//! write that certainly failed leaves no hint that could bring it into existence later, and
//! every other write reaches its absent primaries in the end. A hint that is due by the time of
//! the answer comes out of [`WriteQuorum::poll`] before the answer does.
//!
//! A primary that refuses out of overload is never hinted: its hint would be more load.
//!
//! While the key's partition moves, the write goes to its present and to its coming owners, and
//! needs a quorum of each: whoever reads from either meets it.

mod place;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use self::place::{Place, Progress, StandIn};
use crate::protocol::message::Refusal;
use crate::protocol::planted::{Planted, planted};
use crate::protocol::quorum::{Outcome, Primary, QuorumError};
use crate::types::{Moment, NodeId};

/// What a write begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteSetup {
    /// The first N nodes of the preference list, each once; then coming owners that are not among
    /// them.
    pub primaries: Vec<Primary>,
    /// Reachable nodes beyond the first N, in preference order, each once; used only if `sloppy`.
    pub fallbacks: Vec<NodeId>,
    /// W; at least 1.
    pub required: u32,
    /// Set while the partition moves.
    pub coming: Option<Coming>,
    /// Whether fallbacks may count.
    pub sloppy: bool,
    /// When the client stops waiting.
    pub deadline: Moment,
}

/// The owners-to-be of a partition that moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coming {
    /// How many of the primaries, from the first on, are the present owners.
    pub present: usize,
    /// The coming owners, all among the primaries.
    pub owners: Vec<NodeId>,
    /// Their W; at least 1.
    pub required: u32,
}

/// What the driver must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteEffect {
    /// Send the write.
    Send {
        /// A primary, or a fallback.
        to: NodeId,
        /// For a fallback: the primary that it keeps the write for.
        hint_for: Option<NodeId>,
    },
    /// Keep a hint on this node, if policy admits it. Comes at most once per primary.
    Hint {
        /// The primary that missed the write.
        target: NodeId,
    },
    /// Answer the client. Comes exactly once.
    Answer(Result<WriteSuccess, QuorumError>),
}

/// Which guarantee held when the client was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSuccess {
    /// Nodes whose acknowledgements counted, one per place.
    pub acknowledged: Vec<NodeId>,
    /// Primaries whose hint this node was told to keep, or an acknowledging fallback keeps.
    pub hinted: Vec<NodeId>,
    /// Fallbacks among `acknowledged`.
    pub fallbacks: Vec<NodeId>,
}

/// The decisions of one write.
#[derive(Clone, Debug)]
pub struct WriteQuorum {
    places: Vec<Place>,
    fallbacks: Vec<NodeId>,
    fallbacks_used: usize,
    /// That of the present owners, then that of the coming ones, if there are any.
    tallies: [Tally; 2],
    sloppy: bool,
    deadline: Moment,
    refusals: Vec<(NodeId, Refusal)>,
    /// Whether some node may have applied the write. Never becomes false again.
    may_exist: bool,
    decided: bool,
    answer: Option<Result<WriteSuccess, QuorumError>>,
    /// Whether the deadline has passed.
    over: bool,
}

impl WriteQuorum {
    /// Begins a write; poll it at once. If too few nodes can be reached, its only effect is the
    /// answer that says so.
    pub fn new(setup: WriteSetup, now: Moment) -> Self {
        let tallies = Tally::both(&setup);
        let mut write = WriteQuorum {
            places: setup.primaries.iter().map(Place::new).collect(),
            fallbacks: setup.fallbacks,
            fallbacks_used: 0,
            tallies,
            sloppy: setup.sloppy,
            deadline: setup.deadline,
            refusals: Vec::new(),
            may_exist: false,
            decided: false,
            answer: None,
            over: false,
        };
        let out_of_reach = write.tallies.into_iter().find(|it| write.reachable(it) < it.required);
        if let Some(tally) = out_of_reach {
            let (required, reachable) = (tally.required as u32, write.reachable(&tally) as u32);
            write.places.clear();
            write.decide(Err(QuorumError::Unavailable { required, reachable }));
        } else {
            write.cover_unreachable();
            write.advance(now);
        }
        write
    }

    /// The node has the write durably; as a fallback, it has it as a hint.
    pub fn on_ack(&mut self, from: NodeId, now: Moment) {
        for place in &mut self.places {
            self.may_exist |= place.acknowledge(from);
        }
        self.advance(now);
    }

    /// The node did not acknowledge the write; it certainly did not apply it, unless the refusal
    /// [leaves doubt](Refusal::leaves_doubt).
    pub fn on_refusal(&mut self, from: NodeId, refusal: Refusal, now: Moment) {
        if let Some((index, role)) = self.asked(from) {
            self.refusals.push((from, refusal));
            self.may_exist |= refusal.leaves_doubt();
            self.places[index].end(role);
            if role == Role::Primary && is_never_hinted(refusal) {
                self.places[index].stand_in = StandIn::Waived;
            } else {
                self.cover(index);
            }
        }
        self.advance(now);
    }

    /// The transport certainly did not send the write to the node.
    pub fn on_unsent(&mut self, to: NodeId, now: Moment) {
        self.end_and_cover(to);
        self.advance(now);
    }

    /// The stream to the node ended while the write was in flight; it may have arrived.
    pub fn on_lost(&mut self, peer: NodeId, now: Moment) {
        self.may_exist |= self.end_and_cover(peer);
        self.advance(now);
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Moment) {
        self.advance(now);
    }

    /// What to do next; to be called until `None` after each event and after `new`.
    pub fn poll(&mut self) -> Option<WriteEffect> {
        if let Some(effect) = self.places.iter_mut().find_map(Place::poll_send) {
            return Some(effect);
        }
        if self.may_exist
            && let Some(effect) = self.places.iter_mut().find_map(Place::poll_hint)
        {
            return Some(effect);
        }
        self.answer.take().map(WriteEffect::Answer)
    }

    /// When `on_tick` is next needed.
    pub fn next_deadline(&self) -> Option<Moment> {
        (!self.over && !self.is_done()).then_some(self.deadline)
    }

    /// True once no further event can matter: drop the machine.
    pub fn is_done(&self) -> bool {
        self.decided
            && self.answer.is_none()
            && (self.over || !self.places.iter().any(Place::is_in_flight))
            && !self.places.iter().any(Place::is_send_due)
            && !(self.may_exist && self.places.iter().any(Place::is_hint_due))
    }
}

/// How many of which places a quorum takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tally {
    required: usize,
    /// A bit for each place that counts.
    places: u64,
}

impl Tally {
    fn both(setup: &WriteSetup) -> [Tally; 2] {
        let required = (setup.required as usize).max(1);
        let Some(coming) = &setup.coming else {
            return [Tally { required, places: u64::MAX }, Tally { required: 0, places: 0 }];
        };
        let all = setup.primaries.iter().enumerate();
        let owned = all.filter(|(_, primary)| coming.owners.contains(&primary.node));
        let owned = owned.fold(0, |places, (at, _)| places | bit(at));
        let present = (0..coming.present).fold(0, |places, at| places | bit(at));
        if planted(Planted::QuorumsOfAMoveAdded) {
            let both = Tally { required, places: present | owned };
            return [both, Tally { required: 0, places: 0 }];
        }
        let to_come = (coming.required as usize).max(1);
        [Tally { required, places: present }, Tally { required: to_come, places: owned }]
    }

    fn counts(&self, place: usize) -> bool {
        self.places & bit(place) != 0
    }
}

/// Two times the largest N is well below 64.
fn bit(place: usize) -> u64 {
    1u64.checked_shl(place as u32).unwrap_or(0)
}

/// In which role a node was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Primary,
    Fallback,
}

impl WriteQuorum {
    fn reachable(&self, tally: &Tally) -> usize {
        let primaries = self.count(tally, |place| place.own == Progress::Due);
        let absent = self.count(tally, |_| true) - primaries;
        primaries + if self.sloppy { absent.min(self.fallbacks.len()) } else { 0 }
    }

    /// Places of a quorum's owners that are so.
    fn count(&self, tally: &Tally, is_so: impl Fn(&Place) -> bool) -> usize {
        let counted = self.places.iter().enumerate();
        counted.filter(|(at, place)| tally.counts(*at) && is_so(place)).count()
    }

    fn cover_unreachable(&mut self) {
        for index in 0..self.places.len() {
            if self.places[index].own == Progress::Unasked {
                self.cover(index);
            }
        }
    }

    /// Has a fallback stand in for the primary, or else a hint on this node. Once the client has
    /// its answer a fallback could no longer count, and a hint here is cheaper.
    fn cover(&mut self, index: usize) {
        let more = self.sloppy && !self.decided;
        let fallback = self.fallbacks.get(self.fallbacks_used).filter(|_| more);
        self.places[index].stand_in = match fallback {
            Some(&node) => {
                self.fallbacks_used += 1;
                StandIn::Due(node)
            }
            None => StandIn::HintDue,
        };
    }

    /// The place in which the node owes a reply.
    fn asked(&self, node: NodeId) -> Option<(usize, Role)> {
        self.places.iter().enumerate().find_map(|(index, place)| {
            if place.primary == node && place.own == Progress::Asked {
                Some((index, Role::Primary))
            } else if place.stand_in == StandIn::Asked(node) {
                Some((index, Role::Fallback))
            } else {
                None
            }
        })
    }

    /// Expects no more of the node; false if nothing was expected.
    fn end_and_cover(&mut self, node: NodeId) -> bool {
        let Some((index, role)) = self.asked(node) else { return false };
        self.places[index].end(role);
        self.cover(index);
        true
    }

    fn advance(&mut self, now: Moment) {
        if !self.decided {
            let open = |tally: &Tally| self.count(tally, Place::is_open);
            let short = |tally: &Tally| self.received(tally) + open(tally) < tally.required;
            if let Some(tally) = self.tallies.into_iter().find(short) {
                self.fail(&tally);
            } else if self.tallies.iter().all(|it| self.received(it) >= it.required) {
                self.decide(Ok(self.success()));
            }
        }
        if now >= self.deadline && !self.over {
            self.expire();
        }
    }

    fn received(&self, tally: &Tally) -> usize {
        self.count(tally, |place| place.counted().is_some())
    }

    /// The quorum that is furthest from being reached.
    fn furthest(&self) -> Tally {
        let [present, coming] = self.tallies;
        let missing = |it: &Tally| it.required.saturating_sub(self.received(it));
        if missing(&coming) > missing(&present) { coming } else { present }
    }

    fn decide(&mut self, answer: Result<WriteSuccess, QuorumError>) {
        self.decided = true;
        self.answer = Some(answer);
    }

    fn success(&self) -> WriteSuccess {
        let mut success = WriteSuccess {
            acknowledged: Vec::with_capacity(self.places.len()),
            ..WriteSuccess::default()
        };
        for place in &self.places {
            if let Some(node) = place.counted() {
                success.acknowledged.push(node);
                if node != place.primary {
                    success.fallbacks.push(node);
                }
            }
            if place.is_hinted() {
                success.hinted.push(place.primary);
            }
        }
        success
    }

    fn fail(&mut self, tally: &Tally) {
        for place in &mut self.places {
            place.cancel_due();
        }
        let in_flight = self.places.iter().any(Place::is_in_flight);
        let error = QuorumError::Failed {
            required: tally.required as u32,
            received: self.received(tally) as u32,
            refusals: self.refusals.clone(),
            outcome: outcome(self.may_exist || in_flight),
        };
        self.decide(Err(error));
    }

    /// Gives the silent up: each may have applied the write, and each is hinted.
    fn expire(&mut self) {
        self.over = true;
        self.may_exist |= self.places.iter().any(Place::is_in_flight);
        for place in &mut self.places {
            place.give_up();
        }
        if !self.decided {
            let tally = self.furthest();
            self.decide(Err(QuorumError::Timeout {
                required: tally.required as u32,
                received: self.received(&tally) as u32,
                outcome: outcome(self.may_exist),
            }));
        }
    }
}

fn outcome(may_exist: bool) -> Outcome {
    if may_exist { Outcome::Unknown } else { Outcome::Failed }
}

/// Refusals after which the primary gets no hint: it has too much to do already (scylladb#7976
/// among others), or the write itself is too far ahead for it, or has nowhere to go any more.
fn is_never_hinted(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Overloaded
        | Refusal::Expired
        | Refusal::ClockOffset
        | Refusal::KeyspaceDropped => true,
        Refusal::DiskFull
        | Refusal::LogFailed
        | Refusal::InDoubt
        | Refusal::Corrupt
        | Refusal::HintNotAdmitted
        | Refusal::Storage
        | Refusal::NotServing
        | Refusal::StaleRing
        | Refusal::TooManySiblings
        | Refusal::ContextUnheard
        | Refusal::OutOfRange => false,
    }
}
