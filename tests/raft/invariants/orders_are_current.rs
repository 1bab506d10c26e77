//! A change of the membership is taken only from somebody who knew the one in force: an order that
//! was meant for an earlier one could undo what came between (Ongaro 2014, section 4.1).

use super::{Event, Invariant, View, ensure};

/// Looks at the orders that were accepted.
#[derive(Default)]
pub(super) struct OrdersAreCurrent;

impl Invariant for OrdersAreCurrent {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        for event in view.events {
            let Event::Ordered { expected, before } = event else { continue };
            ensure(expected == before, || {
                format!("{} took an order for {expected} when {before} was in force", view.id())
            })?;
        }
        Ok(())
    }
}
