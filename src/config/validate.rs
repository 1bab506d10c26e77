//! What does not fit together, said in terms of the settings' names.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::units::{show_duration, show_size};
use crate::config::{Config, Replication};
use crate::protocol::ring::{PARTITIONS_MAX, VNODES_MAX};
pub use crate::protocol::system::settings::LABEL_BYTES_MAX;

/// The largest N.
pub const REPLICATION_FACTOR_MAX: u32 = Replication::FACTOR_MAX;
/// Bytes of a log segment at least; smaller ones would be rotated all the time.
pub const WAL_SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Bytes of a log segment at most.
pub const WAL_SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Values that a log segment must have room for: a group commit is one frame in one segment.
pub const VALUES_PER_SEGMENT_MIN: u64 = 4;
/// Bytes of a key at most.
pub const KEY_BYTES_MAX: usize = 32 << 10;
/// The longest group commit interval: a write waits that long for others.
pub const GROUP_COMMIT_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Bytes of the in-memory table and of the engine's cache at least.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// A setting that cannot be used, on its own or beside another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value}: {right}")]
pub struct Unsound {
    /// The setting's name.
    pub setting: &'static str,
    /// What it is.
    pub value: String,
    /// What is right.
    pub right: String,
}

/// Checks a whole configuration and tells what is allowed but worth a warning.
///
/// # Errors
/// [`Unsound`] for the first setting that cannot be used.
pub fn check(config: &Config) -> Result<Vec<String>, Unsound> {
    check_addresses(config)?;
    check_seeds(config)?;
    check_ring(config)?;
    let replication = config.replication.unwrap_or_default();
    check_replication(replication)?;
    check_storage(config)?;
    check_limits(config)?;
    check_times(config)?;
    Ok(warnings(config, replication))
}

/// One rule: when it does not hold, the setting is at fault.
fn rule(
    holds: bool,
    setting: &'static str,
    value: impl ToString,
    right: impl ToString,
) -> Result<(), Unsound> {
    if holds {
        return Ok(());
    }
    Err(Unsound { setting, value: value.to_string(), right: right.to_string() })
}

fn check_addresses(config: &Config) -> Result<(), Unsound> {
    check_address("listen", config.listen, "advertise", config.advertise)?;
    check_address("peer-listen", config.peer_listen, "peer-advertise", config.peer_advertise)?;
    let same = config.listen == config.peer_listen;
    rule(!same, "peer-listen", config.peer_listen, "give it another port than listen")
}

fn check_address(
    listen_name: &'static str,
    listen: SocketAddr,
    advertise_name: &'static str,
    advertise: Option<SocketAddr>,
) -> Result<(), Unsound> {
    rule(listen.port() > 0, listen_name, listen, "give a port above 0: others must be told it")?;
    let Some(advertise) = advertise else {
        let right = format!("others cannot connect to it; set {advertise_name} to this host's own");
        return rule(!listen.ip().is_unspecified(), listen_name, listen, right);
    };
    let usable = !advertise.ip().is_unspecified() && advertise.port() > 0;
    rule(usable, advertise_name, advertise, "give an address and port that others can connect to")
}

fn check_seeds(config: &Config) -> Result<(), Unsound> {
    let own = [Some(config.peer_listen), config.peer_advertise];
    let is_own = |seed: &String| {
        let address = seed.replace("localhost", "127.0.0.1").parse::<SocketAddr>().ok();
        address.is_some_and(|address| own.contains(&Some(address)))
    };
    let only_itself = !config.seeds.is_empty() && config.seeds.iter().all(is_own);
    let right = "that is this node itself; leave seeds out to found a cluster";
    rule(!only_itself, "seeds", config.seeds.join(","), right)
}

fn check_ring(config: &Config) -> Result<(), Unsound> {
    check_label("name", &config.name)?;
    rule(!config.name.is_empty(), "name", "empty", "give a name, or leave it out")?;
    check_label("zone", &config.zone)?;
    let vnodes = (1..=VNODES_MAX).contains(&config.vnodes);
    rule(vnodes, "vnodes", config.vnodes, format!("give 1 to {VNODES_MAX}"))?;
    let scaled = f64::from(config.vnodes) * config.capacity;
    let usable = config.capacity > 0.0 && (0.5..=f64::from(VNODES_MAX)).contains(&scaled);
    let right = format!("times vnodes ({}) it must make 1 to {VNODES_MAX}", config.vnodes);
    rule(usable, "capacity", config.capacity, right)?;
    let power = config.partitions.is_power_of_two() && config.partitions <= PARTITIONS_MAX;
    let right = format!("give a power of two from 1 to {PARTITIONS_MAX}");
    rule(power, "partitions", config.partitions, right)
}

fn check_label(setting: &'static str, text: &str) -> Result<(), Unsound> {
    let right = format!("give at most {LABEL_BYTES_MAX} bytes without spaces or commas");
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != ',';
    rule(text.len() <= LABEL_BYTES_MAX && text.chars().all(plain), setting, text, right)
}

