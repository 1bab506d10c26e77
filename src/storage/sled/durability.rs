//! What makes sled's flush survive a power loss.
//!
//! On Linux sled 0.34.7 ends every write of its log with `sync_file_range`, which neither writes
//! the file's size nor empties the disk's cache: with power loss modelled, it lost thousands of
//! rows that a flush had covered. This module defines that very symbol, so that the linker binds
//! sled's call to it instead of to the C library's, and performs `fdatasync`. Calls are counted,
//! and [`require_calls_since`] refuses an engine whose first flush made none: a binary in which
//! another definition won must not start.
//!
//! Elsewhere sled calls `File::sync_all` itself and nothing is overridden.
//!
//! Neither sled nor the file system makes new directory entries durable; [`sync_created`] does.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::storage::engine::EngineError;

/// Calls of `sync_file_range` that this process answered with `fdatasync`.
#[cfg(target_os = "linux")]
pub(super) fn calls() -> u64 {
    linux::CALLS.load(std::sync::atomic::Ordering::Relaxed)
}

/// Nothing is overridden on this system.
#[cfg(not(target_os = "linux"))]
pub(super) fn calls() -> u64 {
    0
}

/// Refuses to go on unless a flush since `calls_before` reached our `fdatasync`.
///
/// # Errors
/// [`EngineError::Failed`] when none did.
pub(super) fn require_calls_since(calls_before: u64) -> Result<(), EngineError> {
    if cfg!(target_os = "linux") && calls() == calls_before {
        return Err(EngineError::Failed {
            during: "proved that its flush is durable",
            detail: "the flush did not reach this program's sync_file_range; \
                     this binary was linked so that its data would not survive a power loss"
                .to_owned(),
        });
    }
    Ok(())
}

/// Makes the files that opening created, and their names, survive a power loss.
///
/// # Errors
/// What the operating system says.
pub(super) fn sync_created(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_dir(dir)?;
    sync_parent(dir)
}

/// Makes the names in a directory survive a power loss.
///
/// # Errors
/// What the operating system says.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes the creation or renaming of a directory survive a power loss.
///
/// # Errors
/// What the operating system says.
pub(super) fn sync_parent(dir: &Path) -> io::Result<()> {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The number of an open file whose syncs fail.
#[cfg(all(test, target_os = "linux"))]
pub(super) static FAILING: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a C symbol is replaced, and fdatasync is called through C")]
mod linux {
    use std::sync::atomic::{AtomicU64, Ordering};

    use libc::{c_int, c_uint, off64_t};

    pub(super) static CALLS: AtomicU64 = AtomicU64::new(0);

    /// Has the C library's name and signature and does more than it: the whole file is synced,
    /// whatever range and flags are given. Sets `errno` as `fdatasync` does.
    // SAFETY: no other object of the program defines this symbol; the C library's own definition
    // is in a shared library and yields to it, and has the same signature.
    #[unsafe(no_mangle)]
    extern "C" fn sync_file_range(
        file: c_int,
        _offset: off64_t,
        _bytes: off64_t,
        _flags: c_uint,
    ) -> c_int {
        CALLS.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        let file = if super::FAILING.load(Ordering::Relaxed) == file { -1 } else { file };
        // SAFETY: fdatasync takes any number and answers EBADF to one that is no open file.
        unsafe { libc::fdatasync(file) }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    #[allow(unsafe_code, reason = "calls the C symbol as sled does")]
    fn the_symbol_that_sled_calls_is_ours() {
        let file = tempfile::tempfile().unwrap();
        let before = calls();
        // SAFETY: the file is open, and the range and flags are those that sled passes.
        let outcome = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 4096, 7) };
        assert_eq!(outcome, 0);
        assert!(calls() > before, "the C library's sync_file_range was called");
    }

    #[test]
    fn errors_pass_through() {
        let before = calls();
        // SAFETY: -1 is never an open file, which is what is tested.
        #[allow(unsafe_code, reason = "calls the C symbol as sled does")]
        let outcome = unsafe { libc::sync_file_range(-1, 0, 0, 0) };
        assert_eq!(outcome, -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
        assert!(require_calls_since(before).is_ok());
    }

    /// Tests run side by side and the count is the process's, so the question is asked until no
    /// other test happened to flush between the two readings.
    #[test]
    fn a_flush_that_never_came_here_is_refused() {
        let refusal = (0..1000).find_map(|_| require_calls_since(calls()).err()).unwrap();
        assert!(refusal.to_string().contains("proved that its flush is durable"), "{refusal}");
    }
}
