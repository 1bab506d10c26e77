//! A disk that remembers what was synced and may forget the rest.
//!
//! Every file has the bytes that reads see and the bytes that a power loss leaves. A write, a
//! change of length or a change of names reaches the second only by a sync, or by luck: a power
//! loss keeps any subset of the unsynced pages, and a prefix of the unsynced changes of names.
//! (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014.)

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use coterie::storage::files::{FileHandle, Files};
use parking_lot::Mutex;

use crate::dice::Dice;

#[cfg(test)]
mod tests;

/// What the page cache writes back as a whole.
const PAGE_BYTES: u64 = 4096;

/// What the device writes as a whole; a torn page ends at one of these.
const SECTOR_BYTES: u64 = 512;

/// What an empty disk reports as free.
const FREE_BYTES: u64 = 1 << 40;

/// How much of what was not synced outlives the end of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// The process died, the machine did not: everything written is there.
    Everything,
    /// The power went: each unsynced page stays with this chance, in a thousandth.
    Pages(u64),
}

/// The disk of one machine; it outlives its nodes.
#[derive(Default)]
pub(crate) struct SimDisk {
    contents: Mutex<Contents>,
}

#[derive(Clone, Default)]
struct Contents {
    /// Handles of an earlier life fail.
    life: u64,
    next_file: u64,
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    faults: DiskFaults,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskFaults {
    /// No room: writes that extend a file fail with `ENOSPC`.
    pub(crate) full: bool,
    /// The next sync fails with `EIO` and loses what it should have kept.
    pub(crate) next_sync_fails: bool,
    /// Syncs of data report success and do nothing: a planted bug.
    pub(crate) syncs_lie: bool,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<ByteChange>,
}

#[derive(Clone)]
enum ByteChange {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen { bytes: u64 },
}

#[derive(Clone)]
enum NameChange {
    Create { name: String, file: u64 },
    Remove { name: String },
    Rename { from: String, to: String },
}

impl SimDisk {
    pub(crate) fn new() -> Arc<SimDisk> {
        Arc::default()
    }

    /// The directory as one life of a node sees it.
    pub(crate) fn mount(self: &Arc<Self>) -> Arc<dyn Files> {
        let life = self.contents.lock().life;
        Arc::new(Mount { disk: self.clone(), life })
    }

    /// Ends the life of the node above: what was not synced stays or goes as `survival` says.
    pub(crate) fn crash(&self, survival: Survival, dice: &mut Dice) {
        let mut contents = self.contents.lock();
        contents.life += 1;
        contents.settle_names(survival, dice);
        let kept: Vec<u64> = contents.names.values().copied().collect();
        contents.files.retain(|file, _| kept.contains(file));
        contents.files.values_mut().for_each(|file| file.crash(survival, dice));
    }

    /// Makes this disk as another one is; no node may be above it.
    pub(crate) fn copy_from(&self, other: &SimDisk) {
        let copied = other.contents.lock().clone();
        let mut contents = self.contents.lock();
        let life = contents.life + 1;
        *contents = Contents { life, ..copied };
    }

    /// Changes what is wrong with the disk.
    pub(crate) fn set_faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.contents.lock().faults);
    }
}

impl Contents {
    fn settle_names(&mut self, survival: Survival, dice: &mut Dice) {
        let changes = std::mem::take(&mut self.unsynced_names);
        let kept = match survival {
            Survival::Everything => changes.len(),
            Survival::Pages(0) => 0,
            Survival::Pages(_) => dice.index(changes.len() + 1),
        };
        changes.iter().take(kept).for_each(|change| change.apply(&mut self.synced_names));
        self.names = self.synced_names.clone();
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn file_named(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no file {name} on this disk"))
        })
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            NameChange::Remove { name } => {
                names.remove(name);
            }
            NameChange::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    fn touches(&self, folder: &str) -> bool {
        match self {
            NameChange::Create { name, .. } | NameChange::Remove { name } => within(name, folder),
            NameChange::Rename { from, to } => within(from, folder) || within(to, folder),
        }
    }
}

/// A folder's own files; the top of the directory is the folder with the empty name.
fn within(name: &str, folder: &str) -> bool {
    name.rsplit_once('/').map_or("", |(parent, _)| parent) == folder
}

impl File {
    fn change(&mut self, change: ByteChange) {
        change.apply(&mut self.bytes);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        let changes = std::mem::take(&mut self.unsynced);
        changes.iter().for_each(|change| change.apply(&mut self.synced));
    }

    fn crash(&mut self, survival: Survival, dice: &mut Dice) {
        match survival {
            Survival::Everything => self.sync(),
            Survival::Pages(per_mille) => {
                for change in std::mem::take(&mut self.unsynced) {
                    change.apply_by_luck(&mut self.synced, per_mille, dice);
                }
            }
        }
        self.bytes = self.synced.clone();
    }
}

impl ByteChange {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            ByteChange::SetLen { bytes } => to.resize(position(*bytes), 0),
            ByteChange::Write { offset, bytes } => put(to, *offset, bytes),
        }
    }

    fn apply_by_luck(&self, to: &mut Vec<u8>, per_mille: u64, dice: &mut Dice) {
        match self {
            ByteChange::SetLen { .. } => {
                if dice.chance(per_mille) {
                    self.apply(to);
                }
            }
            ByteChange::Write { offset, bytes } => {
                for (page_offset, page) in pages(*offset, bytes) {
                    let kept = kept_of_page(page, per_mille, dice);
                    put(to, page_offset, &page[..kept]);
                }
            }
        }
    }
}

