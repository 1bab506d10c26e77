//! Random logs against plain ones: lists of all entries, from the first on.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::raft::entry::Payload;
use crate::types::ReplicaId;

/// The entry that the one leader of `term` put at `index`: now and then it is a membership.
fn entry(index: u64, term: u64) -> Entry {
    let payload = if (index + 3 * term).is_multiple_of(4) {
        let voters: BTreeSet<ReplicaId> = [ReplicaId(index), ReplicaId(100 + term)].into();
        Payload::Membership(Membership { voters, ..Membership::default() })
    } else {
        Payload::Command(Bytes::from(vec![0; (index % 5) as usize]))
    };
    Entry { term: Term(term), index: LogIndex(index), payload }
}

fn entries(terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(1..).map(|(&term, index)| entry(index, term)).collect()
}

fn new_log(plain: &[Entry]) -> Log {
    let position = LogPosition::default();
    let membership = Membership::default();
    Log::new(LogStart { position, membership, membership_index: LogIndex(0) }, plain.to_vec())
}

fn position_of(plain: &[Entry], index: usize) -> LogPosition {
    index.checked_sub(1).map_or(LogPosition::default(), |at| plain[at].position())
}

/// How many entries two logs have in common.
fn matching(one: &[Entry], other: &[Entry]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// The rule as the dissertation words it (section 3.5), one entry at a time. False when `previous`
/// is missing.
fn append_plainly(plain: &mut Vec<Entry>, previous: LogPosition, entries: &[Entry]) -> bool {
    let at = previous.index.0 as usize;
    if at > plain.len() || position_of(plain, at) != previous {
        return false;
    }
    for (entry, at) in entries.iter().zip(at..) {
        if plain.get(at).is_some_and(|have| have.term != entry.term) {
            plain.truncate(at);
        }
        if plain.len() == at {
            plain.push(entry.clone());
        }
    }
    true
}

/// Everything that a log says of itself is what the plain one says.
fn check(log: &Log, plain: &[Entry]) {
    let held = &plain[log.start().index.0 as usize..];
    assert_eq!(log.entries_from(LogIndex(0)), held);
    assert_eq!(log.last(), position_of(plain, plain.len()));
    assert_eq!(log.bytes(), held.iter().map(Entry::cost_bytes).sum::<usize>());
    assert!(log.start().index <= log.stable() && log.stable() <= log.last_index());
    assert_eq!(log.membership_index(), membership_of(plain).0);
    assert_eq!(*log.membership(), membership_of(plain).1);
    for index in log.start().index.0..=log.last_index().0 {
        let (membership_index, membership) = membership_of(&plain[..index as usize]);
        let position = position_of(plain, index as usize);
        let expected = LogStart { position, membership, membership_index };
        assert_eq!(log.start_at(LogIndex(index)), Some(expected));
    }
}

fn membership_of(plain: &[Entry]) -> (LogIndex, Membership) {
    let latest = plain.iter().rev().find_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some((entry.index, membership.clone())),
        _ => None,
    });
    latest.unwrap_or_default()
}

/// A leader's log and a follower's, which agree up to some entry and on none behind it.
#[derive(Clone, Debug)]
struct Pair {
    leader: Vec<Entry>,
    follower: Vec<Entry>,
    agreed: usize,
}

/// Terms behind `base`: odd ones on one side and even ones on the other, so that none is in both.
/// Those of `base` itself may go on at one side.
fn terms_behind(base: u64, steps: &[u64], odd: bool, goes_on: bool) -> Vec<u64> {
    let mut term = base;
    let mut terms = Vec::new();
    for &step in steps {
        if step > 0 || (terms.is_empty() && !goes_on) {
            term += 2 * step.max(1) - 1;
            term += u64::from(term.is_multiple_of(2) == odd);
        }
        terms.push(term);
    }
    terms
}

prop_compose! {
    fn pairs()(
        agreed in prop::collection::vec(0u64..3, 0..8),
        own in prop::collection::vec(0u64..3, 0..8),
        others in prop::collection::vec(0u64..3, 0..8),
        goes_on in 0..3,
    ) -> Pair {
        let mut terms: Vec<u64> = agreed.iter().scan(1, |term, step| {
            *term += step;
            Some(*term)
        }).collect();
        let base = terms.last().copied().unwrap_or(1);
        let mut follower = terms.clone();
        terms.extend(terms_behind(base, &own, true, goes_on == 1));
        follower.extend(terms_behind(base, &others, false, goes_on == 2));
        Pair { leader: entries(&terms), follower: entries(&follower), agreed: agreed.len() }
    }
}

impl Pair {
    /// Entries of the leader from somewhere on, and what is before them.
    fn message(&self, (from, count): (usize, usize)) -> (LogPosition, Vec<Entry>) {
        let from = from % (self.leader.len() + 1);
        let through = (from + count).min(self.leader.len());
        (position_of(&self.leader, from), self.leader[from..through].to_vec())
    }

