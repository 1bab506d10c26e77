//! A damaged write-ahead log: the node names segment and byte and does not start, or it reports
//! that it cut an unfinished commit; nothing acknowledged goes missing in silence.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use coterie::proto::v1::Level;

use crate::dice::Dice;
use crate::disk::replace_tree;
use crate::harness::{NodeProcess, NodeSpec, PATIENCE, wait_for};
use crate::ledger::check_none;
use crate::load::{Load, Shape, Writer, read_back, writers};
use crate::plan::{Plan, pass};

/// Segments are small and tables large: much lies in the log alone.
const ARGUMENTS: [&str; 6] = [
    "--partitions=16",
    "--request-timeout=20s",
    "--wal-segment-bytes=1MiB",
    "--value-bytes-max=256KiB",
    "--memtable-age-max=1s",
    "--disk-reserve-bytes=1MiB",
];

const WRITERS: usize = 4;
/// Every so many rounds a new log is written.
const ROUNDS_PER_LOG: usize = 4;
const SHAPE: Shape = Shape { bytes_max: 100 << 10, ..Shape::MIXED };

/// A log as a kill left it, and what must be in it.
struct Sample {
    node: NodeProcess,
    sound: PathBuf,
    crew: Vec<Writer>,
    _root: tempfile::TempDir,
}

#[test]
fn damage_to_the_log_is_named_or_a_reported_cut() {
    let plan = Plan::of("damage_wal::damage_to_the_log_is_named_or_a_reported_cut", 6, 20);
    let mut dice = plan.dice();
    let mut sample = Sample::new(&mut dice);
    let mut named = 0;
    for round in 0..plan.rounds {
        if round > 0 && round % ROUNDS_PER_LOG == 0 {
            sample = Sample::new(&mut dice);
        }
        replace_tree(&sample.sound, &sample.node.spec.data_dir);
        let (segment, damage) = damage(&sample.node.spec.data_dir.join("wal"), &mut dice);
        let when = format!("round {round}: {damage} in {segment}");
        named += usize::from(sample.try_start(&segment, &when));
        sample.node.kill();
    }
    assert!(named > 0, "no damage was ever noticed");
}

impl Sample {
    fn new(dice: &mut Dice) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut spec = NodeSpec::new(root.path(), "n1", &[]);
        spec.arguments = ARGUMENTS.map(str::to_owned).to_vec();
        let mut node = NodeProcess::new(spec);
        node.start();
        node.wait_ready();
        let crew = writers(WRITERS, dice);
        let load = Load::start(std::slice::from_ref(&node), crew, SHAPE, false);
        pass(dice, 200, 1500);
        load.set_open(0, false);
        node.kill();
        let (crew, complaints) = load.finish();
        check_none("under load", &complaints);
        let sound = root.path().join("sound");
        replace_tree(&node.spec.data_dir, &sound);
        Sample { node, sound, crew, _root: root }
    }

    /// Starts the node on the damaged log; true if it named the damage, or said what is lost.
    fn try_start(&mut self, segment: &str, when: &str) -> bool {
        let logged = self.node.log().len();
        self.node.start();
        let exited = wait_for(&format!("{when}: the node starts or not"), PATIENCE, || {
            if let Some(status) = self.node.exited() {
                return Ok(Some(status));
            }
            let reply = self.node.try_http("GET", "/readyz", &[], b"");
            match reply {
                Ok(reply) if reply.status == 200 => Ok(None),
                Ok(reply) => Err(reply.text()),
                Err(error) => Err(error.to_string()),
            }
        });
        let log = self.node.log().split_off(logged);
        if let Some(status) = exited {
            assert!(!status.success(), "{when}: it ended with {status}");
            assert!(names_damage(&log, segment), "{when}: the damage is not named: {log}");
            return true;
        }
        let warnings = self.node.status().expect("a status")["warnings"].to_string();
        if warnings.contains("rows older than the log are lost") {
            // A missing beginning looks like a missing engine; either way the loss is told.
            return true;
        }
        let mut crew = self.crew.clone();
        if log.contains("cut an unfinished commit off the end of the log") {
            // One commit may be missing, which holds at most the last write of each writer.
            crew.iter_mut().for_each(|writer| writer.ledger.forgive_last());
        }
        check_none(when, &read_back(&self.node, &mut crew, Level::Quorum));
        false
    }
}

/// Whether the log names the damaged segment, or its neighbour for one that is gone, and a byte.
fn names_damage(log: &str, segment: &str) -> bool {
    let number = u64::from_str_radix(segment, 16).expect("a segment's name");
    let named =
        |number: u64| log.contains(&format!("log segment {number:016x} is damaged at byte"));
    (number.saturating_sub(1)..=number + 1).any(named)
}

/// Damages a random segment; returns its name and what was done.
fn damage(folder: &Path, dice: &mut Dice) -> (String, String) {
    let mut segments: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the log's folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    let path = &segments[dice.index(segments.len())];
    let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
    let bytes = fs::read(path).expect("a segment");
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    // Mostly where something lies.
    let at = if dice.chance(800) { dice.index(used) } else { dice.index(bytes.len()) };
    let file = File::options().write(true).open(path).expect("a segment");
    let done = match dice.index(5) {
        0 | 1 => {
            let bit = dice.index(8);
            file.write_all_at(&[bytes[at] ^ 1 << bit], at as u64).expect("written");
            format!("bit {bit} of byte {at} of {used} used ones is flipped")
        }
        2 => {
            file.set_len(at as u64).expect("cut");
            format!("cut to {at} bytes")
        }
        3 if segments.len() > 1 => {
            fs::remove_file(path).expect("removed");
            format!("removed, one of {}", segments.len())
        }
        _ => {
            let garbage: Vec<u8> = (0..dice.between(2, 200)).map(|_| dice.next() as u8).collect();
            file.write_all_at(&garbage, at as u64).expect("written");
            format!("{} bytes of garbage at {at} of {used} used ones", garbage.len())
        }
    };
    (name, done)
}
