//! Takes over the rows of partitions that move to this node.
//!
//! For each such partition and each leaderless keyspace it goes through the rows of the present
//! owners, stretch by stretch: the digest of what is here already is sent along, and only what
//! differs comes back. So the first owner sends the rows, the others next to nothing, and a copy
//! that was interrupted goes on where it was. When so many owners have been gone through that every
//! write acknowledged by the keyspace's default write quorum must be among what they had, and none
//! that can be reached or that will drop its rows is left out, the system group is told that this
//! node is synced. An owner that gives the partition up while it is down is waited for, until it is
//! back or removed.
//!
//! A source serves only once it has heard that the partition moves. From then on it takes no write
//! that goes to the old owners alone: what it shows is all that it will ever have without this
//! node.
//!
//! A source whose rows are damaged does not count among those that are enough, as if it refilled
//! itself, unless all sources have been heard: then nobody knows more.

mod leftovers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::net::transport::Transport;
use crate::node::env::{Env, run_blocking};
use crate::node::groups::gateway::Gateway;
use crate::node::groups::system::SystemClient;
use crate::node::members::Members;
use crate::node::pacing::PacedRate;
use crate::node::pages::{LISTED_PER_READ, Pages, Place, Wish};
use crate::node::reaping::Fence;
use crate::node::replica::Replica;
use crate::node::status::Activity;
use crate::node::tasks::Stop;
use crate::node::topology::{Placement, Topology, TopologyCell, WriteRings};
use crate::protocol::digest::Digest;
use crate::protocol::message::{Class, Compare, Refusal, RequestId, Scan, ScanPage};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::ring::Ring;
use crate::protocol::system::placing::Step;
use crate::protocol::system::{SystemCommand, SystemState};
use crate::telemetry::Metrics;
use crate::types::{Epoch, Incarnation, Key, NodeId, PartitionId, Timestamp};

/// Partitions that are gone through at once.
const COPIES_AT_ONCE: usize = 4;

/// Bytes of a stretch that is compared: what one differing row costs at most.
const STRETCH_BYTES: u32 = 64 << 10;

/// How long the present owners of a partition are given to hear that it moves; those who have not
/// are asked all the same, and refuse until they have.
const NEWS_TIME: Duration = Duration::from_millis(500);

/// How often it is looked whether more can be done.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A partition that moves to this node, and whom it was taken from so far.
struct Copy {
    /// The epoch in which the move was prepared.
    since: Epoch,
    heard: BTreeMap<(Place, NodeId), Heard>,
}

/// What a source was that was gone through to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// It refilled itself, and is gone through again.
    Refilling,
    /// It could not tell what there is of some keys.
    Damaged,
    /// It told all that it has acknowledged.
    Sound,
}

/// The copies under way.
#[derive(Default)]
pub(crate) struct TransferState {
    copies: Mutex<BTreeMap<PartitionId, Copy>>,
    woken: Notify,
}

/// Takes partitions over.
pub(crate) struct Transfers {
    pub(crate) own: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) members: Arc<Members>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) system: Arc<SystemClient>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) rate: PacedRate,
    pub(crate) state: TransferState,
}

