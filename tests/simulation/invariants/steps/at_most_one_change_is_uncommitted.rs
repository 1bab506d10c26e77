//! A leader appends a change of the membership only when the one before is committed (Ongaro 2014,
//! section 4.1).

use coterie::protocol::raft::entry::Payload;

use super::{Invariant, View, ensure};

/// Counts the memberships behind everything that was ever committed.
#[derive(Default)]
pub(super) struct AtMostOneChangeIsUncommitted;

impl Invariant for AtMostOneChangeIsUncommitted {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        if !view.core.is_leader() {
            return Ok(());
        }
        let behind = view.core.log().entries_from(view.ledger.last().next());
        let changes = behind.iter().filter(|entry| matches!(entry.payload, Payload::Membership(_)));
        let indices: Vec<u64> = changes.map(|entry| entry.index.0).collect();
        ensure(indices.len() <= 1, || {
            format!("leader {} has uncommitted memberships at {indices:?}", view.id())
        })
    }
}
