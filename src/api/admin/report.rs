//! A node's report on the wire, field by field.

use crate::api::convert;
use crate::node::status;
use crate::proto::v1;

impl From<status::NodeStatus> for v1::StatusResponse {
    fn from(status: status::NodeStatus) -> Self {
        v1::StatusResponse {
            program_version: status.program_version.to_owned(),
            cluster_id: status.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
            node_id: status.node_id.to_string(),
            name: status.name,
            incarnation: status.incarnation.to_string(),
            serving: Some(v1::Serving {
                ready: status.serving.ready,
                reason: status.serving.reason,
            }),
            members: status.members.into_iter().map(Into::into).collect(),
            ring: Some(status.ring.into()),
            replication: Some(status.replication.into()),
            activities: status.activities.into_iter().map(Into::into).collect(),
            warnings: status.warnings,
            raft: Some(status.raft.into()),
            concurrent_writes_discarded: status.concurrent_writes_discarded,
            hot_keys: status.hot_keys.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<status::MemberStatus> for v1::Member {
    fn from(member: status::MemberStatus) -> Self {
        v1::Member {
            node_id: member.node_id.to_string(),
            name: member.name,
            state: member.state,
            is_self: member.is_self,
            connected: member.connected,
            peer_address: member.peer_address.to_string(),
            client_address: member.client_address.to_string(),
            zone: member.zone,
            vnodes: member.vnodes,
            partitions: member.partitions,
            hint_bytes: member.hint_bytes,
            load_per_second: member.load_per_second,
            complete: member.complete,
            agrees: member.agrees,
            read_latency_us: member.read_latency_us,
            write_latency_us: member.write_latency_us,
            slow: member.slow,
        }
    }
}

impl From<status::RingSummary> for v1::RingSummary {
    fn from(ring: status::RingSummary) -> Self {
        v1::RingSummary {
            epoch: ring.epoch.0,
            partitions: ring.partitions,
            vnodes: ring.vnodes,
            digest: ring.digest,
            unsettled: ring.unsettled,
        }
    }
}

impl From<status::ReplicationStatus> for v1::ReplicationStatus {
    fn from(replication: status::ReplicationStatus) -> Self {
        v1::ReplicationStatus {
            replication_factor: replication.replication_factor,
            read_quorum: replication.read_quorum,
            write_quorum: replication.write_quorum,
            replicas_in_effect: replication.replicas_in_effect,
            read_quorum_in_effect: replication.read_quorum_in_effect,
            write_quorum_in_effect: replication.write_quorum_in_effect,
        }
    }
}

impl From<status::RaftStatus> for v1::RaftSummary {
    fn from(raft: status::RaftStatus) -> Self {
        v1::RaftSummary {
            groups: raft.groups,
            led: raft.led,
            leaderless: raft.leaderless,
            waiting: raft.waiting,
            installing: raft.installing,
            system_leader: raft.system_leader.map(|node| node.to_string()).unwrap_or_default(),
            snapshots_sent: raft.snapshots_sent,
            snapshots_installed: raft.snapshots_installed,
        }
    }
}

impl From<status::HotKey> for v1::HotKey {
    fn from(hot: status::HotKey) -> Self {
        v1::HotKey {
            keyspace: hot.keyspace,
            key: hot.key,
            requests_per_second: hot.requests_per_second,
            share_percent: hot.share_percent,
        }
    }
}

impl From<status::Activity> for v1::Activity {
    fn from(activity: status::Activity) -> Self {
        v1::Activity {
            name: activity.name.to_owned(),
            state: activity.state.to_owned(),
            detail: activity.detail,
        }
    }
}

impl From<status::RingView> for v1::RingResponse {
    fn from(ring: status::RingView) -> Self {
        let partition = |view: status::PartitionView| v1::Partition {
            partition: u32::from(view.partition.0),
            primaries: convert::ids(&view.primaries),
            leader: view.leader.map(|node| node.to_string()).unwrap_or_default(),
        };
        v1::RingResponse {
            summary: Some(ring.summary.into()),
            members: ring.members.into_iter().map(Into::into).collect(),
            partitions: ring.partitions.into_iter().map(partition).collect(),
        }
    }
}

impl From<status::KeyOwners> for v1::OwnersResponse {
    fn from(owners: status::KeyOwners) -> Self {
        let owner = |view: status::OwnerView| v1::Owner {
            node_id: view.node_id.to_string(),
            name: view.name,
            role: view.role.to_owned(),
            state: view.state,
            client_address: view.client_address.to_string(),
        };
        v1::OwnersResponse {
            key: owners.key,
            token: owners.token.0,
            partition: u32::from(owners.partition.0),
            owners: owners.owners.into_iter().map(owner).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
