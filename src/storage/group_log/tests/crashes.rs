//! The mirror and a real log on a disk that fails: whatever groups were told is durable comes
//! back, wherever a crash falls, while the log's beginning is let go of.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::storage::files::testing::{MemoryFiles, for_seeds};
use crate::storage::wal::{LogRecord, Wal, WalError, WalOptions};

const GROUPS: u16 = 3;

/// A log and its mirror.
struct Opened {
    wal: Mutex<Wal>,
    logs: Mutex<GroupLogs>,
}

fn open(files: &MemoryFiles, applied: Lsn) -> Result<Opened, CommitError> {
    let mut logs = GroupLogs::recovering();
    let options = WalOptions { segment_bytes: 512 };
    let mut take = |lsn, record| match record {
        LogRecord::Group(record) => Ok(logs.on_record(lsn, &record)?),
        other => panic!("{other:?} was never written"),
    };
    let (wal, _) = Wal::open(Arc::new(files.clone()), options, applied, &mut take)?;
    logs.recovered()?;
    Ok(Opened { wal: Mutex::new(wal), logs: Mutex::new(logs) })
}

/// What each group should remember.
struct Model {
    rng: StdRng,
    known: BTreeMap<GroupId, StoredLog>,
    /// What a commit that failed may have left: each of its records may be the last one found.
    in_doubt: Vec<BTreeMap<GroupId, StoredLog>>,
    /// What the engine is said to hold durably.
    applied: Lsn,
    term: u64,
}

impl Model {
    /// Does one random thing.
    fn step(&mut self, opened: &Opened) -> Result<(), CommitError> {
        match self.rng.random_range(0..8) {
            0 => {
                let last = opened.wal.lock().last_lsn().0;
                self.applied = Lsn(self.rng.random_range(self.applied.0..=last));
                drop_through(&opened.wal, &opened.logs, self.applied).map(drop)
            }
            1 => Ok(opened.wal.lock().rotate()?),
            _ => self.commit(opened),
        }
    }

    fn commit(&mut self, opened: &Opened) -> Result<(), CommitError> {
        let count = self.rng.random_range(1..5);
        let mut records = Vec::new();
        let mut after = self.known.clone();
        for _ in 0..count {
            records.push(LogRecord::Group(self.change(&mut after)));
            self.in_doubt.push(after.clone());
        }
        commit(&mut opened.wal.lock(), &opened.logs, &records)?;
        self.known = after;
        self.in_doubt.clear();
        Ok(())
    }

    fn change(&mut self, known: &mut BTreeMap<GroupId, StoredLog>) -> GroupRecord {
        self.term += 1;
        let (group, term) = (GroupId(self.rng.random_range(0..GROUPS)), self.term);
        let Some(log) = known.get_mut(&group) else {
            let (replica, hard_state) = (ReplicaId(term), hard_state(term));
            let (start, entries) = (start(position(0, 0)), Vec::new());
            let founding = GroupRecord::founding(group, replica, hard_state, start.clone());
            known.insert(group, StoredLog { replica, hard_state, start, entries });
            return founding;
        };
        let replica = log.replica;
        let (first, held) = (log.start.position.index.0 + 1, log.entries.len());
        match self.rng.random_range(0..12) {
            0 => {
                known.remove(&group);
                GroupRecord::Removed { group, replica }
            }
            1..=3 => {
                log.hard_state = hard_state(term);
                GroupRecord::HardState { group, replica, hard_state: log.hard_state }
            }
            4..=5 if held > 0 => {
                let through = self.rng.random_range(0..held);
                let last = log.entries.drain(..=through).next_back().unwrap();
                log.start = start(last.position());
                GroupRecord::Start { group, replica, start: log.start.clone() }
            }
            _ => {
                log.entries.truncate(self.rng.random_range(held / 2..=held));
                let next = first + log.entries.len() as u64;
                let entries = [entry(next, term), entry(next + 1, term)];
                log.entries.extend(entries.clone());
                GroupRecord::Entries { group, replica, entries: entries.into() }
            }
        }
    }

    /// Checks what was found, which is what holds from now on.
    fn check(&mut self, opened: &Opened) {
        let logs = opened.logs.lock();
        let restored = |group: GroupId| Some((group, logs.restored(group)?));
        let found: BTreeMap<GroupId, StoredLog> = logs.groups().filter_map(restored).collect();
        let doubt = std::mem::take(&mut self.in_doubt);
        let expected = found == self.known || doubt.contains(&found);
        assert!(expected, "found {found:#?}\nwhere {:#?} was known", self.known);
        self.known = found;
    }
}

#[test]
fn what_groups_remember_outlives_crashes_and_the_logs_beginning() {
    let dropped = Mutex::new(0);
    for_seeds("what_groups_remember_outlives_crashes_and_the_logs_beginning", 150, |seed| {
        let (rng, applied) = (StdRng::seed_from_u64(seed), Lsn(0));
        let (known, in_doubt) = (BTreeMap::new(), Vec::new());
        let mut model = Model { rng, known, in_doubt, applied, term: 0 };
        let mut files = MemoryFiles::default();
        for _ in 0..8 {
            files.crash_after(model.rng.random_range(0..200));
            // The machine may go off while the log is being opened, too.
            if let Ok(opened) = open(&files, model.applied) {
                model.check(&opened);
                let error = loop {
                    if let Err(error) = model.step(&opened) {
                        break error;
                    }
                };
                assert!(matches!(error, CommitError::Wal(_)), "{error}");
            }
            if model.rng.random_bool(0.5) {
                files.restart();
            } else {
                files = files.power_loss(model.rng.random());
            }
        }
        files.restart();
        model.check(&open(&files, model.applied).unwrap());
        *dropped.lock() += usize::from(!files.names().contains(&"wal/0000000000000001.log".into()));
    });
    let replayed = std::env::var_os("COTERIE_SEED").is_some();
    assert!(replayed || *dropped.lock() > 50, "few logs ever let go of their beginning");
}

#[test]
fn nothing_is_carried_over_while_no_segment_can_go() {
    let opened = open(&MemoryFiles::default(), Lsn(0)).unwrap();
    let records = [LogRecord::Group(founding())];
    let last = commit(&mut opened.wal.lock(), &opened.logs, &records).unwrap();
    assert_eq!(drop_through(&opened.wal, &opened.logs, last).unwrap(), 0);
    assert_eq!(opened.wal.lock().last_lsn(), last);
    opened.wal.lock().rotate().unwrap();
    assert_eq!(drop_through(&opened.wal, &opened.logs, last).unwrap(), 1);
    assert_eq!(opened.wal.lock().last_lsn(), Lsn(last.0 + 1));
}

#[test]
fn a_failure_while_carrying_over_drops_nothing() {
    let files = MemoryFiles::default();
    let opened = open(&files, Lsn(0)).unwrap();
    let records = [LogRecord::Group(founding()), LogRecord::Group(entries(1..=4, 1))];
    let last = commit(&mut opened.wal.lock(), &opened.logs, &records).unwrap();
    opened.wal.lock().rotate().unwrap();
    files.crash_after(0);
    let error = drop_through(&opened.wal, &opened.logs, last).unwrap_err();
    assert!(matches!(error, CommitError::Wal(WalError::Io { .. })), "{error}");
    files.restart();
    let again = open(&files, last).unwrap();
    assert_eq!(indexes(&again.logs.lock()), [(1, 1), (2, 1), (3, 1), (4, 1)]);
}
