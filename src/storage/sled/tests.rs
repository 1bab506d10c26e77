//! What only the engine on files must do: the conformance suite is shared with the other engine.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::storage::engine::conformance::{Harness, conformance_tests, value_of};

const CACHE_BYTES: u64 = 8 * 1024 * 1024;
const KEYSPACE: KeyspaceId = KeyspaceId(5);
const PARTITION: PartitionId = PartitionId(7);

struct Files {
    dir: TempDir,
    engine: Option<SledEngine>,
}

impl Files {
    fn path(&self) -> PathBuf {
        self.dir.path().join("engine")
    }

    fn sled(&self) -> &SledEngine {
        self.engine.as_ref().unwrap()
    }

    fn stop(&mut self) {
        self.engine = None;
    }

    fn open(&mut self) -> Option<Quarantine> {
        let opened = SledEngine::open(&self.path(), CACHE_BYTES).unwrap();
        self.engine = Some(opened.engine);
        opened.quarantined
    }
}

impl Harness for Files {
    fn start() -> Self {
        let mut files = Files { dir: tempfile::tempdir().unwrap(), engine: None };
        assert_eq!(files.open(), None);
        files
    }

    fn engine(&self) -> &dyn Engine {
        self.sled()
    }

    /// Opens a copy of the files as they are while the engine runs: what `kill -9` leaves.
    fn crash(&mut self) {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&self.path(), &copy.path().join("engine"));
        self.engine = None;
        self.dir = copy;
        assert_eq!(self.open(), None);
    }
}

conformance_tests!(Files);

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn put(key: &str, value: Bytes) -> Change {
    Change { keyspace: KEYSPACE, partition: PARTITION, key: Key::from(key), value: Some(value) }
}

fn start_with_rows() -> Files {
    let files = Files::start();
    files.sled().create_keyspace(KEYSPACE).unwrap();
    let batch: Vec<Change> = (0..500).map(|n| put(&format!("{n:03}"), value_of(n, 100))).collect();
    files.sled().apply(&batch, Lsn(500)).unwrap();
    files.sled().checkpoint().unwrap();
    files
}

fn chunks_left(engine: &SledEngine) -> usize {
    engine.keyspaces.read()[&KEYSPACE].chunks.len()
}

#[test]
fn a_clean_stop_loses_nothing() {
    let mut files = start_with_rows();
    files.sled().apply(&[put("later", value_of(1, 10))], Lsn(501)).unwrap();
    for _ in 0..3 {
        files.stop();
        assert_eq!(files.open(), None);
        assert_eq!(files.sled().applied_lsn(), Lsn(501));
        let held = files.sled().get(KEYSPACE, PARTITION, &Key::from("later")).unwrap();
        assert_eq!(held, Some(value_of(1, 10)));
    }
}

#[test]
fn damage_met_while_running_has_the_directory_set_aside_at_the_next_opening() {
    let mut files = start_with_rows();
    let failed = EngineError::Failed { during: "flushed", detail: "no room".to_owned() };
    assert!(files.sled().noting::<()>(Err(failed)).is_err());
    files.stop();
    assert_eq!(files.open(), None, "a failure is no damage");
    let damaged = EngineError::Damaged { detail: "page 7 is gone".to_owned() };
    assert!(files.sled().noting::<()>(Err(damaged)).is_err());
    files.stop();
    let quarantine = files.open().expect("a quarantine");
    assert!(quarantine.reason.contains("page 7 is gone"), "{}", quarantine.reason);
    assert_eq!(files.sled().applied_lsn(), Lsn(0));
    files.stop();
    assert_eq!(files.open(), None, "the new directory is sound");
}

#[test]
fn a_second_opener_is_refused_and_nothing_is_set_aside() {
    let files = start_with_rows();
    let error = SledEngine::open(&files.path(), CACHE_BYTES).err().unwrap();
    assert!(matches!(error, EngineError::Failed { .. }), "{error}");
    assert!(files.sled().get(KEYSPACE, PARTITION, &Key::from("007")).unwrap().is_some());
    assert_eq!(fs::read_dir(files.dir.path()).unwrap().count(), 1, "a quarantine was made");
}

