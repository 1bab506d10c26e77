//! A note beside sled's files that they were found damaged while the engine ran.
//!
//! Opening reads little of a large engine, so it may succeed on files in which a later read met
//! damage. Started anew, the node would then be well until it came upon the same place again. With
//! the note, the next opening sets the directory aside, and the node refills.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::durability;
use crate::storage::engine::EngineError;

/// The note of one engine's directory.
#[derive(Debug)]
pub(super) struct DamageNote {
    dir: PathBuf,
}

impl DamageNote {
    /// The note in a directory; nothing is read yet.
    pub(super) fn in_dir(dir: &Path) -> Self {
        DamageNote { dir: dir.to_owned() }
    }

    /// Refuses a directory in which damage was noted.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] with what was noted, or [`EngineError::Failed`] when that cannot
    /// be told.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        match std::fs::read(self.path()) {
            Ok(noted) => Err(EngineError::Damaged {
                detail: format!("found while it ran: {}", String::from_utf8_lossy(&noted)),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(EngineError::Failed {
                during: "looked for a note of damage",
                detail: error.to_string(),
            }),
        }
    }

    /// Notes damage, durably; the first note stays. That it cannot be written is logged: the error
    /// that it is about goes to the caller anyway.
    pub(super) fn write(&self, detail: &str) {
        match self.try_write(detail) {
            Ok(()) => tracing::error!(
                dir = %self.dir.display(), detail,
                "engine is damaged; it will be set aside at the next start"
            ),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => tracing::error!(%error, detail, "cannot note that the engine is damaged"),
        }
    }

    fn try_write(&self, detail: &str) -> io::Result<()> {
        let mut file = std::fs::File::create_new(self.path())?;
        file.write_all(detail.as_bytes())?;
        file.sync_all()?;
        durability::sync_dir(&self.dir)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("damage-found")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_damage_noted_is_what_opening_hears() {
        let dir = tempfile::tempdir().unwrap();
        let note = DamageNote::in_dir(dir.path());
        assert!(note.check().is_ok());
        note.write("a page is gone");
        note.write("another is too");
        let refusal = DamageNote::in_dir(dir.path()).check().unwrap_err();
        assert!(matches!(&refusal, EngineError::Damaged { .. }));
        assert!(refusal.to_string().contains("found while it ran: a page is gone"), "{refusal}");
    }
}
