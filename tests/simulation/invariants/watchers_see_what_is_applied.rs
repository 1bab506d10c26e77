//! Between where a watch began and where it says that it has come to, it tells every applied entry
//! that changed a key it watches: once, whole, and in the order of the partition's log; and nothing
//! else. Once everything has healed it comes to the end.
//!
//! Rests on: only committed entries are applied, by all replicas alike (Ongaro 2014, section 3), so
//! that any of them may tell; and on positions that outlive whoever told.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coterie::node::groups::observer::Observed;
use coterie::node::watch::Changes;
use coterie::protocol::group::command::{Action, Command, Operation, Step};
use coterie::protocol::group::reply::{Reply, StepResult};
use coterie::protocol::raft::entry::Payload;
use coterie::types::{GroupId, Key, LogIndex, PartitionId, Revision};

use crate::history::Evidence;
use crate::strong::watcher::{Applied, Stretch};

pub(crate) const NAME: &str = "watchers_see_what_is_applied";

/// What a key must be told to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Value(Bytes),
    EndsWith(Bytes),
    Deleted,
}

/// What an entry must be told to have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    revision: Revision,
    keys: BTreeMap<Key, Expected>,
}

type Expectations = BTreeMap<PartitionId, BTreeMap<LogIndex, Change>>;

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let strong = &evidence.strong;
    let expected = expectations(&strong.applied);
    let wrong = strong.stretches.iter().flat_map(|stretch| judge(stretch, &expected));
    strong.unfollowed.iter().cloned().chain(wrong).collect()
}

fn judge(stretch: &Stretch, expected: &Expectations) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut told: BTreeMap<PartitionId, BTreeMap<LogIndex, &Changes>> = BTreeMap::new();
    for changes in &stretch.changes {
        let (partition, index) = (changes.partition, changes.entry.index);
        let of_partition = told.entry(partition).or_default();
        if of_partition.last_key_value().is_some_and(|(last, _)| *last >= index) {
            wrong.push(format!("entry {index} of partition {} is told late or again", partition.0));
        }
        of_partition.insert(index, changes);
    }
    for (partition, began) in &stretch.began {
        let reached = stretch.reached.get(partition).copied().unwrap_or_default();
        let told = told.remove(partition).unwrap_or_default();
        let due = expected.get(partition).into_iter().flatten();
        let due = due.filter(|(index, _)| *began < **index && **index <= reached);
        let due: BTreeMap<LogIndex, &Change> = due.map(|(index, due)| (*index, due)).collect();
        let indexes: BTreeSet<LogIndex> = due.keys().chain(told.keys()).copied().collect();
        wrong.extend(indexes.into_iter().filter_map(|index| {
            let (due, told) = (due.get(&index).copied(), told.get(&index).copied());
            let detail = differ(due, told)?;
            Some(format!("entry {index} of partition {}: {detail}", partition.0))
        }));
    }
    wrong.extend(told.keys().map(|partition| format!("partition {} is not watched", partition.0)));
    wrong
}

/// How what was told of an entry differs from what was due.
fn differ(due: Option<&Change>, told: Option<&Changes>) -> Option<String> {
    let (due, told) = match (due, told) {
        (Some(due), Some(told)) => (due, told),
        (Some(due), None) => return Some(format!("{due:?} was passed over")),
        (None, told) => return Some(format!("{told:?} was told of what changed nothing")),
    };
    let events = &told.entry.events;
    let keys: BTreeSet<&Key> = events.iter().map(|event| &event.key).collect();
    let is_as_due = events.iter().all(|event| {
        let value = event.value.as_ref();
        match due.keys.get(&event.key) {
            Some(Expected::Value(due)) => value == Some(due),
            Some(Expected::EndsWith(due)) => value.is_some_and(|value| value.ends_with(due)),
            Some(Expected::Deleted) => value.is_none(),
            None => false,
        }
    });
    let is_whole = keys.len() == events.len() && keys.into_iter().eq(due.keys.keys());
    let is_right = is_as_due && is_whole && told.entry.revision == due.revision;
    (!is_right).then(|| format!("{due:?} was told as {:?}", told.entry))
}

/// What all applied entries changed. A command that was repeated is answered with the revision of
/// its first execution, and changes nothing.
fn expectations(applied: &Applied) -> Expectations {
    let mut seen: BTreeSet<(GroupId, Revision)> = BTreeSet::new();
    let mut expected = Expectations::new();
    for ((group, index), observed) in applied {
        let Some(change) = change(observed) else { continue };
        if seen.insert((*group, change.revision)) && !change.keys.is_empty() {
            expected.entry(group.partition()).or_default().insert(*index, change);
        }
    }
    expected
}

