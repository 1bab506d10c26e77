//! How a command fails: one line for people, one exit code for programs.

use tonic::Code;

use crate::client::{ClientError, Heard, Outcome, Witness};

/// What `--help` says of exit codes.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: no effect, or not a matter of a single request
  2  usage: an argument, a setting, a key or a value cannot be used
  3  the key has no value
  4  unavailable: nothing was changed, so it is safe to try again
  5  outcome unknown: the write may or may not have been applied
  6  the key is not as the condition expects: nothing was changed";

/// What the user may do who reaches no node.
pub(crate) const UNREACHABLE_ADVICE: &str =
    "; start a node with `coterie serve` or name others with --node";

/// The client's word for that.
const UNREACHABLE: &str = "unreachable";

/// Exit codes other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Unavailable = 4,
    Unknown = 5,
    Condition = 6,
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        // Some libraries' messages have several lines; ours are one, for logs and for grep.
        let message: String = message.into();
        let lines: Vec<&str> = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        Failure { exit, message: lines.join("; ") }
    }

    /// A failure that is not about one request.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Failure::new(Exit::Failed, message)
    }

    /// The same, with an excerpt below the line, such as the end of a log.
    pub(crate) fn with_excerpt(message: impl Into<String>, excerpt: &[String]) -> Self {
        let line = Failure::failed(message);
        Failure { message: format!("{line}:\n{}", excerpt.join("\n")), ..line }
    }

    /// Something in the command line or configuration cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::new(Exit::Usage, message)
    }

    /// What came of a call of the library's client.
    pub(crate) fn of_client(error: ClientError, effect: Effect) -> Self {
        let exit = match &error {
            ClientError::Refused { status, code, outcome, .. } => {
                exit_of_answer(*status, code, Some(*outcome), effect)
            }
            _ => exit_of_answer(Code::Unknown, error.code(), Some(error.outcome()), effect),
        };
        let advice = match error.code() {
            UNREACHABLE => UNREACHABLE_ADVICE,
            _ => advice(exit, effect),
        };
        Failure::new(exit, format!("{error}{advice}"))
    }

    /// What a node, or the way to it, answered to one request.
    pub(crate) fn of_request(heard: &Heard, effect: Effect, node: &str) -> Self {
        let exit = exit_of(heard, effect);
        let (said, advice) = (&heard.message, advice(exit, effect));
        let message = match heard.witness {
            Witness::Node => format!("{said}{advice}"),
            Witness::Loss | Witness::NoConnection => {
                format!("no answer from {node}: {said}{advice}")
            }
        };
        Failure::new(exit, message)
    }
}

/// Whether a request changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It reads.
    Reads,
    /// It writes a key.
    Writes,
    /// It changes something about the cluster.
    Operates,
}

fn exit_of(heard: &Heard, effect: Effect) -> Exit {
    let outcome = match heard.witness {
        Witness::Node => heard.outcome,
        Witness::Loss => Some(Outcome::Unknown),
        Witness::NoConnection => Some(Outcome::NotAttempted),
    };
    exit_of_answer(heard.code, &heard.word, outcome, effect)
}

/// By the answer's code, its stable word and what is known of the request's effect.
fn exit_of_answer(status: Code, word: &str, outcome: Option<Outcome>, effect: Effect) -> Exit {
    match word {
        "condition_failed" => return Exit::Condition,
        "unknown_keyspace" | "not_available" | "invalid_argument" => return Exit::Usage,
        // To ask again would not help.
        "watch_lost" => return Exit::Failed,
        _ => {}
    }
    match (status, outcome) {
        (Code::NotFound, _) => Exit::NotFound,
        (Code::FailedPrecondition, _) => Exit::Failed,
        (Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented, _) => Exit::Usage,
        (_, Some(Outcome::NotAttempted)) => Exit::Unavailable,
        // A read has changed nothing, however it ended.
        (_, Some(Outcome::Unknown)) | (Code::DeadlineExceeded | Code::Unknown, Some(_))
            if effect == Effect::Reads =>
        {
            Exit::Unavailable
        }
        (_, Some(Outcome::Unknown)) => Exit::Unknown,
        _ => Exit::Failed,
    }
}

