//! Where rows may be missing because a hint was not kept, or given up.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::protocol::exchange::schedule::Pair;

/// Pairs that are remembered until they are looked at. Beyond, the ordinary turn has to do.
const LOST_MAX: usize = 16 << 10;

/// Partitions of targets that a hint was lost for.
#[derive(Default)]
pub(crate) struct LostHints {
    pairs: Mutex<BTreeSet<Pair>>,
    noted: Notify,
}

impl LostHints {
    /// Notes that a row of this partition may be missing on this node.
    pub(crate) fn note(&self, pair: Pair) {
        let mut pairs = self.pairs.lock();
        if pairs.len() < LOST_MAX && pairs.insert(pair) {
            self.noted.notify_one();
        }
    }

    /// What was noted since the last call.
    pub(super) fn take(&self) -> BTreeSet<Pair> {
        std::mem::take(&mut *self.pairs.lock())
    }

    /// Resolves when something was noted.
    pub(super) async fn noted(&self) {
        self.noted.notified().await;
    }
}
