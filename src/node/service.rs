//! A running node, as the interfaces see it.

use std::iter::once;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::config::{Config, Limits};
use crate::net::transport::Transport;
use crate::node::anti_entropy::AntiEntropy;
use crate::node::assembly::{Close, Moves};
use crate::node::coordinator::Coordinator;
use crate::node::dispatcher::Dispatcher;
use crate::node::groups::begin::GroupHandles;
use crate::node::groups::report::GroupStatus;
use crate::node::groups::system::DECISION_TIMEOUT;
use crate::node::hinted_handoff::HintedHandoff;
use crate::node::identity_keeper::IdentityKeeper;
use crate::node::keyspace_limits::{cost_of, cost_of_steps, sent_bytes};
use crate::node::lists::Lists;
use crate::node::local::Local;
use crate::node::members::{MemberError, Members};
use crate::node::reaping::Reaper;
use crate::node::refill::Refill;
use crate::node::report;
use crate::node::request::{
    ReadAnswer, Receipt, RequestError, RequestOptions, Transacted, Transaction,
};
use crate::node::status::{KeyOwners, NodeStatus, RingView, Serving};
use crate::node::strong::{Strong, Target, check_outcome};
use crate::node::tasks::Tasks;
use crate::node::topology::TopologyCell;
use crate::node::watch::Watches;
use crate::protocol::group::command::Action;
use crate::protocol::membership::MemberSet;
use crate::protocol::ring::Ring;
use crate::protocol::system::keyspace::{Keyspace, Mode};
use crate::protocol::system::{SystemCommand, SystemReply, SystemState};
use crate::telemetry::{Metrics, Operation};
use crate::types::{GroupId, Key, KeyspaceId, Moment, NodeId, Row};

/// How long a node that has just started waits for a quorum of peers before it calls itself ready
/// without them: a cluster of which only one node returned can still serve reads at ONE.
const QUORUM_GRACE: Duration = Duration::from_secs(5);

/// A running node.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) local: Local,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) attached: OnceLock<Attached>,
    /// What the node waits for before it belongs to a cluster.
    pub(crate) waits_for: Mutex<String>,
}

/// What a node has once it belongs to a cluster.
pub(crate) struct Attached {
    pub(crate) since: Moment,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) topology: Arc<TopologyCell>,
    pub(crate) members: Arc<Members>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) lists: Arc<Lists>,
    pub(crate) watches: Watches,
    pub(crate) handoff: Arc<HintedHandoff>,
    pub(crate) refill: Arc<Refill>,
    pub(crate) anti_entropy: Arc<AntiEntropy>,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) moves: Moves,
    /// Whether the node has just joined, and has never been ready.
    pub(crate) joins: AtomicBool,
    pub(crate) groups: GroupHandles,
    pub(crate) close: Mutex<Option<Close>>,
}

impl Node {
    /// Writes a value; answers once the write quorum has it durably.
    ///
    /// # Errors
    /// Any [`RequestError`]; its outcome says what is known of the effect.
    pub async fn put(
        &self,
        key: Key,
        value: Bytes,
        options: RequestOptions,
    ) -> Result<Receipt, RequestError> {
        let began = self.local.env.now();
        let outcome = self.write(key, Some(value), &options).await;
        self.finish(&self.metrics().put, began, outcome)
    }

    /// Writes a tombstone; answers once the write quorum has it durably.
    ///
    /// # Errors
    /// Any [`RequestError`]; its outcome says what is known of the effect.
    pub async fn delete(&self, key: Key, options: RequestOptions) -> Result<Receipt, RequestError> {
        let began = self.local.env.now();
        let outcome = match options.ttl {
            None => self.write(key, None, &options).await,
            Some(_) => Err(RequestError::no_ttl("a delete")),
        };
        self.finish(&self.metrics().delete, began, outcome)
    }

    /// Reads a key; `value` is `None` when it has none or was deleted.
    ///
    /// # Errors
    /// Any [`RequestError`].
    pub async fn get(&self, key: Key, options: RequestOptions) -> Result<ReadAnswer, RequestError> {
        let began = self.local.env.now();
        let outcome = self.read(key, &options).await;
        self.finish(&self.metrics().get, began, outcome)
    }

    /// Does several steps of one strong keyspace together or not at all: Put, Delete, Append,
    /// CompareAndSet and Check, whose keys must lie in one partition.
    ///
    /// # Errors
    /// Any [`RequestError`]; its outcome says what is known of the effect.
    pub async fn transact(
        &self,
        transaction: Transaction,
        options: RequestOptions,
    ) -> Result<Transacted, RequestError> {
        let began = self.local.env.now();
        let outcome = self.write_together(transaction, &options).await;
        self.finish(&self.metrics().transact, began, outcome)
    }

