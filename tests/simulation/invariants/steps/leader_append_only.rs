//! A leader never overwrites or deletes entries of its log, it only appends (Ongaro 2014,
//! figure 3.2, "Leader Append-Only").

use std::collections::BTreeMap;

use coterie::protocol::raft::entry::LogPosition;
use coterie::types::{ReplicaId, Term};

use super::{Invariant, View, ensure};

/// How far each leader's log went when it was last seen; the term before that entry is part of
/// log matching.
#[derive(Default)]
pub(super) struct LeaderAppendOnly {
    ends: BTreeMap<(ReplicaId, u64, Term), LogPosition>,
}

impl Invariant for LeaderAppendOnly {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        if !view.core.is_leader() {
            return Ok(());
        }
        let ((id, life), log) = (view.life(), view.core.log());
        let end = self.ends.entry((id, life, view.core.term())).or_default();
        let kept = end.index <= log.start().index || log.matches(*end);
        let before = std::mem::replace(end, log.last());
        ensure(kept && log.last().index >= before.index, || {
            format!("leader {id} had {before:?} and now ends at {:?} without it", log.last())
        })
    }
}
