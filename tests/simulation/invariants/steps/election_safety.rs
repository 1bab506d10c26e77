//! At most one leader is elected in a term (Ongaro 2014, figure 3.2, "Election Safety").

use std::collections::BTreeMap;

use coterie::types::{ReplicaId, Term};

use super::{Invariant, View, ensure};

/// Who led in each term, and in which of its lives.
#[derive(Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<Term, (ReplicaId, u64)>,
}

impl Invariant for ElectionSafety {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        if !view.core.is_leader() {
            return Ok(());
        }
        let (term, life) = (view.core.term(), view.life());
        let first = *self.leaders.entry(term).or_insert(life);
        ensure(first == life, || {
            format!("term {term} is led by {life:?} and by {first:?} (replica, life)")
        })
    }
}