    /// Changes the cluster's facts: creates, alters or drops a keyspace, places a group.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] or [`RequestError::Rejected`] when it is refused, else what kept
    /// it from being decided.
    pub async fn decide(&self, command: SystemCommand) -> Result<SystemReply, RequestError> {
        self.attached()?.groups.system.propose(command).await
    }

    /// The same, answered once this node has applied it: when `seen` finds in its state what the
    /// reply is about.
    ///
    /// # Errors
    /// As [`Node::decide`]; [`RequestError::OutcomeUnknown`] when it is not seen here in time.
    pub async fn decide_here<T>(
        &self,
        command: SystemCommand,
        timeout: Option<Duration>,
        seen: impl Fn(&SystemReply, &SystemState) -> Option<T>,
    ) -> Result<T, RequestError> {
        let attached = self.attached()?;
        let groups = &attached.groups;
        let began = self.local.env.now();
        let time = timeout.unwrap_or(DECISION_TIMEOUT);
        let reply = groups.system.propose_within(command, time).await?;
        let mut topologies = attached.topology.follow();
        let mut states = groups.gateway.follow_system();
        let applied = async {
            loop {
                topologies.borrow_and_update();
                states.borrow_and_update();
                // The topology follows the state; some decisions, such as limits, do not change it.
                let state = groups.gateway.system();
                let state = state.filter(|s| attached.topology.load().has_keyspaces_of(s));
                if let Some(found) = state.and_then(|state| seen(&reply, &state)) {
                    return Some(found);
                }
                tokio::select! { biased;
                    changed = topologies.changed() => changed.ok()?,
                    changed = states.changed() => changed.ok()?,
                }
            }
        };
        let applied = tokio::select! { biased;
            applied = applied => applied,
            () = self.local.env.sleep_until(began + time) => None,
        };
        let waited_ms = self.local.env.now().since(began).as_millis() as u64;
        applied.ok_or(RequestError::OutcomeUnknown { group: GroupId::SYSTEM, waited_ms })
    }

    /// What the system group has decided, as far as this node has heard; `None` before it joined.
    pub fn system(&self) -> Option<Arc<SystemState>> {
        self.attached.get()?.groups.gateway.system()
    }

    /// The node that leads the group of a key of strong keyspaces, as far as this node knows.
    pub fn leader_of(&self, key: &Key) -> Option<NodeId> {
        let attached = self.attached.get()?;
        let partition = attached.topology.load().ring.partition_of_tagged(key);
        attached.groups.gateway.leader(GroupId::of(partition))
    }

    /// The Raft groups that this node has a replica of, by number.
    pub async fn groups(&self) -> Vec<GroupStatus> {
        match self.attached.get() {
            Some(attached) => attached.groups.gateway.report().await,
            None => Vec::new(),
        }
    }

    /// Hands leadership of a group that this node leads to another node.
    ///
    /// # Errors
    /// [`RequestError::NotServing`] before the node has joined; [`RequestError::Rejected`] when it
    /// does not lead the group or the other node has no voting replica of it;
    /// [`RequestError::NoLeader`] while the group is being handed to yet another node.
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<(), RequestError> {
        let transferred = self.attached()?.groups.gateway.transfer(group, to).await;
        transferred.map_err(|refusal| refusal.of_request(group))
    }

    /// The member of that id or name.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] when there is none, or several have the name.
    pub fn member_named(&self, node: &str) -> Result<NodeId, RequestError> {
        self.attached()?.members.find(node).map_err(not_that_node)
    }

    /// The bounds on what clients may send.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Whether the node serves, and if not, why.
    pub fn serving(&self) -> Serving {
        let reason = match (self.local.health.failure(), self.attached.get()) {
            (Some(failure), _) => failure,
            (None, None) => self.waits_for.lock().clone(),
            (None, Some(attached)) => self.attached_waits_for(attached).unwrap_or_default(),
        };
        Serving { ready: reason.is_empty(), reason }
    }

    /// The members, as this node knows them: what it tells those that join.
    pub fn members(&self) -> MemberSet {
        self.attached.get().map(|attached| attached.members.set()).unwrap_or_default()
    }

    /// Everything that `coterie status` shows.
    pub fn status(&self) -> NodeStatus {
        report::status(self)
    }

    /// The ring, member by member and partition by partition.
    pub fn ring(&self) -> RingView {
        report::ring(self)
    }

    /// Where a key lies.
    pub fn owners(&self, key: &Key) -> KeyOwners {
        report::owners(self, key)
    }

