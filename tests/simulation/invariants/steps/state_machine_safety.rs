//! No two state machines apply different entries at one index, and each applies them in order,
//! once (Ongaro 2014, figure 3.2, "State Machine Safety").

use std::collections::BTreeMap;

use coterie::types::{LogIndex, ReplicaId};

use super::{Event, Invariant, View, ensure};

/// What each life of each machine applied last.
#[derive(Default)]
pub(super) struct StateMachineSafety {
    applied: BTreeMap<(ReplicaId, u64), LogIndex>,
}

impl Invariant for StateMachineSafety {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        let id = view.id();
        let last = self.applied.entry(view.life()).or_default();
        for event in view.events {
            let entry = match event {
                Event::Started(applied) | Event::Installed(applied) => {
                    *last = *applied;
                    continue;
                }
                Event::Applied(entry) => entry,
                _ => continue,
            };
            ensure(entry.index == last.next(), || {
                format!("{id} applies {} after {last}", entry.index)
            })?;
            *last = entry.index;
            let chosen = view.ledger.at(entry.index).map(|chosen| &chosen.entry);
            ensure(chosen == Some(entry), || format!("{id} applies {entry:?}, not {chosen:?}"))?;
        }
        Ok(())
    }
}
