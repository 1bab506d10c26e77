//! Whether a failed attempt may be repeated, and after how long.
//!
//! * What was certainly not begun is asked again, whatever it is, unless no node would do it.
//! * What may have been done is asked again only if that does no harm ([`Effect`]).
//! * A session that the group does not know any more is renewed only for a command that was
//!   certainly not executed under the old one; for any other nobody can tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use crate::client::deadline::Allowance;
use crate::client::error::{ClientError, Outcome};
use crate::client::heard::{CONDITION_FAILED, Heard, OVERLOADED, UNKNOWN_KEYSPACE, Witness};

/// The first back-off, in milliseconds.
const BACK_OFF_MS: u64 = 10;
/// The longest back-off, in milliseconds.
const BACK_OFF_MS_MAX: u64 = 500;
/// An attempt that may be repeated gets at least this much time, if there is as much.
const ATTEMPT_TIME_MIN: Duration = Duration::from_secs(1);
/// After this many attempts in a row without a rest, there is one: two nodes that each take the
/// other for the leader must not keep the client running.
const ATTEMPTS_AT_ONCE_MAX: u32 = 4;
/// How often one call takes up a new session.
const RENEWALS_MAX: u32 = 3;

/// What a second execution of a call would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it only reads.
    Read,
    /// Nothing: its session tells it from its repetition.
    Session,
    /// No harm: its caller said so.
    Idempotent,
    /// Harm.
    Once,
}

/// How long a call goes on, and whom it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Any node of the cluster, until the call's time is up.
    Lasting,
    /// Only the nodes that the client was given, each once; a second time what was lost on the
    /// way and may be repeated.
    Strict,
}

/// What a failed attempt means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// It changed nothing, and no repetition would.
    Refused,
    /// Nothing was begun; another node, or the same a little later, may do it.
    NotNow,
    /// It may have been done.
    Lost,
    /// The group does not have the session; this attempt was not executed.
    SessionGone,
    /// The session is in disorder, so that nothing more can be learnt of the call.
    SessionBroken,
}

/// What comes after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// No more attempts.
    GiveUp,
    /// The same again, with the same session and sequence.
    Again {
        /// How long to rest before.
        after: Duration,
    },
    /// The same again under a new session.
    Renew {
        /// How long to rest before.
        after: Duration,
    },
}

/// The attempts of one call.
#[derive(Clone, Debug)]
pub(crate) struct Quest {
    effect: Effect,
    patience: Patience,
    attempts: u32,
    renewals: u32,
    /// Whether an attempt may have been executed.
    may_be_done: bool,
    /// Whether the keyspace is known to exist, so that a node that has not heard of it will.
    pub(crate) keyspace_exists: bool,
    asked: BTreeMap<Arc<str>, u32>,
    unreached: BTreeMap<Arc<str>, String>,
    /// The last node's word: it tells more than that others cannot be reached.
    refused: Option<Heard>,
}

impl Quest {
    pub(crate) fn new(effect: Effect, patience: Patience) -> Quest {
        Quest {
            effect,
            patience,
            attempts: 0,
            renewals: 0,
            may_be_done: false,
            keyspace_exists: false,
            asked: BTreeMap::new(),
            unreached: BTreeMap::new(),
            refused: None,
        }
    }

    /// How often each node was asked.
    pub(crate) fn asked(&self) -> &BTreeMap<Arc<str>, u32> {
        &self.asked
    }

    /// How long the next attempt may take, when so many nodes are known. One that may be repeated
    /// leaves time for that.
    pub(crate) fn attempt_time(&self, left: Allowance, nodes: usize) -> Allowance {
        let is_last = self.patience == Patience::Strict && self.asked.len() + 1 >= nodes;
        if self.effect == Effect::Once || is_last || !left.is_told {
            return left;
        }
        Allowance { time: (left.time / 2).max(ATTEMPT_TIME_MIN).min(left.time), ..left }
    }

    /// Takes a failed attempt at a node, when so many nodes are known.
    pub(crate) fn judge(
        &mut self,
        node: &Arc<str>,
        heard: &Heard,
        nodes: usize,
        random: u64,
    ) -> Next {
        self.attempts += 1;
        *self.asked.entry(node.clone()).or_default() += 1;
        match heard.witness {
            Witness::Node => self.refused = Some(heard.clone()),
            Witness::Loss => {}
            Witness::NoConnection => {
                self.unreached.insert(node.clone(), heard.message.clone());
            }
        }
        let after = self.rest(heard, nodes, random);
        let meaning = self.meaning(heard);
        let next = self.next(meaning, after);
        let asked_enough = self.patience == Patience::Strict && self.asked_enough(meaning, nodes);
        if asked_enough && matches!(next, Next::Again { .. }) { Next::GiveUp } else { next }
    }

    fn next(&mut self, meaning: Meaning, after: Duration) -> Next {
        match meaning {
            Meaning::Refused | Meaning::SessionBroken => Next::GiveUp,
            Meaning::NotNow => Next::Again { after },
            Meaning::Lost => {
                self.may_be_done = true;
                if self.effect == Effect::Once { Next::GiveUp } else { Next::Again { after } }
            }
            Meaning::SessionGone if self.may_be_done || self.renewals == RENEWALS_MAX => {
                Next::GiveUp
            }
            Meaning::SessionGone => {
                self.renewals += 1;
                Next::Renew { after }
            }
        }
    }

