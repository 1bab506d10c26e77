//! Follows partitions until all have arrived: a bar on a terminal, and at the end who is on the
//! ring.
//!
//! A node that was started a moment ago is no member yet, and nothing moves to it. Nobody can tell
//! that it is to come but whoever started it, so one can be waited for by name.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::connection::Cluster;
use crate::cli::failure::Failure;
use crate::cli::operator::ask_status;
use crate::cli::output::{self, Output};
use crate::cli::reshape::{ask_transfers, transfers_json};
use crate::proto::v1;

/// How often the cluster is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// What is waited for, beside that nothing moves.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// An epoch that the node must have heard of which tells.
    pub(super) epoch: u64,
    /// Members that must be on the ring, by name or id.
    pub(super) nodes: Vec<String>,
}

/// What a node tells of the members and of what moves between them.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) members: Vec<v1::Member>,
    /// The epoch in which they were members.
    pub(super) epoch: u64,
    pub(super) transfers: v1::TransfersResponse,
}

/// Waits until every partition and group is where it is to be, nobody is leaving any more, and what
/// else is awaited holds.
pub(super) async fn follow(
    cluster: &Cluster,
    awaited: Awaited,
    out: Output,
) -> Result<(), Failure> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut noted = Vec::new();
    let seen = loop {
        let seen = Seen::ask(cluster).await?;
        if seen.is_over(&awaited) {
            break seen;
        }
        let (transfers, missing) = (&seen.transfers, seen.missing(&awaited.nodes));
        bar.set_length(u64::from(transfers.partitions));
        bar.set_position(u64::from(settled(transfers)));
        bar.set_message(format!("{} moving", transfers.moves.len()));
        if !missing.is_empty() && missing != noted {
            bar.suspend(|| eprintln!("note: waiting for {}", missing.join("; ")));
            noted = missing;
        }
        tokio::time::sleep(INTERVAL).await;
    };
    bar.finish_and_clear();
    match out {
        Output::Json => output::json(&transfers_json(&seen.transfers)),
        Output::Table => output::line(&seen.summary()),
    }
}

impl Seen {
    /// Members are asked for first: what is told of moves then is no older than they are.
    ///
    /// # Errors
    /// When no node answers.
    pub(super) async fn ask(cluster: &Cluster) -> Result<Seen, Failure> {
        let v1::StatusResponse { members, ring, .. } = ask_status(cluster).await?;
        let epoch = ring.map_or(0, |ring| ring.epoch);
        Ok(Seen { members, epoch, transfers: ask_transfers(cluster).await? })
    }

    fn is_over(&self, awaited: &Awaited) -> bool {
        let transfers = &self.transfers;
        let leaving = transfers.members.iter().any(|member| member.standing == "leaving");
        let has_heard = transfers.epoch >= awaited.epoch.max(self.epoch);
        let nothing_moves = transfers.settled && transfers.groups == 0 && !leaving;
        has_heard && nothing_moves && self.missing(&awaited.nodes).is_empty()
    }

    /// Those of the nodes that are not on the ring, with what keeps them from it.
    fn missing(&self, nodes: &[String]) -> Vec<String> {
        nodes.iter().filter_map(|node| self.keeps_off(node)).collect()
    }

    fn keeps_off(&self, node: &str) -> Option<String> {
        let is_named = |member: &&v1::Member| member.name == node || member.node_id == node;
        let mut named = self.members.iter().filter(is_named).peekable();
        if named.peek().is_none() {
            return Some(format!("{node}, which is no member yet"));
        }
        match named.find_map(|member| self.standing(member)) {
            None => None,
            Some("waiting") => {
                Some(format!("{node}, which waits for: coterie cluster join {node}"))
            }
            Some(standing) => Some(format!("{node}, which is {standing}")),
        }
    }

    /// Whether a member waits for a place or gives its own up; `None` of one that is on the ring.
    fn standing(&self, member: &v1::Member) -> Option<&str> {
        let told = self.transfers.members.iter().find(|it| it.node_id == member.node_id);
        told.map(|told| told.standing.as_str())
    }

    /// How far it is, in one line, and who is on the ring, in another.
    pub(super) fn summary(&self) -> String {
        let on_ring = self.members.iter().filter(|member| self.standing(member).is_none());
        let mut names: Vec<String> = on_ring.map(shown).collect();
        names.sort_unstable();
        let are = if names.len() == 1 { "member is" } else { "members are" };
        let moves = moves_line(&self.transfers);
        format!("{moves}\n{} {are} on the ring: {}", names.len(), names.join(", "))
    }
}

