//! `cluster plan`, `join`, `leave`, `replace`, `remove` and `transfers`.

mod progress;

use std::fmt::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::connection::Cluster;
use crate::cli::failure::{Effect, Failure};
use crate::cli::operator::ask_status;
use crate::cli::output::{self, Output, table};
use crate::cli::reshape::progress::{Awaited, Seen};
use crate::client::ANSWER_BYTES_MAX;
use crate::config::units::about_size;
use crate::proto::v1;
use crate::proto::v1::admin_client::AdminClient;

/// What changes the ring, and what shows how it changes.
#[derive(Debug, Subcommand)]
pub(crate) enum ReshapeCommand {
    /// Show what a change of the ring would move, and what it would risk; changes nothing.
    Plan {
        /// A member that takes a place.
        #[arg(long, value_name = "NODE")]
        join: Vec<String>,
        /// A member that gives its place up.
        #[arg(long, value_name = "NODE")]
        leave: Vec<String>,
        /// A member that gives its exact place up to another.
        #[arg(long, value_name = "OLD=NEW", value_parser = replacement)]
        replace: Vec<(String, String)>,
        /// A member that is gone for good.
        #[arg(long, value_name = "NODE")]
        remove: Vec<String>,
    },
    /// Have members take their places on the ring: those that were started with --join manual.
    Join {
        /// Names or ids.
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Return once every partition has arrived.
        #[arg(long)]
        wait: bool,
    },
    /// Have members hand over all that they hold, and go for good. They must be up.
    Leave {
        /// Names or ids.
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Return once they have gone.
        #[arg(long)]
        wait: bool,
    },
    /// Have a new member, started with --join manual, take the exact place of another.
    Replace {
        /// The member that goes: it hands over if it is up; if it is not, its other owners do.
        old: String,
        /// The member that comes.
        new: String,
        /// Replace a member that is down even if acknowledged writes may be lost with it.
        #[arg(long)]
        force: bool,
        /// Return once every partition has arrived.
        #[arg(long)]
        wait: bool,
    },
    /// Remove a member that is down and will not come back; other owners fill its place.
    Remove {
        /// Its name or id.
        node: String,
        /// Remove it even if acknowledged writes may be lost with it, or while it is up.
        #[arg(long)]
        force: bool,
        /// Return once every partition has arrived.
        #[arg(long)]
        wait: bool,
    },
    /// Show which partitions are on their way, and who is on the ring.
    Transfers {
        /// Follow them until all have arrived: at once where nothing moves.
        #[arg(long)]
        watch: bool,
        /// With --watch, wait for this member to be on the ring, too: one that was started a moment
        /// ago is not, and nothing moves to it yet.
        #[arg(long = "for", value_name = "NODE", requires = "watch", value_delimiter = ',')]
        comers: Vec<String>,
    },
}

fn replacement(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(old, new)| !old.is_empty() && !new.is_empty());
    let (old, new) = pair.ok_or("give OLD=NEW, as in n2=n5")?;
    Ok((old.to_owned(), new.to_owned()))
}

/// Runs one of them.
pub(crate) async fn run(
    cluster: &Cluster,
    command: ReshapeCommand,
    out: Output,
) -> Result<(), Failure> {
    let none = v1::RingChange::default();
    let (change, wait) = match command {
        ReshapeCommand::Plan { join, leave, replace, remove } => {
            let replace = replace.into_iter().map(|(old, new)| v1::Replacement { old, new });
            let replace = replace.collect();
            let change = v1::RingChange { join, leave, replace, remove, ..none };
            return plan(cluster, change, out).await;
        }
        ReshapeCommand::Transfers { watch: false, .. } => return transfers(cluster, out).await,
        ReshapeCommand::Transfers { watch: true, comers: nodes } => {
            return progress::follow(cluster, Awaited { nodes, epoch: 0 }, out).await;
        }
        ReshapeCommand::Join { nodes, wait } => (v1::RingChange { join: nodes, ..none }, wait),
        ReshapeCommand::Leave { nodes, wait } => (v1::RingChange { leave: nodes, ..none }, wait),
        ReshapeCommand::Replace { old, new, force, wait } => {
            (replace(cluster, old, new, force).await?, wait)
        }
        ReshapeCommand::Remove { node, force, wait } => {
            (v1::RingChange { remove: vec![node], force, ..none }, wait)
        }
    };
    let epoch = decide(cluster, change).await?;
    if wait {
        return progress::follow(cluster, Awaited { epoch, nodes: Vec::new() }, out).await;
    }
    match out {
        Output::Json => output::json(&json!({ "epoch": epoch })),
        Output::Table => output::line(&format!(
            "decided, epoch {epoch}; partitions are on their way: coterie cluster transfers --watch"
        )),
    }
}

