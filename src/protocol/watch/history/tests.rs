use bytes::Bytes;

use super::*;
use crate::protocol::group::stored::Stored;
use crate::protocol::watch::Selection;
use crate::types::{Key, Record};

const GROUP: GroupId = GroupId(3);
const OTHER: GroupId = GroupId(4);
const KEYSPACE: KeyspaceId = KeyspaceId(1);
const LIMITS: HistoryLimits = HistoryLimits { events_max: 4, bytes_max: 10_000 };

fn row_in(keyspace: KeyspaceId, key: &str, at: u64, value: Option<&str>) -> Row {
    let (created, modified) = (Revision(at), Revision(at));
    let value = value.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    let record = Stored { created, modified, value }.to_record();
    Row { keyspace, key: Key::from(key), record }
}

fn row(key: &str, at: u64, value: Option<&str>) -> Row {
    row_in(KEYSPACE, key, at, value)
}

fn begun(limits: HistoryLimits) -> History {
    let mut history = History::new(limits);
    history.follow(GROUP, LogIndex(10));
    history
}

fn all(prefix: &'static str) -> Watched {
    let selection = Selection::Prefix(Bytes::from_static(prefix.as_bytes()));
    Watched { keyspace: KEYSPACE, selection }
}

fn entry(index: u64, events: &[(&str, Option<&str>)]) -> WatchEntry {
    let event = |(key, value): &(&str, Option<&str>)| WatchEvent {
        key: Key::from(*key),
        value: value.map(|text| Bytes::copy_from_slice(text.as_bytes())),
    };
    let events = events.iter().map(event).collect();
    WatchEntry { index: LogIndex(index), revision: Revision(index * 100), events }
}

fn changed(entries: Vec<WatchEntry>, through: u64) -> Option<WatchPage> {
    Some(WatchPage::Changed { entries, through: LogIndex(through) })
}

fn gone(oldest: u64) -> Option<WatchPage> {
    Some(WatchPage::Gone { oldest: LogIndex(oldest) })
}

#[test]
fn a_page_has_what_concerns_the_watch_and_says_how_far_all_is_in_it() {
    let mut history = begun(LIMITS);
    history.note(GROUP, LogIndex(11), &[row("a1", 1100, Some("x"))]);
    history.note(GROUP, LogIndex(12), &[row("b1", 1200, Some("y"))]);
    let pair = [row("a1", 1400, None), row("a2", 1400, Some("z"))];
    history.note(GROUP, LogIndex(14), &pair);
    history.advance(GROUP, LogIndex(15));
    let page = |after, prefix| history.page(GROUP, LogIndex(after), &all(prefix), 1000);
    let put = entry(11, &[("a1", Some("x"))]);
    let both = entry(14, &[("a1", None), ("a2", Some("z"))]);
    assert_eq!(page(10, "a"), changed(vec![put, both.clone()], 15));
    assert_eq!(page(11, "a"), changed(vec![both.clone()], 15));
    assert_eq!(page(13, "a"), changed(vec![both], 15));
    assert_eq!(page(10, "a2"), changed(vec![entry(14, &[("a2", Some("z"))])], 15));
    assert_eq!(page(14, "a"), changed(vec![], 15));
    assert_eq!(page(10, "c"), changed(vec![], 15));
    assert_eq!(page(20, "a"), changed(vec![], 20), "the watch has seen more than this replica");
    assert_eq!(page(9, "a"), gone(10));
    assert_eq!(history.page(OTHER, LogIndex(10), &all("a"), 1000), None);
    let elsewhere = Watched { keyspace: KeyspaceId(2), ..all("") };
    assert_eq!(history.page(GROUP, LogIndex(10), &elsewhere, 1000), changed(vec![], 15));
}

