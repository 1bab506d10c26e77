//! Damage: whatever is done to the files, the log comes back whole, or reports what it cut, or
//! refuses to open and says where.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::storage::files::testing::for_seeds;

/// A sound log of several segments, to be damaged.
struct Sound {
    files: MemoryFiles,
    records: Vec<LogRecord>,
    last_batch: usize,
    closed: bool,
}

impl Sound {
    fn new(closed: bool) -> Sound {
        let files = MemoryFiles::default();
        let (records, last_batch) = (rows(1..27), 2);
        let mut wal = open(&files).wal;
        for batch in records.chunks(3) {
            wal.commit(batch).unwrap();
        }
        if closed {
            wal.close().unwrap();
        }
        assert!(wal.stats().segments >= 3);
        Sound { files, records, last_batch, closed }
    }

    fn both() -> [Sound; 2] {
        [Sound::new(false), Sound::new(true)]
    }

    fn is_last(&self, name: &str) -> bool {
        started(&self.files).last().is_some_and(|last| last == name)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Whole,
    Refused,
    Cut { records: usize },
}

/// Opens a damaged copy; panics if anything was lost without a word.
fn judge(sound: &Sound, damaged: &MemoryFiles) -> Verdict {
    let opened = match try_open(damaged, 0) {
        Ok(opened) => opened,
        Err(WalError::Damaged { .. }) => return Verdict::Refused,
        Err(other) => panic!("{other}"),
    };
    let found = opened.records();
    assert_eq!(opened.recovery.first_lsn, Lsn(1));
    assert_eq!(found, sound.records[..found.len()], "an altered record was handed out");
    let records = sound.records.len() - found.len();
    assert!(records == 0 || opened.recovery.tail_cut_bytes > 0, "{records} records lost silently");
    assert!(records == 0 || !opened.recovery.closed);
    match records {
        0 => Verdict::Whole,
        records => Verdict::Cut { records },
    }
}

/// After a single damage to that file, only an unclosed log's last batch may be cut.
fn judge_single(sound: &Sound, damaged: &MemoryFiles, name: &str) -> Verdict {
    let verdict = judge(sound, damaged);
    if let Verdict::Cut { records } = verdict {
        assert_eq!(records, sound.last_batch);
        assert!(!sound.closed, "a closed log was cut");
        assert!(sound.is_last(name), "a segment before the last was cut");
    }
    verdict
}

fn tally(verdicts: &[Verdict]) -> [usize; 3] {
    let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|it| wanted(it)).count();
    [
        count(|it| matches!(it, Verdict::Whole)),
        count(|it| matches!(it, Verdict::Refused)),
        count(|it| matches!(it, Verdict::Cut { .. })),
    ]
}

