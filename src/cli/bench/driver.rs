//! Runs a plan: preload, warm-up and measurement, each a set of callers that share a schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cli::bench::keys::{Chooser, Steps};
use crate::cli::bench::report::{Report, Tally};
use crate::cli::bench::{Action, Caller, Monitor, Pace, Plan, Stage, Step, Stop, Target};
use crate::node::env::{Env, Machine};
use crate::types::Moment;

/// How late an operation of an open loop may start; what is later still is dropped and counted.
const LATENESS_MAX: Duration = Duration::from_secs(1);
/// The granularity of tokio's timers. An operation is awaited that much short of its time and may
/// start early by at most this: then its latency counts from its actual start.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Operations that have ended so far, for a progress bar.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) ended: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// Puts the plan's load on a target and reports what was measured.
pub async fn run<T: Target>(plan: &Plan, target: &T, monitor: &Arc<Monitor>) -> Report {
    let run = Run { plan, target, monitor, clock: Arc::new(Machine::new()) };
    if plan.preload {
        let every_key = Stop::Operations(plan.keys);
        run.stage("preload", Pace::Closed, every_key, Work::EveryKey).await;
    }
    if !plan.warmup.is_zero() {
        run.stage("warm-up", plan.pace, Stop::After(plan.warmup), Work::Mixed).await;
    }
    run.stage("measuring", plan.pace, plan.stop, Work::Mixed).await
}

struct Run<'a, T> {
    plan: &'a Plan,
    target: &'a T,
    monitor: &'a Arc<Monitor>,
    clock: Arc<Machine>,
}

/// Which operations a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    EveryKey,
    Mixed,
}

impl<T: Target> Run<'_, T> {
    async fn stage(&self, name: &'static str, pace: Pace, stop: Stop, work: Work) -> Report {
        *self.monitor.stage.lock() = Stage { name, stop };
        self.monitor.counts.ended.store(0, Ordering::Relaxed);
        let schedule = Arc::new(Schedule::new(Arc::clone(&self.clock), pace, stop));
        let chooser = Chooser::new(self.plan.keys, self.plan.distribution);
        let mut callers = JoinSet::new();
        for index in 0..self.plan.callers {
            let worker = Worker {
                schedule: Arc::clone(&schedule),
                monitor: Arc::clone(self.monitor),
                work,
                steps: Steps::new(chooser, self.plan.read_ratio, self.plan.seed, index),
            };
            callers.spawn(worker.run(self.target.caller(index)));
        }
        let mut total = Tally::new();
        while let Some(tally) = callers.join_next().await {
            total.merge(tally.expect("invariant: a caller neither panics nor is aborted"));
        }
        let until = schedule.until.filter(|_| !self.monitor.is_stopped());
        total.report(schedule.start, until)
    }
}

/// When operations start, shared by all callers of a stage.
struct Schedule {
    clock: Arc<Machine>,
    start: Moment,
    until: Option<Moment>,
    operations: Option<u64>,
    /// Microseconds between two operations of an open loop.
    interval_us: Option<f64>,
    tickets: AtomicU64,
}

/// One operation's place in the schedule.
struct Slot {
    ticket: u64,
    due: Option<Moment>,
}

impl Schedule {
    fn new(clock: Arc<Machine>, pace: Pace, stop: Stop) -> Self {
        let start = clock.now();
        let (until, operations) = match stop {
            Stop::After(duration) => (Some(start + duration), None),
            Stop::Operations(operations) => (None, Some(operations)),
        };
        let interval_us = match pace {
            Pace::Closed => None,
            Pace::Open { per_second } => Some(1e6 / per_second),
        };
        Schedule { clock, start, until, operations, interval_us, tickets: AtomicU64::new(0) }
    }

    /// The next operation's place; `None` when the schedule has ended.
    fn next(&self) -> Option<Slot> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        if self.operations.is_some_and(|operations| ticket >= operations) {
            return None;
        }
        let due = self.interval_us.map(|us| self.start + after(us, ticket));
        let begin = due.unwrap_or_else(|| self.clock.now());
        let over = self.until.is_some_and(|until| begin >= until);
        (!over).then_some(Slot { ticket, due })
    }
}

fn after(interval_us: f64, ticket: u64) -> Duration {
    Duration::from_micros((interval_us * ticket as f64) as u64)
}

struct Worker {
    schedule: Arc<Schedule>,
    monitor: Arc<Monitor>,
    work: Work,
    steps: Steps,
}

impl Worker {
    async fn run(mut self, mut caller: impl Caller) -> Tally {
        let mut tally = Tally::new();
        let mut stop = self.monitor.stop.subscribe();
        while !*stop.borrow_and_update() {
            let Some(slot) = self.schedule.next() else { break };
            let Some(begin) = self.begin(&slot, &mut stop).await else {
                tally.dropped += u64::from(!*stop.borrow());
                continue;
            };
            let step = self.step(&slot);
            let answer = caller.call(step).await;
            let counts = &self.monitor.counts;
            counts.ended.fetch_add(1, Ordering::Relaxed);
            counts.failed.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
            let end = self.schedule.clock.now();
            tally.record(step.action, (begin, end), self.schedule.until, answer);
        }
        tally
    }

