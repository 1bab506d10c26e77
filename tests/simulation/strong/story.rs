//! Short ways to tell a history in the tests of the invariants.

use bytes::Bytes;
use coterie::protocol::consistency::Consistency;
use coterie::protocol::group::command::{Action, SessionStamp};
use coterie::types::{
    ClientId, GroupId, Incarnation, Key, LogIndex, Moment, NodeId, ReplicaId, Term, Timestamp,
    Version,
};

use super::StrongEvidence;
use super::history::{Asked, Attempt, Command, Place, Told};
use super::watch::Sighting;
use crate::history::Evidence;
use crate::linearizability::appends;

/// Places are as many milliseconds apart.
pub(crate) fn place(number: u64) -> Place {
    Place { number, at: Moment(number * 1000) }
}

pub(crate) fn command(asked: Asked, span: (u64, u64), told: Told) -> Command {
    let told = Some((place(span.1), told));
    let attempt = Attempt { machine: 0, invoked: place(span.0), told };
    Command { client: 0, session: None, asked, attempts: vec![attempt] }
}

fn written(revision: u64) -> Told {
    let (timestamp, incarnation) = (Timestamp(revision), Incarnation(0));
    Told::Written(Some(Version { timestamp, incarnation }), Vec::new())
}

pub(crate) fn put(key: &'static str, value: &'static str, span: (u64, u64)) -> Command {
    let action = Action::Put(Bytes::from(value));
    command(Asked::Write(vec![(Key::from(key), action)]), span, written(span.1))
}

pub(crate) fn append(key: &'static str, element: u64, span: (u64, u64)) -> Command {
    let action = Action::Append(Bytes::from(appends::encoded(element)));
    command(Asked::Write(vec![(Key::from(key), action)]), span, written(span.1))
}

pub(crate) fn read(key: &'static str, value: Option<&'static str>, span: (u64, u64)) -> Command {
    let asked = Asked::Read(Key::from(key), Consistency::Linearizable);
    command(asked, span, Told::Read(value.map(Bytes::from)))
}

/// The same command again under a session, answered with a revision.
pub(crate) fn repeated(mut command: Command, at: u64, revision: u64) -> Command {
    let client = ClientId(1);
    command.session = Some(SessionStamp { client, sequence: 1, acknowledged: 0 });
    let told = Some((place(at + 1), written(revision)));
    command.attempts.push(Attempt { machine: 1, invoked: place(at), told });
    command
}

/// A replica of group 1 on a node, as it was seen at some time: it follows in term 1.
pub(crate) fn sighting(at: u64, node: u64) -> Sighting {
    Sighting {
        at: Moment(at),
        node: NodeId(node),
        life: 0,
        group: GroupId(1),
        replica: ReplicaId(node),
        leads: false,
        term: Term(1),
        commit: LogIndex(5),
        applied: LogIndex(5),
    }
}

pub(crate) fn evidence(commands: Vec<Command>) -> Evidence {
    let strong = StrongEvidence { commands, ..StrongEvidence::default() };
    Evidence { strong, ..Evidence::default() }
}

pub(crate) fn seen(sightings: Vec<Sighting>) -> Evidence {
    let strong = StrongEvidence { sightings, ..StrongEvidence::default() };
    Evidence { strong, ..Evidence::default() }
}
