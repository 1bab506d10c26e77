//! How fresh a read of a strong keyspace must be.

use std::time::Duration;

/// What a reader is promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write that was acknowledged before it began: the leader confirms with a
    /// quorum that it still leads (Ongaro 2014, section 6.4).
    #[default]
    Linearizable,
    /// The same as long as clocks run at much the same rate: the leader relies on its lease
    /// instead of asking (section 6.4.1).
    Lease,
    /// It sees everything that was committed this long ago; any replica may answer that knows it.
    Stale {
        /// How old the state that is read may be.
        max_staleness: Duration,
    },
}

impl Consistency {
    /// The promise's name at the interfaces.
    pub fn name(self) -> &'static str {
        match self {
            Consistency::Linearizable => "linearizable",
            Consistency::Lease => "lease",
            Consistency::Stale { .. } => "stale",
        }
    }
}