    fn step(&mut self, slot: &Slot) -> Step {
        match self.work {
            Work::EveryKey => Step { action: Action::Put, key: slot.ticket },
            Work::Mixed => self.steps.next(),
        }
    }

    /// Awaits an operation's time and tells from when its latency counts; `None` when it is too
    /// late to start, or when the load is stopped.
    async fn begin(&self, slot: &Slot, stop: &mut watch::Receiver<bool>) -> Option<Moment> {
        let clock = &self.schedule.clock;
        let Some(due) = slot.due else { return Some(clock.now()) };
        if clock.now() < due - TIMER_TICK {
            tokio::select! { biased;
                _ = stop.changed() => return None,
                () = clock.sleep_until(due - TIMER_TICK) => {}
            }
        }
        let now = clock.now();
        (now.since(due) <= LATENESS_MAX).then(|| now.min(due))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::cli::bench::{Distribution, Done, Failed};

    /// Counts what it is asked, and takes a while for it.
    #[derive(Clone, Default)]
    struct Fake {
        steps: Arc<Mutex<Vec<Step>>>,
        pause: Duration,
        fails: bool,
    }

    impl Target for Fake {
        type Caller = Fake;
        fn caller(&self, _index: usize) -> Fake {
            self.clone()
        }
    }

    impl Caller for Fake {
        async fn call(&mut self, step: Step) -> Result<Done, Failed> {
            self.steps.lock().expect("no poison").push(step);
            tokio::time::sleep(self.pause).await;
            match self.fails {
                true => Err(Failed { kind: "BROKEN".into(), message: "x".into() }),
                false => Ok(Done { value_bytes: 1, ..Done::default() }),
            }
        }
    }

    fn plan(pace: Pace, stop: Stop) -> Plan {
        Plan {
            read_ratio: 0.5,
            keys: 10,
            distribution: Distribution::Uniform,
            pace,
            callers: 4,
            stop,
            warmup: Duration::ZERO,
            preload: false,
            seed: 1,
        }
    }

    async fn run_on(plan: &Plan, target: &Fake) -> Report {
        run(plan, target, &Arc::new(Monitor::default())).await
    }

    #[tokio::test]
    async fn a_number_of_operations_is_done_exactly() {
        let fake = Fake::default();
        let report = run_on(&plan(Pace::Closed, Stop::Operations(100)), &fake).await;
        assert_eq!(report.operations, 100);
        assert_eq!(fake.steps.lock().expect("no poison").len(), 100);
        assert_eq!(report.bytes_read + report.bytes_written, 100);
    }

    #[tokio::test]
    async fn preload_writes_every_key_once_and_is_not_measured() {
        let fake = Fake::default();
        let only_reads =
            Plan { read_ratio: 1.0, preload: true, ..plan(Pace::Closed, Stop::Operations(5)) };
        let report = run_on(&only_reads, &fake).await;
        assert_eq!((report.operations, report.bytes_written), (5, 0));
        let steps = fake.steps.lock().expect("no poison");
        let mut put: Vec<u64> =
            steps.iter().filter(|s| s.action == Action::Put).map(|s| s.key).collect();
        put.sort_unstable();
        assert_eq!(put, (0..10).collect::<Vec<u64>>());
    }

    #[tokio::test]
    async fn a_slow_target_in_an_open_loop_shows_the_wait_in_its_latency() {
        // 4 callers of 50 ms each can do 80 per second; 200 per second are due for half a second.
        // A closed loop would report 50 ms throughout.
        let fake = Fake { pause: Duration::from_millis(50), ..Fake::default() };
        let pace = Pace::Open { per_second: 200.0 };
        let report = run_on(&plan(pace, Stop::After(Duration::from_millis(500))), &fake).await;
        let puts = report.put.expect("puts").latency;
        assert!(puts.max_us > 400_000, "{puts:?}");
        assert_eq!(report.operations + report.dropped, 100);
    }

    #[tokio::test]
    async fn what_is_too_late_is_dropped_and_counted() {
        let fake = Fake { pause: Duration::from_millis(300), ..Fake::default() };
        let pace = Pace::Open { per_second: 200.0 };
        let report = run_on(&plan(pace, Stop::After(Duration::from_millis(1000))), &fake).await;
        assert!(report.dropped > 100, "{} were dropped", report.dropped);
        assert_eq!(report.operations + report.dropped, 200);
    }

    #[tokio::test]
    async fn an_open_loop_keeps_its_rate() {
        let pace = Pace::Open { per_second: 500.0 };
        let stop = Stop::After(Duration::from_millis(400));
        let report = run_on(&plan(pace, stop), &Fake::default()).await;
        assert_eq!(report.operations + report.dropped, 200);
    }

    #[tokio::test]
    async fn failures_are_counted_and_a_stop_ends_it() {
        let fake = Fake { pause: Duration::from_millis(5), fails: true, ..Fake::default() };
        let monitor = Arc::new(Monitor::default());
        let long = plan(Pace::Closed, Stop::After(Duration::from_secs(600)));
        let load = run(&long, &fake, &monitor);
        let stop = async {
            while fake.steps.lock().expect("no poison").len() < 20 {
                tokio::task::yield_now().await;
            }
            monitor.stop();
        };
        let (report, ()) = tokio::join!(load, stop);
        assert!(report.failed() >= 16 && report.operations == 0, "{report:?}");
        assert!(report.seconds < 60.0);
    }
}
