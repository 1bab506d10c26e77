//! The seam to the disk for everything that is not the engine: one flat directory of files.
//!
//! Names are relative to the directory that the implementation was made for and may contain one
//! level of folder (`wal/0000000000000001.log`), which is made when a file is created in it.

use std::io;

#[cfg(test)]
pub(crate) mod testing;

/// An open file, read and written at offsets.
pub trait FileHandle: Send + Sync {
    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`; not durable before [`FileHandle::sync_data`].
    ///
    /// # Errors
    /// What the operating system says; part of the bytes may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes all bytes written so far survive a power loss (`fdatasync`).
    ///
    /// # Errors
    /// What the operating system says. After an error nothing may be assumed of what was written
    /// since the last success, and a second call proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Bytes in the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// True when the file has no bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// A directory of files.
pub trait Files: Send + Sync {
    /// Names in a folder, sorted; empty when the folder does not exist.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, or what the operating system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn FileHandle>>;

    /// Makes a new file, and its folder.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the operating system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn FileHandle>>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file over another, atomically.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes the creations, renames and removals in a folder survive a power loss.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;

    /// Bytes that the file system still has for an ordinary user.
    ///
    /// # Errors
    /// What the operating system says.
    fn free_bytes(&self) -> io::Result<u64>;
}
