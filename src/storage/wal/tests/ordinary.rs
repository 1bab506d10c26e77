//! What the log does when nothing goes wrong.

use super::*;
use crate::storage::disk::DiskFiles;
use crate::types::{GroupId, ReplicaId};

#[test]
fn a_new_log_is_empty_and_says_so() {
    let files = MemoryFiles::default();
    let opened = open(&files);
    assert_eq!(opened.wal.last_lsn(), Lsn(0));
    assert_eq!(
        opened.recovery,
        Recovery { segments: 1, first_lsn: Lsn(1), created: true, ..Recovery::default() }
    );
}

#[test]
fn what_was_committed_comes_back_in_order() {
    let files = MemoryFiles::default();
    let mut records = rows(1..40);
    records.push(LogRecord::DropKeyspace(KeyspaceId(5)));
    let mut wal = open(&files).wal;
    for (index, batch) in records.chunks(3).enumerate() {
        let last = (index * 3 + batch.len()) as u64;
        assert_eq!(wal.commit(batch).unwrap(), Lsn(last));
    }
    let opened = open(&files);
    assert_eq!(opened.records(), records);
    let positions: Vec<u64> = opened.replayed.iter().map(|(lsn, _)| lsn.0).collect();
    assert_eq!(positions, (1..=40).collect::<Vec<_>>());
    assert!(opened.recovery.segments > 2);
    assert_eq!((opened.recovery.records, opened.recovery.tail_cut_bytes), (40, 0));
}

#[test]
fn a_commit_is_one_frame_and_one_sync_and_leaves_the_file_as_long() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    wal.commit(&rows(1..5)).unwrap();
    assert_eq!((wal.stats().commits, wal.stats().syncs), (1, 1));
    assert_eq!(files.bytes(&started(&files)[0]).len() as u64, SEGMENT_BYTES);
    assert_eq!(wal.commit(&[]).unwrap(), Lsn(4));
    assert_eq!(wal.stats().commits, 1);
}

#[test]
fn a_batch_of_many_segments_is_split_and_comes_back_whole() {
    let files = MemoryFiles::default();
    let records = rows(1..60);
    let mut wal = open(&files).wal;
    wal.commit(&records[..1]).unwrap();
    assert_eq!(wal.commit(&records[1..]).unwrap(), Lsn(59));
    assert!(wal.stats().segments > 4);
    assert_eq!(open(&files).records(), records);
}

#[test]
fn a_record_that_no_segment_holds_is_refused_and_nothing_written() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    let error = wal.commit(&[row(1, 10), row(2, 500)]).unwrap_err();
    assert!(matches!(error, WalError::RecordTooLarge { bytes_max: 400, .. }), "{error}");
    assert_eq!(wal.last_lsn(), Lsn(0));
    wal.commit(&[row(1, 400 - 1 - 25 - 4 - 5)]).unwrap();
    assert!(!wal.is_poisoned());
}

#[test]
fn only_records_above_the_engines_are_handed_out_but_all_are_checked() {
    let files = MemoryFiles::default();
    open(&files).wal.commit(&rows(1..30)).unwrap();
    let opened = try_open(&files, 20).unwrap();
    assert_eq!(opened.replayed.first().unwrap().0, Lsn(21));
    assert_eq!((opened.recovery.records, opened.recovery.replayed), (29, 9));
}

#[test]
fn records_of_groups_are_handed_out_whatever_the_engine_holds() {
    let files = MemoryFiles::default();
    let of_group = |number| {
        let (group, replica) = (GroupId(number), ReplicaId(1));
        LogRecord::Group(GroupRecord::Removed { group, replica })
    };
    let together = LogRecord::Rows(Vec::new());
    let records =
        [row(1, 10), of_group(2), together.clone(), row(4, 10), of_group(5), together.clone()];
    open(&files).wal.commit(&records).unwrap();
    let opened = try_open(&files, 4).unwrap();
    let expected = [(Lsn(2), of_group(2)), (Lsn(5), of_group(5)), (Lsn(6), together)];
    assert_eq!(opened.replayed, expected);
    assert_eq!((opened.recovery.records, opened.recovery.replayed), (6, 3));
}

#[test]
fn whole_segments_are_dropped_and_the_rest_kept() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    for record in rows(1..40) {
        wal.commit(&[record]).unwrap();
    }
    let segments = wal.stats().segments;
    let dropped = wal.drop_through(Lsn(20)).unwrap();
    assert!(dropped > 0 && dropped < segments - 1);
    assert_eq!(wal.stats().segments, segments - dropped);
    assert_eq!(started(&files).len(), segments - dropped);
    let opened = try_open(&files, 20).unwrap();
    assert_eq!(opened.records(), rows(21..40));
    assert!(opened.recovery.first_lsn <= Lsn(21) && opened.recovery.first_lsn > Lsn(1));
}

