//! What clients asked of a strong keyspace, and every answer: a command that is sent again bears
//! the same number of the same session, and is one command.

use bytes::Bytes;
use coterie::node::request::{Outcome, RequestError};
use coterie::protocol::consistency::Consistency;
use coterie::protocol::group::command::{Action, SessionStamp};
use coterie::protocol::group::reply::StepResult;
use coterie::types::{Key, Moment, Version};
use parking_lot::Mutex;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// These steps, all or none.
    Write(Vec<(Key, Action)>),
    /// To read.
    Read(Key, Consistency),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// All steps were done.
    Written(Option<Version>, Vec<StepResult>),
    /// What was read.
    Read(Option<Bytes>),
    /// The node said no, or that it does not know.
    Refused(RequestError),
    /// The node died before it answered.
    NodeDied,
    /// The node lived and never answered.
    Silence,
}

/// A place in the order of all invocations and answers, and the moment that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) number: u64,
    pub(crate) at: Moment,
}

/// One time that a command was sent.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) machine: usize,
    pub(crate) invoked: Place,
    pub(crate) told: Option<(Place, Told)>,
}

/// One command with all the times that it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) client: usize,
    pub(crate) session: Option<SessionStamp>,
    pub(crate) asked: Asked,
    pub(crate) attempts: Vec<Attempt>,
}

/// What is known of a command in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was answered, first at this place.
    Answered(Place, Told),
    /// It may have happened, or may yet.
    Unknown,
    /// It never happened and never will.
    Nothing,
}

impl Command {
    /// When it was first sent.
    pub(crate) fn invoked(&self) -> Place {
        self.attempts.first().map(|attempt| attempt.invoked).unwrap_or(NEVER)
    }

    /// What is known of it.
    pub(crate) fn fate(&self) -> Fate {
        let told = self.attempts.iter().filter_map(|attempt| attempt.told.clone());
        let first = told.filter(|(_, told)| is_definite(told)).min_by_key(|(place, _)| *place);
        match first {
            Some((place, told)) => Fate::Answered(place, told),
            None if self.attempts.iter().any(Attempt::is_unknown) => Fate::Unknown,
            None => Fate::Nothing,
        }
    }

    /// The answers that say that it was executed, or that its condition did not hold.
    pub(crate) fn definite(&self) -> Vec<&Told> {
        let told = self.attempts.iter().filter_map(|attempt| attempt.told.as_ref());
        told.map(|(_, told)| told).filter(|told| is_definite(told)).collect()
    }
}

impl Attempt {
    /// Whether this time the command may have been executed without anyone being told.
    pub(crate) fn is_unknown(&self) -> bool {
        match &self.told {
            None | Some((_, Told::NodeDied | Told::Silence)) => true,
            Some((_, Told::Refused(error))) => error.outcome() == Outcome::Unknown,
            Some((_, Told::Written(..) | Told::Read(_))) => false,
        }
    }
}

fn is_definite(told: &Told) -> bool {
    match told {
        Told::Written(..) | Told::Read(_) => true,
        Told::Refused(RequestError::ConditionFailed { .. }) => true,
        Told::Refused(_) | Told::NodeDied | Told::Silence => false,
    }
}

const NEVER: Place = Place { number: u64::MAX, at: Moment(u64::MAX) };

/// The commands of a run, as they happen.
#[derive(Default)]
pub(crate) struct StrongHistory {
    state: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    number: u64,
    commands: Vec<Command>,
}

/// Names an attempt of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) command: usize,
    attempt: usize,
}

impl StrongHistory {
    /// A client will ask this.
    pub(crate) fn begin(
        &self,
        client: usize,
        session: Option<SessionStamp>,
        asked: Asked,
    ) -> usize {
        let mut state = self.state.lock();
        state.commands.push(Command { client, session, asked, attempts: Vec::new() });
        state.commands.len() - 1
    }

    /// A command is sent to a machine's node.
    pub(crate) fn send(&self, command: usize, machine: usize, at: Moment) -> Sent {
        let mut state = self.state.lock();
        state.number += 1;
        let invoked = Place { number: state.number, at };
        let attempts = &mut state.commands[command].attempts;
        attempts.push(Attempt { machine, invoked, told: None });
        Sent { command, attempt: attempts.len() - 1 }
    }

    /// It was answered.
    pub(crate) fn answer(&self, sent: Sent, at: Moment, told: Told) {
        let mut state = self.state.lock();
        state.number += 1;
        let place = Place { number: state.number, at };
        state.commands[sent.command].attempts[sent.attempt].told = Some((place, told));
    }

    /// What is known of a command by now.
    pub(crate) fn fate(&self, command: usize) -> Fate {
        self.state.lock().commands[command].fate()
    }

    /// What a command is, and by which use of which session.
    pub(crate) fn asked(&self, command: usize) -> (Asked, Option<SessionStamp>) {
        let state = self.state.lock();
        let command = &state.commands[command];
        (command.asked.clone(), command.session)
    }

    /// Whether an answer said that the group does not have the command's session.
    pub(crate) fn lost_its_session(&self, command: usize) -> bool {
        let state = self.state.lock();
        let mut told = state.commands[command].attempts.iter().filter_map(|a| a.told.as_ref());
        told.any(|(_, told)| matches!(told, Told::Refused(RequestError::Session(_))))
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        self.state.lock().commands.clone()
    }
}
