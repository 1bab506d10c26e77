//! A disk that fails or runs full.

use std::io::ErrorKind;

use super::*;
use crate::storage::files::testing::Op;

fn assert_poisoned(wal: &mut Wal) {
    assert!(wal.is_poisoned());
    assert!(matches!(wal.commit(&rows(90..91)), Err(WalError::Poisoned { .. })));
    assert!(matches!(wal.rotate(), Err(WalError::Poisoned { .. })));
    assert!(matches!(wal.drop_through(Lsn(9)), Err(WalError::Poisoned { .. })));
    assert!(matches!(wal.close(), Err(WalError::Poisoned { .. })));
}

#[test]
fn a_failed_write_or_sync_of_a_commit_poisons() {
    for op in [Op::Write, Op::Sync] {
        let files = MemoryFiles::default();
        let mut wal = open(&files).wal;
        wal.commit(&rows(1..4)).unwrap();
        files.fail(op, 0, ErrorKind::Other);
        assert!(matches!(wal.commit(&rows(4..6)), Err(WalError::Io { segment: 1, .. })), "{op:?}");
        assert_poisoned(&mut wal);
        assert_eq!(wal.last_lsn(), Lsn(3));
        let found = open(&files).records();
        assert!(found == rows(1..4) || found == rows(1..6), "{op:?}");
    }
}

#[test]
fn a_full_disk_that_shows_in_a_commit_poisons_like_any_failure() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    files.fail(Op::Sync, 0, ErrorKind::StorageFull);
    assert!(matches!(wal.commit(&rows(1..2)), Err(WalError::Io { .. })));
    assert_poisoned(&mut wal);
}

#[test]
fn a_failure_while_the_next_segment_is_begun_poisons() {
    for (op, passes) in
        [(Op::Write, 0), (Op::Sync, 0), (Op::Rename, 0), (Op::SyncFolder, 0), (Op::Sync, 1)]
    {
        let files = MemoryFiles::default();
        let mut wal = open(&files).wal;
        wal.commit(&rows(1..4)).unwrap();
        wal.preparer().prepare().unwrap();
        files.fail(op, passes, ErrorKind::Other);
        assert!(matches!(wal.rotate(), Err(WalError::Io { .. })), "{op:?}");
        assert_poisoned(&mut wal);
        let mut opened = open(&files);
        assert_eq!(opened.records(), rows(1..4), "{op:?}");
        opened.wal.commit(&rows(4..40)).unwrap();
        assert_eq!(open(&files).records(), rows(1..40), "{op:?}");
    }
}

#[test]
fn a_failure_while_a_segment_is_prepared_leaves_the_log_sound() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::SyncFolder] {
        let files = MemoryFiles::default();
        let mut wal = open(&files).wal;
        files.fail(op, 0, ErrorKind::Other);
        assert!(matches!(wal.preparer().prepare(), Err(WalError::Io { segment: 2, .. })));
        assert!(wal.wants_segment() && !wal.is_poisoned(), "{op:?}");
        assert_eq!(files.names().len(), 1, "what was made of it is removed");
        wal.preparer().prepare().unwrap();
        wal.commit(&rows(1..40)).unwrap();
        assert_eq!(open(&files).records(), rows(1..40));
    }
}

/// Commits single rows until one is refused; returns the number of the refused one.
fn commit_until_refused(wal: &mut Wal, from: u64) -> (u64, WalError) {
    for number in from..from + 1000 {
        if let Err(error) = wal.commit(&rows(number..number + 1)) {
            return (number, error);
        }
    }
    panic!("nothing was refused");
}

#[test]
fn a_full_disk_refuses_and_resumes_when_there_is_room() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    files.limit_bytes(Some(2 * SEGMENT_BYTES as usize + 100));
    let (refused, error) = commit_until_refused(&mut wal, 1);
    assert!(matches!(error, WalError::DiskFull), "{error}");
    assert!(matches!(wal.preparer().prepare(), Err(WalError::DiskFull)));
    assert!(!wal.is_poisoned() && wal.wants_segment());
    assert_eq!(wal.last_lsn(), Lsn(refused - 1));
    assert_eq!(files.names().len(), 2, "the half-made segment gave its room back");
    assert_eq!(open(&files.copy()).records(), rows(1..refused));
    files.limit_bytes(None);
    wal.preparer().prepare().unwrap();
    wal.commit(&rows(refused..refused + 20)).unwrap();
    assert_eq!(open(&files).records(), rows(1..refused + 20));
}

#[test]
fn dropping_segments_makes_room_on_a_full_disk() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    files.limit_bytes(Some(3 * SEGMENT_BYTES as usize));
    let (refused, _) = commit_until_refused(&mut wal, 1);
    assert_eq!(wal.drop_through(wal.last_lsn()).unwrap(), 2);
    wal.commit(&rows(refused..refused + 1)).unwrap();
}

#[test]
fn a_full_disk_refuses_a_split_batch_whole() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    files.limit_bytes(Some(3 * SEGMENT_BYTES as usize));
    assert!(matches!(wal.commit(&rows(1..100)), Err(WalError::DiskFull)));
    assert_eq!(wal.last_lsn(), Lsn(0));
    wal.commit(&rows(1..2)).unwrap();
    assert_eq!(open(&files).records(), rows(1..2));
}

#[test]
fn a_log_opens_on_a_full_disk() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    files.limit_bytes(Some(SEGMENT_BYTES as usize));
    let (refused, _) = commit_until_refused(&mut wal, 1);
    let mut opened = open(&files);
    assert_eq!(opened.records(), rows(1..refused));
    assert!(matches!(opened.wal.commit(&rows(refused..50)), Err(WalError::DiskFull)));
}

#[test]
fn a_new_log_cannot_be_made_on_a_full_disk() {
    let files = MemoryFiles::default();
    files.limit_bytes(Some(100));
    assert!(matches!(try_open(&files, 0), Err(WalError::DiskFull)));
    assert!(files.names().is_empty());
}

#[test]
fn a_segment_is_dropped_durably_before_the_next() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    wal.commit(&rows(1..60)).unwrap();
    let segments = started(&files).len();
    files.fail(Op::SyncFolder, 0, ErrorKind::Other);
    assert!(matches!(wal.drop_through(Lsn(59)), Err(WalError::Io { .. })));
    assert_eq!(started(&files).len(), segments - 1);
    assert_poisoned(&mut wal);
    let opened = try_open(&files, 59).unwrap();
    assert_eq!(opened.wal.last_lsn(), Lsn(59));
}
