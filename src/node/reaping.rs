//! Has reap floors rise, holds to them, and frees what they have reaped.
//!
//! [`crate::protocol::reaping`] says what a floor is and what makes one. Here the parts of one node
//! in it come together: its promise ([`Fence`]), what exchanges have shown ([`Sharing`]), the
//! telling of it to the system group, and the floors that come back.
//!
//! A data directory that was put back to an earlier state has rows that were deleted since, and a
//! promise that is older than floors it took part in. Such a node must neither answer nor compare:
//! it gives all its rows up and stops, and its next start takes them from the others anew. So no
//! promise is made before the node has heard all that was decided before it started.

mod fence;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub(crate) use self::fence::Fence;
use crate::node::anti_entropy::pairs;
use crate::node::committer::ReplyTo;
use crate::node::env::{Env, run_blocking};
use crate::node::gate::Gate;
use crate::node::groups::begin::GroupHandles;
use crate::node::groups::gateway::Gateway;
use crate::node::groups::system::SystemClient;
use crate::node::identity_keeper::IdentityKeeper;
use crate::node::local::Local;
use crate::node::pages::Place;
use crate::node::replica::Replica;
use crate::node::status::Activity;
use crate::node::tasks::Stop;
use crate::node::topology::{Topology, TopologyCell, WriteRings};
use crate::protocol::exchange::schedule::Pair;
use crate::protocol::message::{Class, Refusal};
use crate::protocol::planted::{Planted, planted};
use crate::protocol::reaping::{FENCE_STEPS, ReapFloor, Share, Shares};
use crate::protocol::system::SystemCommand;
use crate::protocol::system::placing::partition_ids;
use crate::storage::wal::LogRecord;
use crate::types::{NodeId, PartitionId, Timestamp};

/// The least and the most time between two looks whether there is something to tell.
const LOOK_INTERVALS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Rows that are looked at in one turn of a blocking thread.
const TURN_ROWS: usize = 1024;

/// What a node says whose rows are of no use any more.
const OUTDATED: &str = "this node's rows are older than deletes that were reaped since: its data \
                        directory was put back to an earlier state. The rows are given up; start \
                        the node again, and it takes them from the others anew";

/// What exchanges have shown, until it is told.
#[derive(Default)]
pub(crate) struct Sharing {
    shares: Mutex<Shares>,
}

impl Sharing {
    /// An exchange has compared everything.
    pub(crate) fn note(&self, pair: Pair, share: Share) {
        self.shares.lock().note(pair, share);
    }
}

/// What the task remembers from one look to the next.
#[derive(Default)]
struct Seen {
    floors: BTreeMap<Place, ReapFloor>,
    /// Floors by which places have been freed.
    freed: BTreeMap<Place, ReapFloor>,
    told: BTreeMap<PartitionId, Share>,
}

/// Reaps.
pub(crate) struct Reaper {
    own: NodeId,
    env: Arc<dyn Env>,
    topology: Arc<TopologyCell>,
    gateway: Arc<Gateway>,
    system: Arc<SystemClient>,
    identity: Arc<IdentityKeeper>,
    replica: Arc<Replica>,
    fence: Arc<Fence>,
    sharing: Arc<Sharing>,
    seen: Mutex<Seen>,
}

impl Reaper {
    pub(crate) fn new(
        local: &Local,
        gate: &Gate,
        groups: &GroupHandles,
        sharing: Arc<Sharing>,
    ) -> Reaper {
        Reaper {
            own: gate.own,
            env: Arc::clone(&local.env),
            topology: Arc::clone(&gate.topology),
            gateway: Arc::clone(&groups.gateway),
            system: Arc::clone(&groups.system),
            identity: Arc::clone(&local.identity),
            replica: Arc::clone(&gate.replica),
            fence: Arc::clone(&gate.fence),
            sharing,
            seen: Mutex::default(),
        }
    }

    /// Follows the floors, tells and frees, until asked to stop.
    pub(crate) async fn run(self: Arc<Self>, mut stop: Stop) {
        let mut topologies = self.topology.follow();
        let mut next_look = self.env.now();
        while !stop.is_requested() {
            let topology = self.topology.load();
            self.take_floors(&topology);
            self.enter(&topology).await;
            if self.env.now() >= next_look {
                next_look = self.env.now() + self.look_interval();
                self.tell().await;
            }
            tokio::select! { biased;
                () = stop.requested() => return,
                () = self.free() => {}
            }
            tokio::select! { biased;
                () = stop.requested() => return,
                changed = topologies.changed() => if changed.is_err() { return },
                () = self.env.sleep_until(next_look) => {}
            }
        }
    }

