//! Two logs that hold an entry with the same index and term are identical up to it (Ongaro 2014,
//! figure 3.2, "Log Matching").
//!
//! By induction it is enough that an index and a term always stand for the same payload behind the
//! same predecessor; entries are looked at whenever they are sent or applied.

use std::collections::BTreeMap;

use coterie::protocol::raft::entry::{Entry, LogPosition, Payload};
use coterie::protocol::raft::message::Body;

use super::{Event, Invariant, View, ensure};

/// Each entry ever seen: its predecessor where that is known, and what it says.
#[derive(Default)]
pub(super) struct LogMatching {
    known: BTreeMap<LogPosition, (Option<LogPosition>, Payload)>,
}

impl LogMatching {
    fn see(&mut self, before: Option<LogPosition>, entry: &Entry) -> Result<(), String> {
        let at = entry.position();
        let known = self.known.entry(at).or_insert_with(|| (before, entry.payload.clone()));
        known.0 = known.0.or(before);
        let same = known.1 == entry.payload && (before.is_none() || known.0 == before);
        ensure(same, || format!("{at:?} is {known:?} and {:?} after {before:?}", entry.payload))
    }
}

impl Invariant for LogMatching {
    fn check(&mut self, view: View<'_>) -> Result<(), String> {
        for event in view.events {
            match event {
                Event::Sent(message) => {
                    let Body::Append(append) = &message.body else { continue };
                    let mut before = append.previous;
                    for entry in &append.entries {
                        self.see(Some(before), entry)?;
                        before = entry.position();
                    }
                }
                Event::Applied(entry) => self.see(None, entry)?,
                _ => {}
            }
        }
        Ok(())
    }
}
