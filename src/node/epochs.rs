//! Since which epochs requests are under way: a node that leaves waits for those that began before
//! it was needed no more.
//!
//! A request goes by the ring as it was when it began, or by a newer one where it had to begin
//! again. So it keeps hold of the epoch in which it began, for as long as its client waits. What it
//! leaves behind its answer, late replicas and repairs, is not counted: whoever went cannot spoil
//! an answer that was given.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::types::Epoch;

/// The epochs in which the requests under way began.
#[derive(Default)]
pub(crate) struct EpochsInUse(Mutex<Known>);

#[derive(Default)]
struct Known {
    present: Arc<Epoch>,
    /// Earlier ones, in order, as long as a request keeps hold of them.
    earlier: Vec<Weak<Epoch>>,
}

/// A request's hold on the epoch in which it began.
pub(crate) struct EpochInUse {
    _epoch: Arc<Epoch>,
}

impl EpochsInUse {
    /// Counts a request until what is returned is dropped. To be called before it looks at a ring,
    /// which may then be a newer one, but none from before.
    pub(crate) fn begin(&self) -> EpochInUse {
        EpochInUse { _epoch: Arc::clone(&self.0.lock().present) }
    }

    /// Requests that begin from now on find the ring of this epoch.
    pub(crate) fn advance(&self, epoch: Epoch) {
        let mut known = self.0.lock();
        if *known.present == epoch {
            return;
        }
        let before = std::mem::replace(&mut known.present, Arc::new(epoch));
        known.earlier.push(Arc::downgrade(&before));
        drop(before);
        known.forget_unused();
    }

    /// The earliest epoch in which a request began that is under way; the present one if there is
    /// none. It never goes back.
    pub(crate) fn earliest(&self) -> Epoch {
        let mut known = self.0.lock();
        known.forget_unused();
        let earliest = known.earlier.iter().find_map(Weak::upgrade);
        *earliest.unwrap_or_else(|| Arc::clone(&known.present))
    }
}

impl Known {
    fn forget_unused(&mut self) {
        self.earlier.retain(|epoch| epoch.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_in_use_as_long_as_a_request_that_began_in_it() {
        let epochs = EpochsInUse::default();
        epochs.advance(Epoch(3));
        assert_eq!(epochs.earliest(), Epoch(3));
        let (first, second) = (epochs.begin(), epochs.begin());
        epochs.advance(Epoch(4));
        epochs.advance(Epoch(5));
        let third = epochs.begin();
        epochs.advance(Epoch(6));
        assert_eq!(epochs.earliest(), Epoch(3));
        drop(first);
        assert_eq!(epochs.earliest(), Epoch(3), "another began in it, too");
        drop(second);
        assert_eq!(epochs.earliest(), Epoch(5));
        drop(third);
        assert_eq!(epochs.earliest(), Epoch(6));
        assert!(epochs.0.lock().earlier.is_empty());
    }

    #[test]
    fn the_same_epoch_again_is_nothing_new() {
        let epochs = EpochsInUse::default();
        epochs.advance(Epoch(3));
        let request = epochs.begin();
        epochs.advance(Epoch(3));
        assert!(epochs.0.lock().earlier.is_empty());
        drop(request);
        assert_eq!(epochs.earliest(), Epoch(3));
    }
}