#[test]
fn a_page_ends_at_its_bytes_and_has_whole_entries() {
    let mut history = begun(LIMITS);
    for index in 11..=13 {
        let rows = [row("a", index * 100, Some("x")), row("b", index * 100, Some("y"))];
        history.note(GROUP, LogIndex(index), &rows[..if index == 12 { 1 } else { 2 }]);
    }
    // The bounds let go of the first.
    let page = |after, bytes_max| history.page(GROUP, LogIndex(after), &all(""), bytes_max);
    assert_eq!(page(10, 1), gone(11));
    assert_eq!(page(11, 1), changed(vec![entry(12, &[("a", Some("x"))])], 12));
    let last = entry(13, &[("a", Some("x")), ("b", Some("y"))]);
    assert_eq!(page(12, 1), changed(vec![last.clone()], 13));
    assert_eq!(page(11, 100), changed(vec![entry(12, &[("a", Some("x"))]), last], 13));
}

#[test]
fn what_was_applied_first_goes_first_whichever_group_it_is_of() {
    let mut history = begun(LIMITS);
    history.follow(OTHER, LogIndex(0));
    history.note(GROUP, LogIndex(11), &[row("a", 1100, Some("x"))]);
    history.note(OTHER, LogIndex(1), &[row("o", 100, Some("x"))]);
    for index in 12..=14 {
        history.note(GROUP, LogIndex(index), &[row("a", index * 100, Some("x"))]);
    }
    assert_eq!(history.events(), 4);
    assert_eq!(history.page(GROUP, LogIndex(10), &all("a"), 1000), gone(11));
    let kept = changed(vec![entry(1, &[("o", Some("x"))])], 1);
    assert_eq!(history.page(OTHER, LogIndex(0), &all("o"), 1000), kept);
    history.note(GROUP, LogIndex(15), &[row("a", 1500, Some("x"))]);
    assert_eq!(history.page(OTHER, LogIndex(0), &all("o"), 1000), gone(1));
    assert_eq!(history.page(OTHER, LogIndex(1), &all("o"), 1000), changed(vec![], 1));
}

#[test]
fn the_last_entry_is_kept_however_large_it_is() {
    let mut history = begun(HistoryLimits { events_max: 1, bytes_max: 10 });
    history.note(GROUP, LogIndex(11), &[row("a", 1100, Some("x"))]);
    let rows = ["a", "b", "c"].map(|key| row(key, 1200, Some("a long value")));
    history.note(GROUP, LogIndex(12), &rows);
    assert_eq!((history.events(), history.page(GROUP, LogIndex(10), &all(""), 1)), (3, gone(11)));
    let Some(WatchPage::Changed { entries, .. }) = history.page(GROUP, LogIndex(11), &all(""), 1)
    else {
        panic!("the last entry is gone");
    };
    assert_eq!(entries[0].events.len(), 3);
}

#[test]
fn a_replica_that_passed_entries_over_begins_anew_and_one_that_goes_on_does_not() {
    let mut history = begun(LIMITS);
    history.note(GROUP, LogIndex(11), &[row("a", 1100, Some("x"))]);
    history.follow(GROUP, LogIndex(11));
    let put = entry(11, &[("a", Some("x"))]);
    assert_eq!(history.page(GROUP, LogIndex(10), &all("a"), 100), changed(vec![put], 11));
    // A snapshot has brought it from 11 to 20.
    history.follow(GROUP, LogIndex(20));
    assert_eq!(history.page(GROUP, LogIndex(11), &all("a"), 100), gone(20));
    assert_eq!(history.page(GROUP, LogIndex(20), &all("a"), 100), changed(vec![], 20));
    assert_eq!((history.events(), history.bytes()), (0, 0));
    history.forget(GROUP);
    assert_eq!(history.page(GROUP, LogIndex(20), &all("a"), 100), None);
}

#[test]
fn rows_of_the_machine_itself_are_nobodys_to_watch() {
    let mut history = begun(LIMITS);
    let session = Row {
        keyspace: KeyspaceId::SESSIONS,
        key: Key::from("s"),
        record: Record::new(Revision(1100).into(), Some(Bytes::from_static(b"?"))),
    };
    history.note(GROUP, LogIndex(11), std::slice::from_ref(&session));
    assert_eq!(history.events(), 0);
    history.note(GROUP, LogIndex(12), &[row("a", 1200, None), session]);
    let deleted = entry(12, &[("a", None)]);
    assert_eq!(history.page(GROUP, LogIndex(10), &all(""), 100), changed(vec![deleted], 12));
}
