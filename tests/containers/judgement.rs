//! What one writer's keys may hold, in view of what became of each attempt.

use std::collections::BTreeSet;

use tonic::{Code, Status};

use crate::dice::Dice;
use crate::ledger::{Attempt, Ledger};

/// Keys that a writer overwrites.
const KEYS: usize = 40;
/// How many writes of a thousand delete.
const DELETES_PER_MILLE: u64 = 100;
/// Bytes of the smallest and the largest value.
const VALUE_BYTES: (u64, u64) = (10, 2_000);
/// The trailer in which a node tells what is known of a failed request's effect.
const OUTCOME_TRAILER: &str = "coterie-outcome";

/// What became of an attempt, as far as its writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It must be there.
    Acknowledged,
    /// It must never be there: the node said that it had no effect.
    Refused,
    /// It may be there, or come yet.
    Unknown,
}

impl Fate {
    /// What an error says of the attempt; what says nothing leaves it unknown.
    pub(crate) fn of(status: &Status) -> Self {
        match outcome(status) {
            Some("not-attempted" | "failed") => Fate::Refused,
            _ => Fate::Unknown,
        }
    }

    /// Whether an error tells its outcome, and in the same way in the code and in the trailer.
    pub(crate) fn is_told_truly(status: &Status) -> bool {
        match outcome(status) {
            Some("not-attempted") => status.code() == Code::Unavailable,
            Some("unknown" | "failed") => {
                matches!(status.code(), Code::DeadlineExceeded | Code::Unknown | Code::Aborted)
            }
            _ => false,
        }
    }
}

fn outcome(status: &Status) -> Option<&str> {
    status.metadata().get(OUTCOME_TRAILER).and_then(|outcome| outcome.to_str().ok())
}

/// One writer's ledger.
pub(crate) struct Judge {
    writer: String,
    ledger: Ledger,
    /// Numbers of attempts that must never be read.
    refused: BTreeSet<u64>,
    /// Counts up for a key whose last attempt's fate is unknown, and is part of its name.
    generations: [u64; KEYS],
}

impl Judge {
    /// Nothing written yet.
    pub(crate) fn new(writer: &str) -> Self {
        Judge {
            writer: writer.to_owned(),
            ledger: Ledger::default(),
            refused: BTreeSet::new(),
            generations: [0; KEYS],
        }
    }

    /// Every key that was ever tried.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.ledger.keys().cloned().collect()
    }

    /// A key that was tried before, or else one that must be absent.
    pub(crate) fn choose_key(&self, dice: &mut Dice) -> String {
        self.key(dice.index(KEYS))
    }

    fn key(&self, slot: usize) -> String {
        format!("{}-{slot}-{}", self.writer, self.generations[slot])
    }

    /// Chooses what to write, and notes it.
    pub(crate) fn attempt(&mut self, dice: &mut Dice) -> (String, Attempt) {
        let key = self.choose_key(dice);
        let bytes = dice.between(VALUE_BYTES.0, VALUE_BYTES.1);
        let bytes = usize::try_from(bytes).expect("small");
        let deletes = dice.chance(DELETES_PER_MILLE);
        let attempt = self.ledger.attempt(&key, (!deletes).then_some(bytes));
        (key, attempt)
    }

    /// Notes what became of an attempt on each node that it was tried on.
    pub(crate) fn conclude(&mut self, key: &str, number: u64, fates: &[Fate]) {
        if fates.contains(&Fate::Acknowledged) {
            self.ledger.acknowledge(key, number);
        } else if fates.iter().all(|&fate| fate == Fate::Refused) {
            self.refused.insert(number);
        }
        if fates.contains(&Fate::Unknown) {
            let slot = (0..KEYS).find(|&slot| self.key(slot) == key).expect("a key of ours");
            self.generations[slot] += 1;
        }
    }

    /// Judges what a key was read to hold.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn judge(&mut self, key: &str, read: Option<&[u8]>) -> Result<(), String> {
        let number =
            read.and_then(|read| read.first_chunk()).map(|first| u64::from_be_bytes(*first));
        if let Some(number) = number.filter(|number| self.refused.contains(number)) {
            return Err(format!("{key} holds attempt {number}, which was refused without effect"));
        }
        if self.ledger.keys().any(|known| known == key) {
            return self.ledger.judge(key, read);
        }
        let invented = |value: &[u8]| format!("{key} holds {value:02x?}, but was never written");
        read.map_or(Ok(()), |value| Err(invented(value)))
    }
}

#[test]
fn a_refused_attempt_may_not_be_read_and_an_unknown_one_ends_its_key() {
    let mut judge = Judge::new("w");
    let mut dice = Dice::new(1);
    assert!(judge.judge("w-0-0", Some(b"x")).is_err(), "never written");
    let (key, attempt) = std::iter::repeat_with(|| judge.attempt(&mut dice))
        .find(|(_, attempt)| attempt.bytes.is_some())
        .expect("not everything deletes");
    judge.conclude(&key, attempt.number, &[Fate::Refused, Fate::Refused]);
    assert!(judge.judge(&key, attempt.value(&key).as_deref()).is_err());
    let again = judge.ledger.attempt(&key, Some(20));
    judge.conclude(&key, again.number, &[Fate::Unknown, Fate::Acknowledged]);
    assert_eq!(judge.judge(&key, again.value(&key).as_deref()), Ok(()));
    assert!(!(0..KEYS).any(|slot| judge.key(slot) == key), "the key is used no more");
}

#[test]
fn an_error_must_say_the_same_twice() {
    let status = |code, outcome: Option<&'static str>| {
        let mut status = Status::new(code, "");
        if let Some(outcome) = outcome {
            let value = tonic::metadata::AsciiMetadataValue::from_static(outcome);
            status.metadata_mut().insert(OUTCOME_TRAILER, value);
        }
        status
    };
    assert!(Fate::is_told_truly(&status(Code::Unavailable, Some("not-attempted"))));
    assert!(Fate::is_told_truly(&status(Code::DeadlineExceeded, Some("unknown"))));
    assert!(!Fate::is_told_truly(&status(Code::Unavailable, Some("unknown"))));
    assert!(!Fate::is_told_truly(&status(Code::DeadlineExceeded, Some("not-attempted"))));
    assert!(!Fate::is_told_truly(&status(Code::Unavailable, None)));
    assert_eq!(Fate::of(&status(Code::Unavailable, None)), Fate::Unknown);
}
