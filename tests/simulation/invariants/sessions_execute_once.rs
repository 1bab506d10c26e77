//! However often a command is sent within its session, it is executed at most once: every answer
//! that says what it did says the same.
//!
//! Rests on: sessions that are part of the replicated state (Ongaro 2014, section 6.3). That an
//! element is in its list once is for the judge of linearizability to say.

use coterie::node::request::RequestError;

use crate::history::Evidence;
use crate::strong::history::Told;

pub(crate) const NAME: &str = "sessions_execute_once";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for command in evidence.strong.commands.iter().filter(|command| command.session.is_some()) {
        let answers = command.definite();
        let differs = answers.windows(2).find(|pair| gist(pair[0]) != gist(pair[1]));
        wrong.extend(differs.map(|pair| format!("{:?} was answered {pair:?}", command.asked)));
    }
    wrong
}

/// What an answer says of the command's effect.
fn gist(told: &Told) -> String {
    match told {
        Told::Written(revision, _) => format!("written at {revision:?}"),
        Told::Refused(RequestError::ConditionFailed { step, .. }) => format!("failed at {step}"),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strong::story::{append, evidence, repeated};

    #[test]
    fn it_holds_when_a_repetition_is_answered_alike() {
        let command = repeated(append("list-0", 1, (1, 2)), 3, 2);
        assert!(check(&evidence(vec![command])).is_empty());
    }

    #[test]
    fn it_fails_when_a_repetition_is_executed_anew() {
        let command = repeated(append("list-0", 1, (1, 2)), 3, 4);
        assert_eq!(check(&evidence(vec![command])).len(), 1);
    }
}
