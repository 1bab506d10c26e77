//! Delivery of one target's hints: what to read, what to send and how fast, when to try again.
//!
//! Hints have ids that grow along the target's hint log. A **window** of them is in memory:
//! fetched in log order, sent within a byte rate, acknowledged in any order. What is finished at
//! the front of the window is reported as a prefix, so that the log can drop it. A restart sends
//! what was finished behind that again, which is harmless, since writes are idempotent.
//!
//! Duties of the driver:
//! 1. Call `on_queued` when the log has hints that were not fetched (at the start too).
//! 2. On `Fetch`, read *every* hint after the given id, in order, up to the bounds, and report
//!    them with `on_fetched`. Keep each row until its acknowledgement.
//! 3. On `Send`, send the hint's row and report how that ended, each time.
//! 4. On `Acknowledge`, drop the log up to that id, and rows still kept up to it.
//! 5. Call `on_tick` at `next_deadline`, and `poll` until `None` after every event.
//!
//! A target that refuses is left alone for a while, since delivery must not add to its load. The
//! one exception is [`Refusal::ClockOffset`], which concerns a single hint: that hint is set aside
//! and tried again until the target's clock has caught up or the hint expires; hints behind it
//! pass it, as long as fewer than `in_flight_max` are set aside.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

use self::window::{Stage, Window};
use crate::protocol::hints::backoff::Backoff;
use crate::protocol::message::Refusal;
use crate::protocol::pace::Pace;
use crate::protocol::throttle::Throttle;
use crate::types::Moment;

/// After a pause, as much is sent at once as the rate allows in this time. Long enough that a
/// driver woken by millisecond timers keeps the rate; short enough not to fill a peer's queue.
const BURST: Duration = Duration::from_millis(50);

/// The bounds of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverySetup {
    /// The rate kept in the long run.
    pub bytes_per_second: u64,
    /// Hints in flight; as many again may be set aside.
    pub in_flight_max: usize,
    /// Bytes of hints in memory from which on no more are fetched; as many again may be set aside.
    pub window_bytes_max: u64,
    /// How long a hint may stay unanswered before it is sent again: a backstop for a message
    /// that got lost while its stream stood.
    pub resend_after: Duration,
    /// The pause after a first refusal or loss.
    pub backoff_min: Duration,
    /// The longest pause, and the pause of a hint that was set aside.
    pub backoff_max: Duration,
}

impl DeliverySetup {
    /// The usual bounds at a given rate. 256 in flight keep 16 MiB/s busy at 100-byte values and
    /// a round trip of 2 ms, and fit well within a peer's queue.
    pub fn at_rate(bytes_per_second: u64) -> Self {
        DeliverySetup {
            bytes_per_second,
            in_flight_max: 256,
            window_bytes_max: 4 << 20,
            resend_after: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// A hint read from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchedHint {
    /// Its position in the target's log.
    pub id: u64,
    /// What it costs against the rate.
    pub bytes: u64,
    /// For how long it is worth delivering; `None` if it has expired
    /// ([`crate::protocol::hints::HintPolicy::time_left`]).
    pub time_left: Option<Duration>,
}

/// What the driver must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryEffect {
    /// Read hints from the log and report them with [`Delivery::on_fetched`].
    Fetch {
        /// Only hints with greater ids.
        after: u64,
        /// At most so many.
        hints_max: usize,
        /// Stop once they reach this many bytes, but read at least one.
        bytes_max: u64,
    },
    /// Send a fetched hint to the target.
    Send {
        /// Its id.
        id: u64,
    },
    /// Every hint up to this id is finished: drop them from the log.
    Acknowledge {
        /// The greatest finished id.
        up_to: u64,
    },
}

/// What became of hints so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Hints that the target acknowledged.
    pub delivered: u64,
    /// Hints given up because they had expired.
    pub expired: u64,
    /// Refusals by the target.
    pub refused: u64,
    /// Sends of a hint that had been sent before.
    pub resent: u64,
}