    /// One line for status.
    pub(crate) fn activity(&self) -> Activity {
        let seen = self.seen.lock();
        let waiting = seen.floors.iter().filter(|it| seen.freed.get(it.0) != Some(it.1)).count();
        let oldest = seen.floors.values().map(|floor| floor.at.wall_ms()).min().unwrap_or_default();
        let ago = self.env.wall_ms().saturating_sub(oldest) / 1000;
        let reaped = self.replica.metrics.rows_reaped.get();
        let (state, detail) = match (self.fence.reap_after().is_zero(), seen.floors.len()) {
            (true, _) => ("off", "deletes are kept for ever (--reap-after 0s)".to_owned()),
            (false, 0) => ("idle", "no partition is shared by all its owners yet".to_owned()),
            (false, places) => (
                if waiting > 0 { "busy" } else { "idle" },
                format!(
                    "deletes of {places} partitions and keyspaces are reaped, of all of them up \
                     to {ago} s ago; {waiting} are to be freed, {reaped} rows were"
                ),
            ),
        };
        Activity { name: "reaping", state, detail }
    }

    /// Promises for everything that was taken over from those who share it. Blocks on the disk.
    pub(crate) fn promise_for_all(&self) {
        let topology = self.topology.load();
        let floors = partition_ids(topology.ring.partitions()).map(|it| topology.reap_floor(it).at);
        let highest = floors.max().unwrap_or_default();
        self.fence.heed(highest);
        if let Err(error) = self.identity.keep_reap_fence(highest) {
            tracing::error!(%error, "the reap fence could not be kept");
        }
    }

    /// How often it is looked whether there is something to tell.
    fn look_interval(&self) -> Duration {
        let (least, most) = LOOK_INTERVALS;
        (self.fence.reap_after() / FENCE_STEPS).clamp(least, most)
    }

    /// Hides what has been reaped by now.
    fn take_floors(&self, topology: &Topology) {
        let mut floors = BTreeMap::new();
        for (keyspace, placement) in topology.placements() {
            let all = partition_ids(topology.ring.partitions());
            let owned = all.filter(|partition| placement.owns(self.own, *partition));
            let of_owned = owned.map(|it| ((keyspace, it), topology.reap_floor(it)));
            floors.extend(of_owned.filter(|(_, floor)| floor.at > Timestamp::default()));
        }
        let mut seen = self.seen.lock();
        if seen.floors != floors {
            self.replica.store.set_floors(floors.clone());
            seen.freed.retain(|place, _| floors.contains_key(place));
            seen.floors = floors;
        }
    }

    /// Begins to promise once everything is known that was decided before this start; gives up if
    /// that shows rows from before a floor that this node has promised for.
    async fn enter(&self, topology: &Topology) {
        let floors = topology.placements().flat_map(|(_, placement)| {
            let all = partition_ids(topology.ring.partitions());
            let is_own = |ring: WriteRings<'_>, it| ring.present.primaries(it).contains(&self.own);
            let own = all.filter(move |it| is_own(placement.write_rings(*it), *it));
            own.map(|partition| topology.reap_floor(partition).at)
        });
        let Some(highest) = floors.max().filter(|at| *at > self.fence.promised()) else {
            if self.has_heard() {
                self.fence.open();
            }
            return;
        };
        if self.fence.is_open() {
            // Rows that came with what was decided since: they were taken over from those who share
            // them.
            let _tried_again_at_the_next_look = self.fence.promise(highest).await;
        } else if self.has_heard() {
            match self.replica.is_complete() && !planted(Planted::OutdatedRowsKept) {
                true => self.give_up(topology).await,
                false => self.fence.open(),
            }
        }
    }

    /// Whether the system group has told this node of everything up to its present start.
    fn has_heard(&self) -> bool {
        let Some(state) = self.gateway.system() else { return false };
        let known = state.members().get(&self.own);
        known.is_some_and(|known| {
            known.member.incarnation == self.identity.incarnation()
                && known.member.revision >= self.identity.generation()
        })
    }