#[test]
fn rotation_lets_everything_be_dropped_and_positions_go_on() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    wal.commit(&rows(1..4)).unwrap();
    wal.rotate().unwrap();
    wal.rotate().unwrap();
    assert_eq!(wal.stats().segments, 2, "an empty segment needs no rotation");
    assert_eq!(wal.drop_through(Lsn(3)).unwrap(), 1);
    let mut opened = try_open(&files, 3).unwrap();
    assert_eq!((opened.wal.last_lsn(), opened.recovery.first_lsn), (Lsn(3), Lsn(4)));
    assert_eq!(opened.wal.commit(&rows(4..5)).unwrap(), Lsn(4));
}

#[test]
fn a_closed_log_says_so_until_it_is_written() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    wal.commit(&rows(1..4)).unwrap();
    wal.close().unwrap();
    let mut opened = open(&files);
    assert!(opened.recovery.closed);
    opened.wal.close().unwrap();
    assert_eq!(opened.wal.stats().syncs, 0, "it ends with the mark already");
    opened.wal.commit(&rows(4..5)).unwrap();
    let opened = open(&files);
    assert!(!opened.recovery.closed);
    assert_eq!(opened.records(), rows(1..5));
}

#[test]
fn opening_and_closing_forever_fills_nothing() {
    let files = MemoryFiles::default();
    for number in 1..100 {
        let mut wal = open(&files).wal;
        if number % 10 == 0 {
            wal.commit(&[row(number, 1)]).unwrap();
        }
        wal.close().unwrap();
    }
    assert_eq!(open(&files).wal.last_lsn(), Lsn(9));
}

#[test]
fn a_prepared_segment_is_used_and_another_wanted() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    assert!(wal.wants_segment());
    wal.preparer().prepare().unwrap();
    wal.preparer().prepare().unwrap();
    assert!(!wal.wants_segment());
    assert_eq!(wal.stats().segments_prepared, 1);
    assert_eq!(wal.stats().disk_bytes, 2 * SEGMENT_BYTES);
    wal.commit(&rows(1..2)).unwrap();
    wal.rotate().unwrap();
    assert!(wal.wants_segment());
}

#[test]
fn segments_are_prepared_while_commits_go_on() {
    let files = MemoryFiles::default();
    let mut wal = open(&files).wal;
    let preparer = wal.preparer();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..200).for_each(|_| preparer.prepare().unwrap()));
        for record in rows(1..500) {
            wal.commit(&[record]).unwrap();
        }
    });
    assert_eq!(open(&files).records(), rows(1..500));
}

#[test]
fn leftovers_of_preparation_are_cleared_away() {
    let files = MemoryFiles::default();
    open(&files).wal.commit(&rows(1..4)).unwrap();
    files.put("wal/0000000000000002.new", vec![0; 100]);
    files.put("wal/0000000000000003.new", Vec::new());
    let mut opened = open(&files);
    assert_eq!(files.names(), ["wal/0000000000000001.log"]);
    opened.wal.commit(&rows(4..30)).unwrap();
    assert_eq!(open(&files).records(), rows(1..30));
}

#[test]
fn a_log_may_go_on_with_segments_of_another_size() {
    let files = MemoryFiles::default();
    open(&files).wal.commit(&rows(1..6)).unwrap();
    let mut wal = try_open_sized(&files, 0, 4096).unwrap().wal;
    wal.commit(&rows(6..30)).unwrap();
    assert_eq!(wal.stats().segments, 2);
    assert_eq!(open(&files).records(), rows(1..30));
}

#[test]
fn a_receiver_that_fails_ends_the_opening() {
    let files = MemoryFiles::default();
    open(&files).wal.commit(&rows(1..6)).unwrap();
    let options = WalOptions { segment_bytes: SEGMENT_BYTES };
    let result = Wal::open(Arc::new(files), options, Lsn(0), &mut |lsn, _| match lsn.0 {
        3 => Err("no room".into()),
        _ => Ok(()),
    });
    let error = result.err().unwrap();
    assert!(matches!(error, WalError::Replay { lsn: Lsn(3), .. }), "{error}");
}

#[test]
fn a_log_on_a_real_disk_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let records = rows(1..100);
    let mut found = Vec::new();
    for round in 0..2 {
        let files: Arc<dyn Files> = Arc::new(DiskFiles::open(dir.path()).unwrap());
        let options = WalOptions { segment_bytes: 1024 };
        let mut take = |_, record| {
            found.push(record);
            Ok(())
        };
        let (mut wal, recovery) = Wal::open(files, options, Lsn(0), &mut take).unwrap();
        assert_eq!(recovery.closed, round == 1);
        if round == 0 {
            wal.commit(&records).unwrap();
            wal.close().unwrap();
        }
    }
    assert_eq!(found, records);
}
