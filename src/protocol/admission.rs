//! Who yields when a node has much to do: background work, the least urgent first, and clients
//! last of all.
//!
//! A node is as full as the fullest of what it has bounded: the queue before its log, the tables
//! that wait for the engine, the requests that it coordinates. Each class of background work is let
//! in up to a ceiling of its own, so that a node that mends others, or is mended, does not first
//! refuse those who wait for it. Clients are refused only where a bound itself is reached, which
//! is not decided here.

use crate::protocol::message::Class;

/// How much there is of something, and how much there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What there is.
    pub used: usize,
    /// What there may be.
    pub max: usize,
}

impl Share {
    /// In percent, rounded up; 100 when nothing may be.
    fn percent(self) -> usize {
        match self.max {
            0 => 100,
            max => self.used.saturating_mul(100).div_ceil(max),
        }
    }
}

/// What a node has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes in the queue before the log.
    pub log_queue: Share,
    /// Bytes of tables beyond those that are there in ordinary operation.
    pub tables: Share,
    /// Requests that the node coordinates.
    pub requests: Share,
}

impl Load {
    /// How full the node is, in percent: as full as the fullest part.
    pub fn percent(&self) -> usize {
        let parts = [self.log_queue, self.tables, self.requests];
        parts.into_iter().map(Share::percent).max().unwrap_or(0)
    }
}

/// From which load on a class is held back, in percent; `None` for what only the bounds stop.
///
/// Repairs behind an answer save later readers a repair before theirs, so they go on longest. Hints
/// and rows for other nodes can wait for hours, and would fill what is left; comparing replicas is
/// work for idle nodes.
pub fn ceiling_percent(class: Class) -> Option<usize> {
    match class {
        Class::Client => None,
        Class::Repair => Some(75),
        Class::Hint => Some(50),
        Class::Transfer => Some(40),
        Class::AntiEntropy => Some(25),
    }
}

/// Whether work of a class may begin on a node with that load.
pub fn admits(class: Class, load: &Load) -> bool {
    ceiling_percent(class).is_none_or(|ceiling| load.percent() < ceiling)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share() -> impl Strategy<Value = Share> {
        (0_usize..200, 0_usize..100).prop_map(|(used, max)| Share { used, max })
    }

    fn load() -> impl Strategy<Value = Load> {
        (share(), share(), share()).prop_map(|(log_queue, tables, requests)| Load {
            log_queue,
            tables,
            requests,
        })
    }

    fn admitted(load: &Load) -> Vec<Class> {
        Class::ALL.into_iter().filter(|class| admits(*class, load)).collect()
    }

    #[test]
    fn classes_yield_one_after_another_and_clients_never() {
        let cases =
            [(0, 5), (24, 5), (25, 4), (39, 4), (40, 3), (50, 2), (74, 2), (75, 1), (100, 1)];
        for (used, count) in cases {
            let full = Share { used, max: 100 };
            let empty = Share { used: 0, max: 100 };
            for parts in [[full, empty, empty], [empty, full, empty], [empty, empty, full]] {
                let [log_queue, tables, requests] = parts;
                let load = Load { log_queue, tables, requests };
                assert_eq!(admitted(&load), Class::ALL[..count], "{load:?}");
            }
        }
    }

    proptest! {
        /// Nobody is let in while somebody more urgent is not.
        #[test]
        fn the_more_urgent_goes_on_longer(load in load()) {
            let admitted = admitted(&load);
            prop_assert_eq!(&Class::ALL[..admitted.len()], &admitted[..]);
            prop_assert!(admitted.contains(&Class::Client));
        }

        /// More to do never lets anybody in.
        #[test]
        fn more_load_admits_no_more(load in load(), more in 0_usize..200) {
            let used = load.requests.used + more;
            let heavier = Load { requests: Share { used, ..load.requests }, ..load };
            prop_assert!(admitted(&heavier).len() <= admitted(&load).len());
        }
    }
}
