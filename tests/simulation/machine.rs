//! One simulated machine: its clock, its random numbers, and whether it runs at all.
//!
//! A machine lives several lives, one per start of its node. What an earlier life left running
//! gets nothing done any more: its timers never fire and its disk jobs never run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use coterie::node::env::{Env, Job};
use coterie::node::groups::observer::GroupObserver;
use coterie::types::Moment;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::agenda::Agenda;
use crate::dice::Dice;

/// Unix milliseconds at the start of a run: 2026-01-01.
const WALL_START_MS: i64 = 1_767_225_600_000;

/// How long a job on a healthy disk takes at most, in milliseconds.
const HEALTHY_JOB_MS_MAX: u64 = 3;

/// What a machine's wall clock shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wall {
    /// Unix milliseconds.
    pub(crate) ms: u64,
    /// How often it was set so far: between two readings with the same number it only ran.
    pub(crate) settings: u64,
}

/// The machine below one node.
pub(crate) struct Machine {
    agenda: Arc<Agenda>,
    life: AtomicU64,
    skew_ms: AtomicI64,
    clock_settings: AtomicU64,
    job_ms_max: AtomicU64,
    paused: Mutex<bool>,
    resumed: Notify,
}

impl Machine {
    pub(crate) fn new(agenda: Arc<Agenda>) -> Arc<Machine> {
        Arc::new(Machine {
            agenda,
            life: AtomicU64::new(0),
            skew_ms: AtomicI64::new(0),
            clock_settings: AtomicU64::new(0),
            job_ms_max: AtomicU64::new(HEALTHY_JOB_MS_MAX),
            paused: Mutex::new(false),
            resumed: Notify::new(),
        })
    }

    /// The life that it lives now.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(SeqCst)
    }

    /// Ends the present life.
    pub(crate) fn end_life(&self) {
        self.life.fetch_add(1, SeqCst);
    }

    /// Sets the wall clock apart from the others', in milliseconds.
    pub(crate) fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, SeqCst);
        self.clock_settings.fetch_add(1, SeqCst);
    }

    /// What the wall clock shows.
    pub(crate) fn wall(&self) -> Wall {
        let since_start_ms =
            i64::try_from(self.agenda.now().0 / 1000).expect("runs end within years");
        let wall_ms = WALL_START_MS + since_start_ms + self.skew_ms.load(SeqCst);
        let ms = u64::try_from(wall_ms).expect("clocks stay past 1970");
        Wall { ms, settings: self.clock_settings.load(SeqCst) }
    }

    /// Makes disk jobs take up to this many milliseconds; `None` for a healthy disk.
    pub(crate) fn set_job_ms_max(&self, job_ms_max: Option<u64>) {
        self.job_ms_max.store(job_ms_max.unwrap_or(HEALTHY_JOB_MS_MAX), SeqCst);
    }

    /// Stops timers and disk jobs, as `SIGSTOP` would, or lets them go on.
    pub(crate) fn set_paused(&self, paused: bool) {
        *self.paused.lock() = paused;
        if !paused {
            self.resumed.notify_waiters();
        }
    }

    /// Resolves at once while the machine lives the given life unpaused; after a crash, never.
    async fn runs(&self, life: u64) {
        loop {
            let resumed = self.resumed.notified();
            if self.life() != life {
                std::future::pending::<()>().await;
            }
            if !*self.paused.lock() {
                return;
            }
            resumed.await;
        }
    }
}

/// The environment of one life of one node.
pub(crate) struct SimEnv {
    machine: Arc<Machine>,
    life: u64,
    dice: Mutex<Dice>,
    observer: Option<Arc<dyn GroupObserver>>,
}

impl SimEnv {
    /// An environment whose groups are looked at.
    pub(crate) fn watched(
        machine: Arc<Machine>,
        dice: Dice,
        observer: Arc<dyn GroupObserver>,
    ) -> Arc<SimEnv> {
        let life = machine.life();
        Arc::new(SimEnv { machine, life, dice: Mutex::new(dice), observer: Some(observer) })
    }

    #[cfg(test)]
    pub(crate) fn new(machine: Arc<Machine>, dice: Dice) -> Arc<SimEnv> {
        let life = machine.life();
        Arc::new(SimEnv { machine, life, dice: Mutex::new(dice), observer: None })
    }
}

impl Env for SimEnv {
    fn group_observer(&self) -> Option<Arc<dyn GroupObserver>> {
        self.observer.clone()
    }

    fn now(&self) -> Moment {
        self.machine.agenda.now()
    }

    fn wall_ms(&self) -> u64 {
        self.machine.wall().ms
    }

    fn random(&self) -> u64 {
        self.dice.lock().next()
    }

    fn sleep_until(&self, moment: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (machine, life) = (self.machine.clone(), self.life);
        Box::pin(async move {
            machine.agenda.sleep_until(moment).await;
            machine.runs(life).await;
        })
    }

    fn run_blocking(&self, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (machine, life) = (self.machine.clone(), self.life);
        let job_ms = self.dice.lock().between(0, machine.job_ms_max.load(SeqCst));
        Box::pin(async move {
            machine.agenda.sleep(Duration::from_millis(job_ms)).await;
            machine.runs(life).await;
            job();
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paused_machine_runs_its_jobs_when_it_resumes() {
        let agenda = Agenda::start();
        let machine = Machine::new(agenda.clone());
        let env = SimEnv::new(machine.clone(), Dice::new(1));
        machine.set_paused(true);
        let waker = machine.clone();
        agenda.after(Duration::from_millis(500), move || waker.set_paused(false));
        env.run_blocking(Box::new(|| ())).await;
        assert_eq!(agenda.now().0, 500_000);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ended_life_never_runs_its_jobs() {
        let agenda = Agenda::start();
        let machine = Machine::new(agenda.clone());
        let env = SimEnv::new(machine.clone(), Dice::new(1));
        machine.end_life();
        let job = env.run_blocking(Box::new(|| panic!("a dead machine wrote")));
        tokio::select! {
            biased;
            () = job => panic!("a dead machine went on"),
            () = agenda.sleep(Duration::from_secs(10)) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_follows_virtual_time_and_skew() {
        let agenda = Agenda::start();
        let machine = Machine::new(agenda.clone());
        let env = SimEnv::new(machine.clone(), Dice::new(1));
        let before = env.wall_ms();
        agenda.sleep(Duration::from_millis(250)).await;
        machine.set_skew_ms(-100);
        assert_eq!(env.wall_ms(), before + 150);
    }
}