#[test]
fn a_checkpoint_reaches_fdatasync() {
    let files = start_with_rows();
    files.sled().apply(&[put("more", value_of(1, 10))], Lsn(501)).unwrap();
    let before = durability::calls();
    files.sled().checkpoint().unwrap();
    assert!(!cfg!(target_os = "linux") || durability::calls() > before);
    assert!(files.sled().stats().disk_bytes > 0);
}

#[test]
fn an_engine_that_lost_its_tail_is_set_aside() {
    let mut files = start_with_rows();
    files.stop();
    CheckpointMark::in_dir(&files.path()).write(Lsn(501)).unwrap();
    let quarantine = files.open().unwrap();
    assert!(quarantine.reason.contains("LSN 501"), "{}", quarantine.reason);
    assert_eq!(quarantine.path, files.dir.path().join("engine.quarantined-1"));
    assert!(quarantine.path.join("db").exists());
    assert_eq!(files.sled().applied_lsn(), Lsn(0));
    files.stop();
    CheckpointMark::in_dir(&files.path()).write(Lsn(1)).unwrap();
    let second = files.open().unwrap();
    assert_eq!(second.path, files.dir.path().join("engine.quarantined-2"));
}

#[test]
fn emptied_and_deleted_files_are_set_aside() {
    for damage in
        [|db: &Path| fs::write(db, b"").unwrap(), |db: &Path| fs::remove_file(db).unwrap()]
    {
        let mut files = start_with_rows();
        files.stop();
        damage(&files.path().join("db"));
        assert!(files.open().is_some());
        files.sled().create_keyspace(KEYSPACE).unwrap();
        assert_eq!(files.sled().get(KEYSPACE, PARTITION, &Key::from("007")).unwrap(), None);
    }
}

/// sled took the leftover for the newest snapshot, found it empty, and called all of it corrupt.
#[test]
fn what_a_crash_left_of_a_snapshot_costs_no_rows() {
    for leftover in [&b""[..], b"begun"] {
        let mut files = start_with_rows();
        files.stop();
        let path = files.path().join("snap.00000000FFFFFFFF.generating");
        fs::write(&path, leftover).unwrap();
        assert_eq!(files.open(), None);
        assert!(files.sled().get(KEYSPACE, PARTITION, &Key::from("007")).unwrap().is_some());
        assert!(!path.exists());
    }
}

#[test]
fn a_later_format_is_refused_and_not_set_aside() {
    let mut files = start_with_rows();
    let later = (layout::FORMAT + 1).to_be_bytes();
    files.sled().meta.insert(layout::FORMAT_KEY, &later).unwrap();
    files.stop();
    let error = SledEngine::open(&files.path(), CACHE_BYTES).err().unwrap();
    assert!(error.to_string().contains("format 2 is unknown"), "{error}");
    assert_eq!(fs::read_dir(files.dir.path()).unwrap().count(), 1, "a quarantine was made");
}

#[test]
fn after_a_failed_write_all_later_ones_are_refused() {
    let files = start_with_rows();
    let broken: Result<(), _> = files.sled().changing("tried", || panic!("as sled does"));
    assert!(matches!(broken, Err(EngineError::Damaged { .. })));
    let refused = [
        files.sled().apply(&[put("k", value_of(1, 1))], Lsn(999)),
        files.sled().checkpoint(),
        files.sled().create_keyspace(KeyspaceId(77)),
        files.sled().delete_partition(KEYSPACE, PARTITION, 1).map(drop),
    ];
    assert!(refused.iter().all(|outcome| matches!(outcome, Err(EngineError::Failed { .. }))));
    assert!(files.sled().get(KEYSPACE, PARTITION, &Key::from("007")).unwrap().is_some());
}

/// sled itself leaves some of those waiting who wait for a page whose write fails: without a nudge,
/// in about half of such rounds.
#[test]
#[cfg(target_os = "linux")]
fn whoever_waits_for_a_write_that_fails_is_told() {
    for _ in 0..4 {
        read_and_write_until_syncs_fail();
    }
}

/// From now on syncs of this open file of the process fail.
#[cfg(target_os = "linux")]
fn fail_syncs_of(path: &Path) {
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let mut found = open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|it| it == path));
    let number = found.next().unwrap().file_name().to_str().unwrap().parse().unwrap();
    durability::FAILING.store(number, Ordering::Relaxed);
}