/// The decisions about one target's hints.
#[derive(Clone, Debug)]
pub struct Delivery {
    setup: DeliverySetup,
    window: Window,
    throttle: Throttle,
    pace: Pace,
    backoff: Backoff,
    up: bool,
    /// Nothing is fetched or sent before this moment.
    paused_until: Moment,
    fetching: bool,
    more_in_log: bool,
    fetched_up_to: u64,
    /// Finished at the front and not yet reported.
    finished_up_to: Option<u64>,
    finished_count: usize,
    counts: DeliveryCounts,
    now: Moment,
}

impl Delivery {
    /// Begins with a target that is down and a log that is empty: see `on_target_up`,
    /// `on_queued`. The first fetch asks for ids above 0.
    pub fn new(setup: DeliverySetup, seed: u64, now: Moment) -> Self {
        let in_flight_max = setup.in_flight_max.max(1);
        let window_bytes_max = setup.window_bytes_max.max(1);
        let setup = DeliverySetup { in_flight_max, window_bytes_max, ..setup };
        Delivery {
            window: Window::new(in_flight_max, window_bytes_max),
            throttle: Throttle::new(setup.bytes_per_second, BURST),
            pace: Pace::WHOLE,
            backoff: Backoff::new(setup.backoff_min, setup.backoff_max, seed),
            up: false,
            paused_until: now,
            fetching: false,
            more_in_log: false,
            fetched_up_to: 0,
            finished_up_to: None,
            finished_count: 0,
            counts: DeliveryCounts::default(),
            now,
            setup,
        }
    }

    /// The target can be reached.
    pub fn on_target_up(&mut self, now: Moment) {
        self.now = now;
        self.up = true;
        self.backoff.on_success();
        self.paused_until = now;
    }

    /// Whether the target can be reached, as far as was told.
    pub fn is_target_up(&self) -> bool {
        self.up
    }

    /// The target cannot be reached; what was in flight must be sent again.
    pub fn on_target_down(&mut self, now: Moment) {
        self.now = now;
        self.up = false;
        self.window.requeue_in_flight();
    }

    /// The log has hints that were not fetched yet.
    pub fn on_queued(&mut self, now: Moment) {
        self.now = now;
        self.more_in_log = true;
    }

    /// The log could not be read; it is tried again after a while.
    pub fn on_fetch_failed(&mut self, now: Moment) {
        self.now = now;
        self.fetching = false;
        self.more_in_log = true;
        self.pause();
    }

    /// The answer to `Fetch`: hints in log order, and whether the log ends with them.
    pub fn on_fetched(&mut self, hints: &[FetchedHint], exhausted: bool, now: Moment) {
        self.now = now;
        self.fetching = false;
        self.more_in_log |= !exhausted && !hints.is_empty();
        for hint in hints.iter().filter(|hint| hint.id > self.fetched_up_to) {
            self.window.push(hint, now);
        }
        self.fetched_up_to = hints.last().map_or(0, |hint| hint.id).max(self.fetched_up_to);
        self.retire();
    }

    /// The target has the hint's write durably.
    pub fn on_ack(&mut self, id: u64, now: Moment) {
        self.now = now;
        if self.window.finish(id) {
            self.counts.delivered += 1;
            self.backoff.on_success();
            self.retire();
        }
    }

    /// The target refused the hint's write.
    pub fn on_refusal(&mut self, id: u64, refusal: Refusal, now: Moment) {
        self.now = now;
        if !self.window.is_in_flight(id) {
            return;
        }
        self.counts.refused += 1;
        if refusal == Refusal::ClockOffset {
            self.window.set(id, Stage::Aside { until: now + self.setup.backoff_max });
        } else {
            self.window.set(id, Stage::Queued);
            self.pause();
        }
    }

    /// The transport certainly did not send the hint.
    pub fn on_unsent(&mut self, id: u64, now: Moment) {
        self.now = now;
        if self.window.is_in_flight(id) {
            self.window.set(id, Stage::Queued);
            self.pause();
        }
    }

