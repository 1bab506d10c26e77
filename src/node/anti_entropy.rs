//! Compares this node's rows with those of other replicas, and has both end with the newest.
//!
//! A few exchanges at a time, as each may have to pause: [`crate::protocol::exchange::schedule`]
//! says which partition is compared with whom, and [`crate::protocol::exchange`] what is asked and
//! what is to be copied. Of two replicas the one with the lower id begins, once an interval; on
//! demand, and when a hint for the other was lost, whoever is told to.
//!
//! Only owners are compared whose partition does not move and who have all their rows: a move, or a
//! refill, copies what there is anyway.

mod answering;
mod findings;
mod lost_hints;
mod repairing;
mod runs;
mod scrubs;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::answering::Answering;
use self::findings::Findings;
pub(crate) use self::lost_hints::LostHints;
use self::repairing::Copied;
pub use self::runs::RepairProgress;
pub(crate) use self::runs::RepairWish;
use self::runs::Runs;
pub(crate) use self::scrubs::Scrubs;
use crate::config::AntiEntropyOptions;
use crate::net::transport::Transport;
use crate::node::coordinator::Owner;
use crate::node::env::Env;
use crate::node::errands::{Errand, Errands, Reply};
use crate::node::gate::Gate;
use crate::node::local::Local;
use crate::node::pacing::PacedRate;
use crate::node::reaping::Sharing;
use crate::node::tasks::Stop;
use crate::node::topology::{Topology, WriteRings};
use crate::protocol::exchange::schedule::{Pair, Schedule};
use crate::protocol::exchange::{Effect, Exchange, Misfit};
use crate::protocol::message::tree::{Answer, Question, TreeAsk, TreeReply};
use crate::protocol::message::{Class, Message, Refusal};
use crate::protocol::reaping::Share;
use crate::protocol::system::placing::partition_ids;
use crate::telemetry::Metrics;
use crate::types::{Epoch, Moment, NodeId, Timestamp};

/// Exchanges at once: most of the time of one that finds something is its pause.
const EXCHANGES_AT_ONCE: usize = 16;

/// How long a peer may take to answer a question, for which it may have to go through a partition.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// How often it is looked whether a pair is due when nothing else wakes this up.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Why an exchange did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// One of the two did not do its part.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// One of the two lacks rows, and knows it.
    #[error("a replica has not got all its rows back yet")]
    Incomplete,
    /// What was answered fits no question.
    #[error("{0}")]
    Misfit(#[from] Misfit),
    /// The peer cannot be reached.
    #[error("there is no connection to the other replica")]
    Unconnected,
}

/// What an exchange came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    differing: u64,
    copied: Copied,
}

/// Compares replicas.
pub(crate) struct AntiEntropy {
    own: NodeId,
    env: Arc<dyn Env>,
    transport: Arc<dyn Transport>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    options: AntiEntropyOptions,
    errands: Arc<Errands>,
    lost_hints: Arc<LostHints>,
    scrubs: Arc<Scrubs>,
    rate: PacedRate,
    sharing: Arc<Sharing>,
    schedule: Mutex<Schedule>,
    findings: Mutex<Findings>,
    runs: Mutex<Runs>,
    woken: Notify,
}

impl AntiEntropy {
    pub(crate) fn new(
        local: &Local,
        options: AntiEntropyOptions,
        transport: Arc<dyn Transport>,
        gate: Arc<Gate>,
        (scrubs, sharing): (Arc<Scrubs>, Arc<Sharing>),
    ) -> AntiEntropy {
        let interval = Some(options.interval).filter(|interval| !interval.is_zero());
        let own = gate.own;
        let (env, carrier) = (Arc::clone(&local.env), Arc::clone(&transport));
        let errands = Errands::new(Owner::Exchange, env, carrier);
        AntiEntropy {
            own,
            env: Arc::clone(&local.env),
            errands: Arc::new(errands),
            transport,
            gate,
            metrics: Arc::clone(&local.metrics),
            options,
            lost_hints: Arc::clone(&local.lost_hints),
            scrubs,
            rate: local.rate(options.bytes_per_second),
            sharing,
            schedule: Mutex::new(Schedule::new(own, interval)),
            findings: Mutex::default(),
            runs: Mutex::default(),
            woken: Notify::new(),
        }
    }

