//! What keeps a node from acknowledging writes: a full disk (passes), a failed log (does not).

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::protocol::message::Refusal;

/// Conditions of this node's storage, read on every write.
#[derive(Default)]
pub(crate) struct Health {
    disk_full: AtomicBool,
    failed: AtomicBool,
    rebuilding: AtomicBool,
    failure: Mutex<Option<String>>,
    notices: Mutex<Vec<String>>,
}

impl Health {
    /// Why a write cannot be taken, if so.
    ///
    /// # Errors
    /// [`Refusal::LogFailed`] or [`Refusal::DiskFull`].
    pub(crate) fn check_writable(&self) -> Result<(), Refusal> {
        if self.failed.load(Ordering::Acquire) {
            Err(Refusal::LogFailed)
        } else if self.disk_full.load(Ordering::Acquire) {
            Err(Refusal::DiskFull)
        } else {
            Ok(())
        }
    }

    /// Ends the node's promises: it acknowledges no write until it is started anew.
    pub(crate) fn fail(&self, cause: String) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(%cause, "no more writes are acknowledged as long as this process runs");
            *self.failure.lock() = Some(cause);
        }
    }

    /// Why the node's promises ended, if they did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// True once the node's promises ended.
    pub(crate) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Notes whether the disk has room.
    pub(crate) fn set_disk_full(&self, full: bool) {
        if self.disk_full.swap(full, Ordering::AcqRel) != full {
            if full {
                tracing::warn!("the disk is full: writes are refused, reads go on");
            } else {
                tracing::info!("the disk has room again: writes are taken");
            }
        }
    }

    /// Whether writes are refused for want of room.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Acquire)
    }

    /// Notes whether the node still refills after a loss, or for the first time.
    pub(crate) fn set_rebuilding(&self, rebuilding: bool) {
        self.rebuilding.store(rebuilding, Ordering::Release);
    }

    /// True while the node's answers must not count towards a quorum.
    pub(crate) fn is_rebuilding(&self) -> bool {
        self.rebuilding.load(Ordering::Acquire)
    }

    /// Keeps a lasting notice for the operator, such as a quarantined directory.
    pub(crate) fn notice(&self, text: String) {
        tracing::warn!(notice = %text);
        self.notices.lock().push(text);
    }

    /// Conditions that want an operator's eye.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notices.lock().clone();
        warnings.extend(self.failure());
        if self.is_disk_full() {
            warnings.push("the disk is full: writes are refused, reads go on".to_owned());
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_passes_and_a_failure_does_not() {
        let health = Health::default();
        assert_eq!(health.check_writable(), Ok(()));
        health.set_disk_full(true);
        assert_eq!(health.check_writable(), Err(Refusal::DiskFull));
        health.set_disk_full(false);
        assert_eq!(health.check_writable(), Ok(()));
        health.fail("first".to_owned());
        health.fail("second".to_owned());
        assert_eq!(health.check_writable(), Err(Refusal::LogFailed));
        assert_eq!(health.failure().as_deref(), Some("first"));
    }
}
