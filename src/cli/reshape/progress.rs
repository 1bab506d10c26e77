//! Follows partitions until all have arrived: a bar on a terminal, one line at the end.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::connection::Cluster;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::reshape::{ask_transfers, transfers_json};
use crate::proto::v1;

/// How often the cluster is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until every partition and group is where it is to be, and nobody is leaving any more, as
/// told by a node that has heard of an epoch.
pub(super) async fn follow(cluster: &Cluster, epoch: u64, out: Output) -> Result<(), Failure> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{wide_bar} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let arrived = loop {
        let transfers = ask_transfers(cluster).await?;
        bar.set_length(u64::from(transfers.partitions));
        bar.set_position(u64::from(settled(&transfers)));
        bar.set_message(format!("{} moving", transfers.moves.len()));
        if transfers.epoch >= epoch && is_over(&transfers) {
            break transfers;
        }
        tokio::time::sleep(INTERVAL).await;
    };
    bar.finish_and_clear();
    match out {
        Output::Json => output::json(&transfers_json(&arrived)),
        Output::Table => output::line(&summary(&arrived)),
    }
}

fn is_over(transfers: &v1::TransfersResponse) -> bool {
    let leaving = transfers.members.iter().any(|member| member.standing == "leaving");
    transfers.settled && transfers.groups == 0 && !leaving
}

/// Partitions that are where they are to lie.
fn settled(transfers: &v1::TransfersResponse) -> u32 {
    transfers.partitions.saturating_sub(transfers.unmoved + transfers.moves.len() as u32)
}

/// How far it is, in one line.
pub(super) fn summary(transfers: &v1::TransfersResponse) -> String {
    let moving = transfers.moves.len();
    let copying = transfers.moves.iter().filter(|it| it.step == "copying").count();
    format!(
        "{} of {} partitions are where they are to lie (epoch {}): {} have not set out, {copying} \
         are being copied, {} are served by their new owners; {} groups have to move",
        settled(transfers),
        transfers.partitions,
        transfers.epoch,
        transfers.unmoved,
        moving - copying,
        transfers.groups
    )
}
