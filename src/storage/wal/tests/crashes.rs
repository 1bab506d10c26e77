//! Kills and power losses at every kind of moment: what was acknowledged, or found on a start,
//! comes back, and nothing is made up.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::storage::files::testing::for_seeds;

/// What must be found again.
struct Model {
    rng: StdRng,
    /// Acknowledged, from position 1 on.
    acknowledged: Vec<LogRecord>,
    /// Of a commit that failed: may be found, from the front.
    in_doubt: Vec<LogRecord>,
    /// What the engine holds durably.
    checkpoint: u64,
    next_number: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        Model {
            rng: StdRng::seed_from_u64(seed),
            acknowledged: Vec::new(),
            in_doubt: Vec::new(),
            checkpoint: 0,
            next_number: 1,
        }
    }

    /// Does one random thing to the log.
    fn step(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        match self.rng.random_range(0..20) {
            0 => wal.rotate(),
            1 => wal.preparer().prepare(),
            2 => wal.close(),
            3 => {
                self.checkpoint = wal.last_lsn().0;
                wal.drop_through(wal.last_lsn()).map(drop)
            }
            _ => self.commit(wal),
        }
    }

    fn commit(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        let large = self.rng.random_bool(0.05);
        let count = self.rng.random_range(1..if large { 40 } else { 5 });
        self.in_doubt = rows(self.next_number..self.next_number + count);
        self.next_number += count;
        let last = wal.commit(&self.in_doubt)?;
        self.acknowledged.append(&mut self.in_doubt);
        assert_eq!(last.0, self.acknowledged.len() as u64);
        Ok(())
    }

    fn check(&mut self, opened: &Opened) {
        let last = opened.wal.last_lsn().0 as usize;
        let acknowledged = self.acknowledged.len();
        assert!(last >= acknowledged, "acknowledged {acknowledged}, found {last}");
        self.acknowledged.append(&mut self.in_doubt);
        assert!(last <= self.acknowledged.len(), "records were made up");
        self.acknowledged.truncate(last);
        assert_eq!(opened.records(), self.acknowledged[self.checkpoint as usize..]);
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_and_power_losses() {
    for_seeds("nothing_acknowledged_is_lost_by_kills_and_power_losses", 500, |seed| {
        let mut model = Model::new(seed);
        let mut files = MemoryFiles::default();
        for _ in 0..6 {
            files.crash_after(model.rng.random_range(0..150));
            // The machine may go off while the log is being opened, too.
            if let Ok(mut opened) = try_open(&files, model.checkpoint) {
                model.check(&opened);
                while model.step(&mut opened.wal).is_ok() {}
            }
            if model.rng.random_bool(0.5) {
                files.restart();
            } else {
                files = files.power_loss(model.rng.random());
            }
        }
        files.restart();
        model.check(&try_open(&files, model.checkpoint).unwrap());
    });
}

#[test]
fn a_log_whose_making_was_killed_anywhere_keeps_what_it_then_takes() {
    for operations in 0..9 {
        for seed in 0..8 {
            let files = MemoryFiles::default();
            files.crash_after(operations);
            let made = try_open(&files, 0).is_ok();
            assert_eq!(made, operations >= 8, "making a log takes eight operations");
            files.restart();
            open(&files).wal.commit(&rows(1..4)).unwrap();
            let after = open(&files.power_loss(seed));
            assert_eq!(after.records(), rows(1..4), "{operations} {seed}");
        }
    }
}