    /// Whether each node was asked once, or twice for what was lost.
    fn asked_enough(&self, meaning: Meaning, nodes: usize) -> bool {
        let times = if meaning == Meaning::Lost { 2 } else { 1 };
        self.asked.len() >= nodes && self.asked.values().all(|asked| *asked >= times)
    }

    /// Whether the session cannot be used by later calls either.
    pub(crate) fn ends_session(&self, heard: &Heard) -> bool {
        matches!(self.meaning(heard), Meaning::SessionGone | Meaning::SessionBroken)
    }

    fn meaning(&self, heard: &Heard) -> Meaning {
        match heard.word.as_str() {
            "session_unknown" => return Meaning::SessionGone,
            "session_acknowledged" | "session_window_exceeded" => return Meaning::SessionBroken,
            UNKNOWN_KEYSPACE if self.keyspace_exists => return Meaning::NotNow,
            _ => {}
        }
        match (heard.witness, heard.outcome) {
            (Witness::NoConnection, _) => Meaning::NotNow,
            (Witness::Loss, _) | (_, Some(Outcome::Unknown)) => Meaning::Lost,
            (_, Some(Outcome::NotAttempted)) if is_passing(heard.code) => Meaning::NotNow,
            // Every replica had too much to do, and so did nothing.
            (_, Some(Outcome::Failed)) if heard.word == OVERLOADED => Meaning::NotNow,
            // A read that failed on the way may succeed elsewhere.
            (_, Some(Outcome::Failed)) if self.effect == Effect::Read => by_code(heard.code),
            (_, Some(_)) => Meaning::Refused,
            (Witness::Node, None) => by_code(heard.code),
        }
    }

    /// Another node is asked at once, the same one after a rest. One that has too much to do says
    /// how long; as its load is likely the others' too, all of them are left alone for so long.
    fn rest(&self, heard: &Heard, nodes: usize, random: u64) -> Duration {
        if let Some(wanted) = heard.retry_after {
            return back_off(self.attempts, random).max(stretched(wanted, random));
        }
        let at_once =
            heard.word != OVERLOADED && !self.attempts.is_multiple_of(ATTEMPTS_AT_ONCE_MAX);
        let elsewhere = heard.leader.is_some() || self.asked.len() < nodes;
        if at_once && elsewhere {
            return Duration::ZERO;
        }
        back_off(self.attempts, random)
    }

    /// What the call has come to, after this last failed attempt.
    pub(crate) fn error(mut self, heard: Heard) -> ClientError {
        let outcome = self.outcome(&heard);
        let heard = match (heard.witness, self.refused.take()) {
            (Witness::NoConnection, Some(refused)) => {
                let message = format!("{}; {}", refused.message, self.unreachable());
                Heard { message, ..refused }
            }
            _ => heard,
        };
        if let Some((step, current)) = heard.condition {
            return ClientError::ConditionFailed { step, current, message: heard.message };
        }
        let attempts = self.attempts;
        match heard.witness {
            Witness::Node => {
                let Heard { code: status, word: code, message, .. } = heard;
                ClientError::Refused { status, code, message, outcome, attempts }
            }
            Witness::Loss => {
                let message = format!("no answer: {}", heard.message);
                ClientError::NoAnswer { code: "no_answer", message, outcome, attempts }
            }
            Witness::NoConnection => {
                let message = self.unreachable();
                ClientError::NoAnswer { code: "unreachable", message, outcome, attempts }
            }
        }
    }

    fn unreachable(&self) -> String {
        let nodes = self.unreached.iter().map(|(node, why)| format!("{node} ({why})"));
        format!("cannot reach {}", nodes.collect::<Vec<_>>().join(", "))
    }

    fn outcome(&self, heard: &Heard) -> Outcome {
        let last = match self.meaning(heard) {
            Meaning::Lost | Meaning::SessionBroken => Outcome::Unknown,
            Meaning::SessionGone => Outcome::Failed,
            Meaning::NotNow => heard.outcome.unwrap_or(Outcome::NotAttempted),
            Meaning::Refused => heard.outcome.unwrap_or(Outcome::Failed),
        };
        match (self.effect, last) {
            (Effect::Read, Outcome::Unknown) => Outcome::Failed,
            (Effect::Read, last) => last,
            // Its session answers for all attempts.
            (Effect::Session, last) if heard.word == CONDITION_FAILED => last,
            (_, _) if self.may_be_done => Outcome::Unknown,
            (_, last) => last,
        }
    }
}

/// Codes by which a node says that it cannot serve for now.
fn is_passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::ResourceExhausted)
}

/// What is to be thought of an answer by its code alone.
fn by_code(code: Code) -> Meaning {
    match code {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unknown => Meaning::Lost,
        _ => Meaning::Refused,
    }
}

/// A rest that doubles with every attempt, of which chance takes up to a half.
pub(crate) fn back_off(attempts: u32, random: u64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let whole = (BACK_OFF_MS << doublings).min(BACK_OFF_MS_MAX);
    Duration::from_millis(whole - random % (whole / 2 + 1))
}

/// A wait that a node has asked for, of which chance adds up to a half: those who were refused
/// together must not come again together.
fn stretched(wanted: Duration, random: u64) -> Duration {
    let ms = u64::try_from(wanted.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(ms.saturating_add(random % (ms / 2 + 1)))
}

#[cfg(test)]
mod tests;
