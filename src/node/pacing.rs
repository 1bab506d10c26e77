//! Takes the node's pulse while background work copies rows, and holds its rates to the pace that
//! [`crate::protocol::pace`] makes of it.
//!
//! Whoever copies rows asks for the pace, and that keeps the pulse going; where nobody has asked
//! for a while, no pulse is taken and nothing is woken.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::node::env::Env;
use crate::node::tasks::Stop;
use crate::protocol::pace::{PULSE_INTERVAL, Pace, Pacemaker};
use crate::protocol::throttle::Throttle;
use crate::telemetry::Metrics;
use crate::types::Moment;

/// For how long the pulse goes on when nobody asks for the pace any more.
const REST_AFTER: Duration = Duration::from_secs(5);

/// How long bytes may gather that a rate allows.
const BURST: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    pacemaker: Pacemaker,
    /// Until when pulses are taken.
    until: Moment,
}

/// The pace of a node's background work.
pub(crate) struct Pacing {
    env: Arc<dyn Env>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    woken: Notify,
}

impl Pacing {
    pub(crate) fn new(env: Arc<dyn Env>, metrics: Arc<Metrics>) -> Pacing {
        metrics.background_pace_percent.set(100);
        Pacing { env, metrics, state: Mutex::default(), woken: Notify::new() }
    }

    /// The present pace, for somebody who copies rows.
    pub(crate) fn pace(&self) -> Pace {
        let now = self.env.now();
        let mut state = self.state.lock();
        if state.until < now {
            state.pacemaker = Pacemaker::new();
            self.woken.notify_one();
        }
        state.until = now + REST_AFTER;
        state.pacemaker.pace()
    }

    /// The present pace, for somebody who looks on: `None` while nothing is copied.
    pub(crate) fn shown(&self) -> Option<Pace> {
        let state = self.state.lock();
        (state.until >= self.env.now()).then(|| state.pacemaker.pace())
    }

    /// Takes the pulse whenever rows are copied, until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        while !stop.is_requested() {
            let due = self.env.now() + PULSE_INTERVAL;
            let is_wanted = self.state.lock().until >= self.env.now();
            if !is_wanted {
                self.metrics.background_pace_percent.set(100);
            }
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.woken.notified(), if !is_wanted => {}
                () = self.env.sleep_until(due), if is_wanted => self.on_pulse(due),
            }
        }
    }

    fn on_pulse(&self, due: Moment) {
        let late = self.env.now().since(due);
        let mut state = self.state.lock();
        if state.pacemaker.on_pulse(late) {
            self.metrics.background_pulses_late.inc();
        }
        let percent = state.pacemaker.pace().percent();
        self.metrics.background_pace_percent.set(u64::from(percent));
    }
}

/// A rate that keeps to the pace.
pub(crate) struct PacedRate {
    env: Arc<dyn Env>,
    pacing: Arc<Pacing>,
    throttle: Mutex<Throttle>,
}

impl PacedRate {
    /// At most so many bytes in a second.
    pub(crate) fn new(pacing: &Arc<Pacing>, bytes_per_second: u64) -> PacedRate {
        let throttle = Mutex::new(Throttle::new(bytes_per_second, BURST));
        PacedRate { env: Arc::clone(&pacing.env), pacing: Arc::clone(pacing), throttle }
    }

    /// Resolves once more bytes may be copied.
    pub(crate) async fn ready(&self) {
        loop {
            let (now, ready) = (self.env.now(), self.throttle.lock().ready_at());
            if ready <= now {
                return;
            }
            // The pulse goes on meanwhile.
            self.pacing.pace();
            self.env.sleep_until(ready.min(now + REST_AFTER / 2)).await;
        }
    }

    /// Notes that so many bytes are copied.
    pub(crate) fn pay(&self, bytes: u64) {
        let cost = self.pacing.pace().cost(bytes);
        self.throttle.lock().take(cost, self.env.now());
    }

    /// This rate's part of a size.
    pub(crate) fn part_of(&self, bytes: u32) -> u32 {
        self.pacing.pace().part_of(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::env::Machine;
    use crate::node::tasks::Tasks;

    fn pacing() -> Arc<Pacing> {
        Arc::new(Pacing::new(Arc::new(Machine::new()), Arc::new(Metrics::new())))
    }

    /// Keeps the only thread of the runtime busy for so long.
    fn busy(pacing: &Pacing, time: Duration) {
        let until = pacing.env.now() + time;
        while pacing.env.now() < until {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn a_node_that_comes_late_slows_what_it_copies() {
        let pacing = pacing();
        let tasks = Tasks::new();
        assert_eq!(pacing.shown(), None);
        let first = pacing.pace();
        tasks.spawn(Arc::clone(&pacing).run(tasks.stop_signal()));
        let late = || pacing.metrics.background_pulses_late.get();
        while late() == 0 {
            // The pulse is waited for by then.
            tokio::task::yield_now().await;
            busy(&pacing, PULSE_INTERVAL * 4);
            tokio::task::yield_now().await;
            pacing.pace();
        }
        assert!(pacing.shown() < Some(first), "{:?}", pacing.shown());
        let percent = pacing.metrics.background_pace_percent.get();
        assert!(percent < u64::from(first.percent()), "{percent} %");
        tasks.stop().await;
    }

    #[tokio::test]
    async fn no_pulse_is_taken_while_nothing_is_copied() {
        let pacing = pacing();
        let tasks = Tasks::new();
        tasks.spawn(Arc::clone(&pacing).run(tasks.stop_signal()));
        tokio::task::yield_now().await;
        busy(&pacing, PULSE_INTERVAL * 4);
        // The runtime looks at its timers once in 61 turns.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        assert_eq!((pacing.metrics.background_pulses_late.get(), pacing.shown()), (0, None));
        assert_eq!(pacing.metrics.background_pace_percent.get(), 100);
        tasks.stop().await;
    }

    #[tokio::test]
    async fn a_rate_counts_what_is_copied_by_the_pace() {
        let pacing = pacing();
        let rate = PacedRate::new(&pacing, 1 << 20);
        rate.ready().await;
        let (before, pace) = (pacing.env.now(), pacing.pace());
        rate.pay(1 << 20);
        let ready = rate.throttle.lock().ready_at();
        let second = Duration::from_secs(1);
        let whole = Duration::from_micros(pace.cost(1_000_000)).saturating_sub(BURST);
        assert!(ready >= before + whole && whole > second, "{ready:?} after {before:?}");
        assert!(rate.part_of(1 << 10) < 1 << 10);
    }
}
