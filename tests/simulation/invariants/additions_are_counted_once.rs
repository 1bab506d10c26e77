//! A counter stands at what was added to it: every addition that was acknowledged counts once, one
//! whose outcome is unknown once or not at all, and no other. This is so in the end, and at every
//! read whose quorum meets that of the additions.
//!
//! Rests on: each life of a node keeps one tally, tallies of different lives are added up, and a
//! node that has lost rows counts under a new life.

use crate::history::{Evidence, Sight};
use crate::mergeable::{Call, Errand, Tallied, Told};

pub(crate) const NAME: &str = "additions_are_counted_once";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let Tallied { calls, totals, .. } = &evidence.tallied;
    let mut wrong = Vec::new();
    for (key, read) in totals {
        let problem = match read {
            Err(why) => Some(format!("cannot be read at ALL: {why}")),
            Ok(total) => judge(*total, Sight::last(evidence), *key, calls),
        };
        wrong.extend(problem.map(|it| format!("page-{key}, finally: {it}")));
    }
    for call in calls {
        let Told::Total(total, receipt) = &call.told else { continue };
        let (began, ended) = (call.invoked, call.answered);
        let sight = Sight { evidence, began, ended, receipt: Some(receipt) };
        let problem = judge(*total, sight, call.key, calls);
        wrong.extend(problem.map(|it| format!("page-{}, {began}: {it}", call.key)));
    }
    wrong
}

/// What is wrong about a total, if anything.
fn judge(total: i128, sight: Sight<'_>, key: usize, calls: &[Call]) -> Option<String> {
    let (mut least, mut most) = (0, 0);
    for call in calls.iter().filter(|call| call.key == key) {
        let Errand::Add(by) = call.errand else { continue };
        let by = i128::from(by);
        let is_seen = matches!(&call.told, Told::Changed(it) if sight.sees(call.answered, it));
        let may_be_seen = call.may_exist() && call.invoked < sight.ended;
        least += if is_seen {
            by
        } else if may_be_seen {
            by.min(0)
        } else {
            0
        };
        most += if is_seen {
            by
        } else if may_be_seen {
            by.max(0)
        } else {
            0
        };
    }
    let is_right = (least..=most).contains(&total);
    (!is_right).then(|| format!("stands at {total}, and was brought to {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use coterie::node::request::{Outcome, Receipt};
    use coterie::types::NodeId;

    use super::*;

    fn call(at: u64, errand: Errand, told: Told) -> Call {
        Call { key: 0, errand, seen: None, invoked: at, answered: at + 1, told }
    }

    fn receipt() -> Receipt {
        let acknowledged = vec![NodeId(1), NodeId(2)];
        Receipt { required: 2, replicas: 3, acknowledged, ..Receipt::default() }
    }

    fn told(finally: i128, read: i128) -> Vec<String> {
        let unknown = Told::Failed(Outcome::Unknown);
        let calls = vec![
            call(1, Errand::Add(5), Told::Changed(receipt())),
            call(3, Errand::Add(10), unknown),
            call(5, Errand::Add(1000), Told::Failed(Outcome::Failed)),
            call(7, Errand::Count, Told::Total(read, receipt())),
            call(9, Errand::Add(-2), Told::Changed(receipt())),
        ];
        let tallied = Tallied { calls, totals: vec![(0, Ok(finally))], ..Tallied::default() };
        check(&Evidence { tallied, ..Evidence::default() })
    }

    #[test]
    fn it_allows_what_may_have_been_counted() {
        assert_eq!(told(3, 5), [""; 0]);
        assert_eq!(told(13, 15), [""; 0]);
    }

    #[test]
    fn it_fails_for_what_was_lost_or_counted_twice() {
        assert!(told(23, 5)[0].contains("finally: stands at 23"));
        assert!(told(2, 5)[0].contains("finally: stands at 2"));
        assert!(told(3, 4)[0].contains("page-0, 7: stands at 4"));
        let unread = Tallied { totals: vec![(0, Err("silence".to_owned()))], ..Tallied::default() };
        let wrong = check(&Evidence { tallied: unread, ..Evidence::default() });
        assert!(wrong[0].contains("cannot be read"));
    }
}
