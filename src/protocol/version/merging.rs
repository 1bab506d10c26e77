//! How copies of a key become one, by the keyspace's way of merging.
//!
//! Whatever the way, a join is commutative, associative and idempotent, and its version is that of
//! one of the two or higher than both: replicas converge in whatever order, and however often,
//! copies reach them, and "the greater version" is a safe choice wherever a join can follow.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::protocol::version::dvv::Siblings;
use crate::protocol::version::{counter, lww, set};
use crate::types::{Merge, Record};

/// What a client has done to a key whose copies are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A value among the siblings.
    Put(Bytes),
    /// What was seen goes, whatever it is.
    Delete,
    /// So much more on a counter.
    Add(i64),
    /// Elements of a set that come and go; of one that is among both, the addition stands.
    Elements {
        /// These are there afterwards.
        added: BTreeSet<Bytes>,
        /// These go, as far as they had been seen.
        removed: BTreeSet<Bytes>,
    },
}

impl Change {
    /// Whether it can be done in a keyspace that merges so.
    pub fn fits(&self, merge: Merge) -> bool {
        match self {
            Change::Put(_) => merge == Merge::Siblings,
            Change::Delete => merge.joins(),
            Change::Add(_) => merge == Merge::Counter,
            Change::Elements { .. } => merge == Merge::Set,
        }
    }

    /// Whether the key must be read first, for a client that told what it had seen, or did not:
    /// without that it means all that is there, and elements are taken out of what is there.
    pub fn reads_first(&self, told: bool) -> bool {
        match self {
            Change::Put(_) | Change::Add(_) => false,
            Change::Delete => !told,
            Change::Elements { removed, .. } => !removed.is_empty(),
        }
    }

    /// The bytes that a client sent with it.
    pub fn size_bytes(&self) -> usize {
        match self {
            Change::Put(value) => value.len(),
            Change::Delete => 0,
            Change::Add(_) => size_of::<i64>(),
            Change::Elements { added, removed } => {
                added.iter().chain(removed).map(Bytes::len).sum()
            }
        }
    }
}

/// What a row that is joined is to its reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What the key has as one value, if it has any: of siblings the one that was written last, a
    /// counter's number in decimal digits, a set's elements as an array in JSON.
    pub value: Option<Bytes>,
    /// All siblings, by the time of their writing.
    pub siblings: Vec<Bytes>,
    /// The elements of a set, in the order of their bytes. They are text, as interfaces take it.
    pub elements: Vec<String>,
}

impl Reading {
    /// What it is in a keyspace that merges so.
    pub fn of(row: &Siblings, merge: Merge) -> Reading {
        match merge {
            // Nobody has such a row there.
            Merge::Lww => Reading::default(),
            Merge::Siblings => {
                let siblings: Vec<Bytes> = row.values().map(|sibling| sibling.value).collect();
                let value = siblings.last().cloned();
                Reading { value, siblings, elements: Vec::new() }
            }
            Merge::Counter => {
                let is_there = row.values().next().is_some();
                let value = is_there.then(|| Bytes::from(counter::total(row).to_string()));
                Reading { value, ..Reading::default() }
            }
            Merge::Set => {
                let elements = set::elements(row);
                let text = |it: Bytes| String::from_utf8_lossy(&it).into_owned();
                let elements: Vec<String> = elements.into_iter().map(text).collect();
                let json = serde_json::Value::from(elements.as_slice()).to_string();
                let value = (!elements.is_empty()).then(|| Bytes::from(json));
                Reading { value, siblings: Vec::new(), elements }
            }
        }
    }
}

/// What two copies of a key say together.
pub fn joined(merge: Merge, a: Record, b: Record) -> Record {
    match merge {
        Merge::Lww => lww::merge(a, b),
        Merge::Siblings | Merge::Counter | Merge::Set => joined_siblings(a, b),
    }
}

/// Copies that are no siblings, which no node makes, give way to those that are.
fn joined_siblings(a: Record, b: Record) -> Record {
    if a == b {
        return a;
    }
    match (Siblings::of_record(&a), Siblings::of_record(&b)) {
        (Ok(ours), Ok(theirs)) => {
            let joined = ours.joined(&theirs).to_record();
            joined.unwrap_or_else(|| lww::merge(a, b))
        }
        (Ok(_), Err(_)) => a,
        (Err(_), Ok(_)) => b,
        (Err(_), Err(_)) => lww::merge(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::version::dvv::Context;
    use crate::types::{Incarnation, Timestamp, Version};

    fn row(stamp: u64, life: u64) -> Record {
        let dot = Version { timestamp: Timestamp(stamp), incarnation: Incarnation(life) };
        let value = Some(Bytes::from_static(b"v"));
        let row = Siblings::default().written(dot, value, &Context::default());
        row.expect("one sibling").to_record().expect("a row")
    }

    #[test]
    fn the_last_writer_wins_or_both_stand() {
        let (old, new) = (row(1, 1), row(2, 2));
        assert_eq!(joined(Merge::Lww, old.clone(), new.clone()), new);
        let both = joined(Merge::Siblings, old.clone(), new.clone());
        assert_eq!(Siblings::of_record(&both).expect("siblings").len(), 2);
        assert!(both.version > new.version);
        assert_eq!(joined(Merge::Siblings, new, old), both);
        assert_eq!(joined(Merge::Siblings, both.clone(), row(1, 1)), both);
    }

    #[test]
    fn what_is_no_row_of_siblings_gives_way() {
        let (odd, even) = (row(1, 1), Record::new(row(9, 1).version, None));
        assert_eq!(joined(Merge::Siblings, odd.clone(), even.clone()), odd);
        assert_eq!(joined(Merge::Siblings, even.clone(), odd.clone()), odd);
        assert_eq!(joined(Merge::Siblings, even.clone(), even.clone()), even);
    }

    #[test]
    fn a_row_is_read_as_its_keyspace_merges() {
        let dot = |stamp| Version { timestamp: Timestamp(stamp), incarnation: Incarnation(1) };
        let text = |it: &'static str| Bytes::from_static(it.as_bytes());
        let several = Siblings::default();
        let several = several.written(dot(1), Some(text("b")), &Context::default()).expect("few");
        let several = several.written(dot(2), Some(text("a")), &Context::default()).expect("few");
        let siblings = Reading::of(&several, Merge::Siblings);
        assert_eq!((siblings.value, siblings.siblings.len()), (Some(text("a")), 2));
        let set = Reading::of(&several, Merge::Set);
        assert_eq!((set.value, set.elements.len()), (Some(text(r#"["a","b"]"#)), 2));
        let counted = counter::added(&Siblings::default(), dot(1), -7).expect("in range");
        assert_eq!(Reading::of(&counted, Merge::Counter).value, Some(text("-7")));
        for merge in Merge::ALL {
            assert_eq!(Reading::of(&several.emptied(), merge).value, None, "{merge:?}");
        }
    }

    #[test]
    fn each_way_of_merging_has_its_changes() {
        let elements = || Change::Elements { added: BTreeSet::new(), removed: BTreeSet::new() };
        let changes = [Change::Put(Bytes::new()), Change::Delete, Change::Add(1), elements()];
        let fitting = |merge| changes.clone().map(|change| change.fits(merge));
        assert_eq!(fitting(Merge::Lww), [false; 4]);
        assert_eq!(fitting(Merge::Siblings), [true, true, false, false]);
        assert_eq!(fitting(Merge::Counter), [false, true, true, false]);
        assert_eq!(fitting(Merge::Set), [false, true, false, true]);
    }
}
