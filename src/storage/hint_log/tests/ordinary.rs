//! What the hint log does when nothing goes wrong.

use super::*;

#[test]
fn hints_are_read_in_order_written_or_not() {
    let (log, _) = open(&MemoryFiles::default());
    append_all(&log, A, 1..20);
    log.flush(false).unwrap();
    append_all(&log, A, 20..25);
    append_all(&log, B, 100..103);
    assert_eq!(numbers(&log, A), range(1..25));
    assert_eq!(numbers(&log, B), range(100..103));
    let sequences: Vec<u64> = read_all(&log, A, 0).iter().map(|it| it.sequence).collect();
    assert_eq!(sequences, range(1..25));
    assert_eq!(number_of(&log.read(A, 17, 1).unwrap()[0]), 18, "one hint at least");
    assert!(log.read(NodeId(9), 0, 100).unwrap().is_empty());
}

#[test]
fn a_batch_keeps_to_its_bytes() {
    let (log, _) = open(&flushed());
    let bytes = |batch: &[QueuedHint]| -> usize {
        batch.iter().map(|it| entry::entry_bytes(&it.hint)).sum()
    };
    for bytes_max in [100, 200, 500, 1000] {
        let batch = log.read(A, 0, bytes_max).unwrap();
        assert!(bytes(&batch) <= bytes_max);
        let one_more = log.read(A, batch.last().unwrap().sequence, 1).unwrap();
        assert!(bytes(&batch) + bytes(&one_more) > bytes_max, "there was room for more");
    }
}

#[test]
fn appending_touches_no_file() {
    let files = MemoryFiles::default();
    let (log, _) = open(&files);
    append_all(&log, A, 1..5);
    assert!(files.names().is_empty());
    assert!(log.buffered_bytes() > 0);
    log.flush(false).unwrap();
    assert_eq!(log.buffered_bytes(), 0);
    assert_eq!(files.names().len(), 1);
}

#[test]
fn hints_survive_a_restart_and_sequences_go_on() {
    let files = flushed();
    let (log, report) = open(&files);
    assert_eq!((report.hints, report.tail_cut_bytes), (29, 0));
    assert_eq!(report.bytes, log.bytes(A));
    assert!(report.damaged_segments.is_empty());
    assert!(files.names().len() > 2);
    assert_eq!(log.append(A, hint(30)), 30);
    log.flush(true).unwrap();
    assert_eq!(numbers(&open(&files).0, A), range(1..31));
}

#[test]
fn files_go_as_they_are_acknowledged() {
    let files = flushed();
    let (log, _) = open(&files);
    let (before, bytes) = (files.names().len(), log.bytes(A));
    log.acknowledge(A, 15).unwrap();
    assert!(files.names().len() < before && log.bytes(A) < bytes);
    assert_eq!(numbers(&log, A), range(16..30));
    assert_eq!(log.targets()[0].hints, 14);
    log.acknowledge(A, 29).unwrap();
    assert!(files.names().is_empty() && log.targets().is_empty());
    assert_eq!((log.bytes(A), numbers(&log, A)), (0, vec![]));
    assert_eq!(log.append(A, hint(30)), 30, "sequences go on within a run");
}

#[test]
fn hints_acknowledged_before_they_were_written_are_never_written() {
    let files = MemoryFiles::default();
    let (log, _) = open(&files);
    append_all(&log, A, 1..3);
    log.flush(false).unwrap();
    append_all(&log, A, 3..6);
    log.acknowledge(A, 4).unwrap();
    log.flush(false).unwrap();
    assert_eq!(log.buffered_bytes(), 0);
    assert_eq!(numbers(&open(&files).0, A), [5]);
}

#[test]
fn acknowledging_ahead_hides_nothing_that_comes_later() {
    let (log, _) = open(&MemoryFiles::default());
    append_all(&log, A, 1..3);
    log.acknowledge(A, 1000).unwrap();
    append_all(&log, A, 3..5);
    assert_eq!(numbers(&log, A), [3, 4]);
}

#[test]
fn dropping_a_target_leaves_the_others() {
    let files = flushed();
    let (log, _) = open(&files);
    append_all(&log, B, 1..3);
    append_all(&log, A, 30..35);
    log.drop_target(A).unwrap();
    assert_eq!((numbers(&log, A), numbers(&log, B)), (vec![], vec![1, 2]));
    assert!(files.names().is_empty());
    log.flush(true).unwrap();
    assert_eq!(open(&files).1.hints, 2);
}

#[test]
fn targets_tell_how_much_and_how_old() {
    let (log, _) = open(&MemoryFiles::default());
    append_all(&log, B, 7..10);
    append_all(&log, A, 3..5);
    log.flush(false).unwrap();
    append_all(&log, A, 1..2);
    let [a, b] = log.targets()[..] else { panic!("two targets") };
    assert_eq!((a.target, a.hints, a.oldest_wall_ms), (A, 3, 1001));
    assert_eq!((b.target, b.hints, b.oldest_wall_ms), (B, 3, 1007));
    assert_eq!((a.bytes, b.bytes), (log.bytes(A), log.bytes(B)));
}

#[test]
fn large_hints_are_read_across_the_read_window() {
    let files = MemoryFiles::default();
    let (log, _) = HintLog::open(Arc::new(files.clone()), 1 << 20).unwrap();
    let mut sizes = Vec::new();
    for number in 0..12 {
        let mut large = hint(number);
        let size = [100, 70_000, 30_000, 150_000][number as usize % 4];
        large.row.record.value = Some(vec![b'x'; size].into());
        sizes.push(size);
        log.append(A, large);
    }
    log.flush(false).unwrap();
    let found = read_all(&log, A, 0).into_iter();
    assert_eq!(found.map(|it| it.hint.row.record.value_len()).collect::<Vec<_>>(), sizes);
}

#[test]
fn a_flush_that_syncs_makes_all_survive_a_power_loss() {
    for seed in 0..20 {
        let files = MemoryFiles::default();
        let (log, _) = open(&files);
        append_all(&log, A, 1..10);
        log.flush(false).unwrap();
        append_all(&log, A, 10..20);
        append_all(&log, B, 1..3);
        log.flush(true).unwrap();
        let (log, _) = open(&files.power_loss(seed));
        assert_eq!((numbers(&log, A), numbers(&log, B)), (range(1..20), range(1..3)));
    }
}

#[test]
fn appends_go_on_while_others_flush_and_read() {
    let (log, _) = open(&MemoryFiles::default());
    std::thread::scope(|scope| {
        scope.spawn(|| append_all(&log, A, 1..2000));
        scope.spawn(|| (0..100).for_each(|_| log.flush(true).unwrap()));
        for _ in 0..50 {
            let found: Vec<u64> = log.read(A, 0, 1 << 20).unwrap().iter().map(number_of).collect();
            assert_eq!(found, range(1..found.len() as u64 + 1));
        }
    });
    assert_eq!(numbers(&log, A), range(1..2000));
}
