//! A leader counts replicas only for entries of its own term; older ones are committed with the
//! first of those (Ongaro 2014, section 3.6.2).

use std::collections::BTreeMap;

use coterie::types::{LogIndex, ReplicaId, Term};

use super::{Invariant, View, ensure};

/// How far each reign had committed: what it began with it had learned as a follower.
#[derive(Default)]
pub(super) struct CommitsOnlyItsOwnTerm {
    commits: BTreeMap<(ReplicaId, u64, Term), LogIndex>,
}

impl Invariant for CommitsOnlyItsOwnTerm {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        let ((id, life), core) = (view.life(), view.core);
        let (term, commit) = (core.term(), core.commit());
        let key = (id, life, term);
        if !core.is_leader() {
            // Kept for the case that this replica is elected in the same term.
            self.commits.insert(key, commit);
            return Ok(());
        }
        let Some(before) = self.commits.insert(key, commit) else { return Ok(()) };
        let entry_term = core.log().term_at(commit);
        ensure(commit == before || entry_term == Some(term), || {
            format!("{id} committed {commit} of term {entry_term:?} as leader of term {term}")
        })
    }
}
