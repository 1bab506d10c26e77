//! A state machine is given only what is committed, in its replica's log and durable there
//! (Ongaro 2014, section 3.5; figure 3.1, `lastApplied` and `commitIndex`).

use super::{Event, Invariant, View, ensure};

/// Compares the indices that a replica gives of itself.
#[derive(Default)]
pub(super) struct AppliedIsCommitted;

impl Invariant for AppliedIsCommitted {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        let (id, core) = (view.id(), view.core);
        let (applied, commit, last) = (view.applied, core.commit(), core.log().last_index());
        ensure(applied <= commit && commit <= last, || {
            format!("{id}: applied {applied}, committed {commit}, last {last}")
        })?;
        for event in view.events {
            let Event::Applied(entry) = event else { continue };
            ensure(view.replicas.holds(id, entry.position()), || {
                format!("{id} applies {:?}, which is not durable there", entry.position())
            })?;
        }
        Ok(())
    }
}
