//! What was tried on which key and what of it was acknowledged: the measure of what must be there.
//!
//! Every key has one writer, which tries one thing at a time. So a key must hold what was last
//! acknowledged or something that was tried later, and once a value was read it may not be taken
//! back.

use std::collections::BTreeMap;

use crate::dice::Dice;

/// Attempts up to the last but one acknowledged are kept, so that one acknowledgement can be
/// forgiven.
const ACKNOWLEDGED_KEPT: usize = 2;
/// Complaints that are printed in full.
const COMPLAINTS_SHOWN: usize = 10;

/// Something that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// Counts up over all attempts of a writer.
    pub(crate) number: u64,
    /// Bytes of the value; `None` deletes.
    pub(crate) bytes: Option<usize>,
    /// Whether it must be there.
    pub(crate) acknowledged: bool,
}

impl Attempt {
    /// The value, the same each time: the number, and then bytes that follow from it and the key.
    pub(crate) fn value(&self, key: &str) -> Option<Vec<u8>> {
        let bytes = self.bytes?;
        let mut dice = Dice::new(self.number).fork(key);
        let mut value = self.number.to_be_bytes().to_vec();
        while value.len() < bytes {
            value.extend_from_slice(&dice.next().to_be_bytes());
        }
        value.truncate(bytes.max(NUMBER_BYTES));
        Some(value)
    }
}

const NUMBER_BYTES: usize = 8;

/// One writer's keys.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    keys: BTreeMap<String, Vec<Attempt>>,
    next_number: u64,
    last_acknowledged: Option<(String, u64)>,
}

impl Ledger {
    /// Notes that something is about to be tried.
    pub(crate) fn attempt(&mut self, key: &str, bytes: Option<usize>) -> Attempt {
        self.next_number += 1;
        let attempt = Attempt { number: self.next_number, bytes, acknowledged: false };
        self.keys.entry(key.to_owned()).or_default().push(attempt);
        attempt
    }

    /// Notes that an attempt must be there from now on: it was acknowledged, or read.
    pub(crate) fn acknowledge(&mut self, key: &str, number: u64) {
        let attempts = self.keys.get_mut(key).expect("a key that was tried");
        let found = attempts.iter_mut().find(|attempt| attempt.number == number);
        found.expect("an attempt").acknowledged = true;
        let acknowledged = attempts.iter().enumerate().filter(|(_, it)| it.acknowledged);
        let kept_from = acknowledged.rev().nth(ACKNOWLEDGED_KEPT - 1).map_or(0, |(at, _)| at);
        attempts.drain(..kept_from);
        self.last_acknowledged = Some((key.to_owned(), number));
    }

    /// Takes the writer's last acknowledgement back: it may have been lost, and that was reported.
    pub(crate) fn forgive_last(&mut self) {
        if let Some((key, number)) = self.last_acknowledged.take()
            && let Some(attempts) = self.keys.get_mut(&key)
        {
            let found = attempts.iter_mut().find(|attempt| attempt.number == number);
            found.expect("the last attempt is kept").acknowledged = false;
        }
    }

    /// Every key that was ever tried.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.keys.keys()
    }

    /// The longest value that must be there.
    pub(crate) fn longest_value(&self) -> Vec<u8> {
        let last = self.keys.iter().filter_map(|(key, attempts)| attempts.last()?.value(key));
        last.max_by_key(Vec::len).unwrap_or_default()
    }

    /// Judges what a key was read to hold, and holds the node to it from now on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn judge(&mut self, key: &str, read: Option<&[u8]>) -> Result<(), String> {
        let attempts = &self.keys[key];
        let must = attempts.iter().rposition(|attempt| attempt.acknowledged);
        let allowed = &attempts[must.unwrap_or(0)..];
        if must.is_none() && read.is_none() {
            return Ok(());
        }
        // The oldest that fits: what a later one did may yet be undone by one between them.
        let same = |attempt: &&Attempt| attempt.value(key).as_deref() == read;
        if let Some(found) = allowed.iter().find(same) {
            let number = found.number;
            if Some(number) != must.map(|at| attempts[at].number) {
                self.acknowledge(key, number);
            }
            return Ok(());
        }
        Err(format!("{key} holds {}, allowed are {allowed:?}", describe(read)))
    }

    /// Attempts that are known to have been acknowledged and are still held to.
    pub(crate) fn acknowledged(&self) -> usize {
        self.keys.values().flatten().filter(|attempt| attempt.acknowledged).count()
    }
}

fn describe(read: Option<&[u8]>) -> String {
    let Some(read) = read else { return "nothing".to_owned() };
    match read.first_chunk::<NUMBER_BYTES>() {
        Some(number) => {
            format!("{} bytes that call themselves {}", read.len(), u64::from_be_bytes(*number))
        }
        None => format!("{read:02x?}"),
    }
}

/// Fails with the complaints, if there are any.
#[track_caller]
pub(crate) fn check_none(what: &str, complaints: &[String]) {
    let shown = &complaints[..complaints.len().min(COMPLAINTS_SHOWN)];
    assert!(complaints.is_empty(), "{what}: {} wrong: {}", complaints.len(), shown.join("\n"));
}

#[test]
fn what_is_allowed_follows_from_what_was_acknowledged() {
    let mut ledger = Ledger::default();
    let first = ledger.attempt("k", Some(20));
    assert_eq!(ledger.judge("k", None), Ok(()));
    ledger.acknowledge("k", first.number);
    let second = ledger.attempt("k", Some(10));
    let (one, two) = (first.value("k"), second.value("k"));
    assert!(ledger.judge("k", None).is_err());
    assert_eq!(ledger.judge("k", one.as_deref()), Ok(()));
    assert_eq!(ledger.judge("k", two.as_deref()), Ok(()));
    assert!(ledger.judge("k", one.as_deref()).is_err(), "what was read is not taken back");
    ledger.forgive_last();
    assert_eq!(ledger.judge("k", one.as_deref()), Ok(()));
    let deleted = ledger.attempt("k", None);
    ledger.acknowledge("k", deleted.number);
    assert!(ledger.judge("k", two.as_deref()).is_err());
    assert_eq!(ledger.judge("k", None), Ok(()));
}
