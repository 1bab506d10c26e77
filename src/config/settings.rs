//! Every setting of `coterie serve`, once: its name, what it means, and how it is read.
//!
//! The name serves as the flag (`--vnodes`), with `COTERIE_` before it as the environment variable
//! (`COTERIE_VNODES`), and within its section as the TOML key (`[ring]`, `vnodes`).

mod watches;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::LazyLock;

use crate::config::units::{parse_duration, parse_size, show_duration, show_size};
use crate::config::values::{
    address, decimal, join_mode, log_format, memory, number, seeds, show_join_mode, show_memory,
    switch, worker_threads,
};
use crate::config::{Config, Replication};

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// How logs are written.
    pub format: LogFormat,
    /// A level, or directives as in `RUST_LOG`; `None` leaves it to `RUST_LOG` or the default.
    pub level: Option<String>,
}

/// A configuration in the making: what the sources have said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) log: LogOptions,
    pub(super) worker_threads: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) factor: Option<u32>,
    pub(super) read_quorum: Option<u32>,
    pub(super) write_quorum: Option<u32>,
}

/// One thing that an operator can set.
pub struct Setting {
    /// The TOML table that it stands in; empty for the top level.
    pub section: &'static str,
    /// Its name in kebab case.
    pub name: &'static str,
    /// What stands for its value in help texts.
    pub placeholder: &'static str,
    /// What it means.
    pub help: &'static str,
    pub(super) set: fn(&mut Draft, &str) -> Result<(), String>,
    show: fn(&Draft) -> String,
}

impl Setting {
    /// The environment variable.
    pub fn variable(&self) -> &'static str {
        VARIABLES.get(self.name).map_or("", String::as_str)
    }

    /// The TOML key with its table.
    pub fn path(&self) -> String {
        if self.section.is_empty() {
            return self.name.to_owned();
        }
        format!("{}.{}", self.section, self.name)
    }

    /// What holds when nobody sets it; empty when that is nothing.
    pub fn default_text(&self) -> String {
        (self.show)(&Draft::default())
    }

    /// Whether it is a switch: a flag that needs no value.
    pub fn is_switch(&self) -> bool {
        self.placeholder == SWITCH
    }

    /// Whether several values make a list.
    pub fn is_list(&self) -> bool {
        self.name == "seeds"
    }
}

/// Environment variables by the names of their settings.
static VARIABLES: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(|| {
    let variable = |name: &str| format!("COTERIE_{}", name.replace('-', "_").to_ascii_uppercase());
    all().map(|setting| (setting.name, variable(setting.name))).collect()
});

/// The placeholder of switches.
const SWITCH: &str = "true|false";

/// Every setting, in the order in which help and documentation show them.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    NODE.iter().chain(&CLUSTER).chain(&LIMITS).chain(&watches::WATCHES).chain(&STORAGE)
}

