//! A disk in memory for tests: counts and fails operations, runs full, loses power.
//!
//! After a power loss each page of a file is either as last synced or as last written, at random;
//! the names are either as last synced or as they were.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::storage::files::{FileHandle, Files};

/// Small, so that a few small frames span several pages.
const PAGE_BYTES: usize = 64;

/// Something that changes the disk, and so can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create,
    Write,
    Sync,
    SetLen,
    Remove,
    Rename,
    SyncFolder,
}

/// A disk in memory. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct MemoryFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    names: BTreeMap<String, FileId>,
    durable_names: BTreeMap<String, FileId>,
    contents: BTreeMap<FileId, Content>,
    next_file: u64,
    bytes_max: Option<usize>,
    fault: Option<Fault>,
    operations: u64,
    /// After this many operations none succeeds any more.
    crash_after: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FileId(u64);

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Fault {
    op: Op,
    /// How many of the kind still succeed.
    passes: u64,
    kind: ErrorKind,
}

impl MemoryFiles {
    /// Lets `passes` operations of a kind succeed and fails the one after, once.
    pub(crate) fn fail(&self, op: Op, passes: u64, kind: ErrorKind) {
        self.disk.lock().fault = Some(Fault { op, passes, kind });
    }

    /// Bounds the bytes of all files together; `None` lifts the bound.
    pub(crate) fn limit_bytes(&self, bytes_max: Option<usize>) {
        self.disk.lock().bytes_max = bytes_max;
    }

    /// Lets `operations` more succeed; the next one is done by half and from then on all fail.
    pub(crate) fn crash_after(&self, operations: u64) {
        let mut disk = self.disk.lock();
        disk.crash_after = Some(disk.operations + operations);
    }

    /// Ends the crash without a loss of power: the process was killed and its writes are all there.
    pub(crate) fn restart(&self) {
        self.disk.lock().crash_after = None;
    }

    /// The disk as it may be found after the power went.
    pub(crate) fn power_loss(&self, seed: u64) -> MemoryFiles {
        let disk = self.disk.lock();
        let mut rng = StdRng::seed_from_u64(seed);
        let names = if rng.random_bool(0.5) { &disk.names } else { &disk.durable_names };
        let after = MemoryFiles::default();
        for (name, id) in names {
            after.put(name, disk.contents[id].after_power_loss(&mut rng));
        }
        after
    }

    /// A disk with the same files that shares nothing with this one.
    pub(crate) fn copy(&self) -> MemoryFiles {
        let after = MemoryFiles::default();
        for name in self.names() {
            after.put(&name, self.bytes(&name));
        }
        after
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.disk.lock().names.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let disk = self.disk.lock();
        disk.contents[&disk.names[name]].bytes.clone()
    }

    /// Sets a file's bytes, durably.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.disk.lock();
        let id = disk.add(name);
        disk.durable_names.insert(name.to_owned(), id);
        disk.contents.insert(id, Content { durable: bytes.clone(), bytes });
    }

    /// Changes a file's bytes, durably.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(name);
        change(&mut bytes);
        self.put(name, bytes);
    }
}

impl Content {
    fn after_power_loss(&self, rng: &mut StdRng) -> Vec<u8> {
        let len = if rng.random_bool(0.5) { self.bytes.len() } else { self.durable.len() };
        let mut after = self.bytes.clone();
        after.resize(len, 0);
        let mut durable = self.durable.clone();
        durable.resize(len, 0);
        for (page, old) in after.chunks_mut(PAGE_BYTES).zip(durable.chunks(PAGE_BYTES)) {
            if rng.random_bool(0.5) {
                page.copy_from_slice(old);
            }
        }
        after
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }
}

impl Disk {
    fn add(&mut self, name: &str) -> FileId {
        self.next_file += 1;
        let id = FileId(self.next_file);
        self.names.insert(name.to_owned(), id);
        self.contents.insert(id, Content::default());
        id
    }

