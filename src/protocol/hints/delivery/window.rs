//! The hints of one target that are in memory, in log order.

use std::collections::VecDeque;
use std::time::Duration;

use super::FetchedHint;
use crate::types::Moment;

/// How far a hint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Queued,
    InFlight {
        since: Moment,
    },
    /// The target does not take it yet.
    Aside {
        until: Moment,
    },
    Finished,
}

/// A hint in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) bytes: u64,
    /// Whether it was sent before.
    pub(super) sent: bool,
    /// `None`: expired before it was fetched.
    expires_at: Option<Moment>,
    stage: Stage,
}

impl Entry {
    pub(super) fn is_expired(&self, now: Moment) -> bool {
        self.expires_at.is_none_or(|at| at < now)
    }
}

/// Entries per hint in flight at most: finished ones behind one set aside take no row's memory,
/// and a log of many small hints should not wait long for one that the target does not take yet.
const ENTRIES_PER_IN_FLIGHT: usize = 16;

/// How many hints are in one stage or two, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    hints: usize,
    bytes: u64,
}

/// Hints by ascending id. Finished ones stay until all before them are finished.
#[derive(Clone, Debug)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    in_flight_max: usize,
    bytes_max: u64,
    queued: Load,
    in_flight: Load,
    aside: Load,
    /// No entry with a smaller id is queued.
    queued_from: u64,
}

impl Window {
    pub(super) fn new(in_flight_max: usize, bytes_max: u64) -> Self {
        Window {
            entries: VecDeque::new(),
            in_flight_max,
            bytes_max,
            queued: Load::default(),
            in_flight: Load::default(),
            aside: Load::default(),
            queued_from: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has_queued(&self) -> bool {
        self.queued.hints > 0
    }

    pub(super) fn has_room_in_flight(&self) -> bool {
        self.in_flight.hints < self.in_flight_max
    }

    /// How many more hints may be fetched. As many as are in flight may be set aside besides.
    pub(super) fn room(&self) -> usize {
        if self.aside.hints >= self.in_flight_max || self.aside.bytes >= self.bytes_max {
            return 0;
        }
        let entries_max = self.in_flight_max.saturating_mul(ENTRIES_PER_IN_FLIGHT);
        let active = self.queued.hints + self.in_flight.hints;
        let room_active = self.in_flight_max.saturating_sub(active);
        room_active.min(entries_max.saturating_sub(self.entries.len()))
    }

    /// How many more bytes of hints may be fetched.
    pub(super) fn room_bytes(&self) -> u64 {
        self.bytes_max.saturating_sub(self.queued.bytes + self.in_flight.bytes)
    }

    pub(super) fn push(&mut self, hint: &FetchedHint, now: Moment) {
        self.queued.hints += 1;
        self.queued.bytes += hint.bytes;
        self.entries.push_back(Entry {
            id: hint.id,
            bytes: hint.bytes,
            sent: false,
            expires_at: hint.time_left.map(|left| now + left),
            stage: Stage::Queued,
        });
    }

    pub(super) fn is_in_flight(&self, id: u64) -> bool {
        self.position(id).is_some_and(|at| matches!(self.entries[at].stage, Stage::InFlight { .. }))
    }

    pub(super) fn first_queued(&mut self) -> Option<Entry> {
        if !self.has_queued() {
            return None;
        }
        let from = self.entries.partition_point(|entry| entry.id < self.queued_from);
        let first = self.entries.range(from..).find(|entry| entry.stage == Stage::Queued).copied();
        self.queued_from = first.map_or(self.queued_from, |entry| entry.id);
        first
    }

    /// Finishes a hint; false if it is unknown or was finished before.
    pub(super) fn finish(&mut self, id: u64) -> bool {
        let known = self.position(id).filter(|at| self.entries[*at].stage != Stage::Finished);
        if let Some(at) = known {
            self.set_at(at, Stage::Finished);
        }
        known.is_some()
    }

    pub(super) fn set(&mut self, id: u64, stage: Stage) {
        if let Some(at) = self.position(id) {
            self.set_at(at, stage);
        }
    }

    pub(super) fn pop_finished(&mut self) -> Option<u64> {
        let is_finished = self.entries.front()?.stage == Stage::Finished;
        if is_finished { self.entries.pop_front().map(|entry| entry.id) } else { None }
    }

    /// Puts everything in flight back; how many that were.
    pub(super) fn requeue_in_flight(&mut self) -> usize {
        let in_flight = self.in_flight.hints;
        self.requeue(|stage| matches!(stage, Stage::InFlight { .. }));
        in_flight
    }

    /// Puts back what was set aside until now, or has been in flight for too long.
    pub(super) fn requeue_due(&mut self, now: Moment, resend_after: Duration) {
        if self.due_at(resend_after).is_some_and(|at| at <= now) {
            self.requeue(|stage| due(stage, resend_after).is_some_and(|at| at <= now));
        }
    }

    /// When the first hint set aside, or in flight for too long, is to be put back.
    pub(super) fn due_at(&self, resend_after: Duration) -> Option<Moment> {
        if self.in_flight.hints + self.aside.hints == 0 {
            return None;
        }
        self.entries.iter().filter_map(|entry| due(entry.stage, resend_after)).min()
    }

    fn requeue(&mut self, which: impl Fn(Stage) -> bool) {
        for at in 0..self.entries.len() {
            if which(self.entries[at].stage) {
                self.set_at(at, Stage::Queued);
            }
        }
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }

    fn set_at(&mut self, at: usize, stage: Stage) {
        let entry = &mut self.entries[at];
        entry.sent |= matches!(stage, Stage::InFlight { .. });
        let (id, bytes) = (entry.id, entry.bytes);
        let before = std::mem::replace(&mut entry.stage, stage);
        if let Some(load) = self.load_of(before) {
            load.hints -= 1;
            load.bytes -= bytes;
        }
        if let Some(load) = self.load_of(stage) {
            load.hints += 1;
            load.bytes += bytes;
        }
        if stage == Stage::Queued {
            self.queued_from = self.queued_from.min(id);
        }
    }

    fn load_of(&mut self, stage: Stage) -> Option<&mut Load> {
        match stage {
            Stage::Queued => Some(&mut self.queued),
            Stage::InFlight { .. } => Some(&mut self.in_flight),
            Stage::Aside { .. } => Some(&mut self.aside),
            Stage::Finished => None,
        }
    }
}

fn due(stage: Stage, resend_after: Duration) -> Option<Moment> {
    match stage {
        Stage::InFlight { since } => Some(since + resend_after),
        Stage::Aside { until } => Some(until),
        Stage::Queued | Stage::Finished => None,
    }
}
