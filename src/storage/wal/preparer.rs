//! Makes segments ahead of their use, so that commits only ever overwrite durable zeros.
//!
//! That a commit changes no file's size or extents makes its `fdatasync` cheap (half again as many
//! per second as when appending, and far steadier), and lets a full disk show here, where nothing
//! is at stake, and never in the middle of a commit.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::storage::files::{FileHandle, Files};
use crate::storage::wal::error::WalError;
use crate::storage::wal::segment::{FOLDER, PreparedSegment, prepared_path};

/// Bytes of zeros written at once. The pages that hold them are cached as large as they are
/// written, and a commit touches a whole one.
const FILL_CHUNK_BYTES: usize = 128 << 10;

/// Bytes of a log's very first segment, if others are larger: a new node waits for this one to be
/// written (25 ms here, against 300 ms for 64 MiB), but for no other.
const FIRST_SEGMENT_BYTES_MAX: u64 = 4 << 20;

/// Makes the log's next segment while commits go on. Clones serve the same log; none may be at
/// work when the log's folder is opened anew.
#[derive(Clone)]
pub struct SegmentPreparer {
    supply: Arc<Supply>,
}

impl SegmentPreparer {
    /// Makes a segment unless one is waiting. Blocks for as long as the disk takes to write it.
    ///
    /// # Errors
    /// [`WalError::DiskFull`] or [`WalError::Io`]; the log is as sound as before, what was made is
    /// removed, and it may be tried again.
    pub fn prepare(&self) -> Result<(), WalError> {
        self.supply.reserve(1)
    }

    pub(super) fn new(supply: Arc<Supply>) -> Self {
        SegmentPreparer { supply }
    }
}

/// The segments that were made and not yet used. Shared by the log and its preparers.
pub(super) struct Supply {
    files: Arc<dyn Files>,
    capacity: u64,
    shelf: Mutex<Shelf>,
    /// Told when nobody makes a segment any more.
    idle: Condvar,
}

struct Shelf {
    ready: VecDeque<PreparedSegment>,
    next_segment: u64,
    making: bool,
}

impl Supply {
    pub(super) fn new(files: Arc<dyn Files>, capacity: u64, next_segment: u64) -> Self {
        let shelf = Mutex::new(Shelf { ready: VecDeque::new(), next_segment, making: false });
        Supply { files, capacity, shelf, idle: Condvar::new() }
    }

    /// Bytes of the segments that it makes, but for a log's first.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// True when no segment waits and none is being made.
    pub(super) fn is_wanting(&self) -> bool {
        let shelf = self.shelf.lock();
        shelf.ready.is_empty() && !shelf.making
    }

    /// Segments that wait.
    pub(super) fn ready(&self) -> usize {
        self.shelf.lock().ready.len()
    }

    /// Makes segments until that many wait.
    pub(super) fn reserve(&self, count: usize) -> Result<(), WalError> {
        self.lock_stocked(count).map(drop)
    }

    /// Takes the next segment, making it if need be.
    pub(super) fn take(&self) -> Result<PreparedSegment, WalError> {
        let mut shelf = self.lock_stocked(1)?;
        Ok(shelf.ready.pop_front().expect("invariant: a stocked shelf has a segment"))
    }

    fn lock_stocked(&self, count: usize) -> Result<MutexGuard<'_, Shelf>, WalError> {
        let mut shelf = self.shelf.lock();
        loop {
            if shelf.ready.len() >= count {
                return Ok(shelf);
            }
            if shelf.making {
                self.idle.wait(&mut shelf);
                continue;
            }
            shelf.making = true;
            let segment = shelf.next_segment;
            // The log must be able to take a waiting segment while the next one is written.
            let made = MutexGuard::unlocked(&mut shelf, || self.make(segment));
            shelf.making = false;
            self.idle.notify_all();
            shelf.ready.push_back(made?);
            shelf.next_segment += 1;
        }
    }

    fn make(&self, segment: u64) -> Result<PreparedSegment, WalError> {
        self.write_zeros(segment).map_err(|error| {
            // Gives the room back. If even that fails, the next attempt begins with it.
            let _ = self.files.remove(&prepared_path(segment));
            error.with_disk_full()
        })
    }

    fn write_zeros(&self, segment: u64) -> Result<PreparedSegment, WalError> {
        let capacity = match segment {
            1 => self.capacity.min(FIRST_SEGMENT_BYTES_MAX),
            _ => self.capacity,
        };
        let file = self.create(segment).map_err(WalError::io("create", segment))?;
        fill(file.as_ref(), capacity).map_err(WalError::io("fill", segment))?;
        file.sync_data().map_err(WalError::io("sync", segment))?;
        self.files.sync_folder(FOLDER).map_err(WalError::io("sync the folder of", segment))?;
        Ok(PreparedSegment { segment, capacity, file })
    }

    fn create(&self, segment: u64) -> io::Result<Box<dyn FileHandle>> {
        let path = prepared_path(segment);
        match self.files.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.files.remove(&path)?;
                self.files.create(&path)
            }
            created => created,
        }
    }
}

fn fill(file: &dyn FileHandle, capacity: u64) -> io::Result<()> {
    let zeros = vec![0; FILL_CHUNK_BYTES.min(usize::try_from(capacity).unwrap_or(usize::MAX))];
    let mut offset = 0;
    while offset < capacity {
        let bytes = (capacity - offset).min(zeros.len() as u64);
        let chunk = usize::try_from(bytes).expect("invariant: a chunk fits into memory");
        file.write_at(offset, &zeros[..chunk])?;
        offset += bytes;
    }
    Ok(())
}
