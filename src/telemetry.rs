//! The node's metrics: one registry per node, so that several nodes can live in one process.

use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::types::PartitionId;

/// Bounds of the latency histograms, in seconds: 100 µs to 10 s.
const LATENCY_BUCKETS_S: [f64; 12] =
    [0.0001, 0.000_3, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// A gauge that is set when the metrics are read.
pub type Reading = Gauge<u64, AtomicU64>;

/// Labels of a finished client request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `put`, `get`, `list`, `delete`, `increment`, `update_set`, `transact` or `watch`.
    pub operation: &'static str,
    /// `ok`, or the error's code.
    pub result: &'static str,
}

/// A label that names an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// The latency of client requests by operation: one family, since a name may be declared once.
type Latencies = Family<OperationLabels, Histogram, fn() -> Histogram>;

/// A label that names a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabels {
    /// The peer's node id.
    pub peer: String,
}

/// A label that names a class of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabels {
    /// The class's name, such as `hint`.
    pub class: &'static str,
}

/// A label that names a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabels {
    /// The partition's number.
    pub partition: u32,
}

/// One kind of client request: what succeeded, and how long it took.
pub struct Operation {
    name: &'static str,
    succeeded: Counter,
    /// Seconds from receipt to answer, successes and failures alike.
    pub latency: Histogram,
}

impl Operation {
    /// Counts a finished request.
    pub fn finish(&self, metrics: &Metrics, error: Option<&'static str>, seconds: f64) {
        self.latency.observe(seconds);
        match error {
            None => self.succeeded.inc(),
            Some(result) => {
                let labels = RequestLabels { operation: self.name, result };
                metrics.requests.get_or_create(&labels).inc()
            }
        };
    }
}

/// Declares the metrics with their names and help texts, and how each is registered.
macro_rules! metrics {
    ($($field:ident: $kind:ty, $help:literal;)*) => {
        /// Everything that a node counts.
        pub struct Metrics {
            registry: Mutex<Registry>,
            /// Finished client requests.
            pub requests: Family<RequestLabels, Counter>,
            /// Writes of values.
            pub put: Operation,
            /// Reads.
            pub get: Operation,
            /// Pages of listings.
            pub list: Operation,
            /// Writes of tombstones.
            pub delete: Operation,
            /// Additions to counters.
            pub increment: Operation,
            /// Changes of sets.
            pub update_set: Operation,
            /// Writes of strong keyspaces that happen together.
            pub transact: Operation,
            /// Beginnings of watches.
            pub watch: Operation,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            /// All metrics at zero.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("coterie");
                let requests = Family::<RequestLabels, Counter>::default();
                registry.register("requests", "Finished client requests", requests.clone());
                let latencies = register_latencies(&mut registry);
                $(
                    let $field = <$kind>::default();
                    registry.register(stringify!($field), $help, $field.clone());
                )*
                Metrics {
                    put: operation(&latencies, &requests, "put"),
                    get: operation(&latencies, &requests, "get"),
                    list: operation(&latencies, &requests, "list"),
                    delete: operation(&latencies, &requests, "delete"),
                    increment: operation(&latencies, &requests, "increment"),
                    update_set: operation(&latencies, &requests, "update_set"),
                    transact: operation(&latencies, &requests, "transact"),
                    watch: operation(&latencies, &requests, "watch"),
                    requests,
                    registry: Mutex::new(registry),
                    $($field,)*
                }
            }
        }
    };
}