static NODE: [Setting; 10] = [
    Setting {
        section: "",
        name: "name",
        placeholder: "NAME",
        help: "The node's human name; node-<peer port> when not set",
        set: |draft, text| {
            draft.name = Some(text.to_owned());
            Ok(())
        },
        show: |_| String::new(),
    },
    Setting {
        section: "",
        name: "data-dir",
        placeholder: "DIR",
        help: "Where everything that survives a restart lies",
        set: |draft, text| {
            draft.config.data_dir = PathBuf::from(text);
            Ok(())
        },
        show: |draft| draft.config.data_dir.display().to_string(),
    },
    Setting {
        section: "",
        name: "listen",
        placeholder: "HOST:PORT",
        help: "Where clients are served: gRPC and HTTP on one port",
        set: |draft, text| put(&mut draft.config.listen, address(text)),
        show: |draft| draft.config.listen.to_string(),
    },
    Setting {
        section: "",
        name: "advertise",
        placeholder: "HOST:PORT",
        help: "The client address that others are told; needed when --listen is 0.0.0.0",
        set: |draft, text| put(&mut draft.config.advertise, address(text).map(Some)),
        show: |_| String::new(),
    },
    Setting {
        section: "",
        name: "peer-listen",
        placeholder: "HOST:PORT",
        help: "Where peers (TCP) and gossip (UDP) are served",
        set: |draft, text| put(&mut draft.config.peer_listen, address(text)),
        show: |draft| draft.config.peer_listen.to_string(),
    },
    Setting {
        section: "",
        name: "peer-advertise",
        placeholder: "HOST:PORT",
        help: "The peer address that others are told; needed when --peer-listen is 0.0.0.0",
        set: |draft, text| put(&mut draft.config.peer_advertise, address(text).map(Some)),
        show: |_| String::new(),
    },
    Setting {
        section: "",
        name: "seeds",
        placeholder: "HOST:PORT,...",
        help: "Peer addresses of nodes to join; without them the node founds a cluster",
        set: |draft, text| put(&mut draft.config.seeds, seeds(text)),
        show: |_| String::new(),
    },
    Setting {
        section: "",
        name: "worker-threads",
        placeholder: "COUNT",
        help: "Threads that serve requests; one per core when not set",
        set: |draft, text| put(&mut draft.worker_threads, worker_threads(text).map(Some)),
        show: |_| String::new(),
    },
    Setting {
        section: "log",
        name: "log-format",
        placeholder: "text|json",
        help: "How logs are written to stderr",
        set: |draft, text| put(&mut draft.log.format, log_format(text)),
        show: |draft| draft.log.format.to_string(),
    },
    Setting {
        section: "log",
        name: "log-level",
        placeholder: "LEVEL",
        help: "error, warn, info, debug or trace, or directives as in RUST_LOG",
        set: |draft, text| {
            draft.log.level = Some(text.to_owned());
            Ok(())
        },
        show: |_| String::from("info"),
    },
];