/// One that is down is removed in the same breath: it can hand nothing over, and must not return.
async fn replace(
    cluster: &Cluster,
    old: String,
    new: String,
    force: bool,
) -> Result<v1::RingChange, Failure> {
    let status = ask_status(cluster).await?;
    let is_old = |member: &&v1::Member| member.name == old || member.node_id == old;
    let down = status.members.iter().find(is_old).is_some_and(|member| member.state != "up");
    let remove = if down { vec![old.clone()] } else { Vec::new() };
    let replace = vec![v1::Replacement { old, new }];
    Ok(v1::RingChange { replace, remove, force, ..Default::default() })
}

async fn decide(cluster: &Cluster, change: v1::RingChange) -> Result<u64, Failure> {
    let call = async |channel| {
        AdminClient::new(channel).change_ring(cluster.request(change.clone())).await
    };
    Ok(cluster.ask(Effect::Operates, call).await?.into_inner().epoch)
}

async fn plan(cluster: &Cluster, change: v1::RingChange, out: Output) -> Result<(), Failure> {
    let call = async |channel| {
        let mut client = AdminClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        client.plan_ring(cluster.request(change.clone())).await
    };
    let planned = cluster.ask(Effect::Reads, call).await?.into_inner();
    match out {
        Output::Json => output::json(&plan_json(&planned)),
        Output::Table => output::line(&plan_page(&planned)),
    }
}

pub(super) async fn ask_transfers(cluster: &Cluster) -> Result<v1::TransfersResponse, Failure> {
    let call = async |channel| {
        let mut client = AdminClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        client.transfers(cluster.request(v1::TransfersRequest {})).await
    };
    Ok(cluster.ask(Effect::Reads, call).await?.into_inner())
}

async fn transfers(cluster: &Cluster, out: Output) -> Result<(), Failure> {
    match out {
        Output::Json => output::json(&transfers_json(&ask_transfers(cluster).await?)),
        Output::Table => output::line(&transfers_page(&Seen::ask(cluster).await?)),
    }
}

fn plan_page(plan: &v1::RingPlan) -> String {
    let mut page = format!(
        "At epoch {}: {} partitions get other owners, {} copies of about {} in all; {} groups of \
         strong keyspaces move.\n",
        plan.epoch,
        plan.partitions,
        plan.copies,
        about_size(plan.bytes_estimated),
        plan.groups
    );
    if !plan.shares.is_empty() {
        let row = |share: &v1::RingShare| {
            let name = if share.name.is_empty() { &share.node_id } else { &share.name };
            vec![name.clone(), share.gains.to_string(), share.loses.to_string()]
        };
        let rows = plan.shares.iter().map(row).collect();
        let head = ["node", "gains", "loses"];
        let _ = write!(page, "\n{}", table(&head, &["gains", "loses"], rows));
    }
    for risk in &plan.at_risk {
        let _ = write!(page, "\nAT RISK  {risk}");
    }
    page
}