    /// Counts an operation; fails it if it was to fail.
    fn enter(&mut self, op: Op) -> io::Result<()> {
        self.operations += 1;
        if self.crash_after.is_some_and(|last| self.operations > last) {
            return Err(io::Error::other("the machine is off"));
        }
        match &mut self.fault {
            Some(fault) if fault.op == op && fault.passes == 0 => {
                let kind = fault.kind;
                self.fault = None;
                Err(kind.into())
            }
            Some(fault) if fault.op == op => {
                fault.passes -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// True when the machine has just gone off and the last operation may be half done.
    fn just_crashed(&self) -> bool {
        self.crash_after.is_some_and(|last| self.operations == last + 1)
    }

    fn used_bytes(&self) -> usize {
        self.names.values().map(|id| self.contents[id].bytes.len()).sum()
    }

    fn refuse_growth(&self, id: FileId, end: usize) -> io::Result<()> {
        let growth = end.saturating_sub(self.contents[&id].bytes.len());
        match self.bytes_max {
            Some(max) if growth > 0 && self.used_bytes() + growth > max => {
                Err(ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn id(&self, name: &str) -> io::Result<FileId> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

struct MemoryFile {
    disk: Arc<Mutex<Disk>>,
    id: FileId,
}

impl MemoryFile {
    fn with<T>(&self, work: impl FnOnce(&mut Content) -> T) -> T {
        work(self.disk.lock().contents.get_mut(&self.id).unwrap())
    }
}

impl FileHandle for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let offset = usize::try_from(offset).unwrap();
        self.with(|content| {
            let rest = content.bytes.get(offset..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let mut disk = self.disk.lock();
        disk.refuse_growth(self.id, offset + bytes.len())?;
        let result = disk.enter(Op::Write);
        // A write that fails may have been done in part.
        let done = match &result {
            Ok(()) => bytes.len(),
            Err(_) if disk.crash_after.is_none() || disk.just_crashed() => bytes.len() / 2,
            Err(_) => 0,
        };
        disk.contents.get_mut(&self.id).unwrap().write(offset, &bytes[..done]);
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.lock().enter(Op::Sync)?;
        self.with(|content| content.durable = content.bytes.clone());
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|content| content.bytes.len() as u64))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap();
        let mut disk = self.disk.lock();
        disk.enter(Op::SetLen)?;
        disk.contents.get_mut(&self.id).unwrap().bytes.resize(bytes, 0);
        Ok(())
    }
}

fn folder_of(name: &str) -> &str {
    name.split_once('/').map_or("", |(folder, _)| folder)
}

impl Files for MemoryFiles {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let names = self.names().into_iter().filter(|name| folder_of(name) == folder);
        Ok(names.map(|name| name.rsplit('/').next().unwrap().to_owned()).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn FileHandle>> {
        let id = self.disk.lock().id(name)?;
        Ok(Box::new(MemoryFile { disk: Arc::clone(&self.disk), id }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn FileHandle>> {
        let mut disk = self.disk.lock();
        disk.enter(Op::Create)?;
        if disk.id(name).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = disk.add(name);
        Ok(Box::new(MemoryFile { disk: Arc::clone(&self.disk), id }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.enter(Op::Remove)?;
        disk.id(name)?;
        disk.names.remove(name);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.enter(Op::Rename)?;
        let id = disk.id(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.enter(Op::SyncFolder)?;
        disk.durable_names.retain(|name, _| folder_of(name) != folder);
        let current = disk.names.clone();
        let durable = current.into_iter().filter(|(name, _)| folder_of(name) == folder);
        disk.durable_names.extend(durable);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = self.disk.lock();
        let max = disk.bytes_max.unwrap_or(usize::MAX);
        Ok(max.saturating_sub(disk.used_bytes()) as u64)
    }
}

/// Runs a test for many seeds; a failure names the seed and how to run it alone.
pub(crate) fn for_seeds(test: &str, count: u64, run: impl Fn(u64)) {
    struct Named<'a>(&'a str, u64);
    impl Drop for Named<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("replay: COTERIE_SEED={} cargo test --lib {}", self.1, self.0);
            }
        }
    }
    let only = std::env::var("COTERIE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let _named = Named(test, seed);
        run(seed);
    }
}
