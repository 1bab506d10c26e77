//! `status`, `ring` and `cluster members`.

use serde_json::{Value, json};

use crate::cli::connection::Cluster;
use crate::cli::failure::{Effect, Failure};
use crate::cli::groups::view::SYSTEM;
use crate::cli::output::{self, Output};
use crate::cli::render;
use crate::client::ANSWER_BYTES_MAX;
use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;

pub(crate) async fn status(cluster: &Cluster, out: Output) -> Result<(), Failure> {
    let status = ask_status(cluster).await?;
    match out {
        Output::Json => output::json(&status_json(&status)),
        Output::Table => output::line(&render::status(&status)),
    }
}

/// The members, with their parts in the system group as the node that answers knows them.
pub(crate) async fn members(cluster: &Cluster, out: Output) -> Result<(), Failure> {
    let status = ask_status(cluster).await?;
    let message = v1::GroupsRequest { group: Some(SYSTEM) };
    let call = async |channel| AdminClient::new(channel).groups(cluster.request(message)).await;
    let system = cluster.ask(Effect::Reads, call).await?.into_inner().groups.pop();
    let system = system.unwrap_or_default();
    match out {
        Output::Table => output::line(&render::cluster_members(&status.members, &system)),
        Output::Json => {
            let members = status.members.iter().map(|member| {
                let mut value = member_json(member);
                value["system_group"] = render::part(member, &system).into();
                value
            });
            output::json(&json!({ "members": members.collect::<Vec<Value>>() }))
        }
    }
}

/// What the first node says of itself that answers.
///
/// # Errors
/// When none does.
pub(crate) async fn ask_status(cluster: &Cluster) -> Result<v1::StatusResponse, Failure> {
    let call = async |channel| {
        AdminClient::new(channel).status(cluster.request(v1::StatusRequest {})).await
    };
    Ok(cluster.ask(Effect::Reads, call).await?.into_inner())
}

pub(crate) async fn ring(cluster: &Cluster, out: Output) -> Result<(), Failure> {
    let call = async |channel| {
        let mut client = AdminClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        client.ring(cluster.request(v1::RingRequest {})).await
    };
    let ring = cluster.ask(Effect::Reads, call).await?.into_inner();
    match out {
        Output::Json => output::json(&ring_json(&ring)),
        Output::Table => output::line(&render::ring(&ring)),
    }
}

pub(crate) async fn owners(cluster: &Cluster, key: String, out: Output) -> Result<(), Failure> {
    let message = v1::OwnersRequest { key };
    let call =
        async |channel| AdminClient::new(channel).owners(cluster.request(message.clone())).await;
    let owners = cluster.ask(Effect::Reads, call).await?.into_inner();
    match out {
        Output::Json => output::json(&owners_json(&owners)),
        Output::Table => output::line(&render::owners(&owners)),
    }
}

/// The same fields as `GET /status` has.
fn status_json(status: &v1::StatusResponse) -> Value {
    let serving = status.serving.clone().unwrap_or_default();
    let replication = status.replication.unwrap_or_default();
    let activity =
        |a: &v1::Activity| json!({ "name": a.name, "state": a.state, "detail": a.detail });
    json!({
        "program_version": status.program_version,
        "cluster_id": present(&status.cluster_id),
        "node_id": status.node_id,
        "name": status.name,
        "incarnation": status.incarnation,
        "serving": { "ready": serving.ready, "reason": serving.reason },
        "members": status.members.iter().map(member_json).collect::<Vec<Value>>(),
        "ring": summary_json(status.ring.as_ref()),
        "replication": {
            "replication_factor": replication.replication_factor,
            "read_quorum": replication.read_quorum,
            "write_quorum": replication.write_quorum,
            "replicas_in_effect": replication.replicas_in_effect,
            "read_quorum_in_effect": replication.read_quorum_in_effect,
            "write_quorum_in_effect": replication.write_quorum_in_effect,
        },
        "raft": raft_json(status.raft.as_ref()),
        "activities": status.activities.iter().map(activity).collect::<Vec<Value>>(),
        "warnings": status.warnings,
    })
}

fn raft_json(raft: Option<&v1::RaftSummary>) -> Value {
    let raft = raft.cloned().unwrap_or_default();
    json!({
        "groups": raft.groups,
        "led": raft.led,
        "leaderless": raft.leaderless,
        "waiting": raft.waiting,
        "installing": raft.installing,
        "system_leader": present(&raft.system_leader),
        "snapshots_sent": raft.snapshots_sent,
        "snapshots_installed": raft.snapshots_installed,
    })
}

/// A text, or null when it is empty.
fn present(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn member_json(member: &v1::Member) -> Value {
    json!({
        "node_id": member.node_id,
        "name": member.name,
        "state": member.state,
        "is_self": member.is_self,
        "connected": member.connected,
        "peer_address": member.peer_address,
        "client_address": member.client_address,
        "zone": member.zone,
        "vnodes": member.vnodes,
        "partitions": member.partitions,
        "hint_bytes": member.hint_bytes,
        "load_per_second": member.load_per_second,
        "complete": member.complete,
        "agrees": member.agrees,
    })
}

fn summary_json(summary: Option<&v1::RingSummary>) -> Value {
    let summary = summary.cloned().unwrap_or_default();
    json!({
        "epoch": summary.epoch,
        "partitions": summary.partitions,
        "vnodes": summary.vnodes,
        "digest": summary.digest,
        "unsettled": summary.unsettled,
    })
}

/// The same fields as `GET /ring` has.
fn ring_json(ring: &v1::RingResponse) -> Value {
    let partition = |p: &v1::Partition| {
        let leader = present(&p.leader);
        json!({ "partition": p.partition, "primaries": p.primaries, "leader": leader })
    };
    json!({
        "summary": summary_json(ring.summary.as_ref()),
        "members": ring.members.iter().map(member_json).collect::<Vec<Value>>(),
        "partitions": ring.partitions.iter().map(partition).collect::<Vec<Value>>(),
    })
}

/// The same fields as `GET /ring?key=` has.
fn owners_json(owners: &v1::OwnersResponse) -> Value {
    let owner = |owner: &v1::Owner| {
        json!({
            "node_id": owner.node_id,
            "name": owner.name,
            "role": owner.role,
            "state": owner.state,
            "client_address": owner.client_address,
        })
    };
    json!({
        "key": owners.key,
        "token": owners.token,
        "partition": owners.partition,
        "owners": owners.owners.iter().map(owner).collect::<Vec<Value>>(),
    })
}
