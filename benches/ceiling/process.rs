//! What Linux tells of a process, and children that end with this one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Child;
use std::time::Duration;

use crate::AnyError;

/// Ticks per second in /proc: `USER_HZ`, which is 100 on every architecture that Linux runs
/// tonic on.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time that a process has used, in user and kernel mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    ticks: u64,
}

impl CpuTime {
    /// Of a process that runs.
    pub(crate) fn of(pid: u32) -> Result<Self, AnyError> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is the program's name in parentheses, which may hold anything.
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest).ok_or("an unknown /proc format")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |index: usize| -> Result<u64, AnyError> {
            Ok(fields.get(index).ok_or("an unknown /proc format")?.parse()?)
        };
        // Fields 14 and 15 of proc(5), counted from the third.
        Ok(CpuTime { ticks: ticks(11)? + ticks(12)? })
    }

    pub(crate) fn plus(self, other: CpuTime) -> CpuTime {
        CpuTime { ticks: self.ticks + other.ticks }
    }

    pub(crate) fn since(self, earlier: CpuTime) -> Duration {
        let ticks = self.ticks.saturating_sub(earlier.ticks);
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }
}

/// Bytes of memory that a process has resident.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, AnyError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// How often and how long a process that starts is asked whether it is ready.
const TRY_INTERVAL: Duration = Duration::from_millis(50);
const TRIES_MAX: u32 = 600;

/// Resolves once the condition holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) -> Result<(), AnyError> {
    for _ in 0..TRIES_MAX {
        if condition().await {
            return Ok(());
        }
        tokio::time::sleep(TRY_INTERVAL).await;
    }
    Err(format!("{what} within {:?}", TRY_INTERVAL * TRIES_MAX).into())
}

/// A child that is killed when dropped.
pub(crate) struct Owned(pub(crate) Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address of this machine on which nobody listens at the moment.
pub(crate) fn free_address() -> Result<SocketAddr, AnyError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