static CLUSTER: [Setting; 18] = [
    Setting {
        section: "ring",
        name: "zone",
        placeholder: "ZONE",
        help: "The failure domain; replicas spread over zones",
        set: |draft, text| {
            draft.config.zone = text.to_owned();
            Ok(())
        },
        show: |draft| draft.config.zone.clone(),
    },
    Setting {
        section: "ring",
        name: "vnodes",
        placeholder: "COUNT",
        help: "Virtual nodes for a node of capacity 1",
        set: |draft, text| put(&mut draft.config.vnodes, number(text)),
        show: |draft| draft.config.vnodes.to_string(),
    },
    Setting {
        section: "ring",
        name: "capacity",
        placeholder: "SHARE",
        help: "This node's share of the data relative to others, such as 0.5 or 2",
        set: |draft, text| put(&mut draft.config.capacity, decimal(text)),
        show: |draft| draft.config.capacity.to_string(),
    },
    Setting {
        section: "ring",
        name: "partitions",
        placeholder: "COUNT",
        help: "Q, a power of two; the founder's holds for the cluster and never changes",
        set: |draft, text| put(&mut draft.config.partitions, number(text)),
        show: |draft| draft.config.partitions.to_string(),
    },
    Setting {
        section: "ring",
        name: "join",
        placeholder: "auto|manual",
        help: "Whether a new node takes its place on the ring by itself, or when told to",
        set: |draft, text| put(&mut draft.config.join, join_mode(text)),
        show: |draft| show_join_mode(draft.config.join).to_owned(),
    },
    Setting {
        section: "ring",
        name: "transfer-bytes-per-second",
        placeholder: "SIZE",
        help: "Bytes per second of moving partitions that this node takes over at most, and gives",
        set: |draft, text| put(&mut draft.config.transfers.bytes_per_second, parse_size(text)),
        show: |draft| show_size(draft.config.transfers.bytes_per_second),
    },
    Setting {
        section: "replication",
        name: "anti-entropy-interval",
        placeholder: "DURATION",
        help: "How often each partition is compared with its other replicas; 0s for on demand only",
        set: |draft, text| put(&mut draft.config.anti_entropy.interval, parse_duration(text)),
        show: |draft| show_duration(draft.config.anti_entropy.interval),
    },
    Setting {
        section: "replication",
        name: "anti-entropy-bytes-per-second",
        placeholder: "SIZE",
        help: "Bytes of rows per second that this node copies when replicas differ",
        set: |draft, text| put(&mut draft.config.anti_entropy.bytes_per_second, parse_size(text)),
        show: |draft| show_size(draft.config.anti_entropy.bytes_per_second),
    },
    Setting {
        section: "replication",
        name: "scrub-interval",
        placeholder: "DURATION",
        help: "How often all rows of a partition are read and checked; 0s for never",
        set: |draft, text| put(&mut draft.config.anti_entropy.scrub_interval, parse_duration(text)),
        show: |draft| show_duration(draft.config.anti_entropy.scrub_interval),
    },
    Setting {
        section: "replication",
        name: "reap-after",
        placeholder: "DURATION",
        help: "How old deletes get before they are removed for good; 0s for never",
        set: |draft, text| put(&mut draft.config.anti_entropy.reap_after, parse_duration(text)),
        show: |draft| show_duration(draft.config.anti_entropy.reap_after),
    },
    Setting {
        section: "replication",
        name: "replication-factor",
        placeholder: "N",
        help: "N, replicas of every key; the founder's holds for the cluster",
        set: |draft, text| put(&mut draft.factor, number(text).map(Some)),
        show: |_| Replication::default().factor.to_string(),
    },
    Setting {
        section: "replication",
        name: "read-quorum",
        placeholder: "R",
        help: "R, replicas that answer a read by default; a majority of N when not set",
        set: |draft, text| put(&mut draft.read_quorum, number(text).map(Some)),
        show: |_| Replication::default().read_quorum.to_string(),
    },
    Setting {
        section: "replication",
        name: "write-quorum",
        placeholder: "W",
        help: "W, replicas that acknowledge a write by default; a majority of N when not set",
        set: |draft, text| put(&mut draft.write_quorum, number(text).map(Some)),
        show: |_| Replication::default().write_quorum.to_string(),
    },
    Setting {
        section: "replication",
        name: "sloppy",
        placeholder: SWITCH,
        help: "Let fallback replicas count towards write quorums",
        set: |draft, text| put(&mut draft.config.sloppy, switch(text)),
        show: |draft| draft.config.sloppy.to_string(),
    },
    Setting {
        section: "replication",
        name: "lease-reads",
        placeholder: SWITCH,
        help: "Serve reads with consistency lease without asking other replicas; same on all nodes",
        set: |draft, text| put(&mut draft.config.groups.lease_reads, switch(text)),
        show: |draft| draft.config.groups.lease_reads.to_string(),
    },
    Setting {
        section: "hints",
        name: "hint-window",
        placeholder: "DURATION",
        help: "How long after a node was last seen writes are kept for it",
        set: |draft, text| put(&mut draft.config.hints.window, parse_duration(text)),
        show: |draft| show_duration(draft.config.hints.window),
    },
    Setting {
        section: "hints",
        name: "hint-bytes-per-target-max",
        placeholder: "SIZE",
        help: "Bytes kept for one absent node",
        set: |draft, text| put(&mut draft.config.hints.bytes_per_target_max, parse_size(text)),
        show: |draft| show_size(draft.config.hints.bytes_per_target_max),
    },
    Setting {
        section: "hints",
        name: "hint-replay-bytes-per-second",
        placeholder: "SIZE",
        help: "Bytes per second delivered to one returned node",
        set: |draft, text| put(&mut draft.config.hints.replay_bytes_per_second, parse_size(text)),
        show: |draft| show_size(draft.config.hints.replay_bytes_per_second),
    },
];

