//! The parts of a node that need no cluster: its storage, its clock and what they recovered.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{ClusterSettings, Config, StorageOptions};
use crate::node::admission::Admission;
use crate::node::anti_entropy::LostHints;
use crate::node::clock::Clock;
use crate::node::committer::{Committer, Pen};
use crate::node::env::Env;
use crate::node::feeder::Feeder;
use crate::node::groups::open;
use crate::node::health::Health;
use crate::node::hot_keys::KeySampler;
use crate::node::identity_keeper::IdentityKeeper;
use crate::node::keyspace_limits::Meters;
use crate::node::launch::StartError;
use crate::node::pacing::{PacedRate, Pacing};
use crate::node::replica::Replica;
use crate::protocol::membership::MemberSet;
use crate::protocol::ring::Ring;
use crate::storage::engine::Engine;
use crate::storage::files::Files;
use crate::storage::group_log::{self, GroupLogs};
use crate::storage::hint_log::HintLog;
use crate::storage::identity::Identity;
use crate::storage::store::{Store, StoreError};
use crate::storage::wal::{LogRecord, Recovery, ReplayError, Wal, WalError, WalOptions};
use crate::telemetry::Metrics;
use crate::types::{
    Epoch, Incarnation, KeyspaceId, Lsn, Moment, NodeId, PartitionId, Row, Timestamp,
};

/// Bytes of one segment of hints.
const HINT_SEGMENT_BYTES: u64 = 8 << 20;

/// The seams of a node: its machine, its disk and its engine.
pub struct Parts {
    /// Clock, randomness and blocking threads.
    pub env: Arc<dyn Env>,
    /// The data directory, but for the engine.
    pub files: Arc<dyn Files>,
    /// The table of rows.
    pub engine: Arc<dyn Engine>,
    /// Set when the engine's earlier contents are lost: why, and where they were put aside.
    pub engine_lost: Option<String>,
}

/// A node's storage and clock.
pub(crate) struct Local {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) identity: Arc<IdentityKeeper>,
    pub(crate) health: Arc<Health>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) store: Arc<Store>,
    pub(crate) wal: Arc<Mutex<Wal>>,
    /// What the log holds of each Raft group. To be locked after the log, never before.
    pub(crate) group_logs: Arc<Mutex<GroupLogs>>,
    pub(crate) hint_log: Arc<HintLog>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) feeder: Arc<Feeder>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) hot_keys: KeySampler,
    pub(crate) lost_hints: Arc<LostHints>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Local {
    /// A rate at which rows are copied, at the node's pace.
    pub(crate) fn rate(&self, bytes_per_second: u64) -> PacedRate {
        PacedRate::new(&self.replica.admission.pacing, bytes_per_second)
    }

    /// Opens everything and recovers what the log holds beyond the engine. Blocks on the disk.
    pub(crate) fn open(config: &Config, parts: Parts) -> Result<Local, StartError> {
        let Parts { env, files, engine, engine_lost } = parts;
        let health = Arc::new(Health::default());
        let mut identity = load_identity(&*env, &*files)?;
        let store = open_store(engine)
            .map_err(|error| StartError::new("cannot read the storage engine", &error))?;
        let mut recovered = recover(config, &identity, &files, &store, &*env)?;
        if let Some(lost) = engine_lost.or_else(|| recovered.loss(&identity)) {
            recovered.give_up_groups(&identity, &store, &*env)?;
            store.forget_up_to(identity.reap_fence, env.now());
            note_loss(&mut identity, &*env);
            health.notice(lost);
        }
        health.set_rebuilding(identity.rebuilding);
        let floor = recovered.floor.max(identity.clock_floor);
        let hint_log = open_hints(&files, &health)?;
        let identity = IdentityKeeper::new(Arc::clone(&files), identity)
            .map_err(|error| StartError::new("cannot keep the node's identity", &error))?;
        let offset = config.limits.max_clock_offset;
        let opened = Opened {
            files,
            identity: Arc::new(identity),
            health,
            clock: Arc::new(Clock::new(Arc::clone(&env), floor, offset)),
            store: Arc::new(store),
            wal: Arc::new(Mutex::new(recovered.wal)),
            group_logs: Arc::new(recovered.group_logs),
            hint_log,
            metrics: Arc::new(Metrics::new()),
            env,
        };
        Ok(opened.drive(config.storage, config.limits.requests_in_flight_max))
    }
}

/// What has been opened and recovered, before anything drives it.
struct Opened {
    env: Arc<dyn Env>,
    files: Arc<dyn Files>,
    identity: Arc<IdentityKeeper>,
    health: Arc<Health>,
    clock: Arc<Clock>,
    store: Arc<Store>,
    wal: Arc<Mutex<Wal>>,
    group_logs: Arc<Mutex<GroupLogs>>,
    hint_log: Arc<HintLog>,
    metrics: Arc<Metrics>,
}