    /// The metrics in Prometheus' text format.
    pub fn metrics_text(&self) -> String {
        report::read_gauges(self);
        self.metrics().text()
    }

    /// Stops serving, makes everything durable and closes the node. Idempotent.
    pub async fn stop(&self) {
        let close = self.attached.get().and_then(|attached| attached.close.lock().take());
        let closing = async {
            if let Some(close) = close {
                close.await;
            }
        };
        tokio::join!(self.tasks.stop(), closing);
        if let Some(attached) = self.attached.get() {
            attached.handoff.flush(&*self.dispatcher).await;
        }
        self.local.feeder.finish().await;
    }

    /// Ends everything where it stands, as a crash would; nothing is made durable.
    pub fn abort(&self) {
        self.tasks.abort();
    }

    /// Reads what this replica alone holds for a key of a leaderless keyspace: for inspection.
    ///
    /// # Errors
    /// [`RequestError::UnknownKeyspace`]; [`RequestError::Invalid`] for a strong keyspace;
    /// [`RequestError::NotServing`] before the node has joined, or when its storage failed.
    pub fn peek(
        &self,
        keyspace: Option<&str>,
        key: &Key,
    ) -> Result<Option<crate::types::Record>, RequestError> {
        let attached = self.attached()?;
        let options = RequestOptions { keyspace: keyspace.map(Arc::from), ..Default::default() };
        let Target::Quorum(keyspace) = Target::of(&options, &attached.groups)? else {
            let problem = "is strong; its rows are read through their group".to_owned();
            return Err(RequestError::Invalid { field: "keyspace", problem });
        };
        let partition = attached.topology.load().ring.partition_of(key);
        self.local
            .store
            .read(keyspace, partition, key)
            .map_err(|error| RequestError::NotServing { reason: error.to_string() })
    }

    /// Reads what this replica alone holds of a strong partition, sessions included: for
    /// inspection. What was applied a moment ago may be missing.
    ///
    /// # Errors
    /// [`RequestError::NotServing`] before the node has joined, or when its storage failed.
    pub fn peek_group(&self, group: GroupId) -> Result<Vec<Row>, RequestError> {
        const PAGE_BYTES: usize = 256 << 10;
        let state = self.attached()?.groups.gateway.system();
        let strong = state.iter().flat_map(|state| state.keyspaces());
        let strong = strong.filter(|keyspace| keyspace.mode == Mode::Strong);
        let keyspaces = strong.map(|keyspace| keyspace.id).chain([KeyspaceId::SESSIONS]);
        let mut rows = Vec::new();
        for keyspace in keyspaces {
            let mut after = None;
            loop {
                let store = &self.local.store;
                let page = store.scan(keyspace, group.partition(), after.as_ref(), PAGE_BYTES);
                let page =
                    page.map_err(|error| RequestError::NotServing { reason: error.to_string() })?;
                after = page.rows.last().map(|(key, _)| key.clone());
                let row = |(key, record)| Row { keyspace, key, record };
                rows.extend(page.rows.into_iter().map(row));
                if page.done || after.is_none() {
                    break;
                }
            }
        }
        Ok(rows)
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.local.metrics
    }

    pub(crate) fn identity(&self) -> &IdentityKeeper {
        &self.local.identity
    }

    async fn write(
        &self,
        key: Key,
        value: Option<Bytes>,
        options: &RequestOptions,
    ) -> Result<Receipt, RequestError> {
        let attached = self.attached()?;
        let cost = cost_of(&key, value.as_ref().map_or(0, Bytes::len));
        let action = value.clone().map_or(Action::Delete, Action::Put);
        self.check_step(&key, &action)?;
        let named = self.target(attached, options).await?;
        let options = &*named.options;
        match named.found {
            Target::Quorum(keyspace) => {
                self.admit(keyspace, once(&key), cost, options)?;
                attached.coordinator.write(keyspace, key, value, options).await
            }
            Target::Strong(keyspace) => {
                self.admit(keyspace.id, once(&key), cost, options)?;
                let topology = attached.topology.load();
                let strong = self.strong(attached, &topology.ring, &keyspace);
                Ok(strong.write(key, action, options).await?.receipt)
            }
        }
    }

