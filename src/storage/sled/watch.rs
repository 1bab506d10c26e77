//! Calls that sled does not come back from.
//!
//! Whoever reads a page that sled has not written yet waits until it is written, on a condition
//! that sled 0.34.7 does not always signal when writing fails: readers, and the flush itself, then
//! wait for ever, and with them the threads that serve requests. A flush from elsewhere meets the
//! failure and wakes them, with the error. So a thread looks at the calls that are under way: it
//! *nudges* sled when one takes long, and *gives up* when that has not helped. A process that ends
//! is started again and replays its log; one that stands still neither serves nor fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// When the thread acts, and how often it looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The time from one look to the next, in which ages are counted.
    pub(super) look_every: Duration,
    /// After so many looks a call has sled nudged, and again with each further look.
    pub(super) nudge_after: u64,
    /// After so many looks it ends the process.
    pub(super) give_up_after: u64,
}

impl Patience {
    /// Five seconds, and a minute: longer than a disk takes that is slow.
    pub(super) const USUAL: Patience =
        Patience { look_every: Duration::from_secs(1), nudge_after: 5, give_up_after: 60 };

    /// As long as tests of the engine wait.
    #[cfg(test)]
    pub(super) const OF_TESTS: Patience = Patience {
        look_every: Duration::from_millis(100),
        nudge_after: 5,
        give_up_after: u64::MAX,
    };

    fn step(self, age: u64) -> Step {
        match age {
            age if age >= self.give_up_after => Step::GiveUp,
            age if age >= self.nudge_after => Step::Nudge,
            _ => Step::Wait,
        }
    }
}

/// What is to be done about the oldest call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Nudge,
    GiveUp,
}

/// What can be done about calls that do not return.
pub(super) trait Remedy: Send + Sync + 'static {
    /// Wakes what can be woken; may itself never return.
    fn nudge(&self);

    /// Ends the process, after a call has taken so long.
    fn give_up(&self, waited: Duration);
}

#[derive(Default)]
struct State {
    /// Looks so far.
    looks: u64,
    /// How many calls are under way, by the look before which they began.
    calls: BTreeMap<u64, usize>,
    nudges: u64,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    stopping: Condvar,
}

/// The calls that are under way, and the thread that looks at them, which ends with this.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A call that is under way; over when this is dropped.
pub(super) struct Call<'w> {
    shared: &'w Shared,
    began: u64,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let Some(calls) = state.calls.get_mut(&self.began) {
            *calls -= 1;
            if *calls == 0 {
                state.calls.remove(&self.began);
            }
        }
    }
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When there can be no thread for it.
    pub(super) fn begin(patience: Patience, remedy: impl Remedy) -> std::io::Result<Watch> {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("engine-watch".to_owned());
        let thread = thread.spawn(move || watched.run(patience, Arc::new(remedy)))?;
        Ok(Watch { shared, thread: Some(thread) })
    }

    /// Notes that a call begins.
    pub(super) fn enter(&self) -> Call<'_> {
        let mut state = self.shared.state.lock();
        let began = state.looks;
        *state.calls.entry(began).or_default() += 1;
        Call { shared: &self.shared, began }
    }

    /// How often sled was nudged.
    pub(super) fn nudges(&self) -> u64 {
        self.shared.state.lock().nudges
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.stopping.notify_all();
        // A panic of the thread was printed, and there is nobody to tell.
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn run<R: Remedy>(&self, patience: Patience, remedy: Arc<R>) {
        let mut nudge: Option<JoinHandle<()>> = None;
        let mut state = self.state.lock();
        while !state.stopped {
            let waited = self.stopping.wait_for(&mut state, patience.look_every);
            if !waited.timed_out() {
                continue;
            }
            state.looks += 1;
            let age = state.calls.keys().next().map_or(0, |began| state.looks - began);
            match patience.step(age) {
                Step::Wait => {}
                Step::Nudge if nudge.as_ref().is_none_or(JoinHandle::is_finished) => {
                    state.nudges += 1;
                    tracing::warn!(looks = age, "a call of the storage engine takes long");
                    let remedy = Arc::clone(&remedy);
                    let thread = std::thread::Builder::new().name("engine-nudge".to_owned());
                    nudge = thread.spawn(move || remedy.nudge()).ok();
                }
                Step::Nudge => {}
                Step::GiveUp => {
                    let looks = u32::try_from(age).unwrap_or(u32::MAX);
                    remedy.give_up(patience.look_every.saturating_mul(looks));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Longer than any machine takes to schedule a thread; reached only when a test fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Told(Mutex<Sender<&'static str>>);

    impl Remedy for Told {
        fn nudge(&self) {
            self.0.lock().send("nudge").ok();
        }

        fn give_up(&self, _waited: Duration) {
            self.0.lock().send("give up").ok();
        }
    }

    fn watch(give_up_after: u64) -> (Watch, Receiver<&'static str>) {
        let (sender, told) = channel();
        let look_every = Duration::from_millis(1);
        let patience = Patience { look_every, nudge_after: 3, give_up_after };
        (Watch::begin(patience, Told(Mutex::new(sender))).expect("a thread"), told)
    }

    #[test]
    fn patience_ends_in_two_steps() {
        let steps = [0, 4, 5, 59, 60, 61].map(|age| Patience::USUAL.step(age));
        let [none, short, long, longer, dead, ever] = steps;
        assert_eq!([none, short], [Step::Wait; 2]);
        assert_eq!([long, longer], [Step::Nudge; 2]);
        assert_eq!([dead, ever], [Step::GiveUp; 2]);
    }

    #[test]
    fn a_call_that_does_not_return_is_nudged_and_then_given_up() {
        let (watch, told) = watch(20);
        let call = watch.enter();
        assert_eq!(told.recv_timeout(PATIENCE), Ok("nudge"));
        while told.recv_timeout(PATIENCE).expect("it goes on") != "give up" {}
        drop(call);
        assert!(watch.nudges() > 0);
    }

    #[test]
    fn calls_that_return_are_forgotten_whichever_ends_first() {
        let (watch, told) = watch(u64::MAX);
        let old = watch.enter();
        assert_eq!(told.recv_timeout(PATIENCE), Ok("nudge"));
        let new = watch.enter();
        drop((old, new));
        assert!(watch.shared.state.lock().calls.is_empty());
        let shared = Arc::clone(&watch.shared);
        drop(watch);
        assert!(shared.state.lock().stopped && Arc::strong_count(&shared) == 1, "its thread ended");
    }
}