impl Opened {
    fn drive(self, options: StorageOptions, requests_max: usize) -> Local {
        let committer = Arc::new(Committer::new(
            Arc::clone(&self.env),
            options,
            (Arc::clone(&self.wal), Arc::clone(&self.group_logs)),
            (Arc::clone(&self.store), self.pen(options)),
            Arc::clone(&self.health),
            Arc::clone(&self.metrics),
        ));
        let pacing = Arc::new(Pacing::new(Arc::clone(&self.env), Arc::clone(&self.metrics)));
        let feeder = self.feeder(options, &committer, &pacing);
        let admission = Admission {
            env: Arc::clone(&self.env),
            committer: Arc::clone(&committer),
            metrics: Arc::clone(&self.metrics),
            requests: Arc::default(),
            requests_max,
            pacing,
        };
        let replica = Replica {
            env: Arc::clone(&self.env),
            clock: Arc::clone(&self.clock),
            store: Arc::clone(&self.store),
            committer: Arc::clone(&committer),
            admission: Arc::new(admission),
            health: Arc::clone(&self.health),
            metrics: Arc::clone(&self.metrics),
        };
        let hot_keys = KeySampler::new(self.env.now());
        Local {
            env: self.env,
            identity: self.identity,
            health: self.health,
            clock: self.clock,
            store: self.store,
            wal: self.wal,
            group_logs: self.group_logs,
            hint_log: self.hint_log,
            committer,
            feeder: Arc::new(feeder),
            replica: Arc::new(replica),
            meters: Arc::default(),
            hot_keys,
            lost_hints: Arc::default(),
            metrics: self.metrics,
        }
    }

    fn pen(&self, options: StorageOptions) -> Pen {
        let segment_bytes = usize::try_from(options.wal_segment_bytes).unwrap_or(usize::MAX);
        Pen::new(Arc::clone(&self.env), Arc::clone(&self.clock), segment_bytes)
    }

    fn feeder(
        &self,
        options: StorageOptions,
        committer: &Arc<Committer>,
        pacing: &Arc<Pacing>,
    ) -> Feeder {
        Feeder {
            env: Arc::clone(&self.env),
            options,
            files: Arc::clone(&self.files),
            wal: Arc::clone(&self.wal),
            group_logs: Arc::clone(&self.group_logs),
            store: Arc::clone(&self.store),
            committer: Arc::clone(committer),
            health: Arc::clone(&self.health),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            identity: Arc::clone(&self.identity),
            pacing: Arc::clone(pacing),
        }
    }
}

/// Loads the identity, or makes one, and counts this start.
fn load_identity(env: &dyn Env, files: &dyn Files) -> Result<Identity, StartError> {
    let loaded = Identity::load(files)
        .map_err(|error| StartError::new("cannot read the node's identity", &error))?;
    let mut identity = loaded.unwrap_or_else(|| Identity {
        node_id: NodeId(env.random()),
        incarnation: Incarnation(env.random()),
        generation: 0,
        cluster: None,
        founder: false,
        members: MemberSet::new(),
        clock_floor: Timestamp::default(),
        reap_fence: Timestamp::default(),
        outdated: false,
        rebuilding: false,
    });
    // A generation that starts at the wall clock stays above those of an identity that was lost.
    identity.generation = (identity.generation + 1).max(env.wall_ms());
    Ok(identity)
}

/// A node that has lost rows begins a new life, and refills before its answers count. One that
/// belongs to no cluster yet had nothing to lose.
fn note_loss(identity: &mut Identity, env: &dyn Env) {
    identity.incarnation = Incarnation(env.random());
    identity.rebuilding = identity.cluster.is_some();
    identity.outdated = false;
}

/// What the log gave back.
struct Recovered {
    wal: Wal,
    group_logs: Mutex<GroupLogs>,
    recovery: Recovery,
    /// The highest stamp among the rows that were replayed.
    floor: Timestamp,
    /// Whether the engine held nothing before.
    engine_was_empty: bool,
}

impl Recovered {
    /// Rows are lost: what is left of the groups' rows is of no single moment, and their replicas
    /// here are given up, durably and before the node begins its new life.
    fn give_up_groups(
        &mut self,
        identity: &Identity,
        store: &Store,
        env: &dyn Env,
    ) -> Result<(), StartError> {
        let Some(cluster) = &identity.cluster else { return Ok(()) };
        let failed = |error: &dyn std::error::Error| {
            StartError::new("cannot give up the replicas of Raft groups whose rows are lost", error)
        };
        let above = Timestamp::from_wall_ms(env.wall_ms()).max(self.floor);
        let stamp = Timestamp(above.0 + 1);
        let logs = self.group_logs.lock();
        let (records, marks) = open::give_up(&logs, store, cluster.partitions, stamp)
            .map_err(|error| failed(&error))?;
        drop(logs);
        let last = group_log::commit(&mut self.wal, &self.group_logs, &records)
            .map_err(|error| failed(&error))?;
        store.publish(last, marks.into_iter(), env.now());
        self.floor = self.floor.max(stamp);
        Ok(())
    }

