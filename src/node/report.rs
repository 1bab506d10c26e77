//! Makes the pictures of [`crate::node::status`] from a running node.

mod groups;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::net::transport::Sighting;
use crate::node::hot_keys::hot_keys;
use crate::node::service::{Attached, Node};
use crate::node::status::{
    Activity, KeyOwners, MemberStatus, NodeStatus, OwnerView, PartitionView, ReplicationStatus,
    RingSummary, RingView,
};
use crate::node::topology::{Placement, Topology};
use crate::protocol::membership::Member;
use crate::protocol::ring::token_of;
use crate::telemetry::PeerLabels;
use crate::types::{Epoch, GroupId, Key, NodeId, PartitionId};

/// Everything that `coterie status` shows.
pub(crate) fn status(node: &Node) -> NodeStatus {
    let attached = node.attached.get();
    NodeStatus {
        program_version: env!("CARGO_PKG_VERSION"),
        cluster_id: node.identity().cluster().map(|cluster| cluster.cluster_id),
        node_id: node.identity().node_id(),
        name: node.config.name.clone(),
        incarnation: node.identity().incarnation(),
        serving: node.serving(),
        members: attached.map(|attached| members(node, attached)).unwrap_or_default(),
        ring: attached.map_or_else(no_ring, ring_summary),
        replication: replication(node, attached),
        raft: groups::status(node, attached),
        hot_keys: hot_keys(node),
        concurrent_writes_discarded: node.metrics().concurrent_writes_discarded.get(),
        activities: activities(node, attached),
        warnings: warnings(node, attached),
    }
}

/// The ring, member by member and partition by partition.
pub(crate) fn ring(node: &Node) -> RingView {
    let Some(attached) = node.attached.get() else {
        return RingView { summary: no_ring(), members: Vec::new(), partitions: Vec::new() };
    };
    let topology = attached.topology.load();
    let leaders = attached.groups.gateway.leaders();
    let view = |number: u32| {
        // Q is at most 32,768, so that every partition's number fits 16 bits.
        let partition = PartitionId(number as u16);
        PartitionView {
            partition,
            primaries: topology.ring.primaries(partition).to_vec(),
            leader: leaders.get(&GroupId::of(partition)).copied(),
        }
    };
    RingView {
        summary: ring_summary(attached),
        members: members(node, attached),
        partitions: (0..topology.ring.partitions()).map(view).collect(),
    }
}

/// Where a key lies.
pub(crate) fn owners(node: &Node, key: &Key) -> KeyOwners {
    let token = token_of(key);
    let Some(attached) = node.attached.get() else {
        let partition = PartitionId(0);
        return KeyOwners { key: key.to_string(), token, partition, owners: Vec::new() };
    };
    let topology = attached.topology.load();
    let partition = topology.ring.partition_of(key);
    let set = attached.members.set();
    let view = |node: NodeId, role| {
        let member = set.get(node)?;
        Some(OwnerView {
            node_id: node,
            name: member.name.clone(),
            role,
            state: attached.members.state(node).name().to_owned(),
            client_address: member.client_address,
        })
    };
    let primaries = topology.ring.primaries(partition).iter();
    let primaries = primaries.filter_map(|node| view(*node, "primary"));
    let fallbacks = topology.ring.fallbacks(partition).filter_map(|node| view(node, "fallback"));
    let owners = primaries.chain(fallbacks).collect();
    KeyOwners { key: key.to_string(), token, partition, owners }
}

/// Members that can be reached now, this node among them.
pub(crate) fn reached(attached: &Attached, own: NodeId) -> u32 {
    let topology = attached.topology.load();
    let is_reached = |node: &&NodeId| **node == own || attached.transport.is_connected(**node);
    topology.up.iter().filter(is_reached).count() as u32
}

/// Sets the gauges that are read rather than counted.
pub(crate) fn read_gauges(node: &Node) {
    let (metrics, local) = (node.metrics(), &node.local);
    let wal = local.wal.lock().stats();
    metrics.wal_bytes.set(wal.bytes);
    metrics.wal_syncs.inner().store(wal.syncs, std::sync::atomic::Ordering::Relaxed);
    metrics.wal_queue_rows.set(local.committer.queued_records() as u64);
    let group_logs = local.group_logs.lock();
    metrics.group_log_entries.set(group_logs.entries() as u64);
    metrics.group_log_bytes.set(group_logs.bytes() as u64);
    drop(group_logs);
    let table_bytes = local.store.active_bytes() + local.store.frozen_bytes();
    metrics.memtable_bytes.set(table_bytes as u64);
    let engine = local.store.engine_stats();
    metrics.engine_disk_bytes.set(engine.disk_bytes);
    metrics.engine_nudges.set(engine.nudges);
    metrics.hottest_key_requests_per_second.set(local.hot_keys.hottest_per_second(local.env.now()));
    metrics.corrupt_rows.set(local.store.corrupt_rows());
    if let Some(attached) = node.attached.get() {
        read_cluster_gauges(node, attached);
    }
}