/// How many bytes of an unsynced page stay: all, none, or the sectors before a tear.
fn kept_of_page(page: &[u8], per_mille: u64, dice: &mut Dice) -> usize {
    const TORN_PER_MILLE: u64 = 100;
    if !dice.chance(per_mille) {
        return 0;
    }
    if !dice.chance(TORN_PER_MILLE) {
        return page.len();
    }
    let sectors = dice.between(0, PAGE_BYTES / SECTOR_BYTES);
    page.len().min(position(sectors * SECTOR_BYTES))
}

/// A write cut at the borders of pages.
fn pages(offset: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let (mut at, mut rest, mut cut) = (offset, bytes, Vec::new());
    while !rest.is_empty() {
        let room = position(PAGE_BYTES - at % PAGE_BYTES);
        let (page, after) = rest.split_at(room.min(rest.len()));
        cut.push((at, page));
        at += page.len() as u64;
        rest = after;
    }
    cut
}

fn put(to: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, until) = (position(offset), position(offset) + bytes.len());
    if bytes.is_empty() {
        return;
    }
    if to.len() < until {
        to.resize(until, 0);
    }
    to[from..until].copy_from_slice(bytes);
}

fn position(bytes: u64) -> usize {
    usize::try_from(bytes).expect("simulated files fit in memory")
}

/// The disk under one life of a node.
struct Mount {
    disk: Arc<SimDisk>,
    life: u64,
}

impl Mount {
    fn with<T>(&self, act: impl FnOnce(&mut Contents) -> io::Result<T>) -> io::Result<T> {
        let mut contents = self.disk.contents.lock();
        if contents.life != self.life {
            return Err(io::Error::other("this life of the machine has ended"));
        }
        act(&mut contents)
    }

    fn handle(&self, file: u64) -> Box<dyn FileHandle> {
        Box::new(Handle { mount: Mount { disk: self.disk.clone(), life: self.life }, file })
    }
}

impl Files for Mount {
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.with(|contents| {
            let inside = contents.names.keys().filter(|name| within(name, folder));
            Ok(inside.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
        })
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn FileHandle>> {
        self.with(|contents| contents.file_named(name)).map(|file| self.handle(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn FileHandle>> {
        let file = self.with(|contents| {
            refuse_when_full(contents)?;
            if contents.names.contains_key(name) {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, name.to_owned()));
            }
            contents.next_file += 1;
            let file = contents.next_file;
            contents.files.insert(file, File::default());
            contents.change_names(NameChange::Create { name: name.to_owned(), file });
            Ok(file)
        })?;
        Ok(self.handle(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|contents| {
            contents.file_named(name)?;
            contents.change_names(NameChange::Remove { name: name.to_owned() });
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|contents| {
            contents.file_named(from)?;
            let change = NameChange::Rename { from: from.to_owned(), to: to.to_owned() };
            contents.change_names(change);
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.with(|contents| {
            let changes = std::mem::take(&mut contents.unsynced_names);
            let (synced, unsynced) = changes.into_iter().partition(|change| change.touches(folder));
            let _: &Vec<NameChange> = &synced;
            synced.iter().for_each(|change| change.apply(&mut contents.synced_names));
            contents.unsynced_names = unsynced;
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.with(|contents| Ok(if contents.faults.full { 0 } else { FREE_BYTES }))
    }
}

fn refuse_when_full(contents: &Contents) -> io::Result<()> {
    if contents.faults.full {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated disk is full"));
    }
    Ok(())
}

/// An open file of one life of a node.
struct Handle {
    mount: Mount,
    file: u64,
}

impl Handle {
    fn with<T>(
        &self,
        act: impl FnOnce(&mut File, &mut DiskFaults) -> io::Result<T>,
    ) -> io::Result<T> {
        self.mount.with(|contents| {
            // A file that was removed stays readable and writable through its handle.
            let file = contents.files.entry(self.file).or_default();
            act(file, &mut contents.faults)
        })
    }
}

impl FileHandle for Handle {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|file, _| {
            let from = position(offset).min(file.bytes.len());
            let len = buffer.len().min(file.bytes.len() - from);
            buffer[..len].copy_from_slice(&file.bytes[from..from + len]);
            Ok(len)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|file, faults| {
            let extends = position(offset) + bytes.len() > file.bytes.len();
            if faults.full && extends {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated disk is full"));
            }
            file.change(ByteChange::Write { offset, bytes: bytes.to_vec() });
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|file, faults| {
            if std::mem::take(&mut faults.next_sync_fails) {
                // As Linux does: the pages count as clean, and what they held is never written.
                file.unsynced.clear();
                return Err(io::Error::other("simulated EIO"));
            }
            if !faults.syncs_lie {
                file.sync();
            }
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|file, _| Ok(file.bytes.len() as u64))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(|file, faults| {
            if faults.full && position(bytes) > file.bytes.len() {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated disk is full"));
            }
            file.change(ByteChange::SetLen { bytes });
            Ok(())
        })
    }
}