/// What the user may do.
fn advice(exit: Exit, effect: Effect) -> &'static str {
    match exit {
        Exit::Unknown if effect == Effect::Operates => {
            "; it may or may not have been done: look before you ask again"
        }
        Exit::Unknown => "; it may or may not have been applied: read the key to see",
        Exit::Unavailable => "; nothing was changed: it is safe to try again",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;
    use tonic::metadata::MetadataMap;

    use super::*;
    use crate::client::{CODE_TRAILER, OUTCOME_TRAILER};

    fn status(code: Code, outcome: Option<&'static str>) -> Status {
        let mut trailers = MetadataMap::new();
        if let Some(outcome) = outcome {
            trailers.insert(OUTCOME_TRAILER, outcome.parse().expect("ascii"));
        }
        Status::with_metadata(code, "message", trailers)
    }

    #[test]
    fn every_answer_has_its_exit_code() {
        let cases = [
            (Code::NotFound, None, 3),
            (Code::InvalidArgument, Some("not-attempted"), 2),
            (Code::OutOfRange, Some("not-attempted"), 2),
            (Code::Unavailable, Some("not-attempted"), 4),
            (Code::ResourceExhausted, Some("not-attempted"), 4),
            (Code::ResourceExhausted, Some("failed"), 1),
            (Code::Aborted, Some("failed"), 1),
            (Code::DeadlineExceeded, Some("unknown"), 5),
            (Code::Unknown, Some("unknown"), 5),
            (Code::Internal, None, 1),
        ];
        for (code, outcome, exit) in cases {
            let found = exit_of(&Heard::of(&status(code, outcome)), Effect::Writes) as u8;
            assert_eq!(found, exit, "{code:?} {outcome:?}");
        }
    }

    #[test]
    fn the_words_of_strong_keyspaces_have_their_exit_codes() {
        let cases = [
            ("condition_failed", Code::FailedPrecondition, 6),
            ("unknown_keyspace", Code::NotFound, 2),
            ("not_available", Code::FailedPrecondition, 2),
            ("rejected", Code::FailedPrecondition, 1),
            ("not_found", Code::NotFound, 3),
        ];
        for (word, code, exit) in cases {
            let mut status = status(code, Some("not-attempted"));
            status.metadata_mut().insert(CODE_TRAILER, word.parse().expect("ascii"));
            assert_eq!(exit_of(&Heard::of(&status), Effect::Operates) as u8, exit, "{word}");
        }
    }

    #[test]
    fn what_the_client_tells_has_the_same_exit_codes() {
        let refused = |status, code: &str, outcome| {
            let (code, message) = (code.to_owned(), "message".to_owned());
            ClientError::Refused { status, code, message, outcome, attempts: 1 }
        };
        let no_answer = |code, outcome| {
            let message = "message".to_owned();
            ClientError::NoAnswer { code, message, outcome, attempts: 1 }
        };
        use Outcome::{Failed, NotAttempted, Unknown};
        let cases = [
            (refused(Code::Unavailable, "no_leader", NotAttempted), Effect::Writes, 4),
            (refused(Code::DeadlineExceeded, "timeout", Unknown), Effect::Writes, 5),
            (refused(Code::DeadlineExceeded, "timeout", Failed), Effect::Reads, 4),
            (refused(Code::Aborted, "quorum_failed", Failed), Effect::Reads, 1),
            (refused(Code::NotFound, "unknown_keyspace", NotAttempted), Effect::Reads, 2),
            (refused(Code::OutOfRange, "too_large", NotAttempted), Effect::Writes, 2),
            (no_answer("unreachable", NotAttempted), Effect::Writes, 4),
            (no_answer("no_answer", Unknown), Effect::Writes, 5),
            (no_answer("no_answer", Failed), Effect::Reads, 4),
            (ClientError::invalid("key", "is empty"), Effect::Writes, 2),
        ];
        for (error, effect, exit) in cases {
            let failure = Failure::of_client(error.clone(), effect);
            assert_eq!(failure.exit as u8, exit, "{error:?} {effect:?}");
        }
        let failure = Failure::of_client(no_answer("unreachable", NotAttempted), Effect::Writes);
        assert!(failure.to_string().ends_with("--node"), "{failure}");
    }

    #[test]
    fn a_lost_connection_leaves_a_write_unknown_and_a_read_safe_to_repeat() {
        let lost = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        let lost = Heard::of(&lost);
        assert_eq!(exit_of(&lost, Effect::Writes), Exit::Unknown);
        assert_eq!(exit_of(&lost, Effect::Reads), Exit::Unavailable);
        let failure = Failure::of_request(&lost, Effect::Writes, "127.0.0.1:1");
        let text = failure.to_string();
        assert!(text.starts_with("no answer from 127.0.0.1:1: connection reset; it may"), "{text}");
    }

    #[test]
    fn a_read_that_timed_out_is_safe_to_repeat() {
        let late = Heard::of(&status(Code::DeadlineExceeded, Some("unknown")));
        assert_eq!(exit_of(&late, Effect::Reads), Exit::Unavailable);
    }

    #[test]
    fn a_status_without_a_message_is_told_by_its_code() {
        let failure =
            Failure::of_request(&Heard::of(&Status::unimplemented("")), Effect::Reads, "n:1");
        assert_eq!(failure.to_string(), Code::Unimplemented.description());
    }

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::failed("a\n  b\n\nc").to_string(), "a; b; c");
    }
}
