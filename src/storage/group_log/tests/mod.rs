//! The mirror against a model, over histories in which the log's beginning goes again and again.

mod crashes;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::raft::entry::{LogPosition, Payload};
use crate::protocol::raft::membership::Membership;
use crate::types::{NodeId, Term};

/// Small, so that a few entries take several records.
const RECORD_BYTES_MAX: usize = 150;

const GROUP: GroupId = GroupId(7);
const REPLICA: ReplicaId = ReplicaId(70);

fn position(index: u64, term: u64) -> LogPosition {
    LogPosition { index: LogIndex(index), term: Term(term) }
}

fn start(at: LogPosition) -> LogStart {
    let mut membership = Membership::default();
    membership.voters.insert(REPLICA);
    membership.nodes.insert(REPLICA, NodeId(at.index.0));
    LogStart { position: at, membership, membership_index: at.index }
}

fn hard_state(term: u64) -> HardState {
    HardState { term: Term(term), voted_for: Some(REPLICA), commit: LogIndex(term) }
}

fn entry(index: u64, term: u64) -> Entry {
    let payload = match index % 4 {
        0 => Payload::Empty,
        1 => Payload::Membership(start(position(index, term)).membership),
        _ => Payload::Command(Bytes::from(format!("{index} of {term}").repeat(3))),
    };
    Entry { term: Term(term), index: LogIndex(index), payload }
}

fn entries(indexes: std::ops::RangeInclusive<u64>, term: u64) -> GroupRecord {
    let entries = indexes.map(|index| entry(index, term)).collect();
    GroupRecord::Entries { group: GROUP, replica: REPLICA, entries }
}

fn begins_at(index: u64, term: u64) -> GroupRecord {
    GroupRecord::Start { group: GROUP, replica: REPLICA, start: start(position(index, term)) }
}

fn founding() -> GroupRecord {
    GroupRecord::founding(GROUP, REPLICA, HardState::default(), start(position(0, 0)))
}

/// Tells records at 1, 2 and so on; the first error ends it.
fn told(records: &[GroupRecord]) -> (GroupLogs, Result<(), GroupLogError>) {
    let mut logs = GroupLogs::recovering();
    let first_error = (1..).zip(records).try_for_each(|(lsn, it)| logs.on_record(Lsn(lsn), it));
    (logs, first_error)
}

fn indexes(logs: &GroupLogs) -> Vec<(u64, u64)> {
    let log = logs.restored(GROUP).unwrap();
    log.entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect()
}

#[test]
fn entries_replace_those_from_the_first_ones_index_on() {
    let (logs, told) = told(&[founding(), entries(1..=4, 1), entries(3..=3, 2)]);
    assert_eq!(told, Ok(()));
    assert_eq!(indexes(&logs), [(1, 1), (2, 1), (3, 2)]);
}

#[test]
fn a_start_at_an_entry_keeps_those_behind_it() {
    let (logs, told) = told(&[founding(), entries(1..=4, 1), begins_at(2, 1)]);
    assert_eq!(told, Ok(()));
    assert_eq!(indexes(&logs), [(3, 1), (4, 1)]);
    assert_eq!(logs.restored(GROUP).unwrap().start, start(position(2, 1)));
}

