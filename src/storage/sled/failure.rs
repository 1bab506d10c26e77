//! sled's errors and panics as errors of an engine.
//!
//! sled panics on much of what it finds damaged. Every call goes through [`guarded`], which costs
//! next to nothing, so that such a panic becomes an error of the one call that met it. The panic's
//! message is printed as always.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::storage::engine::EngineError;

/// Does `work`, and turns a panic in it into [`EngineError::Damaged`].
///
/// # Errors
/// Those of `work`.
pub(super) fn guarded<T>(
    during: &'static str,
    work: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let detail = format!("sled panicked while it {during}: {}", words_of(&*panic));
        Err(EngineError::Damaged { detail })
    })
}

/// Gives an operation's errors a name and the right kind.
pub(super) trait During<T> {
    /// `during` is what was being done, as a verb in the past tense.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] when what is on disk contradicts itself, otherwise
    /// [`EngineError::Failed`].
    fn during(self, during: &'static str) -> Result<T, EngineError>;

    /// The same while nothing has been written yet: a disk's error can then only mean that what
    /// is there cannot be read, which is damage. Later it may be that of a failed write.
    ///
    /// # Errors
    /// As [`During::during`].
    fn during_opening(self, during: &'static str) -> Result<T, EngineError>;
}

impl<T> During<T> for ::sled::Result<T> {
    fn during(self, during: &'static str) -> Result<T, EngineError> {
        self.map_err(|error| explain(error, during))
    }

    fn during_opening(self, during: &'static str) -> Result<T, EngineError> {
        self.map_err(|error| match &error {
            ::sled::Error::Io(unreadable) if is_unreadable(unreadable) => {
                EngineError::Damaged { detail: format!("sled, while it {during}: {error}") }
            }
            _ => explain(error, during),
        })
    }
}

impl<T> During<T> for io::Result<T> {
    fn during(self, during: &'static str) -> Result<T, EngineError> {
        self.map_err(|error| EngineError::Failed { during, detail: error.to_string() })
    }

    fn during_opening(self, during: &'static str) -> Result<T, EngineError> {
        self.during(during)
    }
}

fn explain(error: ::sled::Error, during: &'static str) -> EngineError {
    let detail = format!("sled, while it {during}: {error}");
    match error {
        ::sled::Error::Io(error) if !says_damage(&error) => {
            EngineError::Failed { during, detail: error.to_string() }
        }
        _ => EngineError::Damaged { detail },
    }
}

/// A lock held by another process, a full disk or missing rights say nothing of the data. Files
/// that are missing or too short are damage.
fn says_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound
    )
}

fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_damage_with_its_words() {
        let outcome: Result<(), _> = guarded("read a row", || panic!("page {} is gone", 7));
        let error = outcome.unwrap_err();
        assert!(matches!(error, EngineError::Damaged { .. }));
        assert!(error.to_string().contains("read a row: page 7 is gone"), "{error}");
    }

    #[test]
    fn only_what_the_data_is_guilty_of_is_damage() {
        let is_damage = |error: io::Error, opening: bool| {
            let outcome: ::sled::Result<()> = Err(::sled::Error::Io(error));
            let during = if opening { During::during_opening } else { During::during };
            matches!(during(outcome, "opened"), Err(EngineError::Damaged { .. }))
        };
        for opening in [true, false] {
            assert!(is_damage(io::Error::from(io::ErrorKind::UnexpectedEof), opening));
            assert!(!is_damage(io::Error::from_raw_os_error(libc::ENOSPC), opening));
            assert!(!is_damage(io::Error::from(io::ErrorKind::PermissionDenied), opening));
            assert!(!is_damage(io::Error::other("could not acquire lock"), opening));
            assert_eq!(is_damage(io::Error::from_raw_os_error(libc::EIO), opening), opening);
        }
    }
}
