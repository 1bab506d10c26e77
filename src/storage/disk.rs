//! The real disk behind [`Files`]: one directory, held by one process at a time.
//!
//! Files are made durable only by [`FileHandle::sync_data`], names only by
//! [`Files::sync_folder`]; both are counted, since a sync is the dearest thing a store asks of a
//! disk. Opening the directory syncs it once, so that folders made by an earlier process that was
//! killed are durable before anything in them is relied on.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::storage::files::{FileHandle, Files};

/// The file whose lock says that a directory is in use.
const LOCK_NAME: &str = "LOCK";

/// A directory on disk, locked for this process until dropped.
#[derive(Debug)]
pub struct DiskFiles {
    dir: PathBuf,
    syncs: Arc<AtomicU64>,
    /// Folders made since their names were last made durable.
    new_folders: Mutex<BTreeSet<String>>,
    /// Held for its lock, which the system releases even if the process is killed.
    _lock: File,
}

impl DiskFiles {
    /// Makes the directory if need be and locks it.
    ///
    /// # Errors
    /// `ResourceBusy`, naming the directory, when another process has it; or what the operating
    /// system says.
    pub fn open(dir: &Path) -> io::Result<DiskFiles> {
        if !dir.exists() {
            fs::create_dir_all(dir)?;
            sync_dir(&parent_of(dir))?;
        }
        let lock = lock(dir)?;
        sync_dir(dir)?;
        Ok(DiskFiles {
            dir: dir.to_owned(),
            syncs: Arc::default(),
            new_folders: Mutex::default(),
            _lock: lock,
        })
    }

    /// Calls of `fdatasync` on files and `fsync` on folders since it was opened.
    pub fn sync_count(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn handle(&self, file: File) -> Box<dyn FileHandle> {
        Box::new(DiskFile { file, syncs: Arc::clone(&self.syncs) })
    }

    fn make_folder_of(&self, name: &str) -> io::Result<()> {
        let Some((folder, _)) = name.split_once('/') else { return Ok(()) };
        match fs::create_dir(self.dir.join(folder)) {
            Ok(()) => {
                self.new_folders.lock().insert(folder.to_owned());
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn count_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }
}

impl Files for DiskFiles {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.dir.join(folder)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn FileHandle>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(self.handle(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn FileHandle>> {
        self.make_folder_of(name)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(self.dir.join(name))?;
        Ok(self.handle(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.make_folder_of(to)?;
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.count_sync();
        sync_dir(&self.dir.join(folder))?;
        if self.new_folders.lock().contains(folder) {
            self.count_sync();
            sync_dir(&self.dir)?;
            self.new_folders.lock().remove(folder);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        free_bytes(&self.dir)
    }
}

struct DiskFile {
    file: File,
    syncs: Arc<AtomicU64>,
}

impl FileHandle for DiskFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

fn lock(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(dir.join(LOCK_NAME))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            ErrorKind::ResourceBusy,
            format!("the data directory {} is in use by another process", dir.display()),
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn parent_of(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[allow(unsafe_code, reason = "statvfs has no safe counterpart in the standard library")]
#[allow(clippy::unnecessary_cast, reason = "the fields' widths differ between platforms")]
fn free_bytes(dir: &Path) -> io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends in a zero byte and `stat` has room for what the call writes.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled `stat`.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail as u64 * stat.f_frsize as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (tempfile::TempDir, DiskFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = DiskFiles::open(&dir.path().join("data")).unwrap();
        (dir, files)
    }

    #[test]
    fn a_second_holder_is_told_which_directory_is_taken() {
        let (_dir, files) = opened();
        let error = DiskFiles::open(files.dir()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        assert!(error.to_string().contains(&files.dir().display().to_string()), "{error}");
    }

    #[test]
    fn dropping_the_holder_frees_the_directory() {
        let (_dir, files) = opened();
        let path = files.dir().to_owned();
        drop(files);
        assert!(DiskFiles::open(&path).is_ok());
    }

    #[test]
    fn bytes_are_written_and_read_at_offsets() {
        let (_dir, files) = opened();
        let file = files.create("wal/a").unwrap();
        file.write_at(3, b"abc").unwrap();
        let mut buffer = [9; 8];
        assert_eq!(file.read_at(1, &mut buffer).unwrap(), 5);
        assert_eq!(buffer, [0, 0, b'a', b'b', b'c', 9, 9, 9]);
        file.set_len(4).unwrap();
        assert_eq!(files.open("wal/a").unwrap().len().unwrap(), 4);
    }

    #[test]
    fn names_are_listed_in_order_and_without_folders() {
        let (_dir, files) = opened();
        for name in ["wal/b", "wal/a", "c"] {
            files.create(name).unwrap();
        }
        files.rename("wal/b", "wal/c").unwrap();
        assert_eq!(files.list("wal").unwrap(), ["a", "c"]);
        assert_eq!(files.list("").unwrap(), [LOCK_NAME, "c"]);
        assert!(files.list("absent").unwrap().is_empty());
    }

    #[test]
    fn creating_what_exists_and_opening_what_does_not_are_told_apart() {
        let (_dir, files) = opened();
        files.create("a").unwrap();
        assert_eq!(files.create("a").err().unwrap().kind(), ErrorKind::AlreadyExists);
        files.remove("a").unwrap();
        assert_eq!(files.open("a").err().unwrap().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn every_sync_is_counted() {
        let (_dir, files) = opened();
        let file = files.create("wal/a").unwrap();
        file.sync_data().unwrap();
        files.sync_folder("wal").unwrap();
        // The new folder's own name took a third.
        assert_eq!(files.sync_count(), 3);
        files.sync_folder("wal").unwrap();
        assert_eq!(files.sync_count(), 4);
    }

    #[test]
    fn the_file_system_has_room() {
        assert!(opened().1.free_bytes().unwrap() > 0);
    }
}
