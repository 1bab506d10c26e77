//! Once faults stop, every node is up again, every key can be read at QUORUM and at ALL, no
//! request of a living node went unanswered, and nothing panicked on the way.
//!
//! Rests on: reconnecting, recovery and deadlines (blueprint, sections 5 and 6).

use crate::history::{Answer, Evidence, Operation};

pub(crate) const NAME: &str = "cluster_serves_after_healing";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let unreadable = evidence.unreadable.iter();
    let mut wrong: Vec<String> =
        unreadable.map(|(key, error)| format!("{key}: still unreadable: {error}")).collect();
    wrong.extend(evidence.failed_starts.iter().map(|why| format!("a node did not start: {why}")));
    wrong.extend(evidence.panics.iter().map(|panic| format!("panicked: {panic}")));
    let operations = evidence.operations.iter();
    let silent = operations.filter(|operation| operation.answer == Some(Answer::Silence));
    wrong.extend(silent.map(|operation| {
        let Operation { machine, client, action, .. } = operation;
        format!("node {machine} never answered client {client} that asked for {action:?}")
    }));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Action;
    use crate::history::story::{evidence, get, operation};

    #[test]
    fn it_holds_when_all_was_answered() {
        assert!(check(&evidence(vec![get(None, 2, (1, 2))])).is_empty());
    }

    #[test]
    fn it_fails_for_silence_panics_and_nodes_that_stay_down() {
        let silent = operation(Action::Get, (1, u64::MAX), Answer::Silence);
        let mut evidence = evidence(vec![silent]);
        evidence.failed_starts.push("torn log".to_owned());
        evidence.panics.push("index out of bounds".to_owned());
        assert_eq!(check(&evidence).len(), 3);
    }
}