metrics! {
    requests_in_flight: Reading, "Client requests that wait for this node's answer";
    requests_lingering: Reading, "Answered requests that wait for late replicas";
    requests_cut_short: Counter, "Answered requests that gave up late replicas early";
    hottest_key_requests_per_second: Reading, "Requests in a second for the key that most are for";
    background_held_back: Family<ClassLabels, Counter>,
        "Background work that did not begin because the node had much to do for clients";
    background_pace_percent: Reading,
        "Part of its rates that background work which copies rows may use; 100 while none does";
    background_pulses_late: Counter,
        "Times that this node came late to what was due while it copied rows: each slows them";
    quorum_timeouts: Counter, "Requests whose quorum did not answer in time";
    reads_hedged: Counter, "Reads that asked another replica because one was slow";
    reads_aside: Counter, "Reads of rows made off the serving threads: the engine was not durable";
    transfer_rows: Counter, "Rows taken over of partitions that moved to this node";
    transfer_bytes: Counter, "Bytes of those rows";
    partitions_dropped: Counter, "Partitions whose rows were dropped after they had moved away";
    listed_stale: Counter, "Stale keys found by listings and read once more";
    concurrent_writes_discarded: Counter,
        "Versions that writes with a context met and their writers had not seen: one was discarded";
    siblings_many: Counter, "Writes after which their key had many siblings";
    contexts_not_reached: Counter, "Reads of which no replica had what their context names";
    read_repairs: Counter, "Stale replicas found by reads and sent the newest record";
    groups: Reading, "Raft groups that this node has a replica of";
    groups_led: Reading, "Raft groups that this node leads";
    groups_leaderless: Reading, "Raft groups here of which no leader is known";
    group_requests_waiting: Reading, "Requests that wait for a Raft group here";
    group_snapshots_sent: Counter, "Snapshots of Raft groups begun";
    group_snapshots_installed: Counter, "Snapshots of Raft groups taken over";
    watches_open: Reading, "Watches that clients have open here";
    watches_waiting: Reading, "Watches that wait for a Raft group here, once for each group";
    watch_events: Counter, "Changes of keys that clients which watch were told of";
    watches_lost: Counter, "Watches told that what came behind their position is gone";
    watch_history_events: Reading, "Changes of keys that are kept for those who watch";
    watch_history_bytes: Reading, "Bytes of those changes";
    wal_commits: Counter, "Group commits";
    wal_records: Counter, "Records made durable by group commits";
    wal_syncs: Counter, "fdatasync calls on the write-ahead log";
    wal_bytes: Reading, "Bytes of the write-ahead log on disk";
    wal_queue_rows: Reading, "Records that wait for a group commit";
    group_log_entries: Reading, "Entries that the write-ahead log holds of Raft groups";
    group_log_bytes: Reading, "Bytes of the entries that the write-ahead log holds of Raft groups";
    memtable_bytes: Reading, "Bytes of acknowledged rows that the engine does not have yet";
    engine_rows_fed: Counter, "Rows fed to the engine";
    engine_checkpoints: Counter, "Durable checkpoints of the engine";
    engine_disk_bytes: Reading, "Bytes of the engine's files";
    engine_nudges: Reading, "Times that a call of the engine took so long that it was helped on";
    corrupt_rows: Reading, "Stored rows that failed their checksum since the start";
    disk_free_bytes: Reading, "Bytes free on the file system of the data directory";
    writes_refused: Counter, "Replica writes that this node refused";
    clock_offset_refusals: Counter, "Writes refused because their stamp lay too far ahead";
    hints_kept: Counter, "Hints kept for absent primaries";
    hints_refused: Counter, "Hints not kept: window, cap or unknown target";
    hints_redirected: Counter, "Hints given to those who own their keys by now";
    hints_delivered: Counter, "Hints that their target acknowledged";
    hints_expired: Counter, "Hints given up: older than the window, or their keyspace was dropped";
    hint_bytes: Family<PeerLabels, Reading>, "Bytes of hints waiting, by target";
    refill_rows: Counter, "Rows received while refilling after a loss or a join";
    damaged_rows_missed: Counter, "Rows not copied from a node where they are damaged, each time";
    peer_slow: Family<PeerLabels, Reading>, "1 for peers that take much longer than others";
    peer_read_latency_us: Family<PeerLabels, Reading>, "Microseconds a peer takes for a read";
    peer_write_latency_us: Family<PeerLabels, Reading>, "Microseconds a peer takes for a write";
    peer_connected: Family<PeerLabels, Reading>, "1 while a stream to the peer stands";
    peer_messages_sent: Family<PeerLabels, Reading>, "Messages sent, by peer";
    peer_messages_received: Family<PeerLabels, Reading>, "Messages received, by peer";
    peer_frames_sent: Family<PeerLabels, Reading>, "Frames sent, by peer";
    peer_queued_messages: Family<PeerLabels, Reading>, "Messages waiting to be sent, by peer";
    rows_reaped: Counter, "Tombstones and expired values that were removed for good";
    late_hints_dropped: Counter, "Hints that were older than deletes which were reaped";
    outdated_writes_refused: Counter, "Writes that were older than deletes which were reaped";
    anti_entropy_exchanges: Counter, "Comparisons of a partition with another replica of it";
    anti_entropy_failures: Counter, "Comparisons that could not be ended";
    anti_entropy_rows_sent: Counter, "Rows that another replica lacked and was sent";
    anti_entropy_rows_fetched: Counter, "Rows that this node lacked and another replica had";
    anti_entropy_tree_bytes: Counter, "Bytes of hashes and versions compared, of both replicas";
    anti_entropy_rows_hashed: Counter, "Rows read to bring hash trees up to date";
    anti_entropy_wrong_buckets: Counter, "Parts of hash trees that rows changed without a write";
    anti_entropy_divergent_rows: Family<PartitionLabels, Reading>,
        "Rows of a partition that differed when it was last compared";
    members: Reading, "Members of the cluster";
    members_up: Reading, "Members that gossip holds to be alive";
    partitions_unsettled: Reading, "Partitions on their way to where they are to lie";
    ring_epoch: Reading, "This node's count of ring changes";
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// Client requests that succeeded since the start.
    pub fn requests_served(&self) -> u64 {
        [&self.put, &self.get, &self.delete].iter().map(|each| each.succeeded.get()).sum()
    }

    /// Notes how many rows of a partition differed; nothing is said of partitions that never did.
    pub fn note_divergence(&self, partition: PartitionId, rows: u64) {
        let labels = PartitionLabels { partition: u32::from(partition.0) };
        if rows > 0 || self.anti_entropy_divergent_rows.get(&labels).is_some() {
            self.anti_entropy_divergent_rows.get_or_create(&labels).set(rows);
        }
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())
            .expect("invariant: writing to a String does not fail");
        text
    }
}

