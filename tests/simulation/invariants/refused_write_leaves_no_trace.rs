//! A write that its client was told was not attempted, or failed, is never read.
//!
//! Rests on: `not-attempted` means that nothing was sent, `failed` that every replica that was
//! asked refused (`Outcome`). Where the network repeats messages, a refused message may have a
//! second try of which the coordinator knows nothing, so there only `not-attempted` is judged.

use coterie::node::request::Outcome;

use crate::history::{Action, Evidence, Operation};

pub(crate) const NAME: &str = "refused_write_leaves_no_trace";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let refused = evidence.operations.iter().filter(|operation| match operation.had_no_effect() {
        Some(Outcome::NotAttempted) => true,
        Some(_) => !evidence.messages_repeated,
        None => false,
    });
    refused.filter_map(|write| trace_of(evidence, write)).collect()
}

fn trace_of(evidence: &Evidence, write: &Operation) -> Option<String> {
    let Action::Put(value) = &write.action else { return None };
    let read_by = evidence.operations.iter().find(|operation| {
        operation.read().is_some_and(|answer| answer.value.as_ref() == Some(value))
    })?;
    Some(format!("{}: {value:?} was read by {read_by:?}, told {:?}", write.key, write.answer))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use coterie::node::request::RequestError;

    use super::*;
    use crate::history::Answer;
    use crate::history::story::{evidence, get, operation};

    fn judged(outcome: Outcome, repeated: bool) -> usize {
        let failed =
            RequestError::QuorumFailed { required: 2, received: 0, refusals: Vec::new(), outcome };
        let put = Action::Put(Bytes::from_static(b"a"));
        let write = operation(put, (1, 2), Answer::Refused(failed));
        let mut evidence = evidence(vec![write, get(Some(("a", 1)), 2, (3, 4))]);
        evidence.messages_repeated = repeated;
        check(&evidence).len()
    }

    #[test]
    fn it_fails_when_a_refused_write_is_read() {
        assert_eq!(judged(Outcome::NotAttempted, true), 1);
        assert_eq!(judged(Outcome::Failed, false), 1);
    }

    #[test]
    fn an_unknown_outcome_may_be_read_and_so_may_a_repeated_message() {
        assert_eq!(judged(Outcome::Unknown, false), 0);
        assert_eq!(judged(Outcome::Failed, true), 0);
    }
}