impl Transfers {
    /// Takes over what moves to this node, until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        while !stop.is_requested() {
            let due = self.due();
            if due.is_empty() {
                tokio::select! { biased;
                    () = stop.requested() => {}
                    () = self.state.woken.notified() => {}
                }
                continue;
            }
            tokio::select! { biased;
                () = stop.requested() => return,
                () = self.take_over(due) => {}
            }
            tokio::select! { biased;
                () = stop.requested() => {}
                () = self.state.woken.notified() => {}
                () = self.env.sleep_until(self.env.now() + RETRY_INTERVAL) => {}
            }
        }
    }

    /// Looks at once whether there is something to do.
    pub(crate) fn wake(&self) {
        self.state.woken.notify_one();
    }

    /// One line for status.
    pub(crate) fn activity(&self) -> Activity {
        let copies = self.state.copies.lock().len();
        let (rows, bytes) = (self.metrics.transfer_rows.get(), self.metrics.transfer_bytes.get());
        let state = if copies > 0 { "busy" } else { "idle" };
        let detail = format!(
            "{copies} partitions on their way here; {rows} rows ({bytes} bytes) taken over"
        );
        Activity { name: "transfers", state, detail }
    }

    /// The partitions that wait for this node, as far as it serves by a ring that says so.
    fn due(&self) -> Vec<(PartitionId, Epoch)> {
        let due = match self.gateway.system() {
            Some(state) => waiting_for(&state, self.own, self.topology.load().epoch),
            None => Vec::new(),
        };
        let mut copies = self.state.copies.lock();
        copies.retain(|partition, copy| due.contains(&(*partition, copy.since)));
        for (partition, since) in &due {
            let fresh = Copy { since: *since, heard: BTreeMap::new() };
            copies.entry(*partition).or_insert(fresh);
        }
        due
    }

    async fn take_over(&self, due: Vec<(PartitionId, Epoch)>) {
        self.let_news_travel(&due).await;
        let share = |first: usize| self.take_over_each(due.iter().skip(first).copied());
        let (mut synced, b, c, d) = tokio::join!(share(0), share(1), share(2), share(3));
        synced.extend(b.into_iter().chain(c).chain(d));
        if !synced.is_empty() {
            self.tell(synced).await;
        }
    }

    async fn take_over_each(
        &self,
        due: impl Iterator<Item = (PartitionId, Epoch)>,
    ) -> BTreeMap<PartitionId, Epoch> {
        let mut synced = BTreeMap::new();
        for (partition, since) in due.step_by(COPIES_AT_ONCE) {
            if self.take_over_one(partition, since).await {
                synced.insert(partition, since);
            }
        }
        synced
    }

    async fn tell(&self, partitions: BTreeMap<PartitionId, Epoch>) {
        if !self.fence.is_open() {
            return;
        }
        let topology = self.topology.load();
        let floors = partitions.keys().map(|partition| topology.reap_floor(*partition).at);
        if let Err(refusal) = self.fence.promise(floors.max().unwrap_or_default()).await {
            return tracing::debug!(%refusal, "rows are taken over, but not promised for");
        }
        let (node, incarnation) = (self.own, self.incarnation);
        let told = partitions.len();
        let command = SystemCommand::Synced { node, incarnation, partitions };
        match self.system.propose(command).await {
            Ok(_) => tracing::debug!(partitions = told, "rows of partitions are taken over"),
            // It is told again after the next look.
            Err(error) => tracing::debug!(%error, "the system group was not told"),
        }
    }

    /// Waits a little until everybody alive serves by a ring by which these partitions move: then
    /// hardly a request is turned away when their present owners begin to refuse the old one.
    async fn let_news_travel(&self, due: &[(PartitionId, Epoch)]) {
        let Some(newest) = due.iter().map(|(_, since)| *since).max() else { return };
        let until = self.env.now() + NEWS_TIME;
        while self.env.now() < until {
            let reports = self.members.reports();
            if reports.values().all(|report| !report.up || report.epoch >= newest) {
                return;
            }
            self.env.sleep_until((self.env.now() + RETRY_INTERVAL / 4).min(until)).await;
        }
    }

    /// Whether the rows of a partition are all here.
    async fn take_over_one(&self, partition: PartitionId, since: Epoch) -> bool {
        let topology = self.topology.load();
        for (place, wanted) in self.wanted(&topology, partition) {
            // Not all nodes that take partitions over begin with the same source.
            let mut sources: Vec<NodeId> = wanted.sources.into_iter().collect();
            let first = usize::from(partition.0) % sources.len().max(1);
            sources.rotate_left(first);
            for source in sources {
                let is_over = self.heard(place, source).is_some_and(Heard::is_over);
                if is_over || !self.transport.is_connected(source) {
                    continue;
                }
                match self.go_through(place, source, since).await {
                    Ok(heard) => self.note_heard(place, source, heard),
                    // More of its rows are damaged than a page names.
                    Err(Refusal::Corrupt) => self.note_heard(place, source, Heard::Damaged),
                    Err(refusal) => {
                        let (keyspace, partition) = (place.0.0, place.1.0);
                        tracing::debug!(keyspace, partition, %source, %refusal, "transfer");
                    }
                }
            }
        }
        // A keyspace may have come meanwhile.
        let topology = self.topology.load();
        self.wanted(&topology, partition).iter().all(|(place, wanted)| {
            let is_connected = |node| self.transport.is_connected(node);
            wanted.is_satisfied(|node| self.heard(*place, node), is_connected)
        })
    }

    fn wanted(&self, topology: &Topology, partition: PartitionId) -> Vec<(Place, Wanted)> {
        let set = self.members.set();
        let is_member = |node: &NodeId| set.get(*node).is_some();
        let wanted = |placement| Wanted::new(placement, partition, self.own, is_member);
        topology.placements().map(|(id, placement)| ((id, partition), wanted(placement))).collect()
    }

    fn heard(&self, place: Place, source: NodeId) -> Option<Heard> {
        let copies = self.state.copies.lock();
        copies.get(&place.1).and_then(|copy| copy.heard.get(&(place, source)).copied())
    }

    fn note_heard(&self, place: Place, source: NodeId, heard: Heard) {
        if heard == Heard::Damaged {
            let (keyspace, partition) = (place.0.0, place.1.0);
            tracing::error!(
                keyspace,
                partition,
                %source,
                "rows of a partition that moves are damaged where they are taken from; what other \
                 owners have of them is taken there"
            );
        }
        if let Some(copy) = self.state.copies.lock().get_mut(&place.1) {
            copy.heard.insert((place, source), heard);
        }
    }

    /// Takes what a source has and this node has not; says what the source was all along.
    async fn go_through(
        &self,
        place: Place,
        source: NodeId,
        epoch: Epoch,
    ) -> Result<Heard, Refusal> {
        let (mut after, mut complete, mut damaged) = (None, true, 0);
        let floor = self.burying_floor(place);
        loop {
            self.replica.admission.wait(Class::Transfer).await;
            self.rate.ready().await;
            let (up_to, has_rows, read) = self.stretch(place, after.clone()).await?;
            self.rate.pay(read / LISTED_PER_READ);
            let ends_with = up_to.up_to.clone();
            let wish = Wish { after: after.clone(), epoch, compare: Some(up_to) };
            let reply = self.pages.ask(place, source, wish).await?;
            complete &= reply.complete;
            let page = reply.outcome?;
            if !planted(Planted::DamageOverlooked) {
                damaged += page.damaged.len();
            }
            let done = if page.same { ends_with.is_none() } else { page.done };
            let last = page.rows.last().map(|(key, _)| key.clone());
            if !page.same && reply.complete && has_rows && floor.at > Timestamp::default() {
                self.bury(place, floor, after.clone(), &page).await?;
            }
            after = if page.same { ends_with } else { last }.or(after);
            self.keep(place, page).await?;
            if done {
                self.metrics.damaged_rows_missed.inc_by(damaged as u64);
                return Ok(match (complete, damaged) {
                    (false, _) => Heard::Refilling,
                    (true, 0) => Heard::Sound,
                    (true, _) => Heard::Damaged,
                });
            }
        }
    }

    async fn keep(&self, place: Place, page: ScanPage) -> Result<(), Refusal> {
        let bytes = page.cost_bytes();
        self.metrics.transfer_rows.inc_by(page.rows.len() as u64);
        self.metrics.transfer_bytes.inc_by(bytes);
        self.rate.pay(bytes);
        self.pages.keep(place, page).await
    }

    /// What is here of the rows behind a key, whether anything is, and how many bytes that is.
    async fn stretch(
        &self,
        (keyspace, partition): Place,
        after: Option<Key>,
    ) -> Result<(Compare, bool, u64), Refusal> {
        let scan = Scan {
            request: RequestId(0),
            keyspace,
            partition,
            after,
            page_bytes_max: STRETCH_BYTES,
            epoch: Epoch(0),
            compare: None,
        };
        let replica = Arc::clone(&self.replica);
        let page = run_blocking(&*self.env, move || replica.scan(&scan)).await?;
        Ok((compare(&page), !page.rows.is_empty(), page.cost_bytes()))
    }
}

