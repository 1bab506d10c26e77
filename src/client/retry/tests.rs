use tonic::{ConnectError, Status};

use super::*;
use crate::client::error::Current;

fn node(name: &str) -> Arc<str> {
    name.into()
}

fn said(code: Code, word: &str, outcome: Option<Outcome>) -> Heard {
    let status = Status::new(code, "said");
    Heard { witness: Witness::Node, word: word.to_owned(), outcome, ..Heard::of(&status) }
}

fn no_connection() -> Heard {
    let refused = ConnectError(Box::new(std::io::Error::other("refused")));
    Heard::of(&Status::from_error(Box::new(refused)))
}

fn no_leader() -> Heard {
    said(Code::Unavailable, "no_leader", Some(Outcome::NotAttempted))
}

fn session_unknown() -> Heard {
    said(Code::FailedPrecondition, "session_unknown", Some(Outcome::Failed))
}

fn condition_failed() -> Heard {
    let current = Current { value: None, version: "7".to_owned() };
    let heard = said(Code::FailedPrecondition, CONDITION_FAILED, Some(Outcome::Failed));
    Heard { condition: Some((0, Some(current))), ..heard }
}

/// What one attempt leads to, and the outcome if it was the last.
fn once(effect: Effect, heard: &Heard) -> (&'static str, Outcome) {
    let mut quest = Quest::new(effect, Patience::Lasting);
    let next = quest.judge(&node("a:1"), heard, 3, 0);
    (name(next), quest.error(heard.clone()).outcome())
}

fn name(next: Next) -> &'static str {
    match next {
        Next::GiveUp => "give up",
        Next::Again { .. } => "again",
        Next::Renew { .. } => "renew",
    }
}

#[test]
fn only_what_is_safe_is_repeated() {
    use Effect::{Idempotent, Once, Read, Session};
    use Outcome::{Failed, NotAttempted, Unknown};
    let unavailable = said(Code::Unavailable, "quorum_unavailable", Some(NotAttempted));
    let timeout = said(Code::DeadlineExceeded, "timeout", Some(Unknown));
    let read_failed = said(Code::Aborted, "quorum_failed", Some(Failed));
    let busy = said(Code::ResourceExhausted, OVERLOADED, Some(Failed));
    let no_words = said(Code::Unavailable, "", None);
    let invalid = said(Code::InvalidArgument, "invalid_argument", Some(NotAttempted));
    let cases: Vec<(&str, Effect, Heard, &str, Outcome)> = vec![
        ("not attempted", Once, unavailable.clone(), "again", NotAttempted),
        ("not attempted", Session, unavailable.clone(), "again", NotAttempted),
        ("not attempted", Read, unavailable, "again", NotAttempted),
        ("no connection", Once, no_connection(), "again", NotAttempted),
        ("timeout", Once, timeout.clone(), "give up", Unknown),
        ("timeout", Idempotent, timeout.clone(), "again", Unknown),
        ("timeout", Session, timeout.clone(), "again", Unknown),
        ("timeout", Read, timeout, "again", Failed),
        ("late", Once, Heard::late(), "give up", Unknown),
        ("late", Session, Heard::late(), "again", Unknown),
        ("late", Read, Heard::late(), "again", Failed),
        ("failed", Once, read_failed.clone(), "give up", Failed),
        ("failed", Idempotent, read_failed.clone(), "give up", Failed),
        ("failed", Read, read_failed, "again", Failed),
        ("all busy", Once, busy.clone(), "again", Failed),
        ("all busy", Read, busy, "again", Failed),
        ("no words", Once, no_words.clone(), "give up", Unknown),
        ("no words", Session, no_words, "again", Unknown),
        ("invalid", Session, invalid.clone(), "give up", NotAttempted),
        ("invalid", Read, invalid, "give up", NotAttempted),
        ("condition", Session, condition_failed(), "give up", Failed),
        ("session gone", Session, session_unknown(), "renew", Failed),
        (
            "overtaken",
            Session,
            said(Code::FailedPrecondition, "session_acknowledged", Some(Failed)),
            "give up",
            Unknown,
        ),
        ("not found", Read, said(Code::NotFound, "not_found", None), "give up", Failed),
        ("too old a node", Once, said(Code::Unimplemented, "", None), "give up", Failed),
    ];
    for (what, effect, heard, next, outcome) in cases {
        assert_eq!(once(effect, &heard), (next, outcome), "{what}, {effect:?}");
    }
}

