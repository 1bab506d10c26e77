//! A set has the elements whose addition was acknowledged and which nobody took out who had seen
//! them, and none that somebody did. This is so in the end, and at every read whose quorum meets
//! that of the change. Who takes an element out and does not say what it had seen means what was
//! acknowledged before.
//!
//! Rests on: an element is a value under its own dot, rows are joined wherever they meet, a removal
//! is minted by an owner that has heard of what it covers, and removals read first.

use crate::history::{Evidence, Sight};
use crate::mergeable::{Call, Errand, Tallied, Told};
use crate::siblings::Values;

pub(crate) const NAME: &str = "sets_have_what_nobody_took_out";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let tallied = &evidence.tallied;
    let mut wrong = Vec::new();
    for (key, read) in &tallied.elements {
        let problems = match read {
            Err(why) => vec![format!("cannot be read at ALL: {why}")],
            Ok(elements) => judge(elements, Sight::last(evidence), *key),
        };
        wrong.extend(problems.into_iter().map(|it| format!("page-{key}, finally: {it}")));
    }
    for call in &tallied.calls {
        let Told::Elements(elements, receipt) = &call.told else { continue };
        let (began, ended) = (call.invoked, call.answered);
        let sight = Sight { evidence, began, ended, receipt: Some(receipt) };
        let problems = judge(elements, sight, call.key);
        wrong.extend(problems.into_iter().map(|it| format!("page-{}, {began}: {it}", call.key)));
        for seen in call.seen.iter().flatten().filter(|seen| !elements.contains(*seen)) {
            if !may_be_gone(seen, sight, call.key) {
                wrong.push(format!("page-{}, {began}: {seen} was seen, and is gone", call.key));
            }
        }
    }
    wrong
}

fn judge(elements: &Values, sight: Sight<'_>, key: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for element in elements {
        let put = insertion(element, sight, key);
        let Some(put) = put.filter(|it| it.may_exist() && it.invoked < sight.ended) else {
            wrong.push(format!("{element} is there, and nobody put it there"));
            continue;
        };
        let took = |it: &&Call| covers(it, put, sight) && is_seen(it, sight);
        if let Some(taken) = removals(element, sight, key).find(took) {
            wrong.push(format!("{element} is there, and was taken out at {}", taken.invoked));
        }
    }
    for call in of_key(sight, key).filter(|it| is_seen(it, sight)) {
        let Errand::Insert(element) = &call.errand else { continue };
        if !elements.contains(element) && !may_be_gone(element, sight, key) {
            wrong.push(format!("{element} was put there, and is gone"));
        }
    }
    wrong
}

fn of_key<'e>(sight: Sight<'e>, key: usize) -> impl Iterator<Item = &'e Call> {
    sight.evidence.tallied.calls.iter().filter(move |call| call.key == key)
}

fn insertion<'e>(element: &str, sight: Sight<'e>, key: usize) -> Option<&'e Call> {
    of_key(sight, key).find(|it| it.errand == Errand::Insert(element.to_owned()))
}

fn removals<'e>(element: &str, sight: Sight<'e>, key: usize) -> impl Iterator<Item = &'e Call> {
    let wanted = Errand::Remove(element.to_owned());
    of_key(sight, key).filter(move |it| it.errand == wanted)
}

/// Whether a change cannot have been missed.
fn is_seen(call: &Call, sight: Sight<'_>) -> bool {
    matches!(&call.told, Told::Changed(receipt) if sight.sees(call.answered, receipt))
}

/// Whether a removal must have known of the addition.
fn covers(removal: &Call, put: &Call, sight: Sight<'_>) -> bool {
    let Errand::Insert(element) = &put.errand else { return false };
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

/// Whether something that may have happened takes the element out.
fn may_be_gone(element: &str, sight: Sight<'_>, key: usize) -> bool {
    removals(element, sight, key).any(|it| it.may_exist() && it.invoked < sight.ended)
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

    fn of(text: &str) -> Values {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn call(at: u64, errand: Errand, seen: Option<&str>) -> Call {
        let told = Told::Changed(receipt());
        Call { key: 0, errand, seen: seen.map(of), invoked: at, answered: at + 1, told }
    }

    fn told(removed_seeing: Option<&str>, finally: &str) -> Vec<String> {
        let calls = vec![
            call(1, Errand::Insert("a".to_owned()), None),
            call(3, Errand::Insert("b".to_owned()), None),
            call(5, Errand::Remove("a".to_owned()), removed_seeing),
        ];
        let elements = vec![(0, Ok(of(finally)))];
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
        assert!(told(Some("a"), "a b")[0].contains("a is there, and was taken out"));
        assert!(told(None, "a b")[0].contains("a is there, and was taken out"));
        assert!(told(Some("a"), "")[0].contains("b was put there, and is gone"));
        assert!(told(Some("a"), "b x")[0].contains("nobody put it there"));
    }
}