#[test]
fn a_start_elsewhere_keeps_nothing() {
    for (index, term) in [(2, 2), (9, 1)] {
        let (logs, told) = told(&[founding(), entries(1..=4, 1), begins_at(index, term)]);
        assert_eq!(told, Ok(()));
        assert_eq!(indexes(&logs), []);
        assert_eq!((logs.entries(), logs.bytes()), (0, 0));
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let (group, replica) = (GROUP, REPLICA);
    let before = [founding(), entries(1..=4, 1), begins_at(2, 1)];
    let jumps = vec![entry(5, 1), entry(7, 1)];
    let jumping = GroupRecord::Entries { group, replica, entries: jumps };
    let other = GroupRecord::Removed { group, replica: ReplicaId(71) };
    let founded_again = GroupRecord::founding(group, replica, hard_state(9), start(position(2, 1)));
    let carried = GroupRecord::Carried { group, replica, entries: vec![entry(3, 1)] };
    let cases = [
        (entries(6..=6, 1), GroupLogError::Gap { group, last: LogIndex(4), got: LogIndex(6) }),
        (jumping, GroupLogError::Gap { group, last: LogIndex(5), got: LogIndex(7) }),
        (
            entries(2..=6, 1),
            GroupLogError::Compacted { group, start: LogIndex(2), got: LogIndex(2) },
        ),
        (begins_at(1, 1), GroupLogError::Compacted { group, start: LogIndex(2), got: LogIndex(1) }),
        (begins_at(2, 2), GroupLogError::Contradiction { group, replica }),
        (other, GroupLogError::OtherReplica { group, held: replica, got: ReplicaId(71) }),
        (founded_again, GroupLogError::Contradiction { group, replica }),
        (carried, GroupLogError::Contradiction { group, replica }),
    ];
    for (record, error) in cases {
        let (mut logs, told) = told(&before);
        assert_eq!((told, logs.recovered()), (Ok(()), Ok(())));
        let stored = logs.restored(GROUP);
        assert_eq!(logs.on_record(Lsn(9), &record), Err(error), "{record:?}");
        assert_eq!(logs.restored(GROUP), stored, "{record:?}");
    }
}

#[test]
fn a_group_without_its_beginning_is_an_error_at_the_end_of_recovery() {
    let no_beginning = Err(GroupLogError::NoBeginning { group: GROUP, replica: REPLICA });
    for record in [entries(3..=4, 1), begins_at(2, 1)] {
        let (mut logs, told) = told(&[record]);
        assert_eq!(told, Ok(()));
        assert_eq!(logs.restored(GROUP), None);
        assert_eq!(logs.recovered(), no_beginning);
    }
    let mut logs = GroupLogs::recovering();
    logs.recovered().unwrap();
    assert_eq!(logs.on_record(Lsn(1), &entries(1..=1, 1)), no_beginning);
}

#[test]
fn a_group_that_stands_without_all_its_entries_is_an_error_at_the_end_of_recovery() {
    let (group, replica) = (GROUP, REPLICA);
    let (hard_state, start, last) = (hard_state(1), start(position(2, 1)), LogIndex(4));
    let standing = GroupRecord::Standing { group, replica, hard_state, start, last };
    let third = GroupRecord::Carried { group, replica, entries: vec![entry(3, 1)] };
    let incomplete = Err(GroupLogError::Incomplete { group, replica });
    assert_eq!(told(&[standing.clone(), third.clone()]).0.recovered(), incomplete);
    let fourth = GroupRecord::Carried { group, replica, entries: vec![entry(4, 1)] };
    let (mut logs, _) = told(&[standing, third, fourth]);
    assert_eq!((logs.recovered(), indexes(&logs)), (Ok(()), vec![(3, 1), (4, 1)]));
}

#[test]
fn what_changes_while_it_is_carried_over_must_be_carried_over_anew() {
    let (group, replica) = (GROUP, REPLICA);
    let (mut logs, _) = told(&[founding(), entries(1..=2, 1)]);
    let overdue = logs.overdue(Lsn(1), RECORD_BYTES_MAX);
    let vote = GroupRecord::HardState { group, replica, hard_state: hard_state(1) };
    logs.on_record(Lsn(3), &overdue[0]).unwrap();
    logs.on_record(Lsn(4), &vote).unwrap();
    let contradiction = Err(GroupLogError::Contradiction { group, replica });
    assert_eq!(logs.on_record(Lsn(5), &overdue[1]), contradiction);
    assert_eq!(logs.overdue(Lsn(1), RECORD_BYTES_MAX).len(), overdue.len());
}

#[test]
fn removed_groups_and_their_remains_are_forgotten() {
    let removed = GroupRecord::Removed { group: GROUP, replica: REPLICA };
    for before in [vec![], vec![founding()], vec![entries(5..=6, 1)]] {
        let (mut logs, told) = told(&[before, vec![removed.clone()]].concat());
        assert_eq!((told, logs.recovered()), (Ok(()), Ok(())));
        assert_eq!(logs.groups().count(), 0);
    }
}

#[test]
fn what_is_carried_over_is_bounded_by_record_and_by_turn() {
    let mut logs = GroupLogs::recovering();
    logs.recovered().unwrap();
    let command = Payload::Command(Bytes::from(vec![7; 1000]));
    for number in 0..4 {
        let (group, replica) = (GroupId(number), ReplicaId(u64::from(number)));
        let founding = GroupRecord::founding(group, replica, hard_state(1), start(position(0, 0)));
        logs.on_record(Lsn(1), &founding).unwrap();
        let entry =
            |index| Entry { index: LogIndex(index), payload: command.clone(), term: Term(1) };
        let entries = (1..=700).map(entry).collect();
        logs.on_record(Lsn(2), &GroupRecord::Entries { group, replica, entries }).unwrap();
    }
    assert_eq!((logs.entries(), logs.bytes()), (2800, 2800 * 1032));
    let overdue = logs.overdue(Lsn(2), CARRIED_RECORD_BYTES_MAX);
    assert!(overdue.iter().all(|record| record.encoded_bytes() <= CARRIED_RECORD_BYTES_MAX));
    assert!(overdue.len() < 10, "{} records", overdue.len());
    assert!(overdue.iter().all(|record| record.group() < GroupId(2)));
    for (lsn, record) in (3..).zip(&overdue) {
        logs.on_record(Lsn(lsn), record).unwrap();
    }
    let overdue = logs.overdue(Lsn(2), CARRIED_RECORD_BYTES_MAX);
    assert!(overdue.iter().all(|record| record.group() >= GroupId(2)));
}

/// One thing that happens; numbers are taken modulo what is possible.
#[derive(Clone, Debug)]
enum Step {
    /// A group gets a replica, or its replica goes.
    FoundOrRemove { group: u16 },
    /// Entries behind the log, or in place of its last few.
    Append { group: u16, replaced: u64, count: u64 },
    /// Another term and vote.
    Vote { group: u16 },
    /// The log is cut at one of its entries.
    Compact { group: u16, at: u64 },
    /// A snapshot from beyond the log, or from a term that the log has not.
    Install { group: u16, at: u64 },
    /// What is overdue is appended, or `cut` records of it before a crash, and some of the log's
    /// beginning goes.
    DropPrefix { through: u64, dropped: u64, cut: Option<usize> },
}

fn any_step() -> impl Strategy<Value = Step> {
    let group = 0..3u16;
    prop_oneof![
        1 => group.clone().prop_map(|group| Step::FoundOrRemove { group }),
        5 => (group.clone(), 0..4u64, 1..5u64)
            .prop_map(|(group, replaced, count)| Step::Append { group, replaced, count }),
        2 => group.clone().prop_map(|group| Step::Vote { group }),
        2 => (group.clone(), any::<u64>()).prop_map(|(group, at)| Step::Compact { group, at }),
        1 => (group, any::<u64>()).prop_map(|(group, at)| Step::Install { group, at }),
        3 => (any::<u64>(), any::<u64>(), proptest::option::of(0..6usize))
            .prop_map(|(through, dropped, cut)| Step::DropPrefix { through, dropped, cut }),
    ]
}

/// The log's records, the mirror, and what the mirror should know.
struct World {
    log: BTreeMap<Lsn, GroupRecord>,
    next_lsn: u64,
    logs: GroupLogs,
    model: BTreeMap<GroupId, StoredLog>,
    term: u64,
}

impl World {
    fn new() -> World {
        let mut logs = GroupLogs::recovering();
        logs.recovered().unwrap();
        World { log: BTreeMap::new(), next_lsn: 1, logs, model: BTreeMap::new(), term: 0 }
    }

    fn commit(&mut self, record: GroupRecord) {
        let lsn = Lsn(self.next_lsn);
        self.next_lsn += 1;
        self.logs.on_record(lsn, &record).unwrap();
        self.log.insert(lsn, record);
    }

    fn step(&mut self, step: &Step) {
        self.term += 1;
        match *step {
            Step::FoundOrRemove { group } => self.found_or_remove(GroupId(group)),
            Step::DropPrefix { through, dropped, cut } => self.drop_prefix(through, dropped, cut),
            Step::Append { group, .. }
            | Step::Vote { group }
            | Step::Compact { group, .. }
            | Step::Install { group, .. } => self.change(GroupId(group), step),
        }
    }

    fn found_or_remove(&mut self, group: GroupId) {
        let record = match self.model.remove(&group) {
            Some(log) => GroupRecord::Removed { group, replica: log.replica },
            None => {
                let (replica, hard_state) = (ReplicaId(self.term), HardState::default());
                let start = start(position(self.term % 3, 1));
                let founding = GroupRecord::founding(group, replica, hard_state, start.clone());
                let log = StoredLog { replica, hard_state, start, entries: Vec::new() };
                self.model.insert(group, log);
                founding
            }
        };
        self.commit(record);
    }

    fn change(&mut self, group: GroupId, step: &Step) {
        let term = self.term;
        let Some(log) = self.model.get_mut(&group) else { return };
        let replica = log.replica;
        let (first, held) = (log.start.position.index.0 + 1, log.entries.len() as u64);
        let record = match *step {
            Step::Append { replaced, count, .. } => {
                let kept = held - replaced.min(held);
                log.entries.truncate(kept as usize);
                let entries = (first + kept..).take(count as usize).map(|at| entry(at, term));
                let entries: Vec<Entry> = entries.collect();
                log.entries.extend(entries.iter().cloned());
                GroupRecord::Entries { group, replica, entries }
            }
            Step::Compact { at, .. } if held > 0 => {
                let last = log.entries.drain(..=(at % held) as usize).next_back().unwrap();
                log.start = start(last.position());
                GroupRecord::Start { group, replica, start: log.start.clone() }
            }
            Step::Install { at, .. } => {
                log.entries.clear();
                log.start = start(position(first + at % (held + 3), term));
                GroupRecord::Start { group, replica, start: log.start.clone() }
            }
            _ => {
                log.hard_state = hard_state(term);
                GroupRecord::HardState { group, replica, hard_state: log.hard_state }
            }
        };
        self.commit(record);
    }

    fn drop_prefix(&mut self, through: u64, dropped: u64, cut: Option<usize>) {
        let Some(&oldest) = self.log.keys().next() else { return };
        let through = Lsn(oldest.0 + through % (self.next_lsn - oldest.0));
        loop {
            let overdue = self.logs.overdue(through, RECORD_BYTES_MAX);
            if overdue.is_empty() {
                break;
            }
            for record in overdue.iter().take(cut.unwrap_or(usize::MAX)) {
                self.commit(record.clone());
            }
            if cut.is_some_and(|cut| cut < overdue.len()) {
                return self.restart();
            }
        }
        // Segments go one by one, and a crash may come between any two.
        let dropped = Lsn(oldest.0 + dropped % (through.0 - oldest.0 + 1));
        self.log.retain(|lsn, _| *lsn > dropped);
        self.restart();
    }

    fn restart(&mut self) {
        self.logs = GroupLogs::recovering();
        for (lsn, record) in &self.log {
            self.logs.on_record(*lsn, record).unwrap();
        }
        self.logs.recovered().unwrap();
    }

    fn check(&self) {
        assert_eq!(
            self.logs.groups().collect::<Vec<_>>(),
            Vec::from_iter(self.model.keys().copied())
        );
        for (group, log) in &self.model {
            assert_eq!(self.logs.restored(*group).as_ref(), Some(log));
        }
        let entries = || self.model.values().flat_map(|log| &log.entries);
        assert_eq!(self.logs.entries(), entries().count());
        assert_eq!(self.logs.bytes(), entries().map(Entry::cost_bytes).sum::<usize>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_left_of_the_log_gives_back_what_the_groups_remember(
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.restart();
        world.check();
    }
}
