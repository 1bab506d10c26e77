//! A read is served no earlier than everything that was committed anywhere when it was asked for
//! (Ongaro 2014, section 6.4).

use std::collections::BTreeMap;

use coterie::types::LogIndex;

use super::{Event, Invariant, View, ensure};

/// What each read must not miss.
#[derive(Default)]
pub(super) struct ReadIndexIsLinearizable {
    floors: BTreeMap<u64, LogIndex>,
}

impl Invariant for ReadIndexIsLinearizable {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        for event in view.events {
            match event {
                Event::ReadAsked { token, floor } => {
                    self.floors.insert(*token, *floor);
                }
                Event::ReadAnswered(read) => {
                    let floor = self.floors.remove(&read.token);
                    ensure(floor.is_some_and(|floor| floor <= read.index), || {
                        let id = view.id();
                        format!("{id} serves {read:?}, but {floor:?} was committed when asked")
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
