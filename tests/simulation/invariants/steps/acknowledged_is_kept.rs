//! What a follower has acknowledged to a leader stays in its log for as long as that leader's term
//! is the latest that it knows: the leader counts on it (Ongaro 2014, sections 3.5 and 3.6.3).

use std::collections::BTreeMap;

use coterie::protocol::raft::entry::LogPosition;
use coterie::protocol::raft::message::{AppendOutcome, Body};
use coterie::types::{ReplicaId, Term};

use super::{Event, Invariant, View, ensure};

/// The last entry that each replica acknowledged, and in which term.
#[derive(Default)]
pub(super) struct AcknowledgedIsKept {
    acknowledged: BTreeMap<ReplicaId, (Term, LogPosition)>,
}

impl Invariant for AcknowledgedIsKept {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        let (id, core, log) = (view.id(), view.core, view.core.log());
        if let Some((term, at)) =
            self.acknowledged.get(&id).filter(|(term, _)| *term == core.term())
        {
            ensure(at.index <= log.start().index || log.matches(*at), || {
                format!("{id} acknowledged {at:?} in term {term} and dropped it in that term")
            })?;
        }
        for event in view.events {
            let Event::Sent(message) = event else { continue };
            let Body::AppendReply(reply) = &message.body else { continue };
            let AppendOutcome::Matches(index) = reply.outcome else { continue };
            let current = message.term == core.term();
            if let Some(term) = log.term_at(index).filter(|_| current) {
                let at = LogPosition { index, term };
                let last = self.acknowledged.entry(id).or_insert((message.term, at));
                *last = (*last).max((message.term, at));
            }
        }
        Ok(())
    }
}