fn register_latencies(registry: &mut Registry) -> Latencies {
    let latencies = Latencies::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_S));
    let help = "Time from receipt of a client request to its answer";
    registry.register_with_unit("request_latency", help, Unit::Seconds, latencies.clone());
    latencies
}

fn operation(
    latencies: &Latencies,
    requests: &Family<RequestLabels, Counter>,
    name: &'static str,
) -> Operation {
    let latency = latencies.get_or_create(&OperationLabels { operation: name }).clone();
    let ok = RequestLabels { operation: name, result: "ok" };
    let succeeded = requests.get_or_create(&ok).clone();
    Operation { name, succeeded, latency }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_requests_are_counted_by_result() {
        let metrics = Metrics::new();
        metrics.put.finish(&metrics, None, 0.002);
        metrics.put.finish(&metrics, Some("timeout"), 2.0);
        let text = metrics.text();
        for line in [
            r#"coterie_requests_total{operation="put",result="ok"} 1"#,
            r#"coterie_requests_total{operation="put",result="timeout"} 1"#,
            r#"coterie_request_latency_seconds_count{operation="put"} 2"#,
            "coterie_wal_syncs_total 0",
        ] {
            assert!(text.contains(line), "{line} is missing from:\n{text}");
        }
    }

    #[test]
    fn every_metric_is_declared_once() {
        // Strict readers of the format refuse a second declaration.
        let text = Metrics::new().text();
        let mut declared: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE ")).collect();
        let all = declared.len();
        declared.sort_unstable();
        declared.dedup();
        assert_eq!(declared.len(), all, "{text}");
        assert!(text.contains(r#"request_latency_seconds_count{operation="delete"} 0"#), "{text}");
    }
}
