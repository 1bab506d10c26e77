//! Whatever a read returns was written by an operation on that key that had begun by then, under
//! the version that the writer was told; and no version names two writes. A value that has expired
//! reads as nothing; when it may is judged by `values_end_in_time`.
//!
//! Rests on: values travel and rest under checksums; a version is a stamp above all that its
//! coordinator has seen, made unique by the incarnation (blueprint, section 5, step 2).

use std::collections::BTreeMap;

use coterie::node::request::ReadAnswer;
use coterie::types::{Key, Version};

use crate::history::{Action, Evidence, Operation};

pub(crate) const NAME: &str = "answer_is_never_invented";

/// What a version was seen to stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Content<'a> {
    Value(&'a [u8]),
    Tombstone,
}

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let mut wrong = versions_with_two_meanings(evidence);
    let reads = evidence.operations.iter().filter(|operation| operation.read().is_some());
    wrong.extend(reads.filter_map(|read| invented(evidence, read)));
    wrong
}

fn invented(evidence: &Evidence, read: &Operation) -> Option<String> {
    let answer = read.read()?;
    let key = &read.key;
    let Some(version) = answer.receipt.version else {
        let value = answer.value.as_ref()?;
        return Some(format!("{key}: value {value:?} was read without a version"));
    };
    let explains = |write: &&Operation| {
        let told = write.acknowledged().map(|receipt| receipt.version);
        write.key == *key
            && write.invoked < read.answered
            && told.is_none_or(|told| told == Some(version))
            && match (&write.action, &answer.value) {
                (Action::Put(written), Some(value)) => written == value,
                (Action::Delete, None) => true,
                (Action::Put(_), None) => {
                    write.options.ttl.is_some() && answer.receipt.expires_at.is_some()
                }
                _ => false,
            }
    };
    match evidence.operations.iter().find(explains) {
        Some(_) => None,
        None => Some(format!("{key}: nobody wrote {:?} as version {version}", answer.value)),
    }
}

fn versions_with_two_meanings(evidence: &Evidence) -> Vec<String> {
    let mut meanings: BTreeMap<(&Key, Version), Content<'_>> = BTreeMap::new();
    let mut writers: BTreeMap<Version, &Operation> = BTreeMap::new();
    let mut wrong = Vec::new();
    for operation in &evidence.operations {
        let Some((version, content)) = meaning(operation) else { continue };
        let known = *meanings.entry((&operation.key, version)).or_insert(content);
        if known != content {
            wrong
                .push(format!("{}: version {version} is {known:?} and {content:?}", operation.key));
        }
        let written = operation.acknowledged().is_some();
        if written && writers.insert(version, operation).is_some() {
            wrong.push(format!("{}: version {version} was acknowledged twice", operation.key));
        }
    }
    wrong
}

fn meaning(operation: &Operation) -> Option<(Version, Content<'_>)> {
    if let Some(receipt) = operation.acknowledged() {
        let content = match &operation.action {
            Action::Put(value) => Content::Value(value),
            _ => Content::Tombstone,
        };
        return Some((receipt.version?, content));
    }
    let ReadAnswer { value, receipt, .. } = operation.read()?;
    let content = match value {
        Some(value) => Content::Value(value),
        None if receipt.expires_at.is_some() => return None,
        None => Content::Tombstone,
    };
    Some((receipt.version?, content))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::history::Answer;
    use crate::history::story::{evidence, get, operation, put};

    fn judged(operations: Vec<Operation>) -> usize {
        check(&evidence(operations)).len()
    }

    fn unanswered(value: &'static str, invoked: u64) -> Operation {
        let action = Action::Put(Bytes::from_static(value.as_bytes()));
        operation(action, (invoked, u64::MAX), Answer::NodeDied)
    }

    #[test]
    fn it_holds_for_acknowledged_and_for_unanswered_writes() {
        assert_eq!(judged(vec![put("a", 1, 2, (1, 2)), get(Some(("a", 1)), 2, (3, 4))]), 0);
        assert_eq!(judged(vec![unanswered("b", 1), get(Some(("b", 9)), 2, (3, 4))]), 0);
        assert_eq!(judged(vec![get(None, 2, (3, 4))]), 0);
    }

    #[test]
    fn it_fails_for_a_value_that_nobody_wrote_or_only_later() {
        assert_eq!(judged(vec![get(Some(("a", 1)), 2, (3, 4))]), 1);
        assert_eq!(judged(vec![get(Some(("b", 9)), 2, (3, 4)), unanswered("b", 5)]), 1);
    }

    #[test]
    fn it_fails_for_a_version_other_than_the_writer_was_told() {
        assert_eq!(judged(vec![put("a", 1, 2, (1, 2)), get(Some(("a", 7)), 2, (3, 4))]), 1);
    }

    #[test]
    fn it_fails_for_a_version_with_two_meanings() {
        let operations = vec![put("a", 1, 2, (1, 2)), put("b", 1, 2, (3, 4))];
        assert_eq!(judged(operations), 2, "two contents and two acknowledgements");
    }

    #[test]
    fn it_holds_for_the_nothing_of_an_expired_value_and_fails_where_none_expires() {
        let mut write = put("a", 5, 2, (1, 2));
        let mut read = get(None, 2, (3, 4));
        if let Some(Answer::Read(answer)) = &mut read.answer {
            answer.receipt.version = Some(crate::history::story::version(5));
            answer.receipt.expires_at = Some(coterie::types::Expiry(3));
        }
        assert_eq!(judged(vec![write.clone(), read.clone()]), 1);
        write.options.ttl = Some(std::time::Duration::from_millis(1));
        assert_eq!(judged(vec![write, read]), 0);
    }

    #[test]
    fn it_fails_for_a_tombstone_that_nobody_wrote() {
        let mut read = get(None, 2, (3, 4));
        if let Some(Answer::Read(answer)) = &mut read.answer {
            answer.receipt.version = Some(crate::history::story::version(5));
        }
        assert_eq!(judged(vec![put("a", 1, 2, (1, 2)), read]), 1);
    }
}
