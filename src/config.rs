//! What an operator can set about a node, with defaults; flags, environment and TOML end up here.
//!
//! [`settings`] lists every setting once, for all three sources; [`load`] merges them;
//! [`validate`] says what does not fit together.

pub mod load;
pub mod settings;
pub mod units;
pub mod validate;
mod values;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::protocol::system::settings::{ClusterSettings, Replication};
pub use crate::protocol::watch::history::HistoryLimits;

/// Worker threads for each of so many nodes that share this machine: their share of its cores.
pub fn share_of_cores(nodes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    (cores / nodes.max(1)).max(1)
}

/// Everything that one node needs to know before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The node's human name.
    pub name: String,
    /// Where everything that survives a restart lies.
    pub data_dir: PathBuf,
    /// Where clients (gRPC and HTTP) are served.
    pub listen: SocketAddr,
    /// The client address that others are told; `listen` when absent.
    pub advertise: Option<SocketAddr>,
    /// Where peers (TCP) and gossip (UDP) are served.
    pub peer_listen: SocketAddr,
    /// The peer address that others are told; `peer_listen` when absent.
    pub peer_advertise: Option<SocketAddr>,
    /// Peer addresses (`host:port`) of nodes to join. Empty: found a cluster, or resume one.
    pub seeds: Vec<String>,
    /// The failure domain; empty for none.
    pub zone: String,
    /// Virtual nodes for a node of capacity 1.
    pub vnodes: u32,
    /// This node's share of the data relative to others.
    pub capacity: f64,
    /// Q, for the founder; those that join take the cluster's. A power of two up to 32768.
    pub partitions: u32,
    /// N, R and W; `None` takes the cluster's, or the default when founding.
    pub replication: Option<Replication>,
    /// Whether the node takes its place on the ring by itself when it joins.
    pub join: JoinMode,
    /// Whether fallback replicas may count towards write quorums unless a request says otherwise.
    pub sloppy: bool,
    /// Bounds on what clients may send.
    pub limits: Limits,
    /// Bounds on hinted handoff.
    pub hints: HintLimits,
    /// Bounds on moving partitions.
    pub transfers: TransferLimits,
    /// How replicas are compared.
    pub anti_entropy: AntiEntropyOptions,
    /// The write-ahead log and the tables behind it.
    pub storage: StorageOptions,
    /// The logs and snapshots of Raft groups.
    pub groups: GroupOptions,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: String::new(),
            data_dir: PathBuf::from("coterie-data"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7400)),
            advertise: None,
            peer_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7401)),
            peer_advertise: None,
            seeds: Vec::new(),
            zone: String::new(),
            vnodes: 128,
            capacity: 1.0,
            partitions: 256,
            replication: None,
            join: JoinMode::Auto,
            sloppy: false,
            limits: Limits::default(),
            hints: HintLimits::default(),
            transfers: TransferLimits::default(),
            anti_entropy: AntiEntropyOptions::default(),
            storage: StorageOptions::default(),
            groups: GroupOptions::default(),
        }
    }
}

/// How a node that joins comes to its place on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinMode {
    /// By itself, as soon as it is a member.
    Auto,
    /// When an operator says so.
    Manual,
}

/// Bounds on moving partitions to this node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransferLimits {
    /// Bytes per second that it takes over, and as many that it gives, at most.
    pub bytes_per_second: u64,
}

impl Default for TransferLimits {
    fn default() -> Self {
        TransferLimits { bytes_per_second: 16 << 20 }
    }
}

/// How often replicas of quorum keyspaces are compared, and how fast they are repaired.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AntiEntropyOptions {
    /// Every partition is compared with each other replica of it once in this time; zero for only
    /// on demand.
    pub interval: Duration,
    /// Once in this time all rows of a partition are read and checked; zero for never.
    pub scrub_interval: Duration,
    /// Bytes of rows per second that this node copies, either way.
    pub bytes_per_second: u64,
    /// How old a delete, or a value that has expired, must be before it can be reaped; zero for
    /// never. Longer than the hint window.
    pub reap_after: Duration,
}

impl Default for AntiEntropyOptions {
    fn default() -> Self {
        AntiEntropyOptions {
            interval: Duration::from_secs(600),
            scrub_interval: Duration::from_secs(7 * 24 * 3600),
            bytes_per_second: 4 << 20,
            reap_after: Duration::from_secs(6 * 3600),
        }
    }
}