#[cfg(target_os = "linux")]
fn read_and_write_until_syncs_fail() {
    const ROWS: u64 = 20_000;
    const READERS: u64 = 6;
    let is_failure = |it: Option<&EngineError>| matches!(it, Some(EngineError::Failed { .. }));
    let key = |at: u64| format!("{:05}", at % ROWS);
    let files = start_with_rows();
    let engine = Arc::new(files.engine.unwrap());
    let write = |round: u64| {
        let rows = (round * 1_000..(round + 1) * 1_000).map(|at| put(&key(at), value_of(at, 1024)));
        engine.apply(&rows.collect::<Vec<_>>(), Lsn(1_000 + round))
    };
    (0..ROWS / 1_000).for_each(|round| write(round).unwrap());
    fail_syncs_of(&files.dir.path().join("engine").join("db"));
    let (sender, ended) = std::sync::mpsc::channel();
    for reader in 0..READERS {
        let (engine, ended) = (Arc::clone(&engine), sender.clone());
        // Who has met the failure asks no more: each later call would wake those who wait.
        let read = move || {
            let mut keys = (reader..).map(|at| Key::from(key(at * 7_919).as_str()));
            let failure = keys.find_map(|key| engine.get(KEYSPACE, PARTITION, &key).err());
            ended.send(failure).unwrap();
        };
        std::thread::Builder::new().spawn(read).unwrap();
    }
    let failure = (ROWS..).find_map(|round| write(round).err());
    assert!(is_failure(failure.as_ref()), "{failure:?}");
    for _ in 0..READERS {
        let failure = ended.recv_timeout(Duration::from_secs(120)).expect("nobody waits for ever");
        assert!(is_failure(failure.as_ref()), "{failure:?}");
    }
}

#[test]
fn chunks_go_with_the_value_that_they_belonged_to() {
    let files = start_with_rows();
    let engine = files.sled();
    let chunks_after = |change: Change| {
        engine.apply(&[change], Lsn(600)).unwrap();
        chunks_left(engine)
    };
    assert_eq!(chunks_after(put("k", value_of(1, 300_000))), 3);
    assert_eq!(chunks_after(put("k", value_of(2, 140_000))), 2);
    assert_eq!(chunks_after(put("k", value_of(3, 10))), 0);
    assert_eq!(chunks_after(put("k", value_of(4, 140_000))), 2);
    assert_eq!(chunks_after(Change { value: None, ..put("k", Bytes::new()) }), 0);
}

#[test]
fn chunks_without_a_manifest_go_when_the_key_is_given_a_large_value_or_with_the_partition() {
    let files = start_with_rows();
    let trees = files.sled().keyspaces.read()[&KEYSPACE].clone();
    let orphan = |key: &str| {
        let prefix = layout::chunk_prefix(&layout::row_key(PARTITION, &Key::from(key)));
        trees.chunks.insert(layout::chunk_key(&prefix, 1, 9), b"left by a crash").unwrap();
    };
    orphan("k");
    files.sled().apply(&[put("k", value_of(1, 140_000))], Lsn(600)).unwrap();
    assert_eq!(chunks_left(files.sled()), 2);
    (0..10).for_each(|n| orphan(&format!("other-{n}")));
    while !files.sled().delete_partition(KEYSPACE, PARTITION, 100).unwrap() {}
    assert_eq!(chunks_left(files.sled()), 0);
}

#[test]
fn a_missing_chunk_is_damage_and_never_a_shorter_value() {
    let files = start_with_rows();
    files.sled().apply(&[put("k", value_of(1, 300_000))], Lsn(600)).unwrap();
    let trees = files.sled().keyspaces.read()[&KEYSPACE].clone();
    trees.chunks.pop_max().unwrap();
    let error = files.sled().get(KEYSPACE, PARTITION, &Key::from("k")).unwrap_err();
    assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
}

#[test]
fn readers_of_a_large_value_see_one_write_or_another() {
    let files = start_with_rows();
    let engine = files.sled();
    let write = |n: u64| engine.apply(&[put("k", value_of(n % 7, 260_000))], Lsn(600 + n)).unwrap();
    write(0);
    let known: Vec<Bytes> = (0..7).map(|n| value_of(n, 260_000)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..100).for_each(write);
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let held = engine.get(KEYSPACE, PARTITION, &Key::from("k")).unwrap().unwrap();
            assert!(known.contains(&held), "a mixture of two writes was read");
        }
    });
}