    /// The stream ended; what was in flight must be sent again.
    pub fn on_lost(&mut self, now: Moment) {
        self.now = now;
        if self.window.requeue_in_flight() > 0 {
            self.pause();
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Moment) {
        self.now = now;
        self.window.requeue_due(now, self.setup.resend_after);
    }

    /// From here on only this part of the rate is used.
    pub fn on_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// What to do next; to be called until `None` after each event.
    pub fn poll(&mut self) -> Option<DeliveryEffect> {
        if let Some(effect) = self.poll_send() {
            return Some(effect);
        }
        self.poll_acknowledge().or_else(|| self.poll_fetch())
    }

    /// When `on_tick` is next needed; `None` while only an event can help.
    pub fn next_deadline(&self) -> Option<Moment> {
        if !self.up || self.is_idle() {
            return None;
        }
        let sendable = self.window.has_room_in_flight() && self.window.has_queued();
        let send_at = sendable.then(|| self.throttle.ready_at());
        let fetch_at = self.may_fetch().then_some(self.paused_until);
        let act_at = send_at.into_iter().chain(fetch_at).min().map(|at| at.max(self.paused_until));
        act_at.into_iter().chain(self.window.due_at(self.setup.resend_after)).min()
    }

    /// True when nothing is left to read, to send or to drop from the log.
    pub fn is_idle(&self) -> bool {
        self.window.is_empty()
            && self.finished_up_to.is_none()
            && !self.more_in_log
            && !self.fetching
    }

    /// What became of hints so far.
    pub fn counts(&self) -> DeliveryCounts {
        self.counts
    }
}

impl Delivery {
    fn is_active(&self) -> bool {
        self.up && self.now >= self.paused_until
    }

    /// Leaves the target alone for a while. What fails during a pause was sent before it.
    fn pause(&mut self) {
        if self.now >= self.paused_until {
            self.paused_until = self.now + self.backoff.on_failure();
        }
    }

    fn poll_send(&mut self) -> Option<DeliveryEffect> {
        while self.is_active() && self.window.has_room_in_flight() {
            let next = self.window.first_queued()?;
            if next.is_expired(self.now) {
                self.window.finish(next.id);
                self.counts.expired += 1;
                self.retire();
                continue;
            }
            if !self.throttle.is_ready(self.now) {
                return None;
            }
            self.throttle.take(self.pace.cost(next.bytes), self.now);
            self.counts.resent += u64::from(next.sent);
            self.window.set(next.id, Stage::InFlight { since: self.now });
            return Some(DeliveryEffect::Send { id: next.id });
        }
        None
    }

    /// Reports prefixes in batches of half a window, since dropping from the log costs a write;
    /// and whatever there is once the window is empty or the target gone.
    fn poll_acknowledge(&mut self) -> Option<DeliveryEffect> {
        let enough = self.finished_count >= self.setup.in_flight_max.div_ceil(2);
        if !(enough || self.window.is_empty() || !self.up) {
            return None;
        }
        let up_to = self.finished_up_to.take()?;
        self.finished_count = 0;
        Some(DeliveryEffect::Acknowledge { up_to })
    }

    fn poll_fetch(&mut self) -> Option<DeliveryEffect> {
        if !self.is_active() || !self.may_fetch() {
            return None;
        }
        self.fetching = true;
        self.more_in_log = false;
        Some(DeliveryEffect::Fetch {
            after: self.fetched_up_to,
            hints_max: self.window.room(),
            bytes_max: self.window.room_bytes(),
        })
    }

    /// Fetches when half of the window is free, so that reads are large.
    fn may_fetch(&self) -> bool {
        self.more_in_log
            && !self.fetching
            && self.window.room() >= self.setup.in_flight_max.div_ceil(2)
            && self.window.room_bytes() > self.setup.window_bytes_max / 2
    }

    fn retire(&mut self) {
        while let Some(id) = self.window.pop_finished() {
            self.finished_up_to = Some(id);
            self.finished_count += 1;
        }
    }
}
