//! Once faults stop, every group has one leader and its replicas where they were placed, all of
//! which catch up; every partition takes a write, and every key can be read.
//!
//! Rests on: elections that end while a majority can talk (Ongaro 2014, section 3.4), snapshots for
//! those that are far behind (section 5), and memberships that follow their placement (section 4).

use crate::history::Evidence;
use crate::strong::history::Told;

pub(crate) const NAME: &str = "groups_serve_after_healing";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let strong = &evidence.strong;
    let mut wrong: Vec<String> = strong.unsettled.clone();
    wrong.extend(strong.unserved.iter().cloned());
    for command in &strong.commands {
        let told = command
            .attempts
            .iter()
            .filter(|attempt| attempt.told.as_ref().is_none_or(|(_, told)| *told == Told::Silence));
        wrong.extend(
            told.map(|attempt| {
                format!("node {} never answered {:?}", attempt.machine, command.asked)
            }),
        );
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strong::story::{evidence, put};

    #[test]
    fn it_holds_when_all_is_whole_and_was_answered() {
        assert!(check(&evidence(vec![put("r", "a", (1, 2))])).is_empty());
    }

    #[test]
    fn it_fails_for_silence_and_for_groups_that_do_not_serve() {
        let mut silent = put("r", "a", (1, 2));
        silent.attempts[0].told = None;
        let mut evidence = evidence(vec![silent]);
        evidence.strong.unsettled.push("group 1 has 2 leaders".to_owned());
        evidence.strong.unserved.push("partition 1 takes no write".to_owned());
        assert_eq!(check(&evidence).len(), 3);
    }
}