    async fn read(&self, key: Key, options: &RequestOptions) -> Result<ReadAnswer, RequestError> {
        let attached = self.attached()?;
        self.check_size("key_bytes_max", self.config.limits.key_bytes_max, key.0.len())?;
        let named = self.target(attached, options).await?;
        let (target, options) = (named.found, &*named.options);
        let keyspace = target.keyspace();
        self.admit(keyspace, once(&key), cost_of(&key, 0), options)?;
        let answer = match target {
            Target::Quorum(keyspace) => attached.coordinator.read(keyspace, key, options).await?,
            Target::Strong(keyspace) => {
                let topology = attached.topology.load();
                self.strong(attached, &topology.ring, &keyspace).read(key, options).await?
            }
        };
        self.charge_value(keyspace, answer.value.as_ref().map_or(0, Bytes::len));
        Ok(answer)
    }

    async fn write_together(
        &self,
        transaction: Transaction,
        options: &RequestOptions,
    ) -> Result<Transacted, RequestError> {
        let attached = self.attached()?;
        for (key, action) in &transaction.steps {
            self.check_step(key, action)?;
        }
        let find = || Target::strong(&transaction.steps, options, &attached.groups);
        let named = self.named(attached, options, find).await?;
        let (keyspace, options) = (named.found, &*named.options);
        let value_bytes_max = self.config.limits.value_bytes_max;
        let segment_bytes = self.config.storage.wal_segment_bytes;
        check_outcome(&transaction.steps, value_bytes_max, segment_bytes)?;
        let keys = transaction.steps.iter().map(|(key, _)| key);
        self.admit(keyspace.id, keys, cost_of_steps(&transaction.steps), options)?;
        let topology = attached.topology.load();
        let strong = self.strong(attached, &topology.ring, &keyspace);
        match <[_; 1]>::try_from(transaction.steps) {
            Ok([(key, action)]) => strong.write(key, action, options).await,
            Err(_) if options.expect.is_some() => {
                let problem = "belongs to one key; put it into the steps".to_owned();
                Err(RequestError::Invalid { field: "condition", problem })
            }
            Err(steps) => strong.transact(Transaction { steps }, options).await,
        }
    }

    pub(crate) fn strong<'a>(
        &'a self,
        attached: &'a Attached,
        ring: &'a Ring,
        keyspace: &'a Keyspace,
    ) -> Strong<'a> {
        let client = &*attached.groups.client;
        let (clock, limits) = (&*self.local.clock, &self.config.limits);
        Strong { client, clock, limits, ring, keyspace }
    }

    fn check_step(&self, key: &Key, action: &Action) -> Result<(), RequestError> {
        self.check_size("key_bytes_max", self.config.limits.key_bytes_max, key.0.len())?;
        let value_bytes = sent_bytes(action);
        self.check_size("value_bytes_max", self.config.limits.value_bytes_max, value_bytes)?;
        if value_bytes >= self.config.limits.value_bytes_warn {
            tracing::warn!(%key, value_bytes, "a large value slows its partition down");
        }
        Ok(())
    }

    pub(crate) fn check_size(
        &self,
        limit: &'static str,
        max: usize,
        got: usize,
    ) -> Result<(), RequestError> {
        if limit == "key_bytes_max" && got == 0 {
            let problem = "is empty; a key has at least one byte".to_owned();
            return Err(RequestError::Invalid { field: "key", problem });
        }
        if got > max { Err(RequestError::TooLarge { limit, max, got }) } else { Ok(()) }
    }

    pub(crate) fn attached(&self) -> Result<&Attached, RequestError> {
        self.attached.get().ok_or_else(|| {
            let reason = self.waits_for.lock().clone();
            RequestError::NotServing { reason }
        })
    }

    fn attached_waits_for(&self, attached: &Attached) -> Option<String> {
        if let Some(waits) = self.waits_for_partitions(attached) {
            return Some(waits);
        }
        if self.local.health.is_rebuilding() {
            let (heard, all) = attached.refill.progress();
            return Some(format!("refilling from other replicas: {heard} of {all} pieces"));
        }
        let topology = attached.topology.load();
        let placement = topology.default_placement();
        let needed = placement
            .in_effect(placement.replication.read_quorum)
            .max(placement.in_effect(placement.replication.write_quorum));
        let reached = report::reached(attached, self.identity().node_id());
        let waited = self.local.env.now().since(attached.since);
        (reached < needed && waited < QUORUM_GRACE)
            .then(|| format!("{reached} of the {needed} nodes of a quorum are connected"))
    }

    pub(crate) fn finish<T>(
        &self,
        operation: &Operation,
        began: Moment,
        outcome: Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let took = self.local.env.now().since(began);
        let error = outcome.as_ref().err().map(RequestError::code);
        operation.finish(self.metrics(), error, took.as_secs_f64());
        outcome
    }
}

fn not_that_node(error: MemberError) -> RequestError {
    RequestError::Invalid { field: "node", problem: error.to_string() }
}
