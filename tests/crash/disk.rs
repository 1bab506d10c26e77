//! The disk that forgets, fails or fills up (`power_loss.c`), and copies of data directories.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::dice::Dice;
use crate::harness::NodeSpec;

/// The unit in which a file is durable.
const PAGE_BYTES: usize = 4096;

/// The disk under one node.
pub(crate) struct Disk {
    /// What the node has written.
    pub(crate) data: PathBuf,
    /// What of it was synced.
    image: PathBuf,
    faults: PathBuf,
    _root: TempDir,
}

impl Disk {
    /// Puts a node's data directory on such a disk. With `forgets` it keeps an image of what was
    /// synced, which [`Disk::power_up`] and the two kinds of power loss deal with.
    pub(crate) fn under(spec: &mut NodeSpec, forgets: bool) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let disk = Disk {
            data: spec.data_dir.clone(),
            image: root.path().join("image"),
            faults: root.path().join("faults"),
            _root: root,
        };
        fs::create_dir(&disk.faults).expect("a directory for faults");
        fs::create_dir_all(&disk.data).expect("a data directory");
        let mut set = |name: &str, value: &Path| {
            spec.environment.push((name.to_owned(), value.display().to_string()));
        };
        set("LD_PRELOAD", library());
        set("POWER_LOSS_DIR", &disk.data);
        set("POWER_LOSS_FAULTS", &disk.faults);
        if forgets {
            set("POWER_LOSS_IMAGE", &disk.image);
        }
        disk
    }

    /// Gives the disk an order, such as `eio` and `sync wal/` (see the C file).
    pub(crate) fn order(&self, name: &str, what: &str) {
        let draft = self.faults.join("draft");
        fs::write(&draft, what).expect("an order");
        fs::rename(draft, self.faults.join(name)).expect("an order");
    }

    /// Takes an order back.
    pub(crate) fn rescind(&self, name: &str) {
        fs::remove_file(self.faults.join(name)).expect("an order");
    }

    /// Everything that is there is durable: the image is a copy of it.
    pub(crate) fn power_up(&self) {
        replace_tree(&self.data, &self.image);
    }

    /// Only what was synced remains.
    pub(crate) fn lose_power(&self) {
        fs::remove_dir_all(&self.data).expect("a data directory");
        fs::rename(&self.image, &self.data).expect("an image");
    }

    /// Of what was not synced, a random part remains, page by page. Returns how many pages and
    /// sizes differed.
    pub(crate) fn lose_power_partly(&self, dice: &mut Dice) -> usize {
        let differences = self.mix(&self.data, &self.image, dice);
        self.lose_power();
        differences
    }

    /// Pages and sizes that would not survive a power loss now.
    pub(crate) fn unsynced(&self) -> usize {
        let mut differences = 0;
        for name in names(&self.image) {
            if let Some((live, kept)) = self.both(&name) {
                let pages = live.len().max(kept.len()).div_ceil(PAGE_BYTES);
                let differs = |at: &usize| page(&live, *at) != page(&kept, *at);
                differences += (0..pages).filter(differs).count();
            }
        }
        differences
    }

    fn mix(&self, _live: &Path, image: &Path, dice: &mut Dice) -> usize {
        let mut differences = 0;
        for name in names(image) {
            let Some((live, kept)) = self.both(&name) else { continue };
            let file = File::options().write(true).open(image.join(&name)).expect("an image file");
            let (low, high) = (live.len().min(kept.len()), live.len().max(kept.len()));
            let size = dice.pick(&[low, high, low + dice.clone().index(high - low + 1)]);
            file.set_len(size as u64).expect("a size");
            differences += usize::from(low != high);
            for at in 0..size.div_ceil(PAGE_BYTES) {
                let (ours, theirs) = (page(&live, at), page(&kept, at));
                if ours == theirs {
                    continue;
                }
                differences += 1;
                if dice.chance(500) {
                    write_page(&file, at, ours, size);
                }
            }
        }
        differences
    }

    /// What is in a file and what was synced of it; none when the kill came between the two.
    fn both(&self, name: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
        let live = fs::read(self.data.join(name)).ok()?;
        Some((live, fs::read(self.image.join(name)).expect("an image file")))
    }
}

/// A page, up to the file's end.
fn page(bytes: &[u8], at: usize) -> &[u8] {
    let begin = (at * PAGE_BYTES).min(bytes.len());
    &bytes[begin..(begin + PAGE_BYTES).min(bytes.len())]
}

/// Puts a page into a file of that size; what the page lacks of it is zeros.
fn write_page(file: &File, at: usize, bytes: &[u8], size: usize) {
    let begin = at * PAGE_BYTES;
    let mut whole = bytes.to_vec();
    whole.resize(PAGE_BYTES.min(size - begin), 0);
    file.write_all_at(&whole, begin as u64).expect("a page");
}

