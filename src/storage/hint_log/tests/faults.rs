//! Damage, torn writes and disks that fail.

use std::io::ErrorKind;

use super::*;
use crate::storage::files::testing::Op;

/// Opens damaged files: what is read must be an ordered selection of the hints, and any that are
/// missing must be reported. Returns how many are missing.
fn judge(damaged: &MemoryFiles) -> usize {
    let (log, report) = open(damaged);
    let found = numbers(&log, A);
    assert!(found.is_sorted_by(|a, b| a < b) && found.iter().all(|it| (1..30).contains(it)));
    let missing = 29 - found.len();
    let reported = !report.damaged_segments.is_empty() || report.tail_cut_bytes > 0;
    assert!(missing == 0 || reported, "{missing} hints lost silently");
    assert_eq!(log.damaged_segments() as usize, report.damaged_segments.len());
    missing
}

#[test]
fn every_flipped_bit_is_reported_and_a_damaged_header_costs_nothing() {
    let sound = flushed();
    for name in sound.names() {
        // Every byte, at bits that differ: every third bit is as telling as every one.
        for bit in (0..sound.bytes(&name).len() * 8).step_by(3) {
            let damaged = sound.copy();
            damaged.edit(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let in_header = bit / 8 < entry::HEADER_BYTES;
            assert_eq!(judge(&damaged) == 0, in_header, "{name} {bit}");
        }
    }
}

#[test]
fn every_truncation_is_reported_but_of_whole_hints_at_the_end() {
    let sound = flushed();
    let (last, others) = sound.names().split_last().map(|(a, b)| (a.clone(), b.to_vec())).unwrap();
    for name in others {
        for len in 0..sound.bytes(&name).len() {
            let damaged = sound.copy();
            damaged.edit(&name, |bytes| bytes.truncate(len));
            assert!(judge(&damaged) > 0, "{name} {len}");
        }
    }
    for cut in 1..50 {
        let damaged = sound.copy();
        damaged.edit(&last, |bytes| bytes.truncate(bytes.len() - cut));
        assert_eq!(judge(&damaged), 1);
        assert_eq!(open(&damaged).1.tail_cut_bytes, 0, "it was cut before");
    }
}

#[test]
fn a_missing_segment_is_reported() {
    let sound = flushed();
    let names = sound.names();
    for name in &names[1..names.len() - 1] {
        let damaged = sound.copy();
        damaged.remove(name).unwrap();
        assert!(judge(&damaged) > 0);
    }
}

#[test]
fn an_unreadable_segment_is_set_aside_and_the_rest_delivered() {
    let files = flushed();
    let name = files.names()[1].clone();
    files.edit(&name, |bytes| bytes[entry::HEADER_BYTES..].fill(0xff));
    let (log, report) = open(&files);
    assert!(report.damaged_segments.contains(&name.replace("hints/", "")));
    assert!(files.names().contains(&format!("{name}.damaged")));
    log.acknowledge(A, 29).unwrap();
    assert_eq!(files.names(), [format!("{name}.damaged")]);
}

#[test]
fn damage_met_while_reading_is_counted_and_passed_over() {
    let files = flushed();
    let (log, _) = open(&files);
    let (second, third) = (files.names()[1].clone(), files.names()[2].clone());
    let first_read = log.read(A, 0, 100).unwrap();
    files.edit(&second, |bytes| *bytes.last_mut().unwrap() ^= 1);
    files.edit(&third, |bytes| bytes[entry::HEADER_BYTES] ^= 1);
    let found = numbers(&log, A);
    assert!(found.len() < 28 && found.contains(&1) && found.contains(&29));
    assert_eq!(log.damaged_segments(), 2);
    assert_eq!(numbers(&log, A), found, "it is met once");
    assert_eq!(log.targets()[0].hints as usize, found.len());
    assert!(files.names().contains(&format!("{third}.damaged")));
    assert!(!first_read.is_empty());
}

#[test]
fn a_newer_format_is_refused() {
    let files = flushed();
    let name = files.names()[0].clone();
    files.edit(&name, |bytes| {
        bytes[8] = 3;
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    });
    let error = HintLog::open(Arc::new(files), SEGMENT_BYTES_MAX).err().unwrap();
    assert!(matches!(error, HintLogError::UnknownFormat { got: 3, .. }), "{error}");
}

#[test]
fn a_full_disk_keeps_hints_in_memory_until_there_is_room() {
    let files = MemoryFiles::default();
    let (log, _) = open(&files);
    append_all(&log, A, 1..4);
    log.flush(true).unwrap();
    append_all(&log, A, 4..40);
    files.limit_bytes(Some(900));
    for _ in 0..3 {
        assert!(matches!(log.flush(true), Err(HintLogError::DiskFull { .. })));
        assert!(log.buffered_bytes() > 0);
        assert_eq!(numbers(&log, A), range(1..40));
    }
    files.limit_bytes(None);
    log.flush(true).unwrap();
    let (log, report) = open(&files);
    assert_eq!(numbers(&log, A), range(1..40));
    assert_eq!(report.damaged_segments.len(), 0, "failed writes leave nothing behind");
}

#[test]
fn a_failed_operation_loses_nothing_in_this_run() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::SyncFolder] {
        for passes in 0..3 {
            let files = MemoryFiles::default();
            let (log, _) = open(&files);
            append_all(&log, A, 1..20);
            files.fail(op, passes, ErrorKind::Other);
            assert!(log.flush(true).is_err(), "{op:?} {passes}");
            assert_eq!(numbers(&log, A), range(1..20), "{op:?} {passes}");
            append_all(&log, A, 20..30);
            log.flush(true).unwrap();
            assert_eq!(numbers(&open(&files).0, A), range(1..30), "{op:?} {passes}");
        }
    }
}

#[test]
fn a_failing_target_does_not_hold_up_the_others() {
    let files = MemoryFiles::default();
    let (log, _) = open(&files);
    append_all(&log, A, 1..3);
    append_all(&log, B, 1..3);
    files.fail(Op::Create, 0, ErrorKind::Other);
    assert!(log.flush(true).is_err());
    assert_eq!(open(&files).1.hints, 2);
}

#[test]
fn a_half_done_write_leaves_nothing_behind() {
    let files = MemoryFiles::default();
    let (log, _) = open(&files);
    append_all(&log, A, 1..2);
    log.flush(true).unwrap();
    append_all(&log, A, 2..4);
    files.fail(Op::Write, 0, ErrorKind::Other);
    assert!(log.flush(true).is_err());
    log.flush(true).unwrap();
    let (log, report) = open(&files);
    assert_eq!(numbers(&log, A), range(1..4));
    assert_eq!((report.hints, report.damaged_segments.len()), (3, 0));
}
