//! Repairs that somebody asked for, and how far they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::anti_entropy::{Broken, Outcome};
use crate::protocol::exchange::schedule::Pair;
use crate::types::{KeyspaceId, PartitionId};

/// Runs that are remembered.
const RUNS_MAX: usize = 32;

/// What is to be repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RepairWish {
    /// Of this keyspace; of all leaderless ones without.
    pub(crate) keyspace: Option<KeyspaceId>,
    /// This partition; all of them without.
    pub(crate) partition: Option<PartitionId>,
}

impl RepairWish {
    pub(super) fn names(&self, pair: &Pair) -> bool {
        self.keyspace.is_none_or(|keyspace| keyspace == pair.keyspace)
            && self.partition.is_none_or(|partition| partition == pair.partition)
    }
}

/// How far a run is. Pairs are those of a partition and another replica of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairProgress {
    /// The run's number.
    pub run: u64,
    /// Pairs that were to be compared.
    pub pairs: u64,
    /// Pairs that were compared.
    pub compared: u64,
    /// Pairs that could not be compared; they are tried again later.
    pub failed: u64,
    /// Rows that differed.
    pub differing: u64,
    /// Rows that the other replicas got.
    pub sent: u64,
    /// Rows that this node got.
    pub fetched: u64,
    /// Why a pair could not be compared, and how many could not because of that.
    pub failures: BTreeMap<String, u64>,
}

impl RepairProgress {
    /// Whether every pair has had its turn.
    pub fn is_done(&self) -> bool {
        self.compared + self.failed == self.pairs
    }
}

#[derive(Debug, Default)]
struct Run {
    left: BTreeSet<Pair>,
    progress: RepairProgress,
}

/// The runs of this process.
#[derive(Debug, Default)]
pub(super) struct Runs {
    last: u64,
    runs: BTreeMap<u64, Run>,
}

impl Runs {
    pub(super) fn begin(&mut self, pairs: Vec<Pair>) -> RepairProgress {
        self.last += 1;
        if self.runs.len() == RUNS_MAX {
            self.runs.pop_first();
        }
        let count = pairs.len() as u64;
        let progress = RepairProgress { run: self.last, pairs: count, ..Default::default() };
        let run = Run { left: pairs.into_iter().collect(), progress: progress.clone() };
        self.runs.insert(self.last, run);
        progress
    }

    pub(super) fn progress(&self, run: u64) -> Option<RepairProgress> {
        self.runs.get(&run).map(|run| run.progress.clone())
    }

    /// A pair was compared, or could not be.
    pub(super) fn on_attended(&mut self, pair: Pair, outcome: Result<Outcome, Broken>) {
        for run in self.runs.values_mut().filter(|run| run.left.contains(&pair)) {
            run.left.remove(&pair);
            let progress = &mut run.progress;
            match outcome {
                Ok(Outcome { differing, copied }) => {
                    progress.compared += 1;
                    progress.differing += differing;
                    progress.sent += copied.sent;
                    progress.fetched += copied.fetched;
                }
                Err(broken) => {
                    progress.failed += 1;
                    *progress.failures.entry(broken.to_string()).or_default() += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::anti_entropy::repairing::Copied;
    use crate::types::NodeId;

    fn pair(partition: u16) -> Pair {
        let keyspace = KeyspaceId::DEFAULT;
        Pair { keyspace, partition: PartitionId(partition), peer: NodeId(1) }
    }

    #[test]
    fn a_run_is_done_when_every_pair_has_had_its_turn() {
        let mut runs = Runs::default();
        let run = runs.begin(vec![pair(1), pair(2)]).run;
        let copied = Copied { sent: 1, fetched: 2 };
        runs.on_attended(pair(1), Ok(Outcome { differing: 3, copied }));
        runs.on_attended(pair(1), Ok(Outcome { differing: 3, copied }));
        assert!(!runs.progress(run).expect("it is there").is_done());
        runs.on_attended(pair(2), Err(Broken::Unconnected));
        let progress = runs.progress(run).expect("it is there");
        assert!(progress.is_done());
        assert_eq!((progress.compared, progress.failed, progress.differing), (1, 1, 3));
        assert_eq!((progress.sent, progress.fetched, progress.failures.len()), (1, 2, 1));
        assert_eq!(runs.progress(run + 1), None);
    }

    #[test]
    fn old_runs_are_forgotten_and_empty_ones_are_done() {
        let mut runs = Runs::default();
        let first = runs.begin(Vec::new());
        assert!(first.is_done());
        for _ in 0..RUNS_MAX {
            runs.begin(Vec::new());
        }
        assert_eq!(runs.progress(first.run), None);
    }

    #[test]
    fn a_wish_names_what_it_says() {
        let of = |keyspace, partition| RepairWish {
            keyspace: Option::map(keyspace, KeyspaceId),
            partition: Option::map(partition, PartitionId),
        };
        for (wish, named) in [
            (of(None, None), true),
            (of(Some(0), Some(1)), true),
            (of(Some(1), None), false),
            (of(None, Some(2)), false),
        ] {
            assert_eq!(wish.names(&pair(1)), named, "{wish:?}");
        }
    }
}
