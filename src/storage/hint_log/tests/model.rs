//! Random operations against a queue in memory.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::storage::files::testing::for_seeds;

struct Model {
    rng: StdRng,
    files: MemoryFiles,
    log: HintLog,
    /// Numbers not acknowledged, and how many of them from the front are written.
    queues: BTreeMap<NodeId, (Vec<u64>, usize)>,
    next_number: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let files = MemoryFiles::default();
        let (log, _) = open(&files);
        let queues = [A, B].map(|target| (target, Default::default())).into();
        Model { rng: StdRng::seed_from_u64(seed), files, log, queues, next_number: 1 }
    }

    fn step(&mut self) {
        let target = if self.rng.random_bool(0.7) { A } else { B };
        match self.rng.random_range(0..20) {
            0..9 => self.append(target),
            9..13 => self.flush(),
            13..17 => self.deliver(target),
            17 => self.check(target),
            18 => {
                self.log.drop_target(target).unwrap();
                self.queues.insert(target, Default::default());
            }
            _ => self.restart(),
        }
    }

    fn append(&mut self, target: NodeId) {
        for _ in 0..self.rng.random_range(1..8) {
            self.log.append(target, hint(self.next_number));
            self.queues.get_mut(&target).unwrap().0.push(self.next_number);
            self.next_number += 1;
        }
    }

    fn flush(&mut self) {
        self.log.flush(self.rng.random()).unwrap();
        for (queue, written) in self.queues.values_mut() {
            *written = queue.len();
        }
    }

    /// Reads a batch and acknowledges part of it.
    fn deliver(&mut self, target: NodeId) {
        let batch = self.log.read(target, 0, self.rng.random_range(1..500)).unwrap();
        let count = self.rng.random_range(0..=batch.len());
        let Some(last) = batch[..count].last() else { return };
        self.log.acknowledge(target, last.sequence).unwrap();
        let (queue, written) = self.queues.get_mut(&target).unwrap();
        assert_eq!(batch[..count].iter().map(number_of).collect::<Vec<_>>(), queue[..count]);
        queue.drain(..count);
        *written = written.saturating_sub(count);
    }

    fn check(&self, target: NodeId) {
        let queue = &self.queues[&target].0;
        assert_eq!(numbers(&self.log, target), *queue);
        let hints = self.log.targets().iter().find(|it| it.target == target).map(|it| it.hints);
        assert_eq!(hints.unwrap_or(0), queue.len() as u64);
        assert_eq!(queue.is_empty(), self.log.bytes(target) == 0);
    }

    /// What was written is found again, perhaps after hints that had been acknowledged.
    fn restart(&mut self) {
        let (log, report) = open(&self.files);
        assert_eq!((report.tail_cut_bytes, report.damaged_segments.len()), (0, 0));
        self.log = log;
        for (target, (queue, written)) in &mut self.queues {
            queue.truncate(*written);
            let found = numbers(&self.log, *target);
            assert!(found.ends_with(queue), "{found:?} does not end with {queue:?}");
            *queue = found;
            *written = queue.len();
        }
    }
}

#[test]
fn the_log_is_a_queue_per_target() {
    for_seeds("the_log_is_a_queue_per_target", 300, |seed| {
        let mut model = Model::new(seed);
        for _ in 0..100 {
            model.step();
        }
        model.check(A);
        model.check(B);
    });
}