    /// Those who wait for answers of peers.
    pub(crate) fn errands(&self) -> &Arc<Errands> {
        &self.errands
    }

    /// Compares whatever is due until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        let mut seen = None;
        while !stop.is_requested() {
            self.look_at_ring(&mut seen);
            self.look_at_lost_hints();
            let due = self.due();
            if !due.is_empty() {
                tokio::select! { biased;
                    () = stop.requested() => return,
                    _ = join_all(due.into_iter().map(|pair| self.attend(pair))) => {}
                }
                continue;
            }
            let wake_at = self.wake_at();
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.woken.notified() => {}
                () = self.lost_hints.noted() => {}
                () = self.env.sleep_until(wake_at) => {}
            }
        }
    }

    /// Compares what is wished for before anything else, and counts how far it is.
    pub(crate) fn begin_run(&self, wish: &RepairWish) -> RepairProgress {
        let now = self.env.now();
        let mut schedule = self.schedule.lock();
        schedule.set_pairs(&pairs(&self.gate.topology.load(), self.own), now);
        let pairs = schedule.hurry(|pair| wish.names(pair), now);
        let progress = self.runs.lock().begin(pairs);
        drop(schedule);
        self.woken.notify_one();
        progress
    }

    /// How far a run is; `None` if there is none of that number any more.
    pub(crate) fn progress(&self, run: u64) -> Option<RepairProgress> {
        self.runs.lock().progress(run)
    }

    fn due(&self) -> Vec<Pair> {
        match self.gate.replica.is_complete() {
            true => self.schedule.lock().due(EXCHANGES_AT_ONCE, self.env.now()),
            false => Vec::new(),
        }
    }

    /// When to look again, if nothing is due: what is due waits until this node is whole.
    fn wake_at(&self) -> Moment {
        let latest = self.env.now() + WATCH_INTERVAL;
        let due = self.schedule.lock().next_deadline().filter(|due| *due > self.env.now());
        due.map_or(latest, |due| due.min(latest))
    }

    /// Notes which partitions are to be compared with whom, if the ring has changed.
    fn look_at_ring(&self, seen: &mut Option<Arc<Topology>>) {
        let topology = self.gate.topology.load();
        if seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &topology)) {
            return;
        }
        let pairs = pairs(&topology, self.own);
        *seen = Some(topology);
        self.schedule.lock().set_pairs(&pairs, self.env.now());
        self.findings.lock().retain(&pairs);
    }

    fn look_at_lost_hints(&self) {
        let lost = self.lost_hints.take();
        if !lost.is_empty() {
            self.schedule.lock().hurry(|pair| lost.contains(pair), self.env.now());
        }
    }

    /// Compares a pair and takes down what came of it.
    async fn attend(&self, pair: Pair) {
        let outcome = self.exchange(pair).await;
        let now = self.env.now();
        self.runs.lock().on_attended(pair, outcome);
        match outcome {
            Ok(Outcome { differing, copied }) => {
                self.metrics.anti_entropy_exchanges.inc();
                self.schedule.lock().on_compared(pair, now);
                let differ = self.findings.lock().note(pair, differing, now);
                self.metrics.note_divergence(pair.partition, differ);
                if differing > 0 {
                    let (keyspace, partition) = (pair.keyspace.0, pair.partition.0);
                    let Copied { sent, fetched } = copied;
                    tracing::info!(keyspace, partition, peer = %pair.peer, differing, sent, fetched,
                        "replicas differed and were repaired");
                }
            }
            Err(broken) => {
                self.metrics.anti_entropy_failures.inc();
                self.schedule.lock().on_failed(pair, now);
                let (keyspace, partition) = (pair.keyspace.0, pair.partition.0);
                tracing::debug!(keyspace, partition, peer = %pair.peer, %broken, "exchange");
            }
        }
    }

    async fn exchange(&self, pair: Pair) -> Result<Outcome, Broken> {
        if !self.transport.is_connected(pair.peer) {
            return Err(Broken::Unconnected);
        }
        let epoch = self.gate.topology.load().epoch;
        let mut exchange = Exchange::new(pair.keyspace.merge());
        let mut copied = Copied::default();
        let mut fence = Timestamp::default();
        loop {
            match exchange.poll(self.env.now()) {
                Effect::Ask(question) => {
                    self.gate.replica.admission.wait(Class::AntiEntropy).await;
                    let is_first = question == Question::Root;
                    let (here, there, fences) = self.ask_both(pair, epoch, question).await?;
                    fence = if is_first { fences } else { fence };
                    exchange.on_answers(here, there, self.env.now())?;
                }
                Effect::Wait(until) => self.env.sleep_until(until).await,
                Effect::Repair(repairs) => {
                    copied = copied.and(self.copy(pair, epoch, repairs).await?);
                    exchange.on_repaired();
                }
                Effect::Done(summary) => {
                    if summary.unconfirmed == 0 {
                        self.sharing.note(pair, Share { at: fence, epoch });
                    }
                    return Ok(Outcome { differing: summary.differing, copied });
                }
            }
        }
    }

    /// Puts a question to the peer and to this node; up to where both take nothing new, too, if it
    /// is the first.
    async fn ask_both(
        &self,
        pair: Pair,
        epoch: Epoch,
        question: Question,
    ) -> Result<(Answer, Answer, Timestamp), Broken> {
        let Pair { keyspace, partition, peer } = pair;
        let fence = &self.gate.fence;
        let own = answering::fence(fence, &self.gate.replica, &question).await?;
        let wording = question.clone();
        let errand = self.errands.send(peer, Class::AntiEntropy, |request| {
            Message::TreeAsk(TreeAsk { request, keyspace, partition, epoch, question: wording })
        })?;
        let place = (keyspace, partition);
        let replica = Arc::clone(&self.gate.replica);
        let here = answering::answer(&*self.env, replica, &self.scrubs, place, question).await?;
        let (there, theirs) = self.await_answer(errand).await?;
        let bytes = cost_bytes(&here) + cost_bytes(&there);
        self.metrics.anti_entropy_tree_bytes.inc_by(bytes);
        Ok((here, there, own.min(theirs)))
    }

    async fn await_answer(&self, errand: Errand) -> Result<(Answer, Timestamp), Broken> {
        match self.errands.reply(errand, ANSWER_TIME).await? {
            Reply::Tree(TreeReply { complete: false, outcome: Ok(_), .. }) => {
                Err(Broken::Incomplete)
            }
            Reply::Tree(TreeReply { outcome, fence, .. }) => Ok((outcome?, fence)),
            _ => Err(Broken::Misfit(Misfit)),
        }
    }
}

/// What this node owns, and who else does; nothing of a partition that moves.
pub(crate) fn pairs(topology: &Topology, own: NodeId) -> BTreeSet<Pair> {
    let mut pairs = BTreeSet::new();
    for (keyspace, placement) in topology.placements() {
        for partition in partition_ids(topology.ring.partitions()) {
            let WriteRings { present, coming } = placement.write_rings(partition);
            let owners = present.primaries(partition);
            if coming.is_some() || !owners.contains(&own) {
                continue;
            }
            let peers = owners.iter().copied().filter(|node| *node != own);
            pairs.extend(peers.map(|peer| Pair { keyspace, partition, peer }));
        }
    }
    pairs
}

/// What an answer takes on the wire, about.
fn cost_bytes(answer: &Answer) -> u64 {
    const VERSION_BYTES: usize = 24;
    match answer {
        Answer::Hashes(hashes) => 8 * hashes.len() as u64,
        Answer::Rows(list) => {
            list.rows.iter().map(|(key, _)| (key.0.len() + VERSION_BYTES) as u64).sum()
        }
    }
}