    /// What is missing, if log and engine together cannot hold all that was acknowledged.
    fn loss(&self, identity: &Identity) -> Option<String> {
        identity.cluster.as_ref()?;
        if identity.outdated {
            return Some("the data directory had been put back to an earlier state".to_owned());
        }
        let begins_late = self.recovery.first_lsn > Lsn(1);
        if self.recovery.created {
            Some("the write-ahead log was missing; rows may be lost".to_owned())
        } else if self.engine_was_empty && begins_late {
            Some("the storage engine was missing; rows older than the log are lost".to_owned())
        } else {
            None
        }
    }
}

/// Replays the log: rows above the engine's into the store, what groups remember into its mirror.
fn recover(
    config: &Config,
    identity: &Identity,
    files: &Arc<dyn Files>,
    store: &Store,
    env: &dyn Env,
) -> Result<Recovered, StartError> {
    let ring = identity.cluster.as_ref().map(empty_ring).transpose()?;
    let options = WalOptions { segment_bytes: config.storage.wal_segment_bytes };
    let (floor, group_logs) = (Timestamp::default(), GroupLogs::recovering());
    let mut replay = Replay { store, ring, now: env.now(), floor, group_logs };
    let applied = store.applied_lsn();
    let mut take = |lsn, record| replay.take(lsn, record);
    let (wal, recovery) = Wal::open(Arc::clone(files), options, applied, &mut take)
        .map_err(|error| StartError::new("cannot recover the write-ahead log", &error))?;
    let Replay { floor, mut group_logs, .. } = replay;
    group_logs.recovered().map_err(|error| match recovery.first_segment {
        0 | 1 => StartError::new("cannot recover the logs of the Raft groups", &error),
        // Whatever a segment that may go holds of a group is written anew before it goes.
        first => {
            let reason = format!("the file is missing: {error}");
            let lost = WalError::Damaged { segment: first - 1, offset: 0, reason };
            StartError::new("cannot recover the logs of the Raft groups", &lost)
        }
    })?;
    tracing::debug!(?recovery, "recovered the write-ahead log");
    let engine_was_empty = applied == Lsn(0);
    let group_logs = Mutex::new(group_logs);
    Ok(Recovered { wal, group_logs, recovery, floor, engine_was_empty })
}

/// Takes what the log hands out.
struct Replay<'a> {
    store: &'a Store,
    /// None for a node that has no cluster yet, and so no rows.
    ring: Option<Ring>,
    now: Moment,
    floor: Timestamp,
    group_logs: GroupLogs,
}

impl Replay<'_> {
    fn take(&mut self, lsn: Lsn, record: LogRecord) -> Result<(), ReplayError> {
        match record {
            LogRecord::Row(row) => {
                let placed = self.ring.as_ref().map(|ring| (ring.partition_of(&row.key), row));
                self.publish(lsn, placed);
            }
            LogRecord::Rows(rows) => self.publish(lsn, rows),
            LogRecord::Group(record) => self.group_logs.on_record(lsn, &record)?,
            LogRecord::DropKeyspace(keyspace) => {
                self.store.drop_keyspace(keyspace, self.now);
                self.publish(lsn, None);
            }
            LogRecord::DropPartition(keyspace, partition) => {
                self.store.drop_partition((keyspace, partition), self.now);
                self.publish(lsn, None);
            }
        }
        Ok(())
    }

    fn publish(&mut self, lsn: Lsn, rows: impl IntoIterator<Item = (PartitionId, Row)>) {
        let floor = &mut self.floor;
        let seen =
            |(_, row): &(PartitionId, Row)| *floor = (*floor).max(row.record.version.timestamp);
        self.store.publish(lsn, rows.into_iter().inspect(seen), self.now);
    }
}

fn open_store(engine: Arc<dyn Engine>) -> Result<Store, StoreError> {
    let store = Store::new(engine)?;
    for keyspace in [KeyspaceId::DEFAULT, KeyspaceId::GROUP, KeyspaceId::SESSIONS] {
        store.create_keyspace(keyspace)?;
    }
    Ok(store)
}

/// A ring without members: enough to tell a key's partition.
fn empty_ring(cluster: &ClusterSettings) -> Result<Ring, StartError> {
    Ring::new(Epoch(0), cluster.partitions, cluster.replication.factor, &[])
        .map_err(|error| StartError::new("the cluster's settings make no ring", &error))
}

fn open_hints(files: &Arc<dyn Files>, health: &Health) -> Result<Arc<HintLog>, StartError> {
    let (hint_log, recovery) = HintLog::open(Arc::clone(files), HINT_SEGMENT_BYTES)
        .map_err(|error| StartError::new("cannot open the hints", &error))?;
    for segment in recovery.damaged_segments {
        health.notice(format!("hints after a damaged place of {segment} are lost"));
    }
    Ok(Arc::new(hint_log))
}

#[cfg(test)]
mod tests;