static LIMITS: [Setting; 8] = [
    Setting {
        section: "limits",
        name: "key-bytes-max",
        placeholder: "SIZE",
        help: "Bytes of a key",
        set: |draft, text| put(&mut draft.config.limits.key_bytes_max, memory(text)),
        show: |draft| show_memory(draft.config.limits.key_bytes_max),
    },
    Setting {
        section: "limits",
        name: "value-bytes-max",
        placeholder: "SIZE",
        help: "Bytes of a value",
        set: |draft, text| put(&mut draft.config.limits.value_bytes_max, memory(text)),
        show: |draft| show_memory(draft.config.limits.value_bytes_max),
    },
    Setting {
        section: "limits",
        name: "value-bytes-warn",
        placeholder: "SIZE",
        help: "Bytes of a value from which on the node warns",
        set: |draft, text| put(&mut draft.config.limits.value_bytes_warn, memory(text)),
        show: |draft| show_memory(draft.config.limits.value_bytes_warn),
    },
    Setting {
        section: "limits",
        name: "batch-keys-max",
        placeholder: "COUNT",
        help: "Keys of one batch request",
        set: |draft, text| put(&mut draft.config.limits.batch_keys_max, number(text)),
        show: |draft| draft.config.limits.batch_keys_max.to_string(),
    },
    Setting {
        section: "limits",
        name: "requests-in-flight-max",
        placeholder: "COUNT",
        help: "Client requests that the node coordinates at once",
        set: |draft, text| put(&mut draft.config.limits.requests_in_flight_max, number(text)),
        show: |draft| draft.config.limits.requests_in_flight_max.to_string(),
    },
    Setting {
        section: "limits",
        name: "request-timeout",
        placeholder: "DURATION",
        help: "How long a request may take when the client does not say",
        set: |draft, text| put(&mut draft.config.limits.request_timeout, parse_duration(text)),
        show: |draft| show_duration(draft.config.limits.request_timeout),
    },
    Setting {
        section: "limits",
        name: "request-timeout-max",
        placeholder: "DURATION",
        help: "The longest timeout that a client may ask for",
        set: |draft, text| put(&mut draft.config.limits.request_timeout_max, parse_duration(text)),
        show: |draft| show_duration(draft.config.limits.request_timeout_max),
    },
    Setting {
        section: "limits",
        name: "max-clock-offset",
        placeholder: "DURATION",
        help: "How far ahead of this node's clock a remote stamp may lie",
        set: |draft, text| put(&mut draft.config.limits.max_clock_offset, parse_duration(text)),
        show: |draft| show_duration(draft.config.limits.max_clock_offset),
    },
];

static STORAGE: [Setting; 7] = [
    Setting {
        section: "storage",
        name: "wal-segment-bytes",
        placeholder: "SIZE",
        help: "Bytes of one segment of the write-ahead log",
        set: |draft, text| put(&mut draft.config.storage.wal_segment_bytes, parse_size(text)),
        show: |draft| show_size(draft.config.storage.wal_segment_bytes),
    },
    Setting {
        section: "storage",
        name: "group-commit-interval",
        placeholder: "DURATION",
        help: "How long a group commit gathers when writers are concurrent",
        set: |draft, text| {
            put(&mut draft.config.storage.group_commit_interval, parse_duration(text))
        },
        show: |draft| show_duration(draft.config.storage.group_commit_interval),
    },
    Setting {
        section: "storage",
        name: "wal-queue-bytes-max",
        placeholder: "SIZE",
        help: "Bytes of log records that may wait before writes are refused",
        set: |draft, text| put(&mut draft.config.storage.wal_queue_bytes_max, memory(text)),
        show: |draft| show_memory(draft.config.storage.wal_queue_bytes_max),
    },
    Setting {
        section: "storage",
        name: "memtable-bytes-max",
        placeholder: "SIZE",
        help: "Bytes of the in-memory table from which on it is fed to the engine",
        set: |draft, text| put(&mut draft.config.storage.memtable_bytes_max, memory(text)),
        show: |draft| show_memory(draft.config.storage.memtable_bytes_max),
    },
    Setting {
        section: "storage",
        name: "memtable-age-max",
        placeholder: "DURATION",
        help: "Age of the in-memory table from which on it is fed to the engine",
        set: |draft, text| put(&mut draft.config.storage.memtable_age_max, parse_duration(text)),
        show: |draft| show_duration(draft.config.storage.memtable_age_max),
    },
    Setting {
        section: "storage",
        name: "engine-cache-bytes",
        placeholder: "SIZE",
        help: "Bytes of engine cache",
        set: |draft, text| put(&mut draft.config.storage.engine_cache_bytes, parse_size(text)),
        show: |draft| show_size(draft.config.storage.engine_cache_bytes),
    },
    Setting {
        section: "storage",
        name: "disk-reserve-bytes",
        placeholder: "SIZE",
        help: "Free bytes of the file system below which writes are refused",
        set: |draft, text| put(&mut draft.config.storage.disk_reserve_bytes, parse_size(text)),
        show: |draft| show_size(draft.config.storage.disk_reserve_bytes),
    },
];

fn put<T>(slot: &mut T, value: Result<T, String>) -> Result<(), String> {
    *slot = value?;
    Ok(())
}