#[test]
fn every_flipped_bit_is_harmless_or_reported() {
    for sound in Sound::both() {
        let mut verdicts = Vec::new();
        for name in started(&sound.files) {
            for bit in 0..SEGMENT_BYTES as usize * 8 {
                let damaged = sound.files.copy();
                damaged.edit(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
                verdicts.push(judge_single(&sound, &damaged, &name));
            }
        }
        let [whole, refused, cut] = tally(&verdicts);
        assert!(whole > 0 && refused > whole, "{whole} {refused} {cut}");
        assert_eq!(cut > 0, !sound.closed);
    }
}

#[test]
fn every_truncation_is_refused() {
    for sound in Sound::both() {
        for name in started(&sound.files) {
            for len in 0..SEGMENT_BYTES as usize {
                let damaged = sound.files.copy();
                damaged.edit(&name, |bytes| bytes.truncate(len));
                assert_eq!(judge_single(&sound, &damaged, &name), Verdict::Refused, "{name} {len}");
            }
        }
    }
}

#[test]
fn every_torn_last_frame_is_cut_and_the_log_goes_on() {
    let sound = Sound::new(false);
    let last = started(&sound.files).pop().unwrap();
    let end = sound.files.bytes(&last).iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let last_frame = 24 + sound.records[24..].iter().map(|it| it.encoded_bytes()).sum::<usize>();
    for kept in 1..last_frame {
        let torn = sound.files.copy();
        torn.edit(&last, |bytes| bytes[end - last_frame + kept..].fill(0));
        assert_eq!(judge_single(&sound, &torn, &last), Verdict::Cut { records: 2 }, "{kept}");
        let mut opened = open(&torn);
        assert_eq!(opened.recovery.tail_cut_bytes, 0, "it was cut before");
        opened.wal.commit(&rows(25..26)).unwrap();
        assert_eq!(open(&torn).records(), rows(1..26));
    }
}

#[test]
fn a_zeroed_frame_before_others_is_refused() {
    for sound in Sound::both() {
        let names = started(&sound.files).into_iter();
        for name in names.filter(|name| sound.closed || !sound.is_last(name)) {
            let damaged = sound.files.copy();
            let first_frame = 40..40 + 24 + 60;
            damaged.edit(&name, |bytes| bytes[first_frame.clone()].fill(0));
            assert_eq!(judge(&sound, &damaged), Verdict::Refused, "{name}");
        }
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let sound = Sound::new(true);
    for name in &started(&sound.files)[1..] {
        let damaged = sound.files.copy();
        damaged.remove(name).unwrap();
        assert_eq!(judge(&sound, &damaged), Verdict::Refused, "{name}");
    }
}

#[test]
fn a_missing_beginning_is_refused_or_told() {
    let sound = Sound::new(true);
    sound.files.remove(&started(&sound.files)[0]).unwrap();
    let opened = open(&sound.files);
    let first = opened.recovery.first_lsn;
    assert!(first > Lsn(1), "an engine that holds nothing is the caller's affair");
    assert!(matches!(try_open(&sound.files, 1), Err(WalError::Damaged { .. })));
    assert!(try_open(&sound.files, first.0 - 1).is_ok());
}

#[test]
fn a_log_that_ends_before_the_engine_is_refused() {
    let sound = Sound::new(false);
    assert!(try_open(&sound.files, 26).is_ok());
    assert!(matches!(try_open(&sound.files, 27), Err(WalError::Damaged { .. })));
    let missing = try_open(&MemoryFiles::default(), 1);
    assert!(matches!(missing, Err(WalError::Damaged { segment: 1, .. })));
}

#[test]
fn segments_in_each_others_place_are_refused() {
    let sound = Sound::new(false);
    let names = started(&sound.files);
    let damaged = sound.files.copy();
    damaged.put(&names[0], sound.files.bytes(&names[1]));
    damaged.put(&names[1], sound.files.bytes(&names[0]));
    assert_eq!(judge(&sound, &damaged), Verdict::Refused);
}

#[test]
fn damage_is_named_by_segment_and_byte() {
    let sound = Sound::new(false);
    sound.files.edit(&started(&sound.files)[1], |bytes| bytes[45] ^= 1);
    let error = try_open(&sound.files, 0).err().unwrap();
    assert!(matches!(error, WalError::Damaged { segment: 2, offset: 40, .. }), "{error}");
}

#[test]
fn a_record_of_a_newer_program_is_named() {
    let files = MemoryFiles::default();
    open(&files).wal.commit(&rows(1..2)).unwrap();
    let mut frame = Vec::new();
    frame::begin(&mut frame);
    frame.push(32);
    frame::finish(&mut frame, 1, FrameKind::Data, Lsn(1), 1);
    files.edit(&started(&files)[0], |bytes| {
        bytes[40..].fill(0);
        bytes[40..40 + frame.len()].copy_from_slice(&frame);
    });
    let error = try_open(&files, 0).err().unwrap();
    let named = matches!(error, WalError::UnknownRecord { segment: 1, offset: 40, kind: 32 });
    assert!(named, "{error}");
}

/// Does one random damage to one random file.
fn damage(files: &MemoryFiles, rng: &mut StdRng) {
    let names = started(files);
    let name = &names[rng.random_range(0..names.len())];
    let len = files.bytes(name).len();
    if len == 0 {
        return;
    }
    let at = rng.random_range(0..len);
    let bytes_max = (len - at).min(100);
    match rng.random_range(0..20) {
        0 => files.edit(name, |bytes| bytes.truncate(at)),
        1 => files.edit(name, |bytes| bytes.extend_from_slice(&[0; 7])),
        2..6 => {
            let garbage: Vec<u8> = (0..bytes_max).map(|_| rng.random_range(1..=255)).collect();
            files.edit(name, |bytes| bytes[at..at + bytes_max].copy_from_slice(&garbage));
        }
        6..9 => {
            // A piece of the same file, which may hold sound frames, at another place.
            let from = rng.random_range(0..=len - bytes_max);
            files.edit(name, |bytes| bytes.copy_within(from..from + bytes_max, at));
        }
        _ => files.edit(name, |bytes| bytes[at] ^= 1 << rng.random_range(0..8)),
    }
}

#[test]
fn several_damages_together_are_never_silent() {
    let logs = Sound::both();
    for_seeds("several_damages_together_are_never_silent", 1000, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let sound = &logs[rng.random_range(0..2)];
        let damaged = sound.files.copy();
        for _ in 0..rng.random_range(1..5) {
            damage(&damaged, &mut rng);
        }
        judge(sound, &damaged);
    });
}