fn read_cluster_gauges(node: &Node, attached: &Attached) {
    groups::read_gauges(node, attached);
    let metrics = node.metrics();
    let topology = attached.topology.load();
    let waiting = node.local.replica.admission.requests();
    metrics.requests_in_flight.set(waiting as u64);
    let under_way = attached.coordinator.operations();
    metrics.requests_lingering.set(under_way.saturating_sub(waiting) as u64);
    metrics.members.set(topology.members.len() as u64);
    metrics.members_up.set(topology.up.len() as u64);
    metrics.ring_epoch.set(topology.epoch.0);
    metrics.partitions_unsettled.set(u64::from(ring_summary(attached).unsettled));
    read_hints(node, &topology);
    for traffic in attached.transport.traffic() {
        let labels = PeerLabels { peer: traffic.peer.to_string() };
        let set = |family: &prometheus_client::metrics::family::Family<_, _>, value| {
            let gauge: &crate::telemetry::Reading = &family.get_or_create(&labels);
            gauge.set(value);
        };
        let pace = attached.coordinator.latencies.pace(traffic.peer, node.local.env.now());
        set(&metrics.peer_slow, u64::from(pace.slow));
        set(&metrics.peer_read_latency_us, micros(pace.read));
        set(&metrics.peer_write_latency_us, micros(pace.write));
        set(&metrics.peer_connected, u64::from(traffic.connected));
        set(&metrics.peer_messages_sent, traffic.messages_sent);
        set(&metrics.peer_messages_received, traffic.messages_received);
        set(&metrics.peer_frames_sent, traffic.frames_sent);
        let queued: usize = traffic.queued.iter().sum();
        set(&metrics.peer_queued_messages, queued as u64);
    }
}

fn members(node: &Node, attached: &Attached) -> Vec<MemberStatus> {
    let topology = attached.topology.load();
    let hints: BTreeMap<NodeId, u64> =
        node.local.hint_log.targets().into_iter().map(|h| (h.target, h.bytes)).collect();
    let set = attached.members.set();
    let digest = set.digest();
    set.iter()
        .map(|(id, member)| {
            let sighting = attached.members.sighting(id);
            let mut status = member_status(node, attached, id, member, sighting, digest);
            status.partitions = topology.ring.partitions_of(id).count() as u32;
            status.hint_bytes = hints.get(&id).copied().unwrap_or(0);
            status
        })
        .collect()
}

fn member_status(
    node: &Node,
    attached: &Attached,
    id: NodeId,
    member: &Member,
    sighting: Option<Sighting>,
    digest: u64,
) -> MemberStatus {
    let is_self = id == node.identity().node_id();
    let facts = sighting.map(|sighting| sighting.facts);
    let complete = match &facts {
        _ if is_self => !node.local.health.is_rebuilding(),
        Some(facts) => facts.complete,
        None => true,
    };
    let pace = attached.coordinator.latencies.pace(id, node.local.env.now());
    MemberStatus {
        node_id: id,
        name: member.name.clone(),
        state: attached.members.state(id).name().to_owned(),
        is_self,
        connected: is_self || attached.transport.is_connected(id),
        peer_address: member.peer_address,
        client_address: member.client_address,
        zone: member.zone.clone(),
        vnodes: member.vnodes,
        partitions: 0,
        hint_bytes: 0,
        load_per_second: facts.as_ref().map_or(0, |facts| facts.load_per_second),
        complete,
        agrees: is_self || facts.is_none_or(|facts| facts.members_digest == digest),
        read_latency_us: micros(pace.read),
        write_latency_us: micros(pace.write),
        slow: pace.slow,
    }
}

/// Whoever has no hints waiting has none left, and is not passed over.
fn read_hints(node: &Node, topology: &Topology) {
    let own = node.identity().node_id();
    let mut bytes: BTreeMap<NodeId, u64> = topology.members.iter().map(|it| (*it, 0)).collect();
    bytes.remove(&own);
    bytes.extend(node.local.hint_log.targets().into_iter().map(|it| (it.target, it.bytes)));
    let family = &node.metrics().hint_bytes;
    family.clear();
    for (target, bytes) in bytes {
        family.get_or_create(&PeerLabels { peer: target.to_string() }).set(bytes);
    }
}

fn micros(latency: Option<Duration>) -> u64 {
    latency.map_or(0, |latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX))
}

fn no_ring() -> RingSummary {
    let (epoch, digest) = (Epoch(0), String::new());
    RingSummary { epoch, partitions: 0, vnodes: 0, digest, unsettled: 0 }
}

fn ring_summary(attached: &Attached) -> RingSummary {
    let topology = attached.topology.load();
    let state = attached.groups.gateway.system();
    let unsettled = state.map_or(0, |state| state.placing().unsettled(state.partitions()));
    RingSummary {
        epoch: topology.epoch,
        partitions: topology.ring.partitions(),
        vnodes: topology.ring.vnodes(),
        digest: format!("{:016x}", attached.members.set().digest()),
        unsettled: unsettled as u32,
    }
}

