//! N, R and W of a keyspace, by layout: its partitions go over to another N one by one.

use serde::{Deserialize, Serialize};

use crate::protocol::system::placing::LayoutId;
use crate::protocol::system::settings::Replication;

/// What a keyspace had before its N was changed, as long as partitions lie by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Layouts below this one are of the old N.
    pub layout: LayoutId,
    /// N, R and W on those.
    pub replication: Replication,
}

/// N, R and W of a keyspace, by layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Those that it is to have everywhere.
    pub now: Replication,
    /// Those that it had.
    pub before: Option<Before>,
}

/// N of a keyspace, by layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factors {
    now: u32,
    before: Option<(LayoutId, u32)>,
}

impl Spread {
    /// The same everywhere.
    pub fn even(replication: Replication) -> Spread {
        Spread { now: replication, before: None }
    }

    /// N, R and W on a layout.
    pub fn on(&self, layout: LayoutId) -> Replication {
        match self.before {
            Some(before) if layout < before.layout => before.replication,
            _ => self.now,
        }
    }

    /// N alone.
    pub fn factors(&self) -> Factors {
        let before = self.before.map(|before| (before.layout, before.replication.factor));
        Factors { now: self.now.factor, before }
    }
}

impl Factors {
    /// N on a layout.
    pub fn on(&self, layout: LayoutId) -> u32 {
        match self.before {
            Some((first, factor)) if layout < first => factor,
            _ => self.now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_from_before_the_change_keep_what_they_had() {
        let (old, new) = (Replication::majority_of(3), Replication::majority_of(5));
        let before = Some(Before { layout: LayoutId(4), replication: old });
        let spread = Spread { now: new, before };
        for (layout, expected) in [(1, old), (3, old), (4, new), (5, new)] {
            assert_eq!(spread.on(LayoutId(layout)), expected);
            assert_eq!(spread.factors().on(LayoutId(layout)), expected.factor);
        }
        assert_eq!(Spread::even(old).on(LayoutId(0)), old);
        assert_eq!(Spread::even(old).factors().on(LayoutId(9)), 3);
    }
}
