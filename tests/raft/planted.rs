//! Bugs planted on purpose in the core, to prove that the invariants can fail: each must be caught
//! within so many seeds.

pub(crate) use coterie::protocol::raft::planted::{Planted, planted};

use crate::run::run;

/// Within how many seeds a planted bug must be caught.
const PLANTED_SEEDS_MAX: u64 = 200;

/// Has a bug planted in this thread's cores until it is dropped.
pub(crate) struct Planting;

impl Planting {
    pub(crate) fn new(planted: Option<Planted>) -> Planting {
        Planted::set(planted);
        Planting
    }
}

impl Drop for Planting {
    fn drop(&mut self) {
        Planted::set(None);
    }
}

#[test]
fn every_planted_bug_is_caught() {
    let mut survivors = Vec::new();
    for bug in Planted::ALL {
        let caught = (0..PLANTED_SEEDS_MAX).find_map(|seed| {
            let broken = run(seed, Some(bug), false).broken?;
            Some((seed, broken.invariant))
        });
        match caught {
            Some((seed, by)) => println!("{bug:?} was caught by seed {seed}: {by}"),
            None => survivors.push(bug),
        }
    }
    assert!(survivors.is_empty(), "{survivors:?} survived {PLANTED_SEEDS_MAX} seeds each");
}