/// What a page amounts to.
pub(crate) fn compare(page: &ScanPage) -> Compare {
    let mut digest = Digest::default();
    page.rows.iter().for_each(|(key, record)| digest.add(key, record.version));
    let last = page.rows.last().map(|(key, _)| key.clone());
    Compare { up_to: last.filter(|_| !page.done), digest: digest.value() }
}

/// The partitions that are copied to a node, of those that move by the ring that it serves by.
fn waiting_for(state: &SystemState, own: NodeId, served: Epoch) -> Vec<(PartitionId, Epoch)> {
    let waits = |step: &Step| matches!(step, Step::Copying { waiting } if waiting.contains(&own));
    let moving = state.placing().moving().filter(|(.., moving)| waits(&moving.step));
    moving.map(|(partition, _, it)| (partition, it.since)).filter(|it| it.1 <= served).collect()
}

/// Whom the rows of a partition are to be taken from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    sources: BTreeSet<NodeId>,
    /// How many of them must have been gone through while they were complete.
    enough: usize,
    /// Those among them that give the partition up, and its rows with it: none is left out, even
    /// if it has to be waited for.
    leaving: BTreeSet<NodeId>,
}

impl Wanted {
    /// The present owners but this node. Any default write quorum of all of them meets any set of
    /// `enough`. Owners that were removed from the cluster have nothing to say any more. Nobody is
    /// asked for rows of a keyspace that stay where they are, or go to others than this node.
    fn new(
        placement: &Placement,
        partition: PartitionId,
        own: NodeId,
        is_member: impl Fn(&NodeId) -> bool,
    ) -> Wanted {
        let WriteRings { present, coming } = placement.write_rings(partition);
        let takes = coming.is_some_and(|it| changes(present, it, partition, own));
        if !takes {
            return Wanted::default();
        }
        let owners = present.primaries(partition);
        let others = owners.iter().copied().filter(|node| *node != own);
        let sources: BTreeSet<NodeId> = others.filter(is_member).collect();
        let unneeded = placement.usual_write_quorum(present).saturating_sub(1);
        // What this node has as an owner itself, it needs not hear from itself.
        let own_counts = usize::from(owners.contains(&own));
        let enough = owners.len().saturating_sub(unneeded + own_counts).min(sources.len());
        let stays = |node: &NodeId| coming.is_none_or(|it| it.primaries(partition).contains(node));
        let leaving = sources.iter().copied().filter(|node| !stays(node)).collect();
        Wanted { sources, enough, leaving }
    }

