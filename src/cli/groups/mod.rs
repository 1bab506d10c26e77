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

/// How long a member may take to tell of its groups: one that hangs must not keep an answer from
/// whoever asks all.
const MEMBER_TIME: Duration = Duration::from_secs(2);

/// How long the first leaders of partitions are waited for, unless said otherwise.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a change of leaders is waited for, unless said otherwise.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// A leader that was told to hand on, and leads still or again after so many looks, is told once
/// more: it gave up after an election timeout, or the balance of leaders gave the group back to it.
const LOOKS_PER_ORDER: u32 = 20;

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
    let mut orders = Orders::default();
    let handing_on = tokio::time::timeout(timeout, hand_on(cluster, group, &node, &mut orders));
    let handed_on = handing_on.await;
    let late = |_| {
        let group = group_name(group);
        let message = format!("{node} does not lead group {group} after {timeout:?}");
        Failure::new(Exit::Unknown, orders.refusal.iter().fold(message, |m, r| m + ": " + r))
    };
    let leader = handed_on.map_err(late)??;
    let group = group_name(group);
    match out {
        Output::Json => output::json(&json!({ "group": group, "leader": leader.node_id })),
        Output::Table => output::line(&format!("{} leads group {group}", leader.name)),
    }
}

/// What leaders were told to do.
#[derive(Default)]
struct Orders {
    /// The last that was taken: by whom, and for how many looks it is waited for still.
    taken: Option<(Asked, u32)>,
    /// Why the last one was put off.
    refusal: Option<String>,
}

impl Orders {
    /// Whether the leader that a look found is to be told.
    fn is_due(&mut self, leader: &Asked) -> bool {
        let Some((_, looks)) = self.taken.as_mut().filter(|(by, _)| by == leader) else {
            return true;
        };
        *looks = looks.saturating_sub(1);
        *looks == 0
    }

    fn note(&mut self, leader: &Asked, refusal: Option<&Status>) {
        self.taken = refusal.is_none().then(|| (leader.clone(), LOOKS_PER_ORDER));
        self.refusal = refusal.map(|status| status.message().to_owned());
    }
}

/// Resolves once the node leads.
async fn hand_on(
    cluster: &Cluster,
    group: u32,
    node: &str,
    orders: &mut Orders,
) -> Result<Asked, Failure> {
    loop {
        let picture = look(cluster, Some(group)).await?;
        let found = picture.group(group).ok_or_else(|| no_such_group(&picture, group))?;
        match found.leader().map(|view: &View| &view.asked) {
            Some(leader) if leader.node_id == node || leader.name == node => {
                return Ok(leader.clone());
            }
            Some(leader) if orders.is_due(leader) => {
                let refusal = order(cluster, leader, group, node).await.err();
                orders.note(leader, refusal.as_ref());
                if let Some(status) = refusal
                    && status.code() != Code::Unavailable
                    && !has_moved(&status, cluster, group, leader).await
                {
                    let (heard, effect) = (Heard::of(&status), Effect::Operates);
                    return Err(Failure::of_request(&heard, effect, &leader.address));
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
    let asked = status.members.iter().map(async |member| {
        let late = |_| Err((member.name.clone(), format!("no answer within {MEMBER_TIME:?}")));
        tokio::time::timeout(MEMBER_TIME, ask(cluster, member, group)).await.unwrap_or_else(late)
    });
    let said = join_all(asked).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> Asked {
        Asked { name: name.to_owned(), ..Asked::default() }
    }

    #[test]
    fn a_leader_is_told_again_when_it_still_leads_after_a_while_and_another_one_at_once() {
        let mut orders = Orders::default();
        assert!(orders.is_due(&asked("n1")));
        orders.note(&asked("n1"), None);
        assert!(orders.is_due(&asked("n2")));
        let due = (0..LOOKS_PER_ORDER).map(|_| orders.is_due(&asked("n1")));
        assert_eq!(due.filter(|due| *due).count(), 1);
        assert!(orders.is_due(&asked("n1")));
        orders.note(&asked("n1"), None);
        assert!(!orders.is_due(&asked("n1")));
    }

    #[test]
    fn a_leader_that_put_it_off_is_told_again_at_once() {
        let mut orders = Orders::default();
        orders.note(&asked("n1"), Some(&Status::unavailable("handing on")));
        assert!(orders.is_due(&asked("n1")));
        assert_eq!(orders.refusal.as_deref(), Some("handing on"));
        orders.note(&asked("n1"), None);
        assert!(!orders.is_due(&asked("n1")) && orders.refusal.is_none());
    }
}
