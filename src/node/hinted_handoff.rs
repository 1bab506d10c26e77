//! Keeps writes for absent primaries and delivers them once they are back.
//!
//! What to keep and how fast to deliver is decided by [`crate::protocol::hints`]; this driver owns
//! one delivery per target and one task for all of them. Keeping a hint costs a request one append
//! in memory: the task writes and syncs what has gathered. Only a fallback's acknowledgement, which
//! counts towards a sloppy quorum, waits for the sync.

mod redirect;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::HintLimits;
use crate::net::transport::Transport;
use crate::node::admission::Admission;
use crate::node::anti_entropy::LostHints;
use crate::node::clock::Clock;
use crate::node::committer::{Committed, Completions, ReplyTo};
use crate::node::coordinator::pending::first_number;
use crate::node::coordinator::{NUMBERS, Owner};
use crate::node::env::{Env, run_blocking};
use crate::node::gate::Gate;
use crate::node::health::Health;
use crate::node::hinted_handoff::redirect::{is_given_up, others_own};
use crate::node::local::Local;
use crate::node::members::Members;
use crate::node::status::Activity;
use crate::node::tasks::Stop;
use crate::protocol::exchange::schedule::Pair;
use crate::protocol::hints::delivery::FetchedHint;
use crate::protocol::hints::{Delivery, DeliveryEffect, DeliverySetup, HintPolicy, NotAdmitted};
use crate::protocol::message::{Class, Message, Refusal, Write};

use crate::storage::hint_log::{Hint, HintLog, HintLogError, QueuedHint};
use crate::telemetry::Metrics;
use crate::types::{Moment, NodeId, Row};

/// How long hints gather in memory before they are written: a crash of this node within that time
/// loses hints, which repair makes good.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// Hints that could not be written may gather up to this many bytes; then no more are kept.
const UNWRITTEN_BYTES_MAX: usize = 16 << 20;

/// How long a target may take to answer one hint, as the message says.
const HINT_TIME_LEFT: Duration = Duration::from_secs(5);

/// One target: its delivery, and the rows that it has fetched.
struct Lane {
    delivery: Delivery,
    rows: BTreeMap<u64, Row>,
}

impl Lane {
    /// A hint has reached its target, or has become pointless.
    fn finish(&mut self, id: u64, now: Moment) {
        self.rows.remove(&id);
        self.delivery.on_ack(id, now);
    }
}

/// What a lane wants from the disk.
enum DiskWork {
    Fetch {
        target: NodeId,
        after: u64,
        bytes_max: u64,
    },
    Acknowledge {
        target: NodeId,
        up_to: u64,
    },
    Drop {
        target: NodeId,
    },
    /// The target does not own the key any more: those who do get the row.
    Redirect {
        target: NodeId,
        id: u64,
        row: Row,
        owners: Vec<NodeId>,
    },
}

/// Drives hinted handoff.
pub(crate) struct HintedHandoff {
    env: Arc<dyn Env>,
    clock: Arc<Clock>,
    health: Arc<Health>,
    admission: Arc<Admission>,
    log: Arc<HintLog>,
    metrics: Arc<Metrics>,
    lost: Arc<LostHints>,
    transport: Arc<dyn Transport>,
    members: Arc<Members>,
    gate: Arc<Gate>,
    policy: HintPolicy,
    setup: DeliverySetup,
    /// What is added to a hint's position to number its message: positions that a crash took back
    /// are given again, and a reply to the hint that stood there must not finish another.
    first_number: u64,
    lanes: Mutex<BTreeMap<NodeId, Lane>>,
    /// Who waits until the hints that they asked to be kept are durable.
    waiting: Mutex<Vec<ReplyTo>>,
    woken: Notify,
}