    /// The follower's log, compacted somewhere and committed somewhere up to the agreed entry.
    fn follower_log(&self, compacted: usize, committed: usize) -> Log {
        let mut log = new_log(&self.follower);
        log.commit_to(LogIndex((committed % (self.agreed + 1)) as u64));
        log.compact(LogIndex(compacted as u64));
        log
    }
}

fn messages() -> impl Strategy<Value = (usize, usize)> {
    (0usize..20, 0usize..8)
}

proptest! {
    #[test]
    fn a_follower_appends_what_the_plain_rule_appends(
        pair in pairs(),
        message in messages(),
        compacted in 0usize..8,
        committed in 0usize..8,
    ) {
        let mut log = pair.follower_log(compacted, committed);
        check(&log, &pair.follower);
        let mut plain = pair.follower.clone();
        let (previous, entries) = pair.message(message);
        let outcome = log.try_append(previous, &entries);
        if append_plainly(&mut plain, previous, &entries) {
            prop_assert_eq!(outcome, Ok(LogIndex(previous.index.0 + entries.len() as u64)));
            let kept = matching(&plain, &pair.follower).max(log.start().index.0 as usize);
            prop_assert_eq!(log.stable(), LogIndex(kept.min(pair.follower.len()) as u64));
        } else {
            let hint = outcome.expect_err("the entry before is missing");
            prop_assert!(hint.index.0 >= pair.agreed as u64, "{hint:?} skips a matching entry");
            prop_assert!(hint.index <= previous.index && hint.term <= previous.term);
            prop_assert!(hint != previous && log.matches(hint));
        }
        check(&log, &plain);
    }

    #[test]
    fn messages_in_any_order_take_nothing_away_that_was_confirmed(
        pair in pairs(),
        messages in prop::collection::vec(messages(), 1..20),
    ) {
        let mut log = new_log(&pair.follower);
        let mut confirmed = 0;
        for message in messages {
            let (previous, entries) = pair.message(message);
            if let Ok(index) = log.try_append(previous, &entries) {
                confirmed = confirmed.max(index.0 as usize);
            }
            let held = log.entries_from(LogIndex(1));
            prop_assert!(held.starts_with(&pair.leader[..confirmed]));
        }
    }

    #[test]
    fn hints_lead_to_the_last_agreed_entry_or_to_a_snapshot(
        mut pair in pairs(),
        compacted in 0usize..20,
        committed in 0usize..8,
    ) {
        // A leader begins with an entry of its own term, above all others.
        pair.leader.push(entry(pair.leader.len() as u64 + 1, 999));
        let mut leader = new_log(&pair.leader);
        leader.commit_to(LogIndex(compacted as u64));
        leader.compact(LogIndex(compacted as u64));
        let mut follower = pair.follower_log(committed, committed);
        let mut previous = leader.last();
        let terms: BTreeSet<Term> = pair.leader.iter().map(|entry| entry.term).collect();
        for _ in 0..=terms.len() {
            let entries = leader.entries_from(previous.index.next()).to_vec();
            let Err(hint) = follower.try_append(previous, &entries) else {
                check(&follower, &pair.leader);
                return Ok(());
            };
            let index = leader.find_conflict(hint);
            prop_assert!(index < previous.index, "{hint:?} leads nowhere");
            let Some(term) = leader.term_at(index) else {
                prop_assert!(index < leader.start().index);
                prop_assert!(pair.agreed < leader.start().index.0 as usize, "a needless snapshot");
                return Ok(());
            };
            prop_assert!(index.0 as usize >= pair.agreed, "{hint:?} skips a matching entry");
            previous = LogPosition { index, term };
        }
        prop_assert!(false, "more hints than terms");
    }

    #[test]
    fn a_slice_is_the_longest_that_is_allowed(
        pair in pairs(),
        from in 1u64..18,
        bytes_max in 0usize..400,
    ) {
        let slice = new_log(&pair.leader).slice(LogIndex(from), bytes_max).expect("held");
        let rest = pair.leader.get(from as usize - 1..).unwrap_or_default();
        let cost = |count: usize| rest[..count].iter().map(Entry::cost_bytes).sum::<usize>();
        let longest = (0..=rest.len()).rev().find(|&count| cost(count) <= bytes_max);
        let expected = longest.unwrap_or(0).max(1).min(rest.len());
        prop_assert_eq!(&slice[..], &rest[..expected]);
    }
}