    /// Gives up rows of before.
    async fn give_up(&self, topology: &Topology) {
        let keyspaces = topology.placements().map(|(keyspace, _)| keyspace);
        let places = keyspaces.flat_map(|keyspace| {
            partition_ids(topology.ring.partitions()).map(move |partition| (keyspace, partition))
        });
        let dropped = places.map(|(keyspace, it)| LogRecord::DropPartition(keyspace, it)).collect();
        let queued = self.replica.committer.submit_group(dropped, ReplyTo::Nobody);
        let settled = match queued {
            Ok(()) => self.replica.settle().await,
            Err(refusal) => Err(refusal),
        };
        let identity = Arc::clone(&self.identity);
        let kept = run_blocking(&*self.env, move || identity.keep_outdated()).await;
        if settled.is_ok() && kept.is_ok() {
            self.replica.health.fail(OUTDATED.to_owned());
        }
    }

    /// Tells the system group what is new.
    async fn tell(&self) {
        let news = match self.news().await {
            Ok(news) if news.is_empty() => return,
            Ok(news) => news,
            Err(refusal) => return tracing::debug!(%refusal, "nothing can be promised now"),
        };
        let (node, incarnation) = (self.own, self.identity.incarnation());
        let command = SystemCommand::Shared { node, incarnation, partitions: news.clone() };
        match self.system.propose(command).await {
            Ok(_) => self.seen.lock().told.extend(news),
            Err(error) => tracing::debug!(%error, "the system group was not told what is shared"),
        }
    }

    async fn news(&self) -> Result<BTreeMap<PartitionId, Share>, Refusal> {
        let topology = self.topology.load();
        if !topology.is_admitted || !self.fence.is_open() || !self.replica.is_complete() {
            return Ok(BTreeMap::new());
        }
        let own = Share { at: self.fence.raise(&self.replica).await?, epoch: topology.epoch };
        let mut pairs = pairs(&topology, self.own);
        let owned = at_rest(&topology, self.own);
        let mut shares = self.sharing.shares.lock();
        shares.retain(|pair| pairs.contains(pair));
        if planted(Planted::ReapedUnshared) {
            pairs.clear();
        }
        let compared = pairs.into_iter().filter(|pair| pair.peer > self.own);
        let mut news = shares.of_partitions(owned.into_iter(), compared, own);
        drop(shares);
        let seen = self.seen.lock();
        news.retain(|partition, share| {
            share.at > topology.reap_floor(*partition).at && seen.told.get(partition) != Some(share)
        });
        Ok(news)
    }

    /// Frees what is hidden.
    async fn free(&self) {
        let waiting: Vec<(Place, ReapFloor)> = {
            let seen = self.seen.lock();
            let floors = seen.floors.iter().filter(|it| seen.freed.get(it.0) != Some(it.1));
            floors.map(|(place, floor)| (*place, *floor)).collect()
        };
        for (place, floor) in waiting {
            match self.free_place(place).await {
                Ok(()) => drop(self.seen.lock().freed.insert(place, floor)),
                Err(error) => {
                    self.replica.health.fail(format!("the storage engine failed: {error}"));
                    return;
                }
            }
        }
    }

    async fn free_place(&self, place: Place) -> Result<(), crate::storage::store::StoreError> {
        let mut after = None;
        loop {
            self.replica.admission.wait(Class::AntiEntropy).await;
            let store = Arc::clone(&self.replica.store);
            let from = after.take();
            let turn = move || store.reap(place, from.as_ref(), TURN_ROWS);
            let reaped = run_blocking(&*self.env, turn).await?;
            self.replica.metrics.rows_reaped.inc_by(reaped.rows);
            after = reaped.after;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

/// The partitions that a node owns some rows of, and of which none move.
fn at_rest(topology: &Topology, own: NodeId) -> BTreeSet<PartitionId> {
    let mut owned = BTreeSet::new();
    for (_, placement) in topology.placements() {
        owned.extend(partition_ids(topology.ring.partitions()).filter(|partition| {
            let WriteRings { present, coming } = placement.write_rings(*partition);
            coming.is_none() && present.primaries(*partition).contains(&own)
        }));
    }
    owned
}