impl HintedHandoff {
    pub(crate) fn new(
        local: &Local,
        limits: HintLimits,
        transport: Arc<dyn Transport>,
        members: Arc<Members>,
        gate: Arc<Gate>,
    ) -> Self {
        let handoff = HintedHandoff {
            env: Arc::clone(&local.env),
            clock: Arc::clone(&local.clock),
            health: Arc::clone(&local.health),
            admission: Arc::clone(&local.replica.admission),
            first_number: first_number(local.env.random()),
            log: Arc::clone(&local.hint_log),
            metrics: Arc::clone(&local.metrics),
            lost: Arc::clone(&local.lost_hints),
            transport,
            members,
            gate,
            policy: HintPolicy::new(limits.window, limits.bytes_per_target_max),
            setup: DeliverySetup::at_rate(limits.replay_bytes_per_second),
            lanes: Mutex::new(BTreeMap::new()),
            waiting: Mutex::new(Vec::new()),
            woken: Notify::new(),
        };
        for kept in handoff.log.targets() {
            handoff.with_lane(kept.target, Delivery::on_queued);
        }
        handoff
    }

    /// Has the target's rows compared soon, as it may lack this one for good.
    fn note_lost(&self, target: NodeId, row: &Row) {
        let partition = self.gate.topology.load().ring.partition_of(&row.key);
        self.lost.note(Pair { keyspace: row.keyspace, partition, peer: target });
    }

    /// Keeps a row for an absent primary; false when it is not admitted.
    pub(crate) fn keep(&self, target: NodeId, row: Row) -> bool {
        match self.admit(target, &row) {
            Ok(()) => {
                self.append(target, row);
                true
            }
            Err(reason) => {
                tracing::debug!(%target, %reason, "no hint is kept");
                self.metrics.hints_refused.inc();
                self.note_lost(target, &row);
                false
            }
        }
    }

    /// Keeps a row for an absent primary in whose stead this node, a fallback, counts; `waiter` is
    /// acknowledged once it is durable.
    ///
    /// # Errors
    /// [`Refusal::HintNotAdmitted`], or that this node takes no writes at all; the waiter then
    /// hears nothing from here.
    pub(crate) fn keep_durably(
        &self,
        target: NodeId,
        row: Row,
        waiter: ReplyTo,
    ) -> Result<(), Refusal> {
        self.health.check_writable()?;
        if !self.keep(target, row) {
            return Err(Refusal::HintNotAdmitted);
        }
        self.waiting.lock().push(waiter);
        self.woken.notify_one();
        Ok(())
    }

    /// Takes a target's answer to a hint.
    pub(crate) fn on_reply(&self, from: NodeId, number: u64, outcome: Result<(), Refusal>) {
        let id = number.wrapping_sub(self.first_number) & (NUMBERS - 1);
        let now = self.env.now();
        let mut lanes = self.lanes.lock();
        let Some(lane) = lanes.get_mut(&from) else { return };
        match outcome {
            Ok(()) => {
                lane.finish(id, now);
                self.metrics.hints_delivered.inc();
            }
            Err(Refusal::KeyspaceDropped) => {
                lane.finish(id, now);
                self.metrics.hints_expired.inc();
            }
            Err(refusal) => lane.delivery.on_refusal(id, refusal, now),
        }
        self.woken.notify_one();
    }

    /// Begins to deliver to a peer that can be reached.
    pub(crate) fn on_reachable(&self, peer: NodeId) {
        if let Some(lane) = self.lanes.lock().get_mut(&peer) {
            lane.delivery.on_target_up(self.env.now());
            self.woken.notify_one();
        }
    }

    /// Ceases to deliver to a peer whose stream is gone.
    pub(crate) fn on_disconnected(&self, peer: NodeId) {
        if let Some(lane) = self.lanes.lock().get_mut(&peer) {
            lane.delivery.on_target_down(self.env.now());
        }
    }

    /// The ring has changed: what is kept for a node that has gone may go to others by now.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Writes and delivers until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, completions: Arc<dyn Completions>, mut stop: Stop) {
        let mut flushed_at = self.env.now();
        while !stop.is_requested() {
            let overdue = self.env.now().since(flushed_at) >= FLUSH_INTERVAL;
            if self.wants_flush(overdue) {
                self.flush(&*completions).await;
                flushed_at = self.env.now();
            }
            let work = self.poll();
            let worked = !work.is_empty();
            for item in work {
                self.work(item).await;
            }
            if worked {
                continue;
            }
            let next = self.next_deadline(flushed_at);
            let timer = async {
                match next {
                    Some(moment) => self.env.sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.woken.notified() => {}
                () = timer => self.tick(),
            }
        }
    }

