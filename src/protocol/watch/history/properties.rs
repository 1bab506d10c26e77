//! Against a model that keeps everything: whatever is let go of and whoever asks how often, a watch
//! sees all that concerns it once and in order, or hears that it cannot.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::protocol::group::stored::Stored;
use crate::protocol::watch::Selection;
use crate::types::Key;

const GROUPS: u16 = 3;
const KEYSPACES: u32 = 2;

/// Something that happens to a node.
#[derive(Clone, Debug)]
enum Happening {
    /// A group applies an entry that changes these keys, or none.
    Applied { group: u16, keys: Vec<(u32, u8, bool)> },
    /// A group takes over a snapshot, which brings it so far ahead.
    Snapshot { group: u16, ahead: u64 },
    /// A group leaves the node and comes back as it was.
    Returned { group: u16 },
    /// The watch asks of all groups.
    Asked { bytes_max: usize },
}

fn happening() -> impl Strategy<Value = Happening> {
    let keys = proptest::collection::vec((0..KEYSPACES, 0..6_u8, any::<bool>()), 0..4);
    prop_oneof![
        8 => (0..GROUPS, keys).prop_map(|(group, keys)| Happening::Applied { group, keys }),
        1 => (0..GROUPS, 1..5_u64).prop_map(|(group, ahead)| Happening::Snapshot { group, ahead }),
        1 => (0..GROUPS).prop_map(|group| Happening::Returned { group }),
        4 => (1..400_usize).prop_map(|bytes_max| Happening::Asked { bytes_max }),
    ]
}

/// One group as it really went, and the watch of it.
#[derive(Default)]
struct Model {
    applied: u64,
    /// Entries that concern the watch.
    entries: Vec<WatchEntry>,
    /// The last entry that a snapshot passed over, or that came before a return.
    unseen_through: u64,
    position: u64,
    seen: Vec<WatchEntry>,
    lost: bool,
}

fn rows(index: u64, keys: &[(u32, u8, bool)]) -> Vec<Row> {
    let mut by_key: BTreeMap<(u32, u8), bool> = BTreeMap::new();
    by_key.extend(keys.iter().map(|(keyspace, key, is_put)| ((*keyspace, *key), *is_put)));
    let row = |((keyspace, key), is_put): ((u32, u8), bool)| {
        let (created, modified) = (Revision(index), Revision(index));
        let value = is_put.then(|| Bytes::from(vec![b'v'; usize::from(key) * 10]));
        let record = Stored { created, modified, value }.to_record();
        Row { keyspace: KeyspaceId(keyspace), key: Key(Bytes::from(vec![b'k', key])), record }
    };
    by_key.into_iter().map(row).collect()
}

fn concerns(watched: &Watched, row: &Row) -> bool {
    row.keyspace == watched.keyspace && watched.selection.contains(&row.key)
}

impl Model {
    fn apply(
        &mut self,
        history: &mut History,
        group: GroupId,
        keys: &[(u32, u8, bool)],
        watched: &Watched,
    ) {
        history.follow(group, LogIndex(self.applied));
        self.applied += 1;
        let rows = rows(self.applied, keys);
        history.note(group, LogIndex(self.applied), &rows);
        history.advance(group, LogIndex(self.applied));
        let events = rows.iter().filter(|row| concerns(watched, row)).map(|row| {
            let stored = Stored::from_record(&row.record).expect("as it was made");
            WatchEvent { key: row.key.clone(), value: stored.value }
        });
        let events: Vec<WatchEvent> = events.collect();
        if !events.is_empty() {
            let (index, revision) = (LogIndex(self.applied), Revision(self.applied));
            self.entries.push(WatchEntry { index, revision, events });
        }
    }

    fn ask(&mut self, history: &mut History, group: GroupId, watched: &Watched, bytes_max: usize) {
        history.follow(group, LogIndex(self.applied));
        match history.page(group, LogIndex(self.position), watched, bytes_max) {
            Some(WatchPage::Changed { entries, through }) => {
                assert!(through.0 >= self.position && through.0 <= self.applied);
                self.seen.extend(entries);
                self.position = through.0;
            }
            Some(WatchPage::Gone { oldest }) => {
                assert!(oldest.0 > self.position, "it could have gone on");
                // It lists anew, and goes on from there.
                self.seen.clear();
                self.entries.retain(|entry| entry.index > oldest);
                self.position = oldest.0;
                self.lost = true;
            }
            None => panic!("the group is followed"),
        }
    }
}

fn check(happenings: Vec<Happening>, limits: HistoryLimits, watched: &Watched) {
    let mut history = History::new(limits);
    let mut models: Vec<Model> = (0..GROUPS).map(|_| Model::default()).collect();
    for happening in happenings {
        match happening {
            Happening::Applied { group, keys } => {
                let model = &mut models[usize::from(group)];
                model.apply(&mut history, GroupId(group), &keys, watched);
            }
            Happening::Snapshot { group, ahead } => {
                let model = &mut models[usize::from(group)];
                model.applied += ahead;
                model.unseen_through = model.applied;
            }
            Happening::Returned { group } => history.forget(GroupId(group)),
            Happening::Asked { bytes_max } => {
                for (number, model) in (0..).zip(&mut models) {
                    model.ask(&mut history, GroupId(number), watched, bytes_max);
                }
            }
        }
        assert!(history.events() <= limits.events_max.max(4), "{} events", history.events());
    }
    for (number, model) in (0..).zip(&mut models) {
        for _ in 0..=model.applied {
            model.ask(&mut history, GroupId(number), watched, 1);
        }
        assert_eq!(model.seen, model.entries, "group {number}, lost: {}", model.lost);
        assert_eq!(model.position, model.applied);
        let passed_over = model.unseen_through > 0;
        assert!(model.lost || !passed_over, "a snapshot went unnoticed");
    }
}

proptest! {
    #[test]
    fn a_watch_sees_all_that_concerns_it_or_hears_that_it_cannot(
        happenings in proptest::collection::vec(happening(), 0..80),
        events_max in 1..40_usize,
        bytes_max in 50..4000_usize,
        key in proptest::option::of(0..6_u8),
    ) {
        let selection = match key {
            Some(key) => Selection::Key(Key(Bytes::from(vec![b'k', key]))),
            None => Selection::Prefix(Bytes::from_static(b"k")),
        };
        let watched = Watched { keyspace: KeyspaceId(1), selection };
        check(happenings, HistoryLimits { events_max, bytes_max }, &watched);
    }
}
