//! Of a keyspace that keeps siblings: a value that was acknowledged stands until a write that had
//! seen it, or a delete, and one that was covered does not come back. This is so in the end, at
//! every read whose quorum meets that of the write, and for what a reader had seen before.
//!
//! Rests on: an owner mints each write into its own row, rows are joined wherever they meet, and a
//! read joins what its quorum holds.

use crate::history::{Evidence, Sight};
use crate::looks::{self, Puts};
use crate::merging::{Call, Told};
use crate::siblings::{Shopped, Wish};

pub(crate) const NAME: &str = "siblings_are_the_causal_maximum";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let Shopped { visits, finally } = &evidence.shopped;
    looks::judge_all((evidence, visits), finally, Told::values, looks::judge_values)
}

impl Puts for Wish {
    fn puts(&self) -> Option<&str> {
        match self {
            Wish::Put(value) => Some(value),
            Wish::Delete | Wish::Get => None,
        }
    }

    fn takes(write: &Call<Wish>, put: &Call<Wish>, _sight: Sight<'_>) -> bool {
        put.errand.puts().is_some_and(|value| covers(write, value))
    }

    fn may_take(write: &Call<Wish>, value: &str, since: u64) -> bool {
        // A delete without a context takes what its replica holds.
        let is_blind = write.errand == Wish::Delete && write.seen.is_none();
        covers(write, value) || (is_blind && write.answered > since)
    }
}

/// Whether a write had seen the value, and so replaces it.
fn covers(write: &Call<Wish>, value: &str) -> bool {
    write.errand != Wish::Get && write.seen.as_ref().is_some_and(|seen| seen.contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::looks::{receipt, values};

    fn write(at: u64, value: &str, seen: Option<&str>) -> Call<Wish> {
        let errand = if value.is_empty() { Wish::Delete } else { Wish::Put(value.to_owned()) };
        let (invoked, answered, told) = (at, at + 1, Told::Changed(receipt()));
        Call { key: 0, errand, seen: seen.map(values), invoked, answered, told }
    }

    fn read(at: u64, told: &str, seen: Option<&str>) -> Call<Wish> {
        let told = Told::Values(values(told), receipt());
        Call { errand: Wish::Get, told, ..write(at, "", seen) }
    }

    fn told(visits: Vec<Call<Wish>>, finally: &str) -> Vec<String> {
        let finally = vec![(0, Ok(values(finally)))];
        check(&Evidence { shopped: Shopped { visits, finally }, ..Evidence::default() })
    }

    #[test]
    fn it_allows_siblings_covered_values_and_what_deletes_took() {
        let both = vec![write(1, "a", None), write(3, "b", None), read(5, "a b", None)];
        assert_eq!(told(both.clone(), "a b"), [""; 0]);
        let merged = [both.clone(), vec![write(7, "c", Some("a b"))]].concat();
        assert_eq!(told(merged, "c"), [""; 0]);
        let deleted = [both, vec![write(7, "", None), read(9, "", Some("a b"))]].concat();
        assert_eq!(told(deleted, ""), [""; 0]);
    }

    #[test]
    fn it_fails_for_lost_returned_and_invented_values() {
        let both = vec![write(1, "a", None), write(3, "b", None)];
        assert!(told(both.clone(), "b")[0].contains("a was acknowledged, and is gone"));
        let merged = [both.clone(), vec![write(5, "c", Some("a"))]].concat();
        assert!(told(merged, "a b c")[0].contains("a stands, and was taken away by Put"));
        assert!(told(both.clone(), "a b x")[0].contains("x stands, and nobody put it there"));
        let gone = [both.clone(), vec![read(5, "a", Some("b"))]].concat();
        assert!(told(gone, "a b").iter().any(|it| it.contains("b was seen before, and is gone")));
        let unread = Shopped { visits: both, finally: vec![(0, Err("silence".to_owned()))] };
        let wrong = check(&Evidence { shopped: unread, ..Evidence::default() });
        assert!(wrong[0].contains("cannot be read"));
    }
}