fn shown(member: &v1::Member) -> String {
    let name = if member.name.is_empty() { &member.node_id } else { &member.name };
    match member.state.as_str() {
        "up" => name.clone(),
        state => format!("{name} ({state})"),
    }
}

/// Partitions that are where they are to lie.
fn settled(transfers: &v1::TransfersResponse) -> u32 {
    transfers.partitions.saturating_sub(transfers.unmoved + transfers.moves.len() as u32)
}

fn moves_line(transfers: &v1::TransfersResponse) -> String {
    let (epoch, partitions) = (transfers.epoch, transfers.partitions);
    if transfers.settled && transfers.groups == 0 {
        return format!(
            "nothing moves: all {partitions} partitions are where they are to lie (epoch {epoch})"
        );
    }
    let moving = transfers.moves.len();
    let copying = transfers.moves.iter().filter(|it| it.step == "copying").count();
    format!(
        "{} of {partitions} partitions are where they are to lie (epoch {epoch}): {} have not set \
         out, {copying} are being copied, {} are served by their new owners; {} groups have to \
         move",
        settled(transfers),
        transfers.unmoved,
        moving - copying,
        transfers.groups
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> v1::Member {
        let (name, node_id) = (name.to_owned(), format!("id-{name}"));
        v1::Member { name, node_id, state: "up".to_owned(), ..Default::default() }
    }

    fn standing(name: &str, standing: &str) -> v1::MemberStanding {
        let (name, node_id) = (name.to_owned(), format!("id-{name}"));
        v1::MemberStanding { name, node_id, standing: standing.to_owned(), ..Default::default() }
    }

    fn settled_at(epoch: u64, members: &[&str]) -> Seen {
        let transfers =
            v1::TransfersResponse { epoch, settled: true, partitions: 256, ..Default::default() };
        Seen { members: members.iter().map(|name| member(name)).collect(), epoch, transfers }
    }

    fn awaiting(nodes: &[&str]) -> Awaited {
        let nodes = nodes.iter().map(|&node| node.to_owned()).collect();
        Awaited { epoch: 0, nodes }
    }

    #[test]
    fn a_node_that_is_no_member_yet_is_waited_for_until_its_partitions_have_come() {
        let awaited = awaiting(&["n2"]);
        let mut seen = settled_at(3, &["n1"]);
        assert!(seen.is_over(&awaiting(&[])), "nothing moves");
        assert!(!seen.is_over(&awaited));
        assert_eq!(seen.missing(&awaited.nodes), ["n2, which is no member yet"]);
        seen.members.push(member("n2"));
        seen.transfers.settled = false;
        assert!(!seen.is_over(&awaited));
        assert!(seen.missing(&awaited.nodes).is_empty(), "it is on the ring");
        seen.transfers.settled = true;
        assert!(seen.is_over(&awaited) && seen.is_over(&awaiting(&["id-n2"])));
        seen.epoch = 4;
        assert!(!seen.is_over(&awaited), "what was told of moves is older than the members");
    }

    #[test]
    fn a_node_that_was_not_told_to_join_is_not_on_the_ring() {
        let mut seen = settled_at(3, &["n1", "n2"]);
        seen.transfers.members.push(standing("n2", "waiting"));
        assert!(seen.is_over(&awaiting(&["n1"])) && !seen.is_over(&awaiting(&["n2"])));
        let missing = seen.missing(&awaiting(&["n2"]).nodes);
        assert_eq!(missing, ["n2, which waits for: coterie cluster join n2"]);
    }

    #[test]
    fn the_last_words_say_who_is_on_the_ring() {
        let mut seen = settled_at(3, &["n2", "n1", "n3"]);
        seen.members[0].state = "down".to_owned();
        seen.transfers.members.push(standing("n3", "waiting"));
        let expected = "nothing moves: all 256 partitions are where they are to lie (epoch 3)\n\
                        2 members are on the ring: n1, n2 (down)";
        assert_eq!(seen.summary(), expected);
        seen.transfers.groups = 2;
        assert!(seen.summary().starts_with("256 of 256 partitions"), "{}", seen.summary());
    }
}
