//! How the values of settings are read, beyond sizes and durations.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::config::JoinMode;
use crate::config::settings::LogFormat;
use crate::config::units::{parse_size, show_size};

/// More threads than this are a slip of the pen.
const WORKER_THREADS_MAX: usize = 1024;

pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| String::from("give a whole number"))
}

pub(super) fn decimal(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| String::from("give a number such as 0.5 or 2"))
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.trim().parse().map_err(|_| String::from("give true or false"))
}

pub(super) fn memory(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text)?;
    usize::try_from(bytes).map_err(|_| String::from("is more than this machine can address"))
}

pub(super) fn show_memory(bytes: usize) -> String {
    show_size(bytes as u64)
}

pub(super) fn worker_threads(text: &str) -> Result<usize, String> {
    let threads =
        text.trim().parse().ok().filter(|threads| (1..=WORKER_THREADS_MAX).contains(threads));
    threads.ok_or_else(|| format!("give a number from 1 to {WORKER_THREADS_MAX}"))
}

pub(super) fn join_mode(text: &str) -> Result<JoinMode, String> {
    match text.trim() {
        "auto" => Ok(JoinMode::Auto),
        "manual" => Ok(JoinMode::Manual),
        _ => Err(String::from("give auto or manual")),
    }
}

pub(super) fn show_join_mode(mode: JoinMode) -> &'static str {
    match mode {
        JoinMode::Auto => "auto",
        JoinMode::Manual => "manual",
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.trim() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(String::from("give text or json")),
    }
}

/// An address; a host name is resolved, to its first IPv4 address when it has one.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    const RIGHT: &str = "give an address and a port, as in 127.0.0.1:7400";
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if !text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port)) {
        return Err(RIGHT.to_owned());
    }
    let found = text.to_socket_addrs().map_err(|error| format!("cannot be resolved: {error}"))?;
    let found: Vec<SocketAddr> = found.collect();
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    chosen.copied().ok_or_else(|| String::from("resolves to no address"))
}

/// A list of `host:port`. Names stay names: the seed may have another address tomorrow.
pub(super) fn seeds(text: &str) -> Result<Vec<String>, String> {
    const RIGHT: &str = "give peer addresses as host:port, separated by commas";
    let each = text.split(',').map(str::trim).filter(|seed| !seed.is_empty());
    let each = each.map(|seed| match seed.rsplit_once(':') {
        Some((host, port)) if is_host(host) && is_port(port) => Ok(seed.to_owned()),
        _ => Err(format!("{seed:?} is not host:port; {RIGHT}")),
    });
    each.collect()
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', ' ', '@'])
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}
