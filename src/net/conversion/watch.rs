//! What replicas are asked for those who watch, and what they tell.

use crate::net::conversion::{ConversionError, decode_duration, encode_duration, required};
use crate::proto::cluster as wire;
use crate::proto::cluster::forward_reply::Outcome;
use crate::protocol::watch::{Selection, WatchAsk, WatchEntry, WatchEvent, WatchPage, Watched};
use crate::types::{Key, KeyspaceId, LogIndex, Revision};

pub(super) fn encode_ask(ask: WatchAsk) -> wire::GroupWatch {
    let WatchAsk { watched, after, bytes_max, wait } = ask;
    let selection = match watched.selection {
        Selection::Key(key) => wire::group_watch::Selection::Key(key.0),
        Selection::Prefix(prefix) => wire::group_watch::Selection::Prefix(prefix),
    };
    wire::GroupWatch {
        keyspace: watched.keyspace.0,
        selection: Some(selection),
        after: after.0,
        bytes_max,
        wait_us: encode_duration(wait),
    }
}

pub(super) fn decode_ask(ask: wire::GroupWatch) -> Result<WatchAsk, ConversionError> {
    let selection = match required(ask.selection, "GroupWatch.selection")? {
        wire::group_watch::Selection::Key(key) => Selection::Key(Key(key)),
        wire::group_watch::Selection::Prefix(prefix) => Selection::Prefix(prefix),
    };
    Ok(WatchAsk {
        watched: Watched { keyspace: KeyspaceId(ask.keyspace), selection },
        after: LogIndex(ask.after),
        bytes_max: ask.bytes_max,
        wait: decode_duration(ask.wait_us),
    })
}

pub(super) fn encode_page(page: WatchPage) -> Outcome {
    match page {
        WatchPage::Gone { oldest } => Outcome::WatchGone(oldest.0),
        WatchPage::Changed { entries, through } => {
            let entries = entries.into_iter().map(encode_entry).collect();
            Outcome::Watched(wire::WatchPage { entries, through: through.0 })
        }
    }
}

fn encode_entry(entry: WatchEntry) -> wire::WatchEntry {
    let WatchEntry { index, revision, events } = entry;
    let event = |WatchEvent { key, value }| wire::WatchEvent { key: key.0, value };
    let events = events.into_iter().map(event).collect();
    wire::WatchEntry { index: index.0, revision: revision.0, events }
}

pub(super) fn decode_page(page: wire::WatchPage) -> WatchPage {
    let entries = page.entries.into_iter().map(decode_entry).collect();
    WatchPage::Changed { entries, through: LogIndex(page.through) }
}

pub(super) fn decode_gone(oldest: u64) -> WatchPage {
    WatchPage::Gone { oldest: LogIndex(oldest) }
}

fn decode_entry(entry: wire::WatchEntry) -> WatchEntry {
    let wire::WatchEntry { index, revision, events } = entry;
    let event = |wire::WatchEvent { key, value }| WatchEvent { key: Key(key), value };
    let events = events.into_iter().map(event).collect();
    WatchEntry { index: LogIndex(index), revision: Revision(revision), events }
}
