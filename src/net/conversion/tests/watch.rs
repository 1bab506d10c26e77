//! What watches ask and are told, for the round trips.

use std::time::Duration;

use proptest::prelude::*;

use super::bytes;
use crate::protocol::message::Ask;
use crate::protocol::watch::{Selection, WatchAsk, WatchEntry, WatchEvent, WatchPage, Watched};
use crate::types::{Key, KeyspaceId, LogIndex, Revision};

pub(super) fn ask() -> impl Strategy<Value = Ask> {
    let selection = prop_oneof![
        bytes().prop_map(|key| Selection::Key(Key(key))),
        bytes().prop_map(Selection::Prefix),
    ];
    (any::<(u32, u64, u32, u32)>(), selection).prop_map(
        |((keyspace, after, bytes_max, wait_us), selection)| {
            Ask::Watch(Box::new(WatchAsk {
                watched: Watched { keyspace: KeyspaceId(keyspace), selection },
                after: LogIndex(after),
                bytes_max,
                wait: Duration::from_micros(u64::from(wait_us)),
            }))
        },
    )
}

pub(super) fn page() -> impl Strategy<Value = WatchPage> {
    let event = (bytes(), prop::option::of(bytes()))
        .prop_map(|(key, value)| WatchEvent { key: Key(key), value });
    let entry = (any::<(u64, u64)>(), prop::collection::vec(event, 1..3)).prop_map(
        |((index, revision), events)| WatchEntry {
            index: LogIndex(index),
            revision: Revision(revision),
            events,
        },
    );
    prop_oneof![
        (prop::collection::vec(entry, 0..3), any::<u64>()).prop_map(|(entries, through)| {
            WatchPage::Changed { entries, through: LogIndex(through) }
        }),
        any::<u64>().prop_map(|oldest| WatchPage::Gone { oldest: LogIndex(oldest) }),
    ]
}