fn check_replication(replication: Replication) -> Result<(), Unsound> {
    let Replication { factor, read_quorum, write_quorum } = replication;
    let right = format!("give 1 to {REPLICATION_FACTOR_MAX}");
    rule((1..=REPLICATION_FACTOR_MAX).contains(&factor), "replication-factor", factor, right)?;
    let right = format!("give 1 to the replication factor, which is {factor}");
    rule((1..=factor).contains(&read_quorum), "read-quorum", read_quorum, &right)?;
    rule((1..=factor).contains(&write_quorum), "write-quorum", write_quorum, &right)
}

fn check_limits(config: &Config) -> Result<(), Unsound> {
    let limits = &config.limits;
    let key = (1..=KEY_BYTES_MAX).contains(&limits.key_bytes_max);
    let right = format!("give 1 to {} bytes", show_size(KEY_BYTES_MAX as u64));
    rule(key, "key-bytes-max", limits.key_bytes_max, right)?;
    let most = config.storage.wal_segment_bytes / VALUES_PER_SEGMENT_MIN;
    let value = limits.value_bytes_max as u64;
    let right = format!(
        "give 1 to {}, a quarter of wal-segment-bytes, or make the segments larger",
        show_size(most)
    );
    rule((1..=most).contains(&value), "value-bytes-max", show_size(value), right)?;
    rule(limits.batch_keys_max > 0, "batch-keys-max", 0, "give at least 1")?;
    rule(limits.requests_in_flight_max > 0, "requests-in-flight-max", 0, "give at least 1")?;
    let history = config.groups.watch_history;
    rule(history.events_max > 0, "watch-history-events-max", 0, "give at least 1")?;
    rule(history.bytes_max > 0, "watch-history-bytes-max", 0, "give at least 1 byte")
}

fn check_times(config: &Config) -> Result<(), Unsound> {
    let limits = &config.limits;
    let (timeout, most) = (limits.request_timeout, limits.request_timeout_max);
    let right = format!("give more than 0 and at most request-timeout-max ({})", show(most));
    rule(!timeout.is_zero() && timeout <= most, "request-timeout", show(timeout), right)?;
    rule(!limits.max_clock_offset.is_zero(), "max-clock-offset", "0ms", "give more than 0")?;
    rule(!config.hints.window.is_zero(), "hint-window", "0ms", "give more than 0")?;
    let (reap_after, window) = (config.anti_entropy.reap_after, config.hints.window);
    let right = format!(
        "give more than hint-window ({}), or a hint could bring back what was deleted; or 0s, to \
         keep deletes for ever",
        show(window)
    );
    let after_hints = reap_after.is_zero() || reap_after > window;
    rule(after_hints, "reap-after", show(reap_after), right)?;
    let rate = config.hints.replay_bytes_per_second;
    rule(rate > 0, "hint-replay-bytes-per-second", rate, "give more than 0")?;
    let rate = config.transfers.bytes_per_second;
    rule(rate > 0, "transfer-bytes-per-second", rate, "give more than 0")?;
    let rate = config.anti_entropy.bytes_per_second;
    rule(rate > 0, "anti-entropy-bytes-per-second", rate, "give more than 0")
}

fn show(duration: Duration) -> String {
    show_duration(duration)
}

fn check_storage(config: &Config) -> Result<(), Unsound> {
    let storage = &config.storage;
    let sizes = WAL_SEGMENT_BYTES_MIN..=WAL_SEGMENT_BYTES_MAX;
    let right = format!("give {} to {}", show_size(*sizes.start()), show_size(*sizes.end()));
    let segment = storage.wal_segment_bytes;
    rule(sizes.contains(&segment), "wal-segment-bytes", show_size(segment), right)?;
    let interval = storage.group_commit_interval;
    let right = format!("give at most {}", show(GROUP_COMMIT_INTERVAL_MAX));
    let within = interval <= GROUP_COMMIT_INTERVAL_MAX;
    rule(within, "group-commit-interval", show(interval), right)?;
    let row = config.limits.value_bytes_max.saturating_add(config.limits.key_bytes_max);
    let queue = storage.wal_queue_bytes_max;
    let right = format!("give at least twice the largest row ({})", show_size(row as u64));
    let wide = queue >= row.saturating_mul(2);
    rule(wide, "wal-queue-bytes-max", show_size(queue as u64), right)?;
    let right = format!("give at least {}", show_size(MEMORY_BYTES_MIN));
    let memtable = storage.memtable_bytes_max as u64;
    rule(memtable >= MEMORY_BYTES_MIN, "memtable-bytes-max", show_size(memtable), &right)?;
    let cache = storage.engine_cache_bytes;
    rule(cache >= MEMORY_BYTES_MIN, "engine-cache-bytes", show_size(cache), &right)?;
    rule(!storage.memtable_age_max.is_zero(), "memtable-age-max", "0ms", "give more than 0")
}

