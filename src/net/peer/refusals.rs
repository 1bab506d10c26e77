//! Who refuses whom, kept for status pages and logged once per change.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::NodeId;

/// A refusal that was not repeated for this long no longer stands; dialers retry every few seconds.
const STANDS_FOR: Duration = Duration::from_secs(30);

/// Refusals kept; strangers may knock under ever new ids.
const REFUSALS_MAX: usize = 64;

/// Refusals by the other node's id.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    entries: Mutex<BTreeMap<NodeId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    reason: String,
    last: Instant,
    /// False once a connection stood; the entry then only keeps a repetition from being logged.
    standing: bool,
}

impl RefusalLog {
    /// Notes a refusal, by this node or by the other.
    pub(crate) fn record(&self, peer: NodeId, reason: String) {
        let last = now();
        let mut entries = self.entries.lock();
        let known = entries
            .get(&peer)
            .is_some_and(|entry| entry.reason == reason && last - entry.last < STANDS_FOR);
        if !known {
            tracing::warn!(%peer, %reason, "no connection with a peer");
        }
        if entries.len() >= REFUSALS_MAX && !entries.contains_key(&peer) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.last).map(|(id, _)| *id);
            oldest.map(|id| entries.remove(&id));
        }
        entries.insert(peer, Entry { reason, last, standing: true });
    }

    /// A connection with the peer stands.
    pub(crate) fn clear(&self, peer: NodeId) {
        if let Some(entry) = self.entries.lock().get_mut(&peer) {
            entry.standing = false;
        }
    }

    /// The refusals that stand, by id.
    pub(crate) fn standing(&self) -> Vec<(NodeId, String)> {
        let now = now();
        let stands = |entry: &Entry| entry.standing && now - entry.last < STANDS_FOR;
        let entries = self.entries.lock();
        let standing = entries.iter().filter(|(_, entry)| stands(entry));
        standing.map(|(peer, entry)| (*peer, entry.reason.clone())).collect()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "ages entries of a status page; simulations use another transport"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_stands_until_a_connection_does_or_it_fades() {
        let log = RefusalLog::default();
        log.record(NodeId(1), "no".to_owned());
        log.record(NodeId(2), "never".to_owned());
        log.clear(NodeId(1));
        assert_eq!(log.standing(), [(NodeId(2), "never".to_owned())]);
        tokio::time::advance(STANDS_FOR).await;
        assert_eq!(log.standing(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_cannot_fill_memory() {
        let log = RefusalLog::default();
        for stranger in 0..1000 {
            log.record(NodeId(stranger), "no".to_owned());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let standing = log.standing();
        assert_eq!(standing.len(), REFUSALS_MAX);
        assert!(standing.iter().any(|(peer, _)| *peer == NodeId(999)));
    }
}
