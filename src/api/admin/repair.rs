//! Repairs on the wire.

use crate::node::repair::{RepairAsked, RepairProgress};
use crate::node::request::RequestError;
use crate::node::service::Node;
use crate::proto::v1;

/// Begins a repair, or tells how far one is.
///
/// # Errors
/// [`RequestError`] when there is nothing of that kind to repair, or no such repair.
pub(super) fn serve(
    node: &Node,
    request: v1::RepairRequest,
) -> Result<v1::RepairResponse, RequestError> {
    let v1::RepairRequest { keyspace, partition, run } = request;
    let progress = match run {
        Some(run) => node.repair_progress(run)?,
        None => node.repair(&RepairAsked { keyspace, partition })?,
    };
    Ok(response(progress))
}

fn response(progress: RepairProgress) -> v1::RepairResponse {
    let done = progress.is_done();
    let failure = |(reason, pairs)| v1::RepairFailure { reason, pairs };
    v1::RepairResponse {
        run: progress.run,
        pairs: progress.pairs,
        compared: progress.compared,
        failed: progress.failed,
        done,
        rows_differing: progress.differing,
        rows_sent: progress.sent,
        rows_fetched: progress.fetched,
        failures: progress.failures.into_iter().map(failure).collect(),
    }
}
