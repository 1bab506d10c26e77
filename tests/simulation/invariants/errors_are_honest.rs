//! An error says what was the case: a timeout comes when the time that the client gave is over,
//! and no failed write claims as many replicas as were required. (A read may: it has its answers,
//! and waits for the repair without which it must not answer.)
//!
//! Rests on: a request lasts until its deadline or until its outcome is certain; a client that is
//! told less than the truth gives up what would have been served.

use coterie::node::request::{RequestError, RequestOptions};

use crate::history::{Action, Answer, Evidence};

pub(crate) const NAME: &str = "errors_are_honest";

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let refused = evidence.operations.iter().filter_map(|operation| match &operation.answer {
        Some(Answer::Refused(error)) => Some((operation, error)),
        _ => None,
    });
    let wrong = refused.filter_map(|(operation, error)| {
        let reads = operation.action == Action::Get;
        let fault = fault(reads, &operation.options, error)?;
        Some(format!("{}: {fault}: {error}", operation.key))
    });
    wrong.collect()
}

fn fault(reads: bool, options: &RequestOptions, error: &RequestError) -> Option<&'static str> {
    match error {
        RequestError::Timeout { required, received, waited_ms, .. } => {
            let given_ms = options.timeout.map_or(0, |given| given.as_millis());
            if u128::from(*waited_ms) < given_ms {
                return Some("it timed out before its time");
            }
            (!reads && received >= required).then_some("it timed out with all that was required")
        }
        RequestError::QuorumUnavailable { required, reachable } => {
            (reachable >= required).then_some("it gave up though enough replicas could be reached")
        }
        RequestError::QuorumFailed { required, received, .. } => {
            (!reads && received >= required).then_some("it failed with all that was required")
        }
        RequestError::ContextNotReached { wanted, newest, .. } => {
            if options.context != Some(*wanted) {
                return Some("it missed what it was not asked for");
            }
            (*newest >= Some(*wanted)).then_some("it failed though what was seen was found")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coterie::node::request::Outcome;

    use super::*;

    fn judged(reads: bool, received: u32, waited_ms: u64) -> bool {
        let timeout = Some(Duration::from_millis(200));
        let options = RequestOptions { timeout, ..RequestOptions::default() };
        let outcome = Outcome::Unknown;
        let error = RequestError::Timeout { required: 2, received, waited_ms, outcome };
        fault(reads, &options, &error).is_none()
    }

    #[test]
    fn a_timeout_comes_after_the_time_and_without_a_quorum() {
        assert!(judged(false, 1, 200));
        assert!(!judged(true, 1, 4));
        assert!(!judged(false, 2, 200));
        assert!(judged(true, 2, 200), "it waited for a repair");
    }

    #[test]
    fn a_context_that_is_missed_was_asked_for_and_not_found() {
        let version = crate::history::story::version;
        let options = RequestOptions { context: Some(version(5)), ..RequestOptions::default() };
        let missed = |wanted, newest| {
            let (wanted, newest) = (version(wanted), Some(version(newest)));
            RequestError::ContextNotReached { wanted, newest, answered: 3 }
        };
        assert!(fault(true, &options, &missed(5, 4)).is_none());
        assert!(fault(true, &options, &missed(5, 5)).is_some());
        assert!(fault(true, &options, &missed(6, 4)).is_some());
        assert!(fault(true, &RequestOptions::default(), &missed(5, 4)).is_some());
    }

    #[test]
    fn an_unavailable_quorum_lacks_replicas() {
        let options = RequestOptions::default();
        let unavailable = |reachable| RequestError::QuorumUnavailable { required: 2, reachable };
        assert!(fault(false, &options, &unavailable(1)).is_none());
        assert!(fault(false, &options, &unavailable(2)).is_some());
    }
}
