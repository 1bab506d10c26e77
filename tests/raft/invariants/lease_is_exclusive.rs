//! While a leader's lease holds, nobody leads a later term, or a read under the lease could miss
//! what that one commits (Ongaro 2014, section 6.4.1). Supposes clocks that run alike.

use super::{Invariant, View, ensure};

/// Asks every other leader when one has acted.
#[derive(Default)]
pub(super) struct LeaseIsExclusive;

impl Invariant for LeaseIsExclusive {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        if !view.core.is_leader() {
            return Ok(());
        }
        for machine in view.world.machines.values() {
            let Some(core) = machine.core.as_ref().filter(|core| core.is_leader()) else {
                continue;
            };
            ensure(core.term() >= view.core.term() || !core.lease_holds(machine.ticks), || {
                let (id, other) = (view.id(), machine.id);
                format!("{id} leads while the lease of {other}, of an earlier term, holds")
            })?;
        }
        Ok(())
    }
}