fn replication(node: &Node, attached: Option<&Attached>) -> ReplicationStatus {
    let cluster = node.identity().cluster();
    let founding =
        cluster.map(|cluster| cluster.replication).or(node.config.replication).unwrap_or_default();
    let placement = attached.map(|attached| attached.topology.load().default_placement().clone());
    let configured = placement.as_ref().map_or(founding, |placement| placement.replication);
    let in_effect = |count: fn(&Placement) -> u32| placement.as_ref().map_or(0, count);
    ReplicationStatus {
        replication_factor: configured.factor,
        read_quorum: configured.read_quorum,
        write_quorum: configured.write_quorum,
        replicas_in_effect: in_effect(|placement| placement.ring.replicas_in_effect()),
        read_quorum_in_effect: in_effect(|placement| {
            placement.in_effect(placement.replication.read_quorum)
        }),
        write_quorum_in_effect: in_effect(|placement| {
            placement.in_effect(placement.replication.write_quorum)
        }),
    }
}

fn activities(node: &Node, attached: Option<&Attached>) -> Vec<Activity> {
    let mut activities = vec![log_activity(node), engine_activity(node)];
    if let Some(attached) = attached {
        activities.push(node.local.replica.admission.activity());
        activities.push(attached.handoff.activity());
        activities.push(refill_activity(node, attached));
        activities.push(attached.anti_entropy.activity());
        activities.push(attached.reaper.activity());
        activities.push(attached.moves.transfers.activity());
        activities.push(groups::activity(&groups::status(node, Some(attached))));
        activities.push(groups::watch_activity(node, attached));
    }
    activities
}

fn log_activity(node: &Node) -> Activity {
    let stats = node.local.wal.lock().stats();
    let queued = node.local.committer.queued_records();
    let state = if node.local.health.is_failed() {
        "failed"
    } else if node.local.health.is_disk_full() {
        "waiting"
    } else if queued > 0 {
        "busy"
    } else {
        "idle"
    };
    let detail = format!(
        "{} segments, {} bytes, {} commits, {} syncs, {queued} records queued",
        stats.segments, stats.bytes, stats.commits, stats.syncs
    );
    Activity { name: "write-ahead log", state, detail }
}

fn engine_activity(node: &Node) -> Activity {
    let store = &node.local.store;
    let frozen = store.frozen_bytes();
    let state = if frozen > 0 { "busy" } else { "idle" };
    let stats = store.engine_stats();
    let helped = match stats.nudges {
        0 => String::new(),
        nudges => format!(", {nudges} times a call took so long that it was helped on"),
    };
    let detail = format!(
        "{} bytes in memory, {frozen} being fed, {} checkpoints, {} bytes on disk{helped}",
        store.active_bytes(),
        stats.checkpoints,
        stats.disk_bytes
    );
    Activity { name: "engine", state, detail }
}

fn refill_activity(node: &Node, attached: &Attached) -> Activity {
    let rows = node.metrics().refill_rows.get();
    if node.local.health.is_rebuilding() {
        let (heard, all) = attached.refill.progress();
        let detail = format!("{heard} of {all} pieces, {rows} rows");
        Activity { name: "refill", state: "busy", detail }
    } else {
        let detail = format!("complete; {rows} rows since the start");
        Activity { name: "refill", state: "idle", detail }
    }
}

fn warnings(node: &Node, attached: Option<&Attached>) -> Vec<String> {
    let mut warnings = node.local.health.warnings();
    if let Some(attached) = attached {
        let topology = attached.topology.load();
        let placement = topology.default_placement();
        if placement.is_under_replicated() {
            warnings.push(format!(
                "{} nodes on the ring are fewer than the replication factor {}: quorums are their \
                 majority",
                topology.ring.members().len(),
                placement.replication.factor
            ));
        }
        warnings.extend(slow_replicas(node, attached));
        warnings.extend(groups::warnings(&attached.groups.gateway.census()));
        warnings.extend(
            attached
                .transport
                .refusals()
                .into_iter()
                .map(|(peer, reason)| format!("no stream to node {peer}: {reason}")),
        );
    }
    warnings
}

/// Members that take much longer than others to answer this node.
fn slow_replicas(node: &Node, attached: &Attached) -> Vec<String> {
    let now = node.local.env.now();
    let warn = |(id, member): (NodeId, &Member)| {
        let pace = attached.coordinator.latencies.pace(id, now);
        let ms = |latency: Option<Duration>| match latency {
            Some(latency) => format!("{} ms", latency.as_millis()),
            None => "not measured".to_owned(),
        };
        pace.slow.then(|| {
            let (name, read, write) = (&member.name, ms(pace.read), ms(pace.write));
            format!(
                "node {name} ({id}) is slow: reads {read}, writes {write} on average; reads go \
                 round it, and writes wait for it only where their quorum needs it"
            )
        })
    };
    attached.members.set().iter().filter_map(warn).collect()
}
