//! An entry committed in a term is in the logs of the leaders of all later terms (Ongaro 2014,
//! figure 3.2, "Leader Completeness").

use std::collections::BTreeSet;

use coterie::types::{ReplicaId, Term};

use super::{Invariant, View, ensure};

/// The reigns that were looked at: it is enough to do so as they begin.
#[derive(Default)]
pub(super) struct LeaderCompleteness {
    seen: BTreeSet<(ReplicaId, u64, Term)>,
}

impl Invariant for LeaderCompleteness {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        let ((id, life), term, log) = (view.life(), view.core.term(), view.core.log());
        if !view.core.is_leader() || !self.seen.insert((id, life, term)) {
            return Ok(());
        }
        for chosen in view.ledger.all().iter().filter(|chosen| chosen.in_term < term) {
            let at = chosen.position();
            ensure(at.index <= log.start().index || log.matches(at), || {
                format!("{id} leads term {term} without {at:?}, committed in {}", chosen.in_term)
            })?;
        }
        Ok(())
    }
}