/// Files below a directory, relative to it, sorted.
pub(crate) fn names(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(dir.join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = folder.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                folders.push(name);
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// Makes one directory a copy of another.
pub(crate) fn replace_tree(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("an old copy");
    }
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "cannot copy {} to {}", from.display(), to.display());
}

/// The C file, compiled once per process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/power_loss.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let draft = folder.join(format!("power_loss.{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]);
        compiler.arg(&draft).arg(source).args(["-ldl", "-lpthread"]);
        let compiled = compiler.status().expect("these tests need a C compiler named cc");
        assert!(compiled.success(), "power_loss.c does not compile");
        let library = folder.join("power_loss.so");
        fs::rename(&draft, &library).expect("a library");
        library
    })
}

/// Set for the child that the test of the disk starts: the directory that it writes to.
const CHILD_DIR: &str = "COTERIE_CRASH_DISK_CHILD";

/// What the disk promises, in the smallest steps, so that the tests above it can be believed.
#[test]
fn the_disk_forgets_what_was_not_synced_and_fails_as_ordered() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut spec = NodeSpec::new(root.path(), "child", &[]);
    let disk = Disk::under(&mut spec, true);
    fs::write(disk.data.join("old"), "before").expect("a file");
    disk.power_up();
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["disk::child_of_the_test_of_the_disk", "--exact", "--ignored", "--nocapture"])
        .envs(spec.environment.iter().map(|(name, value)| (name, value)))
        .env(CHILD_DIR, &disk.data)
        .env("COTERIE_CRASH_FAULTS", &disk.faults)
        .status()
        .expect("a child");
    assert!(child.success(), "the child failed");
    assert!(disk.unsynced() > 0);
    disk.lose_power();
    let kept = |name: &str| fs::read(disk.data.join(name)).ok();
    assert_eq!(kept("synced"), Some(b"durable".to_vec()));
    assert_eq!(kept("unsynced"), Some(Vec::new()), "the name lasts, the bytes don't");
    assert_eq!(kept("renamed"), Some(b"moved".to_vec()));
    assert_eq!(kept("old"), Some(b"before".to_vec()), "what was overwritten is back");
    assert_eq!(kept("removed"), None);
    let mut cut = vec![b'a'; 10];
    cut.resize(3 * PAGE_BYTES, 0);
    assert_eq!(kept("cut"), Some(cut), "what was cut off does not come back");
    assert_eq!(kept("duplicated"), Some(b"by another descriptor".to_vec()));
}

#[test]
#[ignore = "the test of the disk runs it, with the library preloaded"]
fn child_of_the_test_of_the_disk() {
    let dir = PathBuf::from(std::env::var(CHILD_DIR).expect("set by the test"));
    let create = |name: &str| File::create_new(dir.join(name)).expect("a new file");
    let write = |file: &File, text: &str| file.write_all_at(text.as_bytes(), 0).expect("written");
    let synced = create("synced");
    write(&synced, "durable");
    synced.sync_data().expect("synced");
    write(&synced, "changed");
    write(&create("unsynced"), "lost");
    let old = File::options().write(true).open(dir.join("old")).expect("the old file");
    write(&old, "after!");
    let moved = create("moved");
    write(&moved, "moved");
    moved.sync_all().expect("synced");
    fs::rename(dir.join("moved"), dir.join("renamed")).expect("renamed");
    create("removed").sync_all().expect("synced");
    fs::remove_file(dir.join("removed")).expect("removed");
    let cut = create("cut");
    write(&cut, &"a".repeat(3 * PAGE_BYTES));
    cut.sync_data().expect("synced");
    cut.set_len(10).expect("cut");
    cut.set_len(3 * PAGE_BYTES as u64).expect("grown");
    cut.sync_data().expect("synced");
    let duplicated = create("duplicated");
    write(&duplicated.try_clone().expect("a second descriptor"), "by another descriptor");
    duplicated.sync_data().expect("synced");
    check_faults(&dir, &PathBuf::from(std::env::var("COTERIE_CRASH_FAULTS").expect("set")));
}

fn check_faults(dir: &Path, faults: &Path) {
    let file = File::create_new(dir.join("faulty")).expect("a new file");
    let error = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    fs::write(faults.join("eio"), "sync faulty").expect("an order");
    assert_eq!(error(file.sync_data()), Some(5));
    assert_eq!(error(file.write_all_at(b"a", 0)), None);
    fs::write(faults.join("eio"), "write faulty").expect("an order");
    assert_eq!(error(file.write_all_at(b"a", 0)), Some(5));
    fs::remove_file(faults.join("eio")).expect("an order");
    fs::write(faults.join("size"), "1").expect("an order");
    assert_eq!(error(file.write_all_at(b"a", 0)), None, "no growth, no room needed");
    assert_eq!(error(file.write_all_at(&[1; 2 * PAGE_BYTES], 0)), Some(28));
    fs::remove_file(faults.join("size")).expect("an order");
    let mut byte = [0];
    File::open(dir.join("faulty")).expect("it opens").read_exact(&mut byte).expect("one byte");
    assert_eq!(byte, *b"a");
}
