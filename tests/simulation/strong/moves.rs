//! What operators do to groups while clients are at work: leaders are handed over, replicas move.

use std::collections::BTreeSet;
use std::sync::Arc;

use coterie::protocol::raft::Role;
use coterie::protocol::system::SystemCommand;
use coterie::types::NodeId;

use super::judge::{lacks, statuses};
use super::watch::groups;
use crate::cluster::Cluster;
use crate::dice::Dice;

/// Asks a machine's node to hand over some of the groups that it leads.
pub(crate) async fn hand_over(cluster: Arc<Cluster>, machine: usize, seed: u64) {
    let Some(session) = cluster.session(machine) else { return };
    let mut dice = Dice::new(seed);
    for status in groups(session.clone()).await {
        let voters: Vec<NodeId> =
            status.replicas.iter().filter(|(_, _, votes)| *votes).filter_map(|r| r.1).collect();
        if status.role != Role::Leader || voters.is_empty() || !dice.chance(500) {
            continue;
        }
        let to = dice.pick(&voters);
        let mut node = session.clone();
        let told = tokio::select! {
            biased;
            () = node.ended() => return,
            told = session.node.transfer_leader(status.group, to) => told,
        };
        cluster.note(format_args!("{machine} hands {} to {to}: {told:?}", status.group));
    }
}

/// Has the system group move the replicas of some groups, by a machine's node.
pub(crate) async fn place(cluster: Arc<Cluster>, machine: usize, seed: u64) {
    let Some(mut session) = cluster.session(machine) else { return };
    let Some(state) = session.node.system() else { return };
    let mut dice = Dice::new(seed);
    let members: Vec<NodeId> = state.members().keys().copied().collect();
    let statuses = statuses(&cluster).await;
    for (group, placement) in state.groups() {
        // A move is asked for once the one before it is complete, as a careful operator would.
        let seen = statuses.get(group).map(Vec::as_slice).unwrap_or_default();
        if !dice.chance(250) || lacks(*group, &placement.replicas, seen).is_some() {
            continue;
        }
        let mut nodes = BTreeSet::new();
        while nodes.len() < placement.replicas.len() {
            nodes.insert(dice.pick(&members));
        }
        let expected_generation = placement.generation;
        let node = session.node.clone();
        let command = SystemCommand::PlaceGroup { group: *group, expected_generation, nodes };
        let line = format!("{command:?}");
        let told = tokio::select! {
            biased;
            () = session.ended() => return,
            told = node.decide(command) => told,
        };
        cluster.note(format_args!("{machine} {line}: {told:?}"));
    }
}
