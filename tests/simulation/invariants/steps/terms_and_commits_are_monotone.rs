//! Terms never fall, not even across a crash; a vote stands for its whole term; within one life the
//! commit index never falls (Ongaro 2014, figure 3.1).

use std::collections::BTreeMap;

use coterie::protocol::raft::entry::HardState;
use coterie::types::{LogIndex, ReplicaId, Term};

use super::{Invariant, View, ensure};

/// What each disk and each life said last.
#[derive(Default)]
pub(super) struct TermsAndCommitsAreMonotone {
    disks: BTreeMap<ReplicaId, HardState>,
    lives: BTreeMap<(ReplicaId, u64), (Term, LogIndex)>,
}

impl Invariant for TermsAndCommitsAreMonotone {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        let (id, durable) = (view.id(), view.replicas.hard_state(view.id()));
        let before = self.disks.insert(id, durable).unwrap_or_default();
        ensure(durable.term >= before.term, || {
            format!("{id}'s disk: {durable:?} after {before:?}")
        })?;
        let kept = durable.voted_for == before.voted_for || before.voted_for.is_none();
        ensure(kept || durable.term > before.term, || {
            format!("{id} voted again: {durable:?} after {before:?}")
        })?;
        let now = (view.core.term(), view.core.commit());
        let before = self.lives.insert(view.life(), now).unwrap_or((before.term, LogIndex(0)));
        ensure(now.0 >= before.0 && now.1 >= before.1, || {
            format!("{id}: (term, commit) {now:?} after {before:?}")
        })
    }
}
