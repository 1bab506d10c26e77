//! A read that allows staleness misses no write that was acknowledged longer ago than it allows,
//! and returns only what was written.
//!
//! Rests on: followers that date what they know by the leader's confirmed rounds; all clocks of a
//! run go at the same rate, as [`coterie::protocol::raft::Raft::freshness`] asks.

use std::time::Duration;

use bytes::Bytes;
use coterie::protocol::consistency::Consistency;
use coterie::protocol::group::command::Action;
use coterie::types::Key;

use crate::history::Evidence;
use crate::linearizability::appends;
use crate::strong::history::{Asked, Command, Fate, Place, Told};
use crate::strong::keys::is_list;

pub(crate) const NAME: &str = "stale_reads_are_fresh_enough";

/// Time is told in ticks of 50 ms; the limit counts whole ones.
const TICKS: Duration = Duration::from_millis(100);

pub(crate) fn check(evidence: &Evidence) -> Vec<String> {
    let commands = &evidence.strong.commands;
    let reads = commands.iter().filter_map(|command| {
        let Asked::Read(key, Consistency::Stale { max_staleness }) = &command.asked else {
            return None;
        };
        let Fate::Answered(_, Told::Read(value)) = command.fate() else { return None };
        Some((command, key, *max_staleness, value))
    });
    let judged = reads.filter_map(|(read, key, max_staleness, value)| {
        let due: Vec<&Command> = commands
            .iter()
            .filter(|write| is_due(write, read.invoked(), max_staleness + TICKS))
            .collect();
        let missed = match is_list(key) {
            true => missed_element(key, value.as_ref(), &due),
            false => missed_write(key, value.as_ref(), &due, commands),
        };
        missed.map(|missed| format!("{key}, at most {max_staleness:?} old: {value:?}: {missed}"))
    });
    judged.collect()
}

/// Whether a write was acknowledged so long before that no read may miss it.
fn is_due(write: &Command, read: Place, max_staleness: Duration) -> bool {
    match write.fate() {
        Fate::Answered(place, Told::Written(..)) => place.at + max_staleness < read.at,
        _ => false,
    }
}

fn missed_element(key: &Key, value: Option<&Bytes>, due: &[&Command]) -> Option<String> {
    let elements = match appends::decoded(value.map_or(&[][..], |value| value)) {
        Ok(elements) => elements,
        Err(problem) => return Some(problem),
    };
    let appended = due.iter().flat_map(|write| values(write, key)).flatten();
    let mut due = appended.filter_map(|element| appends::decoded(&element).ok()).flatten();
    due.find(|element| !elements.contains(element)).map(|element| format!("{element} is missed"))
}

/// A due write that certainly came after the one whose value was read.
fn missed_write(
    key: &Key,
    value: Option<&Bytes>,
    due: &[&Command],
    commands: &[Command],
) -> Option<String> {
    let read = value?;
    let writes_it = |write: &&Command| values(write, key).any(|v| v.as_ref() == Some(read));
    let Some(source) = commands.iter().find(writes_it) else {
        return Some("nobody wrote that".to_owned());
    };
    let Fate::Answered(ended, _) = source.fate() else { return None };
    let later = |write: &&&Command| write.invoked() > ended && values(write, key).next().is_some();
    due.iter().find(later).map(|write| format!("{:?} is missed", write.asked))
}

/// What a command makes of a key; `None` for a deletion.
fn values<'a>(command: &'a Command, key: &'a Key) -> impl Iterator<Item = Option<Bytes>> + 'a {
    let steps = match &command.asked {
        Asked::Write(steps) => steps.as_slice(),
        Asked::Read(..) => &[],
    };
    let of_key = steps.iter().filter(move |(step, _)| step == key);
    of_key.filter_map(|(_, action)| match action {
        Action::Put(value) | Action::Append(value) => Some(Some(value.clone())),
        Action::CompareAndSet { then, .. } => Some(then.clone()),
        Action::Delete => Some(None),
        Action::Check(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strong::story::{append, evidence, put, read};

    fn stale(mut read: Command) -> Command {
        let Asked::Read(_, consistency) = &mut read.asked else { panic!("a read") };
        *consistency = Consistency::Stale { max_staleness: Duration::from_millis(50) };
        read
    }

    #[test]
    fn it_allows_what_is_old_within_the_limit() {
        let writes = [put("r", "a", (1, 2)), put("r", "b", (3, 4))];
        let judged = |at| {
            let read = stale(read("r", Some("a"), (at, at + 1)));
            check(&evidence(writes.iter().cloned().chain([read]).collect())).len()
        };
        assert_eq!((judged(100), judged(500)), (0, 1));
    }

    #[test]
    fn it_fails_for_a_missed_element_and_for_what_nobody_wrote() {
        let read_at = |value| stale(read("list-0", value, (500, 501)));
        let judged = |value| check(&evidence(vec![append("list-0", 7, (1, 2)), read_at(value)]));
        assert_eq!(judged(Some("7,")).len(), 0);
        assert_eq!(judged(None).len(), 1);
        let invented = vec![stale(read("r", Some("x"), (500, 501)))];
        assert_eq!(check(&evidence(invented)).len(), 1);
    }
}
