//! A leader's log and a follower's over a network that loses, repeats and reorders: what the
//! leader believes is true at all times, and once the network is whole the follower catches up.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::raft::entry::{Entry, LogPosition, LogStart, Payload};
use crate::protocol::raft::log::Log;
use crate::protocol::raft::membership::Membership;
use crate::types::Term;

const WINDOW: usize = 3;

#[derive(Clone, Debug)]
enum Request {
    Append(LogPosition, Vec<Entry>),
    Heartbeat,
}

#[derive(Clone, Debug)]
enum Reply {
    Matches(LogIndex),
    Rejected(LogIndex, LogPosition),
    Alive(LogIndex),
}

struct World {
    leader: Log,
    term: u64,
    progress: Progress,
    follower: Log,
    requests: Vec<Request>,
    replies: Vec<Reply>,
    /// What the snapshot under way says of itself.
    snapshot: Option<LogStart>,
}

#[derive(Clone, Debug)]
enum Step {
    Send,
    Heartbeat,
    Extend,
    Compact(u64),
    /// A request arrives, and may arrive again.
    Arrive(usize, bool),
    LoseRequest(usize),
    /// A reply arrives, and may arrive again.
    Hear(usize, bool),
    LoseReply(usize),
    Unreachable,
    /// The snapshot under way arrives, or fails.
    EndSnapshot(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Send),
        2 => Just(Step::Heartbeat),
        3 => Just(Step::Extend),
        1 => (0u64..20).prop_map(Step::Compact),
        6 => (0usize..8, prop::bool::weighted(0.2)).prop_map(|(at, again)| Step::Arrive(at, again)),
        2 => (0usize..8).prop_map(Step::LoseRequest),
        6 => (0usize..8, prop::bool::weighted(0.2)).prop_map(|(at, again)| Step::Hear(at, again)),
        2 => (0usize..8).prop_map(Step::LoseReply),
        1 => Just(Step::Unreachable),
        2 => any::<bool>().prop_map(Step::EndSnapshot),
    ];
    prop::collection::vec(step, 0..80)
}

fn log(terms: &[u64]) -> Log {
    let start = LogStart {
        position: LogPosition::default(),
        membership: Membership::default(),
        membership_index: LogIndex(0),
    };
    let mut log = Log::new(start, Vec::new());
    terms.iter().for_each(|&term| extend(&mut log, term));
    log.stable_to(log.last());
    log
}

fn extend(log: &mut Log, term: u64) {
    let payload = Payload::Command(Bytes::new());
    log.append(Entry { term: Term(term), index: log.last_index().next(), payload });
}

/// Takes a message out of the network, or a copy of it.
fn take<T: Clone>(from: &mut Vec<T>, at: usize, copy: bool) -> Option<T> {
    let at = at.checked_rem(from.len())?;
    Some(if copy { from[at].clone() } else { from.remove(at) })
}

impl World {
    /// Both logs begin with `agreed` entries of term 1. Then the leader's has odd terms and the
    /// follower's even ones, and a new leader's own term is above all of them.
    fn new(agreed: usize, own: &[u64], others: &[u64]) -> World {
        let terms = |steps: &[u64], odd: u64| {
            let behind = steps.iter().scan(2 + odd, |term, step| {
                *term += 2 * step;
                Some(*term)
            });
            [1].repeat(agreed).into_iter().chain(behind).collect::<Vec<u64>>()
        };
        let leader = log(&terms(own, 1));
        World {
            progress: Progress::new(leader.last_index().next(), WINDOW, 0),
            leader,
            term: 99,
            follower: log(&terms(others, 0)),
            requests: Vec::new(),
            replies: Vec::new(),
            snapshot: None,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send => self.send(),
            Step::Heartbeat => self.requests.push(Request::Heartbeat),
            Step::Extend => extend(&mut self.leader, self.term),
            Step::Compact(index) => self.compact(LogIndex(index)),
            Step::Arrive(at, copy) => {
                let request = take(&mut self.requests, at, copy);
                request.into_iter().for_each(|request| self.arrive(request));
            }
            Step::Hear(at, copy) => {
                let reply = take(&mut self.replies, at, copy);
                reply.into_iter().for_each(|reply| self.hear(reply));
            }
            Step::LoseRequest(at) => drop(take(&mut self.requests, at, false)),
            Step::LoseReply(at) => drop(take(&mut self.replies, at, false)),
            Step::Unreachable => self.progress.on_unreachable(),
            Step::EndSnapshot(arrives) => self.end_snapshot(arrives),
        }
        self.check();
    }