#[test]
fn a_session_is_not_renewed_for_what_may_have_been_executed() {
    let mut quest = Quest::new(Effect::Session, Patience::Lasting);
    assert_eq!(name(quest.judge(&node("a:1"), &Heard::late(), 3, 0)), "again");
    assert_eq!(name(quest.judge(&node("b:1"), &session_unknown(), 3, 0)), "give up");
    assert!(quest.ends_session(&session_unknown()));
    let error = quest.error(session_unknown());
    assert_eq!((error.code(), error.outcome()), ("session_unknown", Outcome::Unknown));
}

#[test]
fn a_session_is_not_renewed_for_ever() {
    let mut quest = Quest::new(Effect::Session, Patience::Lasting);
    let mut judge = || name(quest.judge(&node("a:1"), &session_unknown(), 3, 0));
    assert_eq!([judge(), judge(), judge(), judge()], ["renew", "renew", "renew", "give up"]);
}

#[test]
fn an_attempt_that_was_lost_stays_in_doubt_unless_the_session_answers_for_it() {
    let cases = [
        (Effect::Session, no_leader(), Outcome::Unknown),
        (Effect::Session, no_connection(), Outcome::Unknown),
        (Effect::Session, condition_failed(), Outcome::Failed),
        (Effect::Idempotent, no_leader(), Outcome::Unknown),
        (Effect::Read, no_leader(), Outcome::NotAttempted),
    ];
    for (effect, last, outcome) in cases {
        let mut quest = Quest::new(effect, Patience::Lasting);
        quest.judge(&node("a:1"), &Heard::late(), 3, 0);
        quest.judge(&node("b:1"), &last, 3, 0);
        assert_eq!(quest.error(last.clone()).outcome(), outcome, "{effect:?} {last:?}");
    }
}

#[test]
fn a_keyspace_that_exists_is_waited_for() {
    let unknown = said(Code::NotFound, UNKNOWN_KEYSPACE, Some(Outcome::NotAttempted));
    for (exists, next) in [(true, "again"), (false, "give up")] {
        let mut quest = Quest::new(Effect::Once, Patience::Lasting);
        quest.keyspace_exists = exists;
        assert_eq!(name(quest.judge(&node("a:1"), &unknown, 3, 0)), next);
    }
}

#[test]
fn another_node_is_asked_at_once_and_the_same_after_a_rest() {
    let rest =
        |quest: &mut Quest, at: &str, heard: &Heard| match quest.judge(&node(at), heard, 2, 0) {
            Next::Again { after } => after.as_millis(),
            other => panic!("{other:?}"),
        };
    let mut quest = Quest::new(Effect::Once, Patience::Lasting);
    assert_eq!(rest(&mut quest, "a:1", &no_leader()), 0, "b is not asked yet");
    assert_eq!(rest(&mut quest, "b:1", &no_leader()), 20);
    let named = Heard { leader: Some("a:1".to_owned()), ..no_leader() };
    assert_eq!(rest(&mut quest, "b:1", &named), 0, "the leader is asked at once");
    assert_eq!(rest(&mut quest, "a:1", &named), 80, "but not for ever");
    let overloaded = said(Code::ResourceExhausted, "overloaded", Some(Outcome::NotAttempted));
    assert_eq!(rest(&mut Quest::new(Effect::Once, Patience::Lasting), "a:1", &overloaded), 10);
}

