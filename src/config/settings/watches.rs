//! Bounds on clients that watch, and on what is kept for them.

use super::{Setting, put};
use crate::config::units::show_size;
use crate::config::values::{memory, number};

pub(super) static WATCHES: [Setting; 3] = [
    Setting {
        section: "limits",
        name: "watches-max",
        placeholder: "COUNT",
        help: "Watches that clients have open on the node at once; 0 for none",
        set: |draft, text| put(&mut draft.config.limits.watches_max, number(text)),
        show: |draft| draft.config.limits.watches_max.to_string(),
    },
    Setting {
        section: "limits",
        name: "watch-history-events-max",
        placeholder: "COUNT",
        help: "Changes in strong keyspaces that the node keeps in memory for those who watch",
        set: |draft, text| put(&mut draft.config.groups.watch_history.events_max, number(text)),
        show: |draft| draft.config.groups.watch_history.events_max.to_string(),
    },
    Setting {
        section: "limits",
        name: "watch-history-bytes-max",
        placeholder: "SIZE",
        help: "Bytes of those changes",
        set: |draft, text| put(&mut draft.config.groups.watch_history.bytes_max, memory(text)),
        show: |draft| show_size(draft.config.groups.watch_history.bytes_max as u64),
    },
];