    /// As other replicas hold all of it, the leader may compact what this one lacks.
    fn compact(&mut self, index: LogIndex) {
        self.leader.stable_to(self.leader.last());
        self.leader.commit_to(index);
        self.leader.compact(index);
    }

    fn send(&mut self) {
        let next = self.progress.next();
        let idle = self.progress.state() == State::Replicate && next > self.leader.last_index();
        if idle || !self.progress.may_send() {
            return;
        }
        let previous = LogIndex(next.0 - 1);
        let known = self.leader.term_at(previous).zip(self.leader.slice(next, 70));
        let Some((term, entries)) = known else {
            let start = self.leader.start().index;
            self.progress.begin_snapshot(start);
            self.snapshot = self.leader.start_at(start);
            return;
        };
        self.progress.on_sent(entries.last().map_or(previous, |last| last.index));
        self.requests.push(Request::Append(LogPosition { index: previous, term }, entries));
    }

    fn arrive(&mut self, request: Request) {
        let reply = match request {
            Request::Heartbeat => Reply::Alive(self.follower.last_index()),
            Request::Append(previous, entries) => {
                match self.follower.try_append(previous, &entries) {
                    Ok(index) => Reply::Matches(index),
                    Err(hint) => Reply::Rejected(previous.index, hint),
                }
            }
        };
        self.replies.push(reply);
    }

    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Alive(last) => self.progress.on_heartbeat_reply(0, last),
            Reply::Matches(index) => drop(self.progress.on_matched(index, 0)),
            Reply::Rejected(previous, hint) => {
                self.progress.on_rejected(previous, self.leader.find_conflict(hint).next());
            }
        }
    }

    fn end_snapshot(&mut self, arrives: bool) {
        let Some(snapshot) = self.snapshot.take() else { return };
        let through = snapshot.position.index;
        if arrives {
            self.follower.reset(snapshot);
        }
        self.progress.end_snapshot(arrives.then_some(through));
    }

    fn check(&self) {
        let progress = &self.progress;
        let matched = progress.matched();
        assert!(matched < progress.next() && progress.next() <= self.leader.last_index().next());
        let in_flight: Vec<LogIndex> = progress.in_flight.iter().copied().collect();
        assert!(in_flight.len() <= WINDOW && in_flight.is_sorted_by(|one, other| one < other));
        assert!(in_flight.iter().all(|&last| last > matched && last < progress.next()));
        assert!(in_flight.is_empty() || progress.state() == State::Replicate);
        if let (Some(own), Some(other)) =
            (self.leader.term_at(matched), self.follower.term_at(matched))
        {
            assert_eq!(own, other, "{matched} is said to match");
        }
        assert!(self.follower.last_index() >= matched, "{matched} was taken back");
    }

    /// One interval of heartbeats in which everything arrives, in order.
    fn whole_interval(&mut self) {
        self.step(&Step::Heartbeat);
        self.step(&Step::EndSnapshot(true));
        loop {
            (0..WINDOW).for_each(|_| self.step(&Step::Send));
            if self.requests.is_empty() && self.replies.is_empty() {
                break;
            }
            while !self.requests.is_empty() {
                self.step(&Step::Arrive(0, false));
            }
            while !self.replies.is_empty() {
                self.step(&Step::Hear(0, false));
            }
        }
    }
}

prop_compose! {
    fn worlds()(
        agreed in 0usize..6,
        own in prop::collection::vec(0u64..2, 0..6),
        others in prop::collection::vec(0u64..2, 0..6),
    ) -> (usize, Vec<u64>, Vec<u64>) {
        (agreed, own, others)
    }
}

proptest! {
    #[test]
    fn a_follower_catches_up_once_messages_arrive(
        (agreed, own, others) in worlds(),
        steps in steps(),
    ) {
        let mut world = World::new(agreed, &own, &others);
        extend(&mut world.leader, world.term);
        steps.iter().for_each(|step| world.step(step));
        // What is under way is lost, a snapshot too: the least that may be hoped for.
        world.requests.clear();
        world.replies.clear();
        world.step(&Step::EndSnapshot(false));
        // Two for an append to be given up, one to probe, one to ask for a snapshot, one behind it.
        (0..5).for_each(|_| world.whole_interval());
        prop_assert_eq!(world.progress.matched(), world.leader.last_index());
        prop_assert_eq!(world.follower.last(), world.leader.last());
    }
}
