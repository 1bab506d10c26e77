//! There is one order of all operations on a strong keyspace that explains every answer: each
//! takes effect at one moment between its call and its answer. A command that was sent several
//! times within its session is one operation.
//!
//! Rests on: one log per partition (Ongaro 2014, section 3), sessions (section 6.3) and reads that
//! the leader confirms with a quorum (section 6.4).

use crate::history::Evidence;
use crate::linearizability::history::{Call, Operation, Verdict, worst};
use crate::linearizability::{appends, search};
use crate::strong::linear::Histories;

pub(crate) const NAME: &str = "strong_operations_are_linearizable";

/// Sets of placed operations that the judge of a key may remember. Histories that one copy explains
/// need hundreds; it is the others whose search could go on for minutes.
const STATES_MAX: usize = 1 << 13;

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let histories = Histories::of(&evidence.strong.commands);
    let mut wrong = histories.malformed;
    let judge = |operations: &[&Operation<Call>]| search::check_register(operations, STATES_MAX);
    match worst(&histories.registers, judge) {
        Verdict::Linearizable => {}
        Verdict::NotLinearizable { witness } => wrong.push(witness),
        Verdict::GaveUp { reason } => wrong.push(format!("the judge gave up: {reason}")),
    }
    wrong.extend(appends::check(&histories.lists).iter().map(ToString::to_string));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strong::story::{append, evidence, put, read};

    #[test]
    fn it_holds_for_what_one_copy_explains() {
        let commands = vec![
            put("r", "a", (1, 2)),
            read("r", Some("a"), (3, 4)),
            append("list-0", 7, (5, 6)),
            read("list-0", Some("7,"), (7, 8)),
        ];
        assert_eq!(check(&evidence(commands)), Vec::<String>::new());
    }

    #[test]
    fn it_fails_for_a_stale_read_a_lost_append_and_bytes_that_are_no_list() {
        let stale = vec![put("r", "a", (1, 2)), read("r", None, (3, 4))];
        assert_eq!(check(&evidence(stale)).len(), 1);
        let lost = vec![append("list-0", 7, (5, 6)), read("list-0", None, (7, 8))];
        assert_eq!(check(&evidence(lost)).len(), 1);
        let torn = vec![read("list-0", Some("x"), (7, 8))];
        assert_eq!(check(&evidence(torn)).len(), 1);
    }
}
