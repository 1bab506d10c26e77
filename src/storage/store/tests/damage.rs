//! Damaged files beneath a store: answers stay right, or the damage is reported.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::storage::engine::conformance::{seed, value_of};
use crate::storage::sled::SledEngine;

const ROWS: u64 = 3000;
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Large values, small ones, and more of both than one of sled's segments holds: it reads the last
/// segment when it opens, and pages of the others only when they are asked for.
fn rows() -> Vec<Record> {
    let row = |n: u64| {
        let len = if n.is_multiple_of(30) { 200_000 } else { 100 };
        let version = Version { timestamp: Timestamp(n + 1), incarnation: Incarnation(1) };
        Record::new(version, Some(value_of(n, len)))
    };
    (0..ROWS).map(row).collect()
}

/// A directory into which the rows went over two lives, with a checkpoint in each.
fn make(dir: &Path, rows: &[Record]) {
    let mut lsn = 0;
    for half in rows.chunks(rows.len() / 2) {
        let opened = SledEngine::open(dir, CACHE_BYTES).unwrap();
        let store = Store::new(Arc::new(opened.engine)).unwrap();
        store.create_keyspace(KEYSPACE).unwrap();
        for record in half {
            publish(&store, lsn + 1, &[row(&lsn.to_string(), record.clone())]);
            lsn += 1;
        }
        store.freeze();
        feed_all(&store);
        assert_eq!(store.checkpoint().unwrap(), Lsn(lsn));
    }
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// Damages one file, most often that with the rows; says what was done.
fn damage(dir: &Path, random: &mut StdRng) -> String {
    let files = files_in(dir);
    let rows = dir.join("db");
    let other = files[random.random_range(0..files.len())].clone();
    let path = if random.random_bool(0.7) { rows } else { other };
    let at = used_offset(&path, random);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let what = match random.random_range(0..4) {
        0 => {
            file.set_len(at).unwrap();
            "cut"
        }
        1 => {
            overwrite(&mut file, at, &value_of(at, 600));
            "garbage"
        }
        2 => {
            overwrite(&mut file, at, &[0; 4096]);
            "zeros"
        }
        _ => {
            flip(&mut file, at, random.random_range(0..8));
            "flipped bit"
        }
    };
    format!("{what} at {at} in {}", path.display())
}

/// An offset at which something was written: most of sled's file is one byte, over and over.
fn used_offset(path: &Path, random: &mut StdRng) -> u64 {
    let bytes = fs::read(path).unwrap();
    let mut offsets = (0..100).map(|_| random.random_range(0..bytes.len().max(1)));
    let is_used = |at: &usize| {
        let near = &bytes[*at..bytes.len().min(at + 16)];
        near.iter().any(|byte| *byte != near[0])
    };
    offsets.find(is_used).unwrap_or(0) as u64
}

fn overwrite(file: &mut fs::File, at: u64, bytes: &[u8]) {
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

fn flip(file: &mut fs::File, at: u64, bit: u8) {
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    overwrite(file, at, &[byte[0] ^ 1 << bit]);
}

/// What became of a damaged directory.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    quarantined: bool,
    /// Rows whose reading says that they are damaged.
    refused: u64,
    /// Rows that are missing without a word.
    lost: u64,
}

fn outcome(dir: &Path, rows: &[Record], what: &str) -> Outcome {
    let opened = SledEngine::open(dir, CACHE_BYTES).unwrap();
    let mut outcome = Outcome { quarantined: opened.quarantined.is_some(), ..Outcome::default() };
    if outcome.quarantined {
        return outcome;
    }
    let store = Store::new(Arc::new(opened.engine)).unwrap();
    for (n, expected) in rows.iter().enumerate() {
        let key = n.to_string();
        match store.read(KEYSPACE, partition_of(&key), &Key::from(key.as_str())) {
            Ok(Some(record)) => assert!(record == *expected, "{what}: row {n} is wrong"),
            Ok(None) => outcome.lost += 1,
            Err(StoreError::Corrupt { .. } | StoreError::Engine(EngineError::Damaged { .. })) => {
                outcome.refused += 1;
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    outcome
}

#[test]
fn damaged_files_never_make_a_wrong_value() {
    let mut random = StdRng::seed_from_u64(seed());
    let sound = tempfile::tempdir().unwrap();
    let rows = rows();
    make(&sound.path().join("engine"), &rows);
    let mut noticed = 0;
    for _ in 0..20 {
        let copy = tempfile::tempdir().unwrap();
        let dir = copy.path().join("engine");
        copy_files(&sound.path().join("engine"), &dir);
        let what = damage(&dir, &mut random);
        let outcome = outcome(&dir, &rows, &what);
        println!("{what}: {outcome:?}");
        assert_eq!(outcome.lost, 0, "{what}: rows are missing and nobody says so");
        noticed += u64::from(outcome.quarantined || outcome.refused > 0);
    }
    assert!(noticed > 0, "none of the damages hit anything");
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("blobs")).unwrap();
    for path in files_in(from) {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