    fn is_satisfied(
        &self,
        heard: impl Fn(NodeId) -> Option<Heard>,
        connected: impl Fn(NodeId) -> bool,
    ) -> bool {
        let is_over = |source: &NodeId| heard(*source).is_some_and(Heard::is_over);
        if self.sources.iter().all(is_over) {
            return true;
        }
        let is_sound = |source: &&NodeId| heard(**source) == Some(Heard::Sound);
        let sound = self.sources.iter().filter(is_sound).count();
        let missed = self.sources.iter().any(|source| !is_over(source) && connected(*source));
        if planted(Planted::SyncedAfterOneSource) && sound > 0 {
            return true;
        }
        sound >= self.enough && !missed && self.leaving.iter().all(is_over)
    }
}

impl Heard {
    /// Whether the source needs not be gone through again.
    fn is_over(self) -> bool {
        self != Heard::Refilling
    }
}

/// Whether a node is to own a partition that changes its owners, or how many of them answer.
fn changes(present: &Ring, coming: &Ring, partition: PartitionId, own: NodeId) -> bool {
    let of = |ring: &Ring| ring.primaries(partition).iter().copied().collect::<BTreeSet<NodeId>>();
    let other_factor = present.replication_factor() != coming.replication_factor();
    let (present, coming) = (of(present), of(coming));
    coming.contains(&own) && (coming != present || other_factor)
}

#[cfg(test)]
mod tests;
