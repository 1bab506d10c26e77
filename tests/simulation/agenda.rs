//! Virtual time, and what is to happen in it: one queue of actions in order of their moments.
//!
//! The runtime's clock is paused and jumps to the next timer whenever every task waits, so a
//! minute of the cluster's life takes milliseconds, and nothing depends on the machine's speed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coterie::types::Moment;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

type Action = Box<dyn FnOnce() + Send>;

/// The clock of a run and its queue of actions.
pub(crate) struct Agenda {
    started: Instant,
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    /// Actions of one moment run in the order in which they were asked for.
    next: u64,
    due: BTreeMap<(Moment, u64), Action>,
}

impl Agenda {
    /// Starts the clock at zero, and the task that performs the actions.
    #[allow(clippy::disallowed_methods, reason = "the simulation owns the clock: here it is")]
    pub(crate) fn start() -> Arc<Agenda> {
        let agenda = Arc::new(Agenda {
            started: Instant::now(),
            queue: Mutex::default(),
            changed: Notify::new(),
        });
        // Ends with the run's runtime, which owns it.
        tokio::spawn(perform(agenda.clone()));
        agenda
    }

    /// Time since the run began.
    #[allow(clippy::disallowed_methods, reason = "the simulation owns the clock: here it is")]
    pub(crate) fn now(&self) -> Moment {
        Moment::default() + Instant::now().duration_since(self.started)
    }

    /// Performs an action once `delay` has passed.
    pub(crate) fn after(&self, delay: Duration, action: impl FnOnce() + Send + 'static) {
        self.at(self.now() + delay, action);
    }

    /// Performs an action at a moment.
    pub(crate) fn at(&self, moment: Moment, action: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue.lock();
        queue.next += 1;
        let place = (moment, queue.next);
        queue.due.insert(place, Box::new(action));
        self.changed.notify_one();
    }

    /// Resolves once the moment has come.
    pub(crate) async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.started + Duration::from_micros(moment.0)).await;
    }

    /// Resolves after a span of virtual time.
    pub(crate) async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now() + span).await;
    }

    fn take_due(&self) -> Result<Action, Option<Moment>> {
        let now = self.now();
        let mut queue = self.queue.lock();
        let Some(first) = queue.due.first_entry() else { return Err(None) };
        let moment = first.key().0;
        if moment <= now { Ok(first.remove()) } else { Err(Some(moment)) }
    }
}

async fn perform(agenda: Arc<Agenda>) {
    loop {
        match agenda.take_due() {
            Ok(action) => {
                action();
                // Lets the nodes act on this before the next thing happens to them.
                tokio::task::yield_now().await;
            }
            Err(None) => agenda.changed.notified().await,
            Err(Some(moment)) => tokio::select! {
                biased;
                () = agenda.changed.notified() => {}
                () = agenda.sleep_until(moment) => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn actions_run_in_order_of_moment_then_of_asking() {
        let agenda = Agenda::start();
        let seen: Arc<Mutex<Vec<(u64, &str)>>> = Arc::default();
        for (after_ms, name) in [(30, "late"), (10, "first"), (10, "second")] {
            let (clock, seen) = (agenda.clone(), seen.clone());
            let note = move || seen.lock().push((clock.now().0 / 1000, name));
            agenda.after(Duration::from_millis(after_ms), note);
        }
        agenda.sleep(Duration::from_millis(40)).await;
        assert_eq!(*seen.lock(), [(10, "first"), (10, "second"), (30, "late")]);
    }
}