#[test]
fn a_node_that_asks_to_be_left_alone_is_and_so_are_the_others() {
    let refused = |ms| {
        let retry_after = Some(Duration::from_millis(ms));
        let heard = said(Code::ResourceExhausted, OVERLOADED, Some(Outcome::NotAttempted));
        Heard { retry_after, ..heard }
    };
    let rest = |heard: &Heard, random| {
        let mut quest = Quest::new(Effect::Once, Patience::Lasting);
        match quest.judge(&node("a:1"), heard, 3, random) {
            Next::Again { after } => after.as_millis(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((rest(&refused(70), 0), rest(&refused(70), 35)), (70, 105));
    assert_eq!(rest(&refused(1), 0), 10, "never less than without the wish");
}

#[test]
fn rests_grow_up_to_a_bound_and_chance_takes_up_to_a_half() {
    let cases = [(1, 0, 10), (2, 0, 20), (6, 0, 320), (7, 0, 500), (99, 0, 500)];
    for (attempts, random, ms) in cases {
        assert_eq!(back_off(attempts, random), Duration::from_millis(ms), "{attempts}");
    }
    let all: Vec<u128> = (0..1000).map(|random| back_off(7, random).as_millis()).collect();
    assert_eq!((all.iter().min(), all.iter().max()), (Some(&250), Some(&500)));
}

#[test]
fn an_attempt_leaves_time_for_another_if_there_may_be_one() {
    use Effect::{Once, Read, Session};
    use Patience::{Lasting, Strict};
    let cases = [
        (Session, Lasting, 1, true, 5000, 2500),
        (Read, Lasting, 1, true, 1500, 1000),
        (Read, Lasting, 1, true, 300, 300),
        (Once, Lasting, 1, true, 5000, 5000),
        (Session, Strict, 1, true, 5000, 5000),
        (Session, Strict, 2, true, 5000, 2500),
        (Session, Strict, 2, false, 5000, 5000),
    ];
    for (effect, patience, nodes, is_told, ms, expected) in cases {
        let left = Allowance { time: Duration::from_millis(ms), is_told };
        let found = Quest::new(effect, patience).attempt_time(left, nodes);
        let expected = Allowance { time: Duration::from_millis(expected), is_told };
        assert_eq!(found, expected, "{effect:?} {patience:?} {nodes} {is_told}");
    }
}

#[test]
fn strict_calls_ask_each_node_once_and_again_only_for_what_was_lost() {
    let judged = |effect, heard: &Heard, at: &[&str]| {
        let mut quest = Quest::new(effect, Patience::Strict);
        let nexts = at.iter().map(|at| name(quest.judge(&node(at), heard, 2, 0)));
        nexts.collect::<Vec<_>>().join(", ")
    };
    let (once, session) = (Effect::Once, Effect::Session);
    assert_eq!(judged(once, &no_leader(), &["a:1", "b:1"]), "again, give up");
    assert_eq!(judged(once, &no_connection(), &["a:1", "b:1"]), "again, give up");
    assert_eq!(judged(once, &Heard::late(), &["a:1"]), "give up");
    let twice = ["a:1", "b:1", "a:1", "b:1"];
    assert_eq!(judged(session, &Heard::late(), &twice), "again, again, again, give up");
    assert_eq!(judged(session, &session_unknown(), &["a:1", "b:1"]), "renew, renew");
}

#[test]
fn nodes_that_cannot_be_reached_are_named() {
    let mut quest = Quest::new(Effect::Once, Patience::Lasting);
    quest.judge(&node("b:1"), &no_connection(), 2, 0);
    quest.judge(&node("a:1"), &no_connection(), 2, 0);
    let error = quest.error(no_connection());
    assert_eq!(error.code(), "unreachable");
    assert_eq!(error.to_string(), "cannot reach a:1 (refused), b:1 (refused)");
}

#[test]
fn a_nodes_refusal_is_not_hidden_by_another_that_cannot_be_reached() {
    let mut quest = Quest::new(Effect::Once, Patience::Strict);
    quest.judge(&node("a:1"), &no_leader(), 2, 0);
    quest.judge(&node("b:1"), &no_connection(), 2, 0);
    let error = quest.error(no_connection());
    assert_eq!((error.code(), error.outcome()), ("no_leader", Outcome::NotAttempted));
    assert_eq!(error.to_string(), "said; cannot reach b:1 (refused)");
}
