//! A listing at a quorum has every key whose value was acknowledged before it began and not deleted
//! since, in that version or a newer one, each key once, and no value that nobody wrote.
//!
//! Rests on: pages of a read quorum are merged only up to the least key that each of them came to,
//! and any two quorums meet in a replica. A sloppy write promises nothing here, nor does one whose
//! quorum need not meet that of the listing.

use std::collections::BTreeMap;

use coterie::node::listing::ListedRow;
use coterie::protocol::quorum::level::Level;
use coterie::types::Key;

use crate::history::{Action, Evidence, Operation, required};
use crate::keyspaces;
use crate::listing::Listed;

pub(crate) const NAME: &str = "listings_are_whole";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let of_default = |operation: &&Operation| keyspaces::of_key(&operation.key).is_none();
    let operations: Vec<&Operation> = evidence.operations.iter().filter(of_default).collect();
    let judge = |listed| judge(listed, &operations, evidence.altered.map(|it| it.factor));
    evidence.listings.iter().flat_map(judge).collect()
}

fn judge(listed: &Listed, operations: &[&Operation], altered: Option<u32>) -> Vec<String> {
    let mut rows: BTreeMap<&Key, &ListedRow> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in &listed.rows {
        if rows.insert(&row.key, row).is_some() {
            wrong.push(format!("{} is listed twice", row.key));
        }
        if !operations.iter().any(|put| wrote(put, row, listed)) {
            wrong.push(format!("{row:?} is listed, and nobody wrote it"));
        }
    }
    let must_be_met = operations.iter().filter(|write| meets(write, altered));
    let missed = must_be_met.filter_map(|write| missed(write, &rows, listed, operations));
    wrong.extend(missed);
    wrong
}

/// Whether the operation may have written what is listed.
fn wrote(put: &Operation, row: &ListedRow, listed: &Listed) -> bool {
    let Action::Put(value) = &put.action else { return false };
    put.key == row.key && put.invoked < listed.ended && row.value.as_ref() == Some(value)
}

/// Whether a listing at a quorum meets a write, whichever N it goes by.
fn meets(write: &Operation, altered: Option<u32>) -> bool {
    write.acknowledged().is_some_and(|written| {
        let factors = [Some(written.replicas), altered].into_iter().flatten();
        let mut asked = factors.map(|n| (required(Level::Quorum, n), n.max(written.replicas)));
        asked.all(|(asked, replicas)| written.required + asked > replicas)
    })
}

/// What is wrong if the listing does not have what this write left.
fn missed(
    write: &Operation,
    rows: &BTreeMap<&Key, &ListedRow>,
    listed: &Listed,
    operations: &[&Operation],
) -> Option<String> {
    let written = write.acknowledged().filter(|receipt| receipt.fallbacks.is_empty())?;
    if write.answered >= listed.began {
        return None;
    }
    match rows.get(&write.key) {
        Some(row) if Some(row.version) >= written.version => None,
        Some(row) => Some(format!(
            "{} is listed at {:?}, and {:?} was acknowledged before",
            write.key, row.version, written.version
        )),
        None if operations.iter().any(|later| may_have_ended(later, write, listed)) => None,
        None => Some(format!(
            "{} is not listed, and {:?} was acknowledged before and not deleted",
            write.key, written.version
        )),
    }
}

/// Whether the operation, which may be the write itself, may have left the key without a value.
fn may_have_ended(operation: &Operation, write: &Operation, listed: &Listed) -> bool {
    let ends = operation.action == Action::Delete || operation.options.ttl.is_some();
    let version = operation.acknowledged().and_then(|receipt| receipt.version);
    let is_newer = version.is_none() || version >= write.acknowledged().and_then(|it| it.version);
    operation.key == write.key && ends && is_newer && operation.invoked < listed.ended
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::history::Answer;
    use crate::history::story::{evidence, operation, put, receipt, version};

    fn judged(
        operations: Vec<Operation>,
        (began, ended): (u64, u64),
        rows: &[(&str, u64)],
    ) -> usize {
        let row = |(value, stamp): &(&str, u64)| ListedRow {
            key: Key::from("k"),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            version: version(*stamp),
            expires_at: None,
            siblings: None,
        };
        let listings = vec![Listed { began, ended, rows: rows.iter().map(row).collect() }];
        check(&Evidence { listings, ..evidence(operations) }).len()
    }

    fn delete(stamp: u64, span: (u64, u64)) -> Operation {
        operation(Action::Delete, span, Answer::Written(receipt(Some(stamp), 2)))
    }

    #[test]
    fn it_fails_when_a_key_is_missed_or_older_or_twice_or_invented() {
        let written = || vec![put("a", 4, 2, (1, 2)), put("b", 5, 2, (3, 4))];
        assert_eq!(judged(written(), (5, 6), &[]), 2);
        assert_eq!(judged(written(), (5, 6), &[("a", 4)]), 1);
        assert_eq!(judged(written(), (5, 6), &[("b", 5), ("b", 5)]), 1);
        assert_eq!(judged(written(), (5, 6), &[("c", 6)]), 1);
        let deleted_before = vec![delete(3, (1, 2)), put("a", 4, 2, (3, 4))];
        assert_eq!(judged(deleted_before, (5, 6), &[]), 1);
    }

    #[test]
    fn it_asks_nothing_of_what_is_concurrent_deleted_or_not_acknowledged() {
        assert_eq!(judged(vec![put("a", 4, 2, (1, 2))], (5, 6), &[("a", 4)]), 0);
        assert_eq!(judged(vec![put("a", 4, 2, (1, 6))], (5, 7), &[]), 0);
        assert_eq!(judged(vec![put("a", 4, 1, (1, 2))], (5, 6), &[]), 0);
        let deleted = || vec![put("a", 4, 2, (1, 2)), delete(5, (5, 8))];
        assert_eq!(judged(deleted(), (6, 7), &[]), 0);
        assert_eq!(judged(deleted(), (6, 7), &[("a", 4)]), 0);
        let unknown = operation(Action::Delete, (3, u64::MAX), Answer::NodeDied);
        assert_eq!(judged(vec![put("a", 4, 2, (1, 2)), unknown], (5, 6), &[]), 0);
    }
}
