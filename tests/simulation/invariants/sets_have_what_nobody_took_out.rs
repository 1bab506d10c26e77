//! A set has the elements whose addition was acknowledged and which nobody took out who had seen
//! them, and none that somebody did. This is so in the end, and at every read whose quorum meets
//! that of the change. Who takes an element out and does not say what it had seen means what was
//! acknowledged before.
//!
//! Rests on: an element is a value under its own dot, rows are joined wherever they meet, a removal
//! is minted by an owner that has heard of what it covers, and removals read first.

use crate::history::{Evidence, Sight};
use crate::looks::{self, Puts};
use crate::mergeable::{Chore, Tallied};
use crate::merging::{Call, Told};

pub(crate) const NAME: &str = "sets_have_what_nobody_took_out";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let Tallied { calls, elements, .. } = &evidence.tallied;
    looks::judge_all((evidence, calls), elements, Told::values, looks::judge_values)
}

impl Puts for Chore {
    fn puts(&self) -> Option<&str> {
        match self {
            Chore::Insert(element) => Some(element),
            _ => None,
        }
    }

    /// A removal that must have known of the addition.
    fn takes(removal: &Call<Chore>, put: &Call<Chore>, sight: Sight<'_>) -> bool {
        let Some(element) = put.errand.puts().filter(|it| removes(removal, it)) else {
            return false;
        };
        match (&removal.seen, &put.told) {
            (Some(seen), _) => seen.contains(element),
            (None, Told::Changed(receipt)) => {
                let read = sight.evidence.tallied.read_quorum.min(receipt.replicas);
                let meets = receipt.required + read > receipt.replicas;
                meets && put.answered < removal.invoked && sight.evidence.outlasts(receipt)
            }
            _ => false,
        }
    }

    fn may_take(change: &Call<Chore>, element: &str, _since: u64) -> bool {
        removes(change, element)
    }
}

fn removes(change: &Call<Chore>, element: &str) -> bool {
    matches!(&change.errand, Chore::Remove(it) if it == element)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::looks::{receipt, values};

    fn call(at: u64, errand: Chore, seen: Option<&str>) -> Call<Chore> {
        let told = Told::Changed(receipt());
        Call { key: 0, errand, seen: seen.map(values), invoked: at, answered: at + 1, told }
    }

    fn told(removed_seeing: Option<&str>, finally: &str) -> Vec<String> {
        let calls = vec![
            call(1, Chore::Insert("a".to_owned()), None),
            call(3, Chore::Insert("b".to_owned()), None),
            call(5, Chore::Remove("a".to_owned()), removed_seeing),
        ];
        let elements = vec![(0, Ok(values(finally)))];
        let tallied = Tallied { calls, elements, read_quorum: 2, ..Tallied::default() };
        check(&Evidence { tallied, ..Evidence::default() })
    }

    #[test]
    fn it_allows_what_was_taken_out_or_not_seen() {
        assert_eq!(told(Some("a"), "b"), [""; 0]);
        assert_eq!(told(Some("b"), "a b"), [""; 0]);
        assert_eq!(told(None, "b"), [""; 0]);
    }

    #[test]
    fn it_fails_for_lost_returned_and_invented_elements() {
        assert!(told(Some("a"), "a b")[0].contains("a stands, and was taken away by Remove"));
        assert!(told(None, "a b")[0].contains("a stands, and was taken away by Remove"));
        assert!(told(Some("a"), "")[0].contains("b was acknowledged, and is gone"));
        assert!(told(Some("a"), "b x")[0].contains("x stands, and nobody put it there"));
    }
}
