//! However often a command of a session is in a group's log, it is executed once: no two entries
//! report that they wrote for it, on whichever replica.
//!
//! Rests on: sessions that are part of the replicated state, looked at as entries are applied
//! (Ongaro 2014, section 6.3).

use std::collections::BTreeMap;

use coterie::node::groups::observer::Observed;
use coterie::protocol::group::command::Command;
use coterie::protocol::group::reply::Reply;
use coterie::protocol::raft::entry::Payload;
use coterie::types::{ClientId, Revision};

pub(crate) const NAME: &str = "session_at_most_once";

/// At which revision each command of a session was executed.
#[derive(Default)]
pub(crate) struct SessionAtMostOnce {
    executed: BTreeMap<(ClientId, u64), Revision>,
}

impl SessionAtMostOnce {
    pub(crate) fn check(&mut self, seen: &Observed) -> Option<(&'static str, String)> {
        let Payload::Command(command) = &seen.entry.payload else { return None };
        let session = Command::decode(command).ok()?.session?;
        let Reply::Written { revision, .. } = Reply::decode(seen.reply.as_ref()?).ok()? else {
            return None;
        };
        let command = (session.client, session.sequence);
        let first = *self.executed.entry(command).or_insert(revision);
        let at = seen.entry.index;
        (first != revision).then(|| {
            (NAME, format!("{command:?} was executed at {first:?}, again at {at} as {revision:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use coterie::protocol::group::command::{Operation, SessionStamp};
    use coterie::protocol::raft::entry::Entry;
    use coterie::types::{LogIndex, Term, Timestamp};

    use super::*;

    fn seen(sequence: u64, index: u64, revision: u64) -> Observed {
        let session = Some(SessionStamp { client: ClientId(1), sequence, acknowledged: 0 });
        let operation = Operation::Write(Vec::new());
        let command =
            Command { session, stamp: Timestamp(0), value_bytes_max: 1, operation }.encode();
        let payload = Payload::Command(command);
        let reply = Reply::Written { revision: Revision(revision), results: Vec::new() };
        let entry = Entry { term: Term(1), index: LogIndex(index), payload };
        Observed { entry, reply: Some(reply.encode()) }
    }

    #[test]
    fn it_holds_when_a_repetition_is_answered_with_the_first_revision() {
        let mut sessions = SessionAtMostOnce::default();
        let stories = [seen(1, 1, 1), seen(2, 2, 2), seen(1, 3, 1)];
        assert!(stories.iter().all(|seen| sessions.check(seen).is_none()));
    }

    #[test]
    fn it_fails_when_a_repetition_writes_anew() {
        let mut sessions = SessionAtMostOnce::default();
        assert!(sessions.check(&seen(1, 1, 1)).is_none());
        assert!(sessions.check(&seen(1, 3, 3)).is_some());
    }
}