/// A follower with its disk under leaders of rising terms, each of which holds what is committed.
struct World {
    /// The log of the leader of each term that had one; the last one leads.
    leaders: Vec<(u64, Vec<Entry>)>,
    committed: Vec<Entry>,
    log: Log,
    plain: Vec<Entry>,
    disk: Vec<Entry>,
    write: Option<Vec<Entry>>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A leader whose log is a beginning of an earlier leader's or of the follower's.
    Elect {
        like: usize,
        cut: usize,
    },
    /// The leader appends.
    Extend(usize),
    /// The follower receives entries of the leader.
    Deliver {
        from: usize,
        count: usize,
    },
    /// What the follower and the leader agree on is committed, up to here.
    Commit(usize),
    Compact(u64),
    BeginWrite,
    FinishWrite,
    /// The follower forgets what is not on its disk.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0usize..6, 0usize..12).prop_map(|(like, cut)| Step::Elect { like, cut }),
        4 => (1usize..4).prop_map(Step::Extend),
        8 => (0usize..12, 0usize..6).prop_map(|(from, count)| Step::Deliver { from, count }),
        1 => (0usize..12).prop_map(Step::Commit),
        1 => (0u64..12).prop_map(Step::Compact),
        4 => Just(Step::BeginWrite),
        4 => Just(Step::FinishWrite),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

impl World {
    fn new() -> World {
        World {
            leaders: vec![(1, Vec::new())],
            committed: Vec::new(),
            log: new_log(&[]),
            plain: Vec::new(),
            disk: Vec::new(),
            write: None,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Elect { like, cut } => self.elect(like, cut),
            Step::Extend(count) => {
                let (term, log) = self.leaders.last_mut().expect("there is always one");
                (0..count).for_each(|_| log.push(entry(log.len() as u64 + 1, *term)));
            }
            Step::Deliver { from, count } => self.deliver(from, count),
            Step::Commit(most) => self.commit(most),
            Step::Compact(index) => self.log.compact(LogIndex(index)),
            Step::BeginWrite if self.write.is_none() && !self.log.unstable().is_empty() => {
                self.write = Some(self.log.unstable().to_vec());
            }
            Step::BeginWrite => {}
            Step::FinishWrite => self.finish_write(),
            Step::Restart => self.restart(),
        }
    }

    fn elect(&mut self, like: usize, cut: usize) {
        let term = self.leaders.last().map_or(1, |(term, _)| term + 1);
        let earlier = self.leaders.iter().rev().map(|(_, log)| log);
        let mut may: Vec<&Vec<Entry>> = earlier.chain([&self.plain, &self.committed]).collect();
        may.retain(|log| log.starts_with(&self.committed));
        let mut log = may[like % may.len()].clone();
        log.truncate(cut.max(self.committed.len()));
        self.leaders.push((term, log));
    }

    fn leader(&self) -> &[Entry] {
        &self.leaders.last().expect("there is always one").1
    }

    fn deliver(&mut self, from: usize, count: usize) {
        let from = from % (self.leader().len() + 1);
        let through = (from + count).min(self.leader().len());
        let previous = position_of(self.leader(), from);
        let entries = self.leader()[from..through].to_vec();
        let accepted = self.log.try_append(previous, &entries).is_ok();
        assert_eq!(accepted, append_plainly(&mut self.plain, previous, &entries));
    }

    fn commit(&mut self, most: usize) {
        let count = matching(&self.plain, self.leader()).min(most);
        if count > self.committed.len() {
            self.committed = self.plain[..count].to_vec();
        }
        self.log.commit_to(LogIndex(count as u64));
    }

    fn finish_write(&mut self) {
        let Some(write) = self.write.take() else { return };
        let (first, last) = (&write[0], &write[write.len() - 1]);
        self.disk.truncate(first.index.0 as usize - 1);
        assert_eq!(self.disk.len() as u64 + 1, first.index.0, "a gap on disk");
        self.log.stable_to(last.position());
        self.disk.extend(write);
    }

    fn restart(&mut self) {
        self.write = None;
        let start = self.log.start_at(self.log.start().index).expect("the start is known");
        let kept = self.disk[start.position.index.0 as usize..].to_vec();
        self.log = Log::new(start, kept);
        self.plain = self.disk.clone();
    }

    fn check(&self) {
        check(&self.log, &self.plain);
        let stable = self.log.stable().0 as usize;
        assert!(self.disk.len() >= stable && self.disk[..stable] == self.plain[..stable]);
        let committed = self.log.committed().0 as usize;
        assert_eq!(self.plain[..committed], self.committed[..committed]);
    }
}

proptest! {
    #[test]
    fn what_counts_as_stable_is_on_disk_whatever_leaders_replace(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        for step in [Step::FinishWrite, Step::BeginWrite, Step::FinishWrite] {
            world.step(&step);
        }
        prop_assert!(world.log.unstable().is_empty());
        prop_assert_eq!(world.disk, world.plain);
    }
}
