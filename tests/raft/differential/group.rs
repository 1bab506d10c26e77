//! A group of replicas of either kind, and how a schedule moves it.

use std::collections::{BTreeMap, BTreeSet};

use super::schedule::Step;

/// Ticks in which every side settles: several elections fit in.
const SETTLING_TICKS: u64 = 150;

/// Ticks of an election timeout and of a heartbeat, for both implementations.
pub(super) const ELECTION_TICKS: u64 = 10;
pub(super) const HEARTBEAT_TICKS: u64 = 1;

/// A replica of either implementation.
pub(super) trait Replica {
    type Message: Clone;

    fn new(own: u64, voters: u64, seed: u64) -> Self;
    fn tick(&mut self);
    fn step(&mut self, message: Self::Message);
    fn propose(&mut self, command: &[u8]) -> bool;
    /// What it has to say, after all of its writes are done.
    fn drain(&mut self) -> Vec<Self::Message>;
    fn ends(message: &Self::Message) -> (u64, u64);
    /// The term that it leads.
    fn leads(&self) -> Option<u64>;
    /// The commands that it has applied.
    fn applied(&self) -> &[Vec<u8>];
}

/// What is left of a schedule at a quiet point.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) leaders: usize,
    /// What all replicas have applied.
    pub(super) applied: Vec<Vec<u8>>,
}

/// The replicas of one implementation and what is between them.
pub(super) struct Group<R: Replica> {
    replicas: BTreeMap<u64, R>,
    queue: Vec<R::Message>,
    /// Those that are cut off from the others; empty when nobody is.
    side: BTreeSet<u64>,
    disorderly: bool,
    proposed: u64,
}

impl<R: Replica> Group<R> {
    pub(super) fn new(voters: u64, seed: u64) -> Self {
        let replicas = (1..=voters).map(|own| (own, R::new(own, voters, seed))).collect();
        let (queue, side) = Default::default();
        Group { replicas, queue, side, disorderly: false, proposed: 0 }
    }

    /// Carries out a step; at a quiet point, says what it came to.
    pub(super) fn play(&mut self, step: &Step) -> Option<Outcome> {
        match *step {
            Step::Propose { count } => self.propose(count, true),
            Step::ProposeInVain { count } => self.propose(count, false),
            Step::CutLeaderWith { others } => self.cut(true, others),
            Step::CutFollowers { count } => self.cut(false, count),
            Step::Drop => self.queue.clear(),
            Step::Disorder(disorderly) => self.disorderly = disorderly,
            Step::Settle => self.settle(),
            Step::Mend => {
                self.side.clear();
                self.settle();
                return Some(self.outcome());
            }
        }
        None
    }

    fn leader(&self, in_majority: bool) -> Option<u64> {
        let cut_off_leads = 2 * self.side.len() > self.replicas.len();
        let here = |own: &u64| (self.side.contains(own) == cut_off_leads) == in_majority;
        let sides = self.replicas.iter().filter(|(own, _)| here(own));
        sides.filter_map(|(own, replica)| Some((replica.leads()?, *own))).max().map(|(_, own)| own)
    }

    fn propose(&mut self, count: u64, in_majority: bool) {
        for _ in 0..count {
            self.proposed += 1;
            let command = format!("command {}", self.proposed);
            let leader = self.leader(in_majority).expect("this side has a leader by now");
            let replica = self.replicas.get_mut(&leader).expect("the leader is one of them");
            assert!(replica.propose(command.as_bytes()), "leader {leader} refuses {command}");
            self.queue.extend(replica.drain());
        }
    }

    fn cut(&mut self, with_leader: bool, others: usize) {
        let leader = self.leader(true).expect("a settled group has a leader");
        let followers = self.replicas.keys().copied().filter(|own| *own != leader);
        self.side = followers.take(others).collect();
        if with_leader {
            self.side.insert(leader);
        }
        // What is on its way belongs to the time before the cut, which only loss can end.
        self.queue.clear();
    }

    fn settle(&mut self) {
        for _ in 0..SETTLING_TICKS {
            for replica in self.replicas.values_mut() {
                replica.tick();
                self.queue.extend(replica.drain());
            }
            self.exchange();
        }
    }

    /// Delivers what is on its way, and what comes of that, for a few rounds.
    fn exchange(&mut self) {
        const ROUNDS: usize = 6;
        for _ in 0..ROUNDS {
            let mut round = std::mem::take(&mut self.queue);
            if self.disorderly {
                round.extend(round.clone());
                round.reverse();
            }
            round.into_iter().for_each(|message| self.deliver(message));
        }
    }

    fn deliver(&mut self, message: R::Message) {
        let (from, to) = R::ends(&message);
        if self.side.contains(&from) != self.side.contains(&to) {
            return;
        }
        let replica = self.replicas.get_mut(&to).expect("messages stay within the group");
        replica.step(message);
        self.queue.extend(replica.drain());
    }

    fn outcome(&self) -> Outcome {
        let leaders = self.replicas.values().filter(|replica| replica.leads().is_some()).count();
        let mut each = self.replicas.values().map(|replica| replica.applied().to_vec());
        let applied = each.next().unwrap_or_default();
        for (other, own) in each.zip(2..) {
            assert_eq!(other, applied, "replica {own} has applied something else than replica 1");
        }
        Outcome { leaders, applied }
    }
}
