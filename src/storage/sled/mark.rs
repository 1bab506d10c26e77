//! A note beside sled's files of how far its last durable checkpoint reached.
//!
//! sled takes a damaged spot in its log for the end of the log and goes on without what followed.
//! The rows are then gone silently, but so is the applied LSN that was written after them: an
//! engine that opens with a lower one than the note says has lost data, and is set aside.
//!
//! The note is one sector, written in place after the checkpoint. A torn or damaged note is worth
//! a warning and proves nothing about the engine.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::types::Lsn;

/// The note of one engine's directory.
#[derive(Debug)]
pub(super) struct CheckpointMark {
    path: PathBuf,
}

impl CheckpointMark {
    /// The note in a directory; nothing is read yet.
    pub(super) fn in_dir(dir: &Path) -> Self {
        CheckpointMark { path: dir.join("checkpoint-mark") }
    }

    /// Everything up to which LSN was durable; `None` without a readable note.
    ///
    /// # Errors
    /// What the operating system says, except that there is no such file.
    pub(super) fn read(&self) -> io::Result<Option<Lsn>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let lsn = parse(&bytes);
        if lsn.is_none() {
            tracing::warn!(path = %self.path.display(), "engine's checkpoint mark is unreadable");
        }
        Ok(lsn)
    }

    /// Notes, durably, that everything up to an LSN is durable.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn write(&self, lsn: Lsn) -> io::Result<()> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&self.path);
        let mut file = open?;
        file.write_all(&format(lsn))?;
        file.sync_data()
    }
}

const FORMAT: u8 = 1;
const BYTES: usize = 13;

fn format(lsn: Lsn) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[0] = FORMAT;
    bytes[1..9].copy_from_slice(&lsn.0.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[..9]);
    bytes[9..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<Lsn> {
    let lsn = Lsn(u64::from_be_bytes(*bytes.get(1..)?.first_chunk()?));
    (bytes == format(lsn)).then_some(lsn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mark = CheckpointMark::in_dir(dir.path());
        assert_eq!(mark.read().unwrap(), None);
        for lsn in [Lsn(3), Lsn(u64::MAX)] {
            mark.write(lsn).unwrap();
            assert_eq!(mark.read().unwrap(), Some(lsn));
        }
    }

    #[test]
    fn a_damaged_mark_is_no_mark() {
        let sound = format(Lsn(77));
        for bit in 0..BYTES * 8 {
            let mut damaged = sound;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&damaged), None, "bit {bit}");
        }
        assert_eq!(parse(&sound[..BYTES - 1]), None);
    }
}
