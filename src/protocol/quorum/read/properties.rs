//! Random orders of events against what must always hold.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::quorum::script::DEADLINE;
use crate::types::{Incarnation, Merge, Timestamp};

/// One random event: which kind, and to which of the messages in flight.
type Step = (u8, usize);

/// What a node is asked.
#[derive(Clone, Debug)]
enum Request {
    Read(Want),
    Repair(Record),
}

/// A reply under way.
#[derive(Clone, Debug)]
enum Reply {
    Found(Found),
    Repaired,
}

/// A replica as it really is.
struct Node {
    record: Option<Record>,
    complete: bool,
    /// Whether it ever refused, was lost, unsent or refills: the read need not count on it.
    troubled: bool,
}

/// The replicas, the network and the client of one read.
struct World {
    setup: ReadSetup,
    read: ReadQuorum,
    now: Moment,
    nodes: BTreeMap<NodeId, Node>,
    requests: Vec<(NodeId, Request)>,
    replies: Vec<(NodeId, Reply)>,
    /// Replicas that owe an answer to a question.
    owing: BTreeSet<NodeId>,
    /// Delivered: who answered as a complete replica; the newest version of each; all records.
    counted: BTreeSet<NodeId>,
    known: BTreeMap<NodeId, Option<Version>>,
    newest: Option<Version>,
    records: BTreeSet<Version>,
    stamps: u64,
    overwritten: bool,
    answer: Option<Result<ReadSuccess, QuorumError>>,
}

fn record(stamp: u64) -> Record {
    let version = Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) };
    let value = (!stamp.is_multiple_of(3)).then(|| Bytes::copy_from_slice(&stamp.to_be_bytes()));
    Record::new(version, value)
}

fn version(record: &Option<Record>) -> Option<Version> {
    record.as_ref().map(|record| record.version)
}

impl World {
    /// Stamps are given per primary: 0 is no record, and 4 the record of one that refills.
    fn new(setup: ReadSetup, stamps: &[u64]) -> Self {
        let node = |stamp: u64| Node {
            record: (stamp > 0).then(|| record(stamp)),
            complete: stamp % 5 != 4,
            troubled: stamp % 5 == 4,
        };
        let nodes = setup.primaries.iter().zip(stamps).map(|(p, stamp)| (p.node, node(*stamp)));
        let mut world = World {
            read: ReadQuorum::new(setup.clone(), Moment(0)),
            nodes: nodes.collect(),
            setup,
            now: Moment(0),
            requests: Vec::new(),
            replies: Vec::new(),
            owing: BTreeSet::new(),
            counted: BTreeSet::new(),
            known: BTreeMap::new(),
            newest: None,
            records: BTreeSet::new(),
            stamps: 100,
            overwritten: false,
            answer: None,
        };
        world.drain();
        world
    }

    fn drain(&mut self) {
        while let Some(effect) = self.read.poll() {
            match effect {
                ReadEffect::Ask { to, want } => self.ask(to, want),
                ReadEffect::Repair { to, record, awaited } => self.repair(to, record, awaited),
                ReadEffect::Answer(answer) => self.answer(answer),
            }
        }
    }

    fn ask(&mut self, to: NodeId, want: Want) {
        let reachable = |primary: &Primary| primary.node == to && primary.reachable;
        assert!(self.setup.primaries.iter().any(reachable), "{to} cannot be reached");
        assert!(self.owing.insert(to), "{to} is asked while it owes an answer");
        self.requests.push((to, Request::Read(want)));
    }

    fn repair(&mut self, to: NodeId, record: Record, awaited: bool) {
        assert_eq!(awaited, self.answer.is_none());
        assert!(!awaited || self.setup.blocking_repair);
        assert!(self.records.contains(&record.version), "a record that nobody sent");
        assert!(self.known.get(&to).is_some_and(|known| *known < Some(record.version)));
        self.requests.push((to, Request::Repair(record)));
    }

    fn answer(&mut self, answer: Result<ReadSuccess, QuorumError>) {
        assert!(self.answer.is_none(), "a second answer");
        match &answer {
            Ok(success) => self.check_success(success),
            Err(QuorumError::Unavailable { .. }) => assert!(self.requests.is_empty()),
            Err(QuorumError::Failed { outcome, .. }) => self.check_failure(*outcome),
            Err(QuorumError::Timeout { .. }) => assert!(self.now >= DEADLINE),
            Err(QuorumError::Behind { wanted, newest, .. }) => {
                assert_eq!(Some(*wanted), self.setup.at_least);
                assert_eq!(*newest, self.known.values().copied().max().flatten());
                assert!(*newest < Some(*wanted), "what was asked for has been found");
                assert!(self.owing.is_empty(), "a replica that was asked may have it");
            }
        }
        self.answer = Some(answer);
    }

