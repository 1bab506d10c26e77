//! A counter stands at what was added to it: every addition that was acknowledged counts once, one
//! whose outcome is unknown once or not at all, and no other. This is so in the end, and at every
//! read whose quorum meets that of the additions.
//!
//! Rests on: each life of a node keeps one tally, tallies of different lives are added up, and a
//! node that has lost rows counts under a new life.

use crate::history::Evidence;
use crate::looks::{self, Look};
use crate::mergeable::{Chore, Tallied};
use crate::merging::Told;

pub(crate) const NAME: &str = "additions_are_counted_once";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let Tallied { calls, totals, .. } = &evidence.tallied;
    let judge = |look: &Look<'_, Chore, i128>| judge(look).into_iter().collect();
    looks::judge_all((evidence, calls), totals, Told::total, judge)
}

/// What is wrong about a total, if anything.
fn judge(look: &Look<'_, Chore, i128>) -> Option<String> {
    let (total, sight) = (*look.read, look.sight);
    let (mut least, mut most) = (0, 0);
    for call in &look.calls {
        let Chore::Add(by) = call.errand else { continue };
        let by = i128::from(by);
        let is_seen = call.is_seen(sight);
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
    use coterie::node::request::Outcome;

    use super::*;
    use crate::looks::receipt;
    use crate::merging::Call;

    fn call(at: u64, errand: Chore, told: Told) -> Call<Chore> {
        Call { key: 0, errand, seen: None, invoked: at, answered: at + 1, told }
    }

    fn told(finally: i128, read: i128) -> Vec<String> {
        let unknown = Told::Failed(Outcome::Unknown);
        let calls = vec![
            call(1, Chore::Add(5), Told::Changed(receipt())),
            call(3, Chore::Add(10), unknown),
            call(5, Chore::Add(1000), Told::Failed(Outcome::Failed)),
            call(7, Chore::Count, Told::Total(read, receipt())),
            call(9, Chore::Add(-2), Told::Changed(receipt())),
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