    /// Writes and syncs what has gathered, and acknowledges those who wait for it.
    pub(crate) async fn flush(&self, completions: &dyn Completions) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let log = Arc::clone(&self.log);
        let flushed = run_blocking(&*self.env, move || log.flush(true)).await;
        if let Err(error) = &flushed {
            tracing::error!(%error, "hints could not be written; they are kept in memory");
        }
        // What stays in memory may yet be written, and delivered.
        let outcome = flushed.map(|()| Committed::default()).map_err(|_| Refusal::InDoubt);
        for waiter in waiting {
            completions.on_committed(waiter, outcome.clone());
        }
    }

    /// One line for status.
    pub(crate) fn activity(&self) -> Activity {
        let targets = self.log.targets();
        let hints: u64 = targets.iter().map(|kept| kept.hints).sum();
        let bytes: u64 = targets.iter().map(|kept| kept.bytes).sum();
        let sendable = targets.iter().any(|kept| self.transport.is_connected(kept.target));
        let state = match (hints, sendable) {
            (0, _) => "idle",
            (_, true) => "busy",
            (_, false) => "waiting",
        };
        let delivered = self.metrics.hints_delivered.get();
        let detail = format!(
            "{hints} hints ({bytes} bytes) for {} nodes, {delivered} delivered",
            targets.len()
        );
        Activity { name: "hinted handoff", state, detail }
    }

    fn admit(&self, target: NodeId, row: &Row) -> Result<(), NotAdmitted> {
        if self.health.check_writable().is_err() {
            return Err(NotAdmitted::NotWritable);
        }
        if self.members.is_forgotten(target) {
            return Err(NotAdmitted::UnknownTarget);
        }
        let queued_bytes = self.log.bytes(target);
        if self.log.buffered_bytes() > UNWRITTEN_BYTES_MAX {
            let bytes_per_target_max = UNWRITTEN_BYTES_MAX as u64;
            let hint_bytes = row.cost_bytes() as u64;
            return Err(NotAdmitted::Cap { queued_bytes, hint_bytes, bytes_per_target_max });
        }
        let down_for = self.members.down_for(target);
        self.policy.admit(down_for, queued_bytes, row.cost_bytes() as u64)
    }

    fn append(&self, target: NodeId, row: Row) {
        let created_wall_ms = self.clock.wall_ms();
        self.log.append(target, Hint { row, created_wall_ms });
        self.metrics.hints_kept.inc();
        self.with_lane(target, Delivery::on_queued);
        self.woken.notify_one();
    }

    fn with_lane(&self, target: NodeId, event: impl FnOnce(&mut Delivery, Moment)) {
        let now = self.env.now();
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(target).or_insert_with(|| {
            let mut delivery = Delivery::new(self.setup, self.env.random(), now);
            if self.transport.is_connected(target) {
                delivery.on_target_up(now);
            }
            Lane { delivery, rows: BTreeMap::new() }
        });
        event(&mut lane.delivery, now);
    }

    fn wants_flush(&self, overdue: bool) -> bool {
        !self.waiting.lock().is_empty() || (overdue && self.log.buffered_bytes() > 0)
    }

    fn next_deadline(&self, flushed_at: Moment) -> Option<Moment> {
        let flush = (self.log.buffered_bytes() > 0).then(|| flushed_at + FLUSH_INTERVAL);
        let lanes = self.lanes.lock();
        lanes.values().filter_map(|lane| lane.delivery.next_deadline()).chain(flush).min()
    }

    fn tick(&self) {
        let now = self.env.now();
        for lane in self.lanes.lock().values_mut() {
            lane.delivery.on_tick(now);
        }
    }

    /// Hears every delivery out: sends at once, returns what needs the disk.
    fn poll(&self) -> Vec<DiskWork> {
        let mut work = Vec::new();
        let now = self.env.now();
        let mut lanes = self.lanes.lock();
        let left: BTreeMap<NodeId, u64> =
            self.log.targets().into_iter().map(|kept| (kept.target, kept.hints)).collect();
        lanes.retain(|target, lane| {
            if !self.members.is_forgotten(*target) {
                return true;
            }
            if left.get(target).is_none_or(|hints| *hints == 0) {
                work.push(DiskWork::Drop { target: *target });
                return false;
            }
            // Nobody waits for it any more: its hints are given to others as if it were there.
            if !lane.delivery.is_target_up() {
                lane.delivery.on_target_up(now);
            }
            true
        });
        for (target, lane) in lanes.iter_mut() {
            if lane.delivery.is_target_up() && !lane.rows.is_empty() {
                lane.delivery.on_pace(self.admission.pacing.pace());
            }
            while let Some(effect) = lane.delivery.poll() {
                match effect {
                    DeliveryEffect::Send { id } => work.extend(self.send(*target, lane, id, now)),
                    DeliveryEffect::Fetch { after, bytes_max, .. } => {
                        work.push(DiskWork::Fetch { target: *target, after, bytes_max });
                    }
                    DeliveryEffect::Acknowledge { up_to } => {
                        lane.rows = lane.rows.split_off(&(up_to + 1));
                        work.push(DiskWork::Acknowledge { target: *target, up_to });
                    }
                }
            }
        }
        work
    }

    fn send(&self, target: NodeId, lane: &mut Lane, id: u64, now: Moment) -> Option<DiskWork> {
        let row = lane.rows.get(&id)?;
        if self.members.is_dropped(row.keyspace) {
            lane.finish(id, now);
            self.metrics.hints_expired.inc();
            return None;
        }
        if !self.admission.admits(Class::Hint) {
            lane.delivery.on_unsent(id, now);
            return None;
        }
        let topology = self.gate.topology.load();
        let gone = self.members.is_forgotten(target);
        if let Some(mut owners) = others_own(&topology, target, row) {
            owners.retain(|owner| !self.members.is_forgotten(*owner));
            if !owners.is_empty() {
                return Some(DiskWork::Redirect { target, id, row: row.clone(), owners });
            }
        }
        if gone || is_given_up(&topology, target, row) {
            // Its partition has not arrived yet where others will own it.
            lane.delivery.on_unsent(id, now);
            return None;
        }
        let epoch = topology.epoch;
        let request = Owner::Hint.request(self.first_number.wrapping_add(id));
        let (row, class, time_left) = (row.clone(), Class::Hint, HINT_TIME_LEFT);
        let write = Write { request, row, epoch, hint_for: None, seen: None, class, time_left };
        if self.transport.send(target, Class::Hint, Message::Write(write)).is_err() {
            lane.delivery.on_unsent(id, now);
        }
        None
    }

    async fn work(&self, item: DiskWork) {
        let log = Arc::clone(&self.log);
        let done: Result<(), HintLogError> = match item {
            DiskWork::Fetch { target, after, bytes_max } => {
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                let fetched =
                    run_blocking(&*self.env, move || log.read(target, after, bytes_max)).await;
                fetched.map(|hints| self.fetched(target, hints)).inspect_err(|_| {
                    self.with_lane(target, Delivery::on_fetch_failed);
                })
            }
            DiskWork::Acknowledge { target, up_to } => {
                run_blocking(&*self.env, move || log.acknowledge(target, up_to)).await
            }
            DiskWork::Redirect { target, id, row, owners } => {
                self.redirect(target, id, &row, owners).await
            }
            DiskWork::Drop { target } => {
                run_blocking(&*self.env, move || log.drop_target(target)).await
            }
        };
        if let Err(error) = done {
            tracing::error!(%error, "the hint log failed");
        }
    }

    /// Whether nothing is kept for anybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.log.buffered_bytes() == 0 && self.log.targets().iter().all(|kept| kept.hints == 0)
    }

    fn fetched(&self, target: NodeId, hints: Vec<QueuedHint>) {
        let (now, wall_ms) = (self.env.now(), self.clock.wall_ms());
        let mut lanes = self.lanes.lock();
        let Some(lane) = lanes.get_mut(&target) else { return };
        let mut fetched = Vec::with_capacity(hints.len());
        for QueuedHint { sequence, hint } in hints {
            let time_left = self.policy.time_left(hint.created_wall_ms, wall_ms);
            if time_left.is_none() {
                self.metrics.hints_expired.inc();
                self.note_lost(target, &hint.row);
            }
            let bytes = hint.row.cost_bytes() as u64;
            fetched.push(FetchedHint { id: sequence, bytes, time_left });
            lane.rows.insert(sequence, hint.row);
        }
        lane.delivery.on_fetched(&fetched, fetched.is_empty(), now);
    }
}
