//! Two keys that are only ever written together, with one value, never differ: neither in the end,
//! nor for a command that checks both at once.
//!
//! Rests on: a transaction is one entry of the partition's log, and its rows become visible and
//! durable together (Ongaro 2014, section 3; Gray and Reuter, "Transaction Processing", 1993).

use std::collections::BTreeMap;

use coterie::node::request::RequestError;
use coterie::protocol::group::command::Action;
use coterie::types::{Key, KeyspaceId, Record};

use crate::history::Evidence;
use crate::strong::history::{Asked, Command, Told};

pub(crate) const NAME: &str = "transactions_are_whole";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let torn = evidence.strong.commands.iter().filter(|command| saw_half(command));
    let mut wrong: Vec<String> =
        torn.map(|command| format!("{:?} saw half a transaction", command.asked)).collect();
    for copy in &evidence.strong.copies {
        let mut pairs: BTreeMap<Vec<u8>, Vec<&Record>> = BTreeMap::new();
        for row in copy.rows.iter().filter(|row| row.keyspace != KeyspaceId::SESSIONS) {
            if let Some(tag) = tag(&row.key) {
                pairs.entry(tag).or_default().push(&row.record);
            }
        }
        let differing = pairs.values().filter(|records| records.len() != 2 || differ(records));
        wrong.extend(differing.map(|records| format!("node {} holds {records:?}", copy.node)));
    }
    wrong
}

/// Versions are equal, too: both rows follow from one entry.
fn differ(records: &[&Record]) -> bool {
    records.windows(2).any(|pair| pair[0].version != pair[1].version)
}

fn tag(key: &Key) -> Option<Vec<u8>> {
    let bytes = key.0.strip_prefix(b"{")?;
    Some(bytes.split(|byte| *byte == b'}').next()?.to_vec())
}

/// Whether the first key was as expected and the second, at the same moment, was not.
fn saw_half(command: &Command) -> bool {
    let Asked::Write(steps) = &command.asked else { return false };
    let checks = steps.iter().all(|(_, action)| matches!(action, Action::Check(_)));
    checks
        && command.definite().iter().any(|told| {
            matches!(told, Told::Refused(RequestError::ConditionFailed { step: 1, .. }))
        })
}

#[cfg(test)]
mod tests {
    use coterie::protocol::group::command::Expect;
    use coterie::types::{GroupId, LogIndex, NodeId, ReplicaId, Row};

    use super::*;
    use crate::history::story::version;
    use crate::strong::Copy;
    use crate::strong::story::{command, evidence};

    fn held(right: Option<u64>) -> usize {
        let row = |key: &'static str, stamp| Row {
            keyspace: KeyspaceId(1),
            key: Key::from(key),
            record: Record::new(version(stamp), None),
        };
        let left = row("{pair-0}-left", 1);
        let right = right.map(|stamp| row("{pair-0}-right", stamp));
        let mut evidence = evidence(Vec::new());
        evidence.strong.copies.push(Copy {
            group: GroupId(1),
            replica: ReplicaId(1),
            node: NodeId(1),
            applied: LogIndex(1),
            rows: [left].into_iter().chain(right).collect(),
        });
        check(&evidence).len()
    }

    #[test]
    fn it_fails_when_one_half_is_missing_or_of_another_entry() {
        assert_eq!((held(Some(1)), held(Some(2)), held(None)), (0, 1, 1));
    }

    #[test]
    fn it_fails_when_a_check_of_both_sees_one() {
        let judged = |step| {
            let check_of = |key| (Key::from(key), Action::Check(Expect::Absent));
            let asked = Asked::Write(vec![check_of("{p}-left"), check_of("{p}-right")]);
            let refusal = RequestError::ConditionFailed { step, current: None };
            check(&evidence(vec![command(asked, (1, 2), Told::Refused(refusal))])).len()
        };
        assert_eq!((judged(0), judged(1)), (0, 1));
    }
}
