//! In the end all replicas of a group hold the same rows, tombstones and sessions included.
//!
//! Rests on: State Machine Safety (Ongaro 2014, section 3.6.3): all apply the same entries in the
//! same order, or take over a snapshot of just that.

use std::collections::BTreeMap;

use coterie::types::{GroupId, Row};

use crate::history::Evidence;
use crate::strong::Copy;

pub(crate) const NAME: &str = "replicas_of_a_group_agree";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let mut firsts: BTreeMap<GroupId, &Copy> = BTreeMap::new();
    let mut wrong = Vec::new();
    for copy in &evidence.strong.copies {
        let first = *firsts.entry(copy.group).or_insert(copy);
        if first.applied == copy.applied {
            wrong.extend(difference(first, copy));
        } else {
            let (one, other) = (first.applied, copy.applied);
            wrong.push(format!("group {} is applied to {one} and to {other}", copy.group));
        }
    }
    wrong
}

/// The first row that two replicas differ in.
fn difference(one: &Copy, other: &Copy) -> Option<String> {
    let index = |copy: &Copy| -> BTreeMap<_, Row> {
        copy.rows.iter().map(|row| ((row.keyspace, row.key.clone()), row.clone())).collect()
    };
    let (one_rows, other_rows) = (index(one), index(other));
    let keys = one_rows.keys().chain(other_rows.keys());
    let mut differing = keys.filter(|key| one_rows.get(key) != other_rows.get(key));
    differing.next().map(|key| {
        format!(
            "group {}: node {} holds {:?}, node {} holds {:?}",
            one.group,
            one.node,
            one_rows.get(key),
            other.node,
            other_rows.get(key)
        )
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use coterie::types::{Key, KeyspaceId, LogIndex, NodeId, Record, ReplicaId};

    use super::*;
    use crate::history::story::version;
    use crate::strong::StrongEvidence;

    fn copy(node: u64, applied: u64, value: Option<&'static str>) -> Copy {
        let record = value.map(|value| Record::new(version(1), Some(Bytes::from(value))));
        let row = |record| Row { keyspace: KeyspaceId(1), key: Key::from("k"), record };
        Copy {
            group: GroupId(1),
            replica: ReplicaId(node),
            node: NodeId(node),
            applied: LogIndex(applied),
            rows: record.map(row).into_iter().collect(),
        }
    }

    fn judged(copies: Vec<Copy>) -> usize {
        let strong = StrongEvidence { copies, ..StrongEvidence::default() };
        check(&Evidence { strong, ..Evidence::default() }).len()
    }

    #[test]
    fn it_holds_for_equal_copies() {
        assert_eq!(judged(vec![copy(1, 5, Some("a")), copy(2, 5, Some("a"))]), 0);
    }

    #[test]
    fn it_fails_for_another_value_a_missing_row_and_another_index() {
        assert_eq!(judged(vec![copy(1, 5, Some("a")), copy(2, 5, Some("b"))]), 1);
        assert_eq!(judged(vec![copy(1, 5, Some("a")), copy(2, 5, None)]), 1);
        assert_eq!(judged(vec![copy(1, 5, Some("a")), copy(2, 4, Some("a"))]), 1);
    }
}