    fn check_success(&self, success: &ReadSuccess) {
        let answered: BTreeSet<NodeId> = success.answered.iter().copied().collect();
        assert!(answered.len() >= self.setup.required as usize);
        assert_eq!(answered.len(), success.answered.len());
        assert!(answered.is_subset(&self.counted));
        assert!(answered.iter().all(|node| self.setup.answering().any(|it| it.node == *node)));
        assert_eq!(version(&success.record), self.newest, "an answer older than what was heard");
        assert!(version(&success.record) >= self.setup.at_least, "older than the reader has seen");
        let Some(answer) = &success.record else { return };
        assert_eq!(*answer, record(answer.version.timestamp.0), "an invented value");
        let holds = |node: &&NodeId| version(&self.nodes[*node].record) >= Some(answer.version);
        let enough = |(nodes, required): (Vec<NodeId>, usize)| {
            nodes.iter().filter(holds).count() >= required
        };
        assert!(!self.setup.blocking_repair || self.setup.parts().into_iter().all(enough));
    }

    /// The read may fail only for want of replicas, or of one that sends the newest value.
    fn check_failure(&self, outcome: Outcome) {
        let healthy = |node: &&NodeId| !self.nodes[*node].troubled && self.setup.reaches(node);
        let enough = self
            .setup
            .parts()
            .into_iter()
            .all(|(nodes, required)| nodes.iter().filter(healthy).count() >= required);
        let wanted = self.newest.max(self.setup.at_least);
        let has_value = wanted.is_none_or(|wanted| self.records.iter().any(|it| *it >= wanted));
        assert!(!enough || !has_value, "a failure that nothing forced");
        assert!(outcome == Outcome::Unknown || self.counted.is_empty());
    }

    fn step(&mut self, (kind, index): Step) {
        match kind {
            0..=3 => self.process(index),
            4..=7 => self.deliver(index, false),
            8 => self.deliver(index, true),
            9 => self.now = self.now + Duration::from_millis(index as u64 % 8),
            10 => self.overwrite(index),
            _ => self.disturb(kind, index),
        }
        self.read.on_tick(self.now);
        self.drain();
    }

    /// A request arrives at its node.
    fn process(&mut self, index: usize) {
        if self.requests.is_empty() {
            return;
        }
        let (to, request) = self.requests.swap_remove(index % self.requests.len());
        let node = self.nodes.get_mut(&to).expect("a known node");
        let reply = match request {
            Request::Read(want) => Reply::Found(node.read(want)),
            Request::Repair(record) => {
                let newer = version(&node.record) < Some(record.version);
                node.record = if newer { Some(record) } else { node.record.take() };
                Reply::Repaired
            }
        };
        self.replies.push((to, reply));
    }

    /// A reply arrives, and perhaps again later.
    fn deliver(&mut self, index: usize, twice: bool) {
        if self.replies.is_empty() {
            return;
        }
        let (from, reply) = self.replies.swap_remove(index % self.replies.len());
        match reply {
            Reply::Repaired => self.read.on_repaired(from, self.now),
            Reply::Found(found) => {
                self.note(from, &found);
                if twice {
                    self.replies.push((from, Reply::Found(found.clone())));
                }
                self.read.on_found(from, found, self.now);
            }
        }
    }

    fn note(&mut self, from: NodeId, found: &Found) {
        self.owing.remove(&from);
        let version = found.holding.as_ref().map(Holding::version);
        if let Some(Holding::Record(record)) = &found.holding {
            self.records.insert(record.version);
        }
        let known = self.known.entry(from).or_default();
        *known = version.max(*known);
        self.newest = self.newest.max(version);
        if found.complete {
            self.counted.insert(from);
        }
    }

    /// Another client's write reaches one node.
    fn overwrite(&mut self, index: usize) {
        self.stamps += 1;
        self.overwritten = true;
        let at = index % self.nodes.len();
        let node = self.nodes.values_mut().nth(at).expect("within bounds");
        node.record = Some(record(self.stamps));
    }

    fn disturb(&mut self, kind: u8, index: usize) {
        if self.requests.is_empty() {
            return;
        }
        let (to, request) = self.requests.swap_remove(index % self.requests.len());
        self.nodes.get_mut(&to).expect("a known node").troubled = true;
        let refusal = Refusal::ALL[index % Refusal::ALL.len()];
        match (kind, request) {
            (11, Request::Read(_)) if refusal == Refusal::Corrupt => self.corrupt(to),
            (11, Request::Read(_)) => self.read.on_refusal(to, refusal, self.now),
            (11, Request::Repair(_)) => self.read.on_repair_refused(to, refusal, self.now),
            (12, _) => self.read.on_unsent(to, self.now),
            _ => self.lose(to),
        }
        self.owing.remove(&to);
    }

    /// The node finds its record damaged; what it said of it before is void.
    fn corrupt(&mut self, node: NodeId) {
        self.nodes.get_mut(&node).expect("a known node").record = None;
        self.replies.retain(|(from, _)| *from != node);
        self.counted.remove(&node);
        self.known.insert(node, None);
        self.read.on_refusal(node, Refusal::Corrupt, self.now);
    }

