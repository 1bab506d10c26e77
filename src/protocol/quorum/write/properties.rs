//! Random orders of events against what must always hold.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::protocol::quorum::script::DEADLINE;

/// One random event: which kind, and to which of the messages in flight.
type Step = (u8, usize);

/// The nodes, the network and the client of one write.
struct World {
    setup: WriteSetup,
    write: WriteQuorum,
    now: Moment,
    in_flight: Vec<(NodeId, Option<NodeId>)>,
    /// Nodes that were sent the write.
    sent: BTreeSet<NodeId>,
    /// Nodes that really have the write.
    applied: BTreeSet<NodeId>,
    /// Acknowledgements that were delivered: node, and whom it keeps the write for.
    acked: BTreeSet<(NodeId, Option<NodeId>)>,
    /// Primaries that must get no hint.
    overloaded: BTreeSet<NodeId>,
    /// Whether the machine can know that some node may have the write.
    suspect: bool,
    hints: BTreeSet<NodeId>,
    answer: Option<Result<WriteSuccess, QuorumError>>,
}

impl World {
    fn new(setup: WriteSetup) -> Self {
        let mut world = World {
            write: WriteQuorum::new(setup.clone(), Moment(0)),
            setup,
            now: Moment(0),
            in_flight: Vec::new(),
            sent: BTreeSet::new(),
            applied: BTreeSet::new(),
            acked: BTreeSet::new(),
            overloaded: BTreeSet::new(),
            suspect: false,
            hints: BTreeSet::new(),
            answer: None,
        };
        world.drain();
        world
    }

    fn drain(&mut self) {
        let was_done = self.write.is_done();
        while let Some(effect) = self.write.poll() {
            assert!(!was_done, "{effect:?} from a machine that was done");
            match effect {
                WriteEffect::Send { to, hint_for } => self.send(to, hint_for),
                WriteEffect::Hint { target } => self.hint(target),
                WriteEffect::Answer(answer) => self.answer(answer),
            }
        }
    }

    fn primary(&self, node: NodeId) -> Option<&Primary> {
        self.setup.primaries.iter().find(|primary| primary.node == node)
    }

    fn send(&mut self, to: NodeId, hint_for: Option<NodeId>) {
        assert!(self.answer.is_none(), "nothing is sent after the answer");
        assert!(self.sent.insert(to), "{to} is sent the write twice");
        match hint_for {
            None => assert!(self.primary(to).is_some_and(|primary| primary.reachable)),
            Some(target) => {
                assert!(self.setup.sloppy && self.setup.fallbacks.contains(&to));
                assert!(self.primary(target).is_some());
            }
        }
        self.in_flight.push((to, hint_for));
    }

    fn hint(&mut self, target: NodeId) {
        assert!(self.suspect, "a hint for a write that may not exist");
        assert!(self.primary(target).is_some());
        assert!(!self.acked.contains(&(target, None)), "{target} has it");
        assert!(!self.overloaded.contains(&target), "{target} refused out of overload");
        assert!(self.hints.insert(target), "{target} is hinted twice");
    }

    fn answer(&mut self, answer: Result<WriteSuccess, QuorumError>) {
        assert!(self.answer.is_none(), "a second answer");
        match &answer {
            Ok(success) => self.check_success(success),
            Err(QuorumError::Unavailable { .. }) => assert!(self.sent.is_empty()),
            Err(error) if error.outcome() == Outcome::Failed => {
                assert!(!self.suspect && self.in_flight.is_empty(), "{error} is not certain");
            }
            Err(_) => {}
        }
        self.answer = Some(answer);
    }

    fn check_success(&self, success: &WriteSuccess) {
        let distinct: BTreeSet<NodeId> = success.acknowledged.iter().copied().collect();
        assert_eq!(distinct.len(), success.acknowledged.len());
        assert!(distinct.len() >= self.setup.required as usize);
        if let Some(coming) = &self.setup.coming {
            let stood_for = |node: &NodeId| {
                let held =
                    self.acked.iter().find(|(acked, target)| acked == node && target.is_some());
                held.and_then(|(_, target)| *target).unwrap_or(*node)
            };
            let places: BTreeSet<NodeId> = distinct.iter().map(stood_for).collect();
            let present = self.setup.primaries.iter().take(coming.present);
            let present = present.filter(|primary| places.contains(&primary.node)).count();
            let to_come = coming.owners.iter().filter(|node| places.contains(node)).count();
            assert!(present >= self.setup.required as usize, "too few of the present owners");
            assert!(to_come >= coming.required as usize, "too few of the coming owners");
        }
        for node in &distinct {
            assert!(self.acked.iter().any(|(acked, _)| acked == node), "{node} never acked");
            assert_eq!(success.fallbacks.contains(node), self.primary(*node).is_none());
        }
        for target in &success.hinted {
            let held = self.acked.iter().any(|(_, held_for)| *held_for == Some(*target));
            assert!(held || self.hints.contains(target), "no hint for {target} is kept");
        }
    }