fn change(observed: &Observed) -> Option<Change> {
    let Payload::Command(command) = &observed.entry.payload else { return None };
    let Operation::Write(steps) = Command::decode(command).ok()?.operation else { return None };
    let reply = Reply::decode(observed.reply.as_ref()?).ok()?;
    let Reply::Written { revision, results } = reply else { return None };
    let mut keys = BTreeMap::new();
    for (Step { key, action, .. }, result) in steps.into_iter().zip(results) {
        if let Some(expected) = of_step(action, result) {
            keys.insert(key, expected);
        }
    }
    Some(Change { revision, keys })
}

fn of_step(action: Action, result: StepResult) -> Option<Expected> {
    let deleted = result.existed.then_some(Expected::Deleted);
    match action {
        Action::Put(value) | Action::CompareAndSet { then: Some(value), .. } => {
            Some(Expected::Value(value))
        }
        Action::Append(suffix) => Some(Expected::EndsWith(suffix)),
        Action::Delete | Action::CompareAndSet { then: None, .. } => deleted,
        Action::Check(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use coterie::protocol::raft::entry::Entry;
    use coterie::protocol::watch::{WatchEntry, WatchEvent};
    use coterie::types::{KeyspaceId, Term, Timestamp};

    use super::*;
    use crate::strong::StrongEvidence;

    const PARTITION: PartitionId = PartitionId(1);

    /// An entry that put a value to a key; its revision is as its index.
    fn applied(index: u64, revision: u64) -> ((GroupId, LogIndex), Observed) {
        let (key, action) = (Key::from("k"), Action::Put(Bytes::from(format!("v{index}"))));
        let steps = vec![Step { keyspace: KeyspaceId(1), key, action }];
        let command = Command {
            stamp: Timestamp(0),
            value_bytes_max: 100,
            session: None,
            operation: Operation::Write(steps),
        };
        let results = vec![StepResult { existed: true, created: None, value_bytes: 2 }];
        let reply = Reply::Written { revision: Revision(revision), results };
        let payload = Payload::Command(command.encode());
        let entry = Entry { term: Term(1), index: LogIndex(index), payload };
        let observed = Observed { entry, reply: Some(reply.encode()) };
        ((GroupId::of(PARTITION), LogIndex(index)), observed)
    }

    fn told(index: u64, value: &str) -> Changes {
        let value = Some(Bytes::copy_from_slice(value.as_bytes()));
        let events = vec![WatchEvent { key: Key::from("k"), value }];
        let entry = WatchEntry { index: LogIndex(index), revision: Revision(index), events };
        Changes { partition: PARTITION, entry }
    }

    fn broken(changes: Vec<Changes>, reached: u64) -> usize {
        let at = |index| [(PARTITION, LogIndex(index))].into();
        let stretch = Stretch { began: at(2), reached: at(reached), changes };
        // The fourth repeats the third.
        let applied = [applied(2, 2), applied(3, 3), applied(4, 3), applied(5, 5)].into();
        let strong =
            StrongEvidence { applied, stretches: vec![stretch], ..StrongEvidence::default() };
        check(&Evidence { strong, ..Evidence::default() }).len()
    }

    #[test]
    fn it_holds_when_all_is_told_once_and_in_order() {
        assert_eq!(broken(vec![told(3, "v3"), told(5, "v5")], 5), 0);
        assert_eq!(broken(vec![told(3, "v3")], 4), 0);
        assert_eq!(broken(vec![], 2), 0);
    }

    #[test]
    fn it_fails_when_something_is_missing_wrong_late_or_too_much() {
        assert_eq!(broken(vec![told(5, "v5")], 5), 1);
        assert_eq!(broken(vec![told(3, "v4"), told(5, "v5")], 5), 1);
        assert_eq!(broken(vec![told(5, "v5"), told(3, "v3")], 5), 1);
        assert_eq!(broken(vec![told(3, "v3"), told(3, "v3")], 3), 1);
        assert_eq!(broken(vec![told(2, "v2"), told(3, "v3")], 3), 1);
        assert_eq!(broken(vec![told(3, "v3"), told(4, "v4")], 4), 1);
    }
}
