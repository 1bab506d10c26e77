//! An entry comes to the same on every replica that applies it, at once or after a restart.
//!
//! Rests on: state machines that are deterministic, so that State Machine Safety (Ongaro 2014,
//! figure 3.2) makes equal states of equal logs.

use std::collections::BTreeMap;

use bytes::Bytes;
use coterie::node::groups::observer::Observed;
use coterie::types::{LogIndex, ReplicaId};

pub(crate) const NAME: &str = "replicas_answer_alike";

/// What each entry came to, on the replica that applied it first.
#[derive(Default)]
pub(crate) struct ReplicasAnswerAlike {
    replies: BTreeMap<LogIndex, (ReplicaId, Option<Bytes>)>,
}

impl ReplicasAnswerAlike {
    pub(crate) fn check(
        &mut self,
        replica: ReplicaId,
        seen: &Observed,
    ) -> Option<(&'static str, String)> {
        let index = seen.entry.index;
        let first = self.replies.entry(index).or_insert_with(|| (replica, seen.reply.clone()));
        (first.1 != seen.reply).then(|| {
            (NAME, format!("{index} came to {first:?} and to {:?} on {replica}", seen.reply))
        })
    }
}

#[cfg(test)]
mod tests {
    use coterie::protocol::raft::entry::{Entry, Payload};
    use coterie::types::Term;

    use super::*;

    fn seen(reply: &'static str) -> Observed {
        let entry = Entry { term: Term(1), index: LogIndex(1), payload: Payload::Empty };
        Observed { entry, reply: Some(Bytes::from(reply)) }
    }

    #[test]
    fn it_holds_for_equal_replies_and_fails_for_others() {
        let mut answers = ReplicasAnswerAlike::default();
        assert!(answers.check(ReplicaId(1), &seen("a")).is_none());
        assert!(answers.check(ReplicaId(2), &seen("a")).is_none());
        assert!(answers.check(ReplicaId(3), &seen("b")).is_some());
    }
}
