//! What comparing replicas has shown, for status and metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::anti_entropy::AntiEntropy;
use crate::node::status::Activity;
use crate::protocol::exchange::schedule::Pair;
use crate::types::{Moment, PartitionId};

/// Partitions that a line of status names.
const NAMED_MAX: usize = 8;

/// How a pair was when it was last compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    at: Moment,
    differing: u64,
}

/// The last comparison of each pair.
#[derive(Debug, Default)]
pub(super) struct Findings {
    seen: BTreeMap<Pair, Seen>,
}

impl Findings {
    /// Notes how many rows of a pair differed. Returns how many did of the partition in all.
    pub(super) fn note(&mut self, pair: Pair, differing: u64, at: Moment) -> u64 {
        self.seen.insert(pair, Seen { at, differing });
        let of_partition = self.seen.iter().filter(|(it, _)| it.partition == pair.partition);
        of_partition.map(|(_, seen)| seen.differing).sum()
    }

    /// Forgets all other pairs.
    pub(super) fn retain(&mut self, pairs: &BTreeSet<Pair>) {
        self.seen.retain(|pair, _| pairs.contains(pair));
    }

    /// The partitions that differed when they were last compared.
    fn divergent(&self) -> BTreeSet<PartitionId> {
        let differing = self.seen.iter().filter(|(_, seen)| seen.differing > 0);
        differing.map(|(pair, _)| pair.partition).collect()
    }

    fn oldest(&self) -> Option<Moment> {
        self.seen.values().map(|seen| seen.at).min()
    }
}

impl AntiEntropy {
    /// One line for status.
    pub(crate) fn activity(&self) -> Activity {
        let (findings, schedule) = (self.findings.lock(), self.schedule.lock());
        let ago = findings.oldest().map_or(0, |oldest| self.env.now().since(oldest).as_secs());
        let divergent = findings.divergent();
        let (sent, fetched) = (
            self.metrics.anti_entropy_rows_sent.get(),
            self.metrics.anti_entropy_rows_fetched.get(),
        );
        let detail = format!(
            "{} of {} pairs of partition and replica compared here, the first of them {ago} s ago; \
             {}; {sent} rows sent and {fetched} taken",
            findings.seen.len(),
            schedule.len(),
            named(&divergent)
        );
        let state = match schedule.urgent() {
            0 if self.options.interval.is_zero() => "off",
            0 => "idle",
            _ => "busy",
        };
        Activity { name: "anti-entropy", state, detail }
    }
}

fn named(partitions: &BTreeSet<PartitionId>) -> String {
    if partitions.is_empty() {
        return "none differed".to_owned();
    }
    let first: Vec<String> =
        partitions.iter().take(NAMED_MAX).map(|partition| partition.0.to_string()).collect();
    let more = if partitions.len() > NAMED_MAX { ", ..." } else { "" };
    format!("{} partitions differed ({}{more})", partitions.len(), first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{KeyspaceId, NodeId};

    fn pair(partition: u16, peer: u64) -> Pair {
        let keyspace = KeyspaceId::DEFAULT;
        Pair { keyspace, partition: PartitionId(partition), peer: NodeId(peer) }
    }

    #[test]
    fn the_last_comparison_of_each_pair_counts() {
        let mut findings = Findings::default();
        assert_eq!(findings.note(pair(3, 1), 5, Moment(1)), 5);
        assert_eq!(findings.note(pair(3, 2), 2, Moment(2)), 7);
        assert_eq!(findings.note(pair(4, 1), 1, Moment(3)), 1);
        assert_eq!(named(&findings.divergent()), "2 partitions differed (3, 4)");
        assert_eq!(findings.note(pair(3, 1), 0, Moment(4)), 2);
        assert_eq!(
            (findings.note(pair(3, 2), 0, Moment(5)), findings.oldest()),
            (0, Some(Moment(3)))
        );
        findings.retain(&BTreeSet::from([pair(3, 1)]));
        assert_eq!(
            (named(&findings.divergent()), findings.oldest()),
            ("none differed".to_owned(), Some(Moment(4)))
        );
    }
}