fn transfers_page(seen: &Seen) -> String {
    let (mut page, transfers) = (seen.summary(), &seen.transfers);
    if !transfers.moves.is_empty() {
        let rows = transfers.moves.iter().map(|it| {
            let nodes = |nodes: &[String]| nodes.join(" ");
            let (from, to) = (nodes(&it.from), nodes(&it.to));
            vec![it.partition.to_string(), it.step.clone(), from, to, nodes(&it.waiting)]
        });
        let head = ["partition", "step", "from", "to", "waits for"];
        let _ = write!(page, "\n\n{}", table(&head, &["partition"], rows.collect()));
    }
    for member in &transfers.members {
        let _ = write!(page, "\n{} is {}", member.name, member.standing);
        if !member.holds.is_empty() {
            let _ = write!(page, ": {}", member.holds);
        }
    }
    page
}

fn move_json(it: &v1::PartitionMove) -> Value {
    json!({
        "partition": it.partition,
        "to": it.to,
        "from": it.from,
        "step": it.step,
        "waiting": it.waiting,
    })
}

fn plan_json(plan: &v1::RingPlan) -> Value {
    let share = |share: &v1::RingShare| {
        json!({
            "node_id": share.node_id,
            "name": share.name,
            "gains": share.gains,
            "loses": share.loses,
        })
    };
    json!({
        "epoch": plan.epoch,
        "partitions": plan.partitions,
        "copies": plan.copies,
        "bytes_estimated": plan.bytes_estimated,
        "groups": plan.groups,
        "shares": plan.shares.iter().map(share).collect::<Vec<Value>>(),
        "moves": plan.moves.iter().map(move_json).collect::<Vec<Value>>(),
        "at_risk": plan.at_risk,
    })
}

/// The same fields as `GET /transfers` has.
pub(super) fn transfers_json(transfers: &v1::TransfersResponse) -> Value {
    let member = |member: &v1::MemberStanding| {
        json!({
            "node_id": member.node_id,
            "name": member.name,
            "standing": member.standing,
            "holds": member.holds,
        })
    };
    json!({
        "epoch": transfers.epoch,
        "settled": transfers.settled,
        "partitions": transfers.partitions,
        "unmoved": transfers.unmoved,
        "moves": transfers.moves.iter().map(move_json).collect::<Vec<Value>>(),
        "groups": transfers.groups,
        "members": transfers.members.iter().map(member).collect::<Vec<Value>>(),
        "bytes_taken_over": transfers.bytes_taken_over,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_names_two_nodes() {
        assert_eq!(replacement("a=b"), Ok(("a".to_owned(), "b".to_owned())));
        for wrong in ["a", "=b", "a=", ""] {
            assert!(replacement(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_say_what_moves_and_what_is_at_risk() {
        let share = v1::RingShare { name: "n4".to_owned(), gains: 9, ..Default::default() };
        let plan = v1::RingPlan {
            epoch: 7,
            partitions: 9,
            copies: 9,
            bytes_estimated: 4096,
            shares: vec![share],
            at_risk: vec!["keyspace default: some".to_owned()],
            ..Default::default()
        };
        let page = plan_page(&plan);
        for part in ["epoch 7", "9 partitions", "4.0 KiB", "n4", "AT RISK  keyspace default"] {
            assert!(page.contains(part), "{page}");
        }
        let moving = v1::PartitionMove { step: "copying".to_owned(), ..Default::default() };
        let leaving = v1::MemberStanding {
            name: "n2".to_owned(),
            standing: "leaving".to_owned(),
            holds: "3 groups".to_owned(),
            ..Default::default()
        };
        let transfers = v1::TransfersResponse {
            partitions: 256,
            unmoved: 10,
            moves: vec![moving],
            members: vec![leaving],
            ..Default::default()
        };
        let page = transfers_page(&Seen { transfers, ..Seen::default() });
        for part in ["245 of 256", "copying", "n2 is leaving: 3 groups"] {
            assert!(page.contains(part), "{page}");
        }
    }
}