    /// A stream ends; only an answer that had just been taken off it may still come.
    fn lose(&mut self, node: NodeId) {
        self.requests.retain(|(to, _)| *to != node);
        self.replies.retain(|(from, reply)| *from != node || matches!(reply, Reply::Found(_)));
        self.read.on_lost(node, self.now);
    }

    /// Everything under way arrives.
    fn settle(&mut self) {
        while !self.requests.is_empty() || !self.replies.is_empty() {
            self.step((0, 0));
            self.step((4, 0));
        }
    }

    fn expire(&mut self) {
        self.now = DEADLINE;
        self.read.on_tick(self.now);
        self.drain();
        assert!(self.answer.is_some(), "every read is answered by its deadline");
        assert!(self.read.is_done() && self.read.next_deadline().is_none());
    }
}

impl ReadSetup {
    fn answering(&self) -> impl Iterator<Item = &Primary> {
        let all = self.primaries.len();
        self.primaries.iter().take(self.alongside.as_ref().map_or(all, |it| it.answering))
    }

    fn reaches(&self, node: &NodeId) -> bool {
        self.primaries.iter().any(|primary| primary.node == *node && primary.reachable)
    }

    /// Each set of replicas, and how many of them it takes.
    fn parts(&self) -> Vec<(Vec<NodeId>, usize)> {
        let answering = self.answering().map(|primary| primary.node).collect();
        let alongside = self.alongside.iter().map(|it| (it.owners.clone(), it.required as usize));
        std::iter::once((answering, self.required as usize)).chain(alongside).collect()
    }
}

impl Node {
    fn read(&self, want: Want) -> Found {
        let holding = self.record.clone().map(|record| match want {
            Want::Value => Holding::Record(record),
            Want::Version => Holding::Version(record.version),
        });
        Found { holding, complete: self.complete }
    }
}

prop_compose! {
    fn setups()(
        reachable in prop::collection::vec(prop::bool::weighted(0.8), 1..6),
        required in 1u32..5,
        blocking_repair: bool,
        (hedge, seen) in any::<(bool, bool)>(),
        at_least in 1u64..7,
        (answering, owned) in (1usize..5, prop::collection::vec(any::<bool>(), 6)),
        hold in prop::option::of(1u32..4),
    ) -> ReadSetup {
        let primary = |(at, reachable): (usize, &bool)| {
            Primary { node: NodeId(at as u64 + 1), reachable: *reachable }
        };
        let answering = answering.min(reachable.len());
        let nodes = (0..reachable.len()).filter(|at| *at >= answering || owned[*at]);
        let owners: Vec<NodeId> = nodes.map(|at| NodeId(at as u64 + 1)).collect();
        let hold = hold.filter(|_| blocking_repair);
        ReadSetup {
            alongside: hold.map(|required| Alongside { answering, owners, required }),
            primaries: reachable.iter().enumerate().map(primary).collect(),
            required,
            merge: Merge::Lww,
            seen: None,
            at_least: seen.then(|| record(at_least).version),
            blocking_repair,
            hedge_after: hedge.then(|| Duration::from_millis(10)),
            deadline: DEADLINE,
        }
    }
}

/// Which record each primary begins with: few different ones, so that many agree.
fn stamps(choices: std::ops::Range<u64>) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(choices, 6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_order_of_events_keeps_the_promises(
        setup in setups(),
        stamps in stamps(0..6),
        steps in prop::collection::vec((0u8..14, any::<usize>()), 0..60),
    ) {
        let mut world = World::new(setup, &stamps);
        steps.into_iter().for_each(|step| world.step(step));
        world.expire();
        world.settle();
    }

    #[test]
    fn without_faults_a_read_succeeds_and_all_that_answered_agree(
        setup in setups(),
        stamps in stamps(0..4),
        steps in prop::collection::vec((0u8..11, any::<usize>()), 0..60),
    ) {
        let enough = setup.parts().into_iter().all(|(nodes, required)| {
            nodes.iter().filter(|node| setup.reaches(node)).count() >= required
        });
        let mut world = World::new(setup.clone(), &stamps);
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
        let is_behind = matches!(world.answer, Some(Err(QuorumError::Behind { .. })));
        prop_assert_eq!(matches!(world.answer, Some(Ok(_))), enough && !is_behind);
        let reached = world.nodes.iter().filter(|(node, _)| setup.reaches(node));
        let newest = reached.filter_map(|(_, node)| version(&node.record)).max();
        prop_assert!(!is_behind || newest < setup.at_least || world.overwritten);
        prop_assert!(world.read.is_done());
        for node in &world.counted {
            let held = version(&world.nodes[node].record);
            // A read that found nothing new enough has nothing to mend with.
            prop_assert!(is_behind || held >= world.newest, "{} stays stale", node);
        }
    }
}
