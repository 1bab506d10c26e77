//! Of a keyspace that keeps siblings: a value that was acknowledged stands until a write that had
//! seen it, or a delete, and one that was covered does not come back. This is so in the end, at
//! every read whose quorum meets that of the write, and for what a reader had seen before.
//!
//! Rests on: an owner mints each write into its own row, rows are joined wherever they meet, and a
//! read joins what its quorum holds.

use std::collections::BTreeSet;

use coterie::node::request::Outcome;

use crate::history::{Evidence, Sight};
use crate::siblings::{Shopped, Told, Values, Visit, Wish};

pub(crate) const NAME: &str = "siblings_are_the_causal_maximum";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let Shopped { visits, finally } = &evidence.shopped;
    let mut wrong = Vec::new();
    for (key, read) in finally {
        match read {
            Err(why) => wrong.push(format!("cart-{key} cannot be read at ALL: {why}")),
            Ok(values) => {
                let of_key: Vec<&Visit> = visits.iter().filter(|it| it.key == *key).collect();
                let last = Look { values, sight: Sight::last(evidence) };
                wrong.extend(judge(&last, &of_key).map(|it| format!("cart-{key}, finally: {it}")));
            }
        }
    }
    for visit in visits {
        let Told::Read(values, receipt) = &visit.told else { continue };
        let of_key: Vec<&Visit> = visits.iter().filter(|it| it.key == visit.key).collect();
        let (began, ended) = (visit.invoked, visit.answered);
        let sight = Sight { evidence, began, ended, receipt: Some(receipt) };
        let look = Look { values, sight };
        let key = visit.key;
        wrong.extend(judge(&look, &of_key).map(|it| format!("cart-{key}, {began}: {it}")));
        for seen in visit.seen.iter().flatten().filter(|seen| !values.contains(*seen)) {
            if !may_be_gone(seen, &look, &of_key) {
                wrong.push(format!("cart-{key}, {began}: {seen} was seen before, and is gone"));
            }
        }
    }
    wrong
}

/// What was read, and how.
struct Look<'e> {
    values: &'e Values,
    sight: Sight<'e>,
}

impl Look<'_> {
    /// Whether it cannot have missed what an acknowledged write left.
    fn sees(&self, write: &Visit) -> bool {
        let Told::Written(receipt) = &write.told else { return false };
        self.sight.sees(write.answered, receipt)
    }
}

fn judge<'e>(look: &Look<'e>, visits: &[&'e Visit]) -> impl Iterator<Item = String> {
    let mut wrong = Vec::new();
    for value in look.values {
        let wrote = |it: &&&Visit| it.wish == Wish::Put(value.clone()) && may_exist(it);
        if !visits.iter().any(|it| wrote(&it) && it.invoked < look.sight.ended) {
            wrong.push(format!("{value} stands, and nobody wrote it"));
        }
        let covers = |it: &&&Visit| covers(it, value) && look.sees(it);
        if let Some(cover) = visits.iter().find(covers) {
            wrong.push(format!("{value} stands, and was covered by {:?}", cover.wish));
        }
    }
    for write in visits.iter().filter(|it| look.sees(it)) {
        let Wish::Put(value) = &write.wish else { continue };
        if !look.values.contains(value) && !may_be_gone(value, look, visits) {
            wrong.push(format!("{value} was acknowledged, and is gone"));
        }
    }
    wrong.into_iter()
}

/// Whether a write had seen the value, and so replaces it.
fn covers(write: &Visit, value: &str) -> bool {
    write.wish != Wish::Get && write.seen.as_ref().is_some_and(|seen| seen.contains(value))
}

/// Whether something that may have happened takes the value away.
fn may_be_gone(value: &str, look: &Look<'_>, visits: &[&Visit]) -> bool {
    let written = visits.iter().find(|it| it.wish == Wish::Put(value.to_owned()));
    let since = written.map_or(0, |it| it.invoked);
    // A delete without a context takes what its replica holds.
    let blind = |it: &Visit| it.wish == Wish::Delete && it.seen.is_none() && it.answered > since;
    let takes = |it: &&&Visit| covers(it, value) || blind(it);
    visits.iter().filter(takes).any(|it| may_exist(it) && it.invoked < look.sight.ended)
}

fn may_exist(write: &Visit) -> bool {
    match &write.told {
        Told::Failed(outcome) => *outcome == Outcome::Unknown,
        Told::Written(_) | Told::Nothing | Told::Read(..) => true,
    }
}

/// The values of a text.
#[cfg(test)]
fn of(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use coterie::node::request::Receipt;
    use coterie::types::NodeId;

    use super::*;

    fn receipt() -> Receipt {
        let acknowledged = vec![NodeId(1), NodeId(2)];
        Receipt { required: 2, replicas: 3, acknowledged, ..Receipt::default() }
    }

    fn write(at: u64, value: &str, seen: Option<&str>) -> Visit {
        let wish = if value.is_empty() { Wish::Delete } else { Wish::Put(value.to_owned()) };
        let (invoked, answered, told) = (at, at + 1, Told::Written(receipt()));
        Visit { key: 0, wish, seen: seen.map(of), invoked, answered, told }
    }

    fn read(at: u64, values: &str, seen: Option<&str>) -> Visit {
        let told = Told::Read(of(values), receipt());
        Visit { wish: Wish::Get, told, ..write(at, "", seen) }
    }

    fn told(visits: Vec<Visit>, finally: &str) -> Vec<String> {
        let finally = vec![(0, Ok(of(finally)))];
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
        assert!(told(merged, "a b c")[0].contains("a stands, and was covered"));
        assert!(told(both.clone(), "a b x")[0].contains("nobody wrote it"));
        let gone = [both.clone(), vec![read(5, "a", Some("b"))]].concat();
        assert!(told(gone, "a b").iter().any(|it| it.contains("b was seen before, and is gone")));
        let unread = Shopped { visits: both, finally: vec![(0, Err("silence".to_owned()))] };
        let wrong = check(&Evidence { shopped: unread, ..Evidence::default() });
        assert!(wrong[0].contains("cannot be read"));
    }
}
