//! A replica that says how fresh it is has, up to the index it names, everything that was committed
//! when the tick it names began: bounded staleness rests on it (after Ongaro 2014, section 6.4).
//! Supposes clocks that run alike.

use super::{Invariant, View, ensure};

/// Compares with what the ledger held when each tick began.
#[derive(Default)]
pub(super) struct FreshnessIsHonest;

impl Invariant for FreshnessIsHonest {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        let Some(fresh) = view.core.freshness().filter(|_| view.world.setup.clocks_agree) else {
            return Ok(());
        };
        let at = usize::try_from(fresh.tick).expect("a run has few ticks");
        let committed = view.machine.committed_at.get(at).copied();
        ensure(committed.is_none_or(|committed| committed <= fresh.commit), || {
            format!("{} says {fresh:?}, but {committed:?} was committed then", view.id())
        })
    }
}