/// How Raft groups work: when their logs are cut, how snapshots travel. Nodes need not agree on it,
/// but on leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// A log longer than this many entries is compacted.
    pub log_entries_max: u64,
    /// Entries that a compaction leaves, for followers that are a little behind.
    pub log_entries_kept: u64,
    /// Bytes of rows after which a chunk of a snapshot is cut.
    pub snapshot_chunk_bytes: usize,
    /// Bytes after which what a group writes goes on in another record: one record must fit into a
    /// segment of the log, whatever a replica has to catch up on.
    pub record_bytes_max: usize,
    /// Whether leaders serve lease reads without asking the others. It must be the same on all
    /// nodes: one that does not know of leases votes too soon after a restart.
    pub lease_reads: bool,
    /// What is kept in memory of the changes that this node's replicas applied last, for clients
    /// that watch.
    pub watch_history: HistoryLimits,
}

impl Default for GroupOptions {
    fn default() -> Self {
        GroupOptions {
            log_entries_max: 256,
            log_entries_kept: 64,
            snapshot_chunk_bytes: 256 << 10,
            record_bytes_max: 1 << 20,
            lease_reads: false,
            watch_history: HistoryLimits { events_max: 65_536, bytes_max: 32 << 20 },
        }
    }
}

/// Bounds on what clients may send and how long they may wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
    /// Bytes of a value from which on the node warns.
    pub value_bytes_warn: usize,
    /// Keys of one batch request.
    pub batch_keys_max: usize,
    /// Client requests that a node coordinates at once.
    pub requests_in_flight_max: usize,
    /// Watches that clients have open on a node at once.
    pub watches_max: usize,
    /// How long a request may take when the client does not say.
    pub request_timeout: Duration,
    /// The longest timeout that a client may ask for.
    pub request_timeout_max: Duration,
    /// How far ahead of this node's clock a remote stamp may lie.
    pub max_clock_offset: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes_max: 2 * 1024,
            value_bytes_max: 1024 * 1024,
            value_bytes_warn: 128 * 1024,
            batch_keys_max: 1000,
            requests_in_flight_max: 4096,
            watches_max: 256,
            request_timeout: Duration::from_secs(2),
            request_timeout_max: Duration::from_secs(60),
            max_clock_offset: Duration::from_millis(500),
        }
    }
}

/// Bounds on hinted handoff.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HintLimits {
    /// For how long after a node was last seen writes are kept for it, and how old a hint may get.
    pub window: Duration,
    /// Bytes kept for one absent node.
    pub bytes_per_target_max: u64,
    /// Bytes per second delivered to one returned node.
    pub replay_bytes_per_second: u64,
}

impl Default for HintLimits {
    fn default() -> Self {
        HintLimits {
            window: Duration::from_secs(3 * 3600),
            bytes_per_target_max: 1 << 30,
            replay_bytes_per_second: 16 << 20,
        }
    }
}

/// The write-ahead log and the tables behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StorageOptions {
    /// Bytes of one log segment.
    pub wal_segment_bytes: u64,
    /// How long a group commit gathers when writers are concurrent; a lone writer never waits.
    pub group_commit_interval: Duration,
    /// Bytes of log records that may wait for a group commit before writes are refused.
    pub wal_queue_bytes_max: usize,
    /// Bytes of the in-memory table from which on it is fed to the engine.
    pub memtable_bytes_max: usize,
    /// Age of the in-memory table from which on it is fed to the engine.
    pub memtable_age_max: Duration,
    /// Bytes of engine cache.
    pub engine_cache_bytes: u64,
    /// Free bytes of the file system below which writes are refused.
    pub disk_reserve_bytes: u64,
}

impl Default for StorageOptions {
    fn default() -> Self {
        StorageOptions {
            wal_segment_bytes: 32 << 20,
            group_commit_interval: Duration::from_millis(2),
            wal_queue_bytes_max: 64 << 20,
            memtable_bytes_max: 32 << 20,
            memtable_age_max: Duration::from_secs(30),
            engine_cache_bytes: 64 << 20,
            disk_reserve_bytes: 256 << 20,
        }
    }
}
