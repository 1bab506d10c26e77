//! `coterie raft status` and `coterie leader transfer`: what only all nodes together know.

mod show;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tonic::{Code, Status};

use crate::cli::connection::{Cluster, endpoint};
use crate::cli::failure::{Effect, Exit, Failure};
use crate::cli::groups::view::{Asked, GroupView, Picture, SYSTEM, View, group_name};
use crate::cli::output::{self, Output};
use crate::client::{ANSWER_BYTES_MAX, Heard, root_cause};
use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;

/// How often a group is looked at while its leader changes.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long the first leaders of partitions are waited for, unless said otherwise.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a change of leaders is waited for, unless said otherwise.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// `coterie raft status`: asks every member of the cluster.
///
/// # Errors
/// When no node can be asked, or none has a replica of the group.
pub(crate) async fn status(
    cluster: &Cluster,
    group: Option<u32>,
    out: Output,
) -> Result<(), Failure> {
    let picture = look(cluster, group).await?;
    if out == Output::Json {
        return output::json(&show::json(&picture));
    }
    let Some(number) = group else { return output::line(&show::all(&picture)) };
    let found = picture.group(number).ok_or_else(|| no_such_group(&picture, number))?;
    output::line(&show::one(&picture, found))
}

/// `coterie leader transfer`: asks the leader, whoever that is by now, until the node leads.
///
/// # Errors
/// When the leader refuses, or the time runs out.
pub(crate) async fn transfer(
    cluster: &Cluster,
    group: u32,
    node: String,
    out: Output,
) -> Result<(), Failure> {
    let timeout = cluster.timeout().unwrap_or(TRANSFER_TIMEOUT);
    let handing_on = tokio::time::timeout(timeout, hand_on(cluster, group, &node));
    let late = |_| {
        let group = group_name(group);
        let message = format!("{node} does not lead group {group} after {timeout:?}");
        Failure::new(Exit::Unknown, message)
    };
    let leader = handing_on.await.map_err(late)??;
    let group = group_name(group);
    match out {
        Output::Json => output::json(&json!({ "group": group, "leader": leader.node_id })),
        Output::Table => output::line(&format!("{} leads group {group}", leader.name)),
    }
}

/// Resolves once the node leads.
async fn hand_on(cluster: &Cluster, group: u32, node: &str) -> Result<Asked, Failure> {
    let mut asked_before: Option<Asked> = None;
    loop {
        let picture = look(cluster, Some(group)).await?;
        let found = picture.group(group).ok_or_else(|| no_such_group(&picture, group))?;
        match found.leader().map(|view: &View| &view.asked) {
            Some(leader) if leader.node_id == node || leader.name == node => {
                return Ok(leader.clone());
            }
            Some(leader) if asked_before.as_ref() != Some(leader) => {
                match order(cluster, leader, group, node).await {
                    Ok(()) => asked_before = Some(leader.clone()),
                    Err(status) if has_moved(&status, cluster, group, leader).await => {}
                    Err(status) => {
                        return Err(Failure::of_request(
                            &Heard::of(&status),
                            Effect::Operates,
                            &leader.address,
                        ));
                    }
                }
            }
            // It hands on, or is about to be elected.
            _ => {}
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn order(cluster: &Cluster, leader: &Asked, group: u32, node: &str) -> Result<(), Status> {
    let message = v1::TransferLeaderRequest { group, node: node.to_owned() };
    let mut client = connect(&leader.address).await.map_err(Status::unavailable)?;
    client.transfer_leader(cluster.request(message)).await.map(drop)
}

/// Whether a refusal comes from a node that led a moment ago and does no more.
async fn has_moved(status: &Status, cluster: &Cluster, group: u32, leader: &Asked) -> bool {
    if status.code() != Code::FailedPrecondition {
        return false;
    }
    let now = look(cluster, Some(group)).await;
    let leads = |picture: Picture| {
        let leader_now = picture.group(group)?.leader()?.asked.node_id.clone();
        Some(leader_now == leader.node_id)
    };
    now.ok().and_then(leads) != Some(true)
}

/// Waits until every partition's group has a leader.
///
/// # Errors
/// What stood in the way when the time was up.
pub(crate) async fn await_leaders(cluster: &Cluster) -> Result<(), String> {
    let timeout = cluster.timeout().unwrap_or(LEADERS_TIMEOUT);
    let mut waited = Duration::ZERO;
    loop {
        let reason = match leaderless(cluster).await {
            Ok((0, _)) => return Ok(()),
            Ok((missing, all)) => format!("{missing} of {all} partitions have no leader yet"),
            Err(failure) => failure.to_string(),
        };
        if waited >= timeout {
            return Err(reason);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        waited += LOOK_INTERVAL;
    }
}

/// How many partitions have no leader, of how many.
async fn leaderless(cluster: &Cluster) -> Result<(usize, usize), Failure> {
    let call = async |channel| {
        AdminClient::new(channel).status(cluster.request(v1::StatusRequest {})).await
    };
    let status = cluster.ask(Effect::Reads, call).await?.into_inner();
    let all = status.ring.map_or(0, |ring| ring.partitions as usize);
    let picture = look(cluster, None).await?;
    let led = |group: &&GroupView| group.number != SYSTEM && group.leader().is_some();
    let led = picture.groups.iter().filter(led).count();
    Ok((all.saturating_sub(led), all))
}

/// Asks one node who the members are, and all members for their groups.
async fn look(cluster: &Cluster, group: Option<u32>) -> Result<Picture, Failure> {
    let call = async |channel| {
        AdminClient::new(channel).status(cluster.request(v1::StatusRequest {})).await
    };
    let status = cluster.ask(Effect::Reads, call).await?.into_inner();
    let names: BTreeMap<String, String> =
        status.members.iter().map(|m| (m.node_id.clone(), m.name.clone())).collect();
    let said = join_all(status.members.iter().map(|member| ask(cluster, member, group))).await;
    let (mut answers, mut unreached) = (Vec::new(), Vec::new());
    for outcome in said {
        match outcome {
            Ok(answer) => answers.push(answer),
            Err(reason) => unreached.push(reason),
        }
    }
    Ok(Picture::new(names, answers, unreached))
}

/// A member's groups, or its name and why there is no answer.
async fn ask(
    cluster: &Cluster,
    member: &v1::Member,
    group: Option<u32>,
) -> Result<(Asked, Vec<v1::Group>), (String, String)> {
    let unheard = |reason: String| (member.name.clone(), reason);
    if member.state == "down" {
        return Err(unheard(String::from("down")));
    }
    let mut client = connect(&member.client_address).await.map_err(unheard)?;
    let answer = client.groups(cluster.request(v1::GroupsRequest { group })).await;
    let answer = answer.map_err(|status| unheard(root_cause(&status)))?;
    let asked = Asked {
        node_id: member.node_id.clone(),
        name: member.name.clone(),
        address: member.client_address.clone(),
    };
    Ok((asked, answer.into_inner().groups))
}

async fn connect(address: &str) -> Result<AdminClient<tonic::transport::Channel>, String> {
    let endpoint = endpoint(address).map_err(|failure| failure.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| root_cause(&error))?;
    Ok(AdminClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

fn no_such_group(picture: &Picture, group: u32) -> Failure {
    let mut message =
        format!("no node that was asked has a replica of group {}", group_name(group));
    if picture.unreached.is_empty() {
        message.push_str("; groups of partitions exist while there is a strong keyspace");
    }
    for (node, reason) in &picture.unreached {
        message.push_str(&format!("; {node} was not heard ({reason})"));
    }
    Failure::failed(message)
}