fn warnings(config: &Config, replication: Replication) -> Vec<String> {
    let mut warnings = Vec::new();
    let Replication { factor, read_quorum, write_quorum } = replication;
    if read_quorum + write_quorum <= factor {
        warnings.push(format!(
            "read-quorum {read_quorum} + write-quorum {write_quorum} is not above \
             replication-factor {factor}: a read may miss the newest acknowledged write"
        ));
    }
    if config.limits.value_bytes_warn > config.limits.value_bytes_max {
        warnings.push(String::from(
            "value-bytes-warn is above value-bytes-max: no value will be warned about",
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(&mut Config)) -> Option<String> {
        let mut config = Config { name: String::from("a"), ..Config::default() };
        change(&mut config);
        check(&config).err().map(|unsound| unsound.to_string())
    }

    /// A change to the defaults, and how the error that it makes begins.
    type Case = (fn(&mut Config), &'static str);

    fn assert_faults(cases: &[Case]) {
        for (change, start) in cases {
            let fault = fault(change).unwrap_or_else(|| panic!("{start}: was accepted"));
            assert!(fault.starts_with(start), "{fault:?} does not start with {start:?}");
        }
    }

    #[test]
    fn the_defaults_are_sound_and_silent() {
        let config = Config { name: String::from("a"), ..Config::default() };
        assert_eq!(check(&config), Ok(Vec::new()));
    }

    #[test]
    fn each_placement_rule_names_its_setting_and_value() {
        assert_faults(&[
            (|c| c.partitions = 100, "partitions is 100: give a power of two"),
            (|c| c.partitions = 1 << 16, "partitions is 65536"),
            (|c| c.vnodes = 0, "vnodes is 0"),
            (|c| c.capacity = 0.0, "capacity is 0"),
            (|c| c.capacity = f64::NAN, "capacity is NaN"),
            (|c| c.capacity = 1e6, "capacity is 1000000"),
            (|c| c.zone = "a b".into(), "zone is a b"),
            (|c| c.name = "x".repeat(65), "name is xxx"),
            (|c| c.name = String::new(), "name is empty"),
            (|c| c.replication = replication(0, 1, 1), "replication-factor is 0"),
            (|c| c.replication = replication(3, 4, 2), "read-quorum is 4: give 1 to"),
            (|c| c.replication = replication(3, 2, 0), "write-quorum is 0"),
        ]);
    }

    fn replication(factor: u32, read_quorum: u32, write_quorum: u32) -> Option<Replication> {
        Some(Replication { factor, read_quorum, write_quorum })
    }

    #[test]
    fn each_bound_names_its_setting_and_value() {
        assert_faults(&[
            (|c| c.storage.wal_segment_bytes = 4096, "wal-segment-bytes is 4KiB: give 1MiB"),
            (|c| c.limits.value_bytes_max = 9 << 20, "value-bytes-max is 9MiB: give 1 to"),
            (|c| c.limits.key_bytes_max = 0, "key-bytes-max is 0"),
            (|c| c.limits.request_timeout = Duration::from_secs(61), "request-timeout is 61s"),
            (|c| c.limits.request_timeout = Duration::ZERO, "request-timeout is 0ms"),
            (|c| c.storage.wal_queue_bytes_max = 1 << 20, "wal-queue-bytes-max is 1MiB"),
            (|c| c.storage.memtable_bytes_max = 1, "memtable-bytes-max is 1B"),
            (|c| c.storage.group_commit_interval = Duration::from_secs(1), "group-commit-interval"),
            (|c| c.hints.replay_bytes_per_second = 0, "hint-replay-bytes-per-second is 0"),
            (|c| c.transfers.bytes_per_second = 0, "transfer-bytes-per-second is 0"),
            (|c| c.anti_entropy.bytes_per_second = 0, "anti-entropy-bytes-per-second is 0"),
        ]);
    }

    #[test]
    fn addresses_must_be_usable_by_others() {
        assert_faults(&[
            (|c| c.listen.set_port(0), "listen is 127.0.0.1:0"),
            (|c| c.peer_listen = c.listen, "peer-listen is 127.0.0.1:7400: give it another"),
            (|c| c.listen.set_ip([0, 0, 0, 0].into()), "listen is 0.0.0.0:7400: others cannot"),
            (|c| c.peer_listen.set_ip([0, 0, 0, 0].into()), "peer-listen is 0.0.0.0:7401"),
            (|c| c.advertise = Some(([0, 0, 0, 0], 1).into()), "advertise is 0.0.0.0:1"),
            (|c| c.seeds = vec!["127.0.0.1:7401".into()], "seeds is 127.0.0.1:7401: that is"),
            (|c| c.seeds = vec!["localhost:7401".into()], "seeds is localhost:7401: that is"),
        ]);
        let open = |c: &mut Config| {
            c.listen.set_ip([0, 0, 0, 0].into());
            c.advertise = Some(([10, 0, 0, 1], 7400).into());
            c.seeds = vec!["127.0.0.1:7401".into(), "10.0.0.2:7401".into()];
        };
        assert_eq!(fault(open), None);
    }

    #[test]
    fn quorums_that_do_not_meet_are_allowed_with_a_warning() {
        let name = String::from("a");
        let config = Config { name, replication: replication(3, 1, 1), ..Config::default() };
        let warnings = check(&config).expect("allowed");
        assert!(warnings.len() == 1 && warnings[0].contains("may miss"), "{warnings:?}");
    }
}