    fn step(&mut self, (kind, index): Step) {
        self.now = Moment(self.now.0 + 1);
        if kind == 0 {
            self.write.on_ack(NodeId(999), self.now);
        } else if kind == 1 {
            self.write.on_tick(self.now);
        } else if !self.in_flight.is_empty() {
            let (node, hint_for) = self.in_flight.swap_remove(index % self.in_flight.len());
            self.arrive(kind, index, node, hint_for);
        }
        self.drain();
    }

    fn arrive(&mut self, kind: u8, index: usize, node: NodeId, hint_for: Option<NodeId>) {
        match kind {
            2..=4 => {
                self.suspect = true;
                self.applied.insert(node);
                self.acked.insert((node, hint_for));
                (2..=kind).for_each(|_| self.write.on_ack(node, self.now));
            }
            5 | 6 => {
                let refusal = Refusal::ALL[index % Refusal::ALL.len()];
                if hint_for.is_none() && is_never_hinted(refusal) {
                    self.overloaded.insert(node);
                }
                self.suspect |= refusal.leaves_doubt();
                self.write.on_refusal(node, refusal, self.now);
            }
            7 => self.write.on_unsent(node, self.now),
            _ => {
                self.suspect = true;
                if kind == 8 {
                    self.applied.insert(node);
                }
                self.write.on_lost(node, self.now);
            }
        }
    }

    fn finish(&mut self) {
        self.suspect |= !self.in_flight.is_empty();
        self.applied.extend(self.in_flight.iter().map(|(node, _)| *node).filter(|n| n.0 % 2 == 0));
        self.write.on_tick(DEADLINE);
        self.drain();
        assert!(self.write.is_done() && self.write.next_deadline().is_none());
        for (node, _) in std::mem::take(&mut self.in_flight) {
            self.write.on_ack(node, DEADLINE);
        }
        self.drain();
    }

    fn check_end(&self) {
        let answer = self.answer.as_ref().expect("every write is answered by its deadline");
        let outcome = answer.as_ref().err().map(QuorumError::outcome);
        if matches!(outcome, Some(Outcome::NotAttempted | Outcome::Failed)) {
            assert!(self.applied.is_empty() && self.hints.is_empty(), "{answer:?}");
            return;
        }
        for Primary { node, .. } in self.setup.primaries.iter().filter(|_| self.suspect) {
            let covered = self.acked.iter().any(|(_, held_for)| *held_for == Some(*node))
                || self.acked.contains(&(*node, None))
                || self.hints.contains(node)
                || self.overloaded.contains(node);
            assert!(covered, "{node} missed a write that may exist, for ever");
        }
    }
}

prop_compose! {
    fn setups()(
        reachable in prop::collection::vec(prop::bool::weighted(0.7), 1..6),
        fallbacks in 0u64..4,
        required in 1u32..5,
        sloppy: bool,
        moves in prop::option::of((1usize..4, 0usize..4, 1u32..4)),
    ) -> WriteSetup {
        let primary = |(at, reachable): (usize, &bool)| {
            Primary { node: NodeId(at as u64 + 1), reachable: *reachable }
        };
        let primaries: Vec<Primary> = reachable.iter().enumerate().map(primary).collect();
        let coming = moves.map(|(present, shared, required)| {
            let present = present.min(primaries.len());
            let owners = primaries.iter().skip(present.saturating_sub(shared)).map(|p| p.node);
            Coming { present, owners: owners.collect(), required }
        });
        WriteSetup {
            primaries,
            coming,
            fallbacks: (0..fallbacks).map(|at| NodeId(100 + at)).collect(),
            required,
            sloppy,
            deadline: DEADLINE,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_order_of_events_keeps_the_promises(
        setup in setups(),
        steps in prop::collection::vec((0u8..10, any::<usize>()), 0..40),
    ) {
        let mut world = World::new(setup);
        steps.into_iter().for_each(|step| world.step(step));
        world.finish();
        world.check_end();
    }

    #[test]
    fn a_write_succeeds_when_nothing_goes_wrong(
        setup in setups(),
        order in prop::collection::vec(any::<usize>(), 20),
    ) {
        let setup = WriteSetup { coming: None, ..setup };
        let up = setup.primaries.iter().filter(|primary| primary.reachable).count();
        let stand_ins = (setup.primaries.len() - up).min(setup.fallbacks.len());
        let counting = up + if setup.sloppy { stand_ins } else { 0 };
        let mut world = World::new(setup.clone());
        order.into_iter().for_each(|index| world.step((2, index)));
        prop_assert_eq!(
            matches!(world.answer, Some(Ok(_))),
            counting >= setup.required as usize
        );
        prop_assert!(world.write.is_done(), "all that were asked have replied");
    }
}
